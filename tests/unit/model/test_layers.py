"""The layers PyTorch lacks: against PyTorch's own where it has one, or plain loops; dropout in every layout."""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from alexnet.model.layers import (
    CentreIn,
    HashDropout,
    LocalResponseNorm,
    SameMapNorm,
    ScaledTanh,
    StepClock,
    SubsampleSum,
    TableConv2d,
)
from alexnet.model.networks.architecture import Conv
from alexnet.model.networks.build import module_of
from alexnet.model.networks.figures import trace
from alexnet.model.networks.others import C3_READS, LENET_5
from alexnet.model.networks.settings import NetSettings


@pytest.mark.parametrize("channels", [48, 128, 3])
def test_normalisation_equals_pytorchs(channels: int) -> None:
    x = (torch.randn(4, channels, 7, 7, generator=torch.Generator().manual_seed(0)) * 40).requires_grad_()
    theirs = nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)  # PyTorch divides alpha by size
    weights = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    outs = LocalResponseNorm(channels)(x), theirs(x)
    torch.testing.assert_close(*outs, rtol=2e-6, atol=2e-6)
    torch.testing.assert_close(*(torch.autograd.grad((y * weights).sum(), x) for y in outs), rtol=2e-5, atol=2e-6)
    last = torch.randn(2, channels, 9, 9).to(memory_format=torch.channels_last)
    assert LocalResponseNorm(channels)(last).is_contiguous(memory_format=torch.channels_last)


@pytest.fixture
def gpu_autocast() -> Iterator[None]:
    """Switch on the rules by which bf16 autocast picks types on a GPU; tensors without memory follow them anywhere."""
    before = torch.get_autocast_dtype("cuda")
    torch.set_autocast_dtype("cuda", torch.bfloat16)
    torch.set_autocast_enabled("cuda", True)
    yield
    torch.set_autocast_enabled("cuda", False)
    torch.set_autocast_dtype("cuda", before)


@pytest.mark.usefixtures("gpu_autocast")
@pytest.mark.parametrize("norm", [LocalResponseNorm(48), SameMapNorm(5, 4e-5)])
def test_normalisation_stays_in_bf16_on_a_gpu(norm: nn.Module) -> None:
    with FakeTensorMode():
        for name, _ in list(norm.named_buffers()):
            setattr(norm, name, torch.empty(48, 48, 1, 1, device="cuda"))
        x = torch.empty(2, 9, 9, 48, dtype=torch.bfloat16, device="cuda").movedim(-1, 1)
        assert x.square().dtype == torch.float32, "what autocast makes of it elsewhere"
        y = norm(x)
        assert y.dtype == torch.bfloat16
        assert y.is_contiguous(memory_format=torch.channels_last)


def test_normalisation_in_bf16_is_that_of_its_type() -> None:
    """Autocast changes nothing of it: the same bits."""
    x = (torch.randn(2, 48, 9, 9, generator=torch.Generator().manual_seed(0)) * 40).bfloat16()
    alone = LocalResponseNorm(48)(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(LocalResponseNorm(48)(x), alone)
    torch.testing.assert_close(alone.float(), LocalResponseNorm(48)(x.float()), rtol=2e-2, atol=0)  # four roundings


def dropout(first_unit: int = 0, layer: int = 6, step: int = 5, first_row: int = 0, seed: int = 1) -> HashDropout:
    clock = StepClock()
    clock.set(seed, step, first_row)
    return HashDropout(clock, layer, first_unit).train()


def test_half_of_the_units_stay_and_are_not_scaled_but_in_evaluation() -> None:
    ones = torch.ones(256, 4096, requires_grad=True)
    kept = dropout()(ones)
    (gradient,) = torch.autograd.grad(kept.sum(), ones)
    assert torch.equal(gradient, kept), "gradients flow through kept units alone"
    kept = kept.detach()
    assert set(kept.unique().tolist()) == {0.0, 1.0}
    n = kept.numel()
    assert abs(float(kept.mean()) - 0.5) < 5 * 0.5 / n**0.5
    rows, units = kept.mean(dim=1), kept.mean(dim=0)
    assert float((rows - 0.5).abs().max()) < 6 * 0.5 / 4096**0.5
    assert float((units - 0.5).abs().max()) < 6 * 0.5 / 256**0.5
    assert torch.equal(dropout().eval()(kept), kept * 0.5)


@pytest.mark.parametrize("change", [{"step": 6}, {"seed": 2}, {"layer": 7}, {"first_row": 1}, {"first_unit": 1}])
def test_masks_of_other_steps_seeds_layers_and_rows_are_independent(change: dict[str, int]) -> None:
    a, b = dropout()(torch.ones(64, 2048)), dropout(**change)(torch.ones(64, 2048))
    agreement = float((a == b).float().mean())
    assert abs(agreement - 0.5) < 5 * 0.5 / a.numel() ** 0.5


def test_the_mask_does_not_depend_on_the_layout() -> None:
    whole = dropout()(torch.ones(10, 4096))
    towers = torch.cat([dropout(first_unit=t * 2048)(torch.ones(10, 2048)) for t in range(2)], dim=1)
    ranks = torch.cat([dropout(first_row=0)(torch.ones(7, 4096)), dropout(first_row=7)(torch.ones(3, 4096))])
    assert torch.equal(whole, towers)
    assert torch.equal(whole, ranks)


def test_at_rate_0_nothing_is_computed() -> None:
    x = torch.ones(3, 4)
    for scaled, training in ((True, True), (False, True), (True, False), (False, False)):
        assert HashDropout(StepClock(), 6, 0, 0.0, scaled=scaled).train(training)(x) is x


def test_the_clock_is_right_whoever_wrote_to_it() -> None:
    clock = StepClock()
    for values in ((0, 0, 0), (1, 0, 0), (1, 7, 0), (1, 7, 0), (2, 8, 9), (2**32 + 2, -1, 9)):
        clock.set(*values)
        assert clock.now.tolist() == [value & 0xFFFFFFFF for value in values]
    written = clock.now._version
    clock.set(2, 5, 9)
    assert clock.now._version == written + 1, "what is as it was is not written"
    clock.now[0] = 77
    clock.set(2, 5, 9)
    assert clock.now.tolist() == [2, 5, 9]
    for other in (copy.deepcopy(clock), clock.to_empty(device="cpu")):
        other.now.zero_()
        other.set(2, 5, 9)
        assert other.now.tolist() == [2, 5, 9]


def random(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


@pytest.mark.parametrize(("size", "alpha"), [(5, 1e-3 / 25), (3, 5e-5 / 9)])
def test_normalisation_within_a_map(size: int, alpha: float) -> None:
    x = random(2, 3, 7, 6) * 60
    expected = np.empty(x.shape)
    reach = size // 2
    for n, c, i, j in np.ndindex(*x.shape):
        window = x[n, c, max(0, i - reach) : i + reach + 1, max(0, j - reach) : j + reach + 1]
        expected[n, c, i, j] = x[n, c, i, j] / (1 + alpha * float(window.square().sum())) ** 0.75
    np.testing.assert_allclose(SameMapNorm(size, alpha)(x).numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize(("name", "reduce"), [("pool1", np.max), ("pool2", np.mean)])
def test_pooling_counts_windows_that_the_edge_cuts_off(name: str, reduce: Callable[..., Any]) -> None:
    """cuda-convnet makes 16 of 32 with windows of 3 every 2; a mean is over what lies inside."""
    placed = next(place for place in trace(NetSettings(arch="cuda-convnet-cifar")) if place.name == name)
    pool = module_of(placed, StepClock(), tower=0, dropout=0.0)
    x = random(1, 2, 32, 32)
    expected = [
        [[reduce(x[0, c, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3].numpy()) for j in range(16)] for i in range(16)]
        for c in range(2)
    ]
    np.testing.assert_allclose(pool(x)[0].numpy(), np.array(expected), rtol=1e-12)


def test_c3_reads_what_table_1_says() -> None:
    assert [len(reads) for reads in C3_READS] == [3] * 6 + [4] * 9 + [6]
    assert len(set(C3_READS)) == 16
    assert [sum(map in reads for reads in C3_READS) for map in range(6)] == [10] * 6
    assert next(layer for layer in LENET_5.layers if isinstance(layer, Conv) and layer.table).table == C3_READS


def test_convolution_by_a_table_equals_a_dense_one_with_zeros() -> None:
    layer, dense = TableConv2d(C3_READS, 6, 5).double(), nn.Conv2d(6, 16, 5).double()
    pairs = tuple(zip(*((out, read) for out, reads in enumerate(C3_READS) for read in reads), strict=True))
    layer.weight.data, layer.bias.data = random(60, 5, 5), random(16)
    dense.weight.data = torch.zeros(16, 6, 5, 5).double().index_put(tuple(map(torch.tensor, pairs)), layer.weight.data)
    dense.get_parameter("bias").data = layer.bias.data
    x = random(2, 6, 14, 14)
    torch.testing.assert_close(layer(x), dense(x), rtol=1e-12, atol=1e-12)
    (of_layer,) = torch.autograd.grad(layer(x).square().sum(), layer.weight)
    (of_dense,) = torch.autograd.grad(dense(x).square().sum(), dense.weight)
    torch.testing.assert_close(of_layer, of_dense[pairs], rtol=1e-10, atol=1e-10)


def test_subsampling_adds_up_and_weighs() -> None:
    layer = SubsampleSum(3, 2).double()
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    x = random(2, 3, 6, 4)
    sums = x[:, :, 0::2, 0::2] + x[:, :, 0::2, 1::2] + x[:, :, 1::2, 0::2] + x[:, :, 1::2, 1::2]
    expected = sums * layer.weight.view(1, 3, 1, 1) + layer.bias.view(1, 3, 1, 1)
    torch.testing.assert_close(layer(x), expected, rtol=1e-12, atol=1e-12)


def test_the_scaled_tanh_takes_one_to_one() -> None:
    one = ScaledTanh()(torch.tensor([1.0, -1.0, 100.0]))
    assert one.tolist() == pytest.approx([1.0, -1.0, 1.7159], abs=1e-4)  # the paper's constants are rounded


def test_28_px_are_set_into_the_middle_of_32() -> None:
    small = random(1, 1, 28, 28)
    framed = CentreIn(32)(small)
    assert torch.equal(framed, nn.functional.pad(small, (2, 2, 2, 2)))
    assert torch.equal(CentreIn(32)(framed), framed)
