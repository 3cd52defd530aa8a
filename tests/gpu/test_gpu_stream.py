"""The stream on a GPU: the same samples and draws as on the CPU, pixels that differ by rounding only, and exactness.

Two decoders are compared, nvJPEG and libjpeg-turbo. Both take the exact inverse DCT and interpolate chroma, but round
in different places: luma and each chroma value may be off by one. One level of Cb is 1.77 levels of blue, so one value
may be off by 1 + 1.77, rounded: 3, and 4 when the interpolation rounded, too. On average far less than one level.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from alexnet.pipeline import AugmentSettings, ImageStream
from alexnet.shards.errors import SampleError
from tests.unit.pipeline.streams import AMONG_THE_CODES, damaged, epochs_of, others_are_unharmed, same, stream_of

DECODERS = ["gpu", "host", "split=0.5"]
MEAN_LEVELS = 1.0
ROUNDED_LEVELS = 4.0
ROUNDED_SHARE = 0.999
BATCH_IMAGES = 32


def on(device: str, data: Path, **options: Any) -> ImageStream:
    """Open the training images of a set in batches of 32."""
    return stream_of(data, device=device, **{"batch_images": BATCH_IMAGES, "threads": None, **options})


def equal_but_for_rounding(a: torch.Tensor, b: torch.Tensor) -> bool:
    levels = (a.cpu() - b.cpu()).abs()
    rounded = (levels <= ROUNDED_LEVELS).float().mean().item()
    return levels.mean().item() < MEAN_LEVELS and rounded >= ROUNDED_SHARE


@pytest.mark.parametrize("channels_last", [False, True])
def test_gpu_batches_equal_cpu_batches_but_for_jpeg_rounding(ci_100: Path, channels_last: bool) -> None:
    with (
        on("cuda", ci_100, channels_last=channels_last) as gpu,
        on("cpu", ci_100, channels_last=channels_last) as cpu,
    ):
        for (gpu_images, gpu_labels), (cpu_images, cpu_labels) in zip(gpu, cpu, strict=True):
            assert gpu_images.is_cuda
            assert gpu_labels.is_cuda
            assert gpu_images.dtype == torch.float32
            assert gpu_images.shape == (BATCH_IMAGES, 3, 224, 224)
            layout = torch.channels_last if channels_last else torch.contiguous_format
            assert gpu_images.is_contiguous(memory_format=layout)
            assert torch.equal(gpu_labels.cpu(), cpu_labels)
            assert equal_but_for_rounding(gpu_images, cpu_images)
            assert not equal_but_for_rounding(gpu_images, cpu_images.flip(-1)), (
                "the tolerance would hide a mirrored batch"
            )
            assert not equal_but_for_rounding(gpu_images, cpu_images.roll(1, -1)), "it would hide a shifted window"


def test_the_plan_does_not_depend_on_the_device(ci_100: Path) -> None:
    gpu, cpu = on("cuda", ci_100), on("cpu", ci_100)
    for step in range(len(gpu)):
        a, b = gpu.plan(1, step), cpu.plan(1, step)
        for name in ("sample_ids", "crop_yx", "mirror", "colour_offset"):
            assert np.array_equal(getattr(a, name), getattr(b, name))


def test_evaluation_yields_each_image_once_with_a_partial_last_batch(ci_100: Path) -> None:
    stream = on("cuda", ci_100, batch_images=64, augment=False)
    batches = [labels for _, labels in epochs_of(stream)]
    assert [len(labels) for labels in batches] == [64, 36]
    assert [label for labels in batches for label in labels] == [stream.sample(i).label for i in range(stream.images)]


@pytest.mark.parametrize("decode", DECODERS)
def test_two_epochs_and_a_resume_are_bit_identical(ci_100: Path, decode: str) -> None:
    whole = epochs_of(on("cuda", ci_100, decode=decode), 2)
    assert same(whole, epochs_of(on("cuda", ci_100, decode=decode), 2))
    with on("cuda", ci_100, decode=decode) as interrupted:
        next(iter(interrupted))
        state = interrupted.state()
    resumed = on("cuda", ci_100, decode=decode)
    resumed.resume(state)
    assert same(whole[1:], epochs_of(resumed, 2))


@pytest.mark.parametrize("output", ["float16", "bfloat16"])
@pytest.mark.parametrize("channels_last", [False, True])
def test_sixteen_bits_are_the_float32_graph_rounded_once(ci_100: Path, output: str, channels_last: bool) -> None:
    dtype = getattr(torch, output)
    with (
        on("cuda", ci_100, channels_last=channels_last) as full,
        on("cuda", ci_100, channels_last=channels_last, output=output) as half,
    ):
        for (wide, _), (narrow, _) in zip(full, half, strict=True):
            assert narrow.dtype == dtype
            layout = torch.channels_last if channels_last else torch.contiguous_format
            assert narrow.is_contiguous(memory_format=layout)
            # The float32 graph rounds twice, each time by at most 2^-16: a value next to a tie may fall on either side.
            apart = (narrow.float() - wide.to(dtype).float()).abs()
            spacing = torch.finfo(dtype).eps * wide.abs().clamp(min=1.0)
            assert (apart <= spacing).all()
            assert (apart == 0).float().mean().item() > 0.99


@pytest.mark.parametrize("decode", DECODERS)
def test_every_decoder_feeds_a_gpu(ci_100: Path, decode: str) -> None:
    with (
        on("cuda", ci_100, output="uint8", decode=decode) as gpu,
        on("cpu", ci_100, output="uint8") as cpu,
    ):
        for (gpu_images, gpu_labels), (cpu_images, cpu_labels) in zip(gpu, cpu, strict=True):
            assert gpu_images.is_cuda
            assert torch.equal(gpu_labels.cpu(), cpu_labels)
            assert equal_but_for_rounding(gpu_images.cpu().float(), cpu_images.float())
            if decode == "host":
                assert torch.equal(gpu_images.cpu(), cpu_images)
        assert gpu.meter.device_wait_seconds >= 0
        assert gpu.meter.peak_device_bytes > 0
        assert gpu.state()["decode"] in ("dali", "host") or gpu.state()["decode"].startswith("split=")


def test_a_gpu_that_waits_for_batches_is_seen_to_wait(ci_100: Path) -> None:
    """Nothing is computed here, so the device stands still for as long as the consumer does."""
    with on("cuda", ci_100, threads=1, decode="host") as stream:
        for _ in range(3):
            for _ in stream:
                pass
        torch.cuda.synchronize()
        assert stream.meter.device_wait_seconds > stream.meter.wait_seconds / 2


@pytest.mark.parametrize("output", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("mean", ["channel", "image"])
def test_crops_are_normalized_on_the_gpu_to_the_bits_of_the_cpu(ci_100: Path, mean: Any, output: str) -> None:
    """The same uint8 crops and the same operations, in one kernel."""
    augmentation = AugmentSettings(mean=mean, scale="unit-variance")
    options = {"decode": "host", "augmentation": augmentation, "output": output, "channels_last": True}
    with on("cuda", ci_100, **options) as gpu, on("cpu", ci_100, **options) as cpu:
        for (gpu_images, _), (cpu_images, _) in zip(gpu, cpu, strict=True):
            assert torch.equal(gpu_images.cpu(), cpu_images)


def test_a_damaged_image_is_named_and_can_be_skipped_on_the_gpu(ci_100: Path, tmp_path: Path) -> None:
    root = damaged(ci_100, tmp_path / "set", 5, 0, bytes(200))
    with on("cuda", root, augment=False) as stream, pytest.raises(SampleError, match="sample 5 "):
        list(stream)
    with on("cuda", root, augment=False, on_error="skip") as stream:
        assert sum(len(labels) for _, labels in stream) == 99
        assert stream.meter.skipped == 1


@pytest.mark.parametrize("decode", DECODERS)
@pytest.mark.parametrize("what", AMONG_THE_CODES)
def test_damage_among_the_codes_harms_no_other_image_on_the_gpu(
    ci_100: Path, tmp_path: Path, decode: str, what: str
) -> None:
    """Whether nvJPEG refuses such an image or takes it, the same damage each time has the same end."""
    root = damaged(ci_100, tmp_path / "set", 5, None, AMONG_THE_CODES[what])
    options = {"augment": False, "output": "uint8", "decode": decode}

    def taken() -> bool:
        return others_are_unharmed(on("cuda", ci_100, **options), on("cuda", root, on_error="skip", **options), 5)

    first = taken()
    assert taken() is first
    assert not (first and decode == "host")
