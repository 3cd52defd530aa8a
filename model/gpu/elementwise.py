"""What treats each value by itself, as one kernel each: bias, ReLU and dropout; the update; the input's layout.

Custom ops of PyTorch around the kernels of `elementwise_kernels`: they run on tensors without memory, too, and a
profiler counts each as one. All compute in fp32 and round once, when they store. None uses atomic additions: two runs
are equal to the bit.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_PLAIN = {"enable_fp_fusion": False}  # nothing is fused but what a kernel says; Triton's default changes in 3.10
_TILE = {"ROWS": 8, "COLUMNS": 256}  # 16 values a thread, 256 programs for (128, 4096)
_TALL = {"ROWS": 128, "COLUMNS": 32}  # 128 programs for 4,096 units: one round of an H200's 132 processors
_UPDATED = 2048  # parameters a program
_LAID_OUT = 1024  # values a program


def bias_relu_dropout(
    x: Tensor,
    bias: Tensor | None,
    clock: Tensor | None,
    *,
    relu: bool,
    layer: int,
    first_unit: int,
    rate: float,
    scaled: bool,
) -> Tensor:
    """Add a bias, apply ReLU if asked to, and drop the units that `HashDropout` would, to the bit.

    `x`: (n, units); `bias`: (units,) or None; `clock`: what `StepClock.now` is, None at rate 0, which computes no hash.
    """
    if not relu and not rate:
        return x if bias is None else x + bias
    y: Tensor = _forward(x.contiguous(), bias, clock if rate else None, relu, layer, first_unit, rate, scaled)
    return y


@torch.library.custom_op("alexnet::bias_relu_dropout", mutates_args=())
def _forward(
    x: Tensor,
    bias: Tensor | None,
    clock: Tensor | None,
    relu: bool,
    layer: int,
    first_unit: int,
    rate: float,
    scaled: bool,
) -> Tensor:
    from alexnet.model.gpu import elementwise_kernels as kernels

    (n, units), out = x.shape, torch.empty_like(x)
    grid = (_ceil(n, _TILE["ROWS"]), _ceil(units, _TILE["COLUMNS"]))
    drawn = (layer, first_unit, int(rate * 2**32), _scale(rate, scaled))
    kernels.bias_relu_dropout[grid](x, bias, clock, out, n, *drawn, UNITS=units, RELU=relu, **_TILE, **_PLAIN)
    return out


@_forward.register_fake
def _(x: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(x)


@torch.library.custom_op("alexnet::bias_relu_dropout_backward", mutates_args=())
def _backward(
    gradient: Tensor,
    y: Tensor | None,
    bias: Tensor | None,
    clock: Tensor | None,
    layer: int,
    first_unit: int,
    rate: float,
    scaled: bool,
) -> tuple[Tensor, Tensor]:
    from alexnet.model.gpu import elementwise_kernels as kernels

    (n, units), to_x = gradient.shape, torch.empty_like(gradient)
    to_bias = gradient.new_empty(0) if bias is None else torch.empty_like(bias)
    grid = (_ceil(units, _TALL["COLUMNS"]),)
    drawn = (layer, first_unit, int(rate * 2**32), _scale(rate, scaled))
    wanted = None if bias is None else to_bias
    sizes = {"N": n, "UNITS": units, **_TALL}
    clock = None if y is not None else clock
    kernels.bias_relu_dropout_backward[grid](gradient, y, clock, to_x, wanted, *drawn, **sizes, num_warps=8, **_PLAIN)
    return to_x, to_bias


@_backward.register_fake
def _(gradient: Tensor, y: Tensor | None, bias: Tensor | None, *_: Any) -> tuple[Tensor, Tensor]:
    return torch.empty_like(gradient), gradient.new_empty(0) if bias is None else torch.empty_like(bias)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, bias, clock, relu, *ctx.drawn = inputs
    ctx.save_for_backward(output if relu else None, bias, None if relu else clock)


def _gradients(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    y, bias, clock = ctx.saved_tensors
    to_x, to_bias = _backward(gradient.contiguous(), y, bias, clock, *ctx.drawn)
    return to_x, None if bias is None else to_bias, None, None, None, None, None, None


_forward.register_autograd(_gradients, setup_context=_remember)


@torch.library.custom_op("alexnet::sgd_", mutates_args=("master", "momentum", "working"))
def sgd_(
    master: Tensor, momentum: Tensor, gradient: Tensor, working: Tensor | None, rates: Tensor, decay: float
) -> None:
    """Update parameters and their momentum in place: b <- rates[1] b + g + decay w;  w <- w - rates[0] b.

    Flat and dense, lengths divisible by 16: `master` and `momentum` fp32, `gradient` and `working`, the new parameters
    rounded, in the dtype that the network computes in; no `working` where that is fp32. `rates`: the learning rate and
    the momentum factor, fp32, on the device. At a learning rate of 0 nothing changes, momentum neither.
    """
    from alexnet.model.gpu import elementwise_kernels as kernels

    count = master.numel()
    assert count % 16 == 0, "or loads and stores are of single values"
    assert all(t.is_contiguous() and t.numel() == count for t in (master, momentum, gradient, working) if t is not None)
    grid = (_ceil(count, _UPDATED),)
    updated = (master, momentum, gradient, working)
    kernels.sgd[grid](*updated, rates, decay, count, BLOCK=_UPDATED, num_warps=8, **_PLAIN)


@torch.library.custom_op("alexnet::space_to_depth", mutates_args=("out",))
def space_to_depth(images: Tensor, out: Tensor, block: int, pad: int) -> None:
    """Pad images with `pad` zeros above and to the left, cut them into squares of `block` pixels, make each one pixel.

    `images`: (n, maps, px, px), any strides; `out`: (n, maps * block * block, side, side), channels-last, in the order
    of `F.pixel_unshuffle`. To the right and below come zeros, or what is left over is cut off, as `side` wants it.
    """
    from alexnet.model.gpu import elementwise_kernels as kernels

    n, maps, px, _ = images.shape
    side = out.shape[-1]
    assert out.shape == (n, maps * block * block, side, side)
    assert out.is_contiguous(memory_format=torch.channels_last)
    grid = (n * side, _ceil(side * out.shape[1], _LAID_OUT))
    sizes = {"SIDE": side, "MAPS": maps, "BLOCK": block, "PAD": pad, "VALUES": _LAID_OUT}
    kernels.space_to_depth[grid](images, out, px, *images.stride(), **sizes, **_PLAIN)


class _WeightToDepth(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, block: int) -> Tensor:
        ctx.block, ctx.window = block, weight.shape[-1]
        maps, side = weight.shape[1] * block * block, _ceil(ctx.window, block)
        out = weight.new_empty(len(weight), maps, side, side).to(memory_format=torch.channels_last)
        space_to_depth(weight, out, block, 0)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        cut = F.pixel_shuffle(gradient, ctx.block)[:, :, : ctx.window, : ctx.window]
        # Without gaps, or whoever copies all gradients in one launch takes one for each.
        return cut.contiguous(memory_format=torch.channels_last), None


def weight_to_depth(weight: Tensor, block: int) -> Tensor:
    """Lay out a convolution's weight for images that `space_to_depth` cut up, its stride `block` now 1; differentiable.

    (m, maps, k, k) -> (m, maps * block * block, K, K), channels-last, K = ceil(k / block): 11 x 11 x 3 becomes
    3 x 3 x 48, 19% more multiplications, but of a depth that tensor cores can use.
    """
    out: Tensor = _WeightToDepth.apply(weight, block)  # type: ignore[no-untyped-call]
    return out


def _scale(rate: float, scaled: bool) -> float:
    return 1 / (1 - rate) if scaled else 1.0


def _ceil(a: int, b: int) -> int:
    return -(-a // b)
