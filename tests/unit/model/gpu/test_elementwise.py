"""Kernels of single values, interpreted: against today's layers to the bit, float64, and PyTorch's own update."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

from alexnet.model.gpu.elementwise import bias_relu_dropout, sgd_, space_to_depth, weight_to_depth
from alexnet.model.layers import HashDropout, StepClock

CLOCKS = [(0, 0, 0), (7, 123_456, 128), (2**32 - 1, 2**32 - 2, 2**32 - 3), (2**40 + 5, 1, 2**31)]


@pytest.fixture(autouse=True)
def at_random() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def clock_at(seed: int, step: int, first_row: int) -> StepClock:
    clock = StepClock()
    clock.set(seed, step, first_row)
    return clock


@pytest.mark.parametrize("clock", [clock_at(*now) for now in CLOCKS])
@pytest.mark.parametrize(("layer", "first_unit", "rate"), [(6, 0, 0.5), (7, 2048, 0.5), (1, 77, 0.9), (2, 2048, 0.1)])
def test_drops_the_units_that_the_layer_drops(clock: StepClock, layer: int, first_unit: int, rate: float) -> None:
    x = torch.rand(5, 300) + 1
    expected = HashDropout(clock, layer, first_unit, rate)(x)
    options: dict[str, Any] = {"relu": False, "layer": layer, "first_unit": first_unit, "rate": rate, "scaled": False}
    assert torch.equal(bias_relu_dropout(x, None, clock.now, **options), expected)
    assert 0 < (expected == 0).float().mean() < 1


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("rate", [0.5, 0.25, 0.0])
@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("biased", [True, False])
def test_equals_bias_relu_and_dropout_in_float64(biased: bool, relu: bool, rate: float, scaled: bool) -> None:
    clock = clock_at(3, 5, 2**32 - 4)
    inputs = [torch.randn(130, 70)] + [torch.randn(70)] * biased
    weight = torch.randn(130, 70)

    def gradients(y: Tensor, of: list[Tensor]) -> list[Tensor]:
        return [y.detach(), *torch.autograd.grad((y * weight).sum(), of)]

    mine = [x.clone().requires_grad_() for x in inputs]
    bias = mine[1] if biased else None
    options: dict[str, Any] = {"relu": relu, "layer": 6, "first_unit": 9, "rate": rate, "scaled": scaled}
    got = gradients(bias_relu_dropout(mine[0], bias, clock.now if rate else None, **options), mine)

    theirs = [x.double().requires_grad_() for x in inputs]
    y = theirs[0] + theirs[1] if biased else theirs[0] * 1
    drop = HashDropout(clock, 6, 9, rate, scaled=scaled)
    for value, expected in zip(got, gradients(drop(F.relu(y) if relu else y), theirs), strict=True):
        torch.testing.assert_close(value.double(), expected, rtol=2e-6, atol=1e-5)


def test_what_is_not_a_number_is_not_hidden() -> None:
    x = torch.tensor([[1.0, float("nan"), float("inf"), -1.0]])
    y = bias_relu_dropout(x, None, None, relu=True, layer=1, first_unit=0, rate=0.0, scaled=False)
    torch.testing.assert_close(y, F.relu(x), equal_nan=True)


def test_values_of_16_bits_come_back_as_such_with_their_gradients() -> None:
    x, bias = torch.randn(5, 40).bfloat16().requires_grad_(), torch.randn(40).bfloat16().requires_grad_()
    y = bias_relu_dropout(x, bias, clock_at(0, 1, 2).now, relu=True, layer=6, first_unit=0, rate=0.5, scaled=True)
    y.sum().backward()
    assert x.grad is not None
    assert bias.grad is not None
    assert {y.dtype, x.grad.dtype, bias.grad.dtype} == {torch.bfloat16}
    assert torch.equal(x.grad, (y > 0) * 2.0)


@pytest.fixture
def one_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the interpreter round a fused multiplication and addition once, as devices do; Triton 3.6 does not."""

    def fma(_: object, x: TensorHandle, y: TensorHandle, z: TensorHandle) -> TensorHandle:
        exact = x.data.astype(np.float64) * y.data + z.data
        return TensorHandle(exact.astype(np.float32), z.dtype)

    monkeypatch.setattr(InterpreterBuilder, "create_fma", fma)


@pytest.mark.usefixtures("one_rounding")
@pytest.mark.parametrize(("count", "copied"), [(16, True), (4096 + 48, True), (4096 + 48, False)])
def test_updates_as_pytorchs_fused_sgd(count: int, copied: bool) -> None:
    weight = torch.nn.Parameter(torch.randn(count))
    theirs = torch.optim.SGD([weight], lr=0.01, momentum=0.9, weight_decay=0.0005, fused=True)
    master, momentum = weight.detach().clone(), torch.zeros(count)
    working = torch.zeros(count, dtype=torch.bfloat16)
    for rate, factor in ((0.01, 0.9), (0.02, 0.45), (0.003, 0.9)):
        weight.grad = torch.randn(count)
        theirs.param_groups[0].update(lr=rate, momentum=factor)
        theirs.step()
        sgd_(master, momentum, weight.grad, working if copied else None, torch.tensor([rate, factor]), 0.0005)
    assert torch.equal(master, weight)
    assert torch.equal(momentum, theirs.state[weight]["momentum_buffer"])
    if copied:
        assert ((working.float() - master).abs() <= master.abs() * 2**-7).all()  # interpreted: cut off, not rounded


def test_a_frozen_part_stays_as_it_is() -> None:
    before = [torch.randn(32), torch.randn(32), torch.randn(32).bfloat16()]
    after = [tensor.clone() for tensor in before]
    sgd_(after[0], after[1], torch.randn(32), after[2], torch.tensor([0.0, 0.9]), 0.0005)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize(("block", "pad", "side"), [(4, 0, 8), (4, 2, 8), (2, 3, 20), (1, 1, 30), (1, 0, 20)])
@pytest.mark.parametrize("memory", [torch.channels_last, torch.contiguous_format])
def test_lays_out_images_as_pixel_unshuffle(block: int, pad: int, side: int, memory: torch.memory_format) -> None:
    images = torch.randn(2, 3, 28, 28).to(memory_format=memory)
    below = side * block - 28 - pad
    expected = F.pixel_unshuffle(F.pad(images, (pad, below, pad, below)), block)
    out = torch.full_like(expected, torch.nan).to(memory_format=torch.channels_last)
    space_to_depth(images, out, block, pad)
    assert torch.equal(out, expected)


@pytest.mark.parametrize(("pad", "below"), [(0, 3), (2, 2)])  # the 2012 network, and torchvision's
def test_the_first_convolution_is_the_same_on_squares_as_pixels(pad: int, below: int) -> None:
    images, weight = torch.randn(1, 3, 224, 224).double(), torch.randn(6, 3, 11, 11).double().requires_grad_()
    mine = weight.detach().clone().requires_grad_()
    expected = F.conv2d(F.pad(images, (pad, below, pad, below)), weight, stride=4)
    out = images.new_empty(1, 48, 57, 57).to(memory_format=torch.channels_last)
    space_to_depth(images, out, 4, pad)
    laid_out = weight_to_depth(mine, 4)
    assert laid_out.is_contiguous(memory_format=torch.channels_last)
    got = F.conv2d(out, laid_out)
    torch.testing.assert_close(got, expected)
    gradient = torch.randn_like(expected)
    torch.testing.assert_close(*(torch.autograd.grad(y, w, gradient)[0] for y, w in ((got, mine), (expected, weight))))


def test_all_run_on_tensors_without_memory() -> None:
    with FakeTensorMode():
        x, bias = torch.empty(4, 32, requires_grad=True), torch.empty(32, requires_grad=True)
        clock = torch.zeros(3, dtype=torch.int64)
        y = bias_relu_dropout(x, bias, clock, relu=True, layer=6, first_unit=0, rate=0.5, scaled=False)
        assert [g.shape for g in torch.autograd.grad(y.sum(), [x, bias])] == [x.shape, bias.shape]
        sgd_(bias.detach(), torch.empty(32), torch.empty(32), None, torch.empty(2), 0.0)
        assert weight_to_depth(torch.empty(8, 3, 11, 11), 4).shape == (8, 48, 3, 3)
