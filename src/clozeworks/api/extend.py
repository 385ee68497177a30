"""Give a model more pieces for a field's words, and more positions for longer texts."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from pydantic import Field
from torch import Tensor

from clozeworks.core.bundle import Bundle, Card, Provenance, open_bundle
from clozeworks.core.config import Settings
from clozeworks.core.errors import UserError
from clozeworks.core.files import digest
from clozeworks.core.log import say
from clozeworks.core.run import versions
from clozeworks.data.documents import Documents
from clozeworks.interop.foreign import take_bundle, tell_rest, with_labels
from clozeworks.interop.hub import local, origin
from clozeworks.interop.huggingface import check_match, config_of, write_bundle
from clozeworks.interop.sentences import card_of
from clozeworks.model.config import EncoderConfig
from clozeworks.model.heads import Model, encoder_of
from clozeworks.text.alphabet import is_chinese
from clozeworks.text.extend import Words, cut, find_pieces, read_pieces
from clozeworks.text.load import load_tokenizer
from clozeworks.text.tokenizer import Tokenizer

ROWS = ("encoder.embeddings.tokens.weight", "heads.mlm.bias")
"""The tensors that have a row for each piece; the output embedding is the input embedding."""
PLACES = "encoder.embeddings.positions.weight"
"""The tensor that has a row for each position."""


class ExtendRecipe(Settings):
    """What the `extend` verb needs."""

    model: Path
    """Model to extend: a folder, or hub:OWNER/NAME@REVISION."""
    files: list[Path] = []
    """Text of the field: txt, jsonl, csv, xlsx or parquet; all but these two also
    packed (.gz, .xz)."""
    out: Path
    """Folder for the extended model."""
    pieces: int = Field(default=500, ge=1)
    """Most pieces to add."""
    least: int = Field(default=5, ge=1)
    """A piece must save this many tokens of the text, a Chinese character be seen so often."""
    from_file: Path | None = None
    """Pieces to add instead of those the text asks for: one a line, `##` before what stands
    inside a word."""
    positions: int | None = Field(default=None, ge=1)
    """Positions of the extended model, where it is to read longer texts."""
    column: str = "text"
    """Column that holds the text, where the files have columns."""
    encoding: str = "utf-8"
    """Character encoding of the files, that of `from_file` too; gb18030 for most Chinese files that
    are not UTF-8."""
    format: str | None = None
    """Form of the files, where their names do not tell it."""


class Extended(Settings):
    """What the `extend` verb made."""

    out: Path
    pieces: list[str]
    """The new pieces, in the order of their ids."""
    vocab_size: int
    """Rows of the token embedding now."""
    tokens_before: int | None
    """Tokens of the text with the old vocabulary; absent where no text was read."""
    tokens_after: int | None
    """The same with the new one."""


def extend(recipe: ExtendRecipe) -> Extended:
    """Write a copy of the model, and of a generator beside it, whose vocabulary or positions go on.

    No id changes its meaning: `[unused…]` rows stay, new ids follow the last. The vector of a new
    piece is the mean of the vectors of those the old tokenizer cut it into, so that it begins as
    what it stands for, and is no likelier an answer than these were on average (Hewitt 2021). New
    positions repeat the old ones in turn, so that neighbours look like neighbours there too
    (Beltagy et al. 2020, section 5). Raises UserError for new pieces where the tokenizer is not
    WordPiece, for positions that are not learned, or if there is nothing to add.
    """
    _refuse(recipe)
    bundle = open_bundle(local(recipe.model))
    tokenizer = load_tokenizer(bundle.path)
    for_pieces = bool(recipe.files) or recipe.from_file is not None
    if for_pieces and not tokenizer.is_wordpiece:
        raise UserError(
            f"{bundle.path}: its tokenizer is {tokenizer.kind}, whose pieces hang together by "
            "merges or scores; only WordPiece vocabularies can be extended: pretrain it on your "
            "text as it is, or choose a BERT model"
        )
    old, card = _opened(bundle, tokenizer)
    places = _places(recipe, old.config)
    pieces, words = _pieces(recipe, tokenizer) if for_pieces else ([], None)
    more = tokenizer.with_pieces(pieces) if pieces else tokenizer
    model = _widened(old, tokenizer, more, places)
    if bundle.generator is not None:
        inner, _ = _opened(bundle.generator, tokenizer)
        model.generator = _widened(inner, tokenizer, more, places)
    write_bundle(recipe.out, model, more, _card(recipe, card, more))
    before, after = _say_tokens(words, tokenizer, more) if words else (None, None)
    if pieces:
        _say_pieces(pieces, tokenizer)
    say(f"{len(more.pieces):,} pieces, {places:,} positions, model → {recipe.out}")
    return Extended(
        out=recipe.out,
        pieces=pieces,
        vocab_size=model.config.vocab_size,
        tokens_before=before,
        tokens_after=after,
    )


def _refuse(recipe: ExtendRecipe) -> None:
    """Raise UserError for what can be known to be wrong before anything is read."""
    if recipe.out.exists():
        raise UserError(f"{recipe.out} already exists; choose another --out, or remove it")
    if recipe.files and recipe.from_file is not None:
        raise UserError(
            "name either files of text to choose pieces from, or a file of pieces with "
            "--from-file; both is given"
        )
    if not recipe.files and recipe.from_file is None and recipe.positions is None:
        raise UserError(
            "there is nothing to add: name files of text to choose pieces from, a file of pieces "
            "with --from-file, or a number of --positions"
        )


def _pieces(recipe: ExtendRecipe, tokenizer: Tokenizer) -> tuple[list[str], Words | None]:
    """The pieces to add, and the words of the text they were chosen for, if there is one."""
    if recipe.from_file is not None:
        return read_pieces(recipe.from_file, tokenizer, recipe.encoding), None

    def lines() -> Iterator[str]:
        documents = Documents(recipe.files, recipe.column, recipe.encoding, recipe.format)
        return (line for document in documents for line in document)

    return find_pieces(lines, tokenizer, recipe.pieces, recipe.least)


def _opened(bundle: Bundle, tokenizer: Tokenizer) -> tuple[Model, Card]:
    """The folder's model with all its heads, and its card with their labels."""
    check_match(tokenizer, config_of(bundle).vocab_size, str(bundle.path), bundle.card.tokenizer)
    taken = take_bundle(bundle)
    tell_rest(taken)
    return taken.model, with_labels(card_of(bundle), taken.labels, str(bundle.path))


def _places(recipe: ExtendRecipe, config: EncoderConfig) -> int:
    """How many positions the extended model has."""
    if recipe.positions is None:
        return config.max_positions
    if config.positions != "learned":
        raise UserError(
            f"positions: {recipe.model} has {config.positions} positions, which no vectors stand "
            "for; leave --positions out"
        )
    if recipe.positions <= config.max_positions:
        raise UserError(
            f"positions: {recipe.positions:,} are not more than the {config.max_positions:,} of "
            f"{recipe.model}; name a larger number"
        )
    return recipe.positions


def _widened(model: Model, tokenizer: Tokenizer, more: Tokenizer, places: int) -> Model:
    """The model with a row for every piece of `more` and every place; spare rows are used first."""
    size = max(model.config.vocab_size, len(more.pieces))
    config = model.config.model_copy(update={"vocab_size": size, "max_positions": places})
    state = {name: p.detach() for name, p in model.named_parameters()}
    state |= {name: _rows(state[name], size, tokenizer, more) for name in ROWS if name in state}
    if PLACES in state:
        state[PLACES] = _repeated(state[PLACES], config)
    wider = Model(encoder_of(config), model.pooler, dict(model.heads.items()))
    _put(wider, state)
    return wider


def _put(model: Model, state: Mapping[str, Tensor]) -> None:
    """Make the tensors, which may have more rows than before, the model's parameters."""
    for name, parameter in model.named_parameters():
        parameter.data = state[name]


def _rows(old: Tensor, size: int, tokenizer: Tokenizer, more: Tokenizer) -> Tensor:
    """A tensor with a row a piece, [V, …] → [size, …], new rows the means of old ones."""
    known = {piece: i for i, piece in enumerate(tokenizer.pieces)}
    everything = old[torch.from_numpy(tokenizer.vocabulary.drawable)].mean(0)
    rows = torch.cat([old, old.new_zeros(size - len(old), *old.shape[1:])])
    for i in range(len(known), len(more.pieces)):
        parts = cut(more.pieces[i], known)
        rows[i] = everything if parts is None else old[[known[part] for part in parts]].mean(0)
    return rows


def _repeated(old: Tensor, config: EncoderConfig) -> Tensor:
    """Rows before the first position, then those of the positions in turn until all have one."""
    before, known = old[: config.first_position], old[config.first_position :]
    return torch.cat([before, known[torch.arange(config.max_positions) % len(known)]])


def _card(recipe: ExtendRecipe, card: Card, more: Tokenizer) -> Card:
    files = [*recipe.files, *([recipe.from_file] if recipe.from_file else [])]
    columns = card.provenance.recipe.get("columns")
    kept = {} if columns is None else {"columns": columns}  # of what it was trained on
    provenance = Provenance(
        parent=origin(recipe.model),
        data={path.name: digest(path) for path in files},
        recipe={**recipe.model_dump(mode="json", exclude_none=True), **kept},
        versions=versions(),
    )
    return card.model_copy(
        update={"fold": more.fold, "tokenizer": more.hash, "provenance": provenance}
    )


def _say_tokens(words: Words, tokenizer: Tokenizer, more: Tokenizer) -> tuple[int, int]:
    """What the new pieces do to the text; returns its tokens before and after."""
    before, unknown = words.tokens(set(tokenizer.pieces))
    after, still_unknown = words.tokens(set(more.pieces))
    say(
        f"the text takes {after:,} tokens instead of {before:,} ({1 - after / before:.1%} fewer); "
        f"unknown: {still_unknown / after:.3%} instead of {unknown / before:.3%}"
    )
    return before, after


def _say_pieces(pieces: list[str], tokenizer: Tokenizer) -> None:
    """What was added: how many of each kind, the first of them, and how their vectors begin."""
    known = set(tokenizer.pieces)
    characters = sum(len(piece) == 1 and is_chinese(piece) for piece in pieces)
    inside = sum(piece.startswith("##") for piece in pieces)
    shown = ", ".join(pieces[:10]) + (", …" if len(pieces) > 10 else "")
    say(
        f"{len(pieces):,} new pieces ({characters:,} Chinese characters, {inside:,} for inside a "
        f"word): {shown}"
    )
    if alone := sum(cut(piece, known) is None for piece in pieces):
        say(f"{alone:,} of them had no known parts: their vectors begin as the mean of all")
