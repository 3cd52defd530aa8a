"""The stream on a GPU: the same samples and draws as on the CPU, pixels that differ by rounding only, and exactness.

Two decoders are compared, nvJPEG and libjpeg-turbo. Both take the exact inverse DCT and interpolate chroma, but round
in different places: luma and each chroma value may be off by one. One level of Cb is 1.77 levels of blue, so one value
may be off by 1 + 1.77, rounded: 3, and 4 when the interpolation rounded, too. On average far less than one level.
"""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from alexnet.pipeline import AugmentSettings, ImageStream, StreamSettings
from alexnet.shards.errors import SampleError
from alexnet.shards.reader import SplitReader

pytest.importorskip("nvidia.dali")

MEAN_LEVELS = 1.0
ROUNDED_LEVELS = 4.0
ROUNDED_SHARE = 0.999
BATCH_IMAGES = 32

Batch = tuple[torch.Tensor, torch.Tensor]


def stream_of(data: Path, device: str, **options: Any) -> ImageStream:
    """Open the training images of a set in batches of 32."""
    given = {"batch_images": BATCH_IMAGES, "seed": 3, "rank": 0, "ranks": 1} | options
    return ImageStream(data / "train", device=device, **given)


def equal_but_for_rounding(a: torch.Tensor, b: torch.Tensor) -> bool:
    levels = (a.cpu() - b.cpu()).abs()
    rounded = (levels <= ROUNDED_LEVELS).float().mean().item()
    return levels.mean().item() < MEAN_LEVELS and rounded >= ROUNDED_SHARE


def bit_identical(a: list[Batch], b: list[Batch]) -> bool:
    pairs = zip(a, b, strict=True)
    return all(torch.equal(x[0], y[0]) and torch.equal(x[1], y[1]) for x, y in pairs)


def batches_of(stream: ImageStream, epochs: int = 1) -> list[Batch]:
    return [(images.cpu(), labels.cpu()) for _ in range(epochs) for images, labels in stream]


@pytest.mark.parametrize("channels_last", [False, True])
def test_gpu_batches_equal_cpu_batches_but_for_jpeg_rounding(ci_100: Path, channels_last: bool) -> None:
    with (
        stream_of(ci_100, "cuda", channels_last=channels_last) as gpu,
        stream_of(ci_100, "cpu", channels_last=channels_last) as cpu,
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
    gpu, cpu = stream_of(ci_100, "cuda"), stream_of(ci_100, "cpu")
    for step in range(len(gpu)):
        a, b = gpu.plan(1, step), cpu.plan(1, step)
        for name in ("sample_ids", "crop_yx", "mirror", "colour_offset"):
            assert np.array_equal(getattr(a, name), getattr(b, name))


def test_evaluation_yields_each_image_once_with_a_partial_last_batch(ci_100: Path) -> None:
    with stream_of(ci_100, "cuda", batch_images=64, augment=False) as stream:
        batches = batches_of(stream)
        expected = [stream.sample(i).label for i in range(stream.images)]
    assert [len(labels) for _, labels in batches] == [64, 36]
    assert torch.cat([labels for _, labels in batches]).tolist() == expected


def test_two_epochs_and_a_resume_are_bit_identical(ci_100: Path) -> None:
    with stream_of(ci_100, "cuda") as once, stream_of(ci_100, "cuda") as again:
        whole = batches_of(once, epochs=2)
        assert bit_identical(whole, batches_of(again, epochs=2))
    with stream_of(ci_100, "cuda") as interrupted:
        first = next(iter(interrupted))
        state = interrupted.state()
    with stream_of(ci_100, "cuda") as resumed:
        resumed.resume(state)
        rest = batches_of(resumed, epochs=2)
    assert bit_identical(whole, [(first[0].cpu(), first[1].cpu()), *rest])


@pytest.mark.parametrize("output", ["float16", "bfloat16"])
@pytest.mark.parametrize("channels_last", [False, True])
def test_sixteen_bits_are_the_float32_graph_rounded_once(ci_100: Path, output: str, channels_last: bool) -> None:
    dtype = getattr(torch, output)
    with (
        stream_of(ci_100, "cuda", channels_last=channels_last) as full,
        stream_of(ci_100, "cuda", channels_last=channels_last, output=output) as half,
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


@pytest.mark.parametrize("decode", ["gpu", "host", "split=0.5"])
def test_every_decoder_feeds_a_gpu(ci_100: Path, decode: str) -> None:
    with (
        stream_of(ci_100, "cuda", output="uint8", settings=StreamSettings(decode=decode)) as gpu,
        stream_of(ci_100, "cpu", output="uint8") as cpu,
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
    with stream_of(ci_100, "cuda", threads=1, settings=StreamSettings(decode="host")) as stream:
        for _ in range(3):
            for _ in stream:
                pass
        torch.cuda.synchronize()
        assert stream.meter.device_wait_seconds > stream.meter.wait_seconds / 2


def test_a_mean_image_is_subtracted_on_the_gpu(ci_100: Path) -> None:
    augmentation = AugmentSettings(mean="image", scale="unit-variance")
    options = {"settings": StreamSettings(decode="host"), "augmentation": augmentation}
    with stream_of(ci_100, "cuda", **options) as gpu, stream_of(ci_100, "cpu", **options) as cpu:
        for (gpu_images, _), (cpu_images, _) in zip(gpu, cpu, strict=True):
            # The same uint8 windows and the same three operations, in one compiled kernel: each rounds once.
            torch.testing.assert_close(gpu_images.cpu(), cpu_images, rtol=2.0**-22, atol=2.0**-22)


def test_a_damaged_image_is_named_and_can_be_skipped_on_the_gpu(ci_100: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(ci_100, tmp_path / "set"))
    row = SplitReader(root, "train").rows(np.array([5]))[0]
    with (root / "train/000000.tar").open("r+b") as file:
        file.seek(int(row["offset"]))
        file.write(bytes(200))
    with stream_of(root, "cuda", augment=False) as stream, pytest.raises(SampleError, match="sample 5 "):
        list(stream)
    with stream_of(root, "cuda", augment=False, settings=StreamSettings(on_error="skip")) as stream:
        assert sum(len(labels) for _, labels in stream) == 99
        assert stream.meter.skipped == 1
