"""A GPU's own limits: nvJPEG by itself, its engine and its kernels apart, and copies to the device."""

from collections.abc import Iterator
from typing import Any

from alexnet.pipeline.jpeg_engine import query_jpeg_engine
from alexnet.tools.bench.gpu_watch import watched
from alexnet.tools.bench.loader_stages import LoaderTask
from alexnet.tools.bench.stage import CannotRunError, Stage, Work

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
        return [reader.jpeg(i) for i in range(first, first + n)]

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
    """Copy batches of crops from pinned memory to the GPU, each waited for."""
    import torch

    given = LoaderTask(**task)
    if not torch.cuda.is_available():
        raise CannotRunError("no GPU that torch can use")
    shape = (given.batch_images, 3, given.crop_px, given.crop_px)
    source = torch.zeros(shape, dtype=getattr(torch, output)).pin_memory()
    target = torch.empty_like(source, device="cuda")

    def work() -> Work:
        while True:
            target.copy_(source, non_blocking=True)
            torch.cuda.synchronize()
            yield len(source)

    return watched(Stage(work=work, settings=f"pinned {output} batches of {given.crop_px} px"))
