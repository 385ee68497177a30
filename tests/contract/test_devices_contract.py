"""What every task and family owes a GPU: whatever it computes with is where the model is."""

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
TRIED = """
import sys
sys.path[:0] = {paths!r}
import torch
from clozeworks.inference.engine import Engine
from clozeworks.model.encoder import initialise
from clozeworks.tasks import TASKS
from clozeworks.train.loop import Learner, TrainSettings, take_step
from clozeworks.train.optim import Optimizer
from clozeworks.train.portion import Portion
from elsewhere import ELSEWHERE, Elsewhere, moved
from test_families_contract import NAMES, model_of
from test_tasks_contract import EVERY, groups_of
from tiny import DRAW, TOKENIZER, make_examples, make_model, make_task

torch.inference_mode = lambda mode=True: torch.set_grad_enabled(not mode)  # no wrapper is for it

def learned(task, model):
    batch = task.collate(groups_of(task), DRAW)
    for hidden in (None, model.hidden_matrices()):
        optimizer = Optimizer(model, torch.float32, hidden=hidden)
        learner = Learner(model, task, TrainSettings(precision="fp32", lr=1e-3), optimizer)
        take_step(learner, Portion.of([batch]), 1e-3)

with Elsewhere():
    try:
        torch.ones(3, device=ELSEWHERE) + torch.ones(3)
    except RuntimeError:
        pass
    else:
        sys.exit("tensors of two devices pass unseen")
    for name in EVERY:
        print(name, flush=True)
        task = make_task(name)
        model = moved(make_model(task))
        learned(task, model)
        if not task.from_shards:
            list(Engine(model, task, TOKENIZER).predict(make_examples(task, 4)))
        initialise(model, 0.02, seed=0)
    for family in set(NAMES) - {{"lstm"}}:  # whose kernels torch itself chooses by the device
        print(family, flush=True)
        task = make_task("classify")
        learned(task, moved(model_of(family, task)))
print("all")
"""


@pytest.mark.slow
def test_no_task_and_no_family_mixes_devices():
    script = TRIED.format(paths=[str(HERE), str(HERE.parent)])
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.endswith("all\n"), done.stdout[-200:] + done.stderr[-3000:]
