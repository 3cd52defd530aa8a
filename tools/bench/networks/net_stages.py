"""The stages of the networks' rows: a network in training, the naive one, and what the machine could do at best.

Steps are taken some at a time, so that waiting for a GPU, and waking the trainer's thread, cost nothing that shows.
"""

import time
from collections.abc import Callable
from typing import Any

import torch

from alexnet.tools.bench.measuring.stages_seam import CannotRunError, NetStageSettings, Stage, Work
from alexnet.tools.bench.networks.naive import NaiveSteps
from alexnet.tools.bench.networks.trainer_steps import synchronise
from alexnet.tools.host_memory import keep_freed_memory

_CHUNK_SECONDS = 0.05
_CPU_SIZES, _GPU_SIZES = (1024, 2048, 4096), (4096, 8192, 16384)
_SLOW = 5e10  # operations a second: below it, a CPU's largest product takes three seconds and is left out
_COPY_BYTES = {"cpu": 256 << 20, "cuda": 1 << 30}
_COMMUNICATIONS = 3
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def make_stage(kind: str, options: dict[str, Any], settings: NetStageSettings) -> Stage:
    """Make the stage of a row. Raises CannotRunError with the reason where it cannot run here."""
    device = torch.device(settings.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise CannotRunError("this machine has no GPU that PyTorch can use")
    torch.set_num_threads(settings.threads)
    if device.type == "cpu":
        keep_freed_memory()
    if kind == "matmul":
        return _matmul(device, str(options["precision"]))
    if kind == "copy":
        return _copy(device)
    if kind == "naive":
        return _naive(device, options)
    if kind == "layers":
        from alexnet.tools.bench.networks.layer_kernels import layers

        return layers(device, options)
    if kind == "loader":
        from alexnet.tools.bench.networks.net_loader import loader

        return loader(options, settings)
    return _network(options, settings)


def _network(options: dict[str, Any], settings: NetStageSettings) -> Stage:
    """Train a network: on one batch that is there already, or on the data."""
    from alexnet.tools.bench.networks.net_ranks import Followers
    from alexnet.tools.bench.networks.net_run import NetRun

    gpus = int(options["gpus"])
    if settings.device == "cuda" and torch.cuda.device_count() < gpus:
        raise CannotRunError(f"this machine has {torch.cuda.device_count()} GPUs, not {gpus}")
    followers = Followers(options, settings) if gpus > 1 else None
    run = NetRun(options, settings)
    source = run.trainer.source

    def steps(times: int) -> None:
        if followers:
            followers.tell("steps", times)
        run.steps(times)

    def more() -> dict[str, Any]:
        """Tell the parts of the round's steps; communication is done over again by itself, after the round."""
        waited, source.waited_seconds = source.waited_seconds, 0.0
        parts = run.trainer.parts.take()
        if followers:
            followers.tell("communicate", _COMMUNICATIONS)
        return {"parts_s": parts, "communication_s": run.communicate(_COMMUNICATIONS), "waited_s": waited}

    what = "batches of the stream" if options.get("real") else "one batch that is there already"
    words = f"{run.placement.why}; {gpus} process{'es' * (gpus > 1)}, {options['parallel']}; {what}"
    images = int(options["batch_images"])
    return Stage(work=_in_chunks(steps, images), settings=words, least_batches=1, more=more)


def _naive(device: torch.device, options: dict[str, Any]) -> Stage:
    images = int(options["batch_images"])
    naive = NaiveSteps(device, images, int(options["classes"]), int(options["px"]))

    def steps(times: int) -> None:
        for _ in range(times):
            naive.step()
        synchronise(device)

    words = "fp32, NCHW, grouped convolutions, torch.nn.LocalResponseNorm, torch.optim.SGD; freed memory is kept, too"
    return Stage(work=_in_chunks(steps, images), settings=words, least_batches=1)


def _in_chunks(steps: Callable[[int], None], images: int) -> Callable[[], Work]:
    """Take as many steps at a time as last for a twentieth of a second."""

    def work() -> Work:
        steps(1)
        begin = time.perf_counter()
        steps(1)
        chunk = max(1, int(_CHUNK_SECONDS / max(time.perf_counter() - begin, 1e-6)))
        while True:
            steps(chunk)
            yield chunk * images, chunk

    return work


def _matmul(device: torch.device, precision: str) -> Stage:
    """Multiply square matrices of random numbers: zeros would need less power and look faster."""
    dtype = _DTYPES[precision]
    torch.backends.cuda.matmul.allow_tf32 = True  # as convolutions in float32 do unless told otherwise
    products = {size: _product(size, device, dtype) for size in (_GPU_SIZES if device.type == "cuda" else _CPU_SIZES)}
    seconds: dict[int, float] = {}
    for size, multiply in products.items():
        if seconds and device.type == "cpu" and 2 * max(seconds) ** 3 / seconds[max(seconds)] < _SLOW:
            break
        multiply()
        seconds[size] = min(_timed(multiply, device) for _ in range(3))
    best = max(seconds, key=lambda size: 2 * size**3 / seconds[size])
    calls = max(1, int(_CHUNK_SECONDS / seconds[best]))

    def work() -> Work:
        while True:
            for _ in range(calls):
                products[best]()
            synchronise(device)
            yield 0, calls * 2 * best**3

    tried = ", ".join(map(str, seconds))
    return Stage(work=work, settings=f"{precision}, {best}x{best} matrices, the fastest of {tried}", least_batches=1)


def _product(size: int, device: torch.device, dtype: torch.dtype) -> Callable[[], object]:
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(a)
    return lambda: torch.mm(a, b, out=out)


def _copy(device: torch.device) -> Stage:
    size = _COPY_BYTES[device.type]
    source, target = (torch.ones(size // 4, dtype=torch.float32, device=device) for _ in range(2))

    def work() -> Work:
        while True:
            target.copy_(source)
            synchronise(device)
            yield 0, 2 * size

    return Stage(work=work, settings=f"{size >> 20} MiB, all threads; read plus written", least_batches=1)


def _timed(work: Callable[[], object], device: torch.device) -> float:
    synchronise(device)
    begin = time.perf_counter()
    work()
    synchronise(device)
    return time.perf_counter() - begin
