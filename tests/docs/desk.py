"""The desk the pages' reader sits at: a little data, a model from elsewhere, runs that are done."""

import csv
import json
import shutil
from itertools import count, islice
from pathlib import Path

from clozeworks import api

KIND = ["lovely", "warm", "bright", "great", "kind", "quick", "helpful", "honest", "neat", "soft"]
UNKIND = ["broken", "late", "dull", "cold", "awful", "slow", "careless", "rude", "ugly", "flimsy"]
THINGS = ["lamp", "parcel", "chair", "kettle", "answer", "shop", "mirror", "teapot", "cushion"]
ABOUT = ["service", "delivery", "wrapping", "colour", "handle", "finish"]
SPLITS = {"train": (0, 60), "dev": (60, 80), "test": (80, 100)}


def make_desk(folder):
    """Fill `folder` with every file and folder that a page may begin from; returns it."""
    rows = list(islice(reviews(), 100))
    for split, (start, end) in SPLITS.items():
        with (folder / f"{split}.csv").open("w", encoding="utf-8", newline="") as stream:
            table = csv.DictWriter(stream, ["review", "stars"])
            table.writeheader()
            table.writerows(rows[start:end])
    texts = [row["review"] for row in rows]
    write_lines(folder / "new.jsonl", [json.dumps({"review": text}) for text in texts[:10]])
    write_lines(folder / "topics.jsonl", map(json.dumps, topics()))
    write_lines(folder / "lines.txt", texts[:10])
    write_lines(folder / "blanks.jsonl", ['{"text": "a [MASK] lamp"}'])
    write_lines(folder / "corpus.txt", corpus(texts))
    write_lines(folder / "glove.txt", word_vectors())
    make_models(folder)
    return folder


def word_vectors():
    """A word and its numbers a line, as GloVe writes them."""
    for place, word in enumerate([*KIND, *UNKIND, *THINGS]):
        yield f"{word} {place / 10} {-place / 7:.3f} 0.25 {place % 3}"


def reviews():
    """Rows of a review and its stars, all different, in both classes by turns."""
    for number in count():
        words, stars = (UNKIND, "1") if number % 2 else (KIND, "5")
        first, second = words[number % 10], words[(number // 10 + 1 + number) % 10]
        thing, about = THINGS[number // 2 % 9], ABOUT[number // 3 % 6]
        yield {"review": f"a {first} {thing} and {second} {about}", "stars": stars}


def topics():
    """Rows of a text and its labels, which are paths, one or two to a row."""
    for number, row in enumerate(islice(reviews(), 40)):
        mood = "mood##bad##angry" if row["stars"] == "1" else "mood##good"
        labels = [mood, f"about##{ABOUT[number // 3 % 6]}"][: 1 + number % 3]
        yield {"text": row["review"], "label": labels}


def corpus(texts):
    """The lines of 60 documents, two languages in each, blank lines between them."""
    for start in range(60):
        yield from (f"{text}." for text in texts[start : start + 5])
        yield from (f"这家店的{start}号灯很好。", "快递在哪里？我要退款！", "")


def write_lines(path, lines):
    path.write_text("".join(f"{line}\n" for line in lines), "utf-8")


def make_models(folder):
    """Go the whole path once with the smallest sizes, in the names that the pages use."""
    root = Path(folder)
    settings = {"vocab_size": 200}
    files = [root / "corpus.txt"]
    api.tokenizer(api.TokenizerRecipe(files=files, out=root / "tokenizer", settings=settings))
    api.prepare(api.PrepareRecipe(files=files, tokenizer=root / "tokenizer", out=root / "shards"))
    short = api.PretrainSettings(duration="2 steps", batch=512)
    made = api.pretrain(
        api.PretrainRecipe(
            data=root / "shards", out=root / "runs/pretrained", size="tiny", train=short
        )
    )
    made.bundle.rename(root / "bert")
    (root / "bert" / "clozeworks.json").unlink()  # as a folder from elsewhere
    shutil.copytree(root / "bert", root / "bert-base-chinese")
    api.pretrain(
        api.PretrainRecipe(
            data=root / "shards", out=root / "runs/pretrained", size="tiny", train=short
        )
    )
    api.finetune(
        api.FinetuneRecipe(
            task="classify",
            data=root / "train.csv",
            model=root / "bert",
            out=root / "runs/stars",
            columns={"text": "review", "label": "stars"},
            train={"duration": "2 steps"},
        )
    )
