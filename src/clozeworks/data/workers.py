"""Turning the documents of a shard into arrays, in this process or in several others."""

import contextlib
import hashlib
import io
import json
import os
import queue
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt

import clozeworks
from clozeworks.core.config import validated
from clozeworks.core.errors import UserError
from clozeworks.core.records import Bools, Ints
from clozeworks.data.documents import Document
from clozeworks.data.shards import Shard, write_shard
from clozeworks.text.load import load_tokenizer
from clozeworks.text.segmenters import pick_segmenter
from clozeworks.text.segmenters.base import Segmenter
from clozeworks.text.sentences import sentence_spans
from clozeworks.text.tokenizer import Tokenizer
from clozeworks.text.words import WordBounds

AT_ONCE = 512
"""Sentences tokenised at once: bounds the memory of the tokenizer's results."""


@dataclass(frozen=True)
class Job:
    """The text of one shard to be made."""

    name: str
    documents: bytes
    """Each document as a line of JSON."""
    megabytes: float
    """Text read for it, duplicates included."""

    @classmethod
    def of(cls, number: int, documents: Sequence[bytes], megabytes: float) -> "Job":
        """The job of the shard with this number, from documents that `packed` made."""
        return cls(f"{number:05d}", b"".join(documents), megabytes)

    @property
    def source(self) -> str:
        """SHA-256 of the text."""
        return hashlib.sha256(self.documents).hexdigest()


def cores() -> int:
    """Cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def packed(document: Document) -> bytes:
    """The document as a line of JSON, in which it takes least memory and travels."""
    return json.dumps(document, ensure_ascii=False).encode() + b"\n"


def make_shard(
    job: Job, tokenizer: Tokenizer, folder: Path, segmenter: Segmenter | None = None
) -> Shard:
    """Split the documents into sentences, tokenise these, and write the shard into `folder`.

    Sentences without a token, and documents without such a sentence, are left out. With a
    segmenter, a bit for each token says whether it begins a word.
    """
    arrays = _arrays(job, tokenizer, segmenter)
    shard = Shard(
        name=job.name,
        source=job.source,
        tokenizer=tokenizer.hash,
        documents=len(arrays["documents"]) - 1,
        sentences=len(arrays["sentences"]) - 1,
        tokens=len(arrays["ids"]),
        unknown=int(np.count_nonzero(arrays["ids"] == tokenizer.vocabulary.unknown)),
        bytes={},
        sha256={},
    )
    return write_shard(folder / job.name, arrays, shard)


def _arrays(
    job: Job, tokenizer: Tokenizer, segmenter: Segmenter | None
) -> dict[str, npt.NDArray[np.generic]]:
    """What the shard's files hold."""
    dtype = id_type(tokenizer)
    ids = [np.zeros(0, dtype=dtype)]
    starts = [_NO_BOUNDS]
    lengths: list[int] = []
    documents = [0]
    tokenize = _with_bounds(tokenizer, segmenter)
    for sentences, ends in _batches(map(json.loads, io.BytesIO(job.documents))):
        for place, (tokens, begins) in enumerate(tokenize(sentences)):
            if len(tokens):
                ids.append(tokens.astype(dtype))
                starts.append(begins)
                lengths.append(len(tokens))
            if place in ends and len(lengths) > documents[-1]:
                documents.append(len(lengths))
    arrays: dict[str, npt.NDArray[np.generic]] = {
        "ids": np.concatenate(ids),
        "sentences": np.cumsum([0, *lengths], dtype=np.int64),
        "documents": np.array(documents, dtype=np.int64),
    }
    if segmenter is not None:
        arrays["words"] = np.packbits(np.concatenate(starts), bitorder="little")
    return arrays


_NO_BOUNDS = np.zeros(0, dtype=np.bool_)


def _with_bounds(
    tokenizer: Tokenizer, segmenter: Segmenter | None
) -> Callable[[Sequence[str]], Iterable[tuple[Ints, Bools]]]:
    """What turns sentences into their ids and word bounds (empty where nobody looks for them)."""
    if segmenter is not None:
        return WordBounds(tokenizer, segmenter).tokenize
    return lambda sentences: ((ids, _NO_BOUNDS) for ids in tokenizer.tokenize(sentences))


def id_type(tokenizer: Tokenizer) -> np.dtype[np.unsignedinteger]:
    """The smallest type that holds every id of the tokenizer."""
    return np.dtype(np.uint16 if tokenizer.vocabulary.size <= 1 << 16 else np.uint32)


def _batches(documents: Iterable[Document]) -> Iterator[tuple[list[str], set[int]]]:
    """Sentences, about AT_ONCE at a time, and the places of those that end a document."""
    sentences: list[str] = []
    ends: set[int] = set()
    for document in documents:
        for line in document:
            sentences += [line[start:end] for start, end in sentence_spans(line)]
        if sentences:
            ends.add(len(sentences) - 1)
        if len(sentences) >= AT_ONCE:
            yield sentences, ends
            sentences, ends = [], set()
    if sentences:
        yield sentences, ends


class Workers:
    """Processes that make shards from jobs, started when needed, ended with the block.

    They are plain subprocesses that import neither torch nor the program that started them, so
    that scripts and notebooks need no `if __name__ == "__main__"`.
    """

    def __init__(self, tokenizer: Path, folder: Path, processes: int, words: str = "none") -> None:
        """`words` names the segmenter."""
        self._arguments = (str(tokenizer), str(folder), words)
        self._processes = processes
        self._threads = ThreadPoolExecutor(processes)
        self._idle: queue.SimpleQueue[subprocess.Popen[bytes]] = queue.SimpleQueue()
        self._started: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> "Workers":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        for worker in self._started:
            worker.kill()
        self._threads.shutdown(cancel_futures=True)
        for worker in self._started:
            worker.communicate()

    def make(self, jobs: Iterable[Job]) -> Iterator[tuple[Job, Shard]]:
        """Each job with its shard, in order; reads at most two jobs ahead of the processes."""
        waiting: deque[tuple[Job, Future[Shard]]] = deque()
        for job in jobs:
            if len(waiting) > self._processes:
                first, result = waiting.popleft()
                yield first, result.result()
            waiting.append((job, self._threads.submit(self._run, job)))
        for first, result in waiting:
            yield first, result.result()

    def _run(self, job: Job) -> Shard:
        """One job on an idle process; threads are as many as processes, so one is always there."""
        try:
            worker = self._idle.get_nowait()
        except queue.Empty:
            worker = self._start()
        reply = b""
        with contextlib.suppress(BrokenPipeError):
            assert worker.stdin is not None and worker.stdout is not None
            worker.stdin.write(f"{job.name} {len(job.documents)}\n".encode())
            worker.stdin.write(job.documents)
            worker.stdin.flush()
            reply = worker.stdout.readline()
        if not reply:
            raise UserError(
                f"a process that prepares shards ended with code {worker.wait()}, perhaps for "
                "lack of memory; give a smaller --processes and run again: finished shards stay"
            )
        self._idle.put(worker)
        answer = json.loads(reply)
        if "error" in answer:
            raise UserError(answer["error"])
        return validated(Shard, answer, f"shard {job.name}")

    def _start(self) -> subprocess.Popen[bytes]:
        root = str(Path(clozeworks.__file__).parents[1])
        environment = os.environ | {
            "TOKENIZERS_PARALLELISM": "false",  # the processes are the parallelism
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")])),
        }
        call = "import sys; from clozeworks.data.workers import serve; serve(*sys.argv[1:])"
        worker = subprocess.Popen(
            [sys.executable, "-P", "-c", call, *self._arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
        )
        self._started.append(worker)
        return worker


def serve(tokenizer: str, folder: str, words: str) -> None:
    """What a worker does: read jobs from stdin until it ends, answer each with a line of JSON."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the program that started this one
    loaded, segmenter = load_tokenizer(tokenizer), pick_segmenter(words)
    while header := sys.stdin.buffer.readline():
        name, size = header.decode().split()
        job = Job(name, sys.stdin.buffer.read(int(size)), 0)
        try:
            answer = make_shard(job, loaded, Path(folder), segmenter).model_dump_json()
        except UserError as error:
            answer = json.dumps({"error": str(error)})
        try:
            print(answer, flush=True)
        except BrokenPipeError:  # whoever asked was killed; nothing more can be said, nor need be
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return
