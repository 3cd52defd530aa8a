"""How busy the GPU and its JPEG engine are while a row runs."""

import statistics
import threading
from collections.abc import Callable
from dataclasses import replace

import pynvml

from alexnet.pipeline.jpeg_engine import nvml_gpu
from alexnet.tools.bench.stage import Stage, Work

_LOOK_SECONDS = 0.05


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
