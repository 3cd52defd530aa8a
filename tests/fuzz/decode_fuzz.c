/* What libFuzzer calls with each input: a JPEG, perhaps damaged, decoded in every way there is.
 *
 * Beyond not crashing: a picture that decodes whole must give the same pixels window by window, wherever the window
 * lies. Windows are drawn from a hash of the input, so every input is a plain file that other programs open, too.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../pipeline/host/decode.h"

enum { MAX_PIXELS = 1 << 18, WINDOWS = 3 }; /* more pixels take time and find nothing new */

static struct decoder *decoder;
static const float mean[3] = {127.5f, 99.0f, -3.25f}, scale[3] = {1.0f, 0.017f, -2.0f};

static uint32_t next(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

static uint32_t hash_of(const uint8_t *bytes, size_t count)
{
    uint32_t hash = 2166136261u;
    for (size_t i = 0; i < count; i++)
        hash = (hash ^ bytes[i]) * 16777619u;
    return hash;
}

/* Decode into memory of exactly the size needed, so that a sanitizer sees one byte too many. NULL: not decoded. */
static uint8_t *decoded(const struct task *task, struct image image)
{
    image.out = malloc(image_bytes(task));
    if (!image.out || decode_image(decoder, task, &image)) {
        free(image.out);
        return NULL;
    }
    return image.out;
}

static void fail(const struct task *task, const struct image *image, const char *what)
{
    fprintf(stderr, "window of %d x %d at (%d, %d), to the end %d: %s\n", task->columns, task->rows, image->y, image->x,
            task->to_the_end, what);
    abort();
}

static void compare(const struct task *task, const struct image *image, const uint8_t *whole, int width)
{
    size_t pixel = task->kind == KIND_RGBX ? 4 : 3, row_bytes = (size_t)task->columns * pixel;
    uint8_t *window = decoded(task, *image);
    if (!window)
        fail(task, image, "not decoded, but the whole picture is");
    for (int y = 0; y < task->rows; y++) {
        const uint8_t *expected = whole + ((size_t)(image->y + y) * (size_t)width + (size_t)image->x) * pixel;
        if (memcmp(window + (size_t)y * row_bytes, expected, row_bytes) != 0)
            fail(task, image, "other pixels than in the whole picture");
    }
    free(window);
}

static void try_windows(const struct task *all, struct image image, uint32_t random)
{
    uint8_t *whole = decoded(all, image);
    for (int i = 0; i < WINDOWS; i++) {
        struct task task = *all;
        task.rows = 1 + (int)(next(&random) % (uint32_t)all->rows);
        task.columns = 1 + (int)(next(&random) % (uint32_t)all->columns);
        image.y = (int)(next(&random) % (uint32_t)(all->rows - task.rows + 1));
        image.x = (int)(next(&random) % (uint32_t)(all->columns - task.columns + 1));
        if (whole)
            compare(&task, &image, whole, all->columns);
        task.kind = next(&random) % KIND_PLANES; /* of the windows, mirrored and not */
        task.planar = next(&random) % 2;
        image.mirror = next(&random) % 2;
        free(decoded(&task, image));
        image.mirror = 0;
    }
    free(whole);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count)
{
    struct header header;
    if (!decoder)
        decoder = decoder_new();
    if (decode_header(decoder, bytes, count, &header) || (int64_t)header.width * header.height > MAX_PIXELS)
        return 0;
    uint32_t random = hash_of(bytes, count);
    struct image image = {.jpeg = bytes, .bytes = count, .mean = mean};
    struct task task = {.max_pixels = MAX_PIXELS, .rows = header.height, .columns = header.width, .scale = scale,
                        .to_the_end = random % 2, .kind = random % 4 < 2 ? KIND_UINT8 : KIND_RGBX};
    try_windows(&task, image, random);
    task.kind = KIND_PLANES;
    task.height = header.height;
    task.width = header.width;
    free(decoded(&task, image));
    task = (struct task){.max_pixels = MAX_PIXELS, .rows = (header.height + 3) / 4, .columns = (header.width + 3) / 4,
                         .reduced_by = 4, .to_the_end = 1, .kind = KIND_RGBX};
    free(decoded(&task, image));
    decode_to_the_end(decoder, bytes, count, MAX_PIXELS);
    return 0;
}
