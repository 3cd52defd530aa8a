"""Steps of every recipe on a GPU's tensors without memory, and what is counted of them there and without any GPU."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from click.testing import CliRunner
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.cpp_extension import include_paths

from alexnet.tools.bench.command import main
from alexnet.tools.bench.count import STEPS, Counter, StepCount, count_step

HERE = Path(__file__).parent / "fake_cuda"
KERNELS, BYTES = 80, 4.5e9  # a step of the paper's recipe at batch 128, so that an H200 can take 40,000 images/s
LAYERS_KERNELS, LAYERS_BYTES = 600, 10.9e9  # what it is layer by layer; more would be a step back


@pytest.fixture(scope="module")
def on_cuda(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return what steps.py finds, where PyTorch believes in a GPU."""
    library, torch_lib = tmp_path_factory.mktemp("fake") / "device.so", Path(torch.__file__).parent / "lib"
    includes = [f"-I{path}" for path in include_paths()]
    linked = [f"-L{torch_lib}", "-ltorch_cpu", "-lc10", f"-Wl,-rpath,{torch_lib}"]
    command = ["g++", "-std=c++20", "-O0", "-fPIC", "-shared", *includes, str(HERE / "device.cpp"), *linked]
    subprocess.run([*command, "-o", str(library)], check=True, timeout=300)
    steps = [sys.executable, str(HERE / "steps.py"), str(library)]
    return msgspec.json.decode(subprocess.run(steps, check=True, timeout=300, stdout=subprocess.PIPE).stdout)


@pytest.fixture(scope="module")
def paper(on_cuda: Any) -> dict[str, StepCount]:
    steps = on_cuda["steps"]["paper"]
    return {step: msgspec.convert(steps[step]["count"], StepCount) for step in STEPS}


def test_a_step_of_every_recipe_stays_on_the_gpu_channels_last_and_waits_for_nothing(on_cuda: Any) -> None:
    assert len(on_cuda["steps"]) >= 10
    found = {
        (recipe, step): {what.partition(":")[0] for what in walked["found"]}
        for recipe, steps in on_cuda["steps"].items()
        for step, walked in steps.items()
    }
    assert found.pop(("lenet-5", "layers")) <= {"channels first"}  # images of one channel lie both ways
    assert not {where: what for where, what in found.items() if what}


@pytest.mark.parametrize("step", STEPS)
def test_what_a_step_must_not_do_is_found(on_cuda: Any, step: str) -> None:
    faults = on_cuda["faults"][step]
    assert any("DataDependent" in found for found in faults["waits"])
    assert any("FakeTensorDeviceMismatch" in found or "Device Propagation" in found for found in faults["cpu tensor"])
    assert any("mixed devices: index" in found for found in faults["cpu index"])
    assert any("channels first: convolution" in found for found in faults["channels first"])


def test_a_step_of_the_papers_recipe_keeps_its_budget(paper: dict[str, StepCount]) -> None:
    assert paper["fused"].kernels <= KERNELS
    assert paper["fused"].bytes <= BYTES
    assert paper["layers"].kernels <= LAYERS_KERNELS
    assert paper["layers"].bytes <= LAYERS_BYTES


def test_without_a_gpu_the_same_is_counted(paper: dict[str, StepCount]) -> None:
    assert {step: count_step("paper", "bf16", 128, step) for step in STEPS} == paper


def counted(run: Any) -> list[tuple[str, int]]:
    with FakeTensorMode(), Counter() as counter:
        run()
    return [(kernel.operator, kernel.bytes) for kernel in counter.kernels]


def test_views_and_reserved_memory_are_no_kernels() -> None:
    assert counted(lambda: torch.empty(8, 4).view(2, 16).t()[1:].unsqueeze(0).expand(3, 15, 2).detach()) == []


def test_bytes_are_what_is_read_and_what_is_written() -> None:
    def run() -> None:
        x = torch.empty(8, 4)
        x + x  # one tensor, read once
        x.add_(torch.empty(4).expand(8, 4))
        x.fill_(0)
        torch._foreach_copy_([x, x.t()], [x, x.t()])
        torch._foreach_copy_([x], [torch.empty(4, 8).t()])

    add, add_, fill, copy, copy_apart = counted(run)
    assert add == ("aten.add", 128 + 128)
    assert add_ == ("aten.add_", 128 + 16 + 128)
    assert fill == ("aten.fill_", 128)
    assert copy == ("aten._foreach_copy_", 2 * 2 * 128)
    assert copy_apart == ("aten._foreach_copy_", 2 * 128)


def test_lists_that_lie_otherwise_are_a_launch_for_each_tensor() -> None:
    def run() -> None:
        places = [torch.empty(8, 4), torch.empty(8, 4)]
        torch._foreach_copy_(places, [torch.empty(8, 4), torch.empty(4, 8).t()])

    assert counted(run) == [("aten._foreach_copy_", 256)] * 2


def test_a_convolution_is_a_kernel_for_each_gradient_and_its_bias_one_more() -> None:
    def run() -> None:
        x, weight, bias = (torch.empty(shape, requires_grad=True) for shape in ((2, 3, 8, 8), (4, 3, 1, 1), (4,)))
        torch.nn.functional.conv2d(x, weight, bias).backward(torch.empty(2, 4, 8, 8))

    x, weight, bias, y = (4 * count for count in (384, 12, 4, 512))
    assert counted(run) == [
        ("aten.convolution", x + weight + y),
        ("aten.convolution, bias", y + bias + y),
        ("aten.convolution_backward", y + weight + x),
        ("aten.convolution_backward", y + x + weight),
        ("aten.convolution_backward", y + bias),
    ]


def test_the_command_counts_any_recipe(tmp_path: Path) -> None:
    file = tmp_path / "count.json"
    arguments = ["model", "--count", "cuda-convnet-cifar-80s", "--batch", "32", "--precision", "fp32"]
    done = CliRunner().invoke(main, [*arguments, "--json", str(file)])
    assert done.exit_code == 0
    counts = msgspec.json.decode(file.read_bytes(), type=list[StepCount])
    assert [(one.recipe, one.batch_images, one.precision) for one in counts] == [(arguments[2], 32, "fp32")] * 2
    assert [one.step for one in counts] == list(STEPS)
    assert all(f"{one.kernels} kernels" in done.output for one in counts)
    assert all(one.bytes == sum(operator.bytes for operator in one.operators) > 0 for one in counts)
    wrong = CliRunner().invoke(main, ["model", "--count", "papr"])
    assert (wrong.exit_code, "did you mean paper?" in wrong.output) == (2, True)


def test_the_command_refuses_what_it_would_not_look_at() -> None:
    run = CliRunner().invoke(main, ["model", "--count", "lenet-5", "--gpus", "2", "--check"])
    assert run.exit_code == 2
    assert "--count knows --precision, --batch and --json; leave --gpus, --check out" in run.output
