"""What a training step needs: memory, against what autograd keeps; bytes, counted by hand; ranks that divide it."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from alexnet.model.needs import (
    MemoryNeed,
    capacity,
    held_parameters,
    is_out_of_memory,
    memory_need,
    resident_bytes,
    traffic,
)
from alexnet.model.networks.build import Network, parameter_count
from alexnet.model.networks.settings import NetSettings
from alexnet.model.placement import Layout, Placement, choose_placement
from alexnet.shards.errors import InputError

CPU = torch.device("cpu")


def placement(layout: Layout, *, bf16: bool = False) -> Placement:
    return Placement(device=CPU, bf16=bf16, why="a test", layout=layout)


def kept(settings: NetSettings, px: int, images: int, *, bf16: bool) -> int:
    """Take a forward pass and count what is kept for the backward pass, parameters apart, in bytes."""
    net = Network(settings).train()
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
    need = memory_need(settings, placement(Layout(), bf16=bf16), px)
    assert need.parameters == 4 * parameter_count(Network(settings))
    assert need.of_step(6) == 3 * need.parameters + kept(settings, px, 6, bf16=bf16)


def test_a_tower_needs_half_of_the_network_and_what_it_reads_of_the_other() -> None:
    settings, pair = NetSettings(classes=10), Layout(ranks=2, group_ranks=2)
    whole, tower = (memory_need(settings, placement(layout), 224) for layout in (Layout(), pair))
    assert tower.parameters * 2 == whole.parameters
    # Half of the values, and of what conv3, fc7 and fc8 read, which a process with two towers keeps once, all.
    read_by_both = 4 * (256 * 13 * 13 + 2 * 4096)
    assert tower.image == pytest.approx((whole.image + read_by_both) / 2, rel=1e-4)  # a tower has 5 of 10 scores


def test_parameters_are_counted_as_they_are_held() -> None:
    settings = NetSettings(classes=7)  # 4 on the first tower
    for rank in range(2):
        layout = Layout(rank=rank, ranks=2, group_ranks=2)
        with torch.device("meta"):
            assert held_parameters(settings, layout) == parameter_count(Network(settings, layout.towers))
    quarter = Layout(ranks=4, group_ranks=4, owt=True)
    assert held_parameters(NetSettings(), quarter) == 2_334_080 + 58_631_144 // 4


def test_images_that_fit_need_less_than_there_is() -> None:
    need = MemoryNeed(parameters=100, copies=0, image=10)
    for room in (0, 300, 333, 334, 400, 1000, 10_000):
        images = need.images_in(room)
        assert images == 0 or need.of_step(images) < room
    assert need.images_in(10_000) == int((9000 - 300) / 15)
    assert all(need.images_in(need.capacity_for(images)) == images for images in range(20))


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


def test_bytes_sent_are_those_of_the_tensors_that_meet() -> None:
    """Counted by hand: 13x13x128 + 6x6x128 + 2048 + 2048 values there and back, 500 scores there, 64 crops."""
    pair = placement(Layout(ranks=2, group_ranks=2), bf16=True)
    values = 13 * 13 * 128 + 6 * 6 * 128 + 2048 + 2048
    assert traffic(NetSettings(), pair, batch_images=128, crop_px=224) == {
        "towers": 128 * 2 * (2 * values + 500),
        "images": 64 * (224 * 224 * 3 + 8),
        "gradients": 0,
    }
    replicas = traffic(NetSettings(), placement(Layout(ranks=4)), batch_images=128, crop_px=224)
    assert replicas == {"towers": 0, "images": 0, "gradients": 2 * 3 * 60_965_224 * 4 // 4}


@pytest.mark.parametrize("ranks", [2, 4])
def test_bytes_of_one_weird_trick(ranks: int) -> None:
    """128 images a process: 9,216 values of each and 4,096 units twice, there and back; 1,000 scores there."""
    placed = placement(Layout(ranks=ranks, group_ranks=ranks, owt=True), bf16=True)
    whole_batch = 128 * ranks * (2 * (2 * 4096 // ranks) + 1000 // ranks)
    assert traffic(NetSettings(), placed, batch_images=128 * ranks, crop_px=224) == {
        "units": (ranks - 1) * 2 * (128 * 2 * 9216 + whole_batch),
        "images": (ranks - 1) * 128 * 8,
        "gradients": 2 * (ranks - 1) * 4 * 2_334_080 // ranks,
    }


def test_a_layout_divides_ranks_and_rows() -> None:
    layouts = [Layout(rank=rank, ranks=4, group_ranks=2) for rank in range(4)]
    assert [layout.towers for layout in layouts] == [(0,), (1,), (0,), (1,)]
    assert [layout.group for layout in layouts] == [0, 0, 1, 1]
    for images in (1, 3, 7, 128):
        parts = [layouts[0].part(images, rank) for rank in range(4)]
        assert [row for part in parts for row in part] == list(range(images))
        assert layouts[0].group_part(images) == range(parts[0].start, parts[1].stop)
        assert layouts[3].group_part(images) == range(parts[2].start, parts[3].stop)
    assert Layout().towers is None


def test_a_layout_that_does_not_fit_is_refused() -> None:
    for gpus, towers, words in ((3, 2, "a multiple of 2"), (2, 1, "one tower"), (0, 2, "at least 1")):
        with pytest.raises(InputError, match=words):
            choose_placement("cpu", gpus, "auto", towers=towers)
    assert choose_placement("cpu", 3, "auto", parallel="data").layout.groups == 3
