"""The network of 2012, as the paper's figure 2 draws it: two towers that meet at conv3, fc6, fc7 and fc8.

    image --+-- conv1 48 -- conv2 128 --+--(both)-- conv3 192 -- conv4 192 -- conv5 128 --+--(both)-- fc6 .. fc8
            |                           |                                                 |
            +-- conv1 48 -- conv2 128 --+--(both)-- conv3 192 -- conv4 192 -- conv5 128 --+--(both)-- fc6 .. fc8

Each tower reads its own maps except at conv3 and the fully connected layers, which read both towers'. A process may
hold both towers or one: the definition is the same, and what joins them is an `Exchange` it is given. There are no
devices, process groups, learning rates or initial values here.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from alexnet.model.exchange import Exchange, SameDevice
from alexnet.model.layers import HashDropout, LocalResponseNorm, StepClock
from alexnet.shards.errors import InputError

TOWERS = 2
INPUT_PX = 224
LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")
_HIDDEN = 2048  # units of fc6 and of fc7 in each tower
_FLAT = TOWERS * 128 * 6 * 6  # both towers' pooled conv5


@dataclass(frozen=True, kw_only=True)
class NetSettings:
    """Settle the shape of the network. `classes`: outputs. `dropout`: rate in fc6 and fc7."""

    classes: int = 1000
    dropout: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.dropout < 1:
            raise InputError(f"net.dropout={self.dropout}: must be at least 0 and below 1")


def class_range(classes: int, tower: int) -> range:
    """Return the classes that a tower's part of fc8 computes: halves, the first the larger if they differ."""
    half = -(-classes // TOWERS)
    return range(tower * half, min((tower + 1) * half, classes))


class Tower(nn.Module):
    """One tower: 48-128-192-192-128 maps, 2048-2048 units and half of the classes."""

    def __init__(self, settings: NetSettings, tower: int, clock: StepClock) -> None:
        super().__init__()
        self.index = tower
        self.conv1 = nn.Conv2d(3, 48, kernel_size=11, stride=4)
        self.conv2 = nn.Conv2d(48, 128, kernel_size=5, padding=2)
        self.conv3 = nn.Conv2d(TOWERS * 128, 192, kernel_size=3, padding=1)
        self.conv4 = nn.Conv2d(192, 192, kernel_size=3, padding=1)
        self.conv5 = nn.Conv2d(192, 128, kernel_size=3, padding=1)
        self.fc6 = nn.Linear(_FLAT, _HIDDEN)
        self.fc7 = nn.Linear(TOWERS * _HIDDEN, _HIDDEN)
        self.fc8 = nn.Linear(TOWERS * _HIDDEN, len(class_range(settings.classes, tower)))
        self.norm1 = LocalResponseNorm(48)
        self.norm2 = LocalResponseNorm(128)
        self.drop6 = HashDropout(clock, 6, tower * _HIDDEN, settings.dropout)
        self.drop7 = HashDropout(clock, 7, tower * _HIDDEN, settings.dropout)

    def first_two(self, images: Tensor) -> Tensor:
        """(n, 3, 224, 224) -> (n, 128, 13, 13): convolve, rectify, normalise, pool, twice."""
        # The 2012 code walks a 224 image in 55 steps of 4, the last reaching 3 pixels past the edge.
        x = self.norm1(F.relu(self.conv1(F.pad(images, (0, 3, 0, 3)))))
        x = self.norm2(F.relu(self.conv2(_pool(x))))
        return _pool(x)

    def last_three(self, both: Tensor) -> Tensor:
        """(n, 256, 13, 13) -> (n, 128, 6, 6): three convolutions, then the last pooling."""
        x = F.relu(self.conv3(both))
        x = F.relu(self.conv4(x))
        return _pool(F.relu(self.conv5(x)))

    def hidden6(self, both: Tensor) -> Tensor:
        """(n, 256, 6, 6) -> (n, 2048)."""
        hidden: Tensor = self.drop6(F.relu(self.fc6(both.flatten(1))))
        return hidden

    def hidden7(self, both: Tensor) -> Tensor:
        """(n, 4096) -> (n, 2048)."""
        hidden: Tensor = self.drop7(F.relu(self.fc7(both)))
        return hidden

    def scores(self, both: Tensor) -> Tensor:
        """(n, 4096) -> (n, this tower's classes)."""
        scores: Tensor = self.fc8(both)
        return scores


class TwoTowers(nn.Module):
    """The paper's network: (n, 3, 224, 224) images, 0-255 minus the mean, -> (n, classes) scores.

    60,965,224 parameters and 659,272 neurons with 1,000 classes. `towers`: which of the two live here; `exchange`: how
    they reach the others.
    """

    def __init__(
        self, settings: NetSettings, towers: Sequence[int] = range(TOWERS), exchange: Exchange | None = None
    ) -> None:
        super().__init__()
        self.settings = settings
        self.clock = StepClock()
        self.towers = nn.ModuleDict({str(t): Tower(settings, t, self.clock) for t in towers})
        self.exchange = exchange or SameDevice()

    def forward(self, images: Tensor) -> Tensor:
        """Return the class scores."""
        towers = self.local_towers()
        maps = [tower.first_two(images) for tower in towers]
        maps = [tower.last_three(both) for tower, both in zip(towers, self.exchange.hidden(maps), strict=True)]
        units = [tower.hidden6(both) for tower, both in zip(towers, self.exchange.hidden(maps), strict=True)]
        units = [tower.hidden7(both) for tower, both in zip(towers, self.exchange.hidden(units), strict=True)]
        parts = [tower.scores(both) for tower, both in zip(towers, self.exchange.hidden(units), strict=True)]
        return self.exchange.logits(parts)

    def local_towers(self) -> list[Tower]:
        """Return the towers held here, in order."""
        return [tower for tower in self.towers.values() if isinstance(tower, Tower)]


def _pool(x: Tensor) -> Tensor:
    """Overlapping pooling: 3x3 windows every 2 (paper, section 3.4)."""
    return F.max_pool2d(x, kernel_size=3, stride=2)
