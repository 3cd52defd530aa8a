/* One row of a window: mirror, split into planes, subtract the mean, scale, cast, and out to the batch. All but the
 * last happens in L1, where libjpeg left the row.
 *
 * The loops are plain C, compiled once for any CPU and once for AVX2, whichever there is at run time: no flag of the
 * build says which CPU it is for. (AVX-512 was slower: 73% of partial decode alone against 78%.) Without contraction
 * (-ffp-contract=off) each float operation rounds once, so NumPy gives the same bits.
 */
#include "decode.h"
#include "shuffle.h"

#include <string.h>

#ifdef X86
#include <cpuid.h>
#endif

const size_t kind_bytes[KINDS] = {1, 4, 2, 2, 1, 1};

size_t image_bytes(const struct task *task)
{
    if (task->kind == KIND_PLANES)
        return planes_bytes(task);
    return (task->kind == KIND_RGBX ? 4 : 3 * kind_bytes[task->kind]) * (size_t)task->rows * (size_t)task->columns;
}

size_t planes_bytes(const struct task *task)
{
    size_t height = (size_t)task->height, width = (size_t)task->width;
    return height * width + 2 * ((height + 1) / 2) * ((width + 1) / 2);
}

/* A line of the caches; rows so long that the two parts of lines at their ends do not matter (measured). */
enum { LINE_BYTES = 64, LONG_BYTES = 2048 };

/* Where in an image's scratch each intermediate lies, for rows of n = 3 * columns values. */
struct parts {
    float *mean, *scale, *place, *value;
    uint16_t *half;
    uint8_t *pixels, *planes;
    int finite; /* all values are numbers, or infinite */
};

EVERYWHERE struct parts parts_of(void *scratch, int n)
{
    float *first = scratch;
    uint16_t *half = (uint16_t *)(first + 4 * n);
    uint8_t *pixels = (uint8_t *)(half + n);
    return (struct parts){first, first + n, first + 2 * n, first + 3 * n, half, pixels, pixels + n, 0};
}

/* Say whether no value can be NaN; with a mean image nobody looks. */
EVERYWHERE int is_finite(const struct task *task, const struct image *image)
{
    if (task->kind == KIND_UINT8 || task->kind == KIND_RGBX || task->mean_image)
        return 0;
    float sum = 0;
    for (int c = 0; c < 3; c++)
        sum += 0 * image->mean[c] + 0 * task->scale[c]; /* of anything else NaN */
    return sum == 0;
}

void prepare_rows(const struct task *task, const struct image *image, void *scratch)
{
    int columns = task->columns;
    struct parts parts = parts_of(scratch, 3 * columns);
    if (task->kind == KIND_UINT8 || task->kind == KIND_RGBX)
        return;
    for (int x = 0; x < columns; x++)
        for (int c = 0; c < 3; c++) {
            int i = task->planar ? c * columns + x : 3 * x + c;
            parts.mean[i] = image->mean[c];
            parts.scale[i] = task->scale[c];
        }
}

EVERYWHERE uint16_t to_bfloat16(float value) /* to nearest, ties to even */
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    uint32_t rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16, quiet_nan = bits >> 16 | 0x40;
    return (uint16_t)(value != value ? quiet_nan : rounded);
}

EVERYWHERE uint16_t to_float16(float value) /* to nearest, ties to even; without branches, so that it vectorises */
{
    uint32_t bits, sum_bits;
    memcpy(&bits, &value, sizeof bits);
    uint32_t size = bits & 0x7FFFFFFF;
    float sum;
    memcpy(&sum, &size, sizeof sum);
    sum += 0.5f; /* the last place of a sum just above 1/2 is 2^-24: the step of float16 below 2^-14 */
    memcpy(&sum_bits, &sum, sizeof sum_bits);
    uint32_t result = (size - (112u << 23) + 0xFFF + (size >> 13 & 1)) >> 13;
    result = size < 0x38800000 ? sum_bits - 0x3F000000 : result;
    result = size >= 0x47800000 ? 0x7C00 : result;
    result = size > 0x7F800000 ? 0x7E00 | (size >> 13 & 0x3FF) : result;
    return (uint16_t)(result | (bits >> 16 & 0x8000));
}

EVERYWHERE void cast_row(const float *restrict values, uint16_t *restrict out, int n, enum kind kind)
{
    if (kind == KIND_BFLOAT16)
        for (int i = 0; i < n; i++)
            out[i] = to_bfloat16(values[i]);
    else
        for (int i = 0; i < n; i++)
            out[i] = to_float16(values[i]);
}

EVERYWHERE void shift_and_scale(
    float *restrict values, const uint8_t *restrict pixels, const float *restrict mean, const float *restrict scale,
    int n)
{
    for (int k = 0; k < n; k++)
        values[k] = ((float)pixels[k] - mean[k]) * scale[k];
}

/* Instructions that AVX2 machines have for a cast, for a copy past the caches, and for all that a row of floats goes
 * through where it is whole lines; NULL: plain C.
 */
struct beyond {
    void (*float16)(const float *values, uint16_t *out, int n);
    void (*copy)(void *out, const void *from, size_t bytes);
    void (*lines)(
        enum kind kind, const uint8_t *pixels, const float *mean, const float *scale, void *out, size_t bytes,
        int finite);
};

EVERYWHERE int is_whole_lines(const void *out, size_t bytes)
{
    return (uintptr_t)out % LINE_BYTES == 0 && bytes % LINE_BYTES == 0;
}

EVERYWHERE void put(void *out, const void *ready, size_t bytes, struct beyond beyond)
{
    if (beyond.copy && (is_whole_lines(out, bytes) || bytes >= LONG_BYTES))
        beyond.copy(out, ready, bytes);
    else
        memcpy(out, ready, bytes);
}

/* Finish pixels that follow each other in the output: values i.. of the row, `n` of them. */
EVERYWHERE void finish_part(
    const struct task *task, const struct parts *parts, const float *mean, const uint8_t *pixels, int i, int n,
    void *out, struct beyond beyond)
{
    const void *ready = pixels;
    size_t bytes = (size_t)n * kind_bytes[task->kind];
    if (task->copy_only) {
        put(out, parts->value, bytes, beyond);
        return;
    }
    if (task->kind != KIND_UINT8 && beyond.lines && is_whole_lines(out, bytes)) {
        beyond.lines(task->kind, pixels, mean + i, parts->scale + i, out, bytes, parts->finite);
        return;
    }
    if (task->kind != KIND_UINT8) {
        shift_and_scale(parts->value, pixels, mean + i, parts->scale + i, n);
        ready = parts->value;
    }
    if (task->kind == KIND_FLOAT16 || task->kind == KIND_BFLOAT16) {
        if (task->kind == KIND_FLOAT16 && beyond.float16)
            beyond.float16(parts->value, parts->half, n);
        else
            cast_row(parts->value, parts->half, n, task->kind);
        ready = parts->half;
    }
    put(out, ready, bytes, beyond);
}

/* Finish a row's pixels in the order of the output: its planes are `apart` bytes from each other, if it has any. */
EVERYWHERE void finish_pixels(
    const struct task *task, const struct image *image, int row, const struct parts *parts, const uint8_t *pixels,
    int apart, struct beyond beyond)
{
    int columns = task->columns, n = 3 * columns;
    size_t bytes = kind_bytes[task->kind];
    const float *mean = parts->mean;
    if (task->mean_image && task->kind != KIND_UINT8) {
        const float *line = task->mean_image + (size_t)row * (size_t)n;
        for (int i = 0; i < n; i++)
            parts->place[i] = line[i] + parts->mean[i];
        mean = parts->place;
    }
    if (!task->planar) {
        finish_part(task, parts, mean, pixels, 0, n, (char *)image->out + (size_t)row * (size_t)n * bytes, beyond);
        return;
    }
    for (int c = 0; c < 3; c++) {
        size_t place = ((size_t)c * (size_t)task->rows + (size_t)row) * (size_t)columns;
        char *out = (char *)image->out + place * bytes;
        finish_part(task, parts, mean, pixels + c * apart, c * columns, columns, out, beyond);
    }
}

EVERYWHERE void finish(
    const struct task *task, const struct image *image, int row, const uint8_t *rgb, void *scratch,
    struct beyond beyond)
{
    int columns = task->columns;
    struct parts parts = parts_of(scratch, 3 * columns);
    parts.finite = is_finite(task, image);
    if (task->kind == KIND_RGBX) {
        memcpy((char *)image->out + (size_t)row * (size_t)columns * 4, rgb, (size_t)columns * 4);
        return;
    }
    if (image->mirror) {
        mirror_row(rgb, parts.pixels, columns);
        rgb = parts.pixels;
    }
    if (task->planar) {
        split_row(rgb, parts.planes, columns);
        rgb = parts.planes;
    }
    finish_pixels(task, image, row, &parts, rgb, columns, beyond);
}

EVERYWHERE void finish_ordered(
    const struct task *task, const struct image *image, int row, const uint8_t *pixels, int apart, void *scratch,
    struct beyond beyond)
{
    struct parts parts = parts_of(scratch, 3 * task->columns);
    parts.finite = is_finite(task, image);
    finish_pixels(task, image, row, &parts, pixels, apart, beyond);
}

static void finish_plain(
    const struct task *task, const struct image *image, int row, const uint8_t *rgb, void *scratch)
{
    finish(task, image, row, rgb, scratch, (struct beyond){NULL, NULL, NULL});
}

static void finish_ordered_plain(
    const struct task *task, const struct image *image, int row, const uint8_t *pixels, int apart, void *scratch)
{
    finish_ordered(task, image, row, pixels, apart, scratch, (struct beyond){NULL, NULL, NULL});
}

#ifdef X86
#include "rows_avx2.h"

AVX2 static void finish_avx2(
    const struct task *task, const struct image *image, int row, const uint8_t *rgb, void *scratch)
{
    finish(task, image, row, rgb, scratch, (struct beyond){float16_f16c, copy_past, lines_avx2});
    if (row == task->rows - 1)
        _mm_sfence(); /* before anybody is told that the image is there */
}

AVX2 static void finish_ordered_avx2(
    const struct task *task, const struct image *image, int row, const uint8_t *pixels, int apart, void *scratch)
{
    finish_ordered(task, image, row, pixels, apart, scratch, (struct beyond){float16_f16c, copy_past, lines_avx2});
    if (row == task->rows - 1)
        _mm_sfence();
}

static int has_avx2(void)
{
    unsigned a, b, c = 0, d;
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}

finish_row *row_finisher(void)
{
    return has_avx2() ? finish_avx2 : finish_plain;
}

finish_ordered_row *ordered_row_finisher(void)
{
    return has_avx2() ? finish_ordered_avx2 : finish_ordered_plain;
}
#else
finish_row *row_finisher(void)
{
    return finish_plain;
}

finish_ordered_row *ordered_row_finisher(void)
{
    return finish_ordered_plain;
}
#endif
