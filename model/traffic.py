"""What a layout costs in communication, counted from the drawing: bytes that each process sends in a training step."""

from dataclasses import dataclass
from math import prod

from alexnet.model.networks.drawing import Meet, Weighted
from alexnet.model.networks.settings import NetSettings, drawing_of
from alexnet.model.networks.trace import class_range, trace
from alexnet.model.placement import Placement

_LABEL_BYTES = 8
_GRADIENT_BYTES = 4


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """Hold the bytes that the first process sends a step.

    `towers`: values between towers, and their gradients. `images`: crops and labels that others decode, too.
    `gradients`: of replicas, as a ring adds them up.
    """

    towers: int
    images: int
    gradients: int

    @property
    def total(self) -> int:
        """Add them up."""
        return self.towers + self.images + self.gradients


def traffic(
    settings: NetSettings, placement: Placement, *, batch_images: int, crop_px: int, parameters: int
) -> Traffic:
    """Count the bytes of one step. `parameters`: held by one process."""
    layout, value_bytes = placement.layout, 2 if placement.bf16 else 4
    others, rows = layout.group_ranks - 1, len(layout.group_part(batch_images))
    values = 0
    if others:
        px, channels = drawing_of(settings).input_px[0], settings.input_channels
        placed = trace(drawing_of(settings), px=px, channels=channels, classes=settings.classes)
        met = sum(prod(place.reads) for place in placed if isinstance(place.layer, Meet))
        scores = len(class_range(settings.classes, drawing_of(settings).towers, 0))
        values = (2 * met + scores) * rows * value_bytes * others  # forwards and backwards; scores forwards only
    image_bytes = 3 * crop_px**2 + _LABEL_BYTES
    return Traffic(
        towers=values,
        images=len(layout.part(batch_images, layout.rank)) * image_bytes * others,
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
    parts = [
        f"{name} {count / 1e6:,.1f} MB"
        for name, count in (("towers", sent.towers), ("images", sent.images), ("gradients", sent.gradients))
        if count
    ]
    return (
        f"{layout.ranks} processes over {backend}; {_holders(placement, settings)}; "
        f"each sends {sent.total / 1e6:,.1f} MB a step ({', '.join(parts)})"
    )


def _holders(placement: Placement, settings: NetSettings) -> str:
    layout, drawing = placement.layout, drawing_of(settings)
    if layout.group_ranks == 1:
        return f"each holds the whole network and computes 1/{layout.groups} of a batch"
    weighted = [layer.name for layer in drawing.layers if isinstance(layer, Weighted)]
    share = f"1/{layout.group_ranks} of {weighted[0]} to {weighted[-1]}"
    holders = []
    for tower in range(layout.group_ranks):
        ranks = [layout.members(group)[tower] for group in range(layout.groups)]
        holders.append(f"rank{'s' * (len(ranks) > 1)} {', '.join(map(str, ranks))} tower {tower + 1}")
    batch = f", each pair 1/{layout.groups} of a batch" if layout.groups > 1 else ""
    return f"{', '.join(holders)} ({share}, meeting at {', '.join(_meetings(settings))}){batch}"


def _meetings(settings: NetSettings) -> list[str]:
    """Return the names of the layers that read every tower."""
    layers = drawing_of(settings).layers
    after = (layers[place + 1 :] for place, layer in enumerate(layers) if isinstance(layer, Meet))
    return [next(layer.name for layer in rest if isinstance(layer, Weighted)) for rest in after]
