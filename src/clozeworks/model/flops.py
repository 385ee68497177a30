"""How many floating-point operations training spends on a token."""

from clozeworks.model.config import EncoderConfig

GATES = {"lstm": 4, "gru": 3}


def flops_a_token(config: EncoderConfig, attended: float, predicted: float) -> float:
    """Operations of the forward and backward pass for one token.

    `attended`: how many tokens a token attends to, on average; `predicted`: the share of the tokens
    that are predicted out of the whole vocabulary. Counted are matrix products alone: six
    operations for each weight that meets the token (two forward, four backward), and those of
    attention; the layers in full, also where the last one is run on some rows only. A local layer
    attends to its window at most.
    """
    width = config.hidden_size
    attentions = 1 if config.recurrent else len(config.order)
    weights = attentions * 4 * width**2
    if config.recurrent:
        # each direction is half as wide: its gates read the token and its own last state
        weights += config.num_layers * 2 * GATES[config.recurrent] * (width // 2) * 3 * width // 2
    else:
        weights += attentions * (3 if config.gated else 2) * width * config.inner_size
    vocabulary = config.vocab_size * config.embedding_width
    near = min(attended, 2 * config.local_window + 1)
    local = len(config.local_layers)
    met = (attentions - local) * attended + local * near
    return 6 * (weights + predicted * vocabulary) + 12 * width * met
