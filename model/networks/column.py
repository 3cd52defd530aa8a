"""A single column under the names that torchvision gave it: `features`, `avgpool`, `classifier`, and numbers."""

from collections.abc import Sequence

from torch import Tensor, nn

from alexnet.model.exchange import Exchange, SameDevice
from alexnet.model.networks.drawing import Flatten, PoolTo
from alexnet.model.networks.modules import module_of
from alexnet.model.networks.network import Network
from alexnet.model.networks.settings import NetSettings
from alexnet.model.networks.trace import weighted_names


class Column(Network):
    """A column whose parameters are called `features.0.weight` to `classifier.6.bias`.

    The numbers are places in the drawing: before the pooling to a fixed size, and after it.
    """

    def __init__(self, settings: NetSettings, exchange: Exchange | None = None) -> None:
        super().__init__(settings)
        self.exchange = exchange or SameDevice()
        placed = self.placed()
        modules = [module_of(place, self.clock, tower=0, dropout=settings.dropout) for place in placed]
        middle = next(i for i, place in enumerate(placed) if isinstance(place.layer, PoolTo))
        flat = next(i for i, place in enumerate(placed) if isinstance(place.layer, Flatten))
        self.features = nn.Sequential(*modules[:middle])
        self.avgpool = modules[middle]
        self._pooled = placed[middle].gives[1:]
        self.classifier = nn.Sequential(*modules[flat + 1 :])
        self._by_name = {place.name: module for place, module in zip(placed, modules, strict=True)}

    def scores(self, images: Tensor) -> Tensor:
        """Return the class scores."""
        maps = self.features(images)
        if maps.shape[2:] != self._pooled:  # means of single values: left out, for its gradient varies on GPUs
            maps = self.avgpool(maps)
        (maps,) = self.exchange.rows([maps])
        scores: Tensor = self.classifier(maps.flatten(1))
        return scores

    def weighted(self) -> dict[str, Sequence[nn.Module | None]]:
        """Return each layer with parameters, under the names of the drawing."""
        return {name: [self._by_name[name]] for name in weighted_names(self.drawing)}
