"""The kernels of `conv_epilogue`, in Triton.

A thread has eight maps of a pixel, which it reads as one vector of 16 bytes in bf16; of the maps beside them, which
response normalisation reads, it reads two or four more on each side. Sums over neighbouring maps are then additions of
registers: every value is read once for each of its uses, and every power is taken once, not once a neighbour.

Counted in sm_90's code, instructions a thread: forward 1,490 for an output pixel, which is nine that are normalised;
backward 2,100 for the four pixels of a cell (4,400 were each to look up its own windows). At `paper`'s sizes and batch
128 these are 216 million of warps: 0.24 ms at four a cycle on each of an H200's 132 processors, 1.7 GHz. The 453 MB
that they move take 0.11 ms at 4.3 TB/s. Both are estimates: neither kernel has run on a GPU.
"""

import triton
import triton.language as tl


@triton.jit
def _split8(x, N: tl.constexpr):
    """(N, 8) -> its eight columns: registers get other names, nothing moves."""
    even, odd = tl.split(tl.reshape(x, (N, 4, 2)))
    x04, x26 = tl.split(tl.reshape(even, (N, 2, 2)))
    x15, x37 = tl.split(tl.reshape(odd, (N, 2, 2)))
    x0, x4 = tl.split(x04)
    x1, x5 = tl.split(x15)
    x2, x6 = tl.split(x26)
    x3, x7 = tl.split(x37)
    return x0, x1, x2, x3, x4, x5, x6, x7


@triton.jit
def _split4(x, N: tl.constexpr):
    x02, x13 = tl.split(tl.reshape(x, (N, 2, 2)))
    x0, x2 = tl.split(x02)
    x1, x3 = tl.split(x13)
    return x0, x1, x2, x3


@triton.jit
def _join8(x0, x1, x2, x3, x4, x5, x6, x7, N: tl.constexpr):
    even = tl.reshape(tl.join(tl.join(x0, x4), tl.join(x2, x6)), (N, 4))
    odd = tl.reshape(tl.join(tl.join(x1, x5), tl.join(x3, x7)), (N, 4))
    return tl.reshape(tl.join(even, odd), (N, 8))


@triton.jit
def _sum_of_five(left, x, right, N: tl.constexpr):
    """Add up each column of (N, 8) and the two on either side; `left` and `right`: (N, 2)."""
    a, b = tl.split(left)
    y, z = tl.split(right)
    x0, x1, x2, x3, x4, x5, x6, x7 = _split8(x, N)
    before = _join8(a, b, x0, x1, x2, x3, x4, x5, N) + _join8(b, x0, x1, x2, x3, x4, x5, x6, N)
    after = _join8(x1, x2, x3, x4, x5, x6, x7, y, N) + _join8(x2, x3, x4, x5, x6, x7, y, z, N)
    return before + x + after


@triton.jit
def _load(pointer, at, first, inside, WIDTH: tl.constexpr, MAPS: tl.constexpr):
    """Read WIDTH maps from `first` on of the pixels whose values begin at `at`; 0 where there is no such map."""
    maps = first[:, None] + tl.arange(0, WIDTH)[None, :]
    there = inside[:, None]
    if WIDTH < 8 or MAPS % 8:
        there = there & (maps >= 0) & (maps < MAPS)
    return tl.load(pointer + (at[:, None] + maps), mask=there, other=0)


@triton.jit
def _whole(pixel, LARGE: tl.constexpr):
    """Return numbers of pixels as 64 bits where there are too many values for 32."""
    return pixel.to(tl.int64) if LARGE else pixel


@triton.jit
def _share(MAPS: tl.constexpr, ALL: tl.constexpr, VECTORS: tl.constexpr):
    """Return this program's block of pixels, tower and part of its maps, and how many programs have the same part.

    Programs for other maps of the same pixels are next to each other: a line of the cache is read and written once.
    """
    parts: tl.constexpr = (MAPS + 8 * VECTORS - 1) // (8 * VECTORS)
    every: tl.constexpr = ALL // MAPS * parts
    program = tl.program_id(0)
    return program // every, program % every // parts, program % parts, tl.num_programs(0) // every


@triton.jit
def _biased(x, at, bias, first, inside, RELU: tl.constexpr, WIDTH: tl.constexpr, MAPS: tl.constexpr):
    """Read values, add the bias, and apply ReLU if it comes first; 0 where there is no such map."""
    value = _load(x, at, first, inside, WIDTH, MAPS).to(tl.float32)
    value += _load(bias, at * 0, first, inside, WIDTH, MAPS).to(tl.float32)
    return tl.where(value <= 0, 0.0, value) if RELU == "before" else value  # what is not a number stays so


@triton.jit
def conv_epilogue(
    x, bias, out, taps, pixels, x_to_tower: tl.int64, out_to_tower: tl.int64, alpha, k,
    IN: tl.constexpr, OUT: tl.constexpr, POOL: tl.constexpr, MAPS: tl.constexpr, RELU: tl.constexpr,
    NORM: tl.constexpr, TAPS: tl.constexpr, PIXELS: tl.constexpr, VECTORS: tl.constexpr, LARGE: tl.constexpr,
):  # fmt: skip
    """Take PIXELS pixels of the output and VECTORS times eight of a tower's MAPS maps.

    `IN`: height, width and maps of the tensor that is read; `OUT`: of what is given, and the maps of `taps`; `POOL`:
    window and stride. `x_to_tower`, `out_to_tower`: from a tower's first value to the other's.
    """
    N: tl.constexpr = PIXELS * VECTORS
    item = tl.arange(0, N)
    block, tower, part, _ = _share(MAPS, OUT[3], VECTORS)
    pixel = _whole(block * PIXELS + item // VECTORS, LARGE)
    first = (part * VECTORS + item % VECTORS) * 8
    inside = pixel < pixels
    row = pixel // (OUT[0] * OUT[1]) * IN[0] + pixel // OUT[1] % OUT[0] * POOL[1]
    corner = row * IN[1] + pixel % OUT[1] * POOL[1]
    x += tower * x_to_tower
    bias += tower * MAPS
    best = tl.full((N, 8), float("-inf"), tl.float32)
    tap = tl.zeros((N, 8), tl.int32)
    for at in tl.static_range(POOL[0] * POOL[0]):
        here = (corner + at // POOL[0] * IN[1] + at % POOL[0]) * IN[2]
        value = _biased(x, here, bias, first, inside, RELU, 8, MAPS)
        if NORM:
            left = _biased(x, here, bias, first - 2, inside, RELU, 2, MAPS)
            right = _biased(x, here, bias, first + 8, inside, RELU, 2, MAPS)
            squares = _sum_of_five(left * left, value * value, right * right, N)
            value *= _powers(squares * alpha + k)[0]
        tap = tl.where(value > best, at, tap)
        best = tl.maximum(best, value, propagate_nan=tl.PropagateNan.ALL)
    if RELU == "after":
        tap = tl.where(best <= 0, 255, tap)  # a window that no gradient passes
        best = tl.where(best <= 0, 0.0, best)
    maps = first[:, None] + tl.arange(0, 8)[None, :]
    there = inside[:, None] & (maps < MAPS)
    tl.store(out + tower * out_to_tower + (pixel * OUT[2])[:, None] + maps, best.to(out.dtype.element_ty), mask=there)
    if TAPS:
        tl.store(taps + tower * MAPS + (pixel * OUT[3])[:, None] + maps, tap.to(tl.uint8), mask=there)


@triton.jit
def _powers(scale):
    """Return scale^(-3/4) and 1/scale: by two square roots, a sixth of the operations of exp2 and log2."""
    root = tl.rsqrt(scale)
    return root * tl.sqrt(root), root * root


@triton.jit
def _through_norm(left, x, right, given_left, given, given_right, alpha, k, N: tl.constexpr):
    """Return the gradient of what is normalised: g s^-3/4 - 3/2 alpha x * sum of (g x s^-7/4) over five maps.

    `x`, `given`: (N, 8); `left`, `right`: the four maps on either side; `given_left`, `given_right`: the two.
    """
    l0, l1, l2, l3 = _split4(left * left, N)
    r0, r1, r2, r3 = _split4(right * right, N)
    x0, x1, _2, _3, _4, _5, x6, x7 = _split8(x * x, N)
    scale_left = k + alpha * tl.join(l0 + l1 + l2 + l3 + x0, l1 + l2 + l3 + x0 + x1)
    scale_right = k + alpha * tl.join(x6 + x7 + r0 + r1 + r2, x7 + r0 + r1 + r2 + r3)
    scale = k + alpha * _sum_of_five(tl.join(l2, l3), x * x, tl.join(r0, r1), N)
    _0, _1, x_a, x_b = _split4(left, N)
    x_y, x_z, _8, _9 = _split4(right, N)
    power_left, inverse_left = _powers(scale_left)
    power, inverse = _powers(scale)
    power_right, inverse_right = _powers(scale_right)
    share_left = given_left * power_left * (tl.join(x_a, x_b) * inverse_left)
    share_right = given_right * power_right * (tl.join(x_y, x_z) * inverse_right)
    direct = given * power
    return direct - 1.5 * alpha * x * _sum_of_five(share_left, direct * (x * inverse), share_right, N)


@triton.jit
def _windows(
    gradient, taps, image, top, left, first, inside, OUT: tl.constexpr, POOL: tl.constexpr, TAPS: tl.constexpr,
    WIDTH: tl.constexpr, MAPS: tl.constexpr,
):  # fmt: skip
    """Read WIDTH maps of the windows that reach into cells: of each, what it hands on and which of its values won."""
    each: tl.constexpr = (POOL[0] + POOL[1] - 1) // POOL[1]  # along one axis
    found = ()
    for at in tl.static_range(each * each):
        row, column = top - at // each, left - at % each
        there = inside & (row >= 0) & (row < OUT[0]) & (column >= 0) & (column < OUT[1])
        place = (image * OUT[0] + row) * OUT[1] + column
        given = _load(gradient, place * OUT[2], first, there, WIDTH, MAPS)
        tap = _load(taps, place * OUT[3], first, there, WIDTH, MAPS) if TAPS else given
        found += ((given, tap),)
    return found


@triton.jit
def _received(windows, DY: tl.constexpr, DX: tl.constexpr, POOL: tl.constexpr, TAPS: tl.constexpr):
    """Add up what cells' pixels (DY, DX) receive of the windows that they are the largest value of."""
    window: tl.constexpr = POOL[0]
    stride: tl.constexpr = POOL[1]
    each: tl.constexpr = (window + stride - 1) // stride
    total = tl.zeros(windows[0][0].shape, tl.float32)
    for at in tl.static_range(each * each):
        if (at // each * stride + DY < window) and (at % each * stride + DX < window):
            given = windows[at][0].to(tl.float32)
            if TAPS:
                tap = (at // each * stride + DY) * window + at % each * stride + DX
                given = tl.where(windows[at][1] == tap, given, 0.0)
            total += given
    return total


@triton.jit
def conv_epilogue_backward(
    gradient, taps, x, bias, to_x, to_bias, cells,
    gradient_to_tower: tl.int64, x_to_tower: tl.int64, to_x_to_tower: tl.int64, alpha, k,
    IN: tl.constexpr, OUT: tl.constexpr, POOL: tl.constexpr, MAPS: tl.constexpr, RELU: tl.constexpr,
    NORM: tl.constexpr, TAPS: tl.constexpr, PIXELS: tl.constexpr, VECTORS: tl.constexpr, LARGE: tl.constexpr,
    TURNS: tl.constexpr,
):  # fmt: skip
    """Take every so many PIXELS cells of the input, and VECTORS times eight of a tower's MAPS maps.

    A cell is as many pixels as pooling moves by, squared: the same windows reach into all of them, each is read once,
    and the compiler knows which of a window's values a pixel is. TURNS: how many times PIXELS a program takes. Pixels
    gather from windows, so that no two programs write to one place; the bias's gradient is left as a sum for each.
    """
    N: tl.constexpr = PIXELS * VECTORS
    item = tl.arange(0, N)
    start, tower, part, programs = _share(MAPS, OUT[3], VECTORS)
    first = (part * VECTORS + item % VECTORS) * 8
    x += tower * x_to_tower
    gradient += tower * gradient_to_tower
    taps += tower * MAPS
    bias += tower * MAPS
    to_x += tower * to_x_to_tower
    maps = first[:, None] + tl.arange(0, 8)[None, :]
    stride: tl.constexpr = POOL[1]
    down: tl.constexpr = (IN[0] + stride - 1) // stride
    across: tl.constexpr = (IN[1] + stride - 1) // stride
    total = tl.zeros((N, 8), tl.float32)
    for turn in range(TURNS):
        cell = _whole((turn * programs + start) * PIXELS + item // VECTORS, LARGE)
        image, top, left = cell // (down * across), cell // across % down, cell % across
        inside = cell < cells
        windows = _windows(gradient, taps, image, top, left, first, inside, OUT, POOL, TAPS, 8, MAPS)
        if NORM:
            before = _windows(gradient, taps, image, top, left, first - 2, inside, OUT, POOL, TAPS, 2, MAPS)
            after = _windows(gradient, taps, image, top, left, first + 8, inside, OUT, POOL, TAPS, 2, MAPS)
        for at in tl.static_range(stride * stride):
            row, column = top * stride + at // stride, left * stride + at % stride
            there = inside & (row < IN[0]) & (column < IN[1])
            here = ((image * IN[0] + row) * IN[1] + column) * IN[2]
            value = _biased(x, here, bias, first, there, RELU, 8, MAPS)
            given = _received(windows, at // stride, at % stride, POOL, TAPS)
            if NORM:
                beside = _biased(x, here, bias, first - 4, there, RELU, 4, MAPS)
                further = _biased(x, here, bias, first + 8, there, RELU, 4, MAPS)
                given_beside = _received(before, at // stride, at % stride, POOL, TAPS)
                given_further = _received(after, at // stride, at % stride, POOL, TAPS)
                given = _through_norm(beside, value, further, given_beside, given, given_further, alpha, k, N)
            if RELU == "before":
                given = tl.where(value <= 0, 0.0, given)
            written = there[:, None] & (maps < MAPS)
            tl.store(to_x + (here[:, None] + maps), given.to(to_x.dtype.element_ty), mask=written)
            total += given  # beyond the edge nothing was received
    sums = tl.sum(tl.reshape(total, (PIXELS, VECTORS * 8)), 0)
    maps = part * VECTORS * 8 + tl.arange(0, VECTORS * 8)
    tl.store(to_bias + start * OUT[3] + tower * MAPS + maps, sums, mask=maps < MAPS)
