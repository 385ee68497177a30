"""From text to what pretraining reads: train a tokenizer, prepare a corpus."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from pydantic import Field

from clozeworks.core.config import Settings
from clozeworks.core.errors import UserError
from clozeworks.core.files import write_folder
from clozeworks.core.log import say
from clozeworks.data.documents import Documents
from clozeworks.data.prepare import PrepareSettings
from clozeworks.data.prepare import prepare as prepare_corpus
from clozeworks.data.shards import Manifest
from clozeworks.interop.hub import local
from clozeworks.text.audit import Audit, audit
from clozeworks.text.load import load_tokenizer
from clozeworks.text.train import TokenizerSettings, train_tokenizer


class TokenizerRecipe(Settings):
    """What the `tokenizer` verb needs."""

    files: list[Path]
    """Text to learn from: txt, jsonl, csv, xlsx or parquet; all but these two also
    packed (.gz, .xz)."""
    out: Path
    """Folder for tokenizer.json, tokenizer_config.json and vocab.txt."""
    settings: TokenizerSettings = TokenizerSettings()
    column: str = "text"
    """Column that holds the text, where the files have columns."""
    encoding: str = "utf-8"
    """Character encoding of the files; gb18030 for most Chinese files that are not UTF-8."""
    format: str | None = None
    """Form of the files, where their names do not tell it."""
    audited_lines: int = Field(default=20_000, ge=1)
    """Lines of the corpus on which the finished vocabulary is audited."""


class TokenizerTrained(Settings):
    """What the `tokenizer` verb made."""

    out: Path
    audit: Audit


def tokenizer(recipe: TokenizerRecipe) -> TokenizerTrained:
    """Train a WordPiece tokenizer, audit it on its corpus, and write it as a folder.

    Raises UserError for unreadable files, or a corpus too small for the size asked for.
    """
    if not recipe.files:
        raise UserError("name at least one file of text to learn from")
    if recipe.out.exists():
        raise UserError(f"{recipe.out} already exists; choose another --out, or remove it")

    def lines() -> Iterator[str]:
        documents = Documents(recipe.files, recipe.column, recipe.encoding, recipe.format)
        return (line for document in documents for line in document)

    trained = train_tokenizer(lines, recipe.settings)
    audited = audit(trained, islice(lines(), recipe.audited_lines))
    with write_folder(recipe.out) as aside:
        trained.save(aside)
    say(
        f"{audited.vocab_size:,} pieces; on the corpus's first lines: "
        f"{audited.unknown_rate:.3%} unknown tokens, "
        f"{audited.character_coverage:.3%} of characters covered, "
        f"{audited.tokens_per_word:.2f} tokens a word, {audited.dead_pieces:,} pieces unused, "
        f"{audited.chinese_covered:,} of {audited.chinese_seen:,} Chinese characters covered"
    )
    say(f"tokenizer → {recipe.out}")
    return TokenizerTrained(out=recipe.out, audit=audited)


class PrepareRecipe(Settings):
    """What the `prepare` verb needs."""

    files: list[Path]
    """The corpus: text with a blank line between documents (or --lines), or a document a row."""
    tokenizer: Path
    """Folder of the tokenizer, or of a model that has one."""
    out: Path
    """Folder for the shards."""
    settings: PrepareSettings = PrepareSettings()


def prepare(recipe: PrepareRecipe) -> Manifest:
    """Turn a corpus into shards of token ids; called again, it goes on where it was stopped."""
    manifest = prepare_corpus(
        recipe.files, load_tokenizer(local(recipe.tokenizer)), recipe.out, recipe.settings
    )
    say(f"shards → {recipe.out}")
    return manifest
