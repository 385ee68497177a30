"""Real weights: all-MiniLM-L6-v2 gives sentence-transformers' vectors."""

import pytest
import torch
import torch.nn.functional as F

from clozeworks.core.bundle import open_bundle
from clozeworks.data.batches import Group, pack
from clozeworks.data.read import read_examples
from clozeworks.interop.huggingface import open_with
from clozeworks.model.heads import Model, means
from clozeworks.tasks.classify import ClassifyExample
from clozeworks.text.load import load_tokenizer


def test_two_hundred_sentences_have_the_same_vectors(minilm_folder, public_data):
    library = pytest.importorskip("sentence_transformers")
    examples = read_examples(public_data / "sst2" / "dev.jsonl.gz", ClassifyExample, {})
    texts = [example.text for example, _ in zip(examples, range(200), strict=False)]
    assert len(set(texts)) == 200
    theirs = library.SentenceTransformer(str(minilm_folder), device="cpu")
    wanted = theirs.encode(texts, convert_to_tensor=True, normalize_embeddings=True)
    model = open_with(open_bundle(minilm_folder), lambda encoder: Model(encoder, None, {})).model
    tokenizer = load_tokenizer(minilm_folder)
    sequences = tokenizer.encode_batch(texts, max_length=256)
    batch = pack([Group(i, [sequence]) for i, sequence in enumerate(sequences)])
    with torch.inference_mode():
        x = model.eval().encoder.encode(model.encoder.embed(batch), batch).x
        found = F.normalize(means(x, batch.offsets), dim=-1)
    assert float((found - wanted.cpu()).abs().max()) < 1e-5
