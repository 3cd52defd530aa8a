/* JPEG to the rows of a batch: what the C files of alexnet.pipeline.host offer each other. Only module.c knows Python.
 *
 * decode.c  one JPEG: the window's rows through libjpeg-turbo, damage as a message
 * planes.c  one JPEG: its planes instead
 * window.c  one image that is stored as planes: the window's rows
 * rows.c    one row: mirrored, shifted, scaled, cast, written
 * pool.c    threads that share a batch, image by image
 */
#ifndef ALEXNET_HOST_DECODE_H
#define ALEXNET_HOST_DECODE_H

#include <stddef.h>
#include <stdint.h>

#if defined(__x86_64__) && !defined(PLAIN_ROWS)
#define X86 1 /* code for AVX2 lies beside that for any CPU */
#endif

/* The values of an output. Planes are no window: the whole image in 4:2:0 as stored, bytes. RGBX is four bytes a pixel,
 * the last 255, as decoded: neither mirrored nor planar.
 */
enum kind { KIND_UINT8, KIND_FLOAT32, KIND_BFLOAT16, KIND_FLOAT16, KIND_PLANES, KIND_RGBX, KINDS };
extern const size_t kind_bytes[KINDS];

/* What all images of a batch have in common. */
struct task {
    int64_t max_pixels;      /* of an image; beyond it nothing is decoded */
    int height, width;       /* of every image; 0: any */
    int rows, columns;       /* of the window */
    int reduced_by;          /* 2, 4 or 8: the image is decoded so much smaller, and the window lies in that; else 0 */
    int to_the_end;          /* also read what lies below the window and refuse damage there, and a lack of scans */
    enum kind kind;
    int copy_only;           /* of planes: only move memory, to measure the time that this takes; values are any */
    int planar;              /* write (3, rows, columns) instead of (rows, columns, 3) */
    const float *scale;      /* 3 */
    const float *mean_image; /* rows lines of 3 * columns, in the order of the output's rows; or NULL */
};

/* Where an image's planes lie in a tar, and the number that its key begins with. */
struct stored {
    int descriptor, key;
    int64_t offset;
};

/* One image of it. */
struct image {
    const uint8_t *jpeg;
    size_t bytes;
    struct stored stored; /* instead of a JPEG */
    int y, x, mirror;
    const float *mean; /* 3 */
    void *out;
};

struct header {
    int width, height, components, progressive;
    const char *colour_space;
};

/* decode.c: a call returns NULL, or what is wrong with the JPEG: text that lives until the decoder's next call. */
struct decoder;
struct decoder *decoder_new(void); /* NULL: no memory, or another libjpeg than this was compiled for */
void decoder_free(struct decoder *decoder);
const char *decode_header(struct decoder *decoder, const uint8_t *jpeg, size_t bytes, struct header *header);
const char *decode_image(struct decoder *decoder, const struct task *task, const struct image *image);
/* Any damage is passed over but an early end, or too many scans. What cannot be decoded at all is not told here. */
const char *decode_to_the_end(struct decoder *decoder, const uint8_t *jpeg, size_t bytes, int64_t max_pixels);

/* window.c: as `decode_image`. */
const char *read_window_of_planes(struct decoder *decoder, const struct task *task, const struct image *image);

/* rows.c: `rgb` is a row of the window as decoded. An ordered row is as the output has it: mirrored if that is, and in
 * three lines, `apart` bytes from each other, if it is planar. `scratch` has ROW_SCRATCH bytes for each column.
 */
enum { ROW_SCRATCH = 3 * (4 * sizeof(float) + sizeof(uint16_t) + 2) };
typedef void finish_row(const struct task *task, const struct image *image, int row, const uint8_t *rgb, void *scratch);
typedef void finish_ordered_row(
    const struct task *task, const struct image *image, int row, const uint8_t *pixels, int apart, void *scratch);
finish_row *row_finisher(void); /* for the CPU at hand */
finish_ordered_row *ordered_row_finisher(void);
void prepare_rows(const struct task *task, const struct image *image, void *scratch); /* once an image */
size_t image_bytes(const struct task *task); /* of the output */
size_t planes_bytes(const struct task *task);

/* pool.c: one batch at a time; whoever shares a pool holds a lock. */
struct pool;
typedef void pool_work(void *context, struct decoder *decoder, int index); /* decoder: the thread's, or NULL */
struct pool *pool_new(int threads);
int pool_run(struct pool *pool, pool_work *work, void *context, int count); /* the caller works, too; 0 or errno */
void pool_free(struct pool *pool); /* does nothing in a forked child, which has none of the threads */

/* read.c: the work of a pool that reads samples. */
enum found { FOUND_NOT, FOUND, FOUND_WITH_HEAD };
struct reading {
    const int32_t *descriptors;
    const int64_t *offsets, *lengths; /* in the files */
    const int64_t *places;            /* in `out` */
    const int32_t *keys;              /* of planes: what their keys begin with; else NULL */
    const uint8_t *head;              /* how a sample is known to begin, or nothing */
    size_t head_bytes;
    uint8_t *out, *found;
};
pool_work read_sample;
int read_planes_of(const struct stored *stored, uint8_t *to, int64_t bytes); /* whether all is there */

#endif
