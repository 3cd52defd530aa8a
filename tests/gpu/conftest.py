"""Every test here is marked `gpu`, and skipped where PyTorch can use no GPU."""

import os
from pathlib import Path

import pytest
import torch

from alexnet.pipeline.host import available
from alexnet.pipeline.jpeg_engine import query_jpeg_engine
from alexnet.tools.machine import describe_machine


def pytest_report_header() -> list[str]:
    """Begin with what the figures and the failures are of."""
    machine = describe_machine()
    gpu = machine.gpu
    return [
        f"GPU: {gpu.name} ({gpu.compute_capability}), driver {gpu.driver}" if gpu else machine.gpu_why,
        "versions: " + ", ".join(f"{name} {version}" for name, version in machine.versions.items()),
        f"JPEG engine: {query_jpeg_engine().nvjpeg}; host decoder: {available() or 'there'}",
    ]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available() and os.environ.get("TRITON_INTERPRET"):
        raise pytest.UsageError("TRITON_INTERPRET is set, by tests without a GPU: run `pytest tests/gpu` on its own")
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.gpu)
            if not torch.cuda.is_available():
                item.add_marker(pytest.mark.skip(reason="there is no GPU that PyTorch can use"))
