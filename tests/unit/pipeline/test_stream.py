"""The stream delivers what its plan says, resumes exactly, and leaves nothing behind."""

import hashlib
import json
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from alexnet.pipeline import AugmentSettings, ImageStream
from alexnet.shards.errors import InputError
from tests.unit.pipeline.streams import epochs_of, labels_of, same, stream_of, together


def make(root: Path, **options: object) -> ImageStream:
    return stream_of(root, **{"batch_images": 24, **options})


def test_threads_and_depth_do_not_change_a_bit(ci_100: Path) -> None:
    expected = epochs_of(make(ci_100))
    for options in ({"threads": 1}, {"threads": 3}, {"depth": 1}, {"depth": 4}):
        assert same(expected, epochs_of(make(ci_100, **options))), options


@pytest.mark.parametrize("decode", ["dali", "host"])
@pytest.mark.parametrize(("ranks", "batch_images"), [(2, 24), (3, 24), (8, 24), (8, 5)])  # 8 ranks of 5: empty parts
def test_ranks_share_a_batch(ci_100: Path, ranks: int, batch_images: int, decode: str) -> None:
    options = {"drop_last": False, "batch_images": batch_images, "decode": decode, "output": "uint8"}
    whole = epochs_of(make(ci_100, **options))
    shares = [epochs_of(make(ci_100, rank=rank, ranks=ranks, **options)) for rank in range(ranks)]
    assert {len(share) for share in shares} == {len(whole)}, "all ranks take the same number of steps"
    assert same(whole, together(shares))


def test_resuming_on_another_number_of_ranks_gives_the_same_global_batches(ci_100: Path) -> None:
    with make(ci_100, rank=0, ranks=2) as stream:
        batches = iter(stream)
        next(batches)
        state = json.loads(json.dumps(stream.state()))
    whole = epochs_of(make(ci_100))[1:]
    shares = []
    for rank in range(3):
        part = make(ci_100, rank=rank, ranks=3)
        part.resume(state)
        shares.append(epochs_of(part))
    assert same(whole, together(shares))


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
        epochs = [[labels.tolist() for _, labels in stream] for _ in range(2)]
    assert len(stream) == 4
    assert epochs == [labels_of(stream, epoch) for epoch in range(2)]
    assert epochs[0] != epochs[1]


def test_an_epoch_left_half_way_is_not_taken_up_again(ci_100: Path) -> None:
    with make(ci_100) as stream:
        for _ in stream:
            break
        assert [labels.tolist() for _, labels in stream] == labels_of(stream, 1)


def test_an_iteration_cannot_be_taken_up_when_another_has_begun(ci_100: Path) -> None:
    """Both would move on one cursor, and each would lack what the other took."""
    with make(ci_100) as stream:
        left = iter(stream)
        next(left)
        other = iter(stream)
        assert next(other)[1].tolist() == labels_of(stream, 1)[0]
        with pytest.raises(RuntimeError, match="ended when another one began"):
            next(left)
        assert len(list(other)) == len(stream) - 1


def test_resuming_at_any_step_gives_the_same_batches(ci_100: Path) -> None:
    with make(ci_100) as stream:
        states, batches = [], []
        for _ in range(2):
            for images, labels in stream:
                batches.append((images.clone(), labels.tolist()))
                states.append(json.dumps(stream.state()))
    assert max(map(len, states)) < 400, "a state is a few hundred bytes"
    for done, state in enumerate(states[:6], start=1):
        with make(ci_100) as resumed:
            resumed.resume(json.loads(state))
            images, labels = next(iter(resumed))
            assert same([(images, labels.tolist())], batches[done : done + 1])


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
    assert len(epochs_of(stream)) == len(stream)
    assert (stream.meter.images, stream.meter.batches) == (5 * 24, 5)
    assert stream.meter.wait_seconds > 0


@pytest.mark.parametrize("path", ["", "test", "train/000000.tar"])
def test_what_is_not_a_split_is_refused(ci_100: Path, path: str) -> None:
    with pytest.raises(InputError, match="give a split of a data set"):
        ImageStream(ci_100 / path, batch_images=4)
