"""What a stream does for a GPU, on a machine without one: its tensors stay in host memory, its events say what happens.

It proves that the way is walked to the end and what comes out, and nothing of order on a device.
"""

import os

os.environ["TRITON_INTERPRET"] = "1"  # before a kernel is imported

import contextlib
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode

from alexnet.pipeline import AugmentSettings, normalize_torch, prefetch
from alexnet.pipeline.batch import DecodeSettings
from alexnet.pipeline.decode import without_dali
from tests.unit.pipeline.streams import DECODERS, epochs_of, same, stream_of


class InHostMemory(TorchFunctionMode):
    """Make tensors that are asked for on a GPU in host memory; there pinning them means nothing."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = {name: value for name, value in (kwargs or {}).items() if name not in ("device", "pin_memory")}
        if func is torch.Tensor.pin_memory:
            return args[0]
        if func is torch.Tensor.to:
            args = [arg for arg in args if not str(arg).startswith("cuda")]
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


@pytest.mark.usefixtures("stand_in")
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("output", ["uint8", "float32"])
@pytest.mark.parametrize("decode", DECODERS)
def test_a_stream_for_a_gpu_yields_what_one_for_a_cpu_does(data_set: Path, decode: str, output: str) -> None:
    """In DALI's case several batches a run; a mean image, so that the kernel has all to do."""
    augmentation = AugmentSettings(crop_px=32, mean="image", scale="unit-variance")
    options = {"batch_images": 6, "augmentation": augmentation, "output": output, "channels_last": True}
    on_gpu, on_cpu = (stream_of(data_set, decode=decode, device=device, **options) for device in ("cuda", "cpu"))
    batches = epochs_of(on_gpu, 2)
    assert len(batches) == 8
    assert same(batches, epochs_of(on_cpu, 2))
    assert Stream.waited == 8
    assert Event.recorded >= 3 * 8, "of each batch: ready, and when the consumer's stream began and ended to wait"
    assert on_gpu.meter.device_wait_seconds == 8.0
    assert on_gpu.meter.peak_device_bytes == 2**30
