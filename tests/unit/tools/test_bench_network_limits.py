"""What networks are compared with: the naive version, the rooflines, and each layer's ways, without a report."""

import math

import pytest
import torch
from torch import nn

from alexnet.model.networks.network import build_network, parameter_count
from alexnet.model.networks.settings import NetSettings
from alexnet.tools.bench.networks.layer_kernels import UPDATE, SpaceToDepth, layers
from alexnet.tools.bench.networks.naive import naive_network
from alexnet.tools.bench.networks.roofline import arithmetic_bound, layer_bound, step_work

PAPER = NetSettings(arch="alexnet-2012")


def test_naive_is_the_same_network() -> None:
    torch.manual_seed(0)
    ours = build_network(NetSettings(arch="alexnet-2012", classes=10, dropout=0.0))
    naive = naive_network(10, dropout=0.0)
    assert parameter_count(naive) == parameter_count(ours)
    layers_of_naive = [module for module in naive if isinstance(module, nn.Conv2d | nn.Linear)]
    with torch.no_grad():
        for theirs, towers in zip(layers_of_naive, ours.weighted().values(), strict=True):
            for name in ("weight", "bias"):
                getattr(theirs, name).copy_(torch.cat([getattr(tower, name) for tower in towers]))
        images = torch.randn(2, 3, 224, 224) * 50
        torch.testing.assert_close(naive(images), ours(images), rtol=1e-4, atol=1e-4)


def test_the_whole_network_has_the_papers_parameters() -> None:
    with torch.device("meta"):
        assert parameter_count(naive_network(1000)) == 60_965_224


def test_a_step_has_the_operations_known_from_the_literature() -> None:
    work = step_work(PAPER, batch_images=1, value_bytes=4)
    assert sum(layer.flop for layer in work) == pytest.approx(4.136e9, rel=1e-3)
    by_name = {layer.name: layer for layer in work}
    assert by_name["conv1"].flop == 4 * 105_415_200  # no gradient of the image
    assert by_name["conv2"].flop == 6 * 223_948_800
    assert by_name["update"].bytes == 20 * 60_965_224
    conv4 = 6 * 384 * 13 * 13  # input and output, three times each: forward, and in both products of backward
    assert by_name["conv4"].bytes == 4 * (conv4 + 3 * 663_936)


def test_rooflines_are_limits_of_one_machine() -> None:
    work = step_work(PAPER, batch_images=64, value_bytes=2)
    arithmetic = arithmetic_bound(work, 64, 1e12)
    assert arithmetic == pytest.approx(1e12 / 4.136e9, rel=1e-3)
    assert layer_bound(work, 64, 1e12, 1e10) < arithmetic
    assert layer_bound(work, 64, 1e12, math.inf) == pytest.approx(arithmetic)
    assert layer_bound(work, 64, math.inf, 1e10) == pytest.approx(64e10 / sum(layer.bytes for layer in work))


def test_space_to_depth_is_the_same_convolution() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 8, 11, stride=4)
    images = torch.randn(2, 3, 227, 227)
    torch.testing.assert_close(SpaceToDepth(conv)(images), conv(images), rtol=1e-5, atol=1e-5)


def test_every_layer_is_measured_in_every_way() -> None:
    stage = layers(torch.device("cpu"), {"arch": "alexnet-2012", "classes": 10, "batch_images": 1, "precision": "fp32"})
    assert next(stage.work()) == (1, 1)
    told = stage.more()["layers_s"]
    assert {"conv2", "norm2", "fc7", UPDATE} <= told.keys()
    assert set(told["conv2"]) == {
        "a tower at a time, channels-last",
        "a tower at a time, NCHW",
        "all towers at once, channels-last",
        "all towers at once, NCHW",
    }
    assert "space to depth, channels-last" in told["conv1"]
    assert "PyTorch's, NCHW" in told["norm1"]
    assert all(seconds > 0 for ways in told.values() for seconds in ways.values())
