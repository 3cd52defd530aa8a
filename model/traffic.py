"""What a layout costs in communication, counted from the drawing: bytes that each process sends in a training step."""

from dataclasses import dataclass
from math import prod

from alexnet.model.full_layers import divided_layers
from alexnet.model.networks.drawing import Full, Meet, Weighted
from alexnet.model.networks.figures import figures
from alexnet.model.networks.settings import NetSettings, drawing_of
from alexnet.model.networks.trace import Placed, class_range, trace
from alexnet.model.placement import Layout, Placement

_LABEL_BYTES = 8
_GRADIENT_BYTES = 4


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """Hold the bytes that the first process sends a step.

    `values`: of layers that others read, and their gradients. `images`: crops and labels that others decode, too.
    `gradients`: of replicas, as a ring adds them up.
    """

    values: int
    images: int
    gradients: int

    @property
    def total(self) -> int:
        """Add them up."""
        return self.values + self.images + self.gradients


def traffic(
    settings: NetSettings, placement: Placement, *, batch_images: int, crop_px: int, parameters: int
) -> Traffic:
    """Count the bytes of one step. `parameters`: held by one process."""
    layout, value_bytes = placement.layout, 2 if placement.bf16 else 4
    others, part = layout.group_ranks - 1, len(layout.part(batch_images, layout.rank))
    if layout.owt:
        return Traffic(
            values=_units(settings, layout, part, batch_images) * value_bytes * others,
            images=part * _LABEL_BYTES * others,
            gradients=2 * others * _replicated(settings, layout) * _GRADIENT_BYTES // layout.ranks,
        )
    values = 0
    if others:
        met = sum(prod(place.reads) for place in _placed(settings) if isinstance(place.layer, Meet))
        scores = len(class_range(settings.classes, drawing_of(settings).towers, 0))
        # Forwards and backwards; scores forwards only.
        values = (2 * met + scores) * len(layout.group_part(batch_images)) * value_bytes * others
    return Traffic(
        values=values,
        images=part * (3 * crop_px**2 + _LABEL_BYTES) * others,
        gradients=2 * (layout.groups - 1) * parameters * _GRADIENT_BYTES // layout.groups,
    )


def describe_layout(
    settings: NetSettings, placement: Placement, *, batch_images: int, crop_px: int, parameters: int
) -> str:
    """Say who holds what and what a step sends, in one line."""
    layout = placement.layout
    drawing = drawing_of(settings)
    if layout.ranks == 1:
        held = "the network" if drawing.towers == 1 else f"{drawing.towers} towers"
        return f"one process holds {held}"
    backend = "NCCL" if placement.device.type == "cuda" else "gloo"
    sent = traffic(settings, placement, batch_images=batch_images, crop_px=crop_px, parameters=parameters)
    kinds = (("units" if layout.owt else "towers", sent.values), ("images", sent.images), ("gradients", sent.gradients))
    parts = ", ".join(f"{name} {count / 1e6:,.1f} MB" for name, count in kinds if round(count / 1e6, 1))
    return (
        f"{layout.ranks} processes over {backend}; {_holders(placement, settings)}; "
        f"each sends {sent.total / 1e6:,.1f} MB a step{f' ({parts})' if parts else ''}"
    )


def _placed(settings: NetSettings) -> tuple[Placed, ...]:
    drawing = drawing_of(settings)
    return trace(drawing, px=drawing.input_px[0], channels=settings.input_channels, classes=settings.classes)


def _units(settings: NetSettings, layout: Layout, part: int, batch_images: int) -> int:
    """Count the values that a rank sends to each other one where fully connected layers are divided.

    The maps of its images, there and, as gradients, back; of every divided layer its units for the whole batch, there
    and back; back not of the last one.
    """
    divided = divided_layers(settings, layout.ranks)
    places = [place for place in _placed(settings) if isinstance(place.layer, Full)]
    units = {
        place.name: drawing_of(settings).towers * place.gives[0] // layout.ranks
        for place in places
        if place.name in divided
    }
    return 2 * part * prod(places[0].reads) + batch_images * (2 * sum(units.values()) - units[divided[-1]])


def _replicated(settings: NetSettings, layout: Layout) -> int:
    """Count the parameters that every rank has where fully connected layers are divided."""
    drawing, divided = drawing_of(settings), divided_layers(settings, layout.ranks)
    px, channels = drawing.input_px[0], settings.input_channels
    rows = figures(drawing, px=px, channels=channels, classes=settings.classes)
    return sum(row.parameters for row in rows if row.name not in divided)


def _holders(placement: Placement, settings: NetSettings) -> str:
    layout, drawing = placement.layout, drawing_of(settings)
    weighted = [layer.name for layer in drawing.layers if isinstance(layer, Weighted)]
    if layout.owt:
        divided = divided_layers(settings, layout.ranks)
        whole = [name for name in weighted if name not in divided]
        return (
            f"each convolves 1/{layout.ranks} of a batch with all of {_listed(whole)} and has 1/{layout.ranks} of the "
            f"units of {_listed(divided)} for the whole batch"
        )
    if layout.group_ranks == 1:
        return f"each holds the whole network and computes 1/{layout.groups} of a batch"
    share = f"1/{layout.group_ranks} of {weighted[0]} to {weighted[-1]}"
    holders = []
    for tower in range(layout.group_ranks):
        ranks = [layout.members(group)[tower] for group in range(layout.groups)]
        holders.append(f"rank{'s' * (len(ranks) > 1)} {', '.join(map(str, ranks))} tower {tower + 1}")
    batch = f", each pair 1/{layout.groups} of a batch" if layout.groups > 1 else ""
    return f"{', '.join(holders)} ({share}, meeting at {', '.join(_meetings(settings))}){batch}"


def _listed(names: list[str]) -> str:
    return ", ".join(names)


def _meetings(settings: NetSettings) -> list[str]:
    """Return the names of the layers that read every tower."""
    layers = drawing_of(settings).layers
    after = (layers[place + 1 :] for place, layer in enumerate(layers) if isinstance(layer, Meet))
    return [next(layer.name for layer in rest if isinstance(layer, Weighted)) for rest in after]
