"""The norm of a network's gradient, to fp32's precision."""

from collections.abc import Iterable

from torch import Tensor
from torch.nn.utils import get_total_norm

_PIECE = 1 << 16


def norm_of(tensors: Iterable[Tensor]) -> Tensor:
    """Return the Euclidean norm of all values together; does not wait for the device.

    In pieces of 65,536 values: on a CPU PyTorch adds up squares from end to end in fp32, and the norm of as many values
    as fc6 has, 37.7 million, comes out 2.6e-3 too small; so, within 2e-7, at 1.3 times the cost.
    """
    return get_total_norm([piece for tensor in tensors for piece in tensor.detach().flatten().split(_PIECE)])
