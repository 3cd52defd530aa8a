"""`alexnet-owt` is torchvision's `alexnet`: the same state dict, and the same scores from it."""

import pytest
import torch
from torch import nn

from alexnet.model.initialise import InitSettings, initialise
from alexnet.model.networks.network import build_network, parameter_count
from alexnet.model.networks.settings import NetSettings

# What torchvision 0.26's alexnet() has, in its order.
_STATE_DICT = {
    "features.0.weight": (64, 3, 11, 11),
    "features.0.bias": (64,),
    "features.3.weight": (192, 64, 5, 5),
    "features.3.bias": (192,),
    "features.6.weight": (384, 192, 3, 3),
    "features.6.bias": (384,),
    "features.8.weight": (256, 384, 3, 3),
    "features.8.bias": (256,),
    "features.10.weight": (256, 256, 3, 3),
    "features.10.bias": (256,),
    "classifier.1.weight": (4096, 9216),
    "classifier.1.bias": (4096,),
    "classifier.4.weight": (4096, 4096),
    "classifier.4.bias": (4096,),
    "classifier.6.weight": (1000, 4096),
    "classifier.6.bias": (1000,),
}


def written_out(channels: int, classes: int) -> nn.Module:
    """The same network as a plain list, with PyTorch's own dropout and pooling."""
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
    whole = nn.Sequential()
    whole.add_module("features", features)
    whole.add_module("avgpool", nn.AdaptiveAvgPool2d((6, 6)))
    whole.add_module("flat", nn.Flatten())
    whole.add_module("classifier", classifier)
    return whole


def test_state_dict_has_torchvisions_names_and_shapes() -> None:
    with torch.device("meta"):
        net = build_network(NetSettings(arch="alexnet-owt"))
    assert [(name, tuple(p.shape)) for name, p in net.state_dict().items()] == list(_STATE_DICT.items())
    assert parameter_count(net) == 61_100_840


@pytest.mark.parametrize(("channels", "classes", "px"), [(3, 10, 224), (3, 10, 95), (1, 10, 63), (5, 3, 300)])
def test_equals_the_network_written_out(channels: int, classes: int, px: int) -> None:
    """In evaluation; sizes where the last maps are 6x6, 2x2, 1x1 and 8x8."""
    net = build_network(NetSettings(arch="alexnet-owt", classes=classes, channels=channels)).eval()
    initialise(net, InitSettings(kind="he"), seed=1)
    other = written_out(channels, classes).eval()
    other.load_state_dict(net.state_dict())
    net.load_state_dict(other.state_dict())
    images = torch.randn(1, channels, px, px, generator=torch.Generator().manual_seed(px))
    with torch.no_grad():
        torch.testing.assert_close(net(images), other(images), rtol=1e-5, atol=1e-5)


def test_dropout_keeps_the_expected_value_while_training() -> None:
    """Scaled while training, nothing in evaluation: torchvision's weights are made for that."""
    net = build_network(NetSettings(arch="alexnet-owt", classes=2))
    drop = net.get_submodule("classifier.0")
    ones = torch.ones(64, 9216)
    kept = drop.train()(ones)
    assert set(kept.unique().tolist()) == {0.0, 2.0}
    assert float(kept.mean()) == pytest.approx(1.0, abs=5 / ones.numel() ** 0.5)
    assert torch.equal(drop.eval()(ones), ones)
