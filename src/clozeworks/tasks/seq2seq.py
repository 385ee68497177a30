"""Writing a text for a text: translations, summaries, answers; an encoder-decoder from a BERT."""

from collections.abc import Mapping
from collections.abc import Sequence as Items
from copy import copy
from functools import cached_property
from typing import Any, Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from clozeworks.core.config import Settings
from clozeworks.core.errors import UserError, choose
from clozeworks.core.records import Example, Prediction, Sequence, Vocabulary
from clozeworks.data.batches import Batch, Group, bounds, pack
from clozeworks.metrics.generate import rouge_metrics, rouge_words
from clozeworks.model.cloze import Workspace, cloze_loss, cloze_right
from clozeworks.model.decoder import Decoder, Tokens, depths
from clozeworks.model.families import FAMILIES
from clozeworks.model.heads import AnyEncoder, Model
from clozeworks.model.write import Search, write
from clozeworks.tasks.base import Draw, Judged, Output, Part, Task, Terms
from clozeworks.text.tokenizer import Tokenizer
from clozeworks.text.written import written


class Seq2SeqConfig(Settings):
    """How texts are read, what the decoder begins as, and how it writes."""

    source_length: int = Field(default=128, ge=8)
    """Longest source in tokens, special tokens included; longer ones are cut, and counted."""
    target_length: int = Field(default=64, ge=8)
    """The same of targets, and of what is written."""
    decoder_layers: int | None = Field(default=None, ge=1)
    """Layers of the decoder, taken evenly spaced from the encoder's; absent: as many."""
    cross: Literal["fresh", "copied"] = "fresh"
    """What cross-attention begins as: chance (Rothe et al. 2020), or a copy of the layer's
    self-attention."""
    share_vocabulary: bool = True
    """Whether decoder and encoder share their token vectors, in training too."""
    smoothing: float = Field(default=0.1, ge=0, lt=1)
    """Share of the right token's probability that is spread over all tokens in training."""
    beams: int = Field(default=4, ge=1)
    """Texts that are kept at each token while writing; 1 writes greedily."""
    length_penalty: float = Field(default=0.6, ge=0)
    """Exponent of the length that a text's log-probability is divided by (Wu et al. 2016): 0 likes
    short texts, 1 long ones."""
    min_length: int = Field(default=1, ge=0)
    """Fewest tokens of what is written."""
    no_repeat: int = Field(default=0, ge=0)
    """No run of so many tokens is written twice; 0: any may be."""
    early_stop: bool = True
    """End a search once as many texts are finished as there are beams; else, when none that is
    still being written can be better."""
    write_unknown: bool = False
    """Whether the unknown token may be written."""
    sampled: int = Field(default=0, ge=0)
    """Dev rows that are written out whenever a run is judged; its loss on dev is told anyway."""

    @model_validator(mode="after")
    def _room_for_text(self) -> Self:
        if self.min_length > self.target_length - 2:
            raise ValueError(
                f"min_length {self.min_length} is more than the text that target_length "
                f"{self.target_length} has room for"
            )
        return self


class Seq2SeqExample(Example):
    """A text, and the text to write for it."""

    source: str
    """The text that is read."""
    target: str | list[str] | None = None
    """The text to write, or several that are as good: the first is learned; not needed to
    predict."""


class Seq2SeqPrediction(Prediction):
    """What was written for one source."""

    text: str
    score: float
    """Its log-probability over its length's divisor; nearer to 0 is surer."""
    cut: int
    """Tokens of the source that were not read."""


class Seq2Seq(Task):
    """Write a text for a text: translate, summarise, answer."""

    name = "seq2seq"
    Config, Example, Answer = Seq2SeqConfig, Seq2SeqExample, Seq2SeqPrediction
    free = frozenset(
        {"beams", "length_penalty", "min_length", "no_repeat", "early_stop", "write_unknown"}
    )
    answers = frozenset({"target"})
    lengths = ("source_length", "target_length")
    config: Seq2SeqConfig

    def __init__(self, config: Settings, vocabulary: Any, labels: Items[str] = ()) -> None:
        super().__init__(config, vocabulary, labels)
        self._space = Workspace()

    @property
    def sampled(self) -> int | None:
        return self.config.sampled

    @property
    def lowercase(self) -> bool:
        """Whether the vocabulary can write lower case alone."""
        special = self.vocabulary.special
        pieces = enumerate(self.vocabulary.pieces)
        return not any(piece != piece.lower() for i, piece in pieces if i not in special)

    @cached_property
    def judged(self) -> "Seq2Seq":
        """Without smoothing, which only training has."""
        judged = copy(self)
        judged.config = self.config.model_copy(update={"smoothing": 0.0})
        return judged

    # === Data ===

    def asked(self, example: Seq2SeqExample) -> Seq2SeqExample:
        """The source alone."""
        return example.model_copy(update={"target": None})

    def features(
        self, examples: Items[Seq2SeqExample], tokenizer: Tokenizer
    ) -> list[list[Sequence]]:
        """The source, and the target where there is one: `[CLS] target [SEP]`."""
        if not tokenizer.is_wordpiece:
            raise UserError(
                f"a {tokenizer.kind} tokenizer's tokens cannot be written out as text here; use a "
                "model with a WordPiece tokenizer"
            )
        sources, length = [e.source for e in examples], self.config.source_length
        found = [[s] for s in tokenizer.encode_batch(sources, max_length=length, spans=False)]
        known = [i for i, example in enumerate(examples) if targets_of(example)]
        texts = tokenizer.tokenize([targets_of(examples[i])[0] for i in known])
        room, (cls, sep) = self.config.target_length - 2, (self.vocabulary.cls, self.vocabulary.sep)
        for i, ids in zip(known, texts, strict=True):
            whole = np.concatenate([[cls], ids[:room], [sep]]).astype(np.int64)
            found[i].append(Sequence(whole, whole * 0, truncated=max(0, len(ids) - room)))
        return found

    def check(self, example: Seq2SeqExample) -> None:
        if not targets_of(example):
            raise UserError("no target; write one, or remove the row")
        if not all(text.strip() for text in targets_of(example)):
            raise UserError("a target is empty; write one, or remove the row")

    @classmethod
    def key(cls, example: Seq2SeqExample) -> str:
        return example.source

    @classmethod
    def written(cls, example: Seq2SeqExample) -> list[str]:
        return targets_of(example)

    def mark(self, batch: Batch, groups: Items[Group], draw: Draw) -> Batch:
        """The batch of the sources, with `seq2seq_ids` [T] int64 that the decoder reads, their
        bounds `seq2seq_offsets` [N + 1], and `seq2seq_labels` [T], what comes next after each.

        Nothing is learned of where a target ends that was cut.
        """
        sources = pack([Group(g.index, g.sequences[:1]) for g in groups])
        read = [s.ids[: len(s) - 1 - bool(s.truncated)] for _, s in (g.sequences for g in groups)]
        next_ = [g.sequences[1].ids[1 : 1 + len(ids)] for g, ids in zip(groups, read, strict=True)]
        lengths = np.array([len(ids) for ids in read], dtype=np.int64)
        return sources.with_targets(
            seq2seq_ids=torch.from_numpy(np.concatenate(read)),
            seq2seq_offsets=torch.from_numpy(bounds(lengths)),
            seq2seq_labels=torch.from_numpy(np.concatenate(next_)),
        )

    # === Model ===

    def head(self, encoder: AnyEncoder) -> nn.Module:
        config, wanted = encoder.config, self.config.decoder_layers
        holding = [n for n in FAMILIES.names() if _HEADS in FAMILIES.get(n).architectures]
        choose(config.family, holding, "seq2seq: family of the model")
        layers = config.num_layers if wanted is None else wanted
        if layers > config.num_layers:
            raise UserError(
                f"decoder_layers {layers} is more than the {config.num_layers} layers of the "
                f"encoder; use --decoder-layers {config.num_layers} or fewer"
            )
        return Decoder(encoder, layers, self.config.share_vocabulary)

    def inherit(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The decoder as a copy of the encoder's layers, and of a head of masked tokens."""
        count = sum(name.endswith(".qkv.weight") for name in tensors if name.startswith(_LAYERS))
        held = {name for name in tensors if name.startswith(f"{_OWN}layers.")}
        if held:
            self._refuse_other(sum(name.endswith(".cross_q.weight") for name in held), count)
            theirs = tensors[f"encoder.{_TOKENS}"]
            own = tensors.get(f"{_OWN}{_TOKENS}", theirs)
            if self.config.share_vocabulary and not torch.equal(own, theirs):
                raise UserError(
                    "the model's decoder has token vectors of its own; go on with them: "
                    "--no-share-vocabulary"
                )
            return {}
        found = {
            f"{_OWN}embeddings.{name}": tensor for name, tensor in _under(tensors, _EMBEDDINGS)
        }
        for part, tensor in _under(tensors, "heads.mlm."):
            found[f"{_OWN}head.{part}"] = tensor
        wanted = self.config.decoder_layers or count
        for place, depth in enumerate(depths(count, wanted) if wanted <= count else []):
            for part, tensor in _under(tensors, f"{_LAYERS}{depth}."):
                found[f"{_OWN}layers.{place}.{part}"] = tensor
                if self.config.cross == "copied":
                    crossed = _crossed(part, tensor)
                    found |= {f"{_OWN}layers.{place}.{name}": t for name, t in crossed.items()}
        return found

    def _refuse_other(self, there: int, layers: int) -> None:
        """Raise UserError where a model has a decoder of another depth than is wanted."""
        wanted = self.config.decoder_layers or layers
        if there != wanted:
            raise UserError(
                f"the model has a decoder of {there} layers, not {wanted}; go on with it: "
                f"--decoder-layers {there}"
            )

    def read(self, model: Model, batch: Batch) -> Tensor:
        return torch.arange(batch.num_tokens, device=batch.input_ids.device)

    def counts(self, batch: Batch) -> dict[str, float]:
        return {"seq2seq": float(len(batch.targets["seq2seq_labels"]))}

    def terms(self, model: Model, rows: Tensor, batch: Batch) -> Terms:
        return {"seq2seq": self._loss(model, self._decoded(model, rows, batch), batch)}

    def judge(self, model: Model, batch: Batch) -> Judged:
        """As every task's; loss and right tokens from one pass through the decoder too."""
        batch, _, ((_, rows),) = self._through(model, batch)
        x = self._decoded(model, rows, batch)
        decoder, labels = _decoder(model), batch.targets["seq2seq_labels"]
        right = cloze_right(x, decoder.weight, decoder.head.bias, labels)
        return Judged({"seq2seq": self._loss(model, x, batch)}, {"seq2seq": right})

    def _decoded(self, model: Model, memory: Tensor, batch: Batch) -> Tensor:
        t = batch.targets
        tokens = Tokens.of(t["seq2seq_ids"], t["seq2seq_offsets"])
        x: Tensor = _decoder(model)(tokens, memory, batch.offsets)
        return x

    def _loss(self, model: Model, x: Tensor, batch: Batch) -> Tensor:
        decoder, labels = _decoder(model), batch.targets["seq2seq_labels"]
        share, bias = self.config.smoothing, decoder.head.bias
        return cloze_loss(x, decoder.weight, bias, labels, self._space, share)

    # === Prediction ===

    def predict(self, model: Model, batch: Batch) -> Output:
        """The best text of each source: `tokens` [N, L] int64, `lengths` [N], `scores` [N]."""
        encoder, decoder = model.encoder, _decoder(model)
        memory = encoder.encode(encoder.embed(batch), batch).x
        found = write(decoder, memory, batch.offsets, self._search(decoder))
        return found._asdict()

    def _search(self, decoder: Decoder) -> Search:
        config, vocabulary, weight = self.config, self.vocabulary, decoder.weight
        barred = barred_ids(vocabulary, len(weight), config.write_unknown)
        return Search(
            first=vocabulary.cls,
            last=vocabulary.sep,
            barred=torch.tensor(barred, device=weight.device),
            longest=config.target_length - 1,
            least=config.min_length,
            beams=config.beams,
            penalty=config.length_penalty,
            no_repeat=config.no_repeat,
            early=config.early_stop,
        )

    def decode(self, output: Output, batch: Batch) -> list[Part]:
        """The `text` for each source, its `score`, and what was `cut`; it has no place anywhere."""
        pieces = self.vocabulary.pieces
        columns = [output[name].tolist() for name in ("tokens", "lengths", "scores")]
        parts: list[Part] = []
        for sequence, tokens, length, score in zip(batch.sequences, *columns, strict=True):
            text = written(pieces[i] for i in tokens[:length])
            parts.append({"text": text, "score": max(score, LEAST), "cut": sequence.truncated})
        return parts

    def join(self, example: Seq2SeqExample, parts: list[Part]) -> Seq2SeqPrediction:
        return Seq2SeqPrediction(**parts[0])

    def metrics(
        self, predictions: Items[Seq2SeqPrediction], examples: Items[Seq2SeqExample]
    ) -> Mapping[str, float]:
        """ROUGE-L, which needs no package, and how long texts are beside their targets."""
        if not examples:
            return {"rouge_l": 0.0, "length_ratio": 0.0}
        texts, targets = [p.text for p in predictions], list(map(targets_of, examples))
        found = rouge_metrics(texts, targets)
        wanted = sum(len(rouge_words(t[0])) for t in targets)
        length = sum(len(rouge_words(text)) for text in texts) / max(1, wanted)
        return {"rouge_l": found.rouge_l.f1, "length_ratio": length}

    def measured(self, examples: Items[Seq2SeqExample]) -> Items[str]:
        return ["rouge_l"]


def barred_ids(vocabulary: Vocabulary, rows: int, unknown: bool) -> list[int]:
    """Ids that are never written: special tokens but the end (and, if asked for, the unknown one),
    and of the model's `rows` those there are no pieces of."""
    kept = {vocabulary.sep, vocabulary.unknown} if unknown else {vocabulary.sep}
    return sorted({*range(vocabulary.size, rows), *vocabulary.special} - kept)


LEAST = -1e9
"""Score of a text that had no chance; infinity could not be written."""
_HEADS = frozenset({"seq2seq"})
_OWN = "heads.seq2seq."
_LAYERS = "encoder.layers."
_EMBEDDINGS = "encoder.embeddings."
_TOKENS = "embeddings.tokens.weight"


def targets_of(example: Seq2SeqExample) -> list[str]:
    """The texts that may be written for an Example, none where none is given."""
    target = example.target
    return [target] if isinstance(target, str) else list(target or [])


def _decoder(model: Model) -> Decoder:
    decoder = model.heads["seq2seq"]
    assert isinstance(decoder, Decoder)
    return decoder


def _under(tensors: Mapping[str, Tensor], prefix: str) -> list[tuple[str, Tensor]]:
    """The tensors whose names begin so, by the rest of their names."""
    found = tensors.items()
    return [(name.removeprefix(prefix), t) for name, t in found if name.startswith(prefix)]


def _crossed(part: str, tensor: Tensor) -> dict[str, Tensor]:
    """What a tensor of self-attention is in cross-attention."""
    module, _, kind = part.partition(".")
    match module:
        case "qkv":
            q, k, v = tensor.chunk(3)
            return {f"cross_q.{kind}": q, f"cross_kv.{kind}": torch.cat([k, v])}
        case "out":
            return {f"cross_out.{kind}": tensor}
        case "attention_norm":
            return {f"cross_norm.{kind}": tensor}
    return {}
