"""Random numbers as a function of a key and a counter: nothing is stored, nothing is consumed."""

import numpy as np
import numpy.typing as npt

from clozeworks.core.records import Ints

Words = npt.NDArray[np.uint64]
_STEP = np.uint64(0x9E3779B97F4A7C15)


def _mixed(x: Words) -> Words:
    """The output function of SplitMix64 (Steele, Lea and Flood 2014), on each element."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def words(stream: str, *counters: int | Ints) -> Words:
    """64 random bits for every combination of counters (broadcast), as uint64.

    `stream` names the use ("mlm.place"), so that two uses with the same counters do not agree.
    """
    seed = int.from_bytes(stream.encode()[:8].ljust(8, b"\0"), "little") ^ (len(stream) << 56)
    state: Words = np.array(seed, dtype=np.uint64)
    with np.errstate(over="ignore"):
        for letter in stream.encode()[8:]:
            state = _mixed(state * _STEP + np.uint64(letter))
        for counter in counters:
            state = _mixed((state + _STEP) ^ _mixed(np.asarray(counter).astype(np.uint64) + _STEP))
    return state


def uniform(stream: str, *counters: int | Ints) -> npt.NDArray[np.float64]:
    """Numbers in [0, 1) for every combination of counters, float64 with 53 random bits."""
    return (words(stream, *counters) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def below(limit: int | Ints, stream: str, *counters: int | Ints) -> Ints:
    """Whole numbers in [0, limit) for every combination of counters, int64."""
    scaled = np.floor(uniform(stream, *counters) * limit).astype(np.int64)
    return np.asarray(np.minimum(scaled, np.asarray(limit) - 1), dtype=np.int64)


def permutation(count: int, stream: str, *key: int) -> Ints:
    """An order of `count` things as a function of the key, int64."""
    entropy = int(words(stream, *key))
    generator = np.random.Generator(np.random.Philox(key=entropy))
    return generator.permutation(count).astype(np.int64)
