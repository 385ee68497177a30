"""Ten minutes of a field's text for a pretrained model: what it gains there and loses elsewhere.

    python benchmarks/long/domain.py zh          (or en; --minutes 10, --bundle FOLDER)

The model is long/wiki.py's (runs/long/zh/pretrained/bundle) unless another is named. The field is
made of cmrc2018's contexts and egret_faq_zh's answers, or of SciTLDR's documents; general text is
the Wikipedia corpus, of which the documents are judged on that long/wiki.py held out. Resumable at
any point; the result is a line of benchmarks/results/long_domain_zh.jsonl.
"""

import argparse
import gzip
import json
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import clozeworks
from clozeworks.core.files import read_lines, write_file
from clozeworks.data.prepare import PrepareSettings
from harness.measure import DATA
from ledger import Ledger, Row, weights_of

GENERAL = {"en": "wiki_en/wiki_en.txt.xz", "zh": "wiki_zh/wiki_zh.txt.xz"}
LENGTH = 128
FEWEST = 50
"""Characters below which a document is left out."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("language", choices=GENERAL)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--bundle", type=Path, help="the model to go on from")
    parser.add_argument("--out", type=Path, default=Path("runs/long"))
    parser.add_argument("--lr", type=float, default=3e-4)
    parser.add_argument("--documents", type=int, help="at most so many of each text: a short trial")
    options = parser.parse_args()
    home = options.out / options.language
    bundle = options.bundle or home / "pretrained" / "bundle"
    if not bundle.exists():
        raise SystemExit(f"{bundle} is absent: run long/wiki.py first, or give --bundle")
    out = home / "domain"
    field = prepared(written(field_texts(options.language), out / "field.jsonl", options), bundle)
    general = prepared(
        written(general_texts(options.language), out / "general.jsonl", options), bundle
    )
    ledger = Ledger(f"long_domain_{options.language}", home, **identity(options, bundle))
    row = ledger.find() or trained(ledger, options, bundle, (field, general))
    summarise(row)


def field_texts(language: str) -> Iterator[str]:
    """The documents of the field; those that come twice are left to `prepare`."""
    if language == "en":
        for split in ("train", "dev", "test"):
            yield from (row["document"] for row in rows(DATA / "scitldr" / f"{split}.jsonl.gz"))
        return
    for split in ("train", "dev"):
        yield from (row["context"] for row in rows(DATA / "cmrc2018" / f"{split}.jsonl.gz"))
    for row in rows(DATA / "egret_faq_zh" / "all.jsonl.gz"):
        yield f"{row['question']}\n{row['answer']}"


def general_texts(language: str) -> Iterator[str]:
    """The documents of Wikipedia, in their order, so that numbers, and who is held out, stay."""
    block: list[str] = []
    for line in read_lines(DATA / GENERAL[language]):
        if line.strip():
            block.append(line)
        elif block:
            yield "\n".join(block)
            block = []
    if block:
        yield "\n".join(block)


def rows(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        for line in stream:
            yield json.loads(line)


def written(texts: Iterator[str], path: Path, options: argparse.Namespace) -> Path:
    """The texts as a file of one document a row."""
    if not path.exists():
        with write_file(path) as stream:
            for text in islice(texts, options.documents):
                stream.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
    return path


def prepared(path: Path, bundle: Path) -> Path:
    """Shards of a file for the bundle's tokenizer."""
    out = path.with_suffix("")
    least = 0 if path.stem == "general" else FEWEST
    clozeworks.prepare(
        clozeworks.PrepareRecipe(
            files=[path],
            tokenizer=bundle,
            out=out,
            settings=PrepareSettings(min_characters=least),
        )
    )
    return out


def trained(
    ledger: Ledger, options: argparse.Namespace, bundle: Path, shards: tuple[Path, Path]
) -> Row:
    """Go on from the bundle on the field's text, and write down what it did to both texts."""
    field, general = shards
    made = clozeworks.pretrain(
        clozeworks.PretrainRecipe(
            task="mlm",
            data=field,
            out=ledger.path.parent / "domain" / "run",
            model=bundle,
            max_length=LENGTH,
            judge_on={"general": general},
            train=clozeworks.PretrainSettings(
                duration=f"{options.minutes:g} minutes", lr=options.lr, batch=2048, warmup=0.05
            ),
        )
    )
    losses = {
        f"{name}_{when}": judged[key]
        for name, key in (("field", "mlm"), ("general", "general/mlm"))
        for when, judged in (("before", made.before), ("after", made.held_out))
    }
    ledger.add({"cost": made.cost, "unigram": made.unigram, **losses})
    return ledger.rows()[-1]


def identity(options: argparse.Namespace, bundle: Path) -> Row:
    """What tells one result from another."""
    given = {"language": options.language, "minutes": options.minutes, "lr": options.lr}
    return {**given, "documents": options.documents, "model": weights_of(bundle)}


def summarise(row: Row) -> None:
    """The table, and one line at the end."""
    print(
        f"held-out masked tokens, nats; guessing by frequency {row['unigram']:.3f}; {row['cost']}"
    )
    for name in ("field", "general"):
        before, after = row[f"{name}_before"], row[f"{name}_after"]
        print(f"{name:<8} {before:.4f} → {after:.4f} ({after - before:+.4f})")
    gained = row["field_before"] - row["field_after"]
    lost = row["general_after"] - row["general_before"]
    print(
        f"long_domain: language={row['language']} minutes={row['minutes']:g} "
        f"field_gain={gained:.4f} general_loss={lost:.4f}"
    )


if __name__ == "__main__":
    main()
