"""Learning rates that suit an encoder, where nobody names one."""

from typing import Protocol, Self, TypeVar

from clozeworks.core.log import say
from clozeworks.train.loop import TrainSettings


class Recipe(Protocol):
    """What is read and filled in of a recipe that trains a model."""

    @property
    def train(self) -> TrainSettings: ...

    def model_copy(self, *, update: dict[str, TrainSettings]) -> Self: ...


R = TypeVar("R", bound=Recipe)


def pretraining_rate(width: int, muon: bool) -> float:
    """For pretraining an encoder of this width (H).

    1e-3 up to a width of 256, falling with its square to BERT-base's 1e-4 at 768 (Devlin et al.
    2018, appendix A.2); Muon's updates, scaled to be as large as AdamW's, bear twice that.
    """
    adamw = 1e-3 * min(1.0, (256 / width) ** 2)
    return _short(2 * adamw if muon else adamw)


def finetuning_rate(width: int, pace: float = 1.0) -> float:
    """For fine-tuning an encoder of this width (H), times the `pace` of its task.

    BERT-base's 3e-5 at 768 (Devlin et al. 2018, appendix A.3), growing with the inverse of the
    square as in pretraining: 1.2e-4 at 384, 2.7e-4 at 256; 5e-4 at most.
    """
    return _short(pace * min(5e-4, 3e-5 * (768 / width) ** 2))


def rated(recipe: R, rate: float, width: int) -> R:
    """The recipe with this rate where it names none; says so."""
    if recipe.train.lr is not None:
        return recipe
    say(f"learning rate {rate:g}, which suits a width of {width}; --train.lr sets another")
    return recipe.model_copy(update={"train": recipe.train.model_copy(update={"lr": rate})})


def _short(rate: float) -> float:
    return float(f"{rate:.1e}")
