"""Which recipe makes the most of twenty minutes? BERT-mini on Wikipedia, one change at a time.

    python benchmarks/long/recipes.py en         (or zh; --minutes 20, --ablations, --only NAME …)

2018: masked tokens and next sentences, dropout 0.1, fixed 15 %, AdamW, linear, 128 tokens. best:
ours for a short budget, the two phases of long/wiki.py. Both (and in Chinese whole words beside
single tokens) are judged by the held-out loss, SST-2 with 1,000 rows, MRPC and STS-B (by Spearman's
correlation), or ChnSentiCorp with 1,000 rows and AFQMC, over three seeds. --ablations: best with
one thing changed, by held-out loss alone; rtd, whose loss is another, and no-nsp, which is rtd's
like without its objective, by the labelled sets as well, seed 0. other-seed is best once more from
other initial numbers and in another order: what differs by no more than that differs by chance.

Where something else will be at work on the machine, --measure first finds, while it is quiet, how
many tokens a second every recipe does in each of its phases, in turns (about twenty minutes); from
then on the minutes are counted in tokens, so that a recipe whose steps are dearer has fewer.
Resumable at any point; each result is a line of benchmarks/results/long_recipes_en.jsonl as soon as
it is there.
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from clozeworks.text.train import TokenizerSettings
from corpora import CORPORA, FRESH_POOLER, PAIR, Labelled, drawn, finetuned, prepared
from harness.measure import DATA, started
from ledger import Ledger, Row, spread
from phases import BATCH, LONG, TWO_PHASES, Budget, Phase, Phases, in_phases, measure, measured

LABELLED = 1000
SEEDS = (0, 1, 2)

OF_2018: Phases = {
    "pretrained": Phase(
        1.0,
        {"task": "mlm+nsp", "max_length": LONG, "settings": {"mlm": {"rate": 0.15}}},
        {
            # 1e-4 was for a width of 768; 1e-3 is what AdamW bears at 256
            "lr": 1e-3,
            "schedule": "linear",
            "warmup": 0.01,
            "batch": BATCH,
            "optimizer": "adamw",
            "beta2": 0.999,
            "decay": 0.01,
            "dropout": 0.1,
        },
    ),
}


@dataclass(frozen=True)
class Trial:
    """A recipe, and the seeds of the fine-tunings that judge it beside its held-out loss."""

    phases: Phases
    seeds: tuple[int, ...] = ()


def trained_with(changes: Mapping[str, Any], factor: float = 1.0) -> Phases:
    """Our recipe with other settings of training in both phases, its learning rates by a factor."""
    return {
        name: replace(phase, train={**phase.train, "lr": factor * phase.train["lr"], **changes})
        for name, phase in TWO_PHASES.items()
    }


def hiding(changes: Mapping[str, Any]) -> Phases:
    """Our recipe with other masks in both phases."""
    short, longer = TWO_PHASES["short"], TWO_PHASES["pretrained"]
    first = {**short.recipe["settings"], **changes}
    second = {"mlm": {**longer.recipe["settings"]["mlm"], **changes}}
    return {
        "short": replace(short, recipe={**short.recipe, "settings": first}),
        "pretrained": replace(longer, recipe={**longer.recipe, "settings": second}),
    }


def without_pairs() -> Phases:
    """Our recipe without next sentences."""
    longer = TWO_PHASES["pretrained"]
    second = {**longer.recipe, "task": "mlm", "settings": longer.recipe["settings"]["mlm"]}
    return {**TWO_PHASES, "pretrained": replace(longer, recipe=second)}


def replacing() -> Phases:
    """The same with ELECTRA's objective, whose classes hold no next sentences; as wide as best."""
    electra = {"family": "electra", "encoder": {"embedding_size": None}, "task": "rtd"}
    return {
        name: replace(phase, recipe=_merged(phase.recipe, electra))
        for name, phase in without_pairs().items()
    }


def at_once() -> Phases:
    """Our second phase alone, for the whole time."""
    return {"pretrained": replace(TWO_PHASES["pretrained"], share=1.0)}


def falling_late() -> Phases:
    """Our recipe whose rate stays up longer in the second phase."""
    longer = TWO_PHASES["pretrained"]
    return {**TWO_PHASES, "pretrained": replace(longer, train={**longer.train, "schedule": "wsd"})}


def _merged(recipe: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """Values of both; of the encoder, too."""
    return {**recipe, **more, "encoder": {**recipe.get("encoder", {}), **more["encoder"]}}


MAIN: dict[str, dict[str, Trial]] = {
    "en": {"2018": Trial(OF_2018, SEEDS), "best": Trial(TWO_PHASES, SEEDS)},
    "zh": {
        "2018": Trial(OF_2018, SEEDS),
        "best": Trial(TWO_PHASES, SEEDS),
        "whole-words": Trial(hiding({"unit": "word"}), SEEDS),
    },
}
ABLATIONS: dict[str, Trial] = {
    "dropout": Trial(trained_with({"dropout": 0.1})),
    # AdamW bears half of muon's rates, as `clozeworks plan` has them
    "adamw": Trial(trained_with({"optimizer": "adamw"}, 0.5)),
    "fixed-15": Trial(hiding({"rate": 0.15})),
    "half-step": Trial(trained_with({"batch": BATCH // 2})),
    "double-step": Trial(trained_with({"batch": 2 * BATCH}), SEEDS),
    "one-phase": Trial(at_once()),
    "no-nsp": Trial(without_pairs(), (0,)),
    "rtd": Trial(replacing(), (0,)),
    "wsd": Trial(falling_late()),
    "little-decay": Trial(trained_with({"decay": 0.01}), (0,)),
    "much-decay": Trial(trained_with({"decay": 0.3}), (0,)),
    "other-seed": Trial(trained_with({"seed": 1})),
}
EVERY = MAIN["en"] | MAIN["zh"] | ABLATIONS


def main(options: argparse.Namespace) -> None:
    language = options.language
    home = options.out / language
    shards = prepared([DATA / CORPORA[language]], home, TokenizerSettings(vocab_size=16_000))
    trials = MAIN[language] | (ABLATIONS if options.ablations else {})
    if options.only:
        trials = {name: EVERY[name] for name in options.only}
    if options.measure:
        measure({title(*named): named[1].phases for named in trials.items()}, shards, home)
        return
    known = measured(home)
    sets = labelled_sets(language, home)
    counted = bool(known)
    if counted and (unknown := [n for n, t in trials.items() if title(n, t) not in known]):
        sys.exit(f"rates of {', '.join(unknown)} are not measured; --measure them, too")
    ledger = Ledger(f"long_recipes_{language}", home, minutes=options.minutes, counted=counted)
    for name, trial in trials.items():
        called = title(name, trial)
        budget = Budget(options.minutes, known.get(called))
        out = home / "recipes" / f"{options.minutes:g}-minutes{'-counted' * counted}" / called
        missing = unjudged(ledger, (name, trial), sets)
        bundle = pretrained(ledger, (name, trial), shards, out, budget, needed=bool(missing))
        for kind, seed in missing:
            judged(ledger, (identity(name, trial), kind, seed), bundle, sets[kind], out)
    current = [identity(name, EVERY[name]) for name in EVERY]
    summarise(language, [row for key in current for row in ledger.rows(**key)])


def identity(name: str, trial: Trial) -> Row:
    """The part of every row's key that says what was tried: of a changed recipe it is another."""
    return {"recipe": name, "phases": {n: asdict(phase) for n, phase in trial.phases.items()}}


def title(name: str, trial: Trial) -> str:
    """A name that another recipe under the same one does not have: of folders, and of rates."""
    told = json.dumps(identity(name, trial), sort_keys=True)
    return f"{name}-{hashlib.sha256(told.encode()).hexdigest()[:8]}"


def labelled_sets(language: str, home: Path) -> dict[str, Labelled]:
    """What a recipe's model is fine-tuned on."""
    if language == "en":
        train = DATA / "sst2/train.jsonl.gz"
        few = drawn(train, LABELLED, home / f"train-{LABELLED}.jsonl")
        pairs = DATA / "mrpc"
        alike = DATA / "stsb/train.jsonl.gz", DATA / "stsb/test.jsonl.gz"
        return {
            "sst2": Labelled(few, DATA / "sst2/dev.jsonl.gz", 10, 16, start=FRESH_POOLER),
            "mrpc": Labelled(pairs / "train.jsonl.gz", pairs / "test.jsonl.gz", 5, 16, PAIR),
            "stsb": Labelled(*alike, 5, 16, PAIR, "regression", "spearman"),
        }
    train = DATA / "chnsenticorp/train.jsonl.gz"
    few = drawn(train, LABELLED, home / f"train-{LABELLED}.jsonl")
    pairs = DATA / "afqmc"
    return {
        "chnsenticorp": Labelled(
            few, DATA / "chnsenticorp/test.jsonl.gz", 10, 16, start=FRESH_POOLER
        ),
        "afqmc": Labelled(pairs / "train.jsonl.gz", pairs / "dev.jsonl.gz", 2, 32, PAIR),
    }


def unjudged(
    ledger: Ledger, named: tuple[str, Trial], sets: Mapping[str, Labelled]
) -> list[tuple[str, int]]:
    """The sets and seeds by which a recipe is still to be judged."""
    key, every = identity(*named), [(kind, seed) for seed in named[1].seeds for kind in sets]
    return [one for one in every if ledger.find(kind=one[0], seed=one[1], **key) is None]


def pretrained(
    ledger: Ledger,
    named: tuple[str, Trial],
    shards: Path,
    out: Path,
    budget: Budget,
    *,
    needed: bool,
) -> Path:
    """The model of a recipe; its losses are written down.

    A model that is gone is made once more where it is `needed`, though its losses are known.
    """
    name, trial = named
    key = {"kind": "pretrain", **identity(name, trial)}
    bundle = out / list(trial.phases)[-1] / "bundle"
    known = ledger.find(**key) is not None
    if known and (bundle.exists() or not needed):
        return bundle
    made = in_phases(trial.phases, shards, out, budget)
    if not known:
        last = list(made.values())[-1]
        costs = {"costs": {phase: one.cost for phase, one in made.items()}}
        costs |= {"rate": budget.rate}
        ledger.add({**key, **costs, "unigram": last.unigram, "held_out": last.held_out})
    return bundle


def judged(
    ledger: Ledger,
    which: tuple[Row, str, int],
    bundle: Path,
    labelled: Labelled,
    out: Path,
) -> None:
    """Fine-tune the model of a recipe on a labelled set with one seed."""
    recipe, kind, seed = which
    found = finetuned(bundle, labelled, out / f"{kind}-{seed}", seed)
    key = {"kind": kind, **recipe, "seed": seed}
    ledger.add({**key, "score": found[labelled.number], "numbers": found})


def summarise(language: str, rows: list[Row]) -> None:
    """The table, and one line at the end; positive gains are in favour of our recipe."""
    losses = {r["recipe"]: r["held_out"]["mlm"] for r in rows if r["kind"] == "pretrain"}
    scores: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        if row["kind"] != "pretrain":
            scores.setdefault((row["recipe"], row["kind"]), []).append(100 * row["score"])
    for name, loss in losses.items():
        told = [f"{name:<12} held-out mlm {loss:.4f}" + " (a generator's)" * (name == "rtd")]
        told += [
            f"{kind} {mean(found):.2f} ± {spread(found):.2f} ({len(found)})"
            for (recipe, kind), found in scores.items()
            if recipe == name
        ]
        print("  ".join(told))
    parts = [f"{name.replace('-', '_')}_mlm={loss:.4f}" for name, loss in losses.items()]
    parts += gains(losses, scores, "best", "2018", "")
    if language == "zh":
        parts += gains(losses, scores, "whole-words", "best", "whole_words_")
    print(f"long_recipes_{language}: " + " ".join(parts))


def gains(
    losses: dict[str, float],
    scores: dict[tuple[str, str], list[float]],
    ours: str,
    other: str,
    prefix: str,
) -> list[str]:
    """How far one recipe is ahead of another: nats of held-out loss, points of a score."""
    if not {ours, other} <= losses.keys():
        return []
    parts = [f"{prefix}gain_nats={losses[other] - losses[ours]:.4f}"]
    for kind in dict.fromkeys(kind for recipe, kind in scores if recipe == ours):
        if before := scores.get((other, kind)):
            parts.append(f"{prefix}gain_{kind}={mean(scores[ours, kind]) - mean(before):.2f}")
    return parts


if __name__ == "__main__":
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("language", choices=CORPORA)
    flags.add_argument("--minutes", type=float, default=20)
    flags.add_argument("--measure", action="store_true", help="the recipes' rates, and stop")
    flags.add_argument("--ablations", action="store_true", help="one change at a time as well")
    flags.add_argument("--only", nargs="+", choices=EVERY, help="these recipes instead")
    flags.add_argument("--out", type=Path, default=Path("runs/long"))
    started(flags, main)
