"""What hiding tokens takes in a run: bounds of words, names from a file, a report afterwards."""

from collections.abc import Iterator

import numpy as np

from clozeworks.core.course import Course
from clozeworks.core.errors import UserError
from clozeworks.core.files import digest, write_file
from clozeworks.core.log import say
from clozeworks.core.run import Run
from clozeworks.data.batches import pack
from clozeworks.data.names import read_names
from clozeworks.data.order import Stream
from clozeworks.data.shards import Shards
from clozeworks.metrics.masking import MaskingReport, Sample, Scripts, measure_masking
from clozeworks.tasks.base import Draw, Task
from clozeworks.tasks.mlm import Mlm
from clozeworks.tasks.rtd import Rtd
from clozeworks.text.pieces import SCRIPTS, piece_scripts
from clozeworks.text.tokenizer import Tokenizer

MASKING = "masking.json"
MEASURED = 8
"""Steps at the beginning of a run on which masks are measured."""


def hiding(task: Task) -> list[Mlm]:
    """What hides tokens in the parts of a task."""
    parts = [part.mlm if isinstance(part, Rtd) else part for part in task.parts]
    return [part for part in parts if isinstance(part, Mlm)]


def prepare_masks(task: Task, shards: Shards, tokenizer: Tokenizer) -> dict[str, str]:
    """Give a task the names it is to hide; returns the hashes of their files.

    Raises UserError if words are to be hidden and the shards do not tell where they begin.
    """
    read = {}
    for part in hiding(task):
        if part.needs_words and shards.manifest.words is None:
            raise UserError(
                f"{shards.folder} does not tell where words begin, which unit = "
                f"{part.config.unit!r} needs; prepare the corpus again, with --words auto and "
                "another --out"
            )
        if (path := part.config.names) is not None:
            part.names = read_names(path, tokenizer)
            read[f"names/{path.name}"] = digest(path)
            say(f"{path}: {part.names.used:,} names to hide whole")
    return read


def report_masks(
    run: Run, task: Task, stream: Stream, tokenizer: Tokenizer, seed: int
) -> MaskingReport | None:
    """Measure the masks of a run's first steps, say what they are, and write `masking.json`.

    Where rates change over the run, its end is measured too, on the same text.
    """
    for part in hiding(task):
        report = _measured(part, stream, tokenizer, Draw(seed, 0))
        if part.config.changes:
            end = _measured(part, stream, tokenizer, Draw(seed, 0, progress=1))
            report = report.model_copy(update={"end": end})
        for line in report.lines():
            say(line)
        with write_file(run.path / MASKING) as out:
            out.write(report.model_dump_json(indent=2) + "\n")
        return report
    return None


def _measured(part: Mlm, stream: Stream, tokenizer: Tokenizer, draw: Draw) -> MaskingReport:
    special = np.array(sorted(tokenizer.vocabulary.special), dtype=np.int64)
    return measure_masking(
        _samples(part, stream, draw),
        Course.of(part.config.rate).at(draw.progress),
        tokenizer.vocabulary.mask,
        special,
        Scripts(SCRIPTS, piece_scripts(tokenizer)),
    )


def _samples(part: Mlm, stream: Stream, draw: Draw) -> Iterator[Sample]:
    """The first batches, before and after their tokens were hidden."""
    for step in stream.steps(draw.epoch)[:MEASURED]:
        groups = stream.groups(draw.epoch, step)
        batch = pack(groups)
        marked = part.mark(batch, groups, draw)
        yield Sample(
            batch.input_ids.numpy(),
            marked.input_ids.numpy(),
            marked.targets["mlm_rows"].numpy(),
            batch.offsets.numpy(),
            batch.words,
        )
