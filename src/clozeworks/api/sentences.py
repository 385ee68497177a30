"""What a run cuts from its text: told before the first step, refused where it teaches nothing."""

from clozeworks.core.errors import UserError
from clozeworks.core.log import say
from clozeworks.data.pairs import Pairs, Plan

LABEL_ONE: dict[Pairs, str] = {"next": "from elsewhere", "order": "swapped"}
"""What label 1 says of a second segment."""
UNEVEN = 0.7
"""Share of one label from which always answering it is nearly all there is to learn."""
MUCH = 0.3
"""Share of the text trimmed from which a run is told of it."""


def described(plan: Plan, kind: Pairs) -> str:
    """What one epoch cuts from some documents, in a line."""
    lengths = plan.lengths
    line = f"{len(lengths):,} sequences an epoch, {lengths.sum() / max(1, len(lengths)):.0f} tokens"
    if kind == "none" or plan.share is None:
        return line
    alone = (plan.labels < 0).mean()
    line += f"; {plan.share:.1%} of second segments {LABEL_ONE[kind]}, {_trimmed(plan):.1%} trimmed"
    return f"{line}, {alone:.1%} alone" if alone else line


def check_pairs(plan: Plan, kind: Pairs, max_length: int) -> None:
    """Say where the pairs to learn from are uneven or much trimmed, and what to do.

    Raises UserError where there are none, or all of them have the same label.
    """
    share = plan.share
    if kind == "none":
        return
    if share is None:
        raise UserError("the text gives no pair of sentences to learn from; give more text")
    if share in (0, 1):
        fault = LABEL_ONE[kind] if share else "in their place"
        raise UserError(
            f"all second segments are {fault} in pairs of {max_length} tokens, so there is nothing "
            "to tell apart: give a longer --max-length, more documents or documents of more "
            "sentences, or learn without pairs (mlm)"
        )
    if max(share, 1 - share) > UNEVEN:
        say(
            f"{share:.0%} of second segments are {LABEL_ONE[kind]}: that alone is soon learned; a "
            "longer --max-length, or documents of more sentences, make it half of them"
        )
    if (cut := _trimmed(plan)) > MUCH:
        say(
            f"{cut:.0%} of the text is trimmed away in an epoch, since its sentences are long for "
            f"pairs of {max_length} tokens; with a longer --max-length it is less"
        )


def _trimmed(plan: Plan) -> float:
    """Share of the tokens of an epoch that are cut off."""
    return plan.trimmed / max(1, plan.trimmed + int(plan.lengths.sum()))
