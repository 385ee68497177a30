"""What every task owes a GPU: whatever it computes with is where the model is."""

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
from test_tasks_contract import EVERY, groups_of
from tiny import DRAW, TOKENIZER, make_examples, make_model, make_task

torch.inference_mode = lambda mode=True: torch.set_grad_enabled(not mode)  # no wrapper is for it
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
        batch, model = task.collate(groups_of(task), DRAW), moved(make_model(task))
        for hidden in (None, model.hidden_matrices()):
            optimizer = Optimizer(model, torch.float32, hidden=hidden)
            learner = Learner(model, task, TrainSettings(precision="fp32", lr=1e-3), optimizer)
            take_step(learner, Portion.of([batch]), 1e-3)
        if not task.from_shards:
            list(Engine(model, task, TOKENIZER).predict(make_examples(task, 4)))
        initialise(model, 0.02, seed=0)
print("all")
"""


@pytest.mark.slow
def test_no_task_mixes_devices():
    script = TRIED.format(paths=[str(HERE), str(HERE.parent)])
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.endswith("all\n"), done.stdout[-200:] + done.stderr[-3000:]
