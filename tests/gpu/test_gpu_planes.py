"""Planes on a GPU, kept there or not: batches equal to the bit to the host decoder's on a CPU, whatever lies where."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from alexnet.pipeline import AugmentSettings, ImageStream, resident
from alexnet.shards.planes import planes_bytes
from tests.planes import write_planes_set
from tests.unit.pipeline.streams import epochs_of, same, stream_of

IMAGE_BYTES = planes_bytes(256, 256)
DEVICE = torch.device("cuda:0")


@pytest.fixture(scope="module")
def planes(ci_100: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_planes_set(ci_100, tmp_path_factory.mktemp("planes") / "set")


def of(root: Path, device: str, **options: Any) -> ImageStream:
    return stream_of(root, device=device, **{"decode": "host", "batch_images": 16, "drop_last": False, **options})


def on_cpu(batches: list[tuple[torch.Tensor, list[int]]]) -> list[tuple[torch.Tensor, list[int]]]:
    return [(images.cpu(), labels) for images, labels in batches]


WAYS: list[dict[str, Any]] = [
    {"output": "uint8"},
    {"output": "uint8", "channels_last": True},
    {"output": "float32"},
    {"output": "bfloat16", "channels_last": True},
    {"output": "float16", "augmentation": AugmentSettings(mean="image", crop_px=227)},
    {"output": "float32", "channels_last": True, "augmentation": AugmentSettings(mean="image", scale="unit-variance")},
    {"output": "bfloat16", "augment": False, "views": 10, "batch_images": 4},
]


@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize("kept", ["on", "off"])
def test_batches_are_those_of_a_cpu_to_the_bit(ci_100: Path, planes: Path, way: dict[str, Any], kept: str) -> None:
    expected = epochs_of(of(ci_100, "cpu", **way), 3)
    assert same(on_cpu(epochs_of(of(planes, "cuda", resident=kept, **way), 3)), expected)
    assert same(on_cpu(epochs_of(of(ci_100, "cuda", resident=kept, **way), 3)), expected)


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int], None]:
    """Return what lets pieces of 20 images be had: so many on the GPU, so many in host memory."""

    def lets(on_gpu: int, in_host_memory: int) -> None:
        piece = 20 * IMAGE_BYTES
        left = iter(range(2 * in_host_memory, in_host_memory - 1, -1))
        monkeypatch.setattr(resident, "PIECE_BYTES", piece)
        monkeypatch.setattr(resident, "obtainable", lambda device, _: on_gpu * piece - resident._held[device])
        monkeypatch.setattr(resident, "available_memory", lambda: next(left) * piece)

    return lets


@pytest.mark.parametrize(("on_gpu", "in_host_memory"), [(0, 0), (2, 0), (0, 5), (2, 1)])
def test_a_part_in_host_memory_is_read_in_place(
    ci_100: Path, planes: Path, room: Callable[[int, int], None], on_gpu: int, in_host_memory: int
) -> None:
    for root in (planes, ci_100):
        room(on_gpu, in_host_memory)
        stream = of(root, "cuda", resident="on", output="bfloat16", channels_last=True)
        if on_gpu + in_host_memory < 5:
            with pytest.warns(UserWarning, match=f"of 100 images {20 * (on_gpu + in_host_memory)} are kept as planes"):
                batches = epochs_of(stream, 4)
        else:
            batches = epochs_of(stream, 4)
        assert same(on_cpu(batches), epochs_of(of(ci_100, "cpu", output="bfloat16", channels_last=True), 4))


def test_memory_is_taken_as_it_fills_and_given_back(ci_100: Path) -> None:
    before = torch.cuda.memory_allocated(DEVICE)
    with of(ci_100, "cuda", output="uint8") as stream:
        assert stream.describe()[-1].startswith("resident: all 100 images")
        for _ in stream:
            pass
        assert resident._held[DEVICE] == 100 * IMAGE_BYTES
        assert torch.cuda.memory_allocated(DEVICE) >= before + 100 * IMAGE_BYTES
    assert resident._held[DEVICE] == 0
    assert torch.cuda.memory_allocated(DEVICE) < before + 100 * IMAGE_BYTES


def test_a_gpu_without_room_keeps_nothing(ci_100: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert of(ci_100, "cuda", reserve_bytes=1 << 50).describe()[-1].startswith("resident: no, planes would take")
    monkeypatch.setattr(resident, "available_memory", lambda: 0)
    with pytest.warns(UserWarning, match="of 100 images 0 are kept"):
        batches = epochs_of(of(ci_100, "cuda", resident="on", reserve_bytes=1 << 50), 2)
    assert same(on_cpu(batches), epochs_of(of(ci_100, "cpu"), 2))


def test_training_reads_batches_while_the_next_are_gathered(ci_100: Path) -> None:
    """Another stream of the GPU uses each batch slowly; its memory must not be used again before."""
    kept = []
    with of(ci_100, "cuda", output="float32") as stream:
        for _ in range(6):
            for images, _ in stream:
                torch.cuda._sleep(2_000_000)  # cycles: a millisecond
                kept.append(images.double().sum())
                del images
    with of(ci_100, "cpu", output="float32") as stream:
        expected = [images.double().sum() for _ in range(6) for images, _ in stream]
    assert torch.allclose(torch.stack(kept).cpu(), torch.stack(expected), rtol=1e-12, atol=1e-6)
