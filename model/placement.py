"""Choose where a run computes, in which precision, and which process holds what (`Placement`, `Layout`).

Networks, sources and the trainer are given the choice; `ranks` carries it out.
"""

import os
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from alexnet.shards.errors import InputError
from alexnet.shards.nvidia_driver import why_no_gpu
from alexnet.shards.order import rank_part
from alexnet.shards.torchrun import told

Precision = Literal["auto", "fp32", "bf16"]
Parallel = Literal["towers", "data", "owt"]
BatchType = Literal["float32", "bfloat16"]

_BF16_CPU_FLAGS = frozenset({"avx512_bf16", "amx_bf16"})


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Say which process holds what: `ranks` processes, in groups of `group_ranks` that hold one network together.

    The ranks of a group follow each other, and so do their parts of a global batch. With a group of one, a process
    holds every tower; with more, its own. `owt`, one weird trick: all are one group, each convolves its own part of the
    batch with all towers, and holds a part of the fully connected layers, which see the whole batch.
    """

    rank: int = 0
    ranks: int = 1
    group_ranks: int = 1
    owt: bool = False

    @property
    def group(self) -> int:
        """Number the group that this process belongs to."""
        return self.rank // self.group_ranks

    @property
    def groups(self) -> int:
        """Count the groups: replicas of the network."""
        return self.ranks // self.group_ranks

    @property
    def towers(self) -> tuple[int, ...] | None:
        """Return the towers held here; None: all."""
        return None if self.group_ranks == 1 or self.owt else (self.rank % self.group_ranks,)

    def members(self, group: int) -> range:
        """Return the ranks of a group."""
        return range(group * self.group_ranks, (group + 1) * self.group_ranks)

    def part(self, images: int, rank: int) -> range:
        """Return the rows of a global batch of so many images that a rank decodes; it may be empty."""
        return rank_part(images, rank, self.ranks)

    def convolved(self, images: int) -> range:
        """Return the rows that this process convolves."""
        return self.part(images, self.rank) if self.owt else self.group_part(images)

    def group_part(self, images: int) -> range:
        """Return the rows whose loss this process's group computes."""
        members = self.members(self.group)
        return range(self.part(images, members[0]).start, self.part(images, members[-1]).stop)


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Hold the device, the precision of forward and backward, the layout, and why, in words for the user."""

    device: torch.device
    bf16: bool
    why: str
    layout: Layout = Layout()

    @property
    def batch_type(self) -> BatchType:
        """Return what batches shall hold: in bf16 on a GPU half the bytes, as the first layer would round them."""
        return "bfloat16" if self.bf16 and self.device.type == "cuda" else "float32"

    def autocast(self) -> AbstractContextManager[None]:
        """Return the context that forward passes run in."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)


def choose_placement(
    device: str | None,
    gpus: int,
    precision: Precision,
    *,
    parallel: Parallel = "towers",
    towers: int = 2,
    rank: int = 0,
    local_rank: int = 0,
    local_ranks: int | None = None,
) -> Placement:
    """Choose from what the user asked for and what the machine has. Raises InputError if they do not fit.

    `gpus`: processes, each with a device of its own, on all machines together; `local_ranks` of them are here.
    `towers`: of the network.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    no_gpu = "" if count else why_no_gpu(torch.__version__, torch.version.cuda)
    kind = device or ("cuda" if count else "cpu")
    here = gpus if local_ranks is None else local_ranks
    if kind == "cuda" and not count:
        raise InputError(
            f"--device cuda: this machine has no GPU that PyTorch can use ({no_gpu}); --device cpu works here"
        )
    if gpus < 1:
        raise InputError(f"--gpus {gpus}: must be at least 1")
    if here > max(count, 1) and device != "cpu":
        raise InputError(
            f"--gpus {gpus}: this machine has {count} GPU{'' if count == 1 else 's'}; --gpus 1 trains the whole "
            f"network on one device, --gpus {gpus} --device cpu in {gpus} processes on the CPU"
        )
    owt = parallel == "owt" and gpus > 1
    layout = Layout(rank=rank, ranks=gpus, group_ranks=_group_ranks(gpus, parallel, towers), owt=owt)
    bf16, why = _precision(kind, precision)
    asked = "asked for" if device else (no_gpu or "a GPU is there")
    exact = torch.device(kind, local_rank) if kind == "cuda" and gpus > 1 else torch.device(kind)
    return Placement(device=exact, bf16=bf16, why=f"{kind} ({asked}), {why}", layout=layout)


@dataclass(frozen=True, kw_only=True)
class Worker:
    """Hold what torchrun tells a process it started."""

    rank: int
    ranks: int
    local_rank: int
    local_ranks: int


def worker_of_environment() -> Worker | None:
    """Return this process's place among those that torchrun started; None if it was not, or is the only one.

    Raises InputError if the environment says only half of it.
    """
    rank, ranks = told("RANK") or 0, told("WORLD_SIZE") or 1
    if ranks < 2 and not rank:
        return None
    if missing := [name for name in _TORCHRUNS if not os.environ.get(name)]:
        there = ", ".join(f"{name}={os.environ[name]}" for name in _TORCHRUNS if name not in missing)
        raise InputError(f"{there}: the environment has no {', '.join(missing)}; {_MEND}")
    _refuse_beyond("RANK", rank, "WORLD_SIZE", ranks)
    local_rank, local_ranks = told("LOCAL_RANK"), told("LOCAL_WORLD_SIZE") or ranks
    if local_rank is None:
        local_rank = rank
    else:
        _refuse_beyond("LOCAL_RANK", local_rank, "LOCAL_WORLD_SIZE", local_ranks)
    return Worker(rank=rank, ranks=ranks, local_rank=local_rank, local_ranks=local_ranks)


_TORCHRUNS = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_MEND = "start the processes with torchrun, or unset WORLD_SIZE and RANK"


def _refuse_beyond(name: str, number: int, of: str, size: int) -> None:
    if not 0 <= number < size:
        raise InputError(f"{name}={number}: must be at least 0 and below {of}={size}; {_MEND}")


def cpu_has_bf16() -> bool:
    """Say whether the CPU multiplies bf16 in hardware (AVX512_BF16 or AMX); without it bf16 is slower than fp32."""
    cpuinfo = Path("/proc/cpuinfo")
    return cpuinfo.exists() and not _BF16_CPU_FLAGS.isdisjoint(cpuinfo.read_text().split())


def _group_ranks(gpus: int, parallel: Parallel, towers: int) -> int:
    """Return how many processes hold one network together."""
    if gpus == 1 or parallel == "data":
        return 1
    if parallel == "owt":
        return gpus
    if towers == 1:
        raise InputError(
            f"--gpus {gpus}: the network has one tower, which is not divided; --parallel data or owt works"
        )
    if gpus % towers:
        raise InputError(
            f"--gpus {gpus}: must be 1 or a multiple of {towers}, the network's towers; --parallel data takes any "
            "number"
        )
    return towers


def _precision(kind: str, precision: Precision) -> tuple[bool, str]:
    if precision != "auto":
        return precision == "bf16", f"{precision} (asked for)"
    if kind == "cuda":
        return True, "bf16 (every current GPU has it)"
    if cpu_has_bf16():
        return True, "bf16 (this CPU has AVX512_BF16 or AMX)"
    return False, "fp32 (this CPU has neither AVX512_BF16 nor AMX)"


def choose_kernels_by_trial() -> None:
    """Have cuDNN try its kernels at each new shape of a convolution, and take the fastest, in this process.

    A trial takes a fraction of a second. Which one wins may differ from run to run, and then last bits do.
    """
    torch.backends.cudnn.benchmark = True


def make_deterministic() -> None:
    """Have PyTorch use only kernels that give the same bits each time, from here on, in this process.

    On a CPU they do anyway, with the same number of threads. On a GPU the choice of convolutions by trial is off, and
    an operation that has no such kernel raises RuntimeError. Must come before the first use of a GPU.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # else cuBLAS may choose otherwise in each stream
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # no bit depends on it
    torch.backends.cudnn.benchmark = False
