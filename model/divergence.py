"""A run that has lost its numbers: losses or weights that are no longer finite."""

from collections.abc import Iterable

from torch import Tensor
from torch.nn.utils import get_total_norm


class DivergedError(Exception):
    """Say what is no longer finite, after which step (counted from 1), and with which learning rate."""

    def __init__(self, what: str, step: int, rate: float) -> None:
        super().__init__(f"{what} at step {step:,}, learning rate {rate:g}")


def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Say whether every value is finite; waits for the device. One pass, without a temporary copy of any tensor."""
    return bool(get_total_norm([tensor.detach() for tensor in tensors]).isfinite())
