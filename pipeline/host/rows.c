/* One row of a window: mirror, split into planes, subtract the mean, scale, cast, and out to the batch. All but the
 * last happens in L1, where libjpeg left the row.
 *
 * The loops are plain C, compiled once for any CPU and once for AVX2, whichever there is at run time: no flag of the
 * build says which CPU it is for. (AVX-512 was slower: 73% of partial decode alone against 78%.) Without contraction
 * (-ffp-contract=off) each float operation rounds once, so NumPy gives the same bits.
 */
#include "decode.h"

#include <string.h>

#if defined(__x86_64__) && !defined(PLAIN_ROWS)
#define X86 1
#include <cpuid.h>
#include <immintrin.h>
#endif

#define EVERYWHERE static inline __attribute__((always_inline))

const size_t kind_bytes[KINDS] = {1, 4, 2, 2, 1, 1};

size_t image_bytes(const struct task *task)
{
    if (task->kind != KIND_PLANES)
        return (task->kind == KIND_RGBX ? 4 : 3 * kind_bytes[task->kind]) * (size_t)task->rows * (size_t)task->columns;
    size_t height = (size_t)task->height, width = (size_t)task->width;
    return height * width + 2 * ((height + 1) / 2) * ((width + 1) / 2);
}

typedef uint8_t bytes16 __attribute__((vector_size(16)));

/* A line of the caches; rows so long that the two parts of lines at their ends do not matter (measured). */
enum { LINE_BYTES = 64, LONG_BYTES = 2048 };

/* Where in an image's scratch each intermediate lies, for rows of n = 3 * columns values. */
struct parts {
    float *mean, *scale, *place, *value;
    uint16_t *half;
    uint8_t *pixels, *planes;
};

EVERYWHERE struct parts parts_of(void *scratch, int n)
{
    float *first = scratch;
    uint16_t *half = (uint16_t *)(first + 4 * n);
    uint8_t *pixels = (uint8_t *)(half + n);
    return (struct parts){first, first + n, first + 2 * n, first + 3 * n, half, pixels, pixels + n};
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

/* Byte i of the result is byte m[i] of `a` followed by `b`. */
#ifdef __clang__
#define PICK(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define PICK(a, b, ...) __builtin_shuffle(a, b, (bytes16){__VA_ARGS__})
#endif

EVERYWHERE bytes16 load16(const uint8_t *from)
{
    bytes16 v;
    memcpy(&v, from, sizeof v);
    return v;
}

EVERYWHERE void store16(uint8_t *to, bytes16 v)
{
    memcpy(to, &v, sizeof v);
}

EVERYWHERE void mirror_row(const uint8_t *rgb, uint8_t *mirrored, int columns)
{
    int left = columns; /* from the right, five pixels at a time and a 16th byte, which the next store replaces */
    for (; left >= 6; left -= 5) {
        bytes16 v = load16(rgb + 3 * left - 16);
        store16(mirrored + 3 * (columns - left), PICK(v, v, 13, 14, 15, 10, 11, 12, 7, 8, 9, 4, 5, 6, 1, 2, 3, 0));
    }
    for (; left > 0; left--)
        memcpy(mirrored + 3 * (columns - left), rgb + 3 * left - 3, 3);
}

EVERYWHERE void split_row(const uint8_t *rgb, uint8_t *planes, int columns) /* RGBRGB... to R... G... B... */
{
    int x = 0;
    for (; columns - x >= 16; x += 16) {
        bytes16 a = load16(rgb + 3 * x), b = load16(rgb + 3 * x + 16), c = load16(rgb + 3 * x + 32);
        bytes16 red = PICK(a, b, 0, 3, 6, 9, 12, 15, 18, 21, 24, 27, 30, 0, 0, 0, 0, 0);
        bytes16 green = PICK(a, b, 1, 4, 7, 10, 13, 16, 19, 22, 25, 28, 31, 0, 0, 0, 0, 0);
        bytes16 blue = PICK(a, b, 2, 5, 8, 11, 14, 17, 20, 23, 26, 29, 0, 0, 0, 0, 0, 0);
        store16(planes + x, PICK(red, c, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 17, 20, 23, 26, 29));
        store16(planes + columns + x, PICK(green, c, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 18, 21, 24, 27, 30));
        store16(planes + 2 * columns + x, PICK(blue, c, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 16, 19, 22, 25, 28, 31));
    }
    for (; x < columns; x++)
        for (int c = 0; c < 3; c++)
            planes[c * columns + x] = rgb[3 * x + c];
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

/* Instructions that AVX2 machines have for a cast and for a copy past the caches; NULL: plain C. */
struct beyond {
    void (*float16)(const float *values, uint16_t *out, int n);
    void (*copy)(void *out, const void *from, size_t bytes);
};

EVERYWHERE void put(void *out, const void *ready, size_t bytes, struct beyond beyond)
{
    int whole_lines = (uintptr_t)out % LINE_BYTES == 0 && bytes % LINE_BYTES == 0;
    if (beyond.copy && (whole_lines || bytes >= LONG_BYTES))
        beyond.copy(out, ready, bytes);
    else
        memcpy(out, ready, bytes);
}

/* Finish values i.. of the row, `n` of them, that follow each other in the output. */
EVERYWHERE void finish_part(
    const struct task *task, const struct parts *parts, const float *mean, const uint8_t *pixels, int i, int n,
    void *out, struct beyond beyond)
{
    const void *ready = pixels + i;
    if (task->kind != KIND_UINT8) {
        shift_and_scale(parts->value, pixels + i, mean + i, parts->scale + i, n);
        ready = parts->value;
    }
    if (task->kind == KIND_FLOAT16 || task->kind == KIND_BFLOAT16) {
        if (task->kind == KIND_FLOAT16 && beyond.float16)
            beyond.float16(parts->value, parts->half, n);
        else
            cast_row(parts->value, parts->half, n, task->kind);
        ready = parts->half;
    }
    put(out, ready, (size_t)n * kind_bytes[task->kind], beyond);
}

EVERYWHERE void finish(
    const struct task *task, const struct image *image, int row, const uint8_t *rgb, void *scratch,
    struct beyond beyond)
{
    int columns = task->columns, n = 3 * columns;
    size_t bytes = kind_bytes[task->kind];
    struct parts parts = parts_of(scratch, n);
    const float *mean = parts.mean;
    if (task->kind == KIND_RGBX) {
        memcpy((char *)image->out + (size_t)row * (size_t)columns * 4, rgb, (size_t)columns * 4);
        return;
    }
    if (task->mean_image && task->kind != KIND_UINT8) {
        const float *line = task->mean_image + (size_t)row * (size_t)n;
        for (int i = 0; i < n; i++)
            parts.place[i] = line[i] + parts.mean[i];
        mean = parts.place;
    }
    if (image->mirror) {
        mirror_row(rgb, parts.pixels, columns);
        rgb = parts.pixels;
    }
    if (!task->planar) {
        finish_part(task, &parts, mean, rgb, 0, n, (char *)image->out + (size_t)row * (size_t)n * bytes, beyond);
        return;
    }
    split_row(rgb, parts.planes, columns);
    for (int c = 0; c < 3; c++) {
        size_t place = ((size_t)c * (size_t)task->rows + (size_t)row) * (size_t)columns;
        finish_part(task, &parts, mean, parts.planes, c * columns, columns, (char *)image->out + place * bytes, beyond);
    }
}

static void finish_plain(
    const struct task *task, const struct image *image, int row, const uint8_t *rgb, void *scratch)
{
    finish(task, image, row, rgb, scratch, (struct beyond){NULL, NULL});
}

#ifdef X86
#define AVX2 __attribute__((target("avx2,f16c")))

AVX2 static void float16_f16c(const float *values, uint16_t *out, int n)
{
    int i = 0;
    for (; i + 8 <= n; i += 8)
        _mm_storeu_si128((__m128i *)(out + i), _mm256_cvtps_ph(_mm256_loadu_ps(values + i), _MM_FROUND_TO_NEAREST_INT));
    for (; i < n; i++)
        out[i] = to_float16(values[i]);
}

/* Copy whole lines past the caches: a batch does not fit them, and an ordinary store first reads the line that it is
 * about to overwrite. Parts of lines go the ordinary way: the rest of the line follows with the next row.
 */
AVX2 static void copy_past(void *out, const void *from, size_t bytes)
{
    char *to = out;
    const char *values = from;
    size_t i = -(uintptr_t)to % LINE_BYTES < bytes ? -(uintptr_t)to % LINE_BYTES : bytes;
    memcpy(to, values, i);
    for (; i + LINE_BYTES <= bytes; i += LINE_BYTES) {
        _mm256_stream_si256((__m256i *)(to + i), _mm256_loadu_si256((const __m256i *)(values + i)));
        _mm256_stream_si256((__m256i *)(to + i + 32), _mm256_loadu_si256((const __m256i *)(values + i + 32)));
    }
    memcpy(to + i, values + i, bytes - i);
}

AVX2 static void finish_avx2(
    const struct task *task, const struct image *image, int row, const uint8_t *rgb, void *scratch)
{
    finish(task, image, row, rgb, scratch, (struct beyond){float16_f16c, copy_past});
    if (row == task->rows - 1)
        _mm_sfence(); /* before anybody is told that the image is there */
}
#endif

finish_row *row_finisher(void)
{
#ifdef X86
    unsigned a, b, c = 0, d;
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C))
        return finish_avx2;
#endif
    return finish_plain;
}
