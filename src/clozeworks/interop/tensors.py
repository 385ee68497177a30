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

_SYSTEM_ERROR = re.compile(r"\(os error (\d+)\)")


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a `.safetensors` or PyTorch `.bin` file by name, on the CPU.

    Raises UserError if the file is damaged, or a pickle that holds more than tensors.
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
    return {name: tensor for name, tensor in state.items() if isinstance(tensor, Tensor)}


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
