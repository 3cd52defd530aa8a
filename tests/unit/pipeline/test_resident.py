"""Planes that a GPU keeps: whatever is kept where, batches are those of a CPU to the bit. The GPU is a stand-in."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from alexnet.pipeline import AugmentSettings, ImageStream, planes_gpu, resident
from alexnet.pipeline.resident import ResidentPlanes
from alexnet.shards.errors import InputError, SampleError
from alexnet.shards.planes import planes_bytes
from alexnet.shards.reader import SplitReader
from tests.planes import write_planes_set
from tests.unit.pipeline.stand_in import stand_in
from tests.unit.pipeline.streams import damaged, epochs_of, same, stream_of

__all__ = ["stand_in"]
pytestmark = pytest.mark.usefixtures("stand_in")

IMAGE_BYTES = planes_bytes(40, 40)
AUGMENTATION = AugmentSettings(crop_px=32, mean="image", scale="unit-variance")


def of(root: Path, device: str, **options: Any) -> ImageStream:
    given = {"decode": "host", "batch_images": 6, "augmentation": AUGMENTATION, "channels_last": True}
    return stream_of(root, device=device, **{**given, **options})


@pytest.fixture(scope="module")
def planes(data_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_planes_set(data_set, tmp_path_factory.mktemp("planes") / "set")


@pytest.fixture(params=["jpeg", "planes"])
def root(request: pytest.FixtureRequest, data_set: Path, planes: Path) -> Path:
    """A set of either kind: 24 training images."""
    return data_set if request.param == "jpeg" else planes


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have one program make an image, and the interpreter leave out a check that takes half of its time."""
    monkeypatch.setattr(planes_gpu, "finish", partial(planes_gpu.finish, block=4096))
    monkeypatch.setattr("triton.language.semantic.TritonSemantic.binary_op_sanitize_overflow_impl", lambda *_: None)


@pytest.fixture
def brought(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the list to which the number of images is added whenever some are decoded or read."""
    counts: list[int] = []
    decode = planes_gpu.HostPlanes._decode_part

    def counted(self: Any, batch: Any, images: Any, out: Any) -> dict[int, str]:
        counts.append(len(out))
        return decode(self, batch, images, out)

    monkeypatch.setattr(planes_gpu.HostPlanes, "_decode_part", counted)
    return counts


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return what lets pieces of five images be had: so many on the GPU, so many in host memory."""

    def lets(on_gpu: int, in_host_memory: int = 0) -> None:
        piece = 5 * IMAGE_BYTES
        available = iter([2 * (in_host_memory - taken / 2) * piece for taken in range(in_host_memory + 1)])
        monkeypatch.setattr(resident, "PIECE_BYTES", piece + 7)
        monkeypatch.setattr(resident, "obtainable", lambda device, _: on_gpu * piece - resident._held[device])
        monkeypatch.setattr(resident, "available_memory", lambda: next(available))

    return lets


def test_later_epochs_bring_nothing(
    data_set: Path, root: Path, brought: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    told, expected = list[int](), epochs_of(of(data_set, "cpu", batch_images=7), 3)
    extension = SimpleNamespace(will_need=lambda descriptors, *_: told.extend(descriptors))
    monkeypatch.setattr("alexnet.pipeline.read_ahead.extension", lambda: extension)
    stream = of(root, "cuda", batch_images=7, read_ahead_batches=1)  # an epoch is of 21 images, in three batches
    assert same(epochs_of(stream, 3), expected)
    assert 21 <= sum(brought) <= 24 + 2 * 7, "two batches of the second epoch are asked for before the first ends"
    assert len(told) <= 24 + 3 * 7, "nor is storage asked for what is here"
    assert resident._held[torch.device("cuda:0")] == 0, "closed"


def test_planes_of_which_none_are_kept(data_set: Path, planes: Path, brought: list[int]) -> None:
    """Of the second epoch, which is not lit, the scale is another."""
    lit = {"augmentation": replace(AUGMENTATION, lighting_division=True, lighting_epochs=1)}
    on_gpu = of(planes, "cuda", resident="off", **lit)
    assert same(epochs_of(on_gpu, 2), epochs_of(of(data_set, "cpu", **lit), 2))
    assert 2 * 24 <= sum(brought) <= 2 * 24 + 2 * 6


@pytest.mark.parametrize(("on_gpu", "in_host_memory"), [(0, 0), (1, 2)])
def test_what_does_not_fit_is_brought_each_time(
    data_set: Path, brought: list[int], room: Callable[..., None], on_gpu: int, in_host_memory: int
) -> None:
    room(on_gpu, in_host_memory)
    kept = 5 * (on_gpu + in_host_memory)
    stream = of(data_set, "cuda", resident="on")
    with pytest.warns(UserWarning, match=f"^of {stream.images} images {kept} are kept as planes"):
        batches = epochs_of(stream, 3)
    assert same(batches, epochs_of(of(data_set, "cpu"), 3))
    wanted = stream.images + 2 * (stream.images - kept)
    assert wanted <= sum(brought) <= wanted + 2 * 6, "some of the second epoch are asked for before the first ends"


def test_stores_share_what_a_gpu_can_spare(room: Callable[..., None]) -> None:
    room(5)
    ids, planes, gpu = np.arange(24), torch.zeros((24, IMAGE_BYTES), dtype=torch.uint8), torch.device("cuda:0")
    stores = [ResidentPlanes(24, IMAGE_BYTES, gpu, reserve_bytes=0, in_host_memory=False) for _ in range(3)]
    stores[0].keep(ids, planes)
    with pytest.warns(UserWarning, match="^of 24 images 0 are kept as planes"):
        stores[1].keep(ids, planes)
    assert resident._held[gpu] == 24 * IMAGE_BYTES
    for store in stores[:2]:
        store.close()
    stores[2].keep(ids, planes)
    assert stores[2].holds(ids).all()
    stores[2].close()
    assert resident._held[gpu] == 0


def test_a_resumed_run_goes_on_with_the_same_batches_while_it_fills(data_set: Path) -> None:
    whole = epochs_of(of(data_set, "cpu"), 2)
    with of(data_set, "cuda") as interrupted:
        next(iter(interrupted))
        state = interrupted.state()
    for device in ("cuda", "cpu"):
        resumed = of(data_set, device)
        resumed.resume(state)
        assert same(epochs_of(resumed, 2), whole[1:])


def test_what_cannot_be_used_is_skipped_each_time(root: Path, tmp_path: Path, brought: list[int]) -> None:
    """Damage in the middle of a JPEG, in the header before planes."""
    is_jpeg = SplitReader(root, "train").manifest.stored.encoding == "jpeg"
    place, value = (None, b"\xff\xd9") if is_jpeg else (-512, b"?")
    root = damaged(root, tmp_path / "set", 5, place, value)
    options: dict[str, Any] = {"augment": False, "on_error": "skip"}
    on_gpu, on_cpu = (of(root, device, **options) for device in ("cuda", "cpu"))
    assert same(epochs_of(on_gpu, 2), epochs_of(on_cpu, 2))
    assert on_gpu.meter.skipped == 2
    assert list(on_gpu.meter.last_skipped) == list(on_cpu.meter.last_skipped)
    assert brought[-1] == 1
    with of(root, "cuda", augment=False) as stops, pytest.raises(SampleError, match="sample 5 "):
        list(stops)


@pytest.mark.parametrize("options", [{"output": "uint8", "channels_last": False}, {"augment": False, "views": 10}])
def test_pixels_as_they_are_and_ten_views(data_set: Path, options: dict[str, Any]) -> None:
    assert same(epochs_of(of(data_set, "cuda", **options)), epochs_of(of(data_set, "cpu", **options)))


def test_memory_that_is_refused_in_the_middle_ends_the_growth(
    data_set: Path, room: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The GPU says that it has room and then has none, and the system lets nothing be pinned."""
    room(4, 2)
    made, empty = [], torch.empty

    def refuses(*shape: Any, **options: Any) -> torch.Tensor:
        made.extend([shape] * (shape[0] == (5, IMAGE_BYTES)))
        if len(made) > 1 and shape[0] == (5, IMAGE_BYTES):
            raise torch.OutOfMemoryError if "device" in options else RuntimeError("pinned")
        return empty(*shape, **options)

    monkeypatch.setattr(torch, "empty", refuses)
    with pytest.warns(UserWarning, match="images 5 are kept as planes"):
        batches = epochs_of(of(data_set, "cuda", resident="on"), 2)
    assert len(made) == 3
    assert same(batches, epochs_of(of(data_set, "cpu"), 2))


def test_no_host_memory_is_taken_unasked(
    data_set: Path, room: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images were to fit the GPU as a whole, which has no room any more when they come."""
    room(0, 2)
    spare = iter([24 * IMAGE_BYTES])
    monkeypatch.setattr(resident, "obtainable", lambda *_: next(spare, 0))
    with pytest.warns(UserWarning, match="of 24 images 0 are kept as planes"):
        epochs_of(of(data_set, "cuda", augment=False))


def test_it_says_what_was_decided_and_why(data_set: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def says(**options: Any) -> str:
        return of(data_set, "cuda", **options).describe()[-1]

    assert says().startswith("resident: all 24 images, as they come: planes of 0.0 GiB, of which cuda:0 can spare 0.8")
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 2**29)
    assert "can spare 1.0" in says(), "training has taken what was left to it, but for the fiftieth"
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2**20, 2**31))
    assert says().startswith("resident: no, planes would take 0.0 GiB, of which cuda:0 can spare 0.0; resident='on'")
    assert says(resident="on").startswith("resident: planes of 0.0 GiB, of which cuda:0 can spare 0.0; others in host")
    assert says(resident="off").startswith("decoding: host")
    assert says(decode="dali") == "resident: no, as DALI yields no planes; decode='host' does"


def test_what_a_gpu_can_spare(monkeypatch: pytest.MonkeyPatch) -> None:
    """What this process has there, but for the stores, is a part of what is to be left to it."""
    device = torch.device("cuda:0")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (60, 100))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 30)
    monkeypatch.setattr(resident, "_held", {device: 20})
    assert resident.obtainable(device, 40) == 60 - (40 - (30 - 20))
    assert resident.obtainable(device, 0) == 60 - 2, "a tenth is had already; a fiftieth stays free"
    monkeypatch.setattr(resident, "_held", {device: 30})
    assert resident.obtainable(device, 0) == 60 - 10


def test_without_triton_nothing_is_kept(
    data_set: Path, root: Path, brought: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> None:
        raise RuntimeError("no compiler")

    monkeypatch.setattr("alexnet.pipeline.normalize_torch.in_one_kernel", fails)
    with pytest.warns(UserWarning, match="a GPU keeps no images, as Triton fails: no compiler"):
        batches = epochs_of(of(root, "cuda", resident="on"))
    assert same(batches, epochs_of(of(data_set, "cpu")))
    assert not brought


def test_what_nothing_can_keep_is_refused(data_set: Path) -> None:
    with pytest.raises(InputError, match=r"^resident='on': .* the stream's device is cpu; use resident='auto'"):
        of(data_set, "cpu", resident="on")
    with pytest.raises(InputError, match=r"^resident='on': decode='dali' yields no planes; use decode='host'"):
        of(data_set, "cuda", resident="on", decode="dali")
    stream = of(data_set, "cuda", resident="on", decode="default")
    assert stream.state()["decode"] == "host"
    with pytest.raises(InputError, match=r"^decode: the state to resume from has 'dali', this stream 'host'"):
        stream.resume(stream.state() | {"decode": "dali"})
    with pytest.raises(InputError, match="must be one of auto, on, off"):
        of(data_set, "cuda", resident="yes")


def test_jpegs_that_may_not_be_420_are_decoded_as_ever(data_set: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(data_set, tmp_path / "set"))
    manifest = (root / "manifest.json").read_text().replace('"baseline 4:2:0"', '"of another writer"')
    (root / "manifest.json").write_text(manifest)
    assert of(root, "cuda").describe()[-1].startswith("decoding: host")
    with pytest.raises(InputError, match=r"^resident='on': the manifest does not say"):
        of(root, "cuda", resident="on")


def test_a_stream_that_was_closed_fills_anew(data_set: Path) -> None:
    stream = of(data_set, "cuda")
    assert same(epochs_of(stream) + epochs_of(stream), epochs_of(of(data_set, "cpu"), 2))
