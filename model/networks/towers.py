"""Networks of towers that meet: the two of 2012, and every network of one tower that needs no other names.

A tower's list of layers is cut where towers meet, and where the fully connected layers begin. Between two cuts a tower
is on its own; at a meeting an `Exchange` gives it the values of all, and before the fully connected layers those of all
images. A process may hold every tower or one: the definition is the same.
"""

from collections.abc import Iterable, Sequence

from torch import Tensor, nn

from alexnet.model.exchange import Exchange, SameDevice
from alexnet.model.layers import StepClock
from alexnet.model.networks.drawing import Flatten, Meet
from alexnet.model.networks.modules import module_of
from alexnet.model.networks.network import Network
from alexnet.model.networks.settings import NetSettings
from alexnet.model.networks.trace import Placed, weighted_names


class Tower(nn.Module):
    """One tower: its layers, by name, and the stretches that it is alone in."""

    def __init__(self, placed: Iterable[Placed], tower: int, clock: StepClock, dropout: float) -> None:
        super().__init__()
        self.index = tower
        self._stretches: list[list[str]] = [[]]
        self.meetings: set[int] = set()
        self.first_full: int | None = None
        for place in placed:
            if isinstance(place.layer, Meet):
                self.meetings.add(len(self._stretches))
                self._stretches.append([])
            else:
                if isinstance(place.layer, Flatten):
                    if self._stretches[-1]:
                        self._stretches.append([])
                    self.first_full = len(self._stretches) - 1
                self.add_module(place.name, module_of(place, clock, tower=tower, dropout=dropout))
                self._stretches[-1].append(place.name)

    @property
    def stretches(self) -> int:
        """Count the stretches."""
        return len(self._stretches)

    def run(self, stretch: int, values: Tensor) -> Tensor:
        """Pass values through one stretch."""
        for name in self._stretches[stretch]:
            values = getattr(self, name)(values)
        return values


class TowerNetwork(Network):
    """A network of one tower or more. `towers`: which live here, all unless said; `exchange`: how they meet."""

    def __init__(
        self, settings: NetSettings, towers: Sequence[int] | None = None, exchange: Exchange | None = None
    ) -> None:
        super().__init__(settings)
        here = range(self.drawing.towers) if towers is None else towers
        self.towers = nn.ModuleDict({str(t): Tower(self.placed(t), t, self.clock, settings.dropout) for t in here})
        self.exchange = exchange or SameDevice()

    def scores(self, images: Tensor) -> Tensor:
        """Return the class scores of all towers."""
        towers = self.local_towers()
        values = [images] * len(towers)
        for stretch in range(towers[0].stretches):
            if stretch in towers[0].meetings:
                values = self.exchange.hidden(values)
            if stretch == towers[0].first_full:
                values = self.exchange.rows(values)
            values = [tower.run(stretch, read) for tower, read in zip(towers, values, strict=True)]
        return self.exchange.logits(values)

    def local_towers(self) -> list[Tower]:
        """Return the towers held here, in order."""
        return [tower for tower in self.towers.values() if isinstance(tower, Tower)]

    def weighted(self) -> dict[str, Sequence[nn.Module | None]]:
        """Return each layer with parameters: one module a tower, None if it lives elsewhere."""
        local = {tower.index: tower for tower in self.local_towers()}
        return {
            name: [getattr(local[t], name) if t in local else None for t in range(self.drawing.towers)]
            for name in weighted_names(self.drawing)
        }
