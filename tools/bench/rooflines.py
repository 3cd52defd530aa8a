"""What bounds a training step: its arithmetic and memory traffic, counted, and this machine's rates of both, measured.

The first roofline is operations over the rate of a matrix product. In the second each layer takes the larger of its
operations over that rate and its bytes over the bandwidth of a copy, and layers add up. Counted are the layers with
weights and the update; all between them (rectifiers, pooling, normalisation) is taken to cost nothing, as if it were
fused. So both are limits that no implementation with these operations beats, not goals that one reaches.
"""

import time
from collections.abc import Callable
from math import prod
from typing import NamedTuple

import torch

from alexnet.model.networks.figures import figures, trace
from alexnet.model.networks.settings import NetSettings, architecture_of
from alexnet.tools.bench.stage import Stage, Work

_UPDATE_BYTES = 5 * 4  # of a parameter: weight, gradient and momentum read, weight and momentum written, in float32
_FORWARD, _BACKWARD = 2, 4  # operations of a multiply-add; backward has two products, one without an input gradient
_CALL_SECONDS = 0.05
_CPU_SIZES, _GPU_SIZES = (1024, 2048, 4096), (4096, 8192, 16384)
_SLOW = 5e10  # operations a second: below it, a CPU's largest product takes three seconds and is left out
_COPY_BYTES = {"cpu": 256 << 20, "cuda": 1 << 30}
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class LayerWork(NamedTuple):
    """What a layer of one training step needs: operations, and bytes read and written."""

    name: str
    flop: float
    bytes: float


def step_work(settings: NetSettings, batch_images: int, value_bytes: int) -> list[LayerWork]:
    """Return the work of each layer with weights, and of the update. `value_bytes`: of a value computed with.

    Forward reads input and weights and writes the output; backward reads the output's gradient twice, weights and input
    once, and writes the gradients of weights and input. The first layer needs no gradient of its input.
    """
    towers = [
        {place.name: prod(place.reads) for place in trace(settings, tower)}
        for tower in range(architecture_of(settings).towers)
    ]
    rows, work = figures(settings), []
    for row in rows:
        inputs, first = [tower[row.name] for tower in towers], row is rows[0]
        read = batch_images * (sum(inputs) if row.reads == "own" else inputs[0])  # what both read is there once
        written = batch_images * row.neurons
        values = 2 * (read + row.parameters + written) + (0 if first else written + row.parameters + read)
        flop = row.multiply_adds * batch_images * (_FORWARD + (_BACKWARD // 2 if first else _BACKWARD))
        work.append(LayerWork(row.name, flop, value_bytes * values))
    return [*work, LayerWork("update", 0.0, _UPDATE_BYTES * sum(row.parameters for row in rows))]


def bounds(work: list[LayerWork], batch_images: int, flop_per_s: float, bytes_per_s: float) -> dict[str, float]:
    """Return the images/s that arithmetic alone allows, and that arithmetic and memory allow layer by layer."""
    return {
        "arithmetic": batch_images * flop_per_s / sum(layer.flop for layer in work),
        "layers": batch_images / sum(max(layer.flop / flop_per_s, layer.bytes / bytes_per_s) for layer in work),
    }


def matmul(precision: str, device: str, threads: int) -> Stage:
    """Multiply square matrices of random numbers, as zeros would need less power and look faster; count operations."""
    torch.set_num_threads(threads)
    torch.backends.cuda.matmul.allow_tf32 = True  # as convolutions in float32 do unless told otherwise
    seconds: dict[int, float] = {}
    for size in _GPU_SIZES if device == "cuda" else _CPU_SIZES:
        if seconds and device == "cpu" and 2 * max(seconds) ** 3 / seconds[max(seconds)] < _SLOW:
            break
        multiply = _product(size, device, precision)
        multiply()
        seconds[size] = min(_timed(multiply, device) for _ in range(3))
    best = max(seconds, key=lambda size: size**3 / seconds[size])
    multiply, calls = _product(best, device, precision), max(1, int(_CALL_SECONDS / seconds[best]))

    def work() -> Work:
        while True:
            for _ in range(calls):
                multiply()
            synchronise(device)
            yield calls * 2 * best**3

    tried = ", ".join(map(str, seconds))
    return Stage(work=work, settings=f"{precision}, {best}x{best} matrices, the fastest of {tried}", least_batches=1)


def copy(device: str, threads: int) -> Stage:
    """Copy memory; count the bytes read plus those written."""
    torch.set_num_threads(threads)
    size = _COPY_BYTES[device]
    source, target = (torch.ones(size // 4, dtype=torch.float32, device=device) for _ in range(2))

    def work() -> Work:
        while True:
            target.copy_(source)
            synchronise(device)
            yield 2 * size

    return Stage(work=work, settings=f"{size >> 20} MiB, all threads; read plus written", least_batches=1)


def synchronise(device: str | torch.device) -> None:
    """Wait until the device has done what it was given."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def _product(size: int, device: str, precision: str) -> Callable[[], object]:
    a, b = (torch.randn(size, size, device=device).to(_DTYPES[precision]) for _ in range(2))
    out = torch.empty_like(a)
    return lambda: torch.mm(a, b, out=out)


def _timed(work: Callable[[], object], device: str) -> float:
    synchronise(device)
    begin = time.perf_counter()
    work()
    synchronise(device)
    return time.perf_counter() - begin
