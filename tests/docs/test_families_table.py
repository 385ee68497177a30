"""The table of families on the pages is made from the registry, in both languages."""

import re
from contextlib import suppress
from itertools import combinations
from pathlib import Path

import pytest

from clozeworks import tasks
from clozeworks.core.errors import UserError
from clozeworks.interop.huggingface import check_class
from clozeworks.model.families import FAMILIES, sized
from tiny import VOCABULARY

DOCS = Path(__file__).parents[2] / "docs"
HEADS = ["mlm", "nsp", "mlm+nsp", "sop", "mlm+sop", "rtd", "classify", "tag", "qa", "choice"]
START, END = "<!-- families -->\n", "<!-- end of families -->"
FIRST = {"en": "family", "zh": "家族"}
COLUMNS = {
    "en": ["opens here", "written here", "opens in transformers", "pretrain"],
    "zh": ["能打开", "能写出", "transformers 能打开", "预训练"],
}
TAIL = {"en": ["longest text", "tokenizer"], "zh": ["最长文本", "分词器"]}


def table(language):
    """Family × what can be done with it, from the registry alone."""
    heads = [h for h in HEADS if any(frozenset(h.split("+")) in known(n) for n in FAMILIES.names())]
    names = [FIRST[language], *COLUMNS[language], *(f"`{head}`" for head in heads), *TAIL[language]]
    lines = [names, ["---"] * len(names)]
    for name in FAMILIES.names():
        family = FAMILIES.get(name)()
        marks = [
            mark(frozenset(head.split("+")) in known(name) or not known(name)) for head in heads
        ]
        size = next(iter(family.sizes))
        longest = f"{sized(name, size, 1000).max_positions:,}"
        theirs = mark(bool(known(name)))
        can = [mark(True), mark(True), theirs, mark(True)]
        lines.append([f"`{name}`", *can, *marks, longest, family.tokenizer])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def known(name):
    return FAMILIES.get(name).architectures


def mark(yes):
    return "✓" if yes else "–"


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_table_is_the_registrys(language):
    text = (DOCS / language / "families.md").read_text("utf-8")
    there = text.split(START)[1].split(END)[0]
    assert there == table(language), f"put this between the marks:\n{table(language)}"


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
