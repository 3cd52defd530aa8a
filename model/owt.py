"""One weird trick: divide the fully connected layers by units (Krizhevsky 2014, arXiv 1404.5997).

Convolutions have most of the arithmetic and few parameters, so ranks share out the images; fully connected layers have
most of the parameters, so ranks share out the units, and all see the whole batch. Here a network that was built whole
is cut: a rank keeps its rows of the weights, and a hook joins the ranks' units after each layer. The rest of the
network, dropout included, sees what it would see in one process.
"""

from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor, nn

from alexnet.model.exchange import AcrossRanks
from alexnet.model.networks.architecture import Architecture, Full
from alexnet.model.networks.build import Network
from alexnet.model.networks.figures import class_range
from alexnet.model.networks.settings import NetSettings, architecture_of
from alexnet.shards.errors import InputError


def divided_layers(settings: NetSettings, ranks: int) -> list[str]:
    """Return the fully connected layers that so many ranks divide. Raises InputError if it is not worth a name.

    A layer is divided in equal parts or not at all; only the last, of a few classes, may be left whole: every rank has
    it then.
    """
    architecture = architecture_of(settings)
    layers = [layer for layer in architecture.layers if isinstance(layer, Full)]
    units = {layer.name: _units(layer, architecture, settings.classes) for layer in layers}
    uneven = [name for name, parts in units.items() if any(part % ranks for part in parts)]
    hidden = [name for name in list(units)[:-1] if name in uneven]
    if hidden or len(uneven) == len(units):
        name = (hidden or uneven or ["no layer"])[0]
        of = f"{units[name][0]:,} units of {name}" if name in units else f"{settings.arch}, which has none"
        raise InputError(f"--parallel owt: {ranks} processes cannot divide the {of}; --parallel data takes any number")
    return [name for name in units if name not in uneven]


def _units(layer: Full, architecture: Architecture, classes: int) -> list[int]:
    """Return the units of a layer in each tower."""
    if layer.units:
        return [layer.units] * architecture.towers
    return [len(class_range(classes, architecture.towers, tower)) for tower in range(architecture.towers)]


@torch.no_grad()
def divide(net: Network, group: dist.ProcessGroup) -> set[str]:
    """Cut the fully connected layers in place; return the names of the parameters that are a part from now on.

    To be done before an optimizer takes the parameters.
    """
    rank, ranks = dist.get_rank(group), dist.get_world_size(group)
    names = divided_layers(net.settings, ranks)
    modules = {name: [module for module in net.weighted()[name] if isinstance(module, nn.Linear)] for name in names}
    for name in names:
        for module in modules[name]:
            units = module.out_features // ranks
            join = AcrossRanks(group, [units] * ranks)
            mine = slice(rank * units, (rank + 1) * units)
            module.weight = nn.Parameter(module.weight[mine].clone())
            module.bias = nn.Parameter(module.bias[mine].clone())
            module.out_features = units
            # What reads the last of them is the same in every rank, and so are its gradients.
            module.register_forward_hook(_scores(join) if name == names[-1] else _hidden(join))
    divided = {id(parameter) for parts in modules.values() for module in parts for parameter in module.parameters()}
    return {name for name, parameter in net.named_parameters() if id(parameter) in divided}


def whole_full_parameters(net: Network, divided: set[str]) -> list[nn.Parameter]:
    """Return the parameters of fully connected layers that are not divided: every rank sees the whole batch in them."""
    full = {
        id(parameter)
        for modules in net.weighted().values()
        for module in modules
        if isinstance(module, nn.Linear)
        for parameter in module.parameters()
    }
    return [p for name, p in net.named_parameters() if id(p) in full and name not in divided]


Hook = Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]


def _hidden(join: AcrossRanks) -> Hook:
    return lambda _module, _values, units: join.all_gather([units])[0]


def _scores(join: AcrossRanks) -> Hook:
    return lambda _module, _values, units: join.all_scores([units])
