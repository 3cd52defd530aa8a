"""The same bits from two runs on one machine, for a price."""

import os

import torch


def make_deterministic() -> None:
    """Have PyTorch use only kernels that give the same bits each time, from here on, in this process.

    On a CPU they do anyway, with the same number of threads. On a GPU the choice of convolutions by trial is off, and
    an operation that has no such kernel raises RuntimeError. Must come before the first use of a GPU.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # else cuBLAS may choose otherwise in each stream
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # no bit depends on it
    torch.backends.cudnn.benchmark = False
