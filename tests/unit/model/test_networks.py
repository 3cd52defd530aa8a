"""Every network against golden tables written from its paper or its authors' configuration, by figures and by running.

A row: layer, outputs of all towers, parameters. The figures are arithmetic; the modules are counted and run, so the two
can only agree with the table if they agree with each other. Two networks are written out a second time, in plain torch.
"""

from collections import OrderedDict, defaultdict
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alexnet.model.initialise import InitSettings, initialise
from alexnet.model.layers import HashDropout, StepClock
from alexnet.model.networks.architecture import RELU, TANH, Layer, NormAcrossMaps, NormInMap, Pool
from alexnet.model.networks.build import Network, parameter_count
from alexnet.model.networks.figures import class_range, figures, trace
from alexnet.model.networks.others import ARCHITECTURES
from alexnet.model.networks.settings import NetSettings, architecture_of
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
_CIFAR: Table = [("conv1", (32, 32, 32), 2_432), ("conv2", (32, 16, 16), 25_632), ("conv3", (64, 8, 8), 51_264)]
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
    "cuda-convnet-cifar": [*_CIFAR, ("fc10", (10,), 10_250)],
    "cuda-convnet-cifar-80s": [*_CIFAR, ("fc64", (64,), 65_600), ("fc10", (10,), 650)],
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


def settings_of(arch: str, **settings: Any) -> NetSettings:
    return NetSettings(arch=arch, **{"classes": 10 if ARCHITECTURES[arch].shards_px else 1000, **settings})


def network(settings: NetSettings) -> Network:
    with torch.device("meta"):
        return Network(settings).eval()


def scores_of(net: Network, px: int = 0) -> Tensor:
    """Return what a network without memory makes of two images."""
    px = px or net.architecture.input_px[0]
    scores: Tensor = net(torch.zeros(2, net.architecture.channels, px, px, device="meta"))
    return scores


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_figures(arch: str) -> None:
    rows = figures(settings_of(arch))
    assert [(row.name, row.output, row.parameters) for row in rows] == _TABLES[arch]
    totals = [sum(getattr(row, field) for row in rows) for field in ("parameters", "neurons", "multiply_adds")]
    assert tuple(totals) == _TOTALS[arch]


def test_multiply_adds_of_the_papers_layers() -> None:
    rows = figures(NetSettings())
    millions = [round(row.multiply_adds / 1e6, 2) for row in rows]
    assert millions == [105.42, 223.95, 149.52, 112.14, 74.76, 37.75, 16.78, 4.10]
    assert [row.reads for row in rows] == ["image", "own", "both", "own", "own", "both", "both", "both"]


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_outputs_parameters_and_names_of_the_modules(arch: str) -> None:
    net = network(settings_of(arch))
    shapes: dict[str, list[torch.Size]] = defaultdict(list)
    counts: dict[str, int] = defaultdict(int)
    for name, modules in net.weighted().items():
        for module in modules:
            assert module is not None
            module.register_forward_hook(lambda _, __, output, name=name: shapes[name].append(output.shape[1:]))
            counts[name] += parameter_count(module)
    for px in net.architecture.input_px:
        shapes.clear()
        assert scores_of(net, px).shape == (2, net.settings.classes)
        whole = {name: (sum(s[0] for s in given), *given[0][1:]) for name, given in shapes.items()}
        assert [(name, shape, counts[name]) for name, shape in whole.items()] == _TABLES[arch]
    assert parameter_count(net) == sum(counts.values()) == _TOTALS[arch][0]
    names = [place.name for place in trace(net.settings) if not place.name.startswith("meet")]
    assert len(set(names)) == len(names), "each layer of a tower has a name of its own"


@pytest.mark.parametrize(
    ("arch", "px"), [("alexnet-2012", 227), ("alexnet-owt", 62), ("cuda-convnet-cifar", 28), ("lenet-5", 30)]
)
def test_images_of_another_size_are_refused(arch: str, px: int) -> None:
    with pytest.raises(InputError, match=rf"^images of {px} px: {arch} takes [^\n]*$"):
        scores_of(network(settings_of(arch)), px)


@pytest.mark.parametrize(("arch", "px"), [("lenet-5", 28), ("alexnet-owt", 63)])
def test_a_network_of_one_channel_reads_the_mean_of_the_colours(arch: str, px: int) -> None:
    net = Network(NetSettings(arch=arch, classes=10, channels=1)).eval()
    initialise(net, InitSettings(kind="he"), seed=0)
    images = torch.randn(2, 3, px, px)
    with torch.no_grad():
        torch.testing.assert_close(net(images), net(images.mean(1, keepdim=True)))


@pytest.mark.parametrize("classes", [1, 2, 7])
@pytest.mark.parametrize("arch", ["alexnet-2012", "cuda-convnet-cifar"])
def test_any_number_of_classes_is_shared_between_the_towers(arch: str, classes: int) -> None:
    net = network(settings_of(arch, classes=classes))
    assert scores_of(net).shape == (2, classes)
    assert figures(net.settings)[-1].output == (classes,)
    parts = [class_range(classes, net.architecture.towers, tower) for tower in range(net.architecture.towers)]
    assert [k for part in parts for k in part] == list(range(classes))
    last = list(net.weighted().values())[-1]
    assert [module.out_features for module in last if isinstance(module, nn.Linear)] == list(map(len, parts))


@pytest.mark.parametrize("arch", ["alexnet-2012-source", "alexnet-2012-conv6"])
def test_equals_the_same_network_written_with_grouped_convolutions(arch: str) -> None:
    """Independent single-column definitions: groups of 2 where towers are apart, PyTorch's own normalisation."""
    net = Network(NetSettings(arch=arch, classes=10)).eval()
    initialise(net, InitSettings(kind="he"), seed=0)

    def both(name: str) -> tuple[Tensor, Tensor]:
        layers = [dict(module.named_parameters()) for module in net.weighted()[name] if module is not None]
        return torch.cat([layer["weight"] for layer in layers]), torch.cat([layer["bias"] for layer in layers])

    def normalised(x: Tensor, alpha: float = 5e-4) -> Tensor:
        return torch.cat([F.local_response_norm(part, 5, alpha=alpha, beta=0.75, k=2.0) for part in x.chunk(2, 1)], 1)

    def papers_first_two(x: Tensor) -> Tensor:
        x = F.relu(F.conv2d(x, *both("conv1"), stride=4))
        x = F.max_pool2d(normalised(x), 3, 2)
        return F.max_pool2d(normalised(F.relu(F.conv2d(x, *both("conv2"), padding=2, groups=2))), 3, 2)

    def sources_first_two(x: Tensor) -> Tensor:
        x = normalised(F.conv2d(x, *both("conv1"), stride=4), alpha=1e-4)
        x = F.relu(F.max_pool2d(x, 3, 2))
        x = normalised(F.relu(F.conv2d(x, *both("conv2"), padding=2, groups=2)), alpha=1e-4)
        neighbours = F.unfold(x.square(), 5, padding=2).unflatten(1, (x.shape[1], 25)).sum(2).view_as(x)
        return F.max_pool2d(x / (1 + 1e-3 / 25 * neighbours) ** 0.75, 3, 2)

    images = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0)) * 20
    with torch.no_grad():
        x = F.pad(images, (0, 3, 0, 3))
        x = sources_first_two(x) if arch == "alexnet-2012-source" else papers_first_two(x)
        x = F.relu(F.conv2d(x, *both("conv3"), padding=1))
        x = F.relu(F.conv2d(x, *both("conv4"), padding=1, groups=2))
        x = F.max_pool2d(F.relu(F.conv2d(x, *both("conv5"), padding=1, groups=2)), 3, 2)
        if arch == "alexnet-2012-conv6":
            x = F.relu(F.conv2d(x, *both("conv6"), padding=1))
        x = F.relu(F.linear(x.flatten(1), *both("fc6"))) * 0.5
        x = F.relu(F.linear(x, *both("fc7"))) * 0.5
        expected = F.linear(x, *both("fc8"))
        torch.testing.assert_close(net(images), expected, rtol=1e-4, atol=1e-4)


def written_out(channels: int, classes: int) -> nn.Module:
    """Return torchvision's alexnet as a plain list, with PyTorch's own dropout and pooling."""
    features = nn.Sequential(
        nn.Conv2d(channels, 64, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2),
    )  # fmt: skip
    classifier = nn.Sequential(
        nn.Dropout(0.5), nn.Linear(9216, 4096), nn.ReLU(),
        nn.Dropout(0.5), nn.Linear(4096, 4096), nn.ReLU(),
        nn.Linear(4096, classes),
    )  # fmt: skip
    middle = {"avgpool": nn.AdaptiveAvgPool2d((6, 6)), "flat": nn.Flatten()}
    return nn.Sequential(OrderedDict({"features": features, **middle, "classifier": classifier}))


@pytest.mark.parametrize(("channels", "classes", "sizes"), [(3, 10, (224, 95)), (5, 3, (63, 300))])
def test_owt_is_torchvisions_alexnet(channels: int, classes: int, sizes: tuple[int, ...]) -> None:
    """Same names, order, shapes and scores in evaluation; sizes where the last maps are 6x6, 2x2, 1x1 and 8x8."""
    net = Network(NetSettings(arch="alexnet-owt", classes=classes, channels=channels)).eval()
    initialise(net, InitSettings(kind="he"), seed=1)
    other = written_out(channels, classes).eval()
    assert [(n, p.shape) for n, p in net.state_dict().items()] == [(n, p.shape) for n, p in other.state_dict().items()]
    other.load_state_dict(net.state_dict())
    for px in sizes:
        images = torch.randn(1, channels, px, px, generator=torch.Generator().manual_seed(px))
        with torch.no_grad():
            torch.testing.assert_close(net(images), other(images), rtol=1e-5, atol=1e-5)


def edited(arch: str, **experiment: Any) -> tuple[Layer, ...]:
    return architecture_of(NetSettings(arch=arch, **experiment)).layers


def test_an_experiment_changes_what_it_says_and_nothing_else() -> None:
    for name, architecture in ARCHITECTURES.items():
        assert architecture_of(NetSettings(arch=name)) == architecture
    cifar = ARCHITECTURES["cuda-convnet-cifar"].layers
    assert edited("cuda-convnet-cifar", activation="tanh") == tuple(TANH if x == RELU else x for x in cifar)
    for arch, norms in (("alexnet-2012", 2), ("alexnet-2012-source", 3)):
        layers = edited(arch, response_norm="off")
        rest = tuple(x for x in ARCHITECTURES[arch].layers if not isinstance(x, NormAcrossMaps | NormInMap))
        assert layers == rest
        assert len(ARCHITECTURES[arch].layers) - len(layers) == norms


@pytest.mark.parametrize("arch", ["alexnet-2012", "alexnet-owt", "cuda-convnet-cifar"])
def test_windows_that_do_not_overlap_give_maps_of_the_same_size(arch: str) -> None:
    """Section 3.4: "which produces output of equivalent dimensions"."""
    apart = settings_of(arch, pooling="disjoint")
    assert all(x.window == x.stride == 2 for x in edited(arch, pooling="disjoint") if isinstance(x, Pool))
    assert figures(apart) == figures(settings_of(arch))
    assert scores_of(network(apart)).shape == (2, apart.classes)


def test_without_dropout_training_is_evaluation() -> None:
    drop = network(NetSettings(arch="alexnet-2012-one-tower", dropout=0.0)).get_submodule("towers.0.drop6")
    assert isinstance(drop, HashDropout)
    x = torch.randn(3, 4096)
    for training in (False, True):
        assert torch.equal(HashDropout(StepClock(), 6, 0, drop.rate).train(training)(x), x)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"arch": "lenet-5", "response_norm": "off"}, r"net\.response_norm=off: lenet-5 has none"),
        ({"arch": "lenet-5", "pooling": "disjoint"}, r"net\.pooling=disjoint: lenet-5 has no pooling windows"),
        ({"arch": "alexnet-2012", "activation": "relu"}, r"net\.activation=relu: alexnet-2012 has no other"),
        ({"arch": "cuda-convnet-cifar", "dropout": 0.2}, r"net\.dropout=0\.2: cuda-convnet-cifar has none"),
        ({"arch": "alexnet2012"}, r"net\.arch=alexnet2012: must be one of lenet-5, .*; did you mean alexnet-2012\?"),
    ],
)
def test_what_is_unknown_or_changes_nothing_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        edited(**settings)
