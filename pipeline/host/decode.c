/* One JPEG through libjpeg-turbo: no more of it than the window needs.
 *
 * Entropy decoding has to go through all that lies before the window's last row; the inverse transform, upsampling and
 * colour conversion are asked for the window alone, with one more column on each side: the smooth upsampling of chroma
 * looks one column beyond, and without it the window's edges differ from a whole decode by up to 16 levels. Rows need
 * no margin, as libjpeg keeps the context of the rows it skips.
 *
 * libjpeg reports damage as a warning and goes on with grey; here a warning is an error, unless all that is asked is
 * whether the data end early. Every failure leaves by longjmp to the call's own setjmp; the decoder can be used again.
 */
#include "decoder.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <jerror.h>

#if !defined(LIBJPEG_TURBO_VERSION_NUMBER) || LIBJPEG_TURBO_VERSION_NUMBER < 1005000
#error "libjpeg-turbo 1.5 or newer is needed: this libjpeg has no jpeg_crop_scanline"
#endif

enum { ROWS_AT_ONCE = 4, LINE_BYTES = 64 /* of the caches */ };

enum { NARROWEST = 16 }; /* columns asked for at least: chroma of one or two columns is upsampled in another way */

/* Ordinary progressive files have about 10; each may cost a whole image's time, .3 to 1 ns a pixel, for a dozen bytes,
 * and all of an image's coefficients are kept meanwhile, 3 or 6 bytes a pixel.
 */
enum { MAX_SCANS = 500, MAX_MEGABYTES = 320 };
static const int64_t MAX_SCANNED_PIXELS = (int64_t)1 << 32;

/* Where a decoded row begins within a line. libjpeg-turbo's AVX2 code writes a row that begins at a multiple of 32 past
 * the caches, which is right for an image nobody looks at soon, and made the decode of windows 1.5 times slower.
 */
enum { OFF_LINE = 8 };

typedef void step(struct decoder *decoder, const struct task *task, const struct image *image);

void refuse(struct decoder *decoder, const char *format, ...)
{
    va_list values;
    va_start(values, format);
    vsnprintf(decoder->message, sizeof decoder->message, format, values);
    va_end(values);
    longjmp(decoder->escape, 1);
}

static void on_error(j_common_ptr jpeg)
{
    struct decoder *decoder = jpeg->client_data;
    if ((decoder->hopeless = jpeg->err->msg_code == JERR_NO_BACKING_STORE))
        refuse(decoder, "takes more than %d MB of memory", MAX_MEGABYTES);
    jpeg->err->format_message(jpeg, decoder->message);
    longjmp(decoder->escape, 1);
}

/* Of a warning: the data end before the last block. Any other marker that comes too soon is damage, and data follow it.
 * Without an end marker nothing else may be amiss: a tail of zeros would be taken for codes.
 */
static int ends_early(struct decoder *decoder)
{
    int code = decoder->errors.msg_code, marker = decoder->jpeg.unread_marker;
    *(code == JWRN_JPEG_EOF ? &decoder->no_end : &decoder->damaged) = 1;
    return (decoder->no_end && (decoder->damaged || decoder->jpeg.arith_code)) ||
           ((code == JWRN_HIT_MARKER || code == JWRN_MUST_RESYNC) && marker == JPEG_EOI);
}

static void on_message(j_common_ptr jpeg, int level)
{
    struct decoder *decoder = jpeg->client_data;
    if (level < 0 && !decoder->forgiving)
        on_error(jpeg);
    if (level < 0 && (decoder->hopeless = ends_early(decoder)))
        refuse(decoder, "is truncated: its data end before the picture does");
}

static void on_progress(j_common_ptr jpeg)
{
    struct decoder *decoder = jpeg->client_data;
    int64_t scans = decoder->jpeg.input_scan_number, height = decoder->jpeg.image_height;
    if ((decoder->hopeless = scans > MAX_SCANS))
        refuse(decoder, "has more than %d scans", MAX_SCANS);
    if ((decoder->hopeless = scans > 1 && scans * height * decoder->jpeg.image_width > MAX_SCANNED_PIXELS))
        refuse(decoder, "has too many scans for its size: %d and more", (int)scans);
}

/* Say whether more scans follow than are read, without decoding any. */
static int many_scans_follow(const struct jpeg_source_mgr *source)
{
    const uint8_t *at = source->next_input_byte, *end = at + source->bytes_in_buffer;
    int scans = 1;
    while (scans <= MAX_SCANS && (at = memchr(at, 0xFF, (size_t)(end - at))) && end - at > 3) {
        int has_length = at[1] >= 0xC0 && at[1] != 0xFF && (at[1] < JPEG_RST0 || at[1] > JPEG_EOI);
        ptrdiff_t step = has_length ? 2 + (at[2] << 8 | at[3]) : 1 + (at[1] != 0xFF);
        scans += at[1] == 0xDA;
        at = step < end - at ? at + step : end;
    }
    return scans > MAX_SCANS;
}

struct decoder *decoder_new(void)
{
    struct decoder *decoder = calloc(1, sizeof *decoder);
    if (!decoder)
        return NULL;
    decoder->jpeg.err = jpeg_std_error(&decoder->errors);
    decoder->jpeg.client_data = decoder;
    decoder->errors.error_exit = on_error;
    decoder->errors.emit_message = on_message;
    decoder->progress.progress_monitor = on_progress;
    decoder->finish = row_finisher();
    decoder->finish_ordered = ordered_row_finisher();
    return decoder;
}

void decoder_free(struct decoder *decoder)
{
    if (decoder)
        free(decoder->scratch);
    free(decoder);
}

/* Run a step that may leave half-way. The decompressor is new for each image (.2% of the time): a used one would lend
 * its tables to the next image that lacks them, so that pixels would depend on what the thread decoded before.
 */
static const char *attempt(struct decoder *decoder, step *read, const struct task *task, const struct image *image)
{
    decoder->hopeless = decoder->damaged = decoder->no_end = 0;
    if (setjmp(decoder->escape) == 0) {
        jpeg_create_decompress(&decoder->jpeg);
        decoder->jpeg.progress = &decoder->progress;
        decoder->jpeg.mem->max_memory_to_use = MAX_MEGABYTES * 1000000L;
        read(decoder, task, image);
        decoder->message[0] = '\0';
    }
    jpeg_destroy_decompress(&decoder->jpeg);
    return decoder->message[0] ? decoder->message : NULL;
}

size_t in_lines(size_t bytes)
{
    return (bytes + LINE_BYTES - 1) / LINE_BYTES * LINE_BYTES;
}

void *memory_of(struct decoder *decoder, size_t bytes)
{
    bytes = in_lines(bytes);
    if (bytes > decoder->scratch_bytes) {
        free(decoder->scratch);
        decoder->scratch = aligned_alloc(LINE_BYTES, bytes);
        decoder->scratch_bytes = decoder->scratch ? bytes : 0;
    }
    return decoder->scratch;
}

void *scratch_of(struct decoder *decoder, size_t bytes)
{
    void *memory = memory_of(decoder, bytes);
    if (!memory)
        refuse(decoder, "needs %zu bytes of memory that are not there", bytes);
    return memory;
}

static void read_header(struct decoder *decoder, const struct image *image)
{
    jpeg_mem_src(&decoder->jpeg, image->jpeg, (unsigned long)image->bytes);
    jpeg_read_header(&decoder->jpeg, TRUE);
}

static const char *name_of(J_COLOR_SPACE colour_space)
{
    static const char *const names[] = {"unknown", "GRAYSCALE", "RGB", "YCbCr", "CMYK", "YCCK"};
    return names[colour_space <= JCS_YCCK ? colour_space : JCS_UNKNOWN];
}

/* A file that was cut short below the window would go unnoticed: there is an end-of-image marker, or it is an error. */
static int has_end(const uint8_t *bytes, size_t count)
{
    while (count >= 2 && !(bytes[count - 2] == 0xFF && bytes[count - 1] == JPEG_EOI))
        count--;
    return count >= 2;
}

/* Read the header and refuse what the task does not expect, before anything is allocated for the image's size. */
static void open_image(struct decoder *decoder, const struct task *task, const struct image *image)
{
    j_decompress_ptr jpeg = &decoder->jpeg;
    read_header(decoder, image);
    unsigned width = jpeg->image_width, height = jpeg->image_height;
    J_COLOR_SPACE from = jpeg->jpeg_color_space;
    if (task->height && (height != (unsigned)task->height || width != (unsigned)task->width))
        refuse(decoder, "is %u pixels wide and %u high, not %d and %d", width, height, task->width, task->height);
    if ((int64_t)width * height > task->max_pixels)
        refuse(decoder, "has %u x %u pixels, more than the %lld allowed", width, height, (long long)task->max_pixels);
    if (from != JCS_GRAYSCALE && from != JCS_RGB && from != JCS_YCbCr)
        refuse(decoder, "has the colour space %s, not YCbCr, RGB or GRAYSCALE", name_of(from));
    if (!has_end(image->jpeg, image->bytes))
        refuse(decoder, "has no end-of-image marker: it was cut short");
}

/* Say whether scans of a started image are missing: of a component, or, in a progressive file, of some bits. Such a
 * progressive file is smoothed over blocks further than one column away, so that only all of it can be decoded.
 */
static int lacks_scans(j_decompress_ptr jpeg)
{
    for (int c = 0; c < jpeg->num_components; c++) {
        if (!jpeg->comp_info[c].quant_table)
            return 1;
        for (int k = 0; jpeg->progressive_mode && jpeg->coef_bits && k < DCTSIZE2; k++)
            if (jpeg->coef_bits[c][k] != 0)
                return 1;
    }
    return 0;
}

static void start(struct decoder *decoder, int to_the_end)
{
    if ((decoder->hopeless = jpeg_has_multiple_scans(&decoder->jpeg) && many_scans_follow(decoder->jpeg.src)))
        refuse(decoder, "has more than %d scans", MAX_SCANS);
    jpeg_start_decompress(&decoder->jpeg);
    if (to_the_end && (decoder->hopeless = lacks_scans(&decoder->jpeg)))
        refuse(decoder, "is truncated: it lacks scans");
}

/* Narrow the decoder to the window's columns and return where they begin in a decoded row. */
static int crop_columns(j_decompress_ptr jpeg, int x, int columns)
{
    int whole = (int)jpeg->output_width, begin = x > 0 ? x - 1 : 0, end = x + columns < whole ? x + columns + 1 : whole;
    if (end - begin < NARROWEST) {
        begin = end > NARROWEST ? end - NARROWEST : 0;
        end = begin + NARROWEST < whole ? begin + NARROWEST : whole;
    }
    JDIMENSION first = (JDIMENSION)begin, width = (JDIMENSION)(end - begin);
    if ((int)width < whole)
        jpeg_crop_scanline(jpeg, &first, &width); /* begins at a whole block, hence no later than asked */
    return x - (int)first;
}

static void read_rest(j_decompress_ptr jpeg, JSAMPARRAY lines)
{
    JDIMENSION left = jpeg->output_height - jpeg->output_scanline;
    if (left > 1) /* not all of them: skipping the last row, too, would end without reading a byte */
        jpeg_skip_scanlines(jpeg, left - 1);
    if (left > 0)
        jpeg_read_scanlines(jpeg, lines, 1);
    jpeg_finish_decompress(jpeg);
}

/* Read the window's rows into lines of scratch memory and finish each while it is in L1. */
static void read_window(struct decoder *decoder, const struct task *task, const struct image *image)
{
    j_decompress_ptr jpeg = &decoder->jpeg;
    jpeg->out_color_space = task->kind == KIND_RGBX ? JCS_EXT_RGBA : JCS_RGB;
    jpeg->scale_denom = task->reduced_by > 1 ? (unsigned)task->reduced_by : 1;
    jpeg_calc_output_dimensions(jpeg);
    if (image->y < 0 || image->y > (int)jpeg->output_height - task->rows || image->x < 0 ||
        image->x > (int)jpeg->output_width - task->columns)
        refuse(decoder, "is %u pixels wide and %u high: too small", jpeg->output_width, jpeg->output_height);
    start(decoder, task->to_the_end);
    int whole = jpeg->scale_denom > 1 || lacks_scans(jpeg);
    int first = whole ? image->x : crop_columns(jpeg, image->x, task->columns);
    size_t pixel_bytes = (size_t)jpeg->output_components;
    size_t row_bytes = in_lines(OFF_LINE + jpeg->output_width * pixel_bytes);
    uint8_t *rows = scratch_of(decoder, ROWS_AT_ONCE * row_bytes + (size_t)task->columns * ROW_SCRATCH);
    void *scratch = rows + ROWS_AT_ONCE * row_bytes;
    JSAMPROW lines[ROWS_AT_ONCE];
    for (size_t i = 0; i < ROWS_AT_ONCE; i++)
        lines[i] = rows + i * row_bytes + OFF_LINE;
    prepare_rows(task, image, scratch);
    if (!whole && image->y > 0)
        jpeg_skip_scanlines(jpeg, (JDIMENSION)image->y);
    for (int y = (int)jpeg->output_scanline - image->y; y < task->rows;) {
        int want = task->rows - y < ROWS_AT_ONCE ? task->rows - y : ROWS_AT_ONCE;
        int got = (int)jpeg_read_scanlines(jpeg, lines, (JDIMENSION)want);
        for (int i = 0; i < got; i++, y++)
            if (y >= 0)
                decoder->finish(task, image, y, lines[i] + (size_t)first * pixel_bytes, scratch);
    }
    if (task->to_the_end)
        read_rest(jpeg, lines);
}

/* Read all of an image, of any colour space, reduced as far as it can be. */
static void read_to_the_end(struct decoder *decoder, const struct task *task, const struct image *image)
{
    j_decompress_ptr jpeg = &decoder->jpeg;
    read_header(decoder, image);
    if ((int64_t)jpeg->image_width * jpeg->image_height > task->max_pixels)
        return;
    jpeg->scale_denom = DCTSIZE;
    start(decoder, 1);
    JSAMPROW line = scratch_of(decoder, (size_t)jpeg->output_width * (size_t)jpeg->output_components);
    while (jpeg->output_scanline < jpeg->output_height)
        jpeg_read_scanlines(jpeg, &line, 1);
    jpeg_finish_decompress(jpeg);
}

static void read_facts(struct decoder *decoder, const struct task *task, const struct image *image)
{
    j_decompress_ptr jpeg = &decoder->jpeg;
    (void)task;
    read_header(decoder, image);
    *(struct header *)image->out =
        (struct header){(int)jpeg->image_width, (int)jpeg->image_height, jpeg->num_components, jpeg->progressive_mode,
                        name_of(jpeg->jpeg_color_space)};
}

static void read_image(struct decoder *decoder, const struct task *task, const struct image *image)
{
    open_image(decoder, task, image);
    (task->kind == KIND_PLANES ? read_planes : read_window)(decoder, task, image);
}

const char *decode_header(struct decoder *decoder, const uint8_t *jpeg, size_t bytes, struct header *header)
{
    return attempt(decoder, read_facts, NULL, &(struct image){.jpeg = jpeg, .bytes = bytes, .out = header});
}

const char *decode_image(struct decoder *decoder, const struct task *task, const struct image *image)
{
    return attempt(decoder, read_image, task, image);
}

const char *decode_to_the_end(struct decoder *decoder, const uint8_t *jpeg, size_t bytes, int64_t max_pixels)
{
    decoder->forgiving = 1;
    const char *message = attempt(decoder, read_to_the_end, &(struct task){.max_pixels = max_pixels},
                                  &(struct image){.jpeg = jpeg, .bytes = bytes});
    decoder->forgiving = 0;
    return decoder->hopeless ? message : NULL;
}
