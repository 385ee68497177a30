"""Laws of an extended model: on old text it says what it said, and it opens in transformers."""

import pytest
import tokenizers
import torch
import transformers

from clozeworks import api
from clozeworks.core.bundle import Card, open_bundle
from clozeworks.core.errors import UserError
from clozeworks.data.batches import Group, pack
from clozeworks.interop.huggingface import open_model, open_with, write_bundle
from clozeworks.model.families import FAMILIES, sized
from clozeworks.model.heads import Model, encoder_of
from clozeworks.text.load import load_tokenizer
from tiny import CONFIG, LABELS, PIECES, TOKENIZER, gap, make_model, make_task

OLD = ["where is my refund?", "the parcel is lost, please", "我要退款", "a late order!"]
NEW = ["refundable", "##ing", "国", "锦"]
SMALL = {"hidden_size": 32, "num_heads": 4, "dropout": 0.0, "attention_dropout": 0.0}
CLASSES = {name: FAMILIES.get(name).architectures for name in FAMILIES.names()}
MASKED = [name for name, held in CLASSES.items() if not held or frozenset({"mlm"}) in held]
TABLE = "encoder.embeddings.tokens.weight"


def folder_of(path, task, config=CONFIG):
    labels = LABELS if task.name == "classify" else None
    card = Card(task=task.name, labels=labels, tokenizer=TOKENIZER.hash, settings=task.settings)
    return write_bundle(path, model_of(task, config), TOKENIZER, card)


def model_of(task, config):
    if config is CONFIG:
        return make_model(task)
    model = task.build(encoder_of(config))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(0.0, 0.2, generator=generator)
            if "norm.weight" in name:
                parameter.add_(1.0)
    return model.eval()


def extended(folder, tmp_path, pieces=NEW):
    path = tmp_path / "pieces.txt"
    path.write_text("".join(f"{piece}\n" for piece in pieces), "utf-8")
    made = api.extend(api.ExtendRecipe(model=folder, out=tmp_path / "more", from_file=path))
    assert made.pieces == list(pieces)
    return made.out


def answers(folder, task, texts=OLD):
    """The ids of the texts, every token's vector, and what the task's head says."""
    tokenizer = load_tokenizer(folder)
    opened = open_model(open_bundle(folder), task)
    assert opened.fresh == []
    model = opened.model.eval()
    batch = pack([Group(i, [s]) for i, s in enumerate(tokenizer.encode_batch(texts))])
    with torch.inference_mode():
        x = model.encoder.encode(model.encoder.embed(batch), batch).x
        if task.name == "mlm":
            head = model.heads["mlm"]
            said = head(x) @ model.encoder.embeddings.tokens.weight.t() + head.bias
        else:
            said = task.predict(model, batch)["logits"]
    return batch.input_ids, x, said


@pytest.mark.parametrize("name", MASKED)
def test_on_old_text_every_family_says_what_it_said(name, tmp_path):
    task = make_task("mlm")
    size = next(iter(FAMILIES.get(name).sizes))
    config = sized(name, size, len(PIECES), pad_id=TOKENIZER.vocabulary.pad, **SMALL)
    folder = folder_of(tmp_path / "model", task, config)
    ids, x, said = answers(folder, task)
    more_ids, more_x, more_said = answers(extended(folder, tmp_path), task)
    assert torch.equal(ids, more_ids)
    assert torch.equal(x, more_x)
    assert gap(more_said[:, : said.shape[1]], said) < 1e-6
    assert more_said.shape[1] == len(PIECES) + len(NEW)


def test_a_classifier_keeps_its_answers(tmp_path):
    task = make_task("classify")
    folder = folder_of(tmp_path / "model", task)
    out = extended(folder, tmp_path)
    for one, other in zip(answers(folder, task), answers(out, task), strict=True):
        assert torch.equal(one, other)
    card = open_bundle(out).card
    assert card.labels == LABELS
    assert card.tokenizer == load_tokenizer(out).hash != TOKENIZER.hash
    assert card.provenance.parent == str(folder)


def test_a_new_row_is_the_mean_of_the_pieces_it_was_cut_into(tmp_path):
    task = make_task("mlm")
    folder = folder_of(tmp_path / "model", task)
    old = open_model(open_bundle(folder), task).model
    new = open_model(open_bundle(extended(folder, tmp_path)), task).model
    place = {piece: i for i, piece in enumerate(PIECES)}
    everything = [i for i, p in enumerate(PIECES) if not p.startswith("[")]
    cuts = {
        "refundable": [place[p] for p in ("refund", "##a", "##b", "##l", "##e")],
        "##ing": [place[p] for p in ("##i", "##n", "##g")],
        "国": everything,
        "锦": everything,
    }
    for table in (TABLE, "heads.mlm.bias"):
        before, after = (dict(m.named_parameters())[table].detach() for m in (old, new))
        assert torch.equal(after[: len(PIECES)], before)
        for i, piece in enumerate(NEW):
            assert gap(after[len(PIECES) + i], before[cuts[piece]].mean(0)) < 1e-6, piece


def test_new_pieces_are_no_likelier_than_their_parts_were_on_average(tmp_path):
    """So what the model says of old words hardly changes (Hewitt 2021)."""
    task = make_task("mlm")
    folder = folder_of(tmp_path / "model", task)
    _, _, before = answers(folder, task)
    _, _, after = answers(extended(folder, tmp_path), task)
    place = {piece: i for i, piece in enumerate(PIECES)}
    parts = [place[p] for p in ("refund", "##a", "##b", "##l", "##e")]
    chances, old = after.softmax(-1), before.softmax(-1)
    assert (chances[:, len(PIECES)] <= old[:, parts].mean(1) + 1e-7).all()
    assert (chances[:, len(PIECES) + 2] <= 1.0 / len(TOKENIZER.vocabulary.drawable)).all()


def test_transformers_opens_it_and_says_the_same(tmp_path):
    task = make_task("mlm")
    out = extended(folder_of(tmp_path / "model", task), tmp_path)
    theirs = transformers.AutoModelForMaskedLM.from_pretrained(out).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(out)
    assert theirs.config.vocab_size == len(PIECES) + len(NEW) == len(tokenizer)
    texts = [*OLD, "refundable? a refunding 国 锦"]
    ids, _, said = answers(out, task, texts)
    wanted = tokenizer(texts)["input_ids"]
    assert ids.tolist() == [i for row in wanted for i in row]
    assert max(ids.tolist()) >= len(PIECES)
    with torch.inference_mode():
        logits = [theirs(input_ids=torch.tensor([row])).logits[0] for row in wanted]
    assert gap(said, torch.cat(logits)) < 1e-5


def test_spare_rows_are_used_before_new_ones_are_made(tmp_path):
    task = make_task("mlm")
    config = CONFIG.model_copy(update={"vocab_size": len(PIECES) + 3})
    folder = folder_of(tmp_path / "model", task, config)
    out = extended(folder, tmp_path)
    assert open_bundle(out).config["vocab_size"] == len(PIECES) + len(NEW)
    ids, x, said = answers(folder, task)
    more_ids, more_x, more_said = answers(out, task)
    assert torch.equal(ids, more_ids) and torch.equal(x, more_x)
    assert gap(more_said[:, : len(PIECES)], said[:, : len(PIECES)]) < 1e-6


def test_a_list_of_pieces_is_read_in_its_encoding(tmp_path):
    (tmp_path / "words.txt").write_text("国\n", "gb18030")
    recipe = api.ExtendRecipe(
        model=folder_of(tmp_path / "old", make_task("mlm")),
        out=tmp_path / "more",
        from_file=tmp_path / "words.txt",
        encoding="gb18030",
    )
    assert api.extend(recipe).pieces == ["国"]


def test_pieces_are_found_in_a_text_and_save_tokens(tmp_path):
    folder = folder_of(tmp_path / "model", make_task("mlm"))
    lines = ["refundable parcelling 国锦。"] * 20
    (tmp_path / "field.txt").write_text(
        "\n\n".join(f"{i} {t}" for i, t in enumerate(lines)), "utf-8"
    )
    recipe = {"model": folder, "files": [tmp_path / "field.txt"], "pieces": 4}
    made = api.extend(api.ExtendRecipe(**recipe, out=tmp_path / "more"))
    assert made.pieces == ["国", "锦", "parcelling", "refundable"]
    assert made.tokens_after < made.tokens_before
    again = api.extend(api.ExtendRecipe(**recipe, out=tmp_path / "again"))
    for file in ("model.safetensors", "tokenizer.json", "vocab.txt", "config.json"):
        assert (made.out / file).read_bytes() == (again.out / file).read_bytes()


def test_real_vectors_stay_as_long_as_they_were(tmp_path, minilm_folder):
    old = open_with(open_bundle(minilm_folder), lambda encoder: Model(encoder, None, {})).model
    pieces = ["retinopathy", "nephrotoxicity", "##ectomies", "angioplasty", "锦"]
    out = extended(minilm_folder, tmp_path, pieces)
    new = open_with(open_bundle(out), lambda encoder: Model(encoder, None, {})).model
    before, after = (m.encoder.embeddings.tokens.weight.detach() for m in (old, new))
    rows = after[-len(pieces) :]
    assert torch.isfinite(rows).all()
    norms, new_norms = before.norm(dim=1), rows.norm(dim=1)
    assert ((new_norms[:-1] >= norms.min()) & (new_norms <= norms.max())[:-1]).all()
    assert 0 < new_norms[-1] < norms.min()  # the mean of all, which lies near the middle


def test_what_cannot_be_extended_is_refused(tmp_path):
    folder = folder_of(tmp_path / "model", make_task("mlm"))
    with pytest.raises(UserError, match="there is nothing to add"):
        api.extend(api.ExtendRecipe(model=folder, out=tmp_path / "more"))
    both = {"files": [tmp_path / "a.txt"], "from_file": tmp_path / "b.txt"}
    with pytest.raises(UserError, match="both is given"):
        api.extend(api.ExtendRecipe(model=folder, out=tmp_path / "more", **both))
    with pytest.raises(UserError, match="already exists"):
        api.extend(api.ExtendRecipe(model=folder, out=folder, files=[tmp_path / "a.txt"]))
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt"):
        (folder / name).unlink()
    library = tokenizers.Tokenizer(tokenizers.models.BPE({"a": 0}, []))
    library.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    library.save(str(folder / "tokenizer.json"))
    with pytest.raises(UserError, match=r"its tokenizer is BPE.*only WordPiece"):
        api.extend(
            api.ExtendRecipe(model=folder, out=tmp_path / "more", files=[tmp_path / "a.txt"])
        )
    assert not (tmp_path / "more").exists()


def longer(folder, tmp_path, positions):
    return api.extend(
        api.ExtendRecipe(model=folder, out=tmp_path / f"to-{positions}", positions=positions)
    ).out


LEARNED = [
    name
    for name in MASKED
    if sized(name, next(iter(FAMILIES.get(name).sizes)), len(PIECES)).positions == "learned"
]


@pytest.mark.parametrize("name", LEARNED)
def test_new_positions_repeat_the_old_ones_in_turn(name, tmp_path):
    task = make_task("mlm")
    size = next(iter(FAMILIES.get(name).sizes))
    small = {**SMALL, "max_positions": 24}
    config = sized(name, size, len(PIECES), pad_id=TOKENIZER.vocabulary.pad, **small)
    folder = folder_of(tmp_path / "model", task, config)
    out = longer(folder, tmp_path, 60)
    for one, other in zip(answers(folder, task), answers(out, task), strict=True):
        assert torch.equal(one, other)
    before, after = (
        open_model(open_bundle(path), task).model.encoder.embeddings.positions.weight.detach()
        for path in (folder, out)
    )
    first = config.first_position
    assert torch.equal(after[:first], before[:first])
    assert len(after) == 60 + first
    for place in range(60):
        assert torch.equal(after[first + place], before[first + place % 24])


def test_transformers_reads_longer_texts_with_it(tmp_path):
    task = make_task("mlm")
    config = CONFIG.model_copy(update={"max_positions": 24})
    out = longer(folder_of(tmp_path / "model", task, config), tmp_path, 64)
    text = " ".join(OLD[:2] * 3)
    ids, _, said = answers(out, task, [text])
    assert 24 < len(ids) <= 64
    theirs = transformers.AutoModelForMaskedLM.from_pretrained(out).eval()
    with torch.inference_mode():
        assert gap(said, theirs(input_ids=ids[None]).logits[0]) < 1e-5


def test_pieces_and_positions_are_added_together(tmp_path):
    folder = folder_of(tmp_path / "model", make_task("mlm"))
    (tmp_path / "pieces.txt").write_text("refundable\n", "utf-8")
    most = CONFIG.max_positions + 7
    recipe = {"model": folder, "from_file": tmp_path / "pieces.txt", "positions": most}
    made = api.extend(api.ExtendRecipe(**recipe, out=tmp_path / "more"))
    assert made.pieces == ["refundable"]
    config = open_bundle(made.out).config
    assert config["vocab_size"] == len(PIECES) + 1
    assert config["max_position_embeddings"] == most


def test_positions_that_cannot_be_added_are_refused(tmp_path):
    task = make_task("mlm")
    folder = folder_of(tmp_path / "model", task)
    with pytest.raises(UserError, match=r"positions: 8 are not more than the \d+"):
        longer(folder, tmp_path, 8)
    config = sized("modernbert", "base", len(PIECES), pad_id=TOKENIZER.vocabulary.pad, **SMALL)
    rotary = folder_of(tmp_path / "rotary", task, config)
    with pytest.raises(UserError, match=r"has rotary positions.*leave --positions out"):
        longer(rotary, tmp_path, 100_000)
    assert not list(tmp_path.glob("to-*"))
