"""A stream elsewhere: copied, pickled, in a worker of a DataLoader, in another folder or process."""

import copy
import hashlib
import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from torch.utils.data import DataLoader, IterableDataset

from alexnet.pipeline import AugmentSettings, ImageStream
from alexnet.shards.errors import InputError, SampleError
from tests.unit.pipeline.streams import epochs_of, same, stream_of

Copy = Callable[[ImageStream], ImageStream]
CROP_32 = AugmentSettings(crop_px=32)


class Mine(ImageStream):
    """What a user may derive."""

    note = "none"


def pickled(stream: ImageStream) -> ImageStream:
    again = pickle.loads(pickle.dumps(stream))
    assert isinstance(again, ImageStream)
    return again


COPIES = [pickled, copy.deepcopy, copy.copy, lambda stream: pickled(copy.copy(pickled(stream)))]
OPTIONS: list[dict[str, Any]] = [
    {"augment": False, "views": 10, "augmentation": AugmentSettings(crop_px=64), "channels_last": True},
    {"rank": 1, "world_size": 3, "order": "blocks", "drop_last": False},
    {"augmentation": AugmentSettings(crop_px=64, lighting_division=True, lighting_epochs=1), "output": "bfloat16"},
]


@pytest.mark.parametrize("copied", COPIES, ids=["pickle", "deepcopy", "copy", "copy of copies"])
def test_a_copy_yields_what_the_stream_yields_and_moves_by_itself(ci_100: Path, copied: Copy) -> None:
    for options in OPTIONS:
        stream = stream_of(ci_100, **options)
        again = copied(stream)
        batches = epochs_of(stream, 2)
        assert again.state() == stream_of(ci_100, **options).state(), "it has not moved along"
        assert again.meter.batches == 0
        assert same(epochs_of(again, 2), batches)
        assert stream.state() == again.state()
        assert again.describe() == stream.describe()


@pytest.mark.parametrize("copied", COPIES, ids=["pickle", "deepcopy", "copy", "copy of copies"])
def test_a_copy_stands_where_the_stream_stands(ci_100: Path, copied: Copy) -> None:
    """Resumed, or closed: then neither takes up again the epoch that was left half-way. What was added is kept."""
    stream = Mine(ci_100 / "train", batch_images=25, seed=3, threads=1, rank=0, world_size=1)
    stream.note = "kept"
    stream.resume({**stream.state(), "epoch": 4, "step": 2})
    again = copied(stream)
    assert isinstance(again, Mine)
    assert again.note == "kept"
    assert (again.state()["epoch"], again.state()["step"]) == (4, 2)
    next(iter(stream))
    with pytest.raises(InputError, match=r"^this stream was started, .*; close\(\) it first, or pass on its state\(\)"):
        copied(stream)
    stream.close()
    again = copied(stream)
    assert same(epochs_of(again), epochs_of(stream))
    assert again.state()["epoch"] == 6


def test_an_error_of_a_sample_comes_from_another_process_as_it_is(data_set: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(data_set, tmp_path / "set"))
    stream = stream_of(root, batch_images=6, augmentation=CROP_32)
    for shard in root.glob("train/*.tar"):
        shard.unlink()
    with pytest.raises(SampleError) as raised:
        stream.sample(7)
    again = pickle.loads(pickle.dumps(raised.value))
    assert (type(again), again.sample_id, str(again)) == (SampleError, 7, str(raised.value))


def test_a_copy_over_other_data_is_refused(data_set: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(data_set, tmp_path / "set"))
    kept = pickle.dumps(stream_of(root, batch_images=6, augmentation=CROP_32))
    manifest = root / "manifest.json"
    whole = manifest.read_text()
    manifest.write_text(whole.replace("crane", "heron"))
    with pytest.raises(InputError, match="holds other data than when this reader was copied or pickled; make it anew"):
        pickle.loads(kept)
    manifest.unlink()
    with pytest.raises(InputError, match=r"holds no manifest\.json"):
        pickle.loads(kept)


class Wrapped(IterableDataset[Any]):
    """What people write who have to give a DataLoader."""

    def __init__(self, stream: ImageStream) -> None:
        self.stream = stream

    def __iter__(self) -> Iterator[Any]:
        return iter(self.stream)


def test_a_data_loader_without_workers_passes_the_epochs_on(ci_100: Path) -> None:
    stream = stream_of(ci_100)
    loader: DataLoader[Any] = DataLoader(Wrapped(stream), batch_size=None, num_workers=0)
    with stream:
        batches = [(images.clone(), labels.tolist()) for _ in range(2) for images, labels in loader]
    assert same(batches, epochs_of(stream_of(ci_100), 2))


@pytest.mark.parametrize("started", [False, True])
def test_in_a_worker_of_a_data_loader_a_stream_refuses(
    ci_100: Path, monkeypatch: pytest.MonkeyPatch, started: bool
) -> None:
    """Whether it came along or is made there; in its own process it goes on."""
    message = r"^a stream cannot run in a DataLoader's worker \(this is 1 of 2\): each .* iterate the stream itself"
    with stream_of(ci_100) as stream:
        if started:
            next(iter(stream))
        with monkeypatch.context() as patch:
            patch.setattr("torch.utils.data._utils.worker._worker_info", SimpleNamespace(id=1, num_workers=2))
            for here in (stream, stream_of(ci_100, rank=1, world_size=2)):
                with pytest.raises(InputError, match=message):
                    next(iter(here))
    epoch = 4 * int(started)
    assert same(epochs_of(stream), epochs_of(stream_of(ci_100), 2)[epoch : epoch + 4])


ELSEWHERE = """
import hashlib, json, os, pickle, sys
from torch.utils.data import DataLoader, IterableDataset
from alexnet.pipeline import ImageStream

class Wrapped(IterableDataset):
    def __init__(self, stream): self.stream = stream
    def __iter__(self): return iter(self.stream)

class Stored:
    def __init__(self, stream): self.stream = stream
    def __len__(self): return self.stream.images
    def __getitem__(self, i): return hashlib.sha256(self.stream.sample(i).stored).hexdigest()

if __name__ == "__main__":
    path, state, root = sys.argv[1:]
    stream = pickle.load(open(path, "rb"))
    resumed = ImageStream(root + "/train", batch_images=25, seed=3, threads=1, rank=0, world_size=1)
    resumed.resume(json.loads(state))
    print(*DataLoader(Stored(stream), batch_size=None, num_workers=2))
    batches = iter(DataLoader(Wrapped(stream), batch_size=None, num_workers=2))
    try: next(batches)
    except ValueError as error: print(str(error).strip().splitlines()[-1])
    for each in (stream, resumed):
        print(*(hashlib.sha256(images.numpy().tobytes()).hexdigest() for images, _ in each), flush=True)
    os._exit(0)  # the loader would wait five seconds for a worker that failed
"""


def test_in_another_process_and_folder_a_stream_goes_on_as_it_would_have_here(ci_100: Path, tmp_path: Path) -> None:
    """Pickled or resumed. DataLoader's workers get stored samples as they are, and for batches one line."""
    stream, (code, kept) = stream_of(ci_100), (tmp_path / "code.py", tmp_path / "stream")
    code.write_text(ELSEWHERE)
    stream.seek(1, 1)
    kept.write_bytes(pickle.dumps(stream))
    state = json.dumps(stream.state())
    told = {**os.environ, "RANK": "1", "WORLD_SIZE": "2"}  # which are that process's, not the stream's
    command = [sys.executable, str(code), str(kept), state, str(ci_100)]
    run = subprocess.run(command, cwd="/", env=told, capture_output=True, text=True, check=True)
    samples, refused, unpickled, resumed = run.stdout.splitlines()
    jpegs = (stream.sample(i).stored for i in range(stream.images))
    assert samples.split() == [hashlib.sha256(jpeg).hexdigest() for jpeg in jpegs]
    assert "a stream cannot run in a DataLoader's worker (this is 0 of 2)" in refused
    assert refused.endswith("or give the DataLoader num_workers=0")
    expected = [hashlib.sha256(images.numpy().tobytes()).hexdigest() for images, _ in epochs_of(stream)]
    assert unpickled.split() == resumed.split() == expected


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"decode": "dali", "order": "blocks"}, marks=pytest.mark.dali),
        {"augment": False, "views": 10},
        {"augmentation": AugmentSettings(crop_px=32, mean="image")},
    ],
)
def test_a_relative_path_holds_after_a_change_of_folder(
    data_set: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, options: dict[str, Any]
) -> None:
    given = {"batch_images": 6, "augmentation": CROP_32, **options}
    expected = epochs_of(stream_of(data_set, **given))
    monkeypatch.chdir(data_set.parent)
    streams = [stream_of(Path(data_set.name), **given)]
    monkeypatch.chdir(data_set)
    streams.append(stream_of(Path(), **given))
    monkeypatch.chdir(tmp_path)
    for stream in [*streams, copy.deepcopy(streams[0])]:
        assert stream.sample(3).key == stream_of(data_set, **given).sample(3).key
        assert same(epochs_of(stream), expected)
