"""The GPU's own limits: nvJPEG by itself, its engine and its kernels apart, copies to the device; and how busy it was.

Written for a GPU, and not yet run on one.
"""

import statistics
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pynvml

from alexnet.pipeline.decoders.jpeg_engine import nvml_gpu, query_jpeg_engine
from alexnet.shards.reader import SplitReader
from alexnet.tools.bench.loader.stages_dali import decode
from alexnet.tools.bench.measuring.stages_seam import CannotRunError, Stage, StageSettings, Work

_ENGINE_SHARE = {"both": None, "engine": 1.0, "kernels": 0.0}
"""Of the images for the hardware engine, as DALI's `hw_decoder_load` takes it; None leaves it to DALI."""
_LOOK_SECONDS = 0.05
_COPY_PX = 224


def nvjpeg(settings: StageSettings, options: dict[str, Any]) -> Stage:
    """Decode whole images from memory with nvJPEG, through DALI, and drop them.

    Raises CannotRunError where the engine alone is asked for and there is none: DALI would take the kernels without a
    word.
    """
    reader = SplitReader(settings.data, settings.split)
    image_bytes = reader.jpeg_bytes() / len(reader)
    by, engine = options["by"], query_jpeg_engine()
    if by == "engine" and not engine.engines:
        raise CannotRunError(engine.nvjpeg)

    def work() -> Work:
        for n in decode(reader, settings.batch_images, settings.threads, 0, _ENGINE_SHARE[by]):
            yield n, round(n * image_bytes)

    words = f"DALI mixed, {settings.threads} threads, JPEGs to {by}; {engine.nvjpeg}"
    return watched(Stage(work=work, settings=words, ready_batches=2))


def to_device(settings: StageSettings, options: dict[str, Any]) -> Stage:
    """Copy batches of windows from pinned memory to the GPU, each waited for."""
    import torch

    if not torch.cuda.is_available():
        raise CannotRunError("no GPU that torch can use")
    kind = getattr(torch, options["output"])
    shape = (settings.batch_images, 3, _COPY_PX, _COPY_PX)
    source = torch.zeros(shape, dtype=kind).pin_memory()
    target = torch.empty(shape, dtype=kind, device="cuda")

    def work() -> Work:
        while True:
            target.copy_(source, non_blocking=True)
            torch.cuda.synchronize()
            yield len(source), source.nbytes

    return watched(Stage(work=work, settings=f"pinned {options['output']} batches of {_COPY_PX} px"))


def watched(stage: Stage) -> Stage:
    """Return a stage that tells after each round how busy the GPU and its JPEG engine were, in percent."""
    watch = _Watch()

    def work() -> Work:
        for done in stage.work():
            watch.going.set()
            yield done

    def after_round() -> None:
        watch.going.clear()
        stage.after_round()

    return replace(stage, work=work, after_round=after_round, more=lambda: {**stage.more(), **watch.take()})


class _Watch:
    """Ask NVML for both utilisations while `going` is set, on a thread that ends with the process."""

    def __init__(self) -> None:
        self.going = threading.Event()
        self._seen: dict[str, list[int]] = {"gpu_busy_percent": [], "jpeg_engine_busy_percent": []}
        threading.Thread(target=self._run, name="alexnet-gpu-watch", daemon=True).start()

    def take(self) -> dict[str, Any]:
        """Return the median of each since it was last asked; nothing where NVML does not say."""
        seen, self._seen = self._seen, {name: [] for name in self._seen}
        return {name: statistics.median(values) for name, values in seen.items() if values}

    def _run(self) -> None:
        pause = threading.Event()
        try:
            with nvml_gpu() as handle:
                asked: dict[str, Callable[[], int]] = {
                    "gpu_busy_percent": lambda: int(pynvml.nvmlDeviceGetUtilizationRates(handle).gpu),
                    "jpeg_engine_busy_percent": lambda: int(pynvml.nvmlDeviceGetJpgUtilization(handle)[0]),
                }
                while self.going.wait():
                    for name, ask in list(asked.items()):
                        try:
                            self._seen[name].append(ask())
                        except pynvml.NVMLError:  # this one is not offered here
                            del asked[name]
                    pause.wait(_LOOK_SECONDS)
        except pynvml.NVMLError:  # no driver: the rows say why they cannot run
            return
