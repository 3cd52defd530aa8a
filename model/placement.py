"""Where a run computes and in which precision. Decided here and nowhere else; everything else receives it."""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from alexnet.shards.errors import InputError

Precision = Literal["auto", "fp32", "bf16"]

_BF16_CPU_FLAGS = frozenset({"avx512_bf16", "amx_bf16"})


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Hold the device, the precision of forward and backward, and why, in words for the user."""

    device: torch.device
    bf16: bool
    why: str

    def autocast(self) -> AbstractContextManager[None]:
        """Return the context that forward passes run in."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)


def choose_placement(device: str | None, gpus: int, precision: Precision) -> Placement:
    """Choose from what the user asked for and what the machine has. Raises InputError if they do not fit."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    kind = device or ("cuda" if count else "cpu")
    if kind == "cuda" and not count:
        raise InputError("--device cuda: this machine has no GPU that PyTorch can use; --device cpu works here")
    if gpus != 1:
        works = "--gpus 1" if count else "--gpus 1 --device cpu"
        has = f"this machine has {count} GPU{'' if count == 1 else 's'}"
        why = has if gpus > count else f"{has}, but in this version both towers share one device"
        raise InputError(f"--gpus {gpus}: {why}; {works} trains both towers here")
    bf16, why = _precision(kind, precision)
    asked = "asked for" if device else ("a GPU is there" if count else "no GPU here")
    return Placement(device=torch.device(kind), bf16=bf16, why=f"{kind} ({asked}), {why}")


def cpu_has_bf16() -> bool:
    """Say whether the CPU multiplies bf16 in hardware (AVX512_BF16 or AMX); without it bf16 is slower than fp32."""
    cpuinfo = Path("/proc/cpuinfo")
    return cpuinfo.exists() and not _BF16_CPU_FLAGS.isdisjoint(cpuinfo.read_text().split())


def _precision(kind: str, precision: Precision) -> tuple[bool, str]:
    if precision != "auto":
        return precision == "bf16", f"{precision} (asked for)"
    if kind == "cuda":
        return True, "bf16 (every current GPU has it)"
    if cpu_has_bf16():
        return True, "bf16 (this CPU has AVX512_BF16 or AMX)"
    return False, "fp32 (this CPU has neither AVX512_BF16 nor AMX)"
