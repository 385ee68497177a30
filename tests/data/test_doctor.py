"""What the doctor must find in a set with known faults, and that a sound set has none."""

import pytest

from clozeworks.data.doctor import Row, Window, examine
from clozeworks.text.tokenizer import SPECIAL, Tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)]
    return Tokenizer.of([*SPECIAL, *letters, *(f"##{c}" for c in letters), "好", "坏"])


def row(*texts, label=None):
    return Row(list(texts), label)


def sound(count=40):
    names = [chr(97 + i % 26) * (1 + i // 26) for i in range(count)]
    return [row(name, label="yn"[i % 2]) for i, name in enumerate(names)]


def test_a_sound_set_needs_nothing(tokenizer):
    findings = examine({"train": sound()}, tokenizer, Window(16))
    assert findings.warnings == []
    assert findings.lines()[-1] == "nothing to see to"


def test_each_fault_is_counted(tokenizer):
    train = [
        *sound(),
        row("A  ", label="n"),  # "a" again, and it was "y"
        row(" ", label="y"),
        row("b" * 30, label="y"),
        row("z" * 101, label="y"),
        row("c" * 14, label="y"),  # just fills the window
        row("d" * 100, label="n"),  # just short of a long word
        row("好" * 120, label="n"),
    ]
    test = [row("a", label="y"), row("坏坏", label="other"), row("!?", label="n")]
    found = examine({"train": train, "test": test}, tokenizer, Window(16))
    split = found.splits["train"]
    assert (split.rows, split.empty, split.duplicates, split.long_words) == (47, 1, 1, 1)
    assert split.classes == {"y": 24, "n": 23}
    assert split.lengths is not None
    assert (split.lengths.over, split.lengths.longest, split.lengths.p50) == (3, 122, 3)
    assert sum(count for _, count in split.lengths.histogram) == 46
    assert found.splits["test"].unknown_rate == pytest.approx(2 / 5)
    assert [(o.first, o.second, o.rows) for o in found.overlaps] == [("train", "test", 1)]
    assert found.conflicts == 1
    assert found.conflicting[0].labels == ["n", "y"]
    warnings = "\n".join(found.warnings)
    for words in ["--skip-empty", "row repeats", "--max-length", "over 100 characters", "flatter"]:
        assert words in warnings
    for words in ["never seen in train ('other')", "1 text carries different labels", "unknown to"]:
        assert words in warnings
    assert [f"! {w}" for w in found.warnings] == found.lines()[-len(found.warnings) :]


def test_pairs_count_both_texts_and_three_specials(tokenizer):
    rows = [row("a", "ab", label="y"), row("a", "b", label="n")]
    split = examine({"train": rows}, tokenizer, Window(8))
    assert split.splits["train"].lengths.longest == 6
    assert split.splits["train"].duplicates == split.conflicts == 0


def test_few_and_uneven_classes_are_told(tokenizer):
    rows = [*sound(0), *(row(f"{a} {b}", label="many") for a in "abcdef" for b in "ghijkl")]
    rows.append(row("x", label="few"))
    warnings = "\n".join(examine({"train": rows}, tokenizer, Window(16)).warnings)
    assert "fewer than 10 rows ('few')" in warnings
    assert "over 20 times" in warnings


def test_a_set_of_empty_rows_is_described(tokenizer):
    findings = examine({"train": [row(""), row(" ")]}, tokenizer, Window(8))
    assert findings.splits["train"].lengths is None
    assert findings.lines()[0] == "train: 2 rows, 2 empty, 0 repeated"


def test_all_but_lengths_and_unknown_words_is_found_without_a_tokenizer(tokenizer):
    train = [*sound(), row("A  ", label="n"), row(" ", label="y"), row("好 !?")]
    counted = examine({"train": train}, tokenizer, Window(16))
    plain = examine({"train": train}, None, Window(16))
    assert plain.splits["train"].lengths is None
    assert counted.splits["train"].unknown_rate > 0.0 == plain.splits["train"].unknown_rate
    assert [w for w in counted.warnings if "unknown to" not in w] == plain.warnings


def test_what_is_to_be_written_is_looked_at_too(tokenizer):
    train = [
        Row(["abc"], None, targets=["ab"]),
        Row(["abc d"], None, targets=["ABC  d"]),  # its source, case and spaces aside
        Row(["b"], None, targets=["c" * 20, "b"]),  # the second says what is read
        Row(["e"], None, targets=["!"]),
        Row(["f"], None, targets=[" "]),
        Row(["g"], None),
    ]
    found = examine({"train": train}, tokenizer, Window(16, written=10))
    targets = found.splits["train"].targets
    assert targets is not None and targets.lengths is not None
    assert (targets.missing, targets.copies) == (2, 2)
    assert (targets.lengths.over, targets.lengths.longest) == (1, 22)
    assert targets.unknown_rate == pytest.approx(1 / 27)
    warnings = "\n".join(found.warnings)
    for words in ["2 rows have no target", "2 targets are their source", "never be written"]:
        assert words in warnings
    assert "25.0% of the targets are longer than 10 tokens" in warnings
    assert "22 hold 99 % (--target-length)" in warnings
    assert any("tokens a target" in line for line in found.lines())
    assert examine({"train": train}, tokenizer, Window(16)).splits["train"].targets is None
