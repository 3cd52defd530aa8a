"""The stream delivers what its plan says, however it is run, and counts what happened."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from alexnet.model.batches import gathered_crops
from alexnet.model.placement import BatchType, Layout
from alexnet.pipeline import AugmentSettings, ImageStream
from alexnet.pipeline.meter import StreamMeter
from alexnet.shards.errors import InputError
from alexnet.shards.manifest import read_manifest
from tests.unit.pipeline.streams import epochs_of, same, stream_of, together


def make(root: Path, **options: object) -> ImageStream:
    return stream_of(root, **{"batch_images": 24, **options})


def test_threads_and_depth_do_not_change_a_bit(ci_100: Path) -> None:
    expected = epochs_of(make(ci_100))
    for options in ({"threads": 1, "depth": 4}, {"threads": 3, "depth": 1}):
        assert same(expected, epochs_of(make(ci_100, **options))), options


@pytest.mark.parametrize(
    ("ranks", "batch_images", "decode"), [(2, 24, "host"), (3, 24, "dali"), (8, 5, "host"), (8, 5, "dali")]
)  # 8 ranks of 5: empty parts
def test_ranks_share_a_batch(ci_100: Path, ranks: int, batch_images: int, decode: str) -> None:
    options = {"drop_last": False, "batch_images": batch_images, "decode": decode, "output": "uint8"}
    whole = epochs_of(make(ci_100, **options))
    shares = [epochs_of(make(ci_100, rank=rank, world_size=ranks, **options)) for rank in range(ranks)]
    assert {len(share) for share in shares} == {len(whole)}, "all ranks take the same number of steps"
    assert same(whole, together(shares))


@pytest.mark.parametrize(("order", "decode"), [("blocks", "host"), ("global", "dali")])
def test_every_image_comes_once_an_epoch(ci_100: Path, order: str, decode: str) -> None:
    with make(ci_100, order=order, drop_last=False, batch_images=32, decode=decode, output="uint8") as stream:
        for epoch in range(2):
            labels = [label for _, batch in stream for label in batch.tolist()]
            ids = np.concatenate([stream.plan(epoch, step).sample_ids for step in range(len(stream))])
            assert sorted(ids.tolist()) == list(range(100))
            assert labels == [stream.sample(int(i)).label for i in ids]


@pytest.mark.dali
def test_what_a_run_says_at_its_start(ci_100: Path) -> None:
    lines = make(ci_100, decode="host", augmentation=AugmentSettings(lighting="krizhevsky")).describe()
    assert lines[0] == "100 images in 1 shard, 4 steps of 24 an epoch; rank 0 of 1"
    assert lines[1].startswith("order global: 10.0 classes in 100 consecutive images, 10.0 if perfectly shuffled")
    assert lines[2].startswith("lighting krizhevsky: colour noise of standard deviation 7.40, 7.20, 7.70 on R, G, B")
    assert lines[3] == "decoding: host decoder, 2 threads"
    blocks = make(ci_100, order="blocks", window_shards=2).describe()[1]
    assert blocks.startswith("order blocks of 2 shards: 10.0 classes in 100 consecutive images")
    assert "pairs of a batch meet again in the next epoch" in blocks
    evaluation = make(ci_100, decode="split=0.6", augment=False).describe()
    assert evaluation[1].startswith("order of the ids: ")
    assert evaluation[2] == "decoding: 60% DALI on the CPU, 2 threads, the others host decoder, 2 threads"


def test_a_kept_batch_never_changes(ci_100: Path) -> None:
    with make(ci_100) as stream:
        kept = [(images, images.clone()) for _ in range(2) for images, _ in stream]
        for _ in stream:
            pass
    assert all(torch.equal(a, b) for a, b in kept)


def test_closing_leaves_no_thread_and_the_stream_usable(ci_100: Path) -> None:
    before = set(threading.enumerate())
    stream = make(ci_100)
    assert set(threading.enumerate()) <= before, "constructing a stream starts nothing"
    next(iter(stream))
    assert set(threading.enumerate()) - before
    stream.close()
    assert set(threading.enumerate()) <= before
    assert len(epochs_of(stream)) == len(stream)
    assert (stream.meter.images, stream.meter.batches) == (5 * 24, 5)
    assert stream.meter.wait_seconds > 0


@pytest.mark.parametrize("path", ["", "test", "train/000000.tar"])
def test_what_is_not_a_split_is_refused(ci_100: Path, path: str) -> None:
    with pytest.raises(InputError, match="give a split of a data set"):
        ImageStream(ci_100 / path, batch_images=4)


LIT_EPOCHS, EPOCHS = 2, 4
LIT = AugmentSettings(crop_px=64, lighting_division=True, lighting_std=0.1, lighting_epochs=LIT_EPOCHS)


def images_of(stream: ImageStream) -> list[torch.Tensor]:
    """Return each epoch's images."""
    batches, steps = epochs_of(stream, EPOCHS), len(stream)
    return [torch.cat([images for images, _ in batches[i : i + steps]]) for i in range(0, len(batches), steps)]


@pytest.mark.parametrize("decode", ["host", "dali"])
def test_batches_lose_noise_and_division_between_two_epochs(ci_100: Path, decode: str) -> None:
    """Against crops of the same plan, finished here in NumPy: also the first batch, which was wanted ahead."""
    stream = make(ci_100, batch_images=50, augmentation=LIT, decode=decode)
    assert any(line.endswith("then divided by 1.1; in the first 2 epochs") for line in stream.describe())
    crops = images_of(make(ci_100, batch_images=50, augmentation=LIT, output="uint8", decode=decode))
    mean = np.array(read_manifest(ci_100).colour.mean, np.float32)
    for epoch, images in enumerate(images_of(stream)):
        offsets = np.concatenate([stream.plan(epoch, step).colour_offset for step in range(len(stream))])
        assert bool(offsets.any()) == (epoch < LIT_EPOCHS)
        expected = (crops[epoch].numpy() - (mean - offsets)[:, :, None, None]) / (1.1 if epoch < LIT_EPOCHS else 1.0)
        np.testing.assert_allclose(images.numpy(), expected, rtol=0, atol=2.0**-14)  # a division, a product: 255 each


def test_the_finishing_pass_is_that_of_the_epoch(ci_100: Path) -> None:
    """For ranks that gather their crops first."""
    options = {"batch_images": 50, "augmentation": LIT}
    whole = images_of(make(ci_100, **options))
    with make(ci_100, output="uint8", **options) as stream:
        for epoch in range(EPOCHS):
            for step, (crops, _) in enumerate(stream):
                images = stream.finish_pass()(crops.movedim(1, -1), stream.means_of(stream.plan(epoch, step)))
                assert torch.equal(images, whole[epoch][step * 50 : (step + 1) * 50])


class Event:
    """A CUDA event that a test passes by hand."""

    def __init__(self, at_ms: float) -> None:
        self.at_ms, self.passed = at_ms, False

    def query(self) -> bool:
        return self.passed

    def elapsed_time(self, end_event: "Event") -> float:
        assert self.passed
        assert end_event.passed, "reading it would make the consumer wait"
        return end_event.at_ms - self.at_ms


def test_a_meter_reads_the_events_of_a_device_only_when_it_has_passed_them() -> None:
    meter = StreamMeter()
    events: list[Any] = [(Event(1000.0 * i), Event(1000.0 * i + 250.0)) for i in range(3)]
    for begin, end in events:
        meter.waited_on_device(begin, end)
    seconds = [meter.device_wait_seconds]
    for begin, end in events:
        begin.passed = end.passed = True
        seconds += [meter.device_wait_seconds, meter.device_wait_seconds]
    assert seconds == [0.0, 0.25, 0.25, 0.5, 0.5, 0.75, 0.75]


def test_a_meter_counts_skipped_samples_names_the_newest_and_keeps_the_largest_memory() -> None:
    meter = StreamMeter()
    for i in range(60):
        meter.delivered(30, [f"sample {i}a", f"sample {i}b"])
    assert (meter.images, meter.batches, meter.skipped) == (1800, 60, 120)
    assert list(meter.last_skipped)[-1] == "sample 59b"
    assert len(meter.last_skipped) == 100
    for device_bytes in (5, 9, 0, 7):
        meter.used_memory(device_bytes, pinned_bytes=3)
    assert (meter.peak_device_bytes, meter.pinned_bytes) == (9, 3)


@pytest.mark.parametrize(("batch_images", "output"), [(24, "float32"), (8, "float32"), (8, "bfloat16")])
def test_gathered_crops_have_their_own_epochs_plan_and_finish(
    data_set: Path, monkeypatch: pytest.MonkeyPatch, batch_images: int, output: BatchType
) -> None:
    """As a stream that finishes its own; also where an epoch has one step, after which it stands in the next.

    Lighting is without its noise, and the division that makes up for it, from the second epoch on.
    """
    monkeypatch.setattr("alexnet.model.batches.of_all", lambda rows, sizes, group: [rows])  # one rank alone
    lighting = AugmentSettings(crop_px=32, lighting_division=True, lighting_epochs=1)
    options: dict[str, Any] = {"batch_images": batch_images, "rank": 0, "world_size": 1, "augmentation": lighting}
    group: Any = None
    with (
        ImageStream(data_set / "train", **options, output=output) as whole,
        ImageStream(data_set / "train", **options, output="uint8") as crops,
    ):
        with pytest.raises(ValueError, match="give output='uint8'"):
            next(gathered_crops(whole, Layout(), group, output))
        for source in (whole, crops):
            source.seek(0, len(whole) - 1)
        for _ in range(3):
            pairs = list(zip(whole, gathered_crops(crops, Layout(), group, output), strict=True))
            assert pairs
            for expected, gathered in pairs:
                assert all(map(torch.equal, expected, gathered))
