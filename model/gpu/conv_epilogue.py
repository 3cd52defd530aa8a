"""What follows a convolution, up to its pooling, as one kernel: bias, ReLU, response normalisation, max pooling.

It reads a convolution's output once and writes what is pooled, in fp32 in between. For the backward pass it leaves the
convolution's output and, a byte a value, which pixel of each window was the largest. Towers that are here together may
come as one tensor or as one each, and so may what is given: nothing is concatenated or copied apart.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

NORM_SIZE, NORM_BETA = 5, 0.75
"""Neighbouring maps that are normalised by, and the exponent: what the kernels know, as all networks have them."""

_ITEMS = 128
"""Vectors of eight values a program: one a thread."""
_PROGRAMS = 2048
"""Programs of a backward pass, each with a sum of the bias's gradient: 15 for each processor of an H200."""
_LARGE = 1 << 31
"""Values of all maps from which on their places are numbers of 64 bits."""
_FUSED = {"enable_fp_fusion": True}  # multiply and add in one, which Triton leaves from 3.10 on unless told to


@dataclass(frozen=True, kw_only=True)
class Epilogue:
    """Say what follows a convolution.

    `relu`: `before` normalisation and pooling, `after`, or `none`. `norm`: alpha and k of response normalisation
    (paper, section 3.3), within each tower. `pool`: window and stride of the maximum; only whole windows. `towers`: as
    many equal parts all maps are. `outputs`: tensors to give: 1, or one a tower.
    """

    relu: Literal["before", "after", "none"] = "before"
    norm: tuple[float, float] | None = None
    pool: tuple[int, int] = (1, 1)
    towers: int = 1
    outputs: int = 1

    def after(self, height: int, width: int) -> tuple[int, int]:
        """Return the sides of what is given."""
        window, stride = self.pool
        return (height - window) // stride + 1, (width - window) // stride + 1

    def cells(self, x: Tensor) -> int:
        """Return how many squares of pooling's stride cover what is read, (n, maps, height, width)."""
        n, _, height, width = x.shape
        return n * _ceil(height, self.pool[1]) * _ceil(width, self.pool[1])

    @property
    def remembers(self) -> bool:
        """Say whether the backward pass must be told which values passed."""
        return self.pool[0] > 1 or self.relu == "after"


def conv_epilogue(parts: Sequence[Tensor], bias: Tensor, epilogue: Epilogue) -> tuple[Tensor, ...]:
    """Apply it to one or more convolutions without bias, (n, maps, H, W) channels-last, all towers' maps together.

    `bias`: of all maps, (sum of maps,). Differentiable with respect to both.
    """
    if not all(part.is_contiguous(memory_format=torch.channels_last) for part in parts):
        raise ValueError("a convolution's output is not channels-last, as the kernels read it")
    outputs: tuple[Tensor, ...] = _ConvEpilogue.apply(epilogue, bias, *parts)  # type: ignore[no-untyped-call]
    return outputs


class _ConvEpilogue(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, epilogue: Epilogue, bias: Tensor, *parts: Tensor) -> tuple[Tensor, ...]:
        *outputs, taps = _forward(list(parts), bias, *_packed(epilogue))
        ctx.epilogue = epilogue
        ctx.save_for_backward(bias, taps, *parts)
        return tuple(outputs)

    @staticmethod
    def backward(ctx: Any, *given: Tensor) -> tuple[Tensor | None, ...]:
        bias, taps, *parts = ctx.saved_tensors
        given = tuple(each.contiguous(memory_format=torch.channels_last) for each in given)
        *to_parts, to_bias = _backward(list(given), taps, parts, bias, *_packed(ctx.epilogue))
        return None, to_bias.sum(0, dtype=bias.dtype), *to_parts


def _packed(epilogue: Epilogue) -> tuple[str, list[float], list[int], int, int]:
    """Return an epilogue as the numbers and names that a custom op takes."""
    return epilogue.relu, list(epilogue.norm or ()), list(epilogue.pool), epilogue.towers, epilogue.outputs


def _unpacked(relu: Any, norm: list[float], pool: list[int], towers: int, outputs: int) -> Epilogue:
    alpha_and_k: Any = tuple(norm) or None
    return Epilogue(relu=relu, norm=alpha_and_k, pool=(pool[0], pool[1]), towers=towers, outputs=outputs)


@torch.library.custom_op("alexnet::conv_epilogue", mutates_args=())
def _forward(
    parts: list[Tensor], bias: Tensor, relu: str, norm: list[float], pool: list[int], towers: int, outputs: int
) -> list[Tensor]:
    from alexnet.model.gpu import conv_epilogue_kernels as kernels

    epilogue = _unpacked(relu, norm, pool, towers, outputs)
    *given, taps = _empty_outputs(parts, bias, epilogue)
    pixels = given[0].numel() // given[0].shape[1]
    constants = _constants(parts, given, bias, epilogue)
    grid = (_ceil(pixels, constants["PIXELS"]) * _shares(bias, epilogue),)
    numbers = epilogue.norm or (0.0, 0.0)
    to_tower = _to_tower(parts, epilogue), _to_tower(given, epilogue)
    kernels.conv_epilogue[grid](parts[0], bias, given[0], taps, pixels, *to_tower, *numbers, **constants)
    return [*given, taps]


@_forward.register_fake
def _(parts: list[Tensor], bias: Tensor, *packed: Any) -> list[Tensor]:
    return _empty_outputs(parts, bias, _unpacked(*packed))


@torch.library.custom_op("alexnet::conv_epilogue_backward", mutates_args=())
def _backward(
    given: list[Tensor], taps: Tensor, parts: list[Tensor], bias: Tensor,
    relu: str, norm: list[float], pool: list[int], towers: int, outputs: int,
) -> list[Tensor]:  # fmt: skip
    """Return the gradients of the parts, and sums of which the bias's is the sum, fp32 (programs, maps)."""
    from alexnet.model.gpu import conv_epilogue_kernels as kernels

    epilogue = _unpacked(relu, norm, pool, towers, outputs)
    *to_parts, to_bias = _empty_gradients(parts, bias, epilogue)
    cells = epilogue.cells(parts[0])
    constants = _constants(parts, given, bias, epilogue)
    grid = (len(to_bias) * _shares(bias, epilogue),)
    numbers = epilogue.norm or (0.0, 0.0)
    to_tower = [_to_tower(tensors, epilogue) for tensors in (given, parts, to_parts)]
    tensors = (given[0], taps, parts[0], bias, to_parts[0], to_bias)
    constants["TURNS"] = _ceil(cells, constants["PIXELS"] * len(to_bias))
    kernels.conv_epilogue_backward[grid](*tensors, cells, *to_tower, *numbers, **constants)
    return [*to_parts, to_bias]


@_backward.register_fake
def _(given: list[Tensor], taps: Tensor, parts: list[Tensor], bias: Tensor, *packed: Any) -> list[Tensor]:
    return _empty_gradients(parts, bias, _unpacked(*packed))


def _empty_outputs(parts: list[Tensor], bias: Tensor, epilogue: Epilogue) -> list[Tensor]:
    n, _, height, width = parts[0].shape
    sides = epilogue.after(height, width)
    maps = len(bias) // epilogue.outputs
    outputs = [_channels_last(parts[0], n, maps, *sides) for _ in range(epilogue.outputs)]
    taps = (n, len(bias), *sides) if epilogue.remembers else (0, 1, 1, 1)
    return [*outputs, _channels_last(parts[0], *taps, dtype=torch.uint8)]


def _empty_gradients(parts: list[Tensor], bias: Tensor, epilogue: Epilogue) -> list[Tensor]:
    blocks = _ceil(epilogue.cells(parts[0]) * _vectors(bias, epilogue)[1], _ITEMS)
    programs = max(1, min(blocks, _PROGRAMS // _shares(bias, epilogue)))
    return [*(torch.empty_like(part) for part in parts), bias.new_empty(programs, len(bias), dtype=torch.float32)]


def _channels_last(like: Tensor, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
    kind = {"dtype": dtype or like.dtype, "device": like.device, "memory_format": torch.channels_last}
    return torch.empty(shape, **kind)  # type: ignore[call-overload, no-any-return]


def _constants(parts: list[Tensor], outputs: list[Tensor], bias: Tensor, epilogue: Epilogue) -> dict[str, Any]:
    """Return what a kernel is compiled for."""
    maps, vectors = _vectors(bias, epilogue)
    (_, maps_in, *sides_in), (_, maps_out, *sides_out) = parts[0].shape, outputs[0].shape
    sizes = {"IN": (*sides_in, maps_in), "OUT": (*sides_out, maps_out, len(bias)), "POOL": epilogue.pool, "MAPS": maps}
    what = {"RELU": epilogue.relu, "NORM": bool(epilogue.norm), "TAPS": epilogue.remembers}
    large = parts[0].numel() // parts[0].shape[1] * len(bias) >= _LARGE
    return sizes | what | {"PIXELS": _ITEMS // vectors, "VECTORS": vectors, "LARGE": large} | _FUSED


def _vectors(bias: Tensor, epilogue: Epilogue) -> tuple[int, int]:
    """Return a tower's maps, and how many times eight of them a program takes: a power of two that divides them all."""
    maps = len(bias) // epilogue.towers
    eights = _ceil(maps, 8)
    return maps, min(eights & -eights, 16)


def _shares(bias: Tensor, epilogue: Epilogue) -> int:
    """Return how many programs all maps of the same pixels take."""
    maps, vectors = _vectors(bias, epilogue)
    return epilogue.towers * _ceil(maps, 8 * vectors)


def _to_tower(tensors: list[Tensor], epilogue: Epilogue) -> int:
    """Return how many values lie between the first values of the first tower and of the second."""
    if len(tensors) > 2:
        raise ValueError(f"{len(tensors)} towers apart: at most 2, of which the kernels take the distance")
    if len(tensors) == 1:
        return tensors[0].shape[1] // epilogue.towers
    return (tensors[1].data_ptr() - tensors[0].data_ptr()) // tensors[0].element_size()


def _ceil(a: int, b: int) -> int:
    return -(-a // b)
