"""A kernel in Triton that makes images of 4:2:0 planes on a GPU, as libjpeg does; `planes_gpu.py` launches it."""

import triton
import triton.language as tl


@triton.jit
def finish_planes(
    addresses, crop_yx, mirror, means, scale, mean_image, out,
    SIDE: tl.constexpr, CROP: tl.constexpr, PLANAR: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Make ROWS x COLUMNS pixels of one window: `out` is (n, CROP, CROP, 3), if `PLANAR` (n, 3, CROP, CROP).

    `addresses`: int64 (n,), where the planes of a SIDE x SIDE image begin, on the device or in pinned host memory.
    `crop_yx`: int32 (n, 2). `mirror`: uint8 (n,). `means`: fp32 (n, 3) and `scale`: fp32 (3,), or None for pixels as
    they are. `mean_image`: fp32 (CROP, CROP, 3) or None.
    """
    image = tl.program_id(0).to(tl.int64)
    row = (tl.program_id(1) * ROWS + tl.arange(0, ROWS))[:, None]
    column = (tl.program_id(2) * COLUMNS + tl.arange(0, COLUMNS))[None, :]
    inside = (row < CROP) & (column < CROP)
    y = tl.load(crop_yx + image * 2) + row
    x = tl.load(crop_yx + image * 2 + 1) + tl.where(tl.load(mirror + image) != 0, CROP - 1 - column, column)
    half: tl.constexpr = (SIDE + 1) // 2
    luma = tl.load(addresses + image).to(tl.pointer_type(tl.uint8))
    around = ((y >> 1) * half, _next(y, half) * half, x >> 1, _next(x, half), 8 - (x & 1), inside)
    cb = _chroma(luma + SIDE * SIDE, around)
    cr = _chroma(luma + (SIDE * SIDE + half * half), around)
    light = tl.load(luma + (y * SIDE + x), mask=inside, other=0).to(tl.int32)
    at = (out, means, scale, mean_image, image, row * CROP + column, inside)
    _write(light + ((91881 * cr + 32768) >> 16), 0, at, CROP, PLANAR)
    _write(light + ((-22554 * cb - 46802 * cr + 32768) >> 16), 1, at, CROP, PLANAR)
    _write(light + ((116130 * cb + 32768) >> 16), 2, at, CROP, PLANAR)


@triton.jit
def _next(place, half: tl.constexpr):
    """Return the second nearest line of chroma to a line of pixels: before an even one, after an odd one."""
    return tl.minimum(tl.maximum((place >> 1) + (place & 1) * 2 - 1, 0), half - 1)


@triton.jit
def _chroma(plane, around):
    """Interpolate: three parts of the nearer row and column, one of the other; halves go down and up in turn."""
    near, far, left, right, half, inside = around
    a = 3 * tl.load(plane + (near + left), mask=inside, other=0).to(tl.int32)
    a += tl.load(plane + (far + left), mask=inside, other=0)
    b = 3 * tl.load(plane + (near + right), mask=inside, other=0).to(tl.int32)
    b += tl.load(plane + (far + right), mask=inside, other=0)
    return ((3 * a + b + half) >> 4) - 128


@triton.jit
def _write(values, CHANNEL: tl.constexpr, at, CROP: tl.constexpr, PLANAR: tl.constexpr):
    """Normalize a channel in fp32, rounded once, and store it; no sum follows a product, so nothing can be fused."""
    out, means, scale, mean_image, image, places, inside = at
    values = tl.minimum(tl.maximum(values, 0), 255)
    if means is not None:
        mean = tl.load(means + image * 3 + CHANNEL)
        if mean_image is not None:
            mean += tl.load(mean_image + places * 3 + CHANNEL, mask=inside, other=0.0)
        values = (values.to(tl.float32) - mean) * tl.load(scale + CHANNEL)
    places = CHANNEL * CROP * CROP + places if PLANAR else places * 3 + CHANNEL
    tl.store(out + image * (3 * CROP * CROP) + places, values.to(out.dtype.element_ty), mask=inside)
