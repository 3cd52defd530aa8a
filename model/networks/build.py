"""From an architecture to a `torch.nn.Module`: one of a single tower or of several, all of them here or some.

A tower is on its own but where its list of layers says all-gather: there an `Exchange` gives it the values of all
towers, and before the fully connected layers those of all images. A process may hold every tower or one: the definition
is the same.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from alexnet.model import layers
from alexnet.model.exchange import Exchange, SameDevice
from alexnet.model.networks import architecture as described
from alexnet.model.networks.architecture import weighted_names
from alexnet.model.networks.figures import Placed, trace
from alexnet.model.networks.settings import NetSettings, architecture_of

_FUNCTIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh, "scaled-tanh": layers.ScaledTanh}


class Network(nn.Module):
    """(n, channels, px, px) images -> (n, classes) scores; its parameters are not yet initialised.

    The scale of the images (0-255 minus the mean, or of unit variance) is the recipe's business. A network of one
    channel reads the mean of colour images' channels. Raises InputError for images of a size it does not take.

    `towers`: which of its towers live in this process, all unless said; `exchange`: how they reach the others.
    """

    def __init__(
        self, settings: NetSettings, towers: Sequence[int] | None = None, exchange: Exchange | None = None
    ) -> None:
        super().__init__()
        self.settings = settings
        self.architecture = architecture_of(settings)
        self.clock = layers.StepClock()
        self.exchange = exchange or SameDevice()
        self._placed = trace(settings)
        self._towers: dict[int, dict[str, nn.Module]] = {}
        for tower in range(self.architecture.towers) if towers is None else towers:
            placed = trace(settings, tower)
            paths = [f"towers.{tower}.{place.name}" for place in placed]
            if self.architecture.torchvision:
                paths = _torchvisions_paths(placed)
            modules = [module_of(place, self.clock, tower=tower, dropout=settings.dropout) for place in placed]
            self._towers[tower] = {place.name: module for place, module in zip(placed, modules, strict=True)}
            for path, module in zip(paths, modules, strict=True):
                _register(self, path, module)

    def forward(self, images: Tensor) -> Tensor:
        """Return the class scores of all towers."""
        for side in images.shape[2:]:
            self.architecture.check_px(side)
        if self.settings.input_channels == 1 and images.shape[1] > 1:
            images = images.mean(dim=1, keepdim=True)
        values = [images] * len(self._towers)
        for place in self._placed:
            if isinstance(place.layer, described.AllGather):
                values = self.exchange.all_gather(values)
            elif isinstance(place.layer, described.Flatten):
                values = self.exchange.all_rows(values)
            towers = zip(self._towers.values(), values, strict=True)
            values = [tower[place.name](value) for tower, value in towers]
        return self.exchange.all_scores(values)

    def local_towers(self) -> list[int]:
        """Return the numbers of the towers that live here."""
        return list(self._towers)

    def layer(self, name: str) -> list[nn.Module]:
        """Return the modules of a layer: one of each tower that lives here."""
        return [tower[name] for tower in self._towers.values()]

    def weighted(self) -> dict[str, Sequence[nn.Module | None]]:
        """Return, by name and in order, each layer with parameters: one module a tower, None if it lives elsewhere."""
        towers = [self._towers.get(tower, {}) for tower in range(self.architecture.towers)]
        return {name: [tower.get(name) for tower in towers] for name in weighted_names(self.architecture)}


def parameter_count(net: nn.Module) -> int:
    """Count the parameters held here."""
    return sum(p.numel() for p in net.parameters())


def _torchvisions_paths(placed: Sequence[Placed]) -> list[str]:
    """Return what torchvision calls the layers: two numbered blocks, and the pooling to a fixed size in between."""
    paths: list[str] = []
    block, first = "features", 0
    for number, place in enumerate(placed):
        if isinstance(place.layer, described.PoolTo | described.Flatten):
            paths.append("avgpool" if isinstance(place.layer, described.PoolTo) else "flatten")
            block, first = "classifier", number + 1
        else:
            paths.append(f"{block}.{number - first}")
    return paths


def _register(net: nn.Module, path: str, module: nn.Module) -> None:
    """Add a module under a name with dots, below modules that are made as they are needed."""
    *above, name = path.split(".")
    for part in above:
        if part not in dict(net.named_children()):
            net.add_module(part, nn.Module())
        net = net.get_submodule(part)
    net.add_module(name, module)


def module_of(placed: Placed, clock: layers.StepClock, *, tower: int, dropout: float) -> nn.Module:
    """Build one layer of a tower. `dropout`: rate of the layers that drop units."""
    layer, width = placed.layer, placed.reads[0]
    match layer:
        case described.Drop():
            return layers.HashDropout(clock, placed.number, tower * width, dropout, scaled=layer.scaled)
        case described.NormAcrossMaps():
            return layers.LocalResponseNorm(width, layer.size, layer.alpha, layer.beta, layer.k)
        case described.NormInMap():
            return layers.SameMapNorm(layer.size, layer.alpha, layer.beta)
        case described.Activation():
            return _FUNCTIONS[layer.kind]()
        case described.Weighted():
            return _weighted(layer, width)
    return _without_weights(layer)


def _weighted(layer: described.Weighted, width: int) -> nn.Module:
    match layer:
        case described.Conv(table=None):
            return nn.Conv2d(width, layer.maps, layer.window, stride=layer.stride, padding=layer.padding)
        case described.Conv():
            return layers.TableConv2d(layer.table or (), width, layer.window)
        case described.Full():
            return nn.Linear(width, layer.units)
        case described.Subsample():
            return layers.SubsampleSum(width, layer.window)
    raise TypeError(f"{layer}: no module for this layer")


def _without_weights(layer: described.Layer) -> nn.Module:
    match layer:
        case described.Pool(kind="max"):
            return nn.MaxPool2d(layer.window, layer.stride, ceil_mode=layer.ceil)
        case described.Pool():
            return nn.AvgPool2d(layer.window, layer.stride, ceil_mode=layer.ceil)
        case described.PoolTo():
            return layers.AveragePoolTo(layer.px)
        case described.PadEnd():
            return nn.ZeroPad2d((0, layer.px, 0, layer.px))
        case described.PadTo():
            return layers.CentreIn(layer.px)
        case described.Flatten():
            return nn.Flatten()
        case described.AllGather():
            return nn.Identity()
    raise TypeError(f"{layer}: no module for this layer")
