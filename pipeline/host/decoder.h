/* struct decoder, for the C files that read from one: a libjpeg decompressor, its way out of an image, its memory. */
#ifndef ALEXNET_HOST_DECODER_H
#define ALEXNET_HOST_DECODER_H

#include "decode.h"

#include <setjmp.h>
#include <stdio.h>

#include <jpeglib.h>

struct decoder {
    struct jpeg_decompress_struct jpeg;
    struct jpeg_error_mgr errors;
    struct jpeg_progress_mgr progress;
    jmp_buf escape;
    char message[JMSG_LENGTH_MAX];
    void *scratch;
    size_t scratch_bytes;
    finish_row *finish;
    finish_ordered_row *finish_ordered;
    int forgiving;       /* go on after damage */
    int damaged, no_end; /* met on the way: damage, the end of the bytes */
    int hopeless;        /* no other decoder makes a whole image of it, or soon */
};

__attribute__((format(printf, 2, 3), noreturn)) void refuse(struct decoder *decoder, const char *format, ...);

/* Return memory, at the beginning of a line, that lasts until the next call with more bytes; NULL if there is none. */
void *memory_of(struct decoder *decoder, size_t bytes);
void *scratch_of(struct decoder *decoder, size_t bytes); /* refuses if there is none */
size_t in_lines(size_t bytes);                           /* whole lines of the caches */

/* planes.c */
void read_planes(struct decoder *decoder, const struct task *task, const struct image *image);

#endif
