"""Every decoder yields the same windows, and the same finished tensors as a NumPy reference."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from torch._dynamo.exc import TorchDynamoException

from alexnet.pipeline import AugmentSettings, ImageStream
from alexnet.pipeline.augment import BatchPlan, ten_views
from alexnet.pipeline.decode import on_dali
from alexnet.pipeline.normalize import normalization_of, normalized
from alexnet.pipeline.normalize_torch import _Fused
from alexnet.shards.errors import InputError
from alexnet.shards.reader import SplitReader
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


def windows_of(stream: ImageStream, plan: BatchPlan, crop_px: int = 224) -> npt.NDArray[np.uint8]:
    """Decode with Pillow, cut and mirror with NumPy."""
    windows = []
    for sample_id, (y, x), mirror in zip(plan.sample_ids, plan.crop_yx, plan.mirror, strict=True):
        pixels = np.asarray(Image.open(io.BytesIO(stream.sample(int(sample_id)).jpeg)).convert("RGB"))
        window = pixels[y : y + crop_px, x : x + crop_px]
        windows.append(window[:, ::-1] if mirror else window)
    return np.stack(windows)


def reference(stream: ImageStream, augment: AugmentSettings, ci_100: Path) -> npt.NDArray[np.float32]:
    plan = stream.plan(0, 0)
    reader = SplitReader(ci_100, "train")
    finish = normalization_of(augment, reader.manifest.colour, reader.mean_image(), training=True)
    return normalized(windows_of(stream, plan), plan.colour_offset, finish)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("decode", DECODERS)
def test_uint8_windows_equal_pillow_and_numpy_to_the_bit(make: MakeStream, decode: str, channels_last: bool) -> None:
    stream = make(decode, output="uint8", channels_last=channels_last)
    images = first_batch(stream)
    assert images.shape == (20, 3, 224, 224)
    assert images.dtype == torch.uint8
    assert images.is_contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
    assert np.array_equal(images.permute(0, 2, 3, 1).numpy(), windows_of(stream, stream.plan(0, 0)))


@pytest.mark.parametrize(
    "augment",
    [
        AugmentSettings(),
        AugmentSettings(scale="unit-variance", lighting="krizhevsky"),
        AugmentSettings(mean="image", crop_per="32-images", lighting_division=True),
        AugmentSettings(mean="image", scale="unit-variance", lighting="off", mirror=False),
    ],
    ids=["default", "unit-variance", "as in 2012", "mean image"],
)
@pytest.mark.parametrize("decode", DECODERS)
def test_float32_equals_the_numpy_reference(
    make: MakeStream, ci_100: Path, decode: str, augment: AugmentSettings
) -> None:
    stream = make(decode, augmentation=augment)
    images = first_batch(stream).permute(0, 2, 3, 1).numpy()
    expected = reference(stream, augment, ci_100)
    graph_finishes = decode == "dali" and augment.mean == "channel"
    np.testing.assert_allclose(images, expected, rtol=0, atol=DALI_ROUNDING if graph_finishes else 0)


@pytest.mark.parametrize("output", ["float16", "bfloat16"])
@pytest.mark.parametrize("decode", DECODERS)
def test_sixteen_bits_are_the_float32_reference_rounded_once(
    make: MakeStream, ci_100: Path, decode: str, output: str
) -> None:
    stream = make(decode, output=output, channels_last=True)
    images = first_batch(stream)
    assert images.is_contiguous(memory_format=torch.channels_last)
    expected = torch.from_numpy(reference(stream, AugmentSettings(), ci_100)).to(getattr(torch, output))
    assert torch.equal(images.permute(0, 2, 3, 1), expected)


@pytest.mark.parametrize("decode", DECODERS)
def test_ten_views_are_cut_from_each_image(make: MakeStream, ci_100: Path, decode: str) -> None:
    stream = make(decode, augment=False, views=10, batch_images=7)
    images = first_batch(stream)
    assert images.shape == (7, 10, 3, 224, 224)
    reader = SplitReader(ci_100, "train")
    finish = normalization_of(AugmentSettings(), reader.manifest.colour, training=False)
    for row in range(7):
        pixels = np.asarray(Image.open(io.BytesIO(stream.sample(row).jpeg)))
        for v, (y, x, mirror) in enumerate(ten_views(256, 224)):
            window = pixels[y : y + 224, x : x + 224]
            expected = normalized((window[:, ::-1] if mirror else window)[None], np.zeros((1, 3), np.float32), finish)
            assert np.array_equal(images[row, v].permute(1, 2, 0).numpy(), expected[0])


def test_crops_gathered_from_ranks_can_be_finished_as_one_batch(make: MakeStream) -> None:
    whole = make("host")
    parts = [make("host", rank=rank, ranks=3, output="uint8") for rank in range(3)]
    windows = torch.cat([first_batch(part) for part in parts]).permute(0, 2, 3, 1)
    means = whole.means_of(whole.global_plan(0, 0))
    assert torch.equal(whole.finish_pass()(windows, means), first_batch(whole))


def test_a_pass_that_cannot_be_compiled_goes_step_by_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine without a C compiler; other errors stay errors."""
    tried = []

    def fails(*_: object) -> torch.Tensor:
        tried.append(1)
        raise TorchDynamoException("Failed to find C compiler\nand much more")

    monkeypatch.setattr("torch.compile", lambda *_, **__: fails)
    fused = _Fused()
    windows = torch.arange(2 * 4 * 4 * 3, dtype=torch.uint8).reshape(2, 4, 4, 3)
    arguments = (windows, torch.zeros(3), torch.ones(2, 3), torch.full((3,), 0.5), torch.float32)
    with pytest.warns(UserWarning, match="as torch.compile fails: Failed to find C compiler$"):
        finished = fused(*arguments)
    assert torch.equal(finished, (windows.float() - 1) / 2)
    assert torch.equal(fused(*arguments), finished)
    assert len(tried) == 1
    with pytest.raises(RuntimeError, match="size of tensor"):
        fused(windows, torch.zeros(5), *arguments[2:])


def test_the_share_of_dali_is_a_hash_of_the_id() -> None:
    ids = np.arange(100_000)
    for share in (0.0, 0.25, 0.6, 1.0):
        chosen = on_dali(ids, share)
        # Four standard deviations of a binomial count.
        assert abs(chosen.mean() - share) <= 4 * (share * (1 - share) / len(ids)) ** 0.5
        assert np.array_equal(chosen[::7], on_dali(ids[::7], share))
    assert (on_dali(ids, 0.6) | ~on_dali(ids, 0.25)).all(), "a larger share keeps what the smaller one had"


@pytest.mark.parametrize("text", ["", "cpu", "split", "split=", "split=2", "split=-1", "split=x", "nvjpeg"])
def test_an_unknown_decoder_is_refused(make: MakeStream, text: str) -> None:
    with pytest.raises(InputError, match=f"^decode='{text}': must be default, gpu, dali, host, or split=SHARE"):
        make(text)


def test_a_gpu_decoder_on_a_cpu_is_refused(make: MakeStream) -> None:
    with pytest.raises(InputError, match=r"^decode='gpu': the stream's device is cpu"):
        make("gpu")


def test_the_default_is_the_host_decoder_on_a_cpu_and_dali_where_it_was_not_built(
    make: MakeStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert make("default").state()["decode"] == "host"
    monkeypatch.setattr("alexnet.pipeline.decode.available", lambda: "the host decoder was not built; install gcc")
    assert make("default").state()["decode"] == "dali"
    for named in ("host", "split=0.5"):
        with pytest.raises(InputError, match="the host decoder was not built; install gcc; or use decode='dali'"):
            make(named)


def test_a_stream_that_leaves_it_open_decodes_as_the_one_it_resumes(make: MakeStream) -> None:
    state = make("split=0.3").state()
    left_open = make("default")
    left_open.resume(state)
    assert left_open.state() == state
    assert torch.equal(first_batch(left_open), first_batch(make("split=0.3")))
    with pytest.raises(InputError, match=r"^decode: the state to resume from has 'split=0.3', this stream 'host'"):
        make("host").resume(state)


def test_what_went_by_speed_is_no_more(make: MakeStream) -> None:
    """A state that says so was taken by an earlier version, before anything was decoded."""
    with pytest.raises(InputError, match=r"^decode='auto': went by speed, .*; use decode='default'"):
        make("auto")
    stream = make("default")
    stream.resume({**stream.state(), "decode": "auto", "step": 2})
    assert stream.state() == {**make("default").state(), "step": 2}


def test_processes_that_torchrun_started_share_the_cores(
    make: MakeStream, ci_100: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("alexnet.pipeline.settings.usable_cores", lambda: 12)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert "host decoder, 3 threads" in make("host", threads=None).describe()[-1]
    assert "host decoder, 7 threads" in make("host", threads=7).describe()[-1]
    monkeypatch.setenv("RANK", "first")
    with pytest.raises(InputError, match=r"^RANK=first: must be a number, as torchrun sets it; or unset WORLD_SIZE"):
        ImageStream(ci_100 / "train", batch_images=20)
