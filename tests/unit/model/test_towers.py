"""The two towers: as the paper draws them, the same alone and together, and the same as other ways to write them."""

import threading

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from alexnet.model.exchange import Exchange
from alexnet.model.initialise import InitSettings, initialise
from alexnet.model.networks.architecture import class_range
from alexnet.model.networks.network import TowerNetwork, build_network
from alexnet.model.networks.settings import NetSettings


def towers_of(
    arch: str = "alexnet-2012", classes: int = 10, here: list[int] | None = None, exchange: Exchange | None = None
) -> TowerNetwork:
    net = build_network(NetSettings(arch=arch, classes=classes), here, exchange)
    assert isinstance(net, TowerNetwork)
    return net


def test_classes_are_shared_between_the_towers() -> None:
    for classes in (1, 2, 7, 10, 1000):
        assert [*class_range(classes, 2, 0), *class_range(classes, 2, 1)] == list(range(classes))
    assert [tower.get_submodule("fc8").out_features for tower in towers_of(classes=7).local_towers()] == [4, 3]


@pytest.mark.parametrize("arch", ["alexnet-2012", "alexnet-2012-source", "alexnet-2012-conv6"])
def test_equals_the_same_network_written_with_grouped_convolutions(arch: str) -> None:
    """Independent single-column definitions: groups of 2 where towers are apart, PyTorch's own normalisation."""
    net = towers_of(arch).eval()
    initialise(net, InitSettings(kind="he"), seed=0)
    a, b = net.local_towers()

    def both(name: str) -> tuple[Tensor, Tensor]:
        layers = [a.get_submodule(name), b.get_submodule(name)]
        return (
            torch.cat([layer.get_parameter("weight") for layer in layers]),
            torch.cat([layer.get_parameter("bias") for layer in layers]),
        )

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


class Mailbox:
    """Join two towers that run in two threads: what a pair of processes does, without processes."""

    def __init__(self) -> None:
        self.barrier = threading.Barrier(2)
        self.parts: list[Tensor | None] = [None, None]

    def end(self, tower: int) -> "MailboxEnd":
        return MailboxEnd(self, tower)


class MailboxEnd:
    def __init__(self, mailbox: Mailbox, tower: int) -> None:
        self.mailbox, self.tower = mailbox, tower

    def all_gather(self, parts: list[Tensor]) -> list[Tensor]:
        return [self.all_scores(parts)]

    def all_rows(self, parts: list[Tensor]) -> list[Tensor]:
        return parts

    def all_scores(self, parts: list[Tensor]) -> Tensor:
        self.mailbox.parts[self.tower] = parts[0]
        self.mailbox.barrier.wait()
        joined = torch.cat([part for part in self.mailbox.parts if part is not None], dim=1)
        self.mailbox.barrier.wait()
        return joined


def test_a_tower_alone_computes_what_it_does_beside_the_other() -> None:
    """Splitting the towers changes nothing in the definition: same initial values, same masks, same scores."""
    together = towers_of(classes=7).train()
    initialise(together, InitSettings(kind="he"), seed=3)
    together.clock.set(seed=3, step=11)
    images = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    mailbox, scores = Mailbox(), {}

    def run(tower: int) -> None:
        alone = towers_of(classes=7, here=[tower], exchange=mailbox.end(tower)).train()
        initialise(alone, InitSettings(kind="he"), seed=3)
        alone.clock.set(seed=3, step=11)
        with torch.no_grad():
            scores[tower] = alone(images)

    threads = [threading.Thread(target=run, args=(tower,)) for tower in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with torch.no_grad():
        expected = together(images)
    torch.testing.assert_close(scores[0], expected, rtol=1e-5, atol=1e-6)  # threads may split sums differently
    assert torch.equal(scores[0], scores[1])
