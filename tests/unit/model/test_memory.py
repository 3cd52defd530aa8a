"""What a training step needs, against what autograd keeps when the step is really taken."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from alexnet.model.needs import MemoryNeed, capacity, held_parameters, is_out_of_memory, memory_need, resident_bytes
from alexnet.model.networks.build import build_network, parameter_count
from alexnet.model.networks.settings import NetSettings
from alexnet.model.placement import Layout, Placement

CPU = torch.device("cpu")


def kept(settings: NetSettings, px: int, images: int, *, bf16: bool) -> int:
    """Take a forward pass and count what is kept for the backward pass, parameters apart, in bytes."""
    net = build_network(settings).train()
    own = {value.data_ptr() for value in (*net.parameters(), *net.buffers())}
    seen: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        seen.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        return tensor

    batch = torch.randn(images, 3, px, px).contiguous(memory_format=torch.channels_last)
    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=bf16),
    ):
        F.cross_entropy(net(batch).float(), torch.zeros(images, dtype=torch.int64))
    return sum(tensor.untyped_storage().nbytes() for pointer, tensor in seen.items() if pointer not in own)


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize(("arch", "px"), [("cuda-convnet-cifar", 32), ("lenet-5", 28), ("alexnet-owt", 95)])
def test_the_need_is_what_a_step_keeps(arch: str, px: int, bf16: bool) -> None:
    settings = NetSettings(arch=arch, classes=10)
    need = memory_need(settings, Placement(device=CPU, bf16=bf16, why="a test"), px)
    assert need.parameters == 4 * parameter_count(build_network(settings))
    assert need.of_step(6) == 3 * need.parameters + kept(settings, px, 6, bf16=bf16)


def test_a_tower_needs_half_of_the_network_and_what_it_reads_of_the_other() -> None:
    settings = NetSettings(classes=10)
    whole, tower = (
        memory_need(settings, Placement(device=CPU, bf16=False, why="a test", layout=layout), 224)
        for layout in (Layout(), Layout(ranks=2, group_ranks=2))
    )
    assert tower.parameters * 2 == whole.parameters == 8 * held_parameters(settings, Layout(ranks=2, group_ranks=2))
    # Half of the values, and of what conv3, fc7 and fc8 read, which a process with two towers keeps once, all.
    read_by_both = 4 * (256 * 13 * 13 + 2 * 4096)
    assert tower.image == pytest.approx((whole.image + read_by_both) / 2, rel=1e-4)  # a tower has 5 of 10 scores


def test_images_that_fit_need_less_than_there_is() -> None:
    need = MemoryNeed(parameters=100, copies=0, image=10)
    for room in (0, 300, 333, 334, 400, 1000, 10_000):
        images = need.images_in(room)
        assert images == 0 or need.of_step(images) < room
    assert need.images_in(10_000) == int((9000 - 300) / 15)


def test_what_there_is_includes_what_is_held() -> None:
    assert capacity(CPU) > resident_bytes() > 10e6  # Python with torch takes more than 10 MB


def test_only_failed_allocations_are_lack_of_memory() -> None:
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"))
    assert is_out_of_memory(torch.AcceleratorError("CUDA error: out of memory"))
    assert not is_out_of_memory(RuntimeError("NCCL error"))
    with pytest.raises(RuntimeError) as error:
        torch.empty(2**55, dtype=torch.uint8)
    assert is_out_of_memory(error.value), "as PyTorch says it of a CPU"
