"""What the machine could do at best: memory copies, a matrix product, decoding alone.

A network or a stream cannot be faster than these, so they say whether a slow figure is the machine's or ours. The
stopwatch that every figure of a rehearsal is taken with is here, too. Nothing here knows the network.

A limit yields its rows and takes the seconds it may use, warm-up included.
"""

import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from alexnet.model.placement import cpu_has_bf16
from alexnet.pipeline.decoders.jpeg_engine import UtilisationSampler
from alexnet.shards.processes import usable_cores
from alexnet.shards.reader import SplitReader

DECODE_BATCH_IMAGES = 128
_WINDOWS = 5
_WARM_UP_SHARE = 1 / 6
_GPU_WARM_UP_CALLS = 3  # the first calls choose kernels, allocate and fill the decoder's queue
_COPY_BYTES = 512 * 2**20  # several times the last-level cache of a server, and nine times the L2 of a Hopper GPU
_GPU_MATRIX = 8192
_CPU_MATRIX = 2048
_SLOW_CPU_MATRIX = 1024  # without bf16 in hardware a product of 2048 can take seconds


@dataclass(frozen=True, kw_only=True)
class Row:
    """Hold one measurement: `value` in `unit`, and under which conditions in words."""

    name: str
    value: float
    unit: str
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Rate:
    """Hold how much work was done a second: the median, lowest and highest of `windows` windows.

    `seconds`: all windows together, without the warm-up.
    """

    per_s: float
    low: float
    high: float
    windows: int
    seconds: float

    def spread(self, unit: float = 1.0) -> str:
        """Return the windows in words, the values divided by `unit`."""
        if self.windows == 1:
            return "one window"
        return f"median of {self.windows} windows, {figure(self.low / unit)} to {figure(self.high / unit)}"


Work = Callable[[], float]
"""Do a piece of work and return how much it was: images, bytes, operations. A GPU may still be busy with it."""


def measure(work: Work, device: torch.device, seconds: float) -> Rate:
    """Warm up, then measure for as long as is left of `seconds`."""
    warm_up(work, device, seconds * _WARM_UP_SHARE)
    return rate_of(work, device, seconds * (1 - _WARM_UP_SHARE))


def warm_up(work: Work, device: torch.device, seconds: float) -> None:
    """Work without measuring: for `seconds` and at least once, on a GPU at least three times."""
    least = _GPU_WARM_UP_CALLS if device.type == "cuda" else 1
    started = time.perf_counter()
    for calls in itertools.count(1):
        work()
        if calls >= least and time.perf_counter() - started >= seconds:
            break
    _wait_for(device)


def rate_of(work: Work, device: torch.device, seconds: float) -> Rate:
    """Measure five windows, each until the device is done with its work; fewer if they take longer than `seconds`."""
    rates: list[float] = []
    started = time.perf_counter()
    while len(rates) < _WINDOWS and (not rates or time.perf_counter() - started < seconds):
        _wait_for(device)
        done, window = 0.0, time.perf_counter()
        while time.perf_counter() - window < seconds / _WINDOWS:
            done += work()
        _wait_for(device)
        rates.append(done / (time.perf_counter() - window))
    return Rate(
        per_s=statistics.median(rates),
        low=min(rates),
        high=max(rates),
        windows=len(rates),
        seconds=time.perf_counter() - started,
    )


def host_copy(seconds: float) -> Iterator[Row]:
    """Copy host memory with all of PyTorch's threads."""
    source, target = torch.ones(_COPY_BYTES, dtype=torch.uint8), torch.zeros(_COPY_BYTES, dtype=torch.uint8)
    rate = measure(lambda: _copied(target, source, 2), torch.device("cpu"), seconds)
    yield _gigabytes("host memory copy", rate, f"read plus written, {torch.get_num_threads()} threads")


def host_to_device_copy(seconds: float) -> Iterator[Row]:
    """Copy pinned host memory to the GPU."""
    device = torch.device("cuda")
    source = torch.ones(_COPY_BYTES, dtype=torch.uint8).pin_memory()
    target = torch.empty(_COPY_BYTES, dtype=torch.uint8, device=device)
    rate = measure(lambda: _copied(target, source, 1), device, seconds)
    yield _gigabytes("host to device copy", rate, "from pinned memory")


def device_copy(seconds: float) -> Iterator[Row]:
    """Copy GPU memory to GPU memory."""
    device = torch.device("cuda")
    source = torch.ones(_COPY_BYTES, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    rate = measure(lambda: _copied(target, source, 2), device, seconds)
    yield _gigabytes("device memory copy", rate, "read plus written")


def matrix_product(device: torch.device, seconds: float) -> Iterator[Row]:
    """Multiply two square bf16 matrices of random numbers; zeros would cost less power and look faster."""
    note = ""
    size = _GPU_MATRIX
    if device.type == "cpu":
        size = _CPU_MATRIX if cpu_has_bf16() else _SLOW_CPU_MATRIX
        note = "on the CPU; " if cpu_has_bf16() else "on the CPU, which has no bf16 in hardware; "
    a = torch.randn(size, size, device=device).bfloat16()
    b = torch.randn(size, size, device=device).bfloat16()
    product = torch.empty_like(a)

    def multiply() -> float:
        torch.mm(a, b, out=product)
        return 2.0 * size**3

    rate = measure(multiply, device, seconds)
    note += f"{size} x {size}, random; {rate.spread(1e12)}"
    yield Row(name="bf16 matrix product", value=rate.per_s / 1e12, unit="TFLOP/s", note=note)


def decoding(data: Path, device: torch.device, seconds: float) -> Iterator[Row]:
    """Decode whole images with DALI and drop them; on a GPU, watch the JPEG engine meanwhile."""
    from alexnet.tools.bench.loader.stages_dali import decode

    reader = SplitReader(data, "train")
    batch_images = min(DECODE_BATCH_IMAGES, len(reader))
    threads = usable_cores()
    stage = decode(reader, batch_images, threads, 0 if device.type == "cuda" else None)
    note = f"DALI {'mixed' if device.type == 'cuda' else 'cpu'}, {threads} threads, batch {batch_images}"
    if device.type == "cpu":
        rate = measure(lambda: next(stage), device, seconds)
        yield Row(name="decoding alone", value=rate.per_s, unit="images/s", note=f"{note}; {rate.spread()}")
        return
    warm_up(lambda: next(stage), device, seconds * _WARM_UP_SHARE)
    with UtilisationSampler() as sampler:
        rate = rate_of(lambda: next(stage), device, seconds * (1 - _WARM_UP_SHARE))
    yield Row(name="decoding alone", value=rate.per_s, unit="images/s", note=f"{note}; {rate.spread()}; {sampler.why}")
    if sampler.percents:
        middle, most = statistics.median(sampler.percents), max(sampler.percents)
        samples = f"median of {len(sampler.percents)} samples while decoding, at most {most}; 0: the engine is not used"
        yield Row(name="JPEG engine utilisation", value=middle, unit="%", note=samples)


def figure(value: float) -> str:
    """Format a value with three significant digits or more."""
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f}"


def _copied(target: torch.Tensor, source: torch.Tensor, passes: int) -> float:
    """Copy and return the bytes moved, `passes` times the size."""
    target.copy_(source, non_blocking=True)
    return float(passes * source.nbytes)


def _gigabytes(name: str, rate: Rate, note: str) -> Row:
    size = f"{_COPY_BYTES // 2**20} MiB"
    return Row(name=name, value=rate.per_s / 1e9, unit="GB/s", note=f"{note}, {size}; {rate.spread(1e9)}")


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
