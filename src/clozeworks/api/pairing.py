"""What pairs of segments take in a run: text that gives both kinds, and a line that says so."""

from clozeworks.core.errors import UserError
from clozeworks.core.log import say
from clozeworks.data.pairs import Pairs, Plan

LABEL_ONE: dict[Pairs, str] = {"next": "from elsewhere", "order": "swapped"}
"""What label 1 says of a second segment."""
UNEVEN = 0.7
"""Share of one label over which answering it always is too nearly right."""
MUCH_TRIMMED = 0.3
"""Share of the text lost to trimming over which a person should know."""


def described(plan: Plan, kind: Pairs) -> str:
    """What one epoch cuts from some documents, in a line."""
    lengths = plan.lengths
    line = f"{len(lengths):,} sequences an epoch, {lengths.sum() / max(1, len(lengths)):.0f} tokens"
    if kind == "none" or plan.share is None:
        return line
    alone = (plan.labels < 0).mean()
    line += f"; {plan.share:.1%} of second segments {LABEL_ONE[kind]}, {_trimmed(plan):.1%} trimmed"
    return f"{line}, {alone:.1%} alone" if alone else line


def check_pairs(plan: Plan, kind: Pairs) -> None:
    """Say what makes the pairs to learn from of little use.

    Raises UserError where there are none, or one answer is right for all of them.
    """
    if kind == "none":
        return
    share = plan.share
    if share is None:
        raise UserError("the text gives no pair of sentences to learn from; give more text")
    if share in (0, 1):
        raise UserError(
            f"{'every' if share else 'no'} second segment is {LABEL_ONE[kind]}, so that pairs "
            "teach nothing; give more documents, of several sentences, or use mlm alone"
        )
    if max(share, 1 - share) > UNEVEN:
        say(
            f"pairs: {share:.1%} of second segments are {LABEL_ONE[kind]}, so that one answer is "
            "nearly always right; documents of more sentences give more of the other"
        )
    if (trimmed := _trimmed(plan)) > MUCH_TRIMMED:
        say(f"pairs: {trimmed:.1%} of the text is trimmed; a longer --max-length keeps more")


def _trimmed(plan: Plan) -> float:
    """Share of what was cut that is trimmed."""
    return float(plan.trimmed / max(1, plan.trimmed + plan.lengths.sum()))
