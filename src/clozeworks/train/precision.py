"""Which device and number format to compute in, from what the machine can really do."""

from typing import Literal

import torch

from clozeworks.core.errors import UserError

Precision = Literal["auto", "fp32", "bf16"]


def pick_device(name: str = "auto") -> torch.device:
    """The device called `name`; "auto" takes a CUDA GPU if there is one, else the CPU."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(
            f"device {name!r} is not known (choices: auto, cpu, cuda, cuda:0)"
        ) from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"device {name!r} asked for, but torch sees no CUDA GPU; use --device cpu")
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"device {name!r} is not supported (choices: auto, cpu, cuda)")
    return device


def pick_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """The dtype to compute in; "auto" takes bf16 where the hardware multiplies it natively.

    Emulated bf16 is slower than fp32, so it must be asked for by name; fp16 is never used.
    """
    return torch.bfloat16 if settled(precision, device) == "bf16" else torch.float32


def settled(precision: Precision, device: torch.device) -> Precision:
    """The number format by its name, "auto" replaced by what suits the device."""
    if precision == "auto":
        return "bf16" if native_bf16(device) else "fp32"
    return precision


def native_bf16(device: torch.device) -> bool:
    """Whether the device has bf16 matrix instructions (AVX-512 BF16, AMX; compute ≥ 8.0)."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    # torch's own probes of the processor; Arm's bf16 is not among them, so it stays with fp32
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, probe, lambda: False)() for probe in probes)
