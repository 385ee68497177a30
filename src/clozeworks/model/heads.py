"""What stands on the encoder: the pooler, and a head for each thing that is asked of it."""

import math
from collections.abc import Collection
from itertools import chain

import torch
from torch import Tensor, nn

from clozeworks.model.config import EncoderConfig
from clozeworks.model.encoder import Embeddings, Encoder, Layer, Packed, activate, norm_of
from clozeworks.model.noise import Dropout, Noise
from clozeworks.model.recurrent import Recurrent

AnyEncoder = Encoder | Recurrent
"""What turns packed tokens into vectors; both answer the same calls."""


def encoder_of(config: EncoderConfig, noise: Noise | None = None) -> AnyEncoder:
    """The encoder a config describes; with `noise`, its dropout draws from that."""
    return Recurrent(config, noise) if config.recurrent else Encoder(config, noise)


class Pooler(nn.Module):
    """A sequence's (or token's) vector through a dense layer and an activation: [M, H] → [M, H]."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.activation = config.pooler_activation
        self.dense = nn.Linear(config.hidden_size, config.hidden_size, bias=config.head_bias)
        self.norm = norm_of(config.hidden_size, config) if config.pooler_norm else None

    def forward(self, x: Tensor) -> Tensor:
        x = activate(self.dense(x), self.activation)
        return x if self.norm is None else self.norm(x)


class TokenHead(nn.Module):
    """Rows of masked tokens → what the output embedding is multiplied with, [M, E].

    The output embedding is the input embedding (tied); only its bias [V] lives here.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        width = config.embedding_width
        self.activation = config.head_activation or config.activation
        self.dense = nn.Linear(config.hidden_size, width, bias=config.head_bias)
        self.norm = norm_of(width, config)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(activate(self.dense(x), self.activation))
        return out


class ClassHead(nn.Module):
    """Rows → class logits: [M, H] → [M, K], after dropout of `share`.

    Pooled rows for classes of texts (K classes), options and candidates (K = 1); the rows of tokens
    for tags (K classes) and answers (K = 2: start and end); means of them for sentences to keep
    (K = 1).
    """

    def __init__(self, encoder: AnyEncoder, num_classes: int, share: float = 0.0) -> None:
        super().__init__()
        self.dropout = Dropout(share, encoder.noise)
        self.dense = nn.Linear(encoder.config.hidden_size, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.dense(self.dropout(x))
        return out


class NumberHead(ClassHead):
    """Rows → one number each, [M, H] → [M, 1] fp32: `zero` and so many times `unit`.

    Adam moves every weight by about the learning rate at a step, however far there is to go: a
    number must be learned on the scale of the weights. A folder has the weights on the number's
    own scale, as a plain classifier of one output, so that anybody reads the number itself.
    """

    def __init__(self, encoder: AnyEncoder, share: float, zero: float, unit: float) -> None:
        super().__init__(encoder, 1, share)
        self.zero, self.unit = zero, unit

    def forward(self, x: Tensor) -> Tensor:
        score = super().forward(x).float()  # 1,000 ± 1 in bf16 would be 1,000
        return score * self.unit + self.zero

    def written(self) -> dict[str, Tensor]:
        """Its parameters by name, as a folder has them."""
        dense = self.dense
        weight, bias = dense.weight.detach().float(), dense.bias.detach().float()
        return {"dense.weight": weight * self.unit, "dense.bias": bias * self.unit + self.zero}

    @torch.no_grad()
    def take(self) -> None:
        """Turn what was read from a folder into its own terms."""
        self.dense.weight /= self.unit
        self.dense.bias.sub_(self.zero).div_(self.unit)


class ReplacedHead(nn.Module):
    """Rows → the logit of each token being a replaced one, [M] (Clark et al. 2020)."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.activation = config.activation
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.score = nn.Linear(config.hidden_size, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.score(activate(self.dense(x), self.activation))
        return out.squeeze(-1)


def head_of(name: str, encoder: AnyEncoder, num_classes: int = 2) -> nn.Module:
    """A fresh head of the kind that public classes hold under this name."""
    match name:
        case "mlm":
            return TokenHead(encoder.config)
        case "rtd":
            return ReplacedHead(encoder.config)
        case "choice":
            return ClassHead(encoder, 1)
        case "seq2seq":
            from clozeworks.model.decoder import Decoder  # which stands on this file

            return Decoder(encoder, encoder.config.num_layers)
        case "classify" | "tag":
            return ClassHead(encoder, num_classes)
    return ClassHead(encoder, 2)  # nsp, sop: yes or no; qa: start and end


def needs_pooler(config: EncoderConfig, heads: Collection[str]) -> bool:
    """Whether heads of these names stand on the pooler."""
    pooled = {"nsp", "sop", "classify", "choice"}
    return not pooled.isdisjoint(heads) or (
        config.pooled_tokens and not {"tag", "qa"}.isdisjoint(heads)
    )


class Model(nn.Module):
    """An encoder and the heads its task needs, each under the name of its task."""

    def __init__(self, encoder: AnyEncoder, pooler: Pooler | None, heads: dict[str, nn.Module]):
        super().__init__()
        self.encoder = encoder
        self.pooler = pooler
        self.heads = nn.ModuleDict(heads)
        self.generator: Model | None = None
        """A smaller model that fills blanks for this one to judge; there only to be trained."""
        self.kept: dict[str, Tensor] = {}
        """Tensors of the folder it is from that nothing here reads, to be written as they were."""

    def written(self) -> dict[str, Tensor]:
        """Its parameters by name, as a folder has them; not those of a generator."""
        state = {
            n: p.detach() for n, p in self.named_parameters() if not n.startswith("generator.")
        }
        for name, head in self.heads.items():
            if isinstance(head, NumberHead):
                state |= {f"heads.{name}.{n}": tensor for n, tensor in head.written().items()}
        return state

    @property
    def config(self) -> EncoderConfig:
        """The encoder's values."""
        return self.encoder.config

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.encoder.embeddings.tokens.weight.device

    @property
    def answering(self) -> list[str]:
        """Its heads, but for those that are only held, to be written again."""
        return [name for name, head in self.heads.items() if type(head) is not nn.Module]

    @property
    def tied(self) -> bool:
        """Whether a head multiplies with the token vectors, so that every one of them learns."""
        heads = self.heads.modules()
        return any(isinstance(part, TokenHead) for part in heads) or self.generator is not None

    def set_dropout(self, share: float) -> None:
        """Drop `share` of hidden values and of attention in the encoder while training.

        In a head that has layers of its own, too.
        """
        stacked = (part for part in self.heads.modules() if isinstance(part, Embeddings | Layer))
        for module in chain.from_iterable(p.modules() for p in (self.encoder, *stacked)):
            if isinstance(module, Dropout):
                module.share = share
            if isinstance(module, Layer | Recurrent):
                module.attention_dropout = share
        if self.generator is not None:
            self.generator.set_dropout(share)

    def hidden_matrices(self) -> dict[Tensor, int]:
        """Those of its encoder, as `Encoder.hidden_matrices`, of layers in heads, and of its
        generator's."""
        more = {} if self.generator is None else self.generator.hidden_matrices()
        for part in self.heads.modules():
            more |= part.matrices() if isinstance(part, Layer) else {}
        return {**self.encoder.hidden_matrices(), **more}

    @torch.no_grad()
    def matrices_rms(self) -> float:
        """Root mean square of the values of its encoder's matrices."""
        matrices = list(self.encoder.hidden_matrices())
        total = sum(float(matrix.float().square().sum()) for matrix in matrices)
        return math.sqrt(total / sum(matrix.numel() for matrix in matrices))

    def pooled_rows(self, batch: Packed) -> Tensor:
        """The rows `pooled` needs: each sequence's first, or all of them where it takes a mean."""
        if self.config.pooling == "first":
            return batch.offsets[:-1]
        return torch.arange(len(batch.input_ids), device=batch.offsets.device)

    def pooled(self, x: Tensor, batch: Packed) -> Tensor:
        """One vector for each sequence, [N, H], from the rows `pooled_rows` names."""
        assert self.pooler is not None, "this model was built without a pooler"
        if self.config.pooling == "mean":
            x = means(x, batch.offsets)
        out: Tensor = self.pooler(x)
        return out

    def answers(self, x: Tensor, batch: Packed) -> dict[str, Tensor]:
        """What every head says, by its name, of the encoder's `x` [T, H]: logits.

        mlm [T, V], rtd [T], tag and qa [T, K]; other heads [N, K].
        """
        found = {}
        for name in self.answering:
            head = self.heads[name]
            if name == "mlm":
                weight = self.encoder.embeddings.tokens.weight
                found[name] = head(x) @ weight.t() + head.bias
            elif name == "rtd":
                found[name] = head(x)
            elif name in ("tag", "qa"):
                found[name] = head(self.token_vectors(x))
            else:
                found[name] = head(self.pooled(x[self.pooled_rows(batch)], batch))
        return found

    def token_vectors(self, x: Tensor) -> Tensor:
        """Rows of tokens as heads that judge single tokens take them, [M, H]."""
        if not self.config.pooled_tokens:
            return x
        assert self.pooler is not None, "this model was built without a pooler"
        out: Tensor = self.pooler(x)
        return out


def grow(model: Model, size: int, seed: int = 0) -> None:
    """Give a model more token vectors, `size` in all: each the mean of the others, but for noise.

    Only for models without a head that multiplies with them.
    """
    encoder = model.encoder
    old, config = encoder.embeddings.tokens.weight.detach(), encoder.config
    noise = torch.Generator().manual_seed(seed)
    new = old.mean(0) + config.init_std * torch.randn(
        size - len(old), old.shape[1], generator=noise
    )
    encoder.embeddings.tokens = nn.Embedding(size, old.shape[1], _weight=torch.cat([old, new]))
    encoder.config = config.model_copy(update={"vocab_size": size})


def means(x: Tensor, offsets: Tensor) -> Tensor:
    """The mean of each sequence's rows: x [T, H], offsets [N + 1] → [N, H], summed in fp32."""
    lengths = offsets.diff()
    owner = torch.repeat_interleave(torch.arange(len(lengths), device=x.device), lengths)
    sums = torch.zeros(len(lengths), x.shape[1], dtype=torch.float32, device=x.device)
    return (sums.index_add(0, owner, x.float()) / lengths[:, None]).to(x.dtype)
