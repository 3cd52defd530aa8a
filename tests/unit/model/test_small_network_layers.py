"""The layers that only the networks of 1998 and 2011 have, each against a definition in plain loops."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from alexnet.model.layers import CentreIn, SameMapNorm, ScaledTanh, StepClock, SubsampleSum, TableConv2d
from alexnet.model.networks.architecture import Conv, trace
from alexnet.model.networks.network import module_of
from alexnet.model.networks.others import C3_READS, CIFAR, LENET_5


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
    placed = next(place for place in trace(CIFAR, px=32, channels=3, classes=10) if place.name == name)
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
    layer = TableConv2d(C3_READS, 6, 5).double()
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    dense = nn.Conv2d(6, 16, 5).double()
    with torch.no_grad():
        dense.weight.zero_()
        pairs = [(out, read) for out, reads in enumerate(C3_READS) for read in reads]
        for connection, (out, read) in enumerate(pairs):
            dense.weight[out, read] = layer.weight[connection]
        dense.get_parameter("bias").copy_(layer.bias)
    x = random(2, 6, 14, 14)
    torch.testing.assert_close(layer(x), dense(x), rtol=1e-12, atol=1e-12)
    layer(x).square().sum().backward()
    dense(x).square().sum().backward()
    assert layer.weight.grad is not None
    assert dense.weight.grad is not None
    of_dense = torch.stack([dense.weight.grad[out, read] for out, read in pairs])
    torch.testing.assert_close(layer.weight.grad, of_dense, rtol=1e-10, atol=1e-10)


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
    assert framed.shape == (1, 1, 32, 32)
    assert torch.equal(framed[:, :, 2:30, 2:30], small)
    assert framed.count_nonzero() == small.count_nonzero()
    assert torch.equal(CentreIn(32)(framed), framed)
