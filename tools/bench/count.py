"""Kernels and bytes of a training step on a GPU, counted on any machine: `alexnet-bench model --count`.

A step runs on tensors without memory, and each operator is counted as what a GPU launches for it, at the least that it
reads and writes. Which operators there are does not depend on the device, as a test shows; how long they take does.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

import click
import msgspec
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from alexnet.model.metrics import EVERY_STEP_UNTIL
from alexnet.model.networks.build import Network
from alexnet.model.placement import Placement, Precision
from alexnet.model.trainer import Trainer
from alexnet.tools.bench.gpu_steps import LAYERS, step_of
from alexnet.tools.bench.networks import Task
from alexnet.tools.run.assembly import trainer_of
from alexnet.tools.run.settings import load_recipe

STEPS = {"fused": "fused kernels, one CUDA graph", "layers": "layer by layer"}
"""The steps that are counted: what `alexnet-train` takes on a GPU, and what it falls back to."""

_LARGE_BYTES = 10e6
_BANDWIDTHS = {"H200": 4.3e12, "H100": 3.0e12}  # of a memory copy, bytes a second; estimated, not measured here
_OVERWRITTEN = {
    "aten.fill_": "self", "aten.copy_": "self", "aten.zero_": "self", "aten._foreach_copy_": "self",
    "alexnet.space_to_depth": "out", "alexnet.sgd_": "working",
}  # fmt: skip
"""Arguments that are written and not read, beside those of operators that end in `.out`."""


class Kernel(NamedTuple):
    """Say what one launch reads and writes, at least. `fp32`: the bytes of the largest fp32 tensor it writes."""

    operator: str
    bytes: int
    fp32: int


@dataclass(frozen=True, kw_only=True)
class Operator:
    """Add up the kernels of one operator. `large_fp32`: of them, those that write more than 10 MB of fp32."""

    name: str
    kernels: int
    bytes: int
    large_fp32: int


@dataclass(frozen=True, kw_only=True)
class StepCount:
    """Hold what one step of a recipe launches and moves. `step`: of `STEPS`."""

    recipe: str
    precision: Precision
    batch_images: int
    step: str
    kernels: int
    bytes: int
    operators: tuple[Operator, ...]


class Counter(TorchDispatchMode):
    """Note the kernels of all that runs inside."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.kernels: list[Kernel] = []

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operator and note what it launches."""
        fused = "_fused_" in str(operator)  # has no version without memory; it gives nothing
        outputs = None if fused else operator(*args, **(kwargs or {}))
        if operator.namespace in ("aten", "alexnet"):
            self.kernels += _kernels(operator, args, kwargs or {}, list(_tensors(outputs)))
        return outputs


def count_step(recipe: str, precision: Precision, batch_images: int, step: str, device: str = "cpu") -> StepCount:
    """Count a step past the first ones, whose gradient is looked at. `device`: that tensors without memory are of."""
    what: dict[str, Any] = {"recipe": recipe, "precision": precision, "batch_images": batch_images}
    task = Task(arch=load_recipe(recipe).net.arch, way=step if step in LAYERS else "", **what)
    counter = Counter()
    with FakeTensorMode(), Counter():
        take = prepared_step(task, step, device)
        take()
        with counter:
            take()
    operators = tuple(sorted(_added_up(counter.kernels), key=lambda operator: -operator.bytes))
    kernels, moved = len(counter.kernels), sum(kernel.bytes for kernel in counter.kernels)
    return StepCount(step=step, kernels=kernels, bytes=moved, operators=operators, **what)


def prepared_step(task: Task, step: str, device: str) -> Callable[[], None]:
    """Return what takes steps of a task on one batch; to be called, as what it returns, where tensors are fake."""
    settings = task.settings()
    placement = Placement(device=torch.device(device), bf16=task.precision == "bf16", why="counted")
    with torch.device(device):
        net = _channels_last(Network(settings.net))
    trainer = trainer_of(net, settings, placement, EVERY_STEP_UNTIL)
    trainer.step = EVERY_STEP_UNTIL
    kind = torch.bfloat16 if placement.bf16 else torch.float32
    px = settings.augment.crop_px
    shape = (task.batch_images, 3, px, px)
    images = torch.empty(shape, dtype=kind, device=device).contiguous(memory_format=torch.channels_last)
    labels = torch.zeros(task.batch_images, dtype=torch.int64, device=device)
    return _of_way(trainer, step, images, labels, settings.optim.lr)


def _of_way(trainer: Trainer, step: str, images: Tensor, labels: Tensor, rate: float) -> Callable[[], None]:
    if step == "layers":
        return lambda: (trainer.train_step(images, labels), None)[1]
    launched: Any = step_of(trainer, "launches", (images, labels), rate)

    def take() -> None:
        launched(images, labels.clone()).clone()  # a graph's labels are copied to where it reads them, and its loss out

    return take


def _channels_last(net: Network) -> Network:
    """Lay out weights as `Network.to` would, which parameters without memory do not go through."""
    for module in net.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if parameter.dim() == 4:
                lying = parameter.detach().contiguous(memory_format=torch.channels_last)
                setattr(module, name, nn.Parameter(lying))
    return net.train()


def _kernels(operator: Any, args: Sequence[Any], kwargs: dict[str, Any], outputs: list[Tensor]) -> list[Kernel]:
    """Return the launches of one operator: none of a view or of memory that is only reserved."""
    name = f"{operator.namespace}.{operator._schema.name.partition('::')[2]}"
    given = {argument.name: argument for argument in operator._schema.arguments}
    values = dict(zip(given, args, strict=False)) | kwargs
    if name == "aten.convolution_backward":
        return _of_convolution_backward(name, values, outputs)
    reads, writes = list[Tensor](), list[Tensor]()
    for argument, value in values.items():
        alias = given[argument].alias_info
        written = alias is not None and alias.is_write
        writes += _tensors(value) if written else ()
        only_written = written and (operator._overloadname == "out" or _OVERWRITTEN.get(name) == argument)
        reads += () if only_written else _tensors(value)
    if not operator._schema.is_mutable:
        there = {tensor.untyped_storage()._cdata for tensor in reads}
        writes = [output for output in outputs if output.untyped_storage()._cdata not in there]
    if not writes or name.startswith(("aten.empty", "aten.new_empty")):
        return []
    if name == "aten._foreach_copy_" and not _alike(places := values["self"], sources := values["src"]):
        return [_kernel(name, [source], [place]) for place, source in zip(places, sources, strict=True)]
    launches = [_kernel(name, reads, writes)]
    if name == "aten.convolution" and values["bias"] is not None:  # added by a kernel of its own after cuDNN's
        launches = [_kernel(name, reads[:2], writes), _kernel(f"{name}, bias", [*writes, values["bias"]], writes)]
    return launches


def _of_convolution_backward(name: str, values: dict[str, Any], outputs: Sequence[Tensor]) -> list[Kernel]:
    """Return a launch for each gradient: of the input, the weight and the bias."""
    given, value, weight = (values[argument] for argument in ("grad_output", "input", "weight"))
    reads = [given, weight], [given, value], [given]
    wanted = [read for read, mask in zip(reads, values["output_mask"], strict=True) if mask]
    return [_kernel(name, read, [output]) for read, output in zip(wanted, outputs, strict=True)]


def _alike(places: Sequence[Tensor], sources: Sequence[Tensor]) -> bool:
    """Say whether PyTorch treats lists of tensors in one launch: those that lie alike, without gaps."""
    pairs = zip(places, sources, strict=True)
    dense = all(torch.ops.aten.is_non_overlapping_and_dense(tensor) for tensor in (*places, *sources))
    kinds = {(place.dtype, source.dtype) for place, source in zip(places, sources, strict=True)}
    return dense and len(kinds) == 1 and all(place.stride() == source.stride() for place, source in pairs)


def _kernel(name: str, reads: Sequence[Tensor], writes: Sequence[Tensor]) -> Kernel:
    distinct = {(tensor.untyped_storage()._cdata, tensor.storage_offset(), tensor.shape): tensor for tensor in reads}
    moved = sum(_touched(tensor) for tensor in (*distinct.values(), *writes))
    return Kernel(name, moved, max((_touched(t) for t in writes if t.dtype == torch.float32), default=0))


def _touched(tensor: Tensor) -> int:
    """Return the bytes of a tensor's values; one that is repeated by its strides counts once."""
    sides = zip(tensor.shape, tensor.stride(), strict=True)
    return tensor.element_size() * prod(side if stride else min(side, 1) for side, stride in sides)


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _tensors(each)


def _added_up(kernels: Sequence[Kernel]) -> Iterator[Operator]:
    for name in dict.fromkeys(kernel.operator for kernel in kernels):
        own = [kernel for kernel in kernels if kernel.operator == name]
        large = sum(kernel.fp32 > _LARGE_BYTES for kernel in own)
        yield Operator(name=name, kernels=len(own), bytes=sum(kernel.bytes for kernel in own), large_fp32=large)


def print_counts(recipes: Sequence[str], precisions: Sequence[Precision], batches: Sequence[int]) -> bytes:
    """Count both steps of each recipe, precision and batch; print them, and return them as JSON."""
    counts = []
    for recipe, precision, batch_images in itertools.product(recipes, precisions or ("bf16",), batches or (128,)):
        for step in STEPS:
            counts.append(count_step(recipe, precision, batch_images, step))
            click.echo("\n".join(_lines(counts[-1])))
    return msgspec.json.format(msgspec.json.encode(counts))


def _lines(count: StepCount) -> Iterator[str]:
    times = [f"{1e3 * count.bytes / rate:.2f} ms on an {card}" for card, rate in _BANDWIDTHS.items()]
    yield (
        f"{count.recipe}, {count.precision}, batch {count.batch_images}, {STEPS[count.step]}: {count.kernels} kernels, "
        f"{count.bytes / 1e9:.2f} GB, which alone would take {' or '.join(times)} (estimated)"
    )
    yield f"  {'operator':<36}{'kernels':>8}{'MB':>10}  fp32 over 10 MB"
    for operator in count.operators:
        large = str(operator.large_fp32 or "")
        yield f"  {operator.name:<36}{operator.kernels:>8}{operator.bytes / 1e6:>10,.1f}  {large}".rstrip()
    yield ""
