"""What the history of a pretraining run says in plain words, and what to change."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import fmean, median, pstdev
from typing import NamedTuple

MOST = 400
"""Stretches of a history; when there are more, each takes in its neighbour."""
NEAR = 0.5
"""Nats below guessing by frequency within which a model has learned next to nothing else."""
FLAT = 0.2
"""Nats between two judgements below which a run stands still."""
ENOUGH = 1_000_000
"""Tokens after which a small model should have left the plateau: with short sequences it leaves
within a million, with long ones it may need more than six."""
GUESSING = 0.693
"""Loss of guessing between two answers, in nats."""
RISE = 0.3
"""Nats by which the training loss must rise to be spoken of."""
SPIKE = 1.5
"""Nats above what came before that make a step a spike."""
NO_BETTER = 0.02
"""Nats below guessing that do not show that anything was learned of pairs."""
ALIKE = 0.97
"""Share of the loss of one answer for all from which a discriminator tells nothing."""
GROWN = 10.0
"""How many times its median the gradient norm must be to be spoken of; a single one 10 times
that."""
WORSE = 0.05
"""Nats above the best judgement that are no accident of a few tokens."""
SIZE = "weights_rms"
"""Root mean square of the layers' matrices, by which name a judgement has it."""
LARGE = 0.15
"""Of a good encoder it is below 0.1; at 0.26 attention was seen to look at single tokens."""
SHORT = 64
"""Tokens a sequence up to which a sequence is short."""


class Facts(NamedTuple):
    """What is known of a run besides its history."""

    unigram: float
    """Loss of guessing each token by its frequency, in nats."""
    max_length: int
    lr: float
    warmup: float
    """Share of the steps over which the learning rate rises."""
    total: int
    """Steps of the whole run."""
    corpus: int
    """Tokens to learn from."""
    decay: float = 0.1
    """Weight decay of the run."""


@dataclass
class Stretch:
    """Some steps in a row, summed up."""

    last: int
    steps: int
    tokens: int
    loss: float
    """Mean of the loss, all terms weighed and summed, weighted by tokens."""
    highest: float
    norm: float
    """Mean of the gradient norm before clipping."""
    highest_norm: float

    def joined(self, other: "Stretch") -> "Stretch":
        """This stretch and the one after it."""
        tokens, steps = self.tokens + other.tokens, self.steps + other.steps
        return Stretch(
            last=other.last,
            steps=steps,
            tokens=tokens,
            loss=(self.loss * self.tokens + other.loss * other.tokens) / tokens,
            highest=max(self.highest, other.highest),
            norm=(self.norm * self.steps + other.norm * other.steps) / steps,
            highest_norm=max(self.highest_norm, other.highest_norm),
        )


class Judged(NamedTuple):
    """A judgement on held-out text."""

    step: int
    tokens: int
    """Tokens learned from until then."""
    numbers: Mapping[str, float]


@dataclass
class History:
    """A run so far, in bounded memory: at most MOST stretches of steps, and every judgement."""

    weights: Mapping[str, float] = field(default_factory=dict)
    """Of the terms in the sum that is minimised; 1 where nothing is said."""
    scale: float = 0.0
    """How much larger than the plain sum the weighed one was in the first step."""
    stretches: list[Stretch] = field(default_factory=list)
    judged: list[Judged] = field(default_factory=list)
    tokens: int = 0
    _size: int = 1
    _steps: int = 0

    def step(self, number: int, losses: Mapping[str, float], norm: float, tokens: int) -> None:
        """Take in one step."""
        self.tokens += tokens
        self._steps += 1
        loss = sum(self.weights.get(name, 1.0) * value for name, value in losses.items())
        self.scale = self.scale or loss / max(1e-9, sum(losses.values()))
        # the last step of an epoch may be a few tokens, whose loss says nothing
        whole = tokens * self._steps >= self.tokens / 2
        one = Stretch(number, 1, max(1, tokens), loss, loss if whole else 0.0, norm, norm)
        if self.stretches and self.stretches[-1].steps < self._size:
            self.stretches[-1] = self.stretches[-1].joined(one)
        else:
            self.stretches.append(one)
        if len(self.stretches) > MOST:
            pairs = zip(self.stretches[::2], self.stretches[1::2], strict=False)
            odd = self.stretches[-1:] if len(self.stretches) % 2 else []
            self.stretches = [first.joined(second) for first, second in pairs] + odd
            self._size *= 2

    def judge(self, number: int, numbers: Mapping[str, float]) -> None:
        """Take in one judgement."""
        self.judged.append(Judged(number, self.tokens, dict(numbers)))


def diagnose(history: History, facts: Facts) -> dict[str, str]:
    """What is amiss, by name, each in a few sentences; a function of its arguments alone."""
    looks = {
        "plateau": _plateau,
        "nsp_alone": _nsp_alone,
        "pairs": _pairs,
        "replaced": _replaced,
        "rising": _rising,
        "spikes": _spikes,
        "norm": _norm,
        "overfit": _overfit,
        "large": _large,
    }
    found = {name: look(history, facts) for name, look in looks.items()}
    return {name: sentence for name, sentence in found.items() if sentence}


def _stands(history: History, facts: Facts) -> bool:
    """Whether masked tokens are guessed by their frequency, and that is not getting better."""
    values = _last_two(history, "mlm")
    near = [value > facts.unigram - NEAR for value in values]
    enough = history.tokens >= ENOUGH
    return enough and near == [True, True] and values[0] - values[1] < FLAT


def _plateau(history: History, facts: Facts) -> str:
    if not _stands(history, facts):
        return ""
    advice = "; ".join(_ways_off(history, facts))
    return (
        f"After {_amount(history.tokens)} tokens the held-out loss of masked tokens is "
        f"{history.judged[-1].numbers['mlm']:.2f} nats, about what guessing each by its frequency "
        f"gives ({facts.unigram:.2f}): the model knows how often words occur, and learns nothing "
        f"from their neighbours yet. What to change, likeliest first: {advice}."
    )


def _ways_off(history: History, facts: Facts) -> list[str]:
    """What may lead off the plateau, likeliest first."""
    steps = max(1, sum(s.steps for s in history.stretches))
    each = history.tokens / steps
    planned, read = each * facts.total, history.tokens / max(1, facts.corpus)
    ways = []
    if facts.max_length > SHORT:
        ways.append(
            f"begin with short sequences (--max-length 32 instead of {facts.max_length}), then go "
            "on from that model with long ones"
        )
    if planned < 5 * ENOUGH:
        ways.append(
            f"take more steps: {_amount(planned)} tokens in all are few, a small model needs one "
            "to several million to get off"
        )
    if each < 1000:
        ways.append(f"take larger steps (--train.batch 2048; they have {each:,.0f} tokens now)")
    if facts.lr > 2e-3:
        ways.append(f"lower --train.lr ({facts.lr:g}; 1e-3 suits the smallest models)")
    if facts.lr < 2e-4:
        ways.append(f"raise --train.lr ({facts.lr:g}; 1e-3 suits the smallest models)")
    if read > 20:
        ways.append(f"give more text: {_amount(facts.corpus)} tokens were read over 20 times")
    return [*ways, "look for lines that come again and again in the corpus, and remove them"]


def _nsp_alone(history: History, facts: Facts) -> str:
    """Google's BERT, issue 746: the sum falls, so the run looks healthy."""
    nsp = history.judged[-1].numbers.get("nsp", GUESSING) if history.judged else GUESSING
    if nsp > GUESSING - 0.1 or not _stands(history, facts):
        return ""
    return (
        f"Next sentences are being learned ({nsp:.2f} nats; guessing gives {GUESSING:.2f}) while "
        "masked tokens are not: the sum falls, but what falls is the easy part, for which the "
        "topic's words are enough. Judge this run by mlm, and begin with mlm alone: "
        "clozeworks pretrain mlm …; add nsp in a second run from its model."
    )


def _pairs(history: History, facts: Facts) -> str:
    """Pairs at the loss of guessing, although masked tokens are being learned."""
    name = next((n for n in ("sop", "nsp") if any(n in j.numbers for j in history.judged)), None)
    if name is None or history.tokens < 5 * ENOUGH or _stands(history, facts):
        return ""
    values = _last_two(history, name)
    if len(values) < 2 or min(values) < GUESSING - NO_BETTER:
        return ""
    what = "The order of sentences" if name == "sop" else "Whether sentences follow one another"
    longer = "the text needs documents of several sentences, and --max-length room for them"
    return (
        f"{what} is still guessed after {_amount(history.tokens)} tokens ({name}: {values[-1]:.2f} "
        f"nats; guessing gives {GUESSING:.2f}): {longer}; otherwise take more steps, or lower "
        f"--train.lr ({facts.lr:g})."
    )


def _replaced(history: History, facts: Facts) -> str:
    """A discriminator that is as sure of every token as of any other."""
    values, right = _last_two(history, "rtd"), _last_two(history, "rtd_accuracy")
    if len(values) < 2 or len(right) < 2 or history.tokens < ENOUGH:
        return ""
    # an answer that is the same for all costs the entropy of its errors; one that tells, less
    same = [_entropy(1 - share) for share in right]
    if any(v < ALIKE * s for v, s in zip(values, same, strict=True)):
        return ""
    advice = "; ".join(_ways_off(history, facts))
    return (
        f"After {_amount(history.tokens)} tokens replaced tokens are not told from the others: the "
        f"loss of {values[-1]:.3f} nats is what the same answer for every token gives, right "
        f"{right[-1]:.0%} of the time. What to change, likeliest first: {advice}."
    )


def _last_two(history: History, name: str) -> list[float]:
    return [j.numbers[name] for j in history.judged if name in j.numbers][-2:]


def _entropy(share: float) -> float:
    """Of a coin that shows one side so often, in nats."""
    return -sum(p * math.log(p) for p in (share, 1 - share) if p > 0)


def diverged(why: str, facts: Facts) -> str:
    """What to do about a run that ended because its gradient was no number."""
    return (
        f"The run has diverged ({why}). Lower --train.lr ({facts.lr:g}) to a third or less, or "
        f"lengthen --train.warmup ({facts.warmup:g}); with --train.precision fp32 you see whether "
        "rounding has a part in it."
    )


def _rising(history: History, facts: Facts) -> str:
    few = max(2, len(history.stretches) // 10)
    means = [
        fmean(s.loss for s in history.stretches[end - few : end])
        for end in range(few, len(history.stretches) + 1)
    ]
    if len(means) < 20:
        return ""
    noise = _noise(history) / math.sqrt(few)
    if means[-1] - min(means) < max(RISE * history.scale, 6 * noise):
        return ""
    at = history.stretches[means.index(min(means)) + few - 1].last
    return (
        f"The training loss rises: {min(means):.2f} around step {at:,}, {means[-1]:.2f} now. The "
        f"learning rate is too high for this model and batch: lower --train.lr ({facts.lr:g}) to "
        "a half or a third, or lengthen --train.warmup, and begin again; a run that has diverged "
        "rarely comes back."
    )


def _noise(history: History) -> float:
    """Standard deviation of a stretch's loss, whatever its course: from what neighbours differ by.

    Steps of few tokens differ by more nats than a rise that matters. By the median, as of a normal
    distribution, because the first fall is no noise.
    """
    losses = [stretch.loss for stretch in history.stretches]
    return 1.4826 * median(abs(b - a) for a, b in pairwise(losses)) / math.sqrt(2)


def _spikes(history: History, facts: Facts) -> str:
    found = []
    for i in range(10, len(history.stretches)):
        before = [s.loss for s in history.stretches[i - 10 : i]]
        limit = fmean(before) + max(SPIKE * history.scale, 6 * pstdev(before))
        if history.stretches[i].highest > limit:
            found.append(history.stretches[i])
    if not found:
        return ""
    return (
        f"The training loss jumped by more than {SPIKE * history.scale:.1f} nats near step "
        f"{found[0].last:,}"
        + (f", and {len(found) - 1} times more" if len(found) > 1 else "")
        + ". If it does not come down again within some hundred steps, lower --train.lr "
        f"({facts.lr:g}) or --train.clip; if it does, look at the text it met there: tables, code, "
        "one line a thousand times."
    )


def _norm(history: History, facts: Facts) -> str:
    warm = facts.warmup * facts.total
    norms = [s for s in history.stretches if s.last > warm]
    if len(norms) < 20:
        return ""
    usual = median(s.norm for s in norms)
    recent = fmean(s.norm for s in norms[-max(2, len(norms) // 20) :])
    peak = max(norms, key=lambda s: s.highest_norm)
    if usual <= 0 or (recent < GROWN * usual and peak.highest_norm < 10 * GROWN * usual):
        return ""
    said = (
        f"is {recent:.3g} now"
        if recent >= GROWN * usual
        else f"was {peak.highest_norm:.3g} near step {peak.last:,}"
    )
    return (
        f"The gradient norm {said}, against a median of {usual:.3g}: the run is about to diverge, "
        f"or does. Lower --train.lr ({facts.lr:g}), lengthen --train.warmup, and keep --train.clip "
        "at 1; with --train.precision fp32 you see whether rounding has a part in it."
    )


def _overfit(history: History, facts: Facts) -> str:
    read = history.tokens / max(1, facts.corpus)
    if len(history.judged) < 3 or read < 1:  # what was read once at most is not known by heart
        return ""
    told = [name for name in history.judged[-1].numbers if name != SIZE]
    if not told:
        return ""
    term = next((name for name in ("rtd", "mlm") if name in told), next(iter(told)))
    values = [j.numbers.get(term, float("inf")) for j in history.judged]
    best = min(range(len(values)), key=values.__getitem__)
    rises = values[-1] - values[best] > WORSE and values[-1] > values[-2] > values[best]
    then, now = (_loss_before(history, history.judged[at].step) for at in (best, -1))
    if not rises or now >= then:
        return ""
    return (
        f"The held-out loss rises ({term}: {values[best]:.2f} after step "
        f"{history.judged[best].step:,}, {values[-1]:.2f} now) while the training loss falls "
        f"({then:.2f}, {now:.2f}): the model learns its text by heart, which it has read "
        f"{read:.1f} times. Give more text, stop earlier (a "
        "smaller --train.duration), or drop out more (--train.dropout 0.1)."
    )


def _large(history: History, facts: Facts) -> str:
    """Weights that grew like a random walk of the rate, because decay does not hold them."""
    size = history.judged[-1].numbers.get(SIZE, 0.0) if history.judged else 0.0
    if size < LARGE:
        return ""
    return (
        f"The weights of the layers have grown to {size:.2f} (root mean square; a good encoder's "
        "are below 0.1): attention comes to look at single tokens, and fine-tuning hardly moves "
        "such a model, however good its loss. Go on from it with more decay: --train.decay "
        f"{max(0.3, 3 * facts.decay):g} instead of {facts.decay:g}."
    )


def _loss_before(history: History, step: int) -> float:
    """Mean training loss in the last tenth of the stretches up to a step."""
    until = [s for s in history.stretches if s.last <= step] or history.stretches[:1]
    return fmean(s.loss for s in until[-max(1, len(history.stretches) // 10) :])


def _amount(tokens: float) -> str:
    return f"{tokens / 1e6:.1f} million" if tokens >= 1e6 else f"{tokens:,.0f}"
