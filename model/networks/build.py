"""From settings to a network."""

from collections.abc import Sequence

from torch import nn

from alexnet.model.exchange import Exchange
from alexnet.model.networks.alexnet_owt import OWT
from alexnet.model.networks.column import Column
from alexnet.model.networks.network import Network
from alexnet.model.networks.settings import NetSettings
from alexnet.model.networks.towers import TowerNetwork


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
