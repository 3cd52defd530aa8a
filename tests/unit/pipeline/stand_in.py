"""A stand-in for a GPU where there is none: tensors stay in host memory, events are passed as soon as they are asked.

It proves that a way is walked to the end and what comes out, and nothing of order on a device.
"""

import os

os.environ["TRITON_INTERPRET"] = "1"  # before a kernel is imported

import contextlib
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode

from alexnet.pipeline import normalize_torch, prefetch
from alexnet.pipeline.batch import DecodeSettings
from alexnet.pipeline.nvidia_packages import without_dali


class InHostMemory(TorchFunctionMode):
    """Make tensors that are asked for on a GPU in host memory; there pinning them means nothing."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = {name: value for name, value in (kwargs or {}).items() if name not in ("device", "pin_memory")}
        if func is torch.Tensor.pin_memory:
            return args[0]
        if func is torch.Tensor.to:
            args = [arg for arg in args if isinstance(arg, torch.Tensor) or not str(arg).startswith("cuda")]
            return func(*args, **kwargs) if len(args) > 1 else args[0]
        return func(*args, **kwargs)


class Event:
    """Stand for an event that a device has passed as soon as it is asked."""

    recorded = 0

    def __init__(self, enable_timing: bool = False) -> None:
        self.enable_timing = enable_timing

    def record(self, stream: "Stream | None" = None) -> None:
        Event.recorded += 1

    def query(self) -> bool:
        return True

    def synchronize(self) -> None:
        pass

    def elapsed_time(self, end: "Event") -> float:
        return 1000.0


class Stream:
    """Stand for a stream of a device; `waited`: how often one waited for an event."""

    waited = 0

    def __init__(self, device: object = None) -> None:
        pass

    def wait_event(self, event: Event) -> None:
        Stream.waited += 1


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    nothing: Callable[..., Any] = contextlib.nullcontext
    cuda = {
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "set_device": lambda device: None,
        "mem_get_info": lambda device: (2**30, 2**31),
        "memory_reserved": lambda device: 0,
        "empty_cache": lambda: None,
        "current_stream": Stream,
        "stream": nothing,
        "device": nothing,
        "Stream": Stream,
        "Event": Event,
    }
    for name, value in cuda.items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda self, stream: None)

    if without_dali() is None:
        from alexnet.pipeline import dali, dali_graph

        def build(settings: DecodeSettings, images: int, waiting: deque[Any]) -> Any:
            return dali_graph.build_graph(replace(settings, device_id=None), images, waiting)

        monkeypatch.setattr(dali, "build_graph", build)
        monkeypatch.setattr(dali, "_GPU_RUN_IMAGES", 16)
    feed = prefetch._Work.run

    def run(self: prefetch._Work) -> None:  # a mode is of one thread
        with InHostMemory():
            feed(self)

    monkeypatch.setattr(prefetch._Work, "run", run)
    normalize_torch.on_gpu.cache_clear()
    Event.recorded = Stream.waited = 0
    with InHostMemory():
        yield
    normalize_torch.on_gpu.cache_clear()
