"""Compile kernels for sm_90 as their launchers would have it, on a machine without a GPU; print JSON of what became.

For each entry of `LAUNCHES`: the launching function is called with tensors of a CPU whose values nobody reads. Triton
takes types, constants, alignments and options from that very call, as on a GPU, compiles, and launches nothing.
"""

import json
import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget

from alexnet.model.gpu.conv_epilogue import Epilogue, conv_epilogue
from alexnet.model.gpu.elementwise import bias_relu_dropout, sgd_, space_to_depth
from alexnet.pipeline.normalize_torch import in_one_kernel
from alexnet.pipeline.planes_gpu import Constants, finish

TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"


def half(*shape: int) -> torch.Tensor:
    return torch.empty(*shape, dtype=torch.bfloat16)


def image_half(*shape: int) -> torch.Tensor:
    return half(*shape).to(memory_format=torch.channels_last)


def full_layer(rate: float, relu: bool) -> None:
    x, bias, clock = half(128, 4096).requires_grad_(), half(4096).requires_grad_(), torch.zeros(3, dtype=torch.int64)
    kinds: dict[str, Any] = {"relu": relu, "layer": 6, "first_unit": 0, "scaled": False}
    bias_relu_dropout(x, bias, clock, rate=rate, **kinds).backward(half(128, 4096))


def update() -> None:
    sgd_(torch.empty(4096), torch.empty(4096), half(4096), half(4096), torch.empty(2), 0.0005)


def crops(images: torch.Tensor, mean_image: torch.Tensor | None) -> None:
    pixels = torch.empty(128, 224, 224, 3, dtype=torch.uint8)
    in_one_kernel(pixels, torch.empty(128, 3), torch.empty(3), mean_image, images)


def planes(images: torch.Tensor, mean_image: torch.Tensor | None) -> None:
    addresses, crop_yx = torch.empty(128, dtype=torch.int64), torch.empty(128, 2, dtype=torch.int32)
    rows = addresses, crop_yx, torch.empty(128, dtype=torch.uint8), torch.empty(128, 3)
    finish(rows, Constants(torch.empty(3), mean_image), images, 256)


def epilogue(side: int, maps: list[int], **what: Any) -> None:
    parts = [image_half(128, each, side, side).requires_grad_() for each in maps]
    given = conv_epilogue(parts, half(sum(maps)).requires_grad_(), Epilogue(**what, towers=2))
    torch.autograd.backward(given, [torch.empty_like(each) for each in given])


NORM_AND_POOL: dict[str, Any] = {"norm": (1e-4, 2.0), "pool": (3, 2)}


# One entry a line, each in bf16 at the sizes of `paper`; budgets are in `test_compiled.py`, by entry and kernel.
LAUNCHES: dict[str, Callable[[], object]] = {
    "full": lambda: full_layer(0.5, True),
    "full without dropout": lambda: full_layer(0.0, True),
    "full without relu": lambda: full_layer(0.5, False),
    "update": update,
    "after conv1": lambda: epilogue(55, [96], **NORM_AND_POOL, outputs=2),
    "after conv2": lambda: epilogue(27, [128, 128], **NORM_AND_POOL),
    "after conv3": lambda: epilogue(13, [384], outputs=2),
    "after conv5": lambda: epilogue(13, [128, 128], pool=(3, 2)),
    "input": lambda: space_to_depth(image_half(128, 3, 224, 224), image_half(128, 48, 57, 57), 4, 0),
    "crops": lambda: crops(image_half(128, 3, 224, 224), None),
    "planar crops, mean image": lambda: crops(torch.empty(128, 3, 224, 224), torch.empty(224, 224, 3)),
    "planes": lambda: planes(image_half(128, 3, 224, 224), None),
    "planar planes, mean image": lambda: planes(torch.empty(128, 3, 224, 224), torch.empty(224, 224, 3)),
}


class NoDriver:
    """Stand for a driver of an H100 or H200, where there is none."""

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, _: int) -> int:
        return 0


def compiled(launch: Callable[[], object]) -> dict[str, Any]:
    """Return by name what each kernel became that a function launches: registers, spilled bytes, opcodes."""
    kernels: dict[str, Any] = {}
    plain = triton.runtime.JITFunction.run

    def compile_only(self: Any, *args: Any, warmup: bool, **options: Any) -> None:
        kernels[self.__name__] = plain(self, *args, warmup=True, **options)

    triton.runtime.JITFunction.run = compile_only
    try:
        launch()
    finally:
        triton.runtime.JITFunction.run = plain
    return {name: figures(kernel.asm["cubin"]) for name, kernel in kernels.items()}


@cache
def figures(cubin: bytes) -> dict[str, Any]:
    """Read what the assembler and the disassembler say of a kernel."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        usage = _says("cuobjdump", "--dump-resource-usage", file.name)
        code = _says("nvdisasm", "-c", "-ndf", file.name)
    used = {key: int(value) for key, value in re.findall(r"\b(REG|STACK|LOCAL|SHARED):(\d+)", usage)}
    opcodes = Counter(re.findall(r"^\s+/\*[0-9a-f]+\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)", code, re.MULTILINE))
    return {"registers": used["REG"], "spilled": used["STACK"] + used["LOCAL"], "opcodes": opcodes}


def _says(tool: str, *arguments: str) -> str:
    return subprocess.run([TOOLS / tool, *arguments], capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    triton.runtime.driver.set_active(NoDriver())
    print(json.dumps({name: compiled(launch) for name, launch in LAUNCHES.items()}))
