"""From an architecture to a `torch.nn.Module`.

What every network here is to the rest of the system is `Network`: scores of images, a clock for dropout, and named
layers. Two classes are one: `TowerNetwork`, for those of 2012 and every network of one tower that needs no other names,
and `Column`, whose parameters have the names that torchvision gave them. No network knows devices, process groups,
learning rates or initial values.
"""

from collections.abc import Iterable, Sequence

from torch import Tensor, nn

from alexnet.model import layers
from alexnet.model.exchange import Exchange, SameDevice
from alexnet.model.layers import StepClock
from alexnet.model.networks import architecture as arch
from alexnet.model.networks.architecture import AllGather, Architecture, Flatten, Placed, PoolTo, trace, weighted_names
from alexnet.model.networks.others import OWT
from alexnet.model.networks.settings import NetSettings, architecture_of

_FUNCTIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh, "scaled-tanh": layers.ScaledTanh}


def module_of(placed: Placed, clock: layers.StepClock, *, tower: int, dropout: float) -> nn.Module:
    """Build one layer of a tower. `dropout`: rate of the layers that drop units."""
    layer, width = placed.layer, placed.reads[0]
    if isinstance(layer, arch.Drop):
        return layers.HashDropout(clock, placed.number, tower * width, dropout, scaled=layer.scaled)
    if isinstance(layer, arch.Weighted):
        return _weighted(layer, width)
    return _without_weights(layer, width)


def _weighted(layer: arch.Weighted, width: int) -> nn.Module:
    match layer:
        case arch.Conv(table=None):
            return nn.Conv2d(width, layer.maps, layer.window, stride=layer.stride, padding=layer.padding)
        case arch.Conv():
            return layers.TableConv2d(layer.table or (), width, layer.window)
        case arch.Full():
            return nn.Linear(width, layer.units)
        case arch.Subsample():
            return layers.SubsampleSum(width, layer.window)
    raise TypeError(f"{layer}: no module for this layer")


def _without_weights(layer: arch.Layer, width: int) -> nn.Module:
    match layer:
        case arch.Activation():
            return _FUNCTIONS[layer.kind]()
        case arch.Pool(kind="max"):
            return nn.MaxPool2d(layer.window, layer.stride, ceil_mode=layer.ceil)
        case arch.Pool():
            return nn.AvgPool2d(layer.window, layer.stride, ceil_mode=layer.ceil)
        case arch.PoolTo():
            return nn.AdaptiveAvgPool2d(layer.px)
        case arch.NormAcrossMaps():
            return layers.LocalResponseNorm(width, layer.size, layer.alpha, layer.beta, layer.k)
        case arch.NormInMap():
            return layers.SameMapNorm(layer.size, layer.alpha, layer.beta)
        case arch.PadEnd():
            return nn.ZeroPad2d((0, layer.px, 0, layer.px))
        case arch.PadTo():
            return layers.CentreIn(layer.px)
        case arch.Flatten():
            return nn.Flatten()
    raise TypeError(f"{layer}: no module for this layer")


class Network(nn.Module):
    """(n, channels, px, px) images -> (n, classes) scores.

    The scale of the images (0-255 minus the mean, or of unit variance) is the recipe's business. A network of one
    channel reads the mean of colour images' channels. Raises InputError for images of a size it does not take.
    """

    def __init__(self, settings: NetSettings) -> None:
        super().__init__()
        self.settings = settings
        self.architecture: Architecture = architecture_of(settings)
        self.clock = StepClock()

    def forward(self, images: Tensor) -> Tensor:
        """Return the class scores."""
        for side in images.shape[2:]:
            self.architecture.check_px(side)
        if self.settings.input_channels == 1 and images.shape[1] > 1:
            images = images.mean(dim=1, keepdim=True)
        return self.scores(images)

    def scores(self, images: Tensor) -> Tensor:
        """Return the class scores of images whose shape is right."""
        raise NotImplementedError

    def weighted(self) -> dict[str, Sequence[nn.Module | None]]:
        """Return, by name and in order, each layer with parameters: one module a tower, None if it lives elsewhere."""
        raise NotImplementedError

    def placed(self, tower: int = 0) -> tuple[Placed, ...]:
        """Return the layers of one tower in their places."""
        settings, px = self.settings, self.architecture.input_px[0]
        return trace(self.architecture, px=px, channels=settings.input_channels, classes=settings.classes, tower=tower)


class Tower(nn.Module):
    """One tower: its layers, by name, and the stages that it is alone in."""

    def __init__(self, placed: Iterable[Placed], tower: int, clock: StepClock, dropout: float) -> None:
        super().__init__()
        self.index = tower
        self._stages: list[list[str]] = [[]]
        self.all_gathers: set[int] = set()
        self.first_full: int | None = None
        for place in placed:
            if isinstance(place.layer, AllGather):
                self.all_gathers.add(len(self._stages))
                self._stages.append([])
            else:
                if isinstance(place.layer, Flatten):
                    if self._stages[-1]:
                        self._stages.append([])
                    self.first_full = len(self._stages) - 1
                self.add_module(place.name, module_of(place, clock, tower=tower, dropout=dropout))
                self._stages[-1].append(place.name)

    @property
    def stages(self) -> int:
        """Count the stages."""
        return len(self._stages)

    def run(self, stage: int, values: Tensor) -> Tensor:
        """Pass values through one stage."""
        for name in self._stages[stage]:
            values = getattr(self, name)(values)
        return values


class TowerNetwork(Network):
    """A network of one tower or more. `towers`: which live here, all unless said; `exchange`: how they meet."""

    def __init__(
        self, settings: NetSettings, towers: Sequence[int] | None = None, exchange: Exchange | None = None
    ) -> None:
        super().__init__(settings)
        here = range(self.architecture.towers) if towers is None else towers
        self.towers = nn.ModuleDict({str(t): Tower(self.placed(t), t, self.clock, settings.dropout) for t in here})
        self.exchange = exchange or SameDevice()

    def scores(self, images: Tensor) -> Tensor:
        """Return the class scores of all towers."""
        towers = self.local_towers()
        values = [images] * len(towers)
        for stage in range(towers[0].stages):
            if stage in towers[0].all_gathers:
                values = self.exchange.all_gather(values)
            if stage == towers[0].first_full:
                values = self.exchange.all_rows(values)
            values = [tower.run(stage, read) for tower, read in zip(towers, values, strict=True)]
        return self.exchange.all_scores(values)

    def local_towers(self) -> list[Tower]:
        """Return the towers held here, in order."""
        return [tower for tower in self.towers.values() if isinstance(tower, Tower)]

    def weighted(self) -> dict[str, Sequence[nn.Module | None]]:
        """Return each layer with parameters: one module a tower, None if it lives elsewhere."""
        local = {tower.index: tower for tower in self.local_towers()}
        return {
            name: [getattr(local[t], name) if t in local else None for t in range(self.architecture.towers)]
            for name in weighted_names(self.architecture)
        }


class Column(Network):
    """A column whose parameters are called `features.0.weight` to `classifier.6.bias`.

    The numbers are places in the architecture: before the pooling to a fixed size, and after it.
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
        (maps,) = self.exchange.all_rows([maps])
        scores: Tensor = self.classifier(maps.flatten(1))
        return scores

    def weighted(self) -> dict[str, Sequence[nn.Module | None]]:
        """Return each layer with parameters, under the names of the architecture."""
        return {name: [self._by_name[name]] for name in weighted_names(self.architecture)}


def build_network(
    settings: NetSettings, towers: Sequence[int] | None = None, exchange: Exchange | None = None
) -> Network:
    """Build a network, its parameters not yet initialised.

    `towers`: which of its towers live in this process, all unless said; `exchange`: how they reach the others.
    """
    if settings.arch == OWT.name:
        return Column(settings, exchange)
    return TowerNetwork(settings, towers, exchange)


def parameter_count(net: nn.Module) -> int:
    """Count the parameters held here."""
    return sum(p.numel() for p in net.parameters())
