"""A GPU's own limits: nvJPEG by itself, its engine and its kernels apart, and copies; and how busy it is meanwhile."""

import statistics
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pynvml

from alexnet.pipeline.jpeg_engine import nvml_gpu, query_jpeg_engine
from alexnet.tools.bench.bench_data import LoaderTask
from alexnet.tools.bench.stage import CannotRunError, Stage, Work

_LOOK_SECONDS = 0.05
_ENGINE_SHARE: dict[str, dict[str, Any]] = {
    "both": {},
    "engine": {"hw_decoder_load": 1.0},
    "kernels": {"hw_decoder_load": 0.0},
}


def nvjpeg(*, by: str, **task: Any) -> Stage:
    """Decode whole images from memory with nvJPEG, through DALI, and drop them. `by`: both, engine or kernels.

    Raises CannotRunError where the engine alone is asked for and there is none: DALI would take the kernels without a
    word.
    """
    given, engine = LoaderTask(**task), query_jpeg_engine()
    if by == "engine" and not engine.engines:
        raise CannotRunError(engine.nvjpeg)
    words = f"DALI mixed, {given.threads} threads, JPEGs to {by}; {engine.nvjpeg}"
    return watched(Stage(work=lambda: _decoded(given, by), settings=words, ready_batches=2))


def _decoded(task: LoaderTask, by: str) -> Iterator[float]:
    from nvidia.dali import Pipeline, fn, types

    reader, n = task.reader, task.batch_images

    def jpegs(iteration: int) -> list[Any]:
        first = iteration % (len(reader) // n) * n
        return [reader.stored(i) for i in range(first, first + n)]

    pipeline = Pipeline(n, task.threads, 0, prefetch_queue_depth=2, exec_dynamic=True)
    with pipeline:
        files = fn.external_source(source=jpegs, batch=True, no_copy=True)
        how: dict[str, Any] = {"output_type": types.RGB, "jpeg_fancy_upsampling": True, "adjust_orientation": False}
        pipeline.set_outputs(fn.decoders.image(files, device="mixed", **how, **_ENGINE_SHARE[by]))
    pipeline.build()
    while True:
        pipeline.run()
        yield n


def to_device(*, output: str, **task: Any) -> Stage:
    """Copy batches of crops from pinned memory to the GPU, each waited for; or of planes, as they are stored."""
    import torch

    given = LoaderTask(**task)
    if not torch.cuda.is_available():
        raise CannotRunError("no GPU that torch can use")
    image, dtype = (3, given.crop_px, given.crop_px), output
    if output == "planes":
        image, dtype = (1, 1, given.reader.manifest.stored.max_sample_bytes), "uint8"
    source = torch.zeros((given.batch_images, *image), dtype=getattr(torch, dtype)).pin_memory()
    target = torch.empty_like(source, device="cuda")

    def work() -> Work:
        while True:
            target.copy_(source, non_blocking=True)
            torch.cuda.synchronize()
            yield len(source)

    return watched(Stage(work=work, settings=f"pinned {output} batches, {source[0].nbytes:,} bytes an image"))


def watched(stage: Stage) -> Stage:
    """Return a stage that tells after each round how busy the GPU and its JPEG engine were, in percent."""
    going, seen = threading.Event(), dict[str, list[int]]()
    threading.Thread(target=_watch, args=(going, seen), name="alexnet-gpu-watch", daemon=True).start()

    def work() -> Work:
        for done in stage.work():
            going.set()
            yield done

    def after_round() -> None:
        going.clear()
        stage.after_round()

    def figures() -> dict[str, float]:
        told = {name: statistics.median(seen.pop(name)) for name in list(seen)}
        return {**stage.figures(), **told}

    return replace(stage, work=work, after_round=after_round, figures=figures)


def _watch(going: threading.Event, seen: dict[str, list[int]]) -> None:
    """Ask NVML for both utilisations while `going` is set, on a thread that ends with the process."""
    pause = threading.Event()
    try:
        with nvml_gpu() as handle:
            asked: dict[str, Callable[[], int]] = {
                "GPU busy %": lambda: int(pynvml.nvmlDeviceGetUtilizationRates(handle).gpu),
                "JPEG engine busy %": lambda: int(pynvml.nvmlDeviceGetJpgUtilization(handle)[0]),
            }
            while going.wait():
                for name, ask in list(asked.items()):
                    try:
                        seen.setdefault(name, []).append(ask())
                    except pynvml.NVMLError:  # this one is not offered here
                        del asked[name]
                pause.wait(_LOOK_SECONDS)
    except pynvml.NVMLError:  # no driver: the rows say why they cannot run
        return
