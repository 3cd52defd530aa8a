"""A process of its own, in which tensors without memory are a GPU's: print, as JSON, what each step runs and breaks.

usage: steps.py LIBRARY; the library that device.cpp is compiled to has to be loaded before torch.
"""

import ctypes
import itertools
import os
import sys
from typing import Any

ctypes.CDLL(sys.argv[1])

import msgspec  # noqa: E402
import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from torch import Tensor  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

from alexnet.tools.bench import count  # noqa: E402
from alexnet.tools.bench.count import STEPS, prepared_step  # noqa: E402
from alexnet.tools.run.settings import load_recipe  # noqa: E402
from alexnet.tools.settings import recipe_names  # noqa: E402

IMAGES = 128
WAITS = {"_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal", "unique_dim", "_unique2"}
READS_PLANES = ("convolution", "max_pool2d", "avg_pool2d", "_adaptive_avg_pool2d", "conv_epilogue")
"""Operators whose images and gradients lie channels-last; not pooling's gradient, which comes as it was flattened."""
FAULTS = {
    "waits": lambda x: x * float(x.detach().sum()),
    "cpu tensor": lambda x: x + torch.zeros(x.shape),
    "cpu index": lambda x: x[torch.arange(len(x))],
    "channels first": lambda x: x.contiguous(),
}


class Watch(TorchDispatchMode):
    """Note what a step on a GPU must not do."""

    found: list[str]

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found = []

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = operator._schema.name.partition("::")[2]
        if name in WAITS:
            self.found.append(f"waits: {name}")
        given = torch.utils._pytree.tree_leaves((args, kwargs))
        tensors = [value for value in given if isinstance(value, Tensor)]
        if any(tensor.device.type != "cuda" for tensor in tensors):
            self.found.append(f"mixed devices: {name}")
        pooled_back = name.endswith("_backward") and "pool2d" in name
        if name.startswith(READS_PLANES) and not pooled_back and any(is_channels_first(tensor) for tensor in tensors):
            self.found.append(f"channels first: {name}")
        return operator(*args, **(kwargs or {}))


def is_channels_first(tensor: Tensor) -> bool:
    planes = tensor.dim() == 4 and len(tensor) == IMAGES
    return planes and not tensor.is_contiguous(memory_format=torch.channels_last)


def walked(recipe: str, step: str) -> dict[str, Any]:
    watch = Watch()

    def watched(*args: Any) -> Any:
        take = prepared_step(*args)

        def take_watched() -> None:
            with watch:
                take()

        return take_watched

    count.prepared_step = watched  # type: ignore[assignment]
    try:
        counted = count.count_step(recipe, "bf16", IMAGES, step, "cuda")
    except Exception as error:  # of FakeTensorMode: what it refuses has many classes
        return {"found": [*watch.found, f"{type(error).__name__}: {str(error)[:200]}"]}
    return {"found": watch.found, "count": counted}


def faulty(recipe: str, step: str, fault: Any) -> list[str]:
    """Walk through a step whose second convolution is given something wrong."""
    plain, calls = F.conv2d, itertools.count()
    F.conv2d = lambda x, *args, **kwargs: plain(fault(x) if next(calls) == 1 else x, *args, **kwargs)  # type: ignore[assignment]
    try:
        found: list[str] = walked(recipe, step)["found"]
        return found
    finally:
        F.conv2d = plain


def main() -> None:
    torch.cuda.amp.common.amp_definitely_not_available = lambda: False
    torch.cuda.is_bf16_supported = lambda *_args, **_kwargs: True
    alike = {(load_recipe(name).net, load_recipe(name).optim): name for name in reversed(recipe_names())}
    result = {
        "steps": {name: {step: walked(name, step) for step in STEPS} for name in alike.values()},
        "faults": {
            step: {what: faulty("cuda-convnet-cifar-80s", step, fault) for what, fault in FAULTS.items()}
            for step in STEPS
        },
    }
    sys.stdout.buffer.write(msgspec.json.encode(result))
    sys.stdout.flush()
    # The device's thread may still be dropping what the last backward pass held; where it waits for the interpreter's
    # lock as that ends, the process aborts ("terminate called without an active exception").
    os._exit(0)


main()
