"""A stream over planes is the stream over the JPEGs that they were decoded from: its batches, states and refusals."""

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alexnet.pipeline import AugmentSettings
from alexnet.pipeline import read as read_module
from alexnet.pipeline.host import available
from alexnet.shards.errors import InputError, SampleError
from alexnet.shards.planes import rgb_of_planes
from alexnet.shards.reader import SplitReader
from tests.planes import write_planes_set
from tests.unit.pipeline.photographs import pixels_of
from tests.unit.pipeline.streams import epochs_of, same, stream_of, together

pytestmark = pytest.mark.skipif(available() is not None, reason=str(available()))


@pytest.fixture(scope="module")
def planes(ci_100: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_planes_set(ci_100, tmp_path_factory.mktemp("planes") / "ci-100-planes")


@pytest.fixture
def root(planes: Path, tmp_path: Path) -> Path:
    """A copy that may be damaged."""
    return Path(shutil.copytree(planes, tmp_path / "set"))


WAYS: list[dict[str, Any]] = [
    {},
    {"output": "uint8"},
    {"output": "bfloat16", "channels_last": True},
    {"output": "float16", "augmentation": AugmentSettings(mean="image", crop_px=227)},
    {"augmentation": AugmentSettings(scale="unit-variance", lighting_division=True, lighting_epochs=1)},
    {"order": "blocks", "window_shards": 1, "read_ahead_batches": 0, "threads": 1, "depth": 1},
    {"augment": False, "drop_last": False, "batch_images": 30},
    {"augment": False, "views": 10, "output": "bfloat16"},
]


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_batches_are_those_of_the_jpegs_to_the_bit(ci_100: Path, planes: Path, way: dict[str, Any]) -> None:
    expected = epochs_of(stream_of(ci_100, decode="host", **way), 2)
    assert same(epochs_of(stream_of(planes, **way), 2), expected)


def test_ranks_share_batches_of_planes(ci_100: Path, planes: Path) -> None:
    shares = [epochs_of(stream_of(planes, batch_images=10, rank=rank, world_size=3)) for rank in range(3)]
    assert same(together(shares), epochs_of(stream_of(ci_100, batch_images=10, decode="host")))


def test_a_batch_of_more_shards_than_are_open_at_once(
    ci_100: Path, planes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("alexnet.pipeline.cpu.FILES_AT_ONCE", 7)
    assert same(epochs_of(stream_of(planes)), epochs_of(stream_of(ci_100, decode="host")))


def test_each_goes_on_from_the_others_state(ci_100: Path, planes: Path) -> None:
    whole = epochs_of(stream_of(ci_100, decode="host"), 2)
    for first, second in ((ci_100, planes), (planes, ci_100)):
        with stream_of(first, decode="host") as stream:
            for _, _ in zip(range(3), stream, strict=False):
                pass
            state = stream.state()
        stream = stream_of(second)
        stream.resume(state)
        assert same(epochs_of(stream, 2), whole[3:])


def test_a_sample_is_what_is_stored_of_the_image(ci_100: Path, planes: Path) -> None:
    jpeg, other = stream_of(ci_100).sample(7), stream_of(planes).sample(7)
    assert (jpeg.encoding, other.encoding) == ("jpeg", "planes-420")
    assert (other.key, other.shard, other.label) == (jpeg.key, jpeg.shard, jpeg.label)
    assert np.array_equal(rgb_of_planes(other.stored, 256, 256), pixels_of(jpeg.stored))


def test_what_another_decoder_made_is_not_gone_on_with(planes: Path) -> None:
    with stream_of(planes) as stream:
        state = stream.state() | {"decode": "dali"}
        with pytest.raises(InputError, match="decode: the state to resume from has 'dali', this stream 'host'"):
            stream.resume(state)


@pytest.mark.parametrize("decode", ["dali", "gpu", "split=0.5"])
def test_planes_are_not_decoded_again(planes: Path, decode: str) -> None:
    with pytest.raises(InputError, match="the data set holds planes, which are decoded already; leave it at default"):
        stream_of(planes, decode=decode)


def test_a_stream_says_that_nothing_is_decoded(planes: Path) -> None:
    assert "decoding: none, of planes" in stream_of(planes).describe()[-1]


def cut_short(root: Path, reader: SplitReader, sample_id: int) -> None:
    os.truncate(root / reader.shard(sample_id).file, int(reader.rows(np.array([sample_id]))[0]["offset"]) + 4096)


def gone(root: Path, reader: SplitReader, sample_id: int) -> None:
    (root / reader.shard(sample_id).file).unlink()


def changed(root: Path, reader: SplitReader, sample_id: int) -> None:
    """Write other bytes where the sample's header is: a tar of the same length that holds other samples."""
    with (root / reader.shard(sample_id).file).open("r+b") as file:
        file.seek(int(reader.rows(np.array([sample_id]))[0]["offset"]) - 512)
        file.write(b"00099999_another.yuv")


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (cut_short, "the tar ends at byte .*: it was cut short after this run began"),
        (gone, "No such file or directory"),
        (changed, "its place in the tar holds something else; the data were changed"),
    ],
)
def test_samples_that_cannot_be_had_stop_the_stream_or_are_left_out(
    root: Path, monkeypatch: pytest.MonkeyPatch, harm: Any, message: str
) -> None:
    monkeypatch.setattr("alexnet.pipeline.cpu.FILES_AT_ONCE", 3)  # the last is in a batch's second call
    last = len(SplitReader(root, "train")) - 1
    streams = [stream_of(root, augment=False, on_error=on_error) for on_error in ("stop", "skip")]
    harm(root, SplitReader(root, "train"), last)
    with pytest.raises(SampleError, match=message) as raised:
        epochs_of(streams[0])
    if harm is not gone:  # with its shard, all others of it
        assert raised.value.sample_id == last
        labels = [label for _, labels in epochs_of(streams[1]) for label in labels]
        assert len(labels) == last
    assert streams[1].meter.skipped == (harm is not gone)


def test_reading_a_batch_of_planes_looks_at_their_headers(root: Path) -> None:
    reader, ids = SplitReader(root, "train"), np.arange(5)
    with_reader = read_module.SampleReader(1, keep=1)
    assert all(np.array_equal(a, reader.stored(i)) for i, a in enumerate(with_reader.read(reader, ids).samples))
    changed(root, reader, 2)
    found = with_reader.read(reader, ids)
    assert [failure.sample_id for failure in found.failures] == [2]
    assert len(found.samples) == 4
