"""Laws of choosing where and in what to compute."""

import pytest
import torch

from clozeworks.core.errors import UserError
from clozeworks.train import precision
from clozeworks.train.precision import native_bf16, pick_device, pick_dtype

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gpu", "device 'gpu' is not known"),
        ("meta", "device 'meta' is not supported"),
        ("cpu:x", "not known"),
    ],
)
def test_devices_that_are_none_are_refused(name, message):
    with pytest.raises(UserError, match=message):
        pick_device(name)


def test_a_gpu_that_is_not_there_is_not_taken(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device() == pick_device("cpu") == CPU
    with pytest.raises(UserError, match="sees no CUDA GPU; use --device cpu"):
        pick_device("cuda")


@pytest.mark.parametrize("native", [True, False])
def test_bf16_is_chosen_where_it_is_native_and_taken_where_it_is_asked_for(native, monkeypatch):
    monkeypatch.setattr(precision, "native_bf16", lambda device: native)
    assert pick_dtype("auto", CPU) == (torch.bfloat16 if native else torch.float32)
    assert pick_dtype("bf16", CPU) == torch.bfloat16
    assert pick_dtype("fp32", CPU) == torch.float32


def test_the_processor_is_asked(monkeypatch):
    assert isinstance(native_bf16(CPU), bool)
    for probe in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, probe, lambda: False, raising=False)
    assert not native_bf16(CPU)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    assert native_bf16(CPU)
