"""Files of tensors: read without running anything in them, written with errors the system gives."""

import os
import pickle
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from clozeworks.core.errors import UserError

FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
"""The types of number that weights are stored in."""
_SYSTEM_ERROR = re.compile(r"\(os error (\d+)\)")


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a `.safetensors` or PyTorch `.bin` file by name, on the CPU.

    Raises UserError if the file is damaged, a pickle that holds more than tensors, or holds tensors
    whose numbers are not all there.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # The library's own words end in advice to run what the file holds.
        raise UserError(
            f"{path} is damaged, or a pickle that holds more than tensors, which is never run; "
            "get the model as .safetensors"
        ) from error
    except (SafetensorError, OSError, RuntimeError, EOFError) as error:
        reason = str(error).split("\n")[0]
        raise UserError(f"{path} is damaged or cut short ({reason}); copy it again") from error
    if not isinstance(state, dict):
        raise UserError(f"{path} holds a {type(state).__name__}; it should hold tensors by name")
    found = {name: tensor for name, tensor in state.items() if isinstance(tensor, Tensor)}
    for name, tensor in found.items():
        if not isinstance(name, str):
            raise UserError(f"{path} calls a tensor {name!r}; it should hold tensors by name")
        if not _is_whole(tensor):
            raise UserError(
                f"{path}: {name} is sparse or quantized, or its numbers are not in the file; "
                "save the model again as .safetensors"
            )
    return found


def _is_whole(tensor: Tensor) -> bool:
    """Whether the file holds each of a tensor's numbers."""
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
        return False
    return tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()


def check_numbers(state: Mapping[str, Tensor]) -> None:
    """Raise UserError naming a tensor that holds something else than floating-point numbers."""
    for name, tensor in state.items():
        if tensor.dtype not in FLOATS:
            kind = str(tensor.dtype).removeprefix("torch.")
            raise UserError(
                f"{name} holds numbers of type {kind}, which are no weights as they stand "
                f"(choices: {', '.join(str(d).removeprefix('torch.') for d in FLOATS)}); open the "
                "model it was made from"
            )


def read_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """The shapes of the tensors in a file by name; of safetensors, its header alone is read.

    Raises UserError if the file is damaged or cut short.
    """
    if path.suffix != ".safetensors":
        return {name: tuple(tensor.shape) for name, tensor in read_tensors(path).items()}
    try:
        with safe_open(path, "pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is damaged or cut short ({error}); copy it again") from error


def write_tensors(path: Path, state: Mapping[str, Tensor]) -> None:
    """Write tensors as safetensors; raises the OSError that the library wraps (a full disk)."""
    path.touch()
    mode = path.stat().st_mode  # the library would leave a file that its owner alone may read
    try:
        save_file(dict(state), path, {"format": "pt"})
        path.chmod(mode)
    except SafetensorError as error:
        found = _SYSTEM_ERROR.search(str(error))
        if found is None:
            raise
        code = int(found[1])
        raise OSError(code, os.strerror(code), str(path)) from error
