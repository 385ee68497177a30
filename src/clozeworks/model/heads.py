"""What stands on the encoder: pooler, masked-token head, next-sentence head, classifier."""

import torch
from torch import Tensor, nn

from clozeworks.model.config import EncoderConfig
from clozeworks.model.encoder import Encoder, Layer, activate
from clozeworks.model.noise import Dropout


class Pooler(nn.Module):
    """The first token's vector through a dense layer and tanh: [M, H] → [M, H]."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.dense(x))


class TokenHead(nn.Module):
    """Rows of masked tokens → what the output embedding is multiplied with, [M, H].

    The output embedding is the input embedding (tied); only its bias [V] lives here.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.activation = config.activation
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.norm_eps)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(activate(self.dense(x), self.activation))
        return out


class ClassHead(nn.Module):
    """Pooled rows → class logits: [M, H] → [M, K], after dropout of `share`."""

    def __init__(self, encoder: Encoder, num_classes: int, share: float = 0.0) -> None:
        super().__init__()
        self.dropout = Dropout(share, encoder.noise)
        self.dense = nn.Linear(encoder.config.hidden_size, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.dense(self.dropout(x))
        return out


class Model(nn.Module):
    """An encoder and the heads its task needs, each under the name of its task."""

    def __init__(self, encoder: Encoder, pooler: Pooler | None, heads: dict[str, nn.Module]):
        super().__init__()
        self.encoder = encoder
        self.pooler = pooler
        self.heads = nn.ModuleDict(heads)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.encoder.embeddings.tokens.weight.device

    def set_dropout(self, share: float) -> None:
        """Drop `share` of hidden values and of attention in the encoder while training."""
        for module in self.encoder.modules():
            if isinstance(module, Dropout):
                module.share = share
            if isinstance(module, Layer):
                module.attention_dropout = share

    def pooled(self, x: Tensor) -> Tensor:
        """First-token rows through the pooler, [M, H]."""
        assert self.pooler is not None, "this model was built without a pooler"
        out: Tensor = self.pooler(x)
        return out
