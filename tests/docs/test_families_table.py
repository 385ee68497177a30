"""The table of families on the pages is what was tried with each of the registry's families."""

import re
from contextlib import suppress
from itertools import combinations
from pathlib import Path

import pytest
import transformers

from clozeworks import tasks
from clozeworks.api.convert import with_heads
from clozeworks.core.bundle import Card, open_bundle
from clozeworks.core.errors import UserError
from clozeworks.interop.huggingface import open_with, write_bundle
from clozeworks.model.families import FAMILIES, check_class, sized
from clozeworks.model.heads import encoder_of
from clozeworks.tasks import TASKS
from tiny import TOKENIZER, VOCABULARY

DOCS = Path(__file__).parents[2] / "docs"
HEADS = ["mlm", "nsp", "mlm+nsp", "sop", "mlm+sop", "rtd", "classify", "tag", "qa", "choice"]
START, END = "<!-- families -->\n", "<!-- end of families -->"
YES, OWN, NO = "✓", "○", "–"
SMALL = {"hidden_size": 16, "num_heads": 2, "inner_size": 24}
FIRST = {"en": "family", "zh": "家族"}
COLUMNS = {
    "en": ["opens here", "written here", "opens in transformers", "pretrain"],
    "zh": ["能打开", "能写出", "transformers 能打开", "预训练"],
}
TAIL = {"en": ["longest text", "tokenizer"], "zh": ["最长文本", "分词器"]}


def marks(name, folder):
    """What can be done with a family, tried: opened, written, in transformers, pretrained."""
    written = folder_of(name, frozenset(), folder)
    opened = written and opens(written, frozenset())
    theirs = known(name) and all(hasattr(transformers, c) for c in known(name).values())
    tasks = [n for n in TASKS.names() if TASKS.get(n).from_shards]
    learned = any(folder_of(name, frozenset({task}), folder) for task in tasks)
    return [YES if done else NO for done in (opened, written, theirs, learned)]


def head_marks(name, heads, folder):
    """A mark for each head: a class holds it, our own form does, or neither."""
    held = YES if known(name) else OWN
    places = {h: folder_of(name, frozenset(h.split("+")), folder) for h in heads}
    assert all(opens(place, h.split("+")) for h, place in places.items() if place)
    return [held if places[h] else NO for h in heads]


def folder_of(name, heads, folder):
    """A folder of the family with these heads, or None where it has none."""
    place = folder / f"{name}-{'+'.join(sorted(heads))}"
    if not place.exists():
        config = sized(name, "mini", len(TOKENIZER.pieces), **SMALL)
        model = with_heads(encoder_of(config), heads, ["a", "b"])
        try:
            write_bundle(place, model, TOKENIZER, Card(task="+".join(sorted(heads)) or None))
        except UserError:
            return None
    return place


def opens(place, heads):
    """Whether a folder opens again with all of its weights."""
    return open_with(open_bundle(place), lambda e: with_heads(e, heads, ["a", "b"])).fresh == []


def table(language, folder):
    """Family × what can be done with it, from the registry alone."""
    heads = [h for h in HEADS if any(frozenset(h.split("+")) in known(n) for n in FAMILIES.names())]
    names = [FIRST[language], *COLUMNS[language], *(f"`{head}`" for head in heads), *TAIL[language]]
    lines = [names, ["---"] * len(names)]
    for name in FAMILIES.names():
        family = FAMILIES.get(name)()
        can = [*marks(name, folder), *head_marks(name, heads, folder)]
        longest = f"{sized(name, next(iter(family.sizes)), 1000).max_positions:,}"
        lines.append([f"`{name}`", *can, longest, family.tokenizer])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def known(name):
    return FAMILIES.get(name).architectures


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_table_is_what_was_tried(language, tmp_path):
    text = (DOCS / language / "families.md").read_text("utf-8")
    there = text.split(START)[1].split(END)[0]
    made = table(language, tmp_path)
    assert there == made, f"put this between the marks:\n{made}"


@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_mark_is_explained(language):
    text = (DOCS / language / "families.md").read_text("utf-8")
    inside, after = text.split(START)[1].split(END)
    assert all(mark in after for mark in (YES, OWN) if mark in inside)


def possible(name):
    """The sums of objectives a family can learn: they can be joined, and its folders hold them."""
    for size in range(1, 5):
        for parts in combinations(["mlm", "nsp", "sop", "rtd"], size):
            with suppress(UserError):
                tasks.create("+".join(parts), {}, VOCABULARY)
                check_class(FAMILIES.get(name)(), frozenset(parts))
                yield "+".join(parts)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_sums_of_objectives_are_those_that_can_be_learned(language):
    text = (DOCS / language / "pretrain.md").read_text("utf-8")
    there = {}
    for line in text.split("<!-- sums -->\n")[1].split("<!-- end of sums -->")[0].splitlines()[2:]:
        families, sums = (re.findall(r"`(.+?)`", cell) for cell in line.split("|")[1:3])
        there |= dict.fromkeys(families, sums)
    assert there == {name: list(possible(name)) for name in FAMILIES.names()}
