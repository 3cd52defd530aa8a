"""Kernels run in Triton's interpreter here: it is chosen when they are imported, for the whole process."""

import os

import pytest

os.environ["TRITON_INTERPRET"] = "1"


@pytest.fixture(autouse=True)
def large_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a program of what follows convolutions take more: in the interpreter each is a turn of a loop in Python."""
    monkeypatch.setattr("alexnet.model.gpu.conv_epilogue._ITEMS", 1024)
