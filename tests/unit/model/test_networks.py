"""Every network against golden tables written from its paper or its authors' configuration, by figures and by running.

A row: layer, outputs of all towers, parameters. The figures are arithmetic; the modules are counted and run, so the two
can only agree with the table if they agree with each other.
"""

import math
from collections import defaultdict
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from alexnet.model.networks.architecture import trace
from alexnet.model.networks.figures import figures
from alexnet.model.networks.network import Network, build_network, parameter_count
from alexnet.model.networks.others import ARCHITECTURES
from alexnet.model.networks.settings import NetSettings
from alexnet.shards.errors import InputError

Table = list[tuple[str, tuple[int, ...], int]]

_TWO_TOWERS: Table = [
    ("conv1", (96, 55, 55), 34_944),
    ("conv2", (256, 27, 27), 307_456),
    ("conv3", (384, 13, 13), 885_120),
    ("conv4", (384, 13, 13), 663_936),
    ("conv5", (256, 13, 13), 442_624),
    ("fc6", (4096,), 37_752_832),
    ("fc7", (4096,), 16_781_312),
    ("fc8", (1000,), 4_097_000),
]
_TABLES: dict[str, Table] = {
    "alexnet-2012": _TWO_TOWERS,
    "alexnet-2012-source": _TWO_TOWERS,
    "alexnet-2012-conv6": [*_TWO_TOWERS[:5], ("conv6", (256, 6, 6), 590_080), *_TWO_TOWERS[5:]],
    "alexnet-2012-one-tower": [
        ("conv1", (48, 55, 55), 17_472),
        ("conv2", (128, 27, 27), 153_728),
        ("conv3", (192, 13, 13), 221_376),
        ("conv4", (192, 13, 13), 331_968),
        ("conv5", (256, 13, 13), 442_624),
        *_TWO_TOWERS[5:],
    ],
    "alexnet-owt": [
        ("conv1", (64, 55, 55), 23_296),
        ("conv2", (192, 27, 27), 307_392),
        ("conv3", (384, 13, 13), 663_936),
        ("conv4", (256, 13, 13), 884_992),
        ("conv5", (256, 13, 13), 590_080),
        *_TWO_TOWERS[5:],
    ],
    "cuda-convnet-cifar": [
        ("conv1", (32, 32, 32), 2_432),
        ("conv2", (32, 16, 16), 25_632),
        ("conv3", (64, 8, 8), 51_264),
        ("fc10", (10,), 10_250),
    ],
    "cuda-convnet-cifar-80s": [
        ("conv1", (32, 32, 32), 2_432),
        ("conv2", (32, 16, 16), 25_632),
        ("conv3", (64, 8, 8), 51_264),
        ("fc64", (64,), 65_600),
        ("fc10", (10,), 650),
    ],
    "lenet-5": [
        ("c1", (6, 28, 28), 156),
        ("s2", (6, 14, 14), 12),
        ("c3", (16, 10, 10), 1_516),
        ("s4", (16, 5, 5), 32),
        ("c5", (120, 1, 1), 48_120),
        ("f6", (84,), 10_164),
        ("output", (10,), 850),
    ],
}
# Parameters, neurons and multiply-adds in all. The paper has "60 million parameters and 650,000 neurons".
_TOTALS = {
    "alexnet-2012": (60_965_224, 659_272, 724_406_816),
    "alexnet-2012-source": (60_965_224, 659_272, 724_406_816),
    "alexnet-2012-conv6": (61_555_304, 668_488, 745_640_480),
    "alexnet-2012-one-tower": (59_798_312, 355_864, 391_514_384),
    "alexnet-owt": (61_100_840, 494_184, 714_188_480),
    "cuda-convnet-cifar": (89_578, 45_066, 12_298_240),
    "cuda-convnet-cifar-80s": (145_578, 45_130, 12_354_176),
    "lenet-5": (60_850, 8_094, 328_096),
}


def classes_of(arch: str) -> int:
    return 10 if ARCHITECTURES[arch].shards_px else 1000


def network(arch: str) -> Network:
    with torch.device("meta"):
        return build_network(NetSettings(arch=arch, classes=classes_of(arch))).eval()


def test_every_network_has_a_table() -> None:
    assert set(_TABLES) == set(ARCHITECTURES) == set(_TOTALS)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_figures(arch: str) -> None:
    drawing = ARCHITECTURES[arch]
    rows = figures(drawing, px=drawing.input_px[0], channels=drawing.channels, classes=classes_of(arch))
    assert [(row.name, row.output, row.parameters) for row in rows] == _TABLES[arch]
    totals = [sum(getattr(row, field) for row in rows) for field in ("parameters", "neurons", "multiply_adds")]
    assert tuple(totals) == _TOTALS[arch]


def test_multiply_adds_of_the_papers_layers() -> None:
    rows = figures(ARCHITECTURES["alexnet-2012"], px=224, channels=3, classes=1000)
    millions = [round(row.multiply_adds / 1e6, 2) for row in rows]
    assert millions == [105.42, 223.95, 149.52, 112.14, 74.76, 37.75, 16.78, 4.10]
    assert [row.reads for row in rows] == ["image", "own", "both", "own", "own", "both", "both", "both"]


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_outputs_and_parameters_of_the_modules(arch: str) -> None:
    net = network(arch)
    drawing = net.architecture
    shapes: dict[str, list[tuple[int, ...]]] = defaultdict(list)
    counts: dict[str, int] = defaultdict(int)
    for name, modules in net.weighted().items():
        for module in modules:
            assert module is not None

            def note(_: nn.Module, __: Any, output: Tensor, name: str = name) -> None:
                shapes[name].append(tuple(output.shape[1:]))

            module.register_forward_hook(note)
            counts[name] += parameter_count(module)
    for px in drawing.input_px:
        shapes.clear()
        scores = net(torch.zeros(2, drawing.channels, px, px, device="meta"))
        assert scores.shape == (2, classes_of(arch))
        whole = {name: (sum(s[0] for s in given), *given[0][1:]) for name, given in shapes.items()}
        assert [(name, shape, counts[name]) for name, shape in whole.items()] == _TABLES[arch]
    assert parameter_count(net) == sum(counts.values()) == _TOTALS[arch][0]


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_each_layer_of_a_tower_has_a_name_of_its_own(arch: str) -> None:
    drawing = ARCHITECTURES[arch]
    names = [place.name for place in trace(drawing, px=drawing.input_px[0], channels=3, classes=10)]
    alone = [name for name in names if not name.startswith("meet")]
    assert len(set(alone)) == len(alone)


@pytest.mark.parametrize(
    ("arch", "px"), [("alexnet-2012", 227), ("alexnet-owt", 62), ("cuda-convnet-cifar", 28), ("lenet-5", 30)]
)
def test_images_of_another_size_are_refused(arch: str, px: int) -> None:
    net = network(arch)
    with pytest.raises(InputError, match=rf"images of {px} px: {arch} takes ") as error:
        net(torch.zeros(1, net.architecture.channels, px, px, device="meta"))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("arch", ["lenet-5", "alexnet-owt"])
def test_a_network_of_one_channel_reads_the_mean_of_the_colours(arch: str) -> None:
    torch.manual_seed(0)
    net = build_network(NetSettings(arch=arch, classes=10, channels=1)).eval()
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.05)
    px = 63 if arch == "alexnet-owt" else 28
    images = torch.randn(2, 3, px, px)
    with torch.no_grad():
        torch.testing.assert_close(net(images), net(images.mean(1, keepdim=True)))


@pytest.mark.parametrize("classes", [2, 7])
@pytest.mark.parametrize("arch", ["alexnet-2012", "cuda-convnet-cifar"])
def test_any_number_of_classes(arch: str, classes: int) -> None:
    with torch.device("meta"):
        net = build_network(NetSettings(arch=arch, classes=classes))
    px = net.architecture.input_px[0]
    assert net(torch.zeros(1, 3, px, px, device="meta")).shape == (1, classes)
    assert math.prod(figures(net.architecture, px=px, channels=3, classes=classes)[-1].output) == classes
