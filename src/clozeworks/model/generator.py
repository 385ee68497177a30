"""A small model that fills blanks for a larger one to judge, and reads through its embeddings."""

from clozeworks.core.config import validated
from clozeworks.model.config import EncoderConfig
from clozeworks.model.heads import AnyEncoder, Model, TokenHead, encoder_of


def generator_of(encoder: AnyEncoder, share: float) -> Model:
    """A fresh generator: `share` of the encoder's widths, as deep (Clark et al. 2020, 3.1).

    Token, position and segment embeddings and their norm are the encoder's own (tied), as in the
    released code; a projection leads from their width to the generator's. One source of dropout
    masks serves both, so that seeding the encoder's seeds both.
    """
    config = narrowed(encoder.config, share)
    small = encoder_of(config, encoder.noise)
    ours, shared = small.embeddings, encoder.embeddings
    ours.tokens, ours.positions = shared.tokens, shared.positions
    ours.segments, ours.norm = shared.segments, shared.norm
    return Model(small, None, {"mlm": TokenHead(config)})


def narrowed(config: EncoderConfig, share: float) -> EncoderConfig:
    """The config of an encoder `share` as wide, with about as large a share of the heads.

    The width is even, and the heads are so many that each has an even share of it: recurrence
    needs the one, rotary positions the other.
    """
    width = max(2, 2 * round(config.hidden_size * share / 2))
    most = max(1, round(config.num_heads * share))
    heads = max(n for n in range(1, most + 1) if width % (2 * n) == 0)
    embedding = config.embedding_width
    changed = {
        "hidden_size": width,
        "num_heads": heads,
        "inner_size": max(1, round(config.inner_size * share)),
        "embedding_size": None if embedding == width else embedding,
    }
    return validated(EncoderConfig, {**config.model_dump(), **changed}, "generator")
