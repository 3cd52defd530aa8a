"""The best kernel of each layer, measured by itself: forward and backward, in the ways that the layer can be computed.

The sum over layers is what a step would take if each used its best way and nothing came between; memory order is not
changed back and forth for free in a real network, so that this is a limit, too. Convolutions and products are tried a
tower at a time and for all towers at once, in both memory orders; the first also as space to depth: windows of 4x4
pixels become channels, and 11x11 every 4 becomes 3x3.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alexnet.model.layers import StepClock
from alexnet.model.networks.architecture import (
    AllGather,
    Architecture,
    Conv,
    Flatten,
    Full,
    Layer,
    NormAcrossMaps,
    Placed,
    Weighted,
    trace,
)
from alexnet.model.networks.network import build_network, module_of
from alexnet.model.networks.settings import NetSettings, architecture_of
from alexnet.tools.bench.measuring.stages_seam import Stage, Work
from alexnet.tools.bench.networks.trainer_steps import synchronise

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
_GPU_CALLS = 10
_CHANNELS_LAST, _IN_ORDER = "channels-last", "NCHW"
UPDATE = "update"


@dataclass(frozen=True, kw_only=True)
class Way:
    """Hold one way to compute a layer: modules with an input and a gradient of the output each.

    `gradients`: none for what comes before the first weights, which has no backward pass.
    """

    name: str
    modules: tuple[nn.Module, ...]
    inputs: tuple[Tensor, ...]
    gradients: tuple[Tensor, ...]

    def run(self) -> None:
        """Go forward and backward."""
        outputs = [module(value) for module, value in zip(self.modules, self.inputs, strict=True)]
        for value in (*self.inputs, *(p for module in self.modules for p in module.parameters())):
            value.grad = None
        if self.gradients:
            torch.autograd.backward(outputs, self.gradients)


class SpaceToDepth(nn.Module):
    """A strided convolution as one without a stride on blocks of pixels; weights stay as they are."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv, self.block = conv, conv.stride[0]
        self.blocks = -(-conv.kernel_size[0] // self.block)  # of the window

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels, H, W) to (n, maps, H', W'), as the convolution does."""
        window, side = self.conv.kernel_size[0], x.shape[2]
        wanted = ((side - window) // self.block + self.blocks) * self.block
        more = self.blocks * self.block - window
        weight = F.pixel_unshuffle(F.pad(self.conv.weight, (0, more, 0, more)), self.block)
        grown = F.pad(x, (0, wanted - side, 0, wanted - side))
        return F.conv2d(F.pixel_unshuffle(grown, self.block), weight, self.conv.bias)


def layers(device: torch.device, options: dict[str, Any]) -> Stage:
    """Measure every way of every layer in turn; a pass over all of them counts as one batch."""
    torch.backends.cudnn.benchmark = True  # the fastest kernel for each shape, not the likeliest
    settings = NetSettings(arch=options["arch"], classes=int(options["classes"]))
    images, dtype = int(options["batch_images"]), _DTYPES[options["precision"]]
    ways = {name: tuple(found) for name, found in ways_of(settings, images, device, dtype).items()}
    update = _update(settings, device)
    seconds: dict[str, dict[str, list[float]]] = {name: {way.name: [] for way in found} for name, found in ways.items()}
    seconds[UPDATE] = {"fused": []}

    def work() -> Work:
        while True:
            for name, found in ways.items():
                for way in found:
                    seconds[name][way.name].append(_timed(way.run, device))
            seconds[UPDATE]["fused"].append(_timed(update, device))
            yield images, 1

    def more() -> dict[str, Any]:
        """Tell the least seconds of each way in this round, and forget them: what it can do is asked for."""
        told = {name: {way: min(s) for way, s in of.items() if s} for name, of in seconds.items()}
        for of in seconds.values():
            for values in of.values():
                values.clear()
        return {"layers_s": told}

    return Stage(work=work, settings="each layer by itself, in every way", least_batches=1, more=more)


def ways_of(settings: NetSettings, images: int, device: torch.device, dtype: torch.dtype) -> dict[str, list[Way]]:
    """Return the ways to compute each layer of a batch, by the layer's name."""
    drawing = architecture_of(settings)
    px, channels = drawing.input_px[0], settings.input_channels
    placed = trace(drawing, px=px, channels=channels, classes=settings.classes)
    found: dict[str, list[Way]] = {}
    shared = True  # towers read the same values: the image, or what they gathered
    for place in placed:
        if not isinstance(place.layer, AllGather | Flatten):
            first = place.number == (1 if isinstance(place.layer, Weighted) else 0)
            make = _Maker(drawing, images, device, dtype, needs_gradient=not first)
            found[place.name] = [way for way in make.ways(place, shared=shared, first=first) if way]
        shared = isinstance(place.layer, AllGather) or (shared and not isinstance(place.layer, Weighted))
    return found


class _Maker:
    """Make the ways of one layer."""

    def __init__(
        self, drawing: Architecture, images: int, device: torch.device, dtype: torch.dtype, *, needs_gradient: bool
    ) -> None:
        self._drawing, self._images, self._device, self._dtype = drawing, images, device, dtype
        self._needs_gradient = needs_gradient

    def ways(self, place: Placed, *, shared: bool, first: bool) -> list[Way | None]:
        """Return every way; `shared`: all towers read the same."""
        layer, towers = place.layer, self._drawing.towers
        orders = (_CHANNELS_LAST, _IN_ORDER) if len(place.reads) == 3 else (_IN_ORDER,)
        ways = []
        for order in orders:
            one_each = [self._module(place) for _ in range(towers)]
            ways.append(self._way(f"a tower at a time, {order}", one_each, place.reads, order, shared=shared))
            if towers > 1 and (whole := self._of_all(layer, place, shared=shared)) is not None:
                reads = place.reads if shared else (towers * place.reads[0], *place.reads[1:])
                ways.append(self._way(f"all towers at once, {order}", [whole], reads, order))
        if isinstance(layer, NormAcrossMaps):
            norm = nn.LocalResponseNorm(layer.size, layer.alpha * layer.size, layer.beta, layer.k)
            ways.append(self._way("PyTorch's, NCHW", [norm] * towers, place.reads, _IN_ORDER))
        if first and isinstance(layer, Conv) and layer.stride > 1 and not layer.padding:
            blocks = [SpaceToDepth(self._conv(place.reads[0], layer.maps * towers, layer, groups=1))]
            ways.append(self._way("space to depth, channels-last", blocks, place.reads, _CHANNELS_LAST))
        return ways

    def _of_all(self, layer: Layer, place: Placed, *, shared: bool) -> nn.Module | None:
        """Return one module that does the work of all towers; None where there is none, or no difference."""
        towers = self._drawing.towers
        if isinstance(layer, Conv) and layer.table is None:
            channels = place.reads[0] * (1 if shared else towers)
            return self._conv(channels, layer.maps * towers, layer, groups=1 if shared else towers)
        if isinstance(layer, Full) and shared:
            return nn.Linear(place.reads[0], layer.units * towers)
        return None

    def _conv(self, channels: int, maps: int, layer: Conv, *, groups: int) -> nn.Conv2d:
        return nn.Conv2d(channels, maps, layer.window, stride=layer.stride, padding=layer.padding, groups=groups)

    def _module(self, place: Placed) -> nn.Module:
        return module_of(place, StepClock(), tower=0, dropout=0.5)

    def _way(
        self, name: str, modules: Sequence[nn.Module], reads: tuple[int, ...], order: str, *, shared: bool = False
    ) -> Way | None:
        """Return a way; None where PyTorch has no such operator in this type."""
        memory = torch.channels_last if order == _CHANNELS_LAST else torch.contiguous_format
        moved = [_moved(module, self._device, self._dtype, memory) for module in modules]
        inputs: list[Tensor] = []
        for _ in moved:
            if inputs and shared:
                inputs.append(inputs[0])
                continue
            value = torch.randn(self._images, *reads, device=self._device).to(self._dtype)
            if value.dim() == 4:
                value = value.contiguous(memory_format=memory)
            inputs.append(value.requires_grad_(self._needs_gradient))
        try:
            outputs = [module(value) for module, value in zip(moved, inputs, strict=True)]
        except NotImplementedError:
            return None
        gradients = tuple(torch.ones_like(output) for output in outputs if output.requires_grad)
        return Way(name=name, modules=tuple(moved), inputs=tuple(inputs), gradients=gradients)


def _moved(module: nn.Module, device: torch.device, dtype: torch.dtype, memory: torch.memory_format) -> nn.Module:
    module.to(device)
    for parameter in module.parameters():
        parameter.data = parameter.data.to(dtype)
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=memory)
    for name, buffer in module.named_buffers():  # the response norm's band; the clock's integers stay
        if buffer.is_floating_point():
            module.get_submodule(name.rpartition(".")[0])._buffers[name.rpartition(".")[2]] = buffer.to(dtype)
    return module


def _update(settings: NetSettings, device: torch.device) -> Callable[[], None]:
    """Return the fused update of all parameters, in float32."""
    with torch.device("meta"):
        shapes = [tuple(p.shape) for p in build_network(settings).parameters()]
    parameters = [nn.Parameter(torch.zeros(shape, device=device)) for shape in shapes]
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    sgd = torch.optim.SGD(parameters, lr=0.01, momentum=0.9, weight_decay=5e-4, fused=True)

    def update() -> None:
        sgd.step()

    return update


def _timed(work: Callable[[], None], device: torch.device) -> float:
    """Return the seconds of one call: on a GPU by its own clock, over ten calls."""
    if device.type != "cuda":
        begin = time.perf_counter()
        work()
        return time.perf_counter() - begin
    begin_event, end_event = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin_event.record()
    for _ in range(_GPU_CALLS):
        work()
    end_event.record()
    synchronise(device)
    return float(begin_event.elapsed_time(end_event)) / 1e3 / _GPU_CALLS
