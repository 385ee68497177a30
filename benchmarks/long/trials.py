"""What long/tasks.py tries: a task, its rows, how it is trained, and what it is held against."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from beside import (
    Contest,
    bilstm_crf,
    from_chance,
    majority,
    mean_value,
    nearest_sentence,
    no_answer,
    tfidf,
)
from corpora import Numbers
from sets import Sets, as_given, converted, pairs, with_absent_answers, with_every_summary
from trainers import trainer_qa, trainer_tag

SEEDS = (0, 1, 2)
ONCE = (0,)
Beside = Mapping[Callable[[Contest, int], Numbers], tuple[int, ...]]


@dataclass(frozen=True)
class Trial:
    """One task on one set."""

    task: str
    sets: Callable[[Path], Sets]
    """Writes what must be written anew into a folder."""
    train: Mapping[str, Any]
    number: str
    """What it is judged by, of the test rows unless it begins with dev."""
    wanted: str = ""
    """What is to be reached."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    start: Mapping[str, Any] = field(default_factory=dict)
    """What else of `finetune`'s recipe says how it begins."""
    more: tuple[str, ...] = ()
    """Further numbers to show."""
    english: bool = True
    seeds: tuple[int, ...] = SEEDS
    scale: float = 100
    """What its numbers are shown times."""
    beside: Beside = field(default_factory=dict)
    """What is held against it, and with which seeds."""

    @property
    def shown(self) -> tuple[str, ...]:
        """The numbers of the table."""
        return (self.number, *self.more)

    def contest(self, model: Path, out: Path) -> Contest:
        """The same as everyone tries it on a model, with what it writes in `out`."""
        return Contest(self.task, self.sets(out), model, self.settings, self.train, out, self.start)


def given(name: str, test: str = "test") -> Callable[[Path], Sets]:
    """A set as it is."""
    return lambda out: as_given(name, test)


def paired(name: str, test: str = "test") -> Callable[[Path], Sets]:
    """A set of pairs."""
    return lambda out: pairs(name, test)


def from_tydi(judged: str, absent: bool) -> Callable[[Path], Sets]:
    """English questions to learn from, and SQuAD's dev set to judge.

    The answers of TyDi's own dev rows are empty, so some of its training rows stand for them.
    """

    def sets(out: Path) -> Sets:
        learned = (
            converted("tydiqa_en", out, with_absent_answers, "train")
            if absent
            else as_given("tydiqa_en", "train")
        )
        return Sets(learned.train, as_given(judged, "dev").test)

    return sets


def adamw(duration: str, lr: float, batch: int = 32, **more: Any) -> dict[str, Any]:
    """How most of them are trained; durations are of at most eight minutes on two quiet threads."""
    return {"duration": duration, "lr": lr, "batch": batch, **more}


EIGHT_MINUTES = "1300000 tokens"
"""Of all-MiniLM-L6-v2, where an epoch takes longer."""


SCORED_PAIR = {"text": "text_a", "text_pair": "text_b", "score": "label"}
ENDS = {"subject": "head", "object": "tail"}
QA = {"max_length": 320, "overlap": 96}
CHINESE_QA = {"max_length": 128, "overlap": 48, "rules": "cmrc", "answer_length": 60}
"""Windows no longer than the Chinese models were pretrained on."""

TRIALS: dict[str, Trial] = {
    "mrpc": Trial(
        "classify",
        paired("mrpc"),
        adamw("5 epochs", 1e-4),
        "f1.1",
        "87",
        more=("accuracy", "dev.macro_f1"),
        beside={majority: ONCE, tfidf: ONCE},
    ),
    "stsb": Trial(
        "classify",
        paired("stsb"),
        adamw("6 epochs", 2e-4),
        "spearman",
        "84 (dev 86)",
        settings={"kind": "regression"},
        more=("pearson", "mean_absolute_error", "dev.spearman"),
        beside={mean_value: ONCE},
    ),
    "banking77": Trial(
        "classify",
        given("banking77"),
        adamw("9 epochs", 3e-4),
        "accuracy",
        "92.0",
        more=("macro.f1",),
        beside={majority: ONCE, tfidf: ONCE},
    ),
    "wnut17": Trial(
        "tag",
        given("wnut17"),
        adamw("6 epochs", 1.5e-4),
        "micro.f1",
        "Hugging Face's",
        more=("macro.f1", "dev.f1"),
        beside={trainer_tag: SEEDS},
    ),
    "squad1": Trial(
        "qa",
        from_tydi("squad_v1", absent=False),
        adamw("2 epochs", 1.5e-4),
        "f1",
        "Hugging Face's",
        settings=QA,
        more=("exact",),
        seeds=ONCE,
        beside={trainer_qa: ONCE},
    ),
    "squad2": Trial(
        "qa",
        from_tydi("squad_v2", absent=True),
        adamw(EIGHT_MINUTES, 1.5e-4),
        "f1",
        settings=QA,
        more=("exact", "unanswerable_right", "answerable_f1"),
        seeds=ONCE,
        beside={no_answer: ONCE},
    ),
    "sts": Trial(
        "embed",
        lambda out: as_given("stsb", columns=SCORED_PAIR),
        adamw("4 epochs", 3e-5),
        "spearman.estimate",
        "84 (dev 86)",
        settings={"max_length": 128},
        more=("pearson.estimate", "dev.spearman"),
    ),
    "semeval": Trial(
        "relation",
        lambda out: as_given("semeval2010_task8", columns=ENDS),
        adamw("6 epochs", 2e-4),
        "macro_f1",
        "82",
        settings={"no_relation": "Other"},
        more=("micro.f1", "accuracy"),
        beside={majority: ONCE},
    ),
    "dream": Trial(
        "choice",
        lambda out: as_given("dream", columns={"options": "choices", "answer": "label"}),
        adamw(EIGHT_MINUTES, 2e-4, 16, dropout=0.0),
        "accuracy.estimate",
        "42, its interval above majority",
        more=("accuracy.low", "accuracy.high", "majority"),
        settings={"answer_form": "0", "max_length": 192, "overlap": 32, "option_length": 48},
        seeds=ONCE,
    ),
    "scitldr": Trial(
        "extract",
        lambda out: converted("scitldr", out, with_every_summary),
        adamw(EIGHT_MINUTES, 1e-4, 16),
        "rouge.rouge1.f1",
        "lead-1, below the oracle",
        settings={"keep": 1, "max_length": 384},
        more=("lead.rouge1.f1", "oracle.rouge1.f1", "rouge.rouge_l.f1"),
        seeds=ONCE,
    ),
    "afqmc": Trial(
        "classify",
        paired("afqmc", "dev"),
        adamw("3 epochs", 3e-4),
        "accuracy",
        more=("macro.f1",),
        english=False,
        seeds=ONCE,
        beside={majority: ONCE, tfidf: ONCE},
    ),
    "cluener": Trial(
        "tag",
        given("cluener", "dev"),
        adamw("5 epochs", 5e-4),
        "micro.f1",
        more=("macro.f1",),
        english=False,
        beside={bilstm_crf: ONCE},
    ),
    "cmrc2018": Trial(
        "qa",
        given("cmrc2018", "dev"),
        adamw("4500000 tokens", 3e-4),
        "f1",
        settings=CHINESE_QA,
        more=("exact",),
        english=False,
        seeds=ONCE,
        beside={nearest_sentence: ONCE},
    ),
    "finre": Trial(
        "relation",
        lambda out: as_given("finre", columns=ENDS),
        adamw("4 epochs", 5e-4),
        "macro_f1",
        settings={"no_relation": "unknown"},
        more=("micro.f1", "accuracy"),
        english=False,
        seeds=ONCE,
        beside={majority: ONCE},
    ),
    "classical": Trial(
        "seq2seq",
        lambda out: as_given("classical_modern_zh", columns={"source": "src", "target": "tgt"}),
        {"duration": "8 minutes", "lr": 1e-3, "batch": 32},
        "scores.chrf.score",
        more=("scores.bleu.score", "copied.chrf.score", "copied.bleu.score"),
        settings={"source_length": 64, "target_length": 80, "sampled": 100},
        english=False,
        seeds=ONCE,
        scale=1,
        beside={from_chance: ONCE},
    ),
}
