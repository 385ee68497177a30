"""What must not pass in silence: models, recipes and rows that cannot mean what they seem to."""

import csv
import io
import json

import pytest
import torch
from safetensors.torch import load_file, save_file

import clozeworks
from clozeworks import cli
from clozeworks.api import model
from clozeworks.core import log
from clozeworks.core.bundle import CARD, Card, Provenance, open_bundle
from clozeworks.core.errors import UserError
from clozeworks.inference.engine import Engine
from clozeworks.interop.huggingface import write_bundle
from clozeworks.text.tokenizer import Tokenizer
from tiny import LABELS, PIECES, TOKENIZER, make_model, make_task


@pytest.fixture
def bundle(tmp_path):
    """A tiny classifier's folder."""
    task = make_task("classify")
    card = Card(task="classify", labels=LABELS, tokenizer=TOKENIZER.hash)
    return write_bundle(tmp_path / "bundle", make_model(task), TOKENIZER, card)


def refused(capsys, monkeypatch, *argv):
    """The one line a refused command says; it must leave with code 2."""
    said = []
    monkeypatch.setattr(cli, "say", said.append)
    with pytest.raises(SystemExit) as stop:
        cli.main([str(word) for word in argv])
    assert stop.value.code == 2
    assert len(said) == 1 and "\n" not in said[0]
    return said[0]


def opened(folder):
    return Engine.open(folder, torch.device("cpu"), torch.float32)


def rows(folder, *values):
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(value) + "\n" for value in values), "utf-8")
    return path


def test_a_whole_bundle_opens(bundle):
    assert opened(bundle).tokenizer.hash == open_bundle(bundle).card.tokenizer


def test_fewer_layers_than_the_weights_hold(bundle, tmp_path, capsys, monkeypatch):
    config = json.loads((bundle / "config.json").read_text("utf-8"))
    (bundle / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 2}), "utf-8")
    data = rows(tmp_path, {"text": "late"})
    error = refused(capsys, monkeypatch, "predict", bundle, data, "--out", tmp_path / "o.jsonl")
    assert "the weights hold what 2 layers of a bert do not" in error
    assert not (tmp_path / "o.jsonl").exists()


def test_another_tokenizer_of_the_same_size(bundle, tmp_path, capsys, monkeypatch):
    Tokenizer.of([*PIECES[:-2], PIECES[-1], PIECES[-2]]).save(bundle)
    data = rows(tmp_path, {"text": "late"})
    error = refused(capsys, monkeypatch, "predict", bundle, data, "--out", tmp_path / "o.jsonl")
    assert "not the one the model was trained with" in error


def test_weights_that_are_no_numbers(bundle, tmp_path, capsys, monkeypatch):
    state = load_file(bundle / "model.safetensors")
    state["bert.embeddings.LayerNorm.weight"][0] = float("nan")
    save_file(state, bundle / "model.safetensors")
    data = rows(tmp_path, {"text": "late"})
    error = refused(capsys, monkeypatch, "predict", bundle, data, "--out", tmp_path / "o.jsonl")
    assert "embeddings.norm.weight holds NaN" in error


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_a_column_that_predictions_would_overwrite(bundle, tmp_path, capsys, monkeypatch, form):
    taken = "prediction" if form == "jsonl" else "prediction_best"
    data, out = rows(tmp_path, {"text": "late", taken: "mine"}), tmp_path / f"o.{form}"
    error = refused(capsys, monkeypatch, "predict", bundle, data, "--out", out)
    assert repr(taken) in error and not out.exists()


def test_a_column_that_comes_later_than_the_first_row(bundle, tmp_path, capsys, monkeypatch):
    data = rows(tmp_path, {"text": "late"}, {"text": "lost", "extra": 1})
    out = tmp_path / "o.csv"
    assert "'extra'" in refused(capsys, monkeypatch, "predict", bundle, data, "--out", out)
    assert not out.exists()


@pytest.mark.parametrize(
    ("table", "named"), [("settings", "settings.nope"), ("columns", "nope"), ("train", "nope")]
)
def test_an_unknown_key_of_a_recipe(bundle, tmp_path, capsys, monkeypatch, table, named):
    data = rows(tmp_path, {"text": "late", "label": "other"})
    recipe = tmp_path / "recipe.toml"
    head = f'task = "classify"\ndata = "{data}"\nmodel = "{bundle}"\nout = "{tmp_path}/run"\n'
    recipe.write_text(f'{head}[{table}]\nnope = "x"\n', "utf-8")
    error = refused(capsys, monkeypatch, "finetune", "--recipe", recipe)
    assert named.split(".")[-1] in error and "choices" in error
    assert not (tmp_path / "run").exists()


def test_a_label_that_was_never_seen_names_its_row(bundle, tmp_path, capsys, monkeypatch):
    data = rows(tmp_path, {"text": "late", "label": LABELS[0]}, {"text": "x", "label": "nope"})
    error = refused(capsys, monkeypatch, "evaluate", bundle, data, "--out", tmp_path / "e")
    assert f"{data}, row 2: label 'nope' was never seen in training" in error
    assert not (tmp_path / "e").exists()


def test_right_answers_that_are_not_there(bundle, tmp_path, capsys, monkeypatch):
    data = rows(tmp_path, {"text": "late", "stars": LABELS[0]})
    error = refused(capsys, monkeypatch, "evaluate", bundle, data)
    assert "has no column 'label'" in error and "--label COLUMN" in error
    data = rows(tmp_path, {"text": "late", "label": LABELS[0]}, {"text": "late", "label": None})
    error = refused(capsys, monkeypatch, "evaluate", bundle, data)
    assert "row 2: no label: fill it in, or remove the row" in error


def test_columns_of_a_card_that_are_no_names(bundle, tmp_path, capsys, monkeypatch):
    card = json.loads((bundle / CARD).read_text("utf-8"))
    card["provenance"]["recipe"] = {"columns": {"text": 7}}
    (bundle / CARD).write_text(json.dumps(card), "utf-8")
    data = rows(tmp_path, {"text": "late"})
    error = refused(capsys, monkeypatch, "predict", bundle, data, "--out", tmp_path / "o.jsonl")
    assert "provenance.recipe.columns" in error


def test_help_without_a_task_names_the_tasks(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["finetune", "--help"])
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    assert "classify" in shown and "nsp" not in shown


def test_a_window_over_the_models_is_refused_before_data_are_read(
    bundle, tmp_path, capsys, monkeypatch
):
    words = ("finetune", "classify", tmp_path / "absent.csv", "--model", bundle, "--out", "x")
    error = refused(capsys, monkeypatch, *words, "--max-length", "999")
    assert "use --max-length 160 or less" in error


def test_info_sees_a_cut_model_and_knows_a_tokenizer(bundle, tmp_path, capsys, monkeypatch):
    TOKENIZER.save(tmp_path / "tokenizer")
    cli.main(["info", str(tmp_path / "tokenizer")])
    assert f"{len(PIECES):,}" in capsys.readouterr().out
    whole = (bundle / "model.safetensors").read_bytes()
    (bundle / "model.safetensors").write_bytes(whole[:3000])
    assert "cut short" in refused(capsys, monkeypatch, "info", bundle)


def test_objectives_a_family_has_no_class_for(tmp_path, capsys, monkeypatch):
    from clozeworks.model.families import FAMILIES, check_class

    with pytest.raises(UserError, match=r"\(choices: mlm\)"):
        check_class(FAMILIES.get("modernbert")(), frozenset({"mlm", "nsp"}), ["mlm", "nsp"])


def test_what_is_written_others_may_read(bundle):
    modes = {file.name: file.stat().st_mode & 0o777 for file in bundle.iterdir()}
    assert len(set(modes.values())) == 1, modes


def test_words_too_many(capsys, monkeypatch):
    assert "takes nothing more, not 'tasks'" in refused(capsys, monkeypatch, "list", "tasks")


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_the_verb_without_flags_has_help_too(capsys, flag):
    with pytest.raises(SystemExit) as stop:
        cli.main(["list", flag])
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    assert "usage: clozeworks list" in shown and cli.VERBS["list"].help[1:] in shown


def test_only_tasks_that_a_verb_takes_are_offered(tmp_path, capsys, monkeypatch):
    for words in (["finetune"], ["finetune", "clasify"]):
        error = refused(capsys, monkeypatch, *words)
        assert "classify" in error and "mlm" not in error
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(f'task = "mlm+nps"\ndata = "{tmp_path}"\nout = "{tmp_path}/run"\n', "utf-8")
    error = refused(capsys, monkeypatch, "pretrain", "--recipe", recipe)
    assert "task 'nps' is not known" in error and "(choices: mlm, nsp, rtd, sop)" in error
    error = refused(capsys, monkeypatch, "finetune", "mlm")
    assert error.endswith("'mlm' learns from a prepared corpus; use `clozeworks pretrain`")
    error = refused(capsys, monkeypatch, "pretrain", "classify")
    assert error.endswith("'classify' learns from labelled examples; use `clozeworks finetune`")


def test_a_trained_models_settings_that_may_change_are_the_choices(bundle):
    for name, why in (("separater", "unknown key 'separater'"), ("dropout", "may not change")):
        with pytest.raises(UserError, match=why) as refusal:
            Engine.open(bundle, torch.device("cpu"), torch.float32, {name: "x"})
        assert str(refusal.value).endswith("(choices: separator, threshold)")


def test_what_only_the_system_refuses(bundle, tmp_path, capsys, monkeypatch):
    data = rows(tmp_path, {"text": "late", "label": LABELS[0]})
    long = tmp_path / ("n" * 300)
    error = refused(capsys, monkeypatch, "evaluate", bundle, data, "--out", long)
    assert "name" in error and "too long" in error.lower()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    error = refused(capsys, monkeypatch, "info", tmp_path / "loop")
    assert "loop" in error


def test_predictions_have_no_flag_for_right_answers(bundle, tmp_path, capsys):
    data = rows(tmp_path, {"text": "late"})
    with pytest.raises(SystemExit) as stop:
        cli.main(["predict", str(bundle), str(data), "--out", "o.jsonl", "--label", "x"])
    assert stop.value.code == 2
    assert "--label" in capsys.readouterr().err


def test_lists_in_a_table_are_json(tmp_path):
    task = make_task("mlm")
    card = Card(task="mlm", tokenizer=TOKENIZER.hash)
    bundle = write_bundle(tmp_path / "bundle", make_model(task), TOKENIZER, card)
    data, out = rows(tmp_path, {"text": "late [MASK]"}), tmp_path / "o.csv"
    cli.main(["predict", str(bundle), str(data), "--out", str(out)])
    with out.open(encoding="utf-8", newline="") as stream:
        (row,) = csv.DictReader(stream)
    fillings = json.loads(row["prediction_fillings"])
    assert {"token", "probability"} <= fillings[0][0].keys()


def test_a_defect_is_one_line_and_its_traceback_can_be_had(tmp_path, monkeypatch):
    def broken(recipe):
        raise RuntimeError("size of tensor a (3)\n  must match (2)")

    said = []
    monkeypatch.setattr(cli, "say", said.append)
    monkeypatch.setattr(clozeworks, "info", broken, raising=False)
    with pytest.raises(RuntimeError):
        cli.main(["info", str(tmp_path)])
    monkeypatch.delenv(cli.TRACEBACK)
    with pytest.raises(SystemExit) as stop:
        cli.main(["info", str(tmp_path)])
    assert stop.value.code == 1
    (line,) = said
    assert "RuntimeError: size of tensor a (3) must match (2)" in line
    assert "defect of the program" in line and f"{cli.TRACEBACK}=1" in line and "\n" not in line


def test_a_task_under_the_wrong_verb(tmp_path, capsys, monkeypatch):
    error = refused(capsys, monkeypatch, "pretrain", "classify", tmp_path, "--out", "x")
    assert "clozeworks finetune" in error
    error = refused(capsys, monkeypatch, "finetune", "mlm", tmp_path, "--out", "x")
    assert "clozeworks pretrain" in error


def test_whatever_a_row_holds_comes_out_as_it_went_in(bundle, tmp_path):
    """Other columns, too: line ends, half characters, what no number is."""
    given = [{"text": "late", "id": "a\rb\nc", "n": 1}, {"text": "lost", "id": 'x"y', "n": 2}]
    data = rows(tmp_path, *given)
    for name, delimiter in (("o.csv", ","), ("o.tsv", "\t")):
        cli.main(["predict", str(bundle), str(data), "--out", str(tmp_path / name)])
        text = (tmp_path / name).read_bytes().decode()
        found = list(csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter))
        assert [row["id"] for row in found] == [row["id"] for row in given]
    odd = rows(tmp_path, {"text": "late", "id": "\ud83d"})
    out = tmp_path / "o.jsonl"
    cli.main(["predict", str(bundle), str(odd), "--out", str(out)])
    assert json.loads(out.read_text("utf-8"))["id"] == "\ud83d"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": "late", "id": "\ud83d"}, "row 2: 'id' holds a lone surrogate"),
        ({"text": "late", "id": "a\0"}, "row 2: 'id' holds a NUL"),
        ({"text": "late", "prediction_label": "x"}, "row 2: the file has a column 'prediction_"),
    ],
)
def test_what_a_table_cannot_hold_is_named(row, message, bundle, tmp_path, capsys, monkeypatch):
    data, out = rows(tmp_path, {"text": "lost", "id": "1"}, row), tmp_path / "o.csv"
    error = refused(capsys, monkeypatch, "predict", bundle, data, "--out", out)
    assert message in error and not out.exists()


def test_remembered_columns_count_wherever_they_come_first(tmp_path):
    task = make_task("classify")
    card = Card(
        task="classify",
        labels=LABELS,
        tokenizer=TOKENIZER.hash,
        provenance=Provenance(recipe={"columns": {"text": "q1", "text_pair": "q2"}}),
    )
    bundle = write_bundle(tmp_path / "bundle", make_model(task), TOKENIZER, card)
    pair = {"q1": "late", "q2": "my parcel is lost"}
    found = {}
    none = {"q1": "late", "q2": None}
    for name, given in (("first", [none, pair]), ("last", [pair, {"q1": "late"}])):
        out = tmp_path / f"{name}.jsonl"
        data = rows(tmp_path, *given)
        cli.main(["predict", str(bundle), str(data), "--out", str(out), "--scores"])
        lines = out.read_text("utf-8").splitlines()
        found[name] = [json.loads(line)["prediction"]["scores"] for line in lines]
    assert found["first"] == found["last"][::-1] and found["first"][0] != found["first"][1]
    data = rows(tmp_path, {"text": "late", "text_pair": "my parcel is lost"})
    out = tmp_path / "own.jsonl"
    cli.main(["predict", str(bundle), str(data), "--out", str(out), "--scores"])
    (line,) = out.read_text("utf-8").splitlines()
    assert json.loads(line)["prediction"]["scores"] == found["first"][1]
    more = clozeworks.extend(
        clozeworks.ExtendRecipe(model=bundle, out=tmp_path / "more", positions=200)
    )
    assert open_bundle(more.out).card.provenance.recipe["columns"]["text"] == "q1"


def test_flags_go_before_a_recipes_tables_key_by_key(tmp_path, monkeypatch):
    taken = []
    monkeypatch.setattr(clozeworks, "pretrain", taken.append, raising=False)
    recipe = tmp_path / "r.toml"
    recipe.write_text(
        'task = "mlm+nsp"\ndata = "shards"\nout = "run"\n[weights]\nmlm = 2.0\nnsp = 1.0\n'
        "[train]\ndropout = 0.3\n"
    )
    cli.main(
        ["pretrain", "--recipe", str(recipe), "--weights", "mlm", "3", "--train.dropout", "None"]
    )
    assert taken[0].weights == {"mlm": 3.0, "nsp": 1.0}
    assert taken[0].train.dropout is None


def test_what_a_judgement_did_not_read_is_said(bundle, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(model, "say", said.append)
    data = rows(tmp_path, {"text": "late " * 400, "label": LABELS[0]})
    cli.main(["evaluate", str(bundle), str(data), "--out", str(tmp_path / "report")])
    assert said == ["1 row is longer than max_length allows: 274 tokens were not read"]
    page, found = (
        (tmp_path / f"report/report.{form}").read_text("utf-8") for form in ("html", "json")
    )
    assert "1 of 1 rows were not read in full: 274 tokens" in page
    assert json.loads(found)["unread"] == {"rows": 1, "tokens": 274}


def test_reports_lie_beside_the_model_however_it_is_named(bundle, tmp_path, monkeypatch):
    given = {"text": "late", "label": LABELS[0]}
    for name in ("dev.2023.jsonl", "dev.2024.jsonl"):
        rows(tmp_path, given).rename(tmp_path / name)
        monkeypatch.chdir(bundle)
        cli.main(["evaluate", ".", str(tmp_path / name)])
    made = {path.name for path in tmp_path.iterdir() if path.name.startswith("evaluation")}
    assert made == {"evaluation-dev.2023", "evaluation-dev.2024"}


@pytest.mark.parametrize("labels", [{"1": "a", "2": "b", "3": "c"}, {"0": "a", "1": "a", "2": "c"}])
def test_labels_that_shift_or_fall_together(labels, bundle, tmp_path, capsys, monkeypatch):
    config = json.loads((bundle / "config.json").read_text("utf-8"))
    (bundle / "config.json").write_text(json.dumps({**config, "id2label": labels}), "utf-8")
    (bundle / CARD).unlink()
    data = rows(tmp_path, {"text": "late"})
    error = refused(capsys, monkeypatch, "predict", bundle, data, "--out", tmp_path / "o.jsonl")
    assert "id2label" in error


def test_colons_in_what_is_said_stay_colons(capsys, monkeypatch):
    monkeypatch.setattr(log, "_quiet", False)
    log.say("data:100:x :smile:")
    assert "data:100:x :smile:" in capsys.readouterr().err
