"""A device that is not there: its tensors say so, and are computed on the CPU all the same.

It refuses what a GPU refuses: an operation on tensors of two devices, and a generator of another
one. Whether a program keeps its tensors together can so be tried without a GPU. The device stays
registered while the process lives, so that whoever imports this should be a process of its own.
"""

from typing import Any

import torch
from torch import Tensor, library, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

_setup_privateuseone_for_python_backend("elsewhere")
ELSEWHERE = torch.device("elsewhere", 0)

_aten = torch.ops.aten
_BETWEEN = {_aten._to_copy.default, _aten.copy_.default, _aten._local_scalar_dense.default}
"""What a GPU does with tensors of two devices."""
_INDEXED = {_aten.index.Tensor, _aten.index_put_.default, _aten._index_put_impl_.default}
"""What it does with indices of another device."""


class Far(Tensor):
    """A tensor that says it is elsewhere; `near` holds its values."""

    near: Tensor
    is_cuda = property(lambda self: True)  # so that what is for GPUs is taken

    @staticmethod
    def __new__(cls, near: Tensor) -> "Far":
        made = Tensor._make_wrapper_subclass(
            cls,
            near.size(),
            strides=near.stride(),
            storage_offset=near.storage_offset(),
            dtype=near.dtype,
            device=ELSEWHERE,
        )
        made.near = near
        return made

    @classmethod
    def __torch_dispatch__(cls, operation, types, args=(), kwargs=None):
        return _done(operation, args, kwargs or {})

    def tolist(self) -> Any:
        return self.near.tolist()


class Elsewhere(TorchDispatchMode):
    """While it holds, tensors are also made elsewhere."""

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        return _done(operation, args, kwargs or {})


def moved(model: nn.Module) -> nn.Module:
    """The same model, elsewhere."""
    for part in model.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                part._parameters[name] = nn.Parameter(Far(parameter.detach()))
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = Far(buffer)
    return model


def _done(operation, args, kwargs):
    """The operation, on the values; what comes of it is where a GPU would have it."""
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    far = any(isinstance(tensor, Far) for tensor in tensors)
    if far and operation not in _BETWEEN | _INDEXED:
        if any(tensor.dim() and not isinstance(tensor, Far) for tensor in tensors):
            raise RuntimeError(f"{operation}: tensors of two devices")
        if kwargs.get("generator") is not None:
            raise RuntimeError(f"{operation}: a generator of another device")
    if operation is _aten.copy_.default:
        far = isinstance(args[0], Far)
    if kwargs.get("device") is not None:
        far = torch.device(kwargs["device"]) == ELSEWHERE
        kwargs = {**kwargs, "device": torch.device("cpu")}
    made = operation(*tree_map(_near, args), **tree_map(_near, kwargs))
    if operation._schema.is_mutable:  # in place: what was given, or nothing
        return args[0] if operation._schema.returns else None
    return tree_map(_far, made) if far else made


def _near(value: Any) -> Any:
    return value.near if isinstance(value, Far) else value


def _far(value: Any) -> Any:
    return Far(value) if isinstance(value, Tensor) and not isinstance(value, Far) else value


_implemented = library.Library("aten", "IMPL")


def _registered(name: str):
    return lambda function: _implemented.impl(name, function, "PrivateUse1")


@_registered("empty_strided")
def _(size, stride, *, dtype=None, **more):
    return Far(torch.empty_strided(size, stride, dtype=dtype))


@_registered("empty.memory_format")
def _(size, *, dtype=None, **more):
    return Far(torch.empty(size, dtype=dtype))


@_registered("_copy_from")
def _(source, target, non_blocking=False):
    _near(target).copy_(_near(source))
    return target
