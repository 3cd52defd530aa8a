"""The stream on a GPU: the same samples and draws as on the CPU, pixels that differ by rounding only, and exactness.

Two decoders are compared, nvJPEG and libjpeg-turbo. Both take the exact inverse DCT and interpolate chroma, but round
in different places: luma and each chroma value may be off by one. One level of Cb is 1.77 levels of blue, so one value
may be off by 1 + 1.77, rounded: 3, and 4 when the interpolation rounded, too. On average far less than one level.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

from alexnet.pipeline import ImageStream

pytest.importorskip("nvidia.dali")

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU that PyTorch can use"),
]

MEAN_LEVELS = 1.0
ROUNDED_LEVELS = 4.0
ROUNDED_SHARE = 0.999
BATCH_IMAGES = 32

Batch = tuple[torch.Tensor, torch.Tensor]


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
    options = {"batch_images": BATCH_IMAGES, "seed": 3, "rank": 0, "ranks": 1}
    with (
        ImageStream(ci_100 / "train", device="cuda", channels_last=channels_last, **options) as gpu,  # type: ignore[arg-type]
        ImageStream(ci_100 / "train", device="cpu", channels_last=channels_last, **options) as cpu,  # type: ignore[arg-type]
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
    gpu = ImageStream(ci_100 / "train", batch_images=BATCH_IMAGES, rank=0, ranks=1, device="cuda")
    cpu = ImageStream(ci_100 / "train", batch_images=BATCH_IMAGES, rank=0, ranks=1, device="cpu")
    for step in range(len(gpu)):
        a, b = gpu.plan(1, step), cpu.plan(1, step)
        for name in ("sample_ids", "crop_yx", "mirror", "colour_offset"):
            assert np.array_equal(getattr(a, name), getattr(b, name))


def test_evaluation_yields_each_image_once_with_a_partial_last_batch(ci_100: Path) -> None:
    with ImageStream(ci_100 / "train", batch_images=64, rank=0, ranks=1, augment=False, device="cuda") as stream:
        batches = batches_of(stream)
        expected = [stream.sample(i).label for i in range(stream.images)]
    assert [len(labels) for _, labels in batches] == [64, 36]
    assert torch.cat([labels for _, labels in batches]).tolist() == expected


def test_two_epochs_and_a_resume_are_bit_identical(ci_100: Path) -> None:
    def stream() -> ImageStream:
        return ImageStream(ci_100 / "train", batch_images=BATCH_IMAGES, seed=1, rank=0, ranks=1, device="cuda")

    with stream() as once, stream() as again:
        whole = batches_of(once, epochs=2)
        assert bit_identical(whole, batches_of(again, epochs=2))

    with stream() as interrupted:
        first = next(iter(interrupted))
        state = interrupted.state()
    with stream() as resumed:
        resumed.resume(state)
        rest = batches_of(resumed, epochs=2)
    assert bit_identical(whole, [(first[0].cpu(), first[1].cpu()), *rest])
