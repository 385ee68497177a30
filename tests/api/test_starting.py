"""Laws of starting: a command loads what it needs, and what only some verbs need comes later."""

import subprocess
import sys

import pytest

import clozeworks

SLOW = ("matplotlib", "scipy", "sklearn", "sympy", "torch._dynamo", "transformers")
"""Each takes a good part of a second or more, and tens of megabytes."""


def loaded(code, names):
    """Which of the modules a fresh process has when it has run the code."""
    code += f"\nimport sys\nprint(*({set(names)!r} & set(sys.modules)), file=sys.stderr)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return found.stderr.split()


@pytest.mark.parametrize("word", ["--version", "--help"])
def test_what_the_command_says_of_itself_needs_no_torch(word):
    code = f"import sys\nsys.argv[1:] = [{word!r}]\nfrom clozeworks.__main__ import main\nmain()"
    assert loaded(code, ["torch", "pyarrow", *SLOW]) == []


def test_verbs_are_there_without_what_only_judging_or_a_gpu_needs():
    assert loaded("import clozeworks\nclozeworks.FinetuneRecipe", SLOW) == []
    assert loaded("import clozeworks\nclozeworks.FinetuneRecipe", ["torch"]) == ["torch"]


def test_the_packages_parts_need_no_import_of_their_own():
    assert loaded("import clozeworks\nassert clozeworks.tasks.TASKS", SLOW) == []
    with pytest.raises(AttributeError, match="has no attribute 'finetun'"):
        _ = clozeworks.finetun


STEP = """
from clozeworks import tasks
from clozeworks.data.batches import Group
from clozeworks.interop.hub import SHIPPED, local
from clozeworks.model.families import sized
from clozeworks.model.heads import encoder_of
from clozeworks.tasks.base import Draw
from clozeworks.text.load import load_tokenizer
from clozeworks.train.loop import TrainSettings
from clozeworks.train.parallel import learner_for
tokenizer = load_tokenizer(local(SHIPPED))
task = tasks.create("classify", {}, tokenizer.vocabulary, ["a", "b"])
model = task.build(encoder_of(sized("bert", "tiny", tokenizer.vocabulary.size)))
learner = learner_for(model, task, TrainSettings(lr=1e-3, optimizer="muon"))
rows = [task.Example(text="late " * 9, label=label) for label in "ab"]
pairs = enumerate(zip(rows, task.features(rows, tokenizer), strict=True))
groups = [Group(i, sequences, task.target(row)) for i, (row, sequences) in pairs]
batch = task.collate(groups, Draw(0, 0))
learner.optimizer.reach(batch.input_ids)
task.loss(learner.model, batch, Draw(0, 0))["classify"].backward()
learner.optimizer.step(1e-3)
"""


def test_a_step_of_training_needs_none_of_it_either():
    assert loaded(STEP, SLOW) == []
