"""Where the time of a training step goes: its parts seen from outside, its kernels, and what is sent."""

import time
from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any

import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from torch.profiler import ProfilerActivity, profile

PARTS = ("forward", "backward", "update")
_FEW, _SEVERAL = 3, 10  # steps under the profiler
_SENT = ("gloo:", "ncclDevKernel")  # how the profiler names what goes between processes
_TOLD_KERNELS, _TOLD_CHARACTERS = 24, 60


class Parts:
    """Time forward, backward and update of each step, seen from outside, by the CPU's clock or a GPU's own."""

    def __init__(self, net: nn.Module, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._marks: list[Any] = []
        net.register_forward_pre_hook(self._mark)
        net.register_forward_hook(self._mark)
        register_optimizer_step_pre_hook(self._mark)
        register_optimizer_step_post_hook(self._mark)

    def take(self) -> dict[str, float]:
        """Return the milliseconds of each part, means over the steps since it was last asked."""
        marks, self._marks = self._marks, []
        spans = [self._span_ms(a, b) for a, b in pairwise(marks)]  # every fourth is what lies between two steps
        steps = len(marks) // (len(PARTS) + 1)
        return {f"{name} ms": sum(spans[k :: len(PARTS) + 1]) / steps for k, name in enumerate(PARTS) if steps}

    def _mark(self, *_: object) -> None:
        if self._on_gpu:
            self._marks.append(torch.cuda.Event(enable_timing=True))
            self._marks[-1].record()
        else:
            self._marks.append(time.perf_counter())

    def _span_ms(self, begin: Any, end: Any) -> float:
        return float(begin.elapsed_time(end)) if self._on_gpu else 1e3 * float(end - begin)


def communication_ms(steps: Callable[[int], None]) -> float:
    """Return how long collectives run in a step, waiting for the other processes included: steps under a profiler."""
    with profile() as seen:
        steps(_FEW)
    spans = sorted((e.time_range.start, e.time_range.end) for e in seen.events() or () if e.name.startswith(_SENT))
    covered_us = until = 0.0
    for begin, end in spans:  # several may run at the same time
        covered_us += max(0.0, end - max(begin, until))
        until = max(until, end)
    return covered_us / 1e3 / _FEW


def kernels_of(steps: Callable[[int], None]) -> tuple[dict[str, float], str]:
    """Take some steps under the profiler; return how many kernels one launches, their milliseconds, and who takes them.

    Copies count as kernels.
    """
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        steps(_SEVERAL)
    return summed((row for row in seen.key_averages() if row.device_type.name == "CUDA"), _SEVERAL)


def summed(rows: Iterable[Any], steps: int) -> tuple[dict[str, float], str]:
    """Sum a profile's rows (`key`, `count`, `self_device_time_total` in microseconds) over so many steps."""
    rows = sorted(rows, key=lambda row: -row.self_device_time_total)
    figures = {
        "kernels": sum(row.count for row in rows) / steps,
        "kernels ms": sum(row.self_device_time_total for row in rows) / 1e3 / steps,
    }
    told = (f"{row.self_device_time_total / steps:.1f} {row.key[:_TOLD_CHARACTERS]}" for row in rows[:_TOLD_KERNELS])
    return figures, f"us a step: {'; '.join(told)}"
