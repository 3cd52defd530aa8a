"""A machine is described whether it has a GPU or not, and what cannot be known is said, not raised."""

import json
from collections.abc import Callable
from dataclasses import asdict

import pynvml
import pytest

from alexnet.pipeline import jpeg_engine
from alexnet.pipeline.jpeg_engine import query_jpeg_engine
from alexnet.tools import machine
from alexnet.tools.machine import describe_machine


@pytest.fixture
def without_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the driver's library be missing and PyTorch find nothing, as on a machine without a GPU."""

    def missing() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", missing)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)


@pytest.mark.usefixtures("without_gpu")
def test_a_machine_without_a_gpu_is_described_with_the_reason() -> None:
    described = describe_machine()
    assert described.gpu is None
    assert described.gpu_why == "no GPU here: NVML Shared Library Not Found"
    assert described.cores >= 1
    assert described.memory_bytes > 2**28
    assert described.cpu
    assert {"python", "torch", "CUDA of torch", "DALI", "alexnet"} <= described.versions.keys()
    json.dumps(asdict(described))


@pytest.mark.usefixtures("without_gpu")
def test_a_driver_that_sees_a_gpu_which_torch_cannot_use_is_named(
    driver: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    driver("550.54.15", gpus=2)
    monkeypatch.setattr("torch.version.cuda", "13.0")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,1")
    assert describe_machine().gpu_why.startswith("2 GPUs here, driver 550.54.15, but PyTorch")


def test_a_missing_package_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_PACKAGES", ("no-such-package-here",))
    assert describe_machine().versions["no-such-package-here"] == "not installed"


@pytest.mark.usefixtures("without_gpu")
def test_the_jpeg_engine_query_says_that_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    engine = query_jpeg_engine()
    assert engine.engines is None
    assert engine.nvjpeg.startswith("no GPU")


@pytest.mark.usefixtures("without_gpu")
def test_a_missing_nvjpeg_library_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jpeg_engine, "_LIBRARIES", ("libnvjpeg-of-nobody.so.0",))
    assert query_jpeg_engine().nvjpeg == "libnvjpeg-of-nobody.so.0 was not found"
