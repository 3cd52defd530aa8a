"""A kernel in Triton that normalizes crops on a GPU; `normalize_torch.py` launches it."""

import triton
import triton.language as tl


@triton.jit
def normalize_crops(
    crops, means, scale, mean_image, out, values, PLANAR: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """Take BLOCK of the `values` of one image, H * W * 3, from uint8 (n, H, W, 3); `mean_image` may be None.

    `PLANAR`: `out` is (n, 3, H, W) in memory, not (n, H, W, 3). In fp32, rounded once. No sum follows a product, so a
    compiler can fuse nothing: the bits are those of a CPU.
    """
    image = tl.program_id(0).to(tl.int64)
    places = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = places < values
    channels = places % 3
    mean = _of_channels(means + image * 3, channels)
    if mean_image is not None:
        mean += tl.load(mean_image + places, mask=inside, other=0.0)
    pixels = tl.load(crops + image * values + places, mask=inside, other=0).to(tl.float32)
    result = (pixels - mean) * _of_channels(scale, channels)
    if PLANAR:
        places = channels * (values // 3) + places // 3
    tl.store(out + image * values + places, result.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _of_channels(three, channels):
    """Spread three numbers over the channels that they are of."""
    others = tl.where(channels == 1, tl.load(three + 1), tl.load(three + 2))
    return tl.where(channels == 0, tl.load(three), others)
