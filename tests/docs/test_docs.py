"""The documentation is true: what it shows runs, what it names exists, both languages agree."""

import ast
import contextlib
import io
import re
import shlex
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest
from desk import make_desk

from clozeworks import cli
from clozeworks.core.bundle import Calibration, Card, Fold, Provenance
from clozeworks.tasks import TASKS

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
SHRUNK = {
    "--vocab-size 16000": "--vocab-size 160",
    '--train.duration "30 minutes"': '--train.duration "2 steps"',
    '--train.duration "12 minutes"': '--train.duration "2 steps"',
    '--train.duration "18 minutes"': '--train.duration "2 steps"',
}
"""What a reader should write, and what is run instead on the desk's few lines of text."""
SHARED_PAGES = {"info": "info-and-list", "list": "info-and-list"}
"""Verbs whose page has another name."""
NOT_RUN = 12
"""Blocks that may be marked `no-run`, over README and all pages."""
TUNED = [("finetune", name) for name in TASKS.names() if not TASKS.get(name).from_shards]
EVERYWHERE = {"--recipe", "--help", "--version"}
"""Flags that no verb's own help lists."""

FENCE = re.compile(r"^```(.*)\n((?s:.*?))^```$", re.MULTILINE)
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
FLAG = re.compile(r"(?<![\w-])--[a-z][\w.-]*")
PATH = re.compile(r"`((?:src|tests|benchmarks|docs)/[\w./-]+?)(?:::(\w+))?`")


class Fence(NamedTuple):
    """A block of code: the words after its first marks, and its text."""

    words: list[str]
    text: str

    @property
    def kind(self):
        return self.words[0] if self.words else ""

    @property
    def note(self):
        return self.words[1] if len(self.words) > 1 else ""


class Page(NamedTuple):
    """A file of Markdown."""

    name: str
    text: str

    @property
    def fences(self):
        return [Fence(info.split(), text) for info, text in FENCE.findall(self.text)]

    @property
    def prose(self):
        return FENCE.sub("", self.text)

    @property
    def commands(self):
        """Every `clozeworks …` line of its bash blocks, as words."""
        blocks = (f.text for f in self.fences if f.kind == "bash")
        lines = [shlex.split(line, comments=True) for b in blocks for line in b.splitlines()]
        return [words[1:] for words in lines if words[:1] == ["clozeworks"]]


def pages(language):
    readme = ROOT / ("README.md" if language == "en" else "README.zh.md")
    return [
        Page("README.md", readme.read_text("utf-8")),
        *(Page(p.name, p.read_text("utf-8")) for p in sorted((DOCS / language).glob("*.md"))),
    ]


ENGLISH, CHINESE = pages("en"), pages("zh")
BOTH = [
    pytest.param(page, language, id=f"{language}-{page.name}")
    for language, found in (("en", ENGLISH), ("zh", CHINESE))
    for page in found
]


# === Both languages ===


def test_both_languages_have_the_same_pages():
    assert [page.name for page in ENGLISH] == [page.name for page in CHINESE]


@pytest.mark.parametrize("english", ENGLISH, ids=lambda page: page.name)
def test_both_languages_show_the_same_code(english):
    chinese = next(page for page in CHINESE if page.name == english.name)
    assert chinese.fences == english.fences


# === What is shown runs ===


@pytest.fixture(scope="session")
def desk(tmp_path_factory):
    """A folder with everything the pages speak of."""
    return make_desk(tmp_path_factory.mktemp("desk"))


def made_by(page):
    """What the page itself makes, so that it must not be there before."""
    text = "".join(fence.text for fence in page.fences if fence.note != "fails")
    return set(re.findall(r'(?:--out |\bout ?= ?")([\w./-]+)', text))


@pytest.mark.parametrize("page", ENGLISH, ids=lambda page: page.name)
def test_everything_shown_runs(page, desk, tmp_path, monkeypatch):
    shutil.copytree(desk, tmp_path, dirs_exist_ok=True)
    for path in made_by(page):
        shutil.rmtree(tmp_path / path, ignore_errors=True)
    monkeypatch.chdir(tmp_path)
    said = []
    monkeypatch.setattr(cli, "say", said.append)
    names = {"__name__": "page"}
    for number, fence in enumerate(page.fences):
        with contextlib.redirect_stdout(io.StringIO()):
            run(fence, names, tmp_path, f"{page.name}, block {number + 1}")
        if fence.note == "fails":
            assert page.fences[number + 1] == (["text"], "\n".join(said) + "\n")
            said.clear()
    assert said == []


def run(fence, names, folder, where):
    """Do what a block shows, in the current folder."""
    if fence.kind in ("toml", "csv") and fence.note:
        (folder / fence.note).write_text(fence.text, "utf-8")
    elif fence.kind == "python" and fence.note != "no-run":
        exec(compile(fence.text, where, "exec"), names)
    elif fence.kind == "bash" and fence.note != "no-run":
        text = fence.text
        for shown, shrunk in SHRUNK.items():
            text = text.replace(shown, shrunk)
        for line in text.splitlines():
            command(line, fails=fence.note == "fails")


def command(line, fails):
    words = shlex.split(line, comments=True)
    assert words[0] == "clozeworks", f"a test cannot run {line!r}; mark its block no-run"
    if not fails:
        cli.main(words[1:])
        return
    with pytest.raises(SystemExit) as stop:
        cli.main(words[1:])
    assert stop.value.code == 2, line


def test_few_blocks_are_not_run():
    notes = [f.note for page in ENGLISH for f in page.fences if f.kind in ("bash", "python")]
    assert set(notes) <= {"", "no-run", "fails"}
    assert notes.count("no-run") <= NOT_RUN


def test_each_shrunk_setting_is_shown_somewhere():
    shown = "\n".join(f.text for page in ENGLISH for f in page.fences)
    assert [setting for setting in SHRUNK if setting not in shown] == []


# === What is named exists ===


@pytest.fixture(scope="session")
def flags():
    """The flags of each verb, from its help."""
    found = {}
    for verb in cli.VERBS:
        words = [verb, *(["classify"] if verb == "finetune" else []), "--help"]
        with contextlib.redirect_stdout(io.StringIO()) as text, contextlib.suppress(SystemExit):
            cli.main(words)
        found[verb] = set(FLAG.findall(text.getvalue())) | EVERYWHERE
    for verb, task in [("pretrain", "mlm"), ("pretrain", "nsp"), ("pretrain", "rtd"), *TUNED]:
        with contextlib.redirect_stdout(io.StringIO()) as text, contextlib.suppress(SystemExit):
            cli.main([verb, task, "--help"])
        found[verb] |= set(FLAG.findall(text.getvalue()))
    return found


@pytest.mark.parametrize(("page", "language"), BOTH)
def test_every_flag_that_is_mentioned_exists(page, language, flags):
    for words in page.commands:
        used = {word for word in words if FLAG.fullmatch(word)}
        assert used <= flags.get(words[0], used), f"{words}: {used - flags[words[0]]}"
    verb = page.name.removesuffix(".md")
    known = flags[verb] if verb in flags else set().union(*flags.values())
    mentioned = {flag.rstrip(".-") for flag in FLAG.findall(page.prose)} - {"--train"}
    assert mentioned <= known, mentioned - known


@pytest.mark.parametrize("verb", cli.VERBS)
def test_every_verb_has_a_page_that_readme_links_to(verb):
    name = f"{SHARED_PAGES.get(verb, verb)}.md"
    page = next(page for page in ENGLISH if page.name == name)
    assert f"clozeworks {verb}" in page.text
    assert f"(docs/en/{name})" in ENGLISH[0].text
    assert f"(docs/zh/{name})" in CHINESE[0].text


@pytest.mark.parametrize(("page", "language"), BOTH)
def test_links_lead_somewhere(page, language):
    folder = ROOT if page.name == "README.md" else DOCS / language
    targets = [t for t in LINK.findall(page.prose) if "://" not in t]
    assert [t for t in targets if not (folder / t).exists()] == []


@pytest.mark.parametrize(("page", "language"), BOTH)
def test_files_and_tests_that_are_named_exist(page, language):
    for path, name in PATH.findall(page.prose):
        assert (ROOT / path).exists(), path
        if name:
            assert re.search(rf"^def {name}\(", (ROOT / path).read_text("utf-8"), re.MULTILINE), (
                f"{path}::{name}"
            )


def test_both_languages_name_the_same_files_and_tests():
    for english, chinese in zip(ENGLISH, CHINESE, strict=True):
        assert set(PATH.findall(english.prose)) == set(PATH.findall(chinese.prose)), english.name


@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_field_of_the_card_is_described(language):
    text = (DOCS / language / "bundle.md").read_text("utf-8")
    fields = [name for kind in (Card, Calibration, Fold, Provenance) for name in kind.model_fields]
    assert [name for name in fields if f"`{name}`" not in text] == []


# === Contributing ===


def slow_tests():
    """Every test marked slow, as `tests/x/test_y.py::test_z`, read from the source."""
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        tree = ast.parse(path.read_text("utf-8"))
        whole = any(isinstance(n, ast.Assign) and is_slow(n, "pytestmark =") for n in tree.body)
        tests = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name[:5] == "test_"]
        for test in tests:
            if whole or any(is_slow(mark, "pytest") for mark in test.decorator_list):
                yield f"{path.relative_to(ROOT).as_posix()}::{test.name}"


def is_slow(node, beginning):
    text = ast.unparse(node)
    return text.startswith(beginning) and "pytest.mark.slow" in text


def test_contributing_lists_the_slow_tests():
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    listed = text.split("<!-- slow tests -->\n")[1].split("<!-- end of slow tests -->")[0]
    expected = "".join(f"- `{name}`\n" for name in slow_tests()) or "- none yet\n"
    assert listed == expected, f"put this between the marks:\n{expected}"


def test_contributing_links_lead_somewhere():
    text = FENCE.sub("", (ROOT / "CONTRIBUTING.md").read_text("utf-8"))
    targets = [t for t in LINK.findall(text) if "://" not in t]
    assert [t for t in targets if not (ROOT / t).exists()] == []
