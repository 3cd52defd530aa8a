"""Every decoder yields the same crops, and the same finished tensors as a NumPy reference; and which decoder it is."""

import re
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from alexnet.pipeline import AugmentSettings, ImageStream
from alexnet.pipeline.augment import ten_views
from alexnet.pipeline.decode import on_dali
from alexnet.pipeline.normalize import normalization_of, normalized
from alexnet.shards.errors import InputError
from alexnet.shards.reader import SplitReader
from tests.unit.pipeline.photographs import pixels_of, window_of
from tests.unit.pipeline.streams import DECODERS, stream_of

# DALI computes x * (1/std) - mean/std; each side rounds once or twice at magnitudes up to 255: 2^-16 each.
DALI_ROUNDING = 2.0**-15

MakeStream = Callable[..., ImageStream]


@pytest.fixture
def make(ci_100: Path) -> MakeStream:
    return lambda decode, **options: stream_of(ci_100, decode=decode, **{"batch_images": 20, **options})


def first_batch(stream: ImageStream) -> torch.Tensor:
    with stream:
        images, _ = next(iter(stream))
    return images


def reference(stream: ImageStream, augment: AugmentSettings, ci_100: Path, *, views: bool) -> Any:
    """Decode a stream's first batch with Pillow, cut and mirror it with NumPy; return (uint8, float32) of it, NHWC.

    With ten views their rows follow each other, image by image.
    """
    plan, reader = stream.plan(0, 0), SplitReader(ci_100, "train")
    crops, offsets = [], []
    for row, sample_id in enumerate(plan.sample_ids.tolist()):
        whole = pixels_of(stream.sample(sample_id).stored)
        y, x = plan.crop_yx[row].tolist()
        for y_, x_, mirror in ten_views(256, 224) if views else [(y, x, bool(plan.mirror[row]))]:
            crops.append(window_of(whole, np.array([y_, x_]), 224, mirror))
            offsets.append(plan.colour_offset[row])
    finish = normalization_of(augment, reader.manifest.colour, reader.mean_image(), training=not views)
    return np.stack(crops), normalized(np.stack(crops), np.stack(offsets), finish)


IN_2012 = AugmentSettings(mean="image", crop_per="32-images", lighting_division=True)
CASES: dict[str, dict[str, Any]] = {
    "uint8": {"output": "uint8"},
    "uint8, channels last": {"output": "uint8", "channels_last": True},
    "float32": {},
    "unit variance": {"augmentation": AugmentSettings(scale="unit-variance", lighting="krizhevsky")},
    "as in 2012": {"augmentation": IN_2012},
    "mean image": {"augmentation": AugmentSettings(mean="image", scale="unit-variance", lighting="off", mirror=False)},
    "float16": {"output": "float16", "channels_last": True},
    "bfloat16": {"output": "bfloat16", "channels_last": True},
    "ten views": {"augment": False, "views": 10, "batch_images": 7},
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("decode", DECODERS)
def test_batches_equal_pillow_and_numpy(make: MakeStream, ci_100: Path, decode: str, case: str) -> None:
    """To the bit, but where DALI's graph normalizes; 16 bits are the float32 reference rounded once."""
    options = CASES[case]
    augment, output, views = options.get("augmentation", AugmentSettings()), options.get("output", "float32"), "views"
    stream = make(decode, **options)
    images = first_batch(stream)
    assert images.dtype == getattr(torch, output)
    if views in options:
        assert images.shape == (7, 10, 3, 224, 224)
        images = images.flatten(0, 1)
    else:
        assert images.shape == (20, 3, 224, 224)
        last = options.get("channels_last", False)
        assert images.is_contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)
    crops, finished = reference(stream, augment, ci_100, views=views in options)
    expected = torch.from_numpy(crops if output == "uint8" else finished).to(images.dtype)
    if decode == "dali" and output == "float32" and augment.mean == "channel" and views not in options:
        torch.testing.assert_close(images.permute(0, 2, 3, 1), expected, rtol=0, atol=DALI_ROUNDING)
    else:
        assert torch.equal(images.permute(0, 2, 3, 1), expected)


def test_crops_gathered_from_ranks_can_be_finished_as_one_batch(make: MakeStream) -> None:
    whole = make("host")
    parts = [make("host", rank=rank, world_size=3, output="uint8") for rank in range(3)]
    crops = torch.cat([first_batch(part) for part in parts]).permute(0, 2, 3, 1)
    means = whole.means_of(whole.global_plan(0, 0))
    assert torch.equal(whole.finish_pass()(crops, means), first_batch(whole))


def test_the_share_of_dali_is_a_hash_of_the_id() -> None:
    ids = np.arange(100_000)
    for share in (0.0, 0.25, 0.6, 1.0):
        chosen = on_dali(ids, share)
        # Four standard deviations of a binomial count.
        assert abs(chosen.mean() - share) <= 4 * (share * (1 - share) / len(ids)) ** 0.5
        assert np.array_equal(chosen[::7], on_dali(ids[::7], share))
    assert (on_dali(ids, 0.6) | ~on_dali(ids, 0.25)).all(), "a larger share keeps what the smaller one had"


UNKNOWN = ["", "cpu", "host=1", "split", "split=", "split=2", "split=-1", "split=nan", "split=x", "nvjpeg"]


@pytest.mark.parametrize(
    ("decode", "message"),
    [
        *((text, f"^decode='{text}': must be default, gpu, dali, host, or split=SHARE") for text in UNKNOWN),
        ("gpu", r"^decode='gpu': the stream's device is cpu"),
        ("auto", r"^decode='auto': went by speed, .*; use decode='default'"),
    ],
)
def test_a_decoder_that_is_none_is_refused(make: MakeStream, decode: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make(decode)


@pytest.mark.dali
def test_the_default_is_the_host_decoder_on_a_cpu_and_dali_where_it_was_not_built(
    make: MakeStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert make("default").state()["decode"] == "host"
    names = {"split=0": "host", "split=1": "dali", "split=0.50": "split=0.5", "split=0.60000001": "split=0.6"}
    assert {text: make(text).state()["decode"] for text in names} == names
    monkeypatch.setattr("alexnet.pipeline.decode.available", lambda: "the host decoder was not built; install gcc")
    assert make("default").state()["decode"] == "dali"
    for named in ("host", "split=0.5"):
        with pytest.raises(InputError, match="the host decoder was not built; install gcc; or use decode='dali'"):
            make(named)


@pytest.mark.dali
def test_the_default_is_dali_on_a_gpu_and_the_host_decoder_where_it_is_not_installed(
    make: MakeStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert make("default", device="cuda").state()["decode"] == "dali"
    state = make("default", device="cuda").state()
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *_: None if name == "nvidia.dali" else find_spec(name))
    left_open = make("default", device="cuda")
    assert left_open.state()["decode"] == "host"
    missing = r"NVIDIA DALI is not installed \(pip install 'alexnet\[cuda13\]', for Linux on x86-64 and Arm\)"
    assert re.fullmatch(f"decoding: host decoder, 2 threads; {missing}", left_open.describe()[-1])
    assert make("default").describe()[-1] == "decoding: host decoder, 2 threads"
    for named, device in (("dali", "cpu"), ("gpu", "cuda"), ("split=0.5", "cuda")):
        with pytest.raises(InputError, match=rf"^decode='{named}': {missing}; or use decode='host'$"):
            make(named, device=device)
    with pytest.raises(InputError, match=missing):
        left_open.resume(state)
    monkeypatch.setattr("alexnet.pipeline.decode.available", lambda: "the host decoder was not built")
    with pytest.raises(InputError, match=rf"^decode='dali': {missing}$"):
        make("default", device="cuda")


@pytest.mark.dali
def test_a_stream_that_leaves_it_open_decodes_as_the_one_it_resumes(make: MakeStream) -> None:
    state = make("split=0.3").state()
    left_open = make("default")
    left_open.resume(state)
    assert left_open.state() == state
    assert torch.equal(first_batch(left_open), first_batch(make("split=0.3")))
    with pytest.raises(InputError, match=r"^decode: the state to resume from has 'split=0.3', this stream 'host'"):
        make("host").resume(state)
    # A state that says `auto` was taken by an earlier version, before anything was decoded.
    earlier = make("default")
    earlier.resume({**earlier.state(), "decode": "auto", "step": 2})
    assert earlier.state() == {**make("default").state(), "step": 2}


def test_processes_that_torchrun_started_share_the_cores(
    make: MakeStream, ci_100: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("alexnet.pipeline.settings.usable_cores", lambda: 12)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert "host decoder, 3 threads" in make("host", threads=None).describe()[-1]
    assert "host decoder, 7 threads" in make("host", threads=7).describe()[-1]
    for name, text, least in (("RANK", "first", 0), ("WORLD_SIZE", "0", 1), ("LOCAL_WORLD_SIZE", "-4", 1)):
        monkeypatch.setenv(name, text)
        refusal = rf"^{name}={text}: must be a number from {least}, as torchrun sets it; or unset it"
        with pytest.raises(InputError, match=refusal):
            ImageStream(ci_100 / "train", batch_images=20)
        monkeypatch.delenv(name)
