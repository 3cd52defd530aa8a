"""What a stream does when storage fails it, and what it leaves behind: nothing."""

import contextlib
import gc
import os
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alexnet.pipeline import AugmentSettings, ImageStream
from alexnet.pipeline.host import available
from alexnet.shards.errors import SampleError
from alexnet.shards.reader import SplitReader
from tests.unit.pipeline.streams import DECODERS, epochs_of, stream_of


@pytest.fixture
def root(data_set: Path, tmp_path: Path) -> Path:
    """A data set that may be damaged: 24 training images in three shards."""
    return Path(shutil.copytree(data_set, tmp_path / "set"))


def make(root: Path, **options: Any) -> ImageStream:
    return stream_of(root, **{"batch_images": 6, "seed": 1, "augmentation": AugmentSettings(crop_px=32), **options})


def damage(root: Path, sample_id: int) -> str:
    """Overwrite a JPEG's first bytes in place; return its shard's name."""
    reader = SplitReader(root, "train")
    row = reader.rows(np.array([sample_id]))[0]
    path = root / reader.shard(sample_id).file
    with path.open("r+b") as file:
        file.seek(int(row["offset"]))
        file.write(bytes(200))
    return reader.shard(sample_id).file


def labels_of(stream: ImageStream) -> list[int]:
    return [label for _, labels in epochs_of(stream) for label in labels]


@pytest.mark.parametrize("decode", DECODERS)
def test_a_damaged_image_stops_the_stream_and_is_named(root: Path, decode: str) -> None:
    shard = damage(root, 13)
    stream = make(root, decode=decode)
    for _ in range(2):  # and again, rather than waiting for a thread that is gone
        with pytest.raises(SampleError, match=rf"{shard}: sample 13 \(000000\d\d_n\d+_\d\): .") as raised:
            labels_of(stream)
        assert raised.value.sample_id == 13


@pytest.mark.parametrize("decode", DECODERS)
def test_a_damaged_image_can_be_skipped_and_is_counted(root: Path, decode: str) -> None:
    whole = make(root, decode=decode, augment=False)
    expected = labels_of(whole)
    bad = (2, 7, 8, *range(12, 18))  # all of the third batch
    shards = [damage(root, sample_id) for sample_id in bad]
    stream = make(root, decode=decode, augment=False, on_error="skip")
    with stream:
        shapes = [(tuple(images.shape), len(labels)) for images, labels in stream]
    assert shapes == [((n, 3, 32, 32), n) for n in (5, 4, 0, 6)]
    assert (stream.meter.skipped, stream.meter.images) == (9, len(expected) - 9)
    assert [line.split(": ")[1].split()[1] for line in stream.meter.last_skipped] == [str(i) for i in bad]
    assert all(shard in line for shard, line in zip(shards, stream.meter.last_skipped, strict=True))
    assert labels_of(stream) == [label for i, label in enumerate(expected) if i not in bad]


@pytest.mark.parametrize("decode", DECODERS)
def test_a_shard_that_vanishes_is_named_or_skipped(root: Path, decode: str) -> None:
    stopping, skipping = make(root, decode=decode), make(root, decode=decode, on_error="skip", drop_last=False)
    (root / "train/000001.tar").unlink()
    with pytest.raises(SampleError, match=r"000001\.tar: sample 1\d: No such file or directory"):
        labels_of(stopping)
    assert (len(labels_of(skipping)), skipping.meter.skipped) == (14, 10)


@pytest.mark.parametrize("decode", DECODERS)
def test_a_shard_cut_short_while_it_is_read_is_named_and_kills_nothing(root: Path, decode: str) -> None:
    stream = make(root, decode=decode, augment=False, batch_images=1)  # few of the 24 are read ahead
    with stream:
        batches = iter(stream)
        next(batches)
        os.truncate(root / "train/000002.tar", 700)
        with pytest.raises(SampleError, match=r"000002\.tar: sample \d\d: the tar ends at byte 700, inside it"):
            list(batches)


def open_files() -> set[str]:
    found = set()
    for link in Path("/proc/self/fd").iterdir():
        try:
            found.add(str(link.readlink()))
        except OSError:
            continue  # the listing's own
    return found


def children() -> set[str]:
    found: set[str] = set()
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread that ended meanwhile
            found |= set((task / "children").read_text().split())
    return found


def break_off(stream: ImageStream) -> None:
    for _ in stream:
        raise ZeroDivisionError


@pytest.fixture
def nothing_left() -> Iterator[None]:
    """Compare threads, children and open data files before and after."""
    threads, files, before = set(threading.enumerate()), open_files(), children()
    yield
    assert set(threading.enumerate()) <= threads
    assert {name for name in open_files() - files if ".tar" in name or "shm" in name} == set()
    assert children() <= before


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize("decode", DECODERS)
@pytest.mark.parametrize("end", ["close", "drop"])
def test_nothing_is_left_of_a_stream(root: Path, decode: str, end: str) -> None:
    """At once, and not when Python's collector finds the time."""
    gc.disable()
    try:
        stream = make(root, decode=decode)
        next(iter(stream))
        assert any(".tar" in name for name in open_files())
        if end == "close":
            stream.close()
        del stream
        assert {name for name in open_files() if str(root) in name} == set()
    finally:
        gc.enable()


@pytest.mark.usefixtures("nothing_left")
def test_nothing_is_left_after_an_exception_or_a_damaged_image(root: Path) -> None:
    with pytest.raises(ZeroDivisionError), make(root) as stream:
        break_off(stream)
    damage(root, 3)
    with pytest.raises(SampleError):
        for _ in make(root):
            pass


LOOP = """
import signal, sys
from alexnet.pipeline import AugmentSettings, ImageStream
signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever was inherited
signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
stream = ImageStream(sys.argv[1] + "/train", batch_images=6, augmentation=AugmentSettings(crop_px=32))
next(iter(stream))
print("begun", flush=True)
while True:
    for _ in stream:
        pass
"""


def test_a_process_that_is_interrupted_ends(root: Path) -> None:
    command = [sys.executable, "-c", LOOP, str(root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=120)
        process.kill()
    assert process.returncode in (1, -signal.SIGINT)


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("decode", ["dali", "host"])
def test_memory_is_flat_over_fifty_epochs(root: Path, decode: str) -> None:
    with make(root, decode=decode) as stream:
        after = []
        for _ in range(50):
            for _ in stream:
                pass
            after.append(resident_bytes())
    assert after[-1] - after[1] < 20e6


@pytest.mark.skipif(available() is not None, reason=f"no host decoder: {available()}")
def test_the_host_decoder_takes_no_fresh_memory_over_forty_epochs(ci_100: Path) -> None:
    """A batch of fresh memory would fault in each of its 2,940 pages."""
    faults, resident = [], []
    with stream_of(ci_100, batch_images=20, decode="host") as stream:  # threads take memory when they first have work
        for _ in range(40):
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            batches = sum(1 for _ in stream)
            faults.append((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / batches)
            resident.append(resident_bytes())
    assert statistics.median(faults[10:]) < 300
    assert resident[-1] - resident[10] < 40e6, "three batches, as a buffer more may be needed late; not hundreds"
