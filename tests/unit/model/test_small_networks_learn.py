"""Each small network, with its own recipe's initial values and update rule, learns a handful of pictures by heart."""

import pytest
import torch
import torch.nn.functional as F

from alexnet.model.initialise import initialise
from alexnet.model.networks.build import Network
from alexnet.model.networks.settings import NetSettings
from alexnet.model.optim import MomentumSGD
from alexnet.tools.run.settings import load_recipe
from alexnet.tools.settings import recipe_for

IMAGES = 10


@pytest.mark.usefixtures("one_thread")  # networks this small lose more to waiting for each other than they gain
@pytest.mark.parametrize(
    ("arch", "px", "pixel_deviation", "steps"),
    [("lenet-5", 28, 1.0, 250), ("cuda-convnet-cifar", 32, 64.0, 120), ("cuda-convnet-cifar-80s", 32, 64.0, 80)],
)
def test_a_handful_of_images_is_learnt_by_heart(arch: str, px: int, pixel_deviation: float, steps: int) -> None:
    recipe = load_recipe(recipe_for(arch))
    net = Network(NetSettings(arch=arch, classes=IMAGES))
    initialise(net, recipe.init, seed=0)
    net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optim = MomentumSGD(net, recipe.optim)
    smooth = torch.randn(IMAGES, 3, 6, 6, generator=torch.Generator().manual_seed(1))
    images = F.interpolate(smooth, size=(px, px), mode="bicubic") * pixel_deviation
    labels = torch.arange(IMAGES)
    losses = []
    for step in range(steps):
        net.clock.set(seed=0, step=step)
        loss = F.cross_entropy(net.train()(images), labels)
        loss.backward()
        optim.step(recipe.optim.lr)
        losses.append(loss.item())
    assert losses[0] == pytest.approx(2.3026, abs=0.3), "it starts at chance"
    assert losses[-1] < 0.05, losses[:: steps // 10]
    assert bool((net.eval()(images).argmax(dim=1) == labels).all())
