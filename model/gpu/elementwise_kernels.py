"""Kernels in Triton that treat each value by itself; `elementwise` launches them."""

import triton
import triton.language as tl


@triton.jit
def _mix32(x):
    """Mix 32-bit words as `layers.mix32` does, in unsigned arithmetic that wraps."""
    x = (x ^ (x >> 16)) * 0x21F0AAAD
    x = (x ^ (x >> 15)) * 0x735A2D97
    return x ^ (x >> 15)


@triton.jit
def _dropped(clock, layer, rows, units, threshold):
    """Say for each of (rows, units) whether `layers.HashDropout` drops it: a mix for each row, unit and pair."""
    seed = tl.load(clock).to(tl.uint32)
    step = tl.load(clock + 1).to(tl.uint32)
    first_row = tl.load(clock + 2).to(tl.uint32)
    key = _mix32(step + _mix32(seed + _mix32(layer.to(tl.uint32))))
    row_keys = _mix32(rows.to(tl.uint32) + first_row + key)
    unit_keys = _mix32(units.to(tl.uint32) * 0x1E3779B1)
    return _mix32(row_keys[:, None] + unit_keys[None, :]) < threshold.to(tl.uint32)


@triton.jit(do_not_specialize=["layer", "first_unit", "threshold"])
def bias_relu_dropout(
    x, bias, clock, out, n, layer, first_unit, threshold, scale,
    UNITS: tl.constexpr, RELU: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Take ROWS x COLUMNS of (n, UNITS); `bias` and `clock` may be None. Without a clock nothing is dropped."""
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    units = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = (rows < n)[:, None] & (units < UNITS)[None, :]
    offsets = rows[:, None] * UNITS + units[None, :]
    value = tl.load(x + offsets, mask=inside, other=0.0).to(tl.float32)
    if bias is not None:
        value += tl.load(bias + units, mask=units < UNITS, other=0.0).to(tl.float32)[None, :]
    if RELU:
        value = tl.where(value <= 0, 0.0, value)  # not a maximum: what is not a number stays so, and is noticed
    if clock is not None:
        dropped = _dropped(clock, layer, rows, first_unit + units, threshold)
        value = tl.where(dropped, 0.0, value * scale)
    tl.store(out + offsets, value.to(out.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["layer", "first_unit", "threshold"])
def bias_relu_dropout_backward(
    gradient, y, clock, to_x, to_bias, layer, first_unit, threshold, scale,
    N: tl.constexpr, UNITS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Take COLUMNS of (N, UNITS), all rows, ROWS at a time, so that a unit's bias gradient is one program's sum.

    With ReLU `y`, the output, tells what passed; else it is None, and the hash tells. `to_bias` may be None.
    """
    units = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for first in range(0, N, ROWS):
        rows = first + tl.arange(0, ROWS)
        inside = (rows < N)[:, None] & (units < UNITS)[None, :]
        offsets = rows[:, None] * UNITS + units[None, :]
        value = tl.load(gradient + offsets, mask=inside, other=0.0).to(tl.float32) * scale
        if y is not None:
            value = tl.where(tl.load(y + offsets, mask=inside, other=0.0).to(tl.float32) <= 0, 0.0, value)
        else:
            value = tl.where(_dropped(clock, layer, rows, first_unit + units, threshold), 0.0, value)
        tl.store(to_x + offsets, value.to(to_x.dtype.element_ty), mask=inside)
        total += value
    if to_bias is not None:
        tl.store(to_bias + units, tl.sum(total, 0).to(to_bias.dtype.element_ty), mask=units < UNITS)


@triton.jit
def sgd(master, momentum, gradient, working, rates, decay, count, BLOCK: tl.constexpr):
    """Update BLOCK parameters: 20 bytes each with bf16 gradients and a bf16 copy, `working`, which may be None.

    Fused multiplications and additions are where PyTorch's fused SGD has them on a CPU, so that results are the same.
    """
    rate = tl.load(rates)
    if rate != 0:
        at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
        inside = at < count
        weight = tl.load(master + at, mask=inside)
        change = tl.fma(weight, decay, tl.load(gradient + at, mask=inside).to(tl.float32))
        velocity = tl.load(momentum + at, mask=inside) * tl.load(rates + 1) + change
        weight = tl.fma(-rate, velocity, weight)
        tl.store(momentum + at, velocity, mask=inside)
        tl.store(master + at, weight, mask=inside)
        if working is not None:
            tl.store(working + at, weight.to(working.dtype.element_ty), mask=inside)


@triton.jit
def space_to_depth(
    images, out, px, of_image, of_map, of_row, of_column,
    SIDE: tl.constexpr, MAPS: tl.constexpr, BLOCK: tl.constexpr, PAD: tl.constexpr, VALUES: tl.constexpr,
):  # fmt: skip
    """Write VALUES of one row of one image's (SIDE, SIDE, MAPS * BLOCK * BLOCK), in order; read by strides."""
    image = tl.program_id(0) // SIDE
    top = tl.program_id(0) % SIDE * BLOCK - PAD
    depth: tl.constexpr = MAPS * BLOCK * BLOCK
    at = tl.program_id(1) * VALUES + tl.arange(0, VALUES)
    inside = at < SIDE * depth
    place = at % depth
    y = top + place // BLOCK % BLOCK
    x = at // depth * BLOCK - PAD + place % BLOCK
    there = inside & (y >= 0) & (y < px) & (x >= 0) & (x < px)
    start = images + image.to(tl.int64) * of_image
    value = tl.load(start + place // (BLOCK * BLOCK) * of_map + y * of_row + x * of_column, mask=there, other=0.0)
    row = out + tl.program_id(0).to(tl.int64) * (SIDE * depth)
    tl.store(row + at, value.to(out.dtype.element_ty), mask=inside)
