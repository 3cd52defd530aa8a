/* A window of an image that is stored as 4:2:0 planes: read, upsampled, made RGB, and out to the batch.
 *
 * An image's planes are read into memory that fits the core's second cache; the rest happens row by row in the first.
 * The arithmetic is libjpeg's, in integers, so pixels are those of the decoded JPEG to the bit (of images wider than 4:
 * for others libjpeg has a rule of its own). Chroma is weighed 3 to 1 between the nearer and the farther row, then so
 * between columns ("fancy upsampling"); colours are
 *
 *     red = y + 1.402 cr,  green = y - 0.34414 cb - 0.71414 cr,  blue = y + 1.772 cb
 *
 * with factors in units of 2^-16, each offset rounded once. It is done in plain C, which compilers vectorise, and for
 * AVX2 by hand: two cores' stream makes 37,500 images a second to uint8 so, 30,200 with the plain loops compiled for
 * AVX2, and 16,600 with those for any x86-64, which has no instruction to join or mirror bytes.
 */
#include "decoder.h"
#include "shuffle.h"

#include <string.h>

/* Beyond its ends a line is read and written by vectors: 31 values at most, of three bytes where pixels are whole. */
enum { SLACK = 64 };

/* Chroma c is held as 2c, so the factors of green are halves. Those of red and blue are quarters, rounded: in 16 bits,
 * (2c * f/4) >> 15 is (c * f) >> 16 for each of the 256 values of c.
 */
enum { RED = 91881 / 4, BLUE = (116130 + 2) / 4, GREEN_CB = -22554 / 2, GREEN_CR = -46802 / 2 };

enum { CB, CR };

/* The planes of an image, the window's columns, and what a row goes through. */
struct crop {
    int width, chroma_width, chroma_height;
    int x, columns;
    int mirror, planar; /* the order of the output */
    const uint8_t *luma, *chroma[2];
    int16_t *sums[4][2]; /* chroma weighed between two rows, for each of four rows of pixels */
    uint8_t *ordered;    /* a row's pixels in the order of the output */
    int apart;           /* bytes from a line of red to those of green and blue */
    /* For plain C: doubled chroma of the first and of the second of each two columns; a row in the image's order. */
    int16_t *doubled[2][2];
    uint8_t *rgb;
    uint8_t orders[3][3][16]; /* for AVX2: `fill_orders` */
};

/* Between two rows of chroma lie two of pixels: make the sums of both. */
static void weigh_plain(
    const uint8_t *restrict above, const uint8_t *restrict below, int16_t *restrict upper, int16_t *restrict lower,
    int begin, int end)
{
    for (int i = begin; i < end; i++) {
        upper[i] = (int16_t)(3 * above[i] + below[i]);
        lower[i] = (int16_t)(above[i] + 3 * below[i]);
    }
}

static void upsample(
    const int16_t *restrict near, const int16_t *restrict far, int round, int16_t *restrict doubled, int n)
{
    for (int k = 0; k < n; k++) {
        int16_t sum = (int16_t)(3 * near[k] + far[k] + round - (128 << 4));
        doubled[k] = (int16_t)(sum >> 3 & ~1);
    }
}

/* Add colour to the luma of two pixels. */
EVERYWHERE void put_two(uint8_t *to, const uint8_t *luma, int16_t first, int16_t second)
{
    uint16_t two;
    memcpy(&two, luma, sizeof two);
    if (__BYTE_ORDER__ == __ORDER_BIG_ENDIAN__) {
        int16_t other = first;
        first = second, second = other;
    }
    int16_t a = (int16_t)((two & 0xFF) + first), b = (int16_t)((two >> 8) + second);
    a = a < 0 ? 0 : a > 255 ? 255 : a;
    b = b < 0 ? 0 : b > 255 ? 255 : b;
    two = (uint16_t)(a | b << 8);
    memcpy(to, &two, sizeof two);
}

EVERYWHERE int16_t scaled(int16_t chroma, int16_t factor)
{
    return (int16_t)(((chroma * factor >> 14) + 1) >> 1);
}

EVERYWHERE int16_t green_of(int16_t cb, int16_t cr)
{
    return (int16_t)((GREEN_CB * cb + GREEN_CR * cr + (1 << 15)) >> 16);
}

static void red_or_blue(
    uint8_t *restrict to, const uint8_t *restrict luma, int16_t *const chroma[2], int16_t factor, int n)
{
    const int16_t *restrict first = chroma[0], *restrict second = chroma[1];
    for (int k = 0; k < n; k++)
        put_two(to + 2 * k, luma + 2 * k, scaled(first[k], factor), scaled(second[k], factor));
}

static void green(uint8_t *restrict to, const uint8_t *restrict luma, int16_t *const cb[2], int16_t *const cr[2], int n)
{
    const int16_t *restrict cb0 = cb[0], *restrict cb1 = cb[1], *restrict cr0 = cr[0], *restrict cr1 = cr[1];
    for (int k = 0; k < n; k++)
        put_two(to + 2 * k, luma + 2 * k, green_of(cb0[k], cr0[k]), green_of(cb1[k], cr1[k]));
}

static void make_plain(const struct crop *crop, const uint8_t *luma, int16_t *const sums[2])
{
    int columns = crop->columns, n = (columns + 1) / 2, odd = crop->x % 2, apart = crop->apart;
    for (int c = CB; c <= CR; c++) {
        const int16_t *left = sums[c] + (crop->x + 1) / 2 - 1, *right = left + 1;
        upsample(odd ? left : right, odd ? right : left, odd ? 7 : 8, crop->doubled[c][0], n);
        upsample(right, odd ? left : right + 1, odd ? 8 : 7, crop->doubled[c][1], n);
    }
    red_or_blue(crop->rgb, luma, crop->doubled[CR], RED, n);
    green(crop->rgb + apart, luma, crop->doubled[CB], crop->doubled[CR], n);
    red_or_blue(crop->rgb + 2 * apart, luma, crop->doubled[CB], BLUE, n);
    if (!crop->planar) {
        join_row(crop->rgb, apart, crop->ordered, columns, crop->mirror);
        return;
    }
    for (int at = 0; at < 3 * apart; at += apart)
        if (crop->mirror)
            mirror_plane(crop->rgb + at, crop->ordered + at, columns);
        else
            memcpy(crop->ordered + at, crop->rgb + at, (size_t)columns);
}

#ifdef X86
#include "window_avx2.h"
#endif

typedef void weigh_rows(const uint8_t *above, const uint8_t *below, int16_t *upper, int16_t *lower, int begin, int end);
typedef void make_row(const struct crop *crop, const uint8_t *luma, int16_t *const sums[2]);

/* Make the sums of rows 2k + 1 and 2k + 2 of pixels, between rows k and k + 1 of chroma; k is -1 above the first. What
 * lies beyond the edges of an image is as at them.
 */
EVERYWHERE void weigh_below(const struct crop *crop, weigh_rows *weigh, int k)
{
    int width = crop->chroma_width, last_row = crop->chroma_height - 1;
    int above = k < 0 ? 0 : k, below = k < last_row ? k + 1 : last_row;
    int first = (crop->x + 1) / 2 - 1, last = (crop->x + crop->columns) / 2; /* columns, with neighbours */
    for (int c = CB; c <= CR; c++) {
        int16_t *upper = crop->sums[(2 * k + 1) & 3][c], *lower = crop->sums[(2 * k + 2) & 3][c];
        weigh(crop->chroma[c] + (ptrdiff_t)above * width, crop->chroma[c] + (ptrdiff_t)below * width, upper, lower,
              first < 0 ? 0 : first, last < width ? last + 1 : width);
        if (first < 0)
            upper[-1] = upper[0], lower[-1] = lower[0];
        if (last == width)
            upper[width] = upper[width - 1], lower[width] = lower[width - 1];
    }
}

/* Make the window's rows. Sums are made before their turn: a load across two fresh stores waits for both. */
EVERYWHERE void make_rows(
    const struct crop *crop, finish_ordered_row *finish, const struct task *task, const struct image *image,
    void *scratch, weigh_rows *weigh, make_row *make)
{
    weigh_below(crop, weigh, (image->y + 1) / 2 - 1);
    for (int row = 0, y = image->y; row < task->rows; row++, y++) {
        if (y % 2 == 0)
            weigh_below(crop, weigh, y / 2);
        make(crop, crop->luma + (ptrdiff_t)y * crop->width + crop->x, crop->sums[y & 3]);
        finish(task, image, row, crop->ordered, crop->apart, scratch);
    }
}

#ifdef X86
AVX2 static void make_rows_avx2(
    struct crop *crop, finish_ordered_row *finish, const struct task *task, const struct image *image, void *scratch)
{
    fill_orders(crop);
    make_rows(crop, finish, task, image, scratch, weigh_avx2, make_avx2);
}
#endif

/* Lay out an image's planes and the lines of a row in a decoder's memory; NULL if there is none. */
static uint8_t *lay_out(
    struct decoder *decoder, const struct task *task, const struct image *image, struct crop *crop, void **scratch)
{
    size_t width = (size_t)task->width, height = (size_t)task->height;
    size_t chroma_width = (width + 1) / 2, chroma = chroma_width * ((height + 1) / 2);
    size_t planes = in_lines(width * height + 2 * chroma + SLACK);
    size_t sums = in_lines((chroma_width + SLACK) * sizeof(int16_t)), apart = in_lines(width + 2 * SLACK);
    uint8_t *memory = memory_of(decoder, planes + 12 * sums + 6 * apart + (size_t)task->columns * ROW_SCRATCH);
    if (!memory)
        return NULL;
    uint8_t *behind = memory + planes;
    *crop = (struct crop){
        .width = task->width, .chroma_width = (int)chroma_width, .chroma_height = (int)(chroma / chroma_width),
        .x = image->x, .columns = task->columns, .mirror = image->mirror, .planar = task->planar,
        .luma = memory, .apart = (int)apart};
    for (int c = CB; c <= CR; c++) {
        crop->chroma[c] = memory + width * height + (size_t)c * chroma;
        for (int row = 0; row < 4; row++, behind += sums)
            crop->sums[row][c] = (int16_t *)behind + SLACK / 2;
        for (int second = 0; second < 2; second++, behind += sums)
            crop->doubled[c][second] = (int16_t *)behind;
    }
    crop->rgb = behind + SLACK; /* mirrored, up to 15 bytes before a line are read */
    crop->ordered = behind + 3 * apart + 2 * SLACK;
    *scratch = behind + 6 * apart;
    return memory;
}

const char *read_window_of_planes(struct decoder *decoder, const struct task *task, const struct image *image)
{
    struct crop crop;
    void *scratch;
    if (image->y < 0 || image->y > task->height - task->rows || image->x < 0 || image->x > task->width - task->columns)
        return "has no such window";
    uint8_t *planes = lay_out(decoder, task, image, &crop, &scratch);
    if (!planes)
        return "needs memory that is not there";
    if (!read_planes_of(&image->stored, planes, (int64_t)planes_bytes(task)))
        return "cannot be read";
    prepare_rows(task, image, scratch);
    for (int row = 0; task->copy_only && row < task->rows; row++)
        decoder->finish_ordered(task, image, row, crop.ordered, crop.apart, scratch);
    if (task->copy_only)
        return NULL;
#ifdef X86
    if (__builtin_cpu_supports("avx2")) {
        make_rows_avx2(&crop, decoder->finish_ordered, task, image, scratch);
        return NULL;
    }
#endif
    make_rows(&crop, decoder->finish_ordered, task, image, scratch, weigh_plain, make_plain);
    return NULL;
}
