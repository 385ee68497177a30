"""Laws of settings, registries, records and errors: names are checked, the nearest is suggested."""

from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from clozeworks.core.config import Settings, read_toml, to_toml, validated
from clozeworks.core.errors import UserError, choose, nearest, suggestion
from clozeworks.core.records import Example, Vocabulary, as_json
from clozeworks.core.registry import Registry
from clozeworks.train.loop import TrainSettings
from tiny import PIECES, VOCABULARY


class Inner(Settings):
    """Settings inside settings."""

    rate: float = Field(default=0.1, gt=0)
    """How fast."""


class Outer(Settings):
    """Settings of a test."""

    name: str
    """What it is called."""
    inner: Inner = Inner()
    count: int | None = None


def explained(values):
    with pytest.raises(UserError) as refusal:
        validated(Outer, values, "recipe.toml")
    assert "\n" not in str(refusal.value)
    return str(refusal.value)


def test_unknown_keys_name_the_nearest_at_every_depth():
    message = explained({"nmae": "x", "name": "x"})
    assert (
        message
        == "recipe.toml: unknown key 'nmae'; did you mean 'name'? (choices: name, inner, count)"
    )
    message = explained({"name": "x", "inner": {"rte": 1}})
    assert "unknown key 'inner.rte'; did you mean 'rate'" in message


def test_missing_and_impossible_values_are_named():
    assert "'name' is missing" in explained({})
    assert "inner.rate = -1" in explained({"name": "x", "inner": {"rate": -1}})
    assert "count = 'many'" in explained({"name": "x", "count": "many"})


class Span(Settings):
    """What a person writes as an object."""

    start: int
    kind: str | None = None


class Shapes(Settings):
    """A value of every form."""

    text: str = ""
    either: str | list[str] | None = None
    span: Span | None = None
    spans: list[Span] = []
    table: dict[str, Span] = {}
    numbers: list[Annotated[int, Field(ge=0)]] = []
    part: int | Literal["all", "none"] = 0
    yes: bool = True
    where: Path | None = None


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"text": ["a"]}, "text = ['a']: should be a text"),
        ({"either": {"a": 1}}, "either = {'a': 1}: should be a text, or a list such as [\"…\"]"),
        ({"either": [1]}, 'either = [1]: should be a text, or a list such as ["…"]'),
        ({"span": "x"}, "span = 'x': should be an object such as {\"start\": 0}"),
        ({"span": {"start": "x"}}, "span.start = 'x': should be a whole number"),
        ({"span": {"start": 0, "kimd": 1}}, "unknown key 'span.kimd'; did you mean 'kind'?"),
        ({"spans": {}}, 'spans = {}: should be a list such as [{"start": 0}]'),
        ({"spans": [0]}, 'spans.0 = 0: should be an object such as {"start": 0}'),
        ({"spans": [{"end": 0}]}, "unknown key 'spans.0.end' (choices: start, kind)"),
        ({"table": {"a": 1}}, 'table.a = 1: should be an object such as {"start": 0}'),
        ({"table": 1}, 'table = 1: should be an object such as {"…": {"start": 0}}'),
        ({"numbers": ["x"]}, "numbers.0 = 'x': should be a whole number"),
        ({"numbers": [1.5]}, "numbers.0 = 1.5: should be a whole number"),
        ({"part": "some"}, "part = 'some': should be a whole number, or 'all' or 'none'"),
        ({"yes": "perhaps"}, "yes = 'perhaps': should be true or false"),
        ({"where": 1}, "where = 1: should be path"),
        ({"text": ["a" * 500]}, f"text = ['{'a' * 98}…: should be a text"),
    ],
)
def test_a_value_of_another_form_is_told_the_one_it_should_have(values, words):
    with pytest.raises(UserError) as refusal:
        validated(Shapes, values, "row 1")
    assert str(refusal.value).startswith(f"row 1: {words}")


@pytest.mark.parametrize("number", ["inf", "nan", "-inf"])
def test_numbers_without_end_are_refused(number):
    assert "inner.rate" in explained({"name": "x", "inner": {"rate": number}})


class Places(Settings):
    """Settings that name files."""

    one: Path
    many: list[Path] = []
    named: dict[str, Path] = {}
    none: Path | None = None
    loose: dict[str, Any] = {}


def test_home_is_found_in_paths(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")
    named = {"a": Path("~/z")}
    found = Places(one=Path("~/x"), many=[Path("~/y"), Path("z/~")], named=named)
    assert found.one == Path("/home/ada/x")
    assert found.many == [Path("/home/ada/y"), Path("z/~")]
    assert found.named == {"a": Path("/home/ada/z")}
    assert found.none is None


def test_settings_never_change_and_carry_their_help():
    settings = Outer(name="x")
    with pytest.raises(ValueError, match="frozen"):
        settings.name = "y"
    assert Outer.model_fields["name"].description == "What it is called."


def test_toml_goes_there_and_back(tmp_path):
    path = tmp_path / "recipe.toml"
    for settings in (
        Outer(name="甲"),
        Outer(name="x", count=3, inner=Inner(rate=2.5)),
        TrainSettings(),
        Places(one=Path("x"), loose={"deep": {"rate": "0.3 -> 0.15", "unit": "word"}}),
    ):
        path.write_text(to_toml(settings), "utf-8")
        assert validated(type(settings), read_toml(path), "x") == settings
    absent = Places(one=Path("x"), loose={"names": None, "deep": {"names": None, "rate": 0.1}})
    path.write_text(to_toml(absent), "utf-8")
    assert read_toml(path)["loose"] == {"deep": {"rate": 0.1}}
    path.write_text("name = \n")
    with pytest.raises(UserError, match=r"not a TOML recipe.*line 1"):
        read_toml(path)
    path.write_bytes(b'name = "\xb9\xfa"')
    with pytest.raises(UserError, match="not a TOML recipe"):
        read_toml(path)
    with pytest.raises(UserError, match=r"recipe .* does not exist"):
        read_toml(tmp_path / "absent.toml")


def test_choices_are_offered():
    assert choose("mlm", ["mlm", "nsp"], "task") == "mlm"
    with pytest.raises(UserError, match=r"task 'mml' is not known; did you mean 'mlm'\?"):
        choose("mml", ["mlm", "nsp"], "task")
    assert nearest("zzz", ["mlm"]) is None
    assert nearest("q2", ["q1x", "Q2"]) == "Q2"
    assert suggestion("x", []) == " (choices: none)"
    assert "… (30 in all)" in suggestion("x", [f"choice {i}" for i in range(30)])


def test_a_registry_is_its_folder(tmp_path, monkeypatch):
    package = tmp_path / "shelf"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "base.py").write_text("raise AssertionError('never imported')")
    (package / "two_words.py").write_text('class TwoWords:\n    """First line.\n\n    More."""\n')
    (package / "broken.py").write_text("raise ImportError('only when asked for')")
    monkeypatch.syspath_prepend(tmp_path)
    shelf = Registry("thing", "shelf")
    assert shelf.names() == ["broken", "two_words"]
    assert shelf.get("two_words").__name__ == "TwoWords"
    assert shelf.summary("two_words") == "First line."
    with pytest.raises(UserError, match="thing 'to_words' is not known; did you mean 'two_words'"):
        shelf.get("to_words")
    with pytest.raises(UserError, match="not known"):
        shelf.get("base")
    with pytest.raises(ImportError):
        shelf.get("broken")


def test_records_refuse_what_they_do_not_know():
    class Text(Example):
        text: str
        label: str | None = None

    with pytest.raises(UserError, match="unknown key 'lable'; did you mean 'label'"):
        validated(Text, {"text": "x", "lable": "y"}, "row 1")
    assert as_json(Text(text="x")) == {"text": "x"}


def test_a_vocabulary_knows_what_may_be_drawn():
    assert VOCABULARY.size == len(PIECES)
    assert {VOCABULARY.pad, VOCABULARY.unknown, VOCABULARY.cls} < VOCABULARY.special
    assert {VOCABULARY.sep, VOCABULARY.mask, PIECES.index("[unused0]")} < VOCABULARY.special
    assert sorted([*VOCABULARY.special, *VOCABULARY.drawable]) == list(range(len(PIECES)))
    with pytest.raises(KeyError):
        Vocabulary.of(["[PAD]", "a"])
