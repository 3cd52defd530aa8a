"""The stream delivers what its plan says, resumes exactly, and leaves nothing behind."""

import dataclasses
import hashlib
import json
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from alexnet.pipeline import AugmentSettings, ImageStream, StreamSettings
from alexnet.shards.errors import InputError

RUNNING = {field.name for field in dataclasses.fields(StreamSettings)} - {"threads"}

Batches = list[tuple[torch.Tensor, torch.Tensor]]


def make(root: Path, **options: object) -> ImageStream:
    given: dict[str, object] = {"batch_images": 24, "seed": 3, "threads": 2, **options}
    running = {name: given.pop(name) for name in RUNNING if name in given}
    return ImageStream(root / "train", settings=StreamSettings(**running), **given)  # type: ignore[arg-type]


def epoch_of(stream: ImageStream) -> Batches:
    with stream:
        return [(images.clone(), labels.clone()) for images, labels in stream]


def equal(a: Batches, b: Batches) -> bool:
    return len(a) == len(b) and all(
        torch.equal(x[0], y[0]) and torch.equal(x[1], y[1]) for x, y in zip(a, b, strict=True)
    )


@pytest.mark.parametrize(
    "options", [{"threads": 1}, {"threads": 3}, {"depth": 1}, {"depth": 4}], ids=lambda o: "-".join(map(str, o.items()))
)
def test_threads_and_depth_do_not_change_a_bit(ci_100: Path, options: dict[str, int]) -> None:
    assert equal(epoch_of(make(ci_100)), epoch_of(make(ci_100, **options)))


@pytest.mark.parametrize("decode", ["dali", "host"])
@pytest.mark.parametrize(("ranks", "batch_images"), [(2, 24), (3, 24), (8, 24), (8, 5)])  # 8 ranks of 5: empty parts
def test_ranks_share_a_batch(ci_100: Path, ranks: int, batch_images: int, decode: str) -> None:
    options = {"drop_last": False, "batch_images": batch_images, "decode": decode, "output": "uint8"}
    whole = epoch_of(make(ci_100, **options))
    shares = [epoch_of(make(ci_100, rank=rank, ranks=ranks, **options)) for rank in range(ranks)]
    assert {len(share) for share in shares} == {len(whole)}, "all ranks take the same number of steps"
    together = [
        (torch.cat([s[step][0] for s in shares]), torch.cat([s[step][1] for s in shares])) for step in range(len(whole))
    ]
    assert equal(whole, together)


def test_resuming_on_another_number_of_ranks_gives_the_same_global_batches(ci_100: Path) -> None:
    with make(ci_100, rank=0, ranks=2) as stream:
        batches = iter(stream)
        next(batches)
        state = json.loads(json.dumps(stream.state()))
    whole = epoch_of(make(ci_100))[1:]
    shares = []
    for rank in range(3):
        part = make(ci_100, rank=rank, ranks=3)
        part.resume(state)
        shares.append(epoch_of(part))
    together = [
        (torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts])) for parts in zip(*shares, strict=True)
    ]
    assert equal(whole, together)


@pytest.mark.parametrize("decode", ["dali", "host"])
@pytest.mark.parametrize("order", ["blocks", "global"])
def test_every_image_comes_once_an_epoch(ci_100: Path, order: str, decode: str) -> None:
    with make(ci_100, order=order, drop_last=False, batch_images=32, decode=decode) as stream:
        for epoch in range(2):
            labels = [label for _, batch in stream for label in batch.tolist()]
            ids = np.concatenate([stream.plan(epoch, step).sample_ids for step in range(len(stream))])
            assert sorted(ids.tolist()) == list(range(100))
            assert labels == [stream.sample(int(i)).label for i in ids]


def test_what_a_run_says_at_its_start(ci_100: Path) -> None:
    lines = make(ci_100, decode="host", augmentation=AugmentSettings(lighting="krizhevsky")).describe()
    assert lines[0] == "100 images in 1 shard, 4 steps of 24 an epoch; rank 0 of 1"
    assert lines[1].startswith("order global: 10.0 classes in 100 consecutive images, 10.0 if perfectly shuffled")
    assert lines[2].startswith("lighting krizhevsky: colour noise of standard deviation 7.40, 7.20, 7.70 on R, G, B")
    assert lines[3] == "decoding: host decoder, 2 threads"
    blocks = make(ci_100, order="blocks", window_shards=2).describe()[1]
    assert blocks.startswith("order blocks of 2 shards: 10.0 classes in 100 consecutive images")
    assert "pairs of a batch meet again in the next epoch" in blocks


def test_iteration_goes_from_epoch_to_epoch(ci_100: Path) -> None:
    with make(ci_100) as stream:
        first = [labels.tolist() for _, labels in stream]
        second = [labels.tolist() for _, labels in stream]
    assert len(first) == len(second) == len(stream) == 4
    assert first != second
    assert second == [[stream.sample(int(i)).label for i in stream.plan(1, s).sample_ids] for s in range(4)]


def test_an_epoch_left_half_way_is_not_taken_up_again(ci_100: Path) -> None:
    with make(ci_100) as stream:
        for _ in stream:
            break
        assert [labels.tolist() for _, labels in stream] == [labels.tolist() for _, labels in epoch_of_at(ci_100, 1)]


def test_an_iteration_cannot_be_taken_up_when_another_has_begun(ci_100: Path) -> None:
    """Both would move on one cursor, and each would lack what the other took."""
    with make(ci_100) as stream:
        left = iter(stream)
        next(left)
        other = iter(stream)
        assert next(other)[1].tolist() == [stream.sample(int(i)).label for i in stream.plan(1, 0).sample_ids]
        with pytest.raises(RuntimeError, match="ended when another one began"):
            next(left)
        assert len(list(other)) == len(stream) - 1


def epoch_of_at(root: Path, epoch: int) -> Batches:
    stream = make(root)
    stream.seek(epoch, 0)
    return epoch_of(stream)


def test_resuming_at_any_step_gives_the_same_batches(ci_100: Path) -> None:
    with make(ci_100) as stream:
        states, batches = [], []
        for _ in range(2):
            for images, labels in stream:
                batches.append((images.clone(), labels.clone()))
                states.append(json.dumps(stream.state()))
    assert max(map(len, states)) < 400, "a state is a few hundred bytes"
    for done, state in enumerate(states[:6], start=1):
        with make(ci_100) as resumed:
            resumed.resume(json.loads(state))
            assert equal([next(iter(resumed))], batches[done : done + 1])


def test_resuming_in_a_new_process_gives_the_same_batches(ci_100: Path) -> None:
    with make(ci_100) as stream:
        batches = iter(stream)
        next(batches)
        state = json.dumps(stream.state())
        expected = [hashlib.sha256(images.numpy().tobytes()).hexdigest() for images, _ in batches]
    code = (
        "import hashlib, json, sys; from alexnet.pipeline import ImageStream\n"
        f"s = ImageStream({str(ci_100 / 'train')!r}, batch_images=24, seed=3, threads=1)\n"
        "s.resume(json.loads(sys.argv[1]))\n"
        "print(*(hashlib.sha256(i.numpy().tobytes()).hexdigest() for i, _ in s))"
    )
    run = subprocess.run([sys.executable, "-c", code, state], capture_output=True, text=True, check=True)
    assert run.stdout.split() == expected


@pytest.mark.parametrize(
    ("option", "value", "name"),
    [
        ("seed", 4, "seed"),
        ("batch_images", 25, "batch_images"),
        ("augment", False, "augment"),
        ("drop_last", False, "drop_last"),
        ("order", "blocks", "order"),
        ("decode", "dali", "decode"),
        ("augmentation", AugmentSettings(lighting="off"), "augment"),
    ],
)
def test_a_changed_setting_is_refused_by_name(ci_100: Path, option: str, value: object, name: str) -> None:
    state = make(ci_100).state()
    changed: dict[str, object] = {option: value}
    if option == "augment":
        changed |= {"shuffle": True, "drop_last": True}
    with pytest.raises(InputError, match=rf"^{name}: "):
        make(ci_100, **changed).resume(state)


def test_changed_data_are_refused(ci_100: Path, data_set: Path) -> None:
    state = make(ci_100, batch_images=10).state()
    small = ImageStream(data_set / "train", batch_images=10, seed=3, augmentation=AugmentSettings(crop_px=32))
    with pytest.raises(InputError, match=r"^augment: "):
        small.resume(state)
    with pytest.raises(InputError, match=r"^manifest: "):
        small.resume({**small.state(), "manifest": state["manifest"]})


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
    assert len(epoch_of(stream)) == len(stream)
    assert (stream.meter.images, stream.meter.batches) == (5 * 24, 5)
    assert stream.meter.wait_seconds > 0


def test_a_stream_that_is_dropped_or_left_by_an_error_takes_its_threads_along(ci_100: Path) -> None:
    before = set(threading.enumerate())
    stream = make(ci_100)
    next(iter(stream))
    del stream
    assert set(threading.enumerate()) <= before
    with pytest.raises(ZeroDivisionError), make(ci_100) as stream:
        raise ZeroDivisionError(next(iter(stream)))
    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize("path", ["", "test", "train/000000.tar"])
def test_what_is_not_a_split_is_refused(ci_100: Path, path: str) -> None:
    with pytest.raises(InputError, match="give a split of a data set"):
        ImageStream(ci_100 / path, batch_images=4)


def test_an_unknown_device_is_refused(ci_100: Path) -> None:
    with pytest.raises(InputError, match="device='tpu': must be cpu, cuda or cuda:N"):
        next(iter(make(ci_100, device="tpu")))
