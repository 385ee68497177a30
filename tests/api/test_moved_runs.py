"""A run is what it reads and how it learns, not where its files lie or what computes it."""

import json
import shutil

import pytest

from clozeworks import api
from clozeworks.api.watch import Watch
from clozeworks.core.errors import UserError
from clozeworks.train.fit import Interrupted
from tiny import CLOCKED

SHORT = {"duration": "10 steps", "batch": 256, "precision": "fp32", "checkpoint_minutes": 1e-9}


def pretraining(place, **more):
    """A run that reads all it can: text, other text, a model, rows to probe on, names to hide."""
    given = {
        "task": "mlm+nsp",
        "data": place / "shards",
        "out": place / "run",
        "model": place / "model" / "bundle",
        "max_length": 32,
        "judge_on": {"same": place / "shards"},
        "probe": {"data": place / "rows.jsonl"},
        "settings": {"mlm": {"unit": "entity", "names": place / "names.txt"}},
        "train": SHORT,
    }
    return api.PretrainRecipe.model_validate({**given, **more})


@pytest.fixture(scope="module")
def place(desk, tmp_path_factory):
    """A folder with everything that a run reads."""
    folder = tmp_path_factory.mktemp("place") / "here"
    shutil.copytree(desk, folder)
    (folder / "names.txt").write_text("kettle\n快递\n", "utf-8")
    begun = {"data": folder / "shards", "out": folder / "model", "size": "tiny"}
    api.pretrain(api.PretrainRecipe.model_validate({**begun, "train": {"duration": "1 steps"}}))
    return folder


def stopped(recipe, monkeypatch):
    saw = Watch.saw

    def stopping(self, event):
        saw(self, event)
        if event.step == 4:
            raise Interrupted("enough")

    with monkeypatch.context() as patch:
        patch.setattr(Watch, "saw", stopping)
        with pytest.raises(Interrupted):
            api.pretrain(recipe)


def left(run):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text("utf-8").splitlines()]
    told = [{k: v for k, v in line.items() if k not in CLOCKED} for line in lines]
    return told, (run / "bundle" / "model.safetensors").read_bytes()


def test_a_run_whose_files_all_moved_goes_on_as_if_nothing_had(place, tmp_path, monkeypatch):
    api.pretrain(pretraining(place, out=tmp_path / "whole"))
    shutil.copytree(place, tmp_path / "first")
    stopped(pretraining(tmp_path / "first"), monkeypatch)
    (tmp_path / "first").rename(tmp_path / "then")
    api.pretrain(pretraining(tmp_path / "then", device="cpu"))
    assert left(tmp_path / "then" / "run") == left(tmp_path / "whole")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"judge_on": {}}, "inputs.judge_on/same was .* now None"),
        ({"probe": {}}, "inputs.probe was .* now None"),
        ({"model": None}, "inputs.model.safetensors was .* now None"),
        ({"settings": {}}, "inputs.names/names.txt was .* now None"),
        ({"max_length": 24}, "recipe.max_length was 32, now 24"),
    ],
)
def test_what_a_run_reads_is_still_a_part_of_it(changes, said, place, monkeypatch):
    if not (place / "run").exists():
        stopped(pretraining(place), monkeypatch)
    with pytest.raises(UserError, match=f"holds a different run .*{said}"):
        api.pretrain(pretraining(place, **changes))


def test_other_text_in_the_place_of_the_text_is_another_run(place, tmp_path, monkeypatch):
    shutil.copytree(place, tmp_path / "place", ignore=shutil.ignore_patterns("run"))
    stopped(pretraining(tmp_path / "place"), monkeypatch)
    shutil.rmtree(tmp_path / "place" / "shards")
    text = (place / "corpus.txt").read_text("utf-8")
    (tmp_path / "corpus.txt").write_text(text + "\n\nbright lamp.\nlate parcel.", "utf-8")
    files = {"files": [tmp_path / "corpus.txt"], "tokenizer": place / "tokenizer"}
    api.prepare(api.PrepareRecipe(**files, out=tmp_path / "place" / "shards"))
    with pytest.raises(UserError, match=r"inputs.manifest.json was '[0-9a-f]{39}…, now"):
        api.pretrain(pretraining(tmp_path / "place"))


def test_fine_tuning_moves_too_and_knows_its_dev_rows_from_the_others(place, tmp_path):
    rows = (place / "rows.jsonl").read_text("utf-8").splitlines()
    folders = [tmp_path / "first", tmp_path / "then"]
    folders[0].mkdir()
    for name, part in (("train", rows[:30]), ("dev", rows[30:])):
        (folders[0] / f"{name}.jsonl").write_text("\n".join(part), "utf-8")
    shutil.copytree(place / "model" / "bundle", folders[0] / "model")

    def tuning(folder, data="train", dev="dev"):
        paths = {"data": folder / f"{data}.jsonl", "dev": folder / f"{dev}.jsonl"}
        train = {"duration": "2 steps", "precision": "fp32"}
        given = {"task": "classify", "model": folder / "model", "out": folder / "run"}
        return api.FinetuneRecipe.model_validate({**given, **paths, "train": train})

    made = api.finetune(tuning(folders[0]))
    folders[0].rename(folders[1])
    assert api.finetune(tuning(folders[1])).dev == made.dev
    with pytest.raises(UserError, match=r"inputs.data was .*inputs.dev was "):
        api.finetune(tuning(folders[1], data="dev", dev="train"))
