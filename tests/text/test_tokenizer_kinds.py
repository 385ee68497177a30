"""Laws of tokenizers that are not BERT's: the same ids, spans and forms as the library gives."""

import json

import numpy as np
import pytest
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from clozeworks.core.errors import UserError
from clozeworks.core.records import Vocabulary
from clozeworks.text.load import load_tokenizer

TEXTS = [
    "The parcel came late!",
    "我昨天下的单，什么时候发货？",
    "Ｅ５ naïve café 🙂 and so on",
    "x",
]
MARKS = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
BERT_MARKS = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"]


def byte_level(processor="roberta"):
    """Byte-level BPE as RoBERTa and ModernBERT have it."""
    marks = MARKS if processor == "roberta" else BERT_MARKS
    library = tokenizers.Tokenizer(models.BPE(unk_token=None))
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=marks, initial_alphabet=alphabet, show_progress=False
    )
    library.train_from_iterator(TEXTS * 5, trainer)
    ids = library.get_vocab()
    if processor == "roberta":
        ends = ("</s>", ids["</s>"]), ("<s>", ids["<s>"])
        library.post_processor = processors.RobertaProcessing(*ends)
    else:
        library.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]",
            pair="[CLS] $A [SEP] $B:1 [SEP]:1",
            special_tokens=[("[CLS]", ids["[CLS]"]), ("[SEP]", ids["[SEP]"])],
        )
    return library


def unigram():
    """Unigram as XLM-R and ALBERT have it."""
    library = tokenizers.Tokenizer(models.Unigram())
    library.normalizer = normalizers.NFKC()
    library.pre_tokenizer = pre_tokenizers.Metaspace()
    library.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=120, special_tokens=MARKS, unk_token="<unk>", show_progress=False
    )
    library.train_from_iterator(TEXTS * 5, trainer)
    ids = library.get_vocab()
    library.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", ids["<s>"]), ("</s>", ids["</s>"])],
    )
    return library


KINDS = {
    "roberta": byte_level,
    "modernbert": lambda: byte_level("template"),
    "xlm_roberta": unigram,
}


@pytest.fixture(params=KINDS)
def kind(request, tmp_path):
    """A library's tokenizer, and ours opened from its folder."""
    library = KINDS[request.param]()
    library.save(str(tmp_path / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "auto_map": None}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    return library, load_tokenizer(tmp_path)


def equal(ours, theirs):
    return ours.ids.tolist() == theirs.ids and ours.segments.tolist() == theirs.type_ids


def test_ids_and_segments_are_the_librarys(kind):
    library, ours = kind
    for text in TEXTS:
        assert equal(ours.encode(text), library.encode(text))
        for other in TEXTS:
            assert equal(ours.encode(text, other), library.encode(text, other))


@pytest.mark.parametrize("size", [6, 7, 9, 14])
def test_what_is_too_long_is_cut_as_the_library_cuts_it(kind, size):
    library, ours = kind
    library.enable_truncation(size, strategy="longest_first")
    for text in TEXTS:
        assert equal(ours.encode(text, max_length=size), library.encode(text))
        for other in TEXTS:
            found = ours.encode(text, other, max_length=size)
            assert equal(found, library.encode(text, other))
            whole = len(ours.encode(text, other))
            assert found.truncated == whole - len(found)


def test_spans_lead_back_to_the_text(kind):
    library, ours = kind
    for text in TEXTS:
        found, theirs = ours.encode(text), library.encode(text)
        assert [tuple(span) for span in found.spans.tolist()] == theirs.offsets


def test_a_saved_one_is_the_same(kind, tmp_path):
    _, ours = kind
    ours.save(tmp_path / "again")
    again = load_tokenizer(tmp_path / "again")
    assert again.hash == ours.hash
    assert not (tmp_path / "again" / "vocab.txt").exists()
    for text in TEXTS:
        assert np.array_equal(again.encode(text, text).ids, ours.encode(text, text).ids)


def test_special_tokens_are_never_drawn(kind):
    library, ours = kind
    vocabulary: Vocabulary = ours.vocabulary
    marks = [t.content for t in library.get_added_tokens_decoder().values()]
    assert {ours.pieces[i] for i in vocabulary.special} >= set(marks)
    assert not set(vocabulary.drawable.tolist()) & vocabulary.special
    assert ours.pieces[vocabulary.mask] in ("<mask>", "[MASK]")
    assert ours.decode(ours.encode(TEXTS[0]).ids).strip() == TEXTS[0]


def test_roles_come_from_the_files_beside(tmp_path):
    library = byte_level("template")
    library.add_special_tokens(["[BLANK]"])
    library.save(str(tmp_path / "tokenizer.json"))
    named = {"mask_token": {"content": "[BLANK]"}, "pad_token": "[PAD]"}
    (tmp_path / "special_tokens_map.json").write_text(json.dumps(named))
    ours = load_tokenizer(tmp_path)
    assert ours.pieces[ours.vocabulary.mask] == "[BLANK]"
    (tmp_path / "special_tokens_map.json").write_text(json.dumps({"mask_token": "[GONE]"}))
    with pytest.raises(UserError, match=r"the vocabulary has no \[GONE\]"):
        load_tokenizer(tmp_path)
