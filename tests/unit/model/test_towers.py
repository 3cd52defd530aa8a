"""The network is the paper's: its parameters, its shapes, and nothing that depends on where it runs."""

import threading
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alexnet.model.initialise import InitSettings, initialise, parameter_count
from alexnet.model.towers import NetSettings, Tower, TwoTowers, class_range

# (layer, parameters of both towers, output of one tower); 55 * 55 * 96 + ... is the paper's 650,000 neurons
TABLE = [
    ("conv1", 34_944, (48, 55, 55)),
    ("conv2", 307_456, (128, 27, 27)),
    ("conv3", 885_120, (192, 13, 13)),
    ("conv4", 663_936, (192, 13, 13)),
    ("conv5", 442_624, (128, 13, 13)),
    ("fc6", 37_752_832, (2048,)),
    ("fc7", 16_781_312, (2048,)),
    ("fc8", 4_097_000, (500,)),
]


@pytest.fixture(scope="module")
def paper_net() -> TwoTowers:
    return TwoTowers(NetSettings())


def test_parameters_layer_by_layer(paper_net: TwoTowers) -> None:
    for name, expected, _ in TABLE:
        layers = [getattr(tower, name) for tower in paper_net.local_towers()]
        assert sum(parameter_count(layer) for layer in layers) == expected, name
    assert parameter_count(paper_net) == 60_965_224


def test_outputs_and_neurons_layer_by_layer(paper_net: TwoTowers) -> None:
    shapes: dict[str, list[tuple[int, ...]]] = {}
    hooks = []
    for tower in paper_net.local_towers():
        for name, _, _ in TABLE:

            def note(_: nn.Module, __: Any, output: Tensor, name: str = name) -> None:
                shapes.setdefault(name, []).append(tuple(output.shape[1:]))

            hooks.append(getattr(tower, name).register_forward_hook(note))
    with torch.no_grad():
        assert paper_net(torch.zeros(1, 3, 224, 224)).shape == (1, 1000)
    for hook in hooks:
        hook.remove()
    assert shapes == {name: [shape, shape] for name, _, shape in TABLE}
    assert sum(torch.Size(s).numel() for both in shapes.values() for s in both) == 659_272


def test_classes_are_shared_between_the_towers() -> None:
    for classes in (1, 2, 7, 10, 1000):
        assert [*class_range(classes, 0), *class_range(classes, 1)] == list(range(classes))
    assert [tower.fc8.out_features for tower in TwoTowers(NetSettings(classes=7)).local_towers()] == [4, 3]


def test_equals_the_same_network_written_with_grouped_convolutions() -> None:
    """An independent single-column definition: groups of 2 where towers are apart, PyTorch's own normalisation."""
    net = TwoTowers(NetSettings(classes=10)).eval()
    initialise(net, InitSettings(kind="he"), seed=0)
    a, b = net.local_towers()

    def both(name: str) -> tuple[Tensor, Tensor]:
        layers = [getattr(a, name), getattr(b, name)]
        return torch.cat([layer.weight for layer in layers]), torch.cat([layer.bias for layer in layers])

    def normalised(x: Tensor) -> Tensor:
        return torch.cat([F.local_response_norm(part, 5, alpha=5e-4, beta=0.75, k=2.0) for part in x.chunk(2, 1)], 1)

    images = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        x = F.relu(F.conv2d(F.pad(images, (0, 3, 0, 3)), *both("conv1"), stride=4))
        x = F.max_pool2d(normalised(x), 3, 2)
        x = F.max_pool2d(normalised(F.relu(F.conv2d(x, *both("conv2"), padding=2, groups=2))), 3, 2)
        x = F.relu(F.conv2d(x, *both("conv3"), padding=1))
        x = F.relu(F.conv2d(x, *both("conv4"), padding=1, groups=2))
        x = F.max_pool2d(F.relu(F.conv2d(x, *both("conv5"), padding=1, groups=2)), 3, 2).flatten(1)
        x = F.relu(F.linear(x, *both("fc6"))) * 0.5
        x = F.relu(F.linear(x, *both("fc7"))) * 0.5
        expected = F.linear(x, *both("fc8"))
        torch.testing.assert_close(net(images), expected, rtol=1e-4, atol=1e-5)


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

    def hidden(self, parts: list[Tensor]) -> list[Tensor]:
        return [self.logits(parts)]

    def logits(self, parts: list[Tensor]) -> Tensor:
        self.mailbox.parts[self.tower] = parts[0]
        self.mailbox.barrier.wait()
        joined = torch.cat([part for part in self.mailbox.parts if part is not None], dim=1)
        self.mailbox.barrier.wait()
        return joined


def test_a_tower_alone_computes_what_it_does_beside_the_other() -> None:
    """Splitting the towers changes nothing in the definition: same initial values, same masks, same scores."""
    together = TwoTowers(NetSettings(classes=7)).train()
    initialise(together, InitSettings(kind="he"), seed=3)
    together.clock.set(seed=3, step=11)
    images = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    mailbox, scores = Mailbox(), {}

    def run(tower: int) -> None:
        alone = TwoTowers(NetSettings(classes=7), towers=[tower], exchange=mailbox.end(tower)).train()
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


def test_initial_values_are_the_papers(paper_net: TwoTowers) -> None:
    initialise(paper_net, InitSettings(kind="paper"), seed=0)
    for tower in paper_net.local_towers():
        for name, _, _ in TABLE:
            layer = getattr(tower, name)
            assert float(layer.weight.detach().std()) == pytest.approx(0.01, rel=0.05), name
            ones = name in {"conv2", "conv4", "conv5", "fc6", "fc7"}
            assert set(layer.bias.tolist()) == {1.0 if ones else 0.0}, name
    towers: list[Tower] = paper_net.local_towers()
    assert not torch.equal(towers[0].conv1.weight, towers[1].conv1.weight)


def test_initial_values_follow_from_the_seed() -> None:
    nets = [TwoTowers(NetSettings(classes=2)) for _ in range(3)]
    for net, seed in zip(nets, (0, 0, 1), strict=True):
        initialise(net, InitSettings(kind="he"), seed)
    values = [torch.cat([p.flatten() for p in net.parameters()]) for net in nets]
    assert torch.equal(values[0], values[1])
    assert not torch.equal(values[0], values[2])
