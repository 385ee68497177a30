"""Laws of what prepare leaves out: everything is accounted for, by reason, and shown."""

import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_prepare import read_back, same_bytes, write_corpus

from clozeworks.core.errors import UserError
from clozeworks.data import documents as documents_module
from clozeworks.data.documents import SHOWN, SHOWN_CHARACTERS, Documents, Wanted
from clozeworks.data.prepare import PrepareSettings, prepare
from clozeworks.data.shards import Shards
from clozeworks.text.scripts import script_share

pytestmark = pytest.mark.usefixtures("quiet")

SMALL = {"processes": 1, "shard_megabytes": 0.002}
LONG = ["Title", "A line that is long enough to be kept. And one more!"]
OTHER = ["第一句很好。他说：再见。走了走了走了走了走了走了走了。"]
MIXED = [
    LONG,
    OTHER,
    ["short"],
    LONG,
    ["no"],
    ["第"],
    [*LONG, "他说再见"],
    LONG,
    ["1234567890 1234567890 1234567890"],
]


def prepared(folder, tokenizer, documents, **settings):
    path = write_corpus(folder / "c.txt", documents)
    manifest = prepare([path], tokenizer, folder / "out", PrepareSettings(**SMALL, **settings))
    shown = folder / "out" / "left_out.jsonl"
    lines = shown.read_text("utf-8").splitlines() if shown.exists() else []
    return manifest, [json.loads(line) for line in lines]


def length(document):
    return sum(map(len, document))


@given(
    st.lists(st.sampled_from(MIXED), min_size=1, max_size=30),
    st.integers(0, 20),
    st.sampled_from([(), ("han",), ("latin",), ("han", "latin")]),
)
def test_every_document_has_one_fate(tmp_path_factory, given_documents, least, scripts):
    path = write_corpus(tmp_path_factory.mktemp("c") / "c.txt", given_documents)
    found = Documents([path], "text", "utf-8", None, Wanted(least, scripts))
    kept = list(found)
    expected, seen, characters = Counter(), [], Counter()
    for document in given_documents:
        fate = "kept"
        if length(document) < least:
            fate = "short"
        elif scripts and script_share("\n".join(document), scripts) < 0.5:
            fate = "other_scripts"
        elif document in seen:
            fate = "duplicates"
        else:
            seen.append(document)
        expected[fate] += 1
        characters[fate] += length(document)
    assert kept == seen
    assert found.count == expected
    assert found.characters == characters
    assert sum(found.characters.values()) == sum(map(length, given_documents))
    for fate, count in expected.items():
        examples = [one for one in found.left_out if one.why == fate]
        assert len(examples) == (0 if fate == "kept" else min(count, SHOWN))


def test_the_manifest_says_what_was_kept_and_why_the_rest_was_not(tmp_path, tokenizer):
    manifest, shown = prepared(
        tmp_path, tokenizer, MIXED, min_characters=10, scripts=["latin"], script_share=0.5
    )
    assert manifest.documents == 2
    assert (manifest.duplicates, manifest.short, manifest.other_scripts) == (2, 3, 2)
    assert manifest.characters["kept"] == length(LONG) + length(MIXED[6])
    assert sum(manifest.characters.values()) == sum(map(length, MIXED))
    assert [one["why"] for one in shown] == [
        "other_scripts",
        "short",
        "duplicates",
        "short",
        "short",
        "duplicates",
        "other_scripts",
    ]
    assert [one["row"] for one in shown] == [4, 6, 8, 11, 13, 19, 22]
    assert shown[0] == {
        "why": "other_scripts",
        "file": "c.txt",
        "row": 4,
        "characters": length(OTHER),
        "text": OTHER[0],
    }
    assert len(read_back(tmp_path / "out")) == 2


def test_by_default_everything_is_kept(tmp_path, tokenizer):
    manifest, shown = prepared(tmp_path, tokenizer, [LONG, OTHER, ["no"], ["12"]])
    assert manifest.documents == 4
    assert (manifest.short, manifest.other_scripts) == (0, 0)
    assert shown == []


def test_what_is_shown_is_bounded(tmp_path, tokenizer):
    documents = [LONG, *([f"{i}"] for i in range(10)), ["很" * 1000], ["很" * 999]]
    _, shown = prepared(tmp_path, tokenizer, documents, min_characters=5, scripts=["latin"])
    assert Counter(one["why"] for one in shown) == {"short": SHOWN, "other_scripts": 2}
    assert max(len(one["text"]) for one in shown) == SHOWN_CHARACTERS


def test_rows_of_other_files_are_named(tmp_path, tokenizer):
    path = tmp_path / "c.jsonl"
    texts = ["Long enough to be kept.", "", "no", "Long enough to be kept."]
    path.write_text("".join(json.dumps({"text": t}) + "\n" for t in texts), "utf-8")
    settings = PrepareSettings(**SMALL, min_characters=5)
    manifest = prepare([path], tokenizer, tmp_path / "out", settings)
    assert (manifest.documents, manifest.empty, manifest.short, manifest.duplicates) == (1, 1, 1, 1)
    shown = [json.loads(s) for s in (tmp_path / "out/left_out.jsonl").read_text().splitlines()]
    assert [(one["why"], one["row"]) for one in shown] == [
        ("empty", 2),
        ("short", 3),
        ("duplicates", 4),
    ]


def test_parts_of_a_divided_document_are_never_too_short(tmp_path, tokenizer, monkeypatch):
    monkeypatch.setattr(documents_module, "DOCUMENT_LIMIT", 100)
    document = [f"{i}" * 60 for i in range(5)]
    manifest, shown = prepared(tmp_path, tokenizer, [document], min_characters=100)
    assert manifest.characters == {"kept": 300}
    assert shown == [] and manifest.divided == 2


def test_another_rule_is_another_plan(tmp_path, tokenizer):
    prepared(tmp_path, tokenizer, MIXED, min_characters=10)
    with pytest.raises(UserError, match="min_characters was 10, now 11"):
        prepared(tmp_path, tokenizer, MIXED, min_characters=11)
    with pytest.raises(UserError, match="scripts was none, now han"):
        prepared(tmp_path, tokenizer, MIXED, min_characters=10, scripts=["han"])


def test_when_nothing_is_left_the_rule_is_named(tmp_path, tokenizer):
    with pytest.raises(UserError, match="all 2 that hold text are too short or in another script"):
        prepared(tmp_path, tokenizer, [LONG, LONG[:1]], scripts=["han"])
    assert not (tmp_path / "out").exists()


def test_processes_and_restarts_change_no_byte(tmp_path, tokenizer):
    documents = [[f"{i} {line}" for line in lines] for i in range(20) for lines in MIXED]
    documents += documents[:50]
    path = write_corpus(tmp_path / "c.txt", documents)
    rule = {"min_characters": 12, "scripts": ["latin"], "shard_megabytes": 0.002}
    for name, processes in (("one", 1), ("two", 2)):
        settings = PrepareSettings(processes=processes, **rule)
        prepare([path], tokenizer, tmp_path / name, settings)
    (tmp_path / "two" / "manifest.json").unlink()
    (tmp_path / "two" / "left_out.jsonl").unlink()
    (tmp_path / "two/shards/00001/ids.npy").unlink()
    prepare([path], tokenizer, tmp_path / "two", settings)
    assert same_bytes(tmp_path / "one", tmp_path / "two")
    assert len(Shards.open(tmp_path / "one").manifest.shards) > 1


def test_folders_from_before_the_rules_can_be_opened(tmp_path, tokenizer):
    prepared(tmp_path, tokenizer, MIXED)
    for name in ("plan.json", "manifest.json"):
        values = json.loads((tmp_path / "out" / name).read_text("utf-8"))
        for key in ("min_characters", "scripts", "script_share", "short", "other_scripts"):
            values.pop(key, None)
        values.pop("characters", None)
        (tmp_path / "out" / name).write_text(json.dumps(values), "utf-8")
    assert Shards.open(tmp_path / "out").manifest.duplicates == 2
    prepared(tmp_path, tokenizer, MIXED)
