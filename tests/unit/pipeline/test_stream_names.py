"""The names that PyTorch and its frameworks know a loader by: state_dict, set_epoch, world_size, start, a dataset."""

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.checkpoint.stateful import Stateful
from torch.utils.data import DataLoader

import alexnet
from alexnet.pipeline import ImageStream
from alexnet.shards.errors import InputError, SampleError
from tests.planes import write_planes_set
from tests.unit.pipeline.photographs import pixels_of
from tests.unit.pipeline.streams import damaged, epochs_of, labels_of, same, stream_of


def test_the_package_has_the_stream_and_loads_neither_torch_nor_dali_for_it(ci_100: Path) -> None:
    program = (
        "import sys, alexnet; assert 'alexnet.pipeline' not in sys.modules; assert 'ImageStream' in dir(alexnet);"
        "from alexnet import *; from alexnet import AugmentSettings, BatchPlan, StreamSettings;"
        f"stream = ImageStream({str(ci_100 / 'train')!r}, batch_images=10, rank=0, world_size=1); print(len(stream));"
        "assert not {'torch', 'nvidia.dali'} & set(sys.modules);"
        "next(iter(stream)); assert 'PIL' not in sys.modules, 'whichever Pillow there is, batches are the same'"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "10\n"
    assert alexnet.ImageStream is ImageStream
    with pytest.raises(AttributeError, match="no attribute 'ImageStreams'"):
        alexnet.ImageStreams  # noqa: B018


@pytest.mark.filterwarnings("ignore")  # of one process, which it takes for one that forgot the others
def test_a_stream_is_what_torch_calls_stateful(ci_100: Path, tmp_path: Path) -> None:
    stream, again = stream_of(ci_100), stream_of(ci_100)
    assert isinstance(stream, Stateful)
    with stream:
        for _, _ in zip(range(2), stream, strict=False):
            pass
        torch.save({"stream": stream.state_dict()}, tmp_path / "run.pt")
        save({"stream": stream}, checkpoint_id=tmp_path / "run")
        rest = [(images.clone(), labels.tolist()) for images, labels in stream_at(stream, 0, 2)]
    again.load_state_dict(state_dict=torch.load(tmp_path / "run.pt", weights_only=True)["stream"])
    assert again.state() == again.state_dict() == {**stream.state(), "epoch": 0, "step": 2}
    assert same(epochs_of(again), rest)
    load({"stream": again}, checkpoint_id=tmp_path / "run")
    assert same(epochs_of(again), rest)


def stream_at(stream: ImageStream, epoch: int, step: int) -> ImageStream:
    stream.seek(epoch, step)
    return stream


def test_set_epoch_begins_an_epoch_and_keeps_the_place_that_was_resumed(ci_100: Path) -> None:
    """A loop sets the epoch before each iteration, the first one after a resume included."""
    with stream_of(ci_100) as stream:
        for epoch in (3, 0, 0, 1):
            stream.set_epoch(epoch)
            assert [labels.tolist() for _, labels in stream] == labels_of(stream, epoch)
        stream.set_epoch(5)
        next(iter(stream))
        stream.set_epoch(5)
        assert [labels.tolist() for _, labels in stream] == labels_of(stream, 5), "left half-way: from its start again"
        stream.resume({**stream.state(), "epoch": 7, "step": 2})
        stream.set_epoch(7)
        assert [labels.tolist() for _, labels in stream] == labels_of(stream, 7)[2:]
        stream.resume({**stream.state(), "epoch": 7, "step": 2})
        stream.set_epoch(8)
        assert [labels.tolist() for _, labels in stream] == labels_of(stream, 8)
        with pytest.raises(InputError, match="epochs count from 0"):
            stream.set_epoch(-1)
        with pytest.raises(InputError, match="epoch='1': must be a whole number"):
            stream.set_epoch("1")  # type: ignore[arg-type]


def test_len_is_the_whole_epochs_also_where_a_part_is_left(ci_100: Path) -> None:
    with stream_of(ci_100) as stream:
        stream.seek(2, 3)
        assert len(stream) == 4
        assert len(list(stream)) == len(stream) - 3


def test_start_decodes_before_the_first_batch_is_asked_for(ci_100: Path) -> None:
    """And yields the same: also where the epoch is another one after all."""
    expected = epochs_of(stream_of(ci_100))
    with stream_of(ci_100) as stream:
        stream.start()
        prefetcher = stream._prefetcher
        assert prefetcher is not None
        stream.start()
        batches = [(images.clone(), labels.tolist()) for images, labels in stream]
        assert stream._prefetcher is prefetcher, "the first batches were those that had been begun"
        assert same(batches, expected)
        stream.start()
        stream.set_epoch(6)
        assert [labels.tolist() for _, labels in stream] == labels_of(stream, 6)
    with pytest.raises(InputError, match="this machine has no GPU"):
        stream_of(ci_100, device="cuda").start()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"batch_size": 32, "rank": 1, "world_size": 8}, "^batch_size=32: give batch_images, .*: 8 times those of one"),
        ({"batch_size": 32, "batch_images": 32}, "^batch_size=32: give batch_images"),
        ({}, "^batch_images: must be given"),
    ],
)
def test_a_batch_is_named_by_what_it_counts(ci_100: Path, given: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        ImageStream(ci_100 / "train", **{"rank": 0, "world_size": 1, **given})
    with pytest.raises(TypeError, match="batch_image'"):
        ImageStream(ci_100 / "train", batch_image=32)  # type: ignore[call-arg]


def test_cuda_is_the_gpu_that_torch_was_told_to_use(ci_100: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As for torch: otherwise all processes of a machine would put their batches on its first GPU."""
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    for device, there in (("cuda", 3), (torch.device("cuda"), 3), (torch.device("cuda:1"), 1), ("cuda:0", 0)):
        assert stream_of(ci_100, device=device)._decoding.device == f"cuda:{there}"


def test_a_dataset_gives_the_stored_images_by_id(ci_100: Path, tmp_path: Path) -> None:
    stream = stream_of(ci_100)
    data = stream.dataset()
    assert len(data) == stream.images == 100
    assert [record.wnid for record in data.classes] == sorted({record.wnid for record in data.classes})
    for sample_id in (0, 17, 99):
        image, label = data[sample_id]
        assert image.dtype == torch.uint8
        assert torch.equal(image, torch.tensor(pixels_of(stream.sample(sample_id).stored)).permute(2, 0, 1))
        assert label == stream.sample(sample_id).label
    for sample_id in (-1, 100):
        with pytest.raises(IndexError, match=f"sample_id={sample_id}: the split has ids 0 to 99"):
            data[sample_id]
    assert data[True][1] == stream.sample(True).label == data[1][1]
    with pytest.raises(InputError, match="sample_id='1': must be a whole number"):
        data["1"]  # type: ignore[index]
    again = pickle.loads(pickle.dumps(data))
    assert torch.equal(again[5][0], data[5][0])
    planes = stream_of(write_planes_set(ci_100, tmp_path / "planes")).dataset()
    assert all(torch.equal(planes[i][0], data[i][0]) for i in range(0, 100, 9))


def test_the_workers_of_a_data_loader_read_a_dataset_while_its_stream_runs(ci_100: Path) -> None:
    """They are forked while the stream's threads may hold the lock of its own reader."""
    with stream_of(ci_100) as stream:
        stream.start()
        labels = [
            int(label) for _, batch in DataLoader(stream.dataset(), batch_size=16, num_workers=2) for label in batch
        ]
    assert labels == stream._reader.labels.tolist()


def test_a_damaged_image_of_a_dataset_is_named(ci_100: Path, tmp_path: Path) -> None:
    data = stream_of(damaged(ci_100, tmp_path / "set", 7, 0, bytes(2))).dataset()
    with pytest.raises(SampleError, match=r"000000\.tar: sample 7 \(.*\): cannot be decoded: "):
        data[7]
    assert data[8][0].any()
