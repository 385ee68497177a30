"""The demo: raw text → tokenizer → pretrained BERT → classifier → report → predictions."""

import json
import shutil
import time
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from clozeworks import api
from clozeworks.core.config import Settings
from clozeworks.core.errors import UserError
from clozeworks.core.files import read_lines, write_file
from clozeworks.core.log import clock, say
from clozeworks.interop.hub import SHIPPED
from clozeworks.showcase.gather import python_prose
from clozeworks.showcase.report import INTENTS_OF, write_demo_report
from clozeworks.text.audit import audit
from clozeworks.text.load import load_tokenizer
from clozeworks.text.train import TokenizerSettings
from clozeworks.train.loop import TrainSettings

DATA = Path(__file__).parent / "data"
"""Help-desk text and intents, written for this package."""
HELPDESK = (DATA / "helpdesk_en.txt", DATA / "helpdesk_zh.txt")
INTENTS = {split: DATA / f"intents_{split}.jsonl" for split in ("train", "dev", "test")}
MARK = "clozeworks-demo.txt"
"""A folder with this file was made by the demo, and may be made anew by it."""
WINDOW = 64
"""Tokens a sequence: what customers write is short, and short sequences are learned from sooner."""
QUESTIONS = (
    "hii, parcel says delivered but nothing here??",
    "the lamp arrived with a crack in the glass",
    "我的优惠券怎么用不了啊",
    "在吗，想开张发票，抬头是公司",
    "what's the capital of australia",
)
"""New sentences to answer; the last one is nobody's business here."""


class DemoRecipe(Settings):
    """What the `demo` verb needs."""

    out: Path = Path("runs/demo")
    """Folder for everything the demo makes."""
    language: Literal["en", "zh"] = "en"
    """Language of the report."""
    minutes: float = Field(default=2.0, gt=0)
    """Minutes of pretraining."""
    fresh: bool = False
    """Begin again in a folder an earlier demo made; without it, what is there is used."""


def demo(recipe: DemoRecipe) -> dict[str, str]:
    """Run the whole path; at most six minutes on two cores with the default two of pretraining.

    Begun again, it goes on where it was stopped. Raises UserError if `out` is somebody else's.
    """
    began, out = time.monotonic(), recipe.out
    _begin(out, recipe.fresh)
    corpus = _corpus(out)
    _say(2, "a WordPiece tokenizer for English and Chinese")
    _tokenizer(out, corpus)
    _say(3, f"a small BERT, pretrained on that text for {recipe.minutes:g} minutes")
    pretrained = _pretrain(out, corpus, recipe.minutes)
    _say(4, "an intent classifier, from clozeworks-mini, from this model, and from chance")
    _finetune(out, SHIPPED, INTENTS_OF["shipped"])
    _finetune(out, pretrained, INTENTS_OF["bert"])
    _finetune(out, pretrained, INTENTS_OF["chance"], scratch=True)
    _say(5, "a report, with a TF-IDF baseline beside them")
    report = write_demo_report(out, INTENTS, recipe.language)
    _say(6, "new sentences")
    _predict(out)
    say(f"\ndone in {clock(time.monotonic() - began)}")
    return {
        "report": str(report),
        "model": str(out / INTENTS_OF["shipped"] / "bundle"),
        "try next": f"clozeworks predict {out}/intents/bundle your.jsonl --out answers.jsonl",
        "": f"clozeworks evaluate {out}/intents/bundle {INTENTS['test']} --language zh",
        " ": f"clozeworks info {out}/intents/bundle",
    }


def _say(number: int, title: str) -> None:
    say(f"\n({number}) {title}")


def _begin(out: Path, fresh: bool) -> None:
    if out.exists() and not (out / MARK).exists() and any(out.iterdir()):
        raise UserError(f"{out} holds something other than a demo; choose another --out")
    if fresh and (out / MARK).exists():
        shutil.rmtree(out)
    with write_file(out / MARK) as stream:
        stream.write("Made by `clozeworks demo`, which may remove this folder.\n")


def _corpus(out: Path) -> list[Path]:
    """The files to learn from: Python's own prose, and the help desk's in two languages."""
    _say(1, "text: Python's own documentation, and a help desk's pages in English and Chinese")
    prose = out / "python.txt"
    if not prose.exists():
        with write_file(prose) as stream:
            for document in python_prose():
                stream.write(document + "\n\n")
    files = [prose, *HELPDESK]
    for path in files:
        say(f"{path.stat().st_size / 1e6:.2f} MB  {path}")
    return files


def _tokenizer(out: Path, corpus: list[Path]) -> None:
    """Train it if need be, and say how much of each language it does not know."""
    folder = out / "tokenizer"
    if not folder.exists():
        settings = TokenizerSettings(vocab_size=10_000)
        api.tokenizer(api.TokenizerRecipe(files=corpus, out=folder, settings=settings))
    trained = load_tokenizer(folder)
    for path, language in zip(corpus, ("Python's English", "English", "Chinese"), strict=True):
        found = audit(trained, read_lines(path))
        say(f"{language}: {found.unknown_rate:.3%} of {found.tokens:,} tokens unknown")


def _pretrain(out: Path, corpus: list[Path], minutes: float) -> Path:
    api.prepare(api.PrepareRecipe(files=corpus, tokenizer=out / "tokenizer", out=out / "shards"))
    made = api.pretrain(
        api.PretrainRecipe(
            data=out / "shards",
            out=out / "pretrained",
            size="mini",
            max_length=WINDOW,
            held_out_tokens=20_000,
            train=api.PretrainSettings(duration=f"{minutes:g} minutes", lr=1e-3, batch=1024),
        )
    )
    return made.bundle


def _finetune(out: Path, model: Path, name: str, *, scratch: bool = False) -> Any:
    return api.finetune(
        api.FinetuneRecipe(
            task="classify",
            data=INTENTS["train"],
            dev=INTENTS["dev"],
            model=model,
            out=out / name,
            scratch=scratch,
            reinit=0,  # next sentences shaped the pooler; for single texts it is better begun anew
            settings={"max_length": WINDOW},
            train=TrainSettings(duration="12 epochs", lr=5e-4, batch=16),
        )
    )


def _predict(out: Path) -> None:
    asked = out / "questions.txt"
    with write_file(asked) as stream:
        stream.writelines(f"{question}\n" for question in QUESTIONS)
    answers, model = out / "answers.jsonl", out / INTENTS_OF["shipped"] / "bundle"
    api.predict(api.PredictRecipe(model=model, data=asked, out=answers))
    for line in answers.read_text("utf-8").splitlines():
        say(_answer(line))


def _answer(line: str) -> str:
    row = json.loads(line)
    said = row["prediction"]
    label = said["label"] or f"I don't know (perhaps {said['best']})"
    return f"  {row['text']}  →  {label}, {said['confidence']:.0%}"
