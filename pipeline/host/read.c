/* One sample of a batch, from where it lies in an open file to where it is wanted in memory.
 *
 * Bytes are read, not mapped: a file that is cut short while it is mapped kills the process. Planes are read with the
 * tar header before them, since any bytes are a picture: it must be that of this sample.
 */
#include "decode.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

enum { HEADER_BYTES = 512, SIZE_AT = 124, SIZE_DIGITS = 11, KEY_DIGITS = 8 /* of USTAR, and of a key */ };

static int read_whole(int descriptor, uint8_t *to, int64_t bytes, int64_t offset)
{
    while (bytes > 0) {
        ssize_t count = pread(descriptor, to, (size_t)bytes, offset);
        if (count < 0 && errno == EINTR)
            continue;
        if (count <= 0)
            return 0;
        to += count;
        offset += count;
        bytes -= count;
    }
    return 1;
}

int read_planes_of(const struct stored *stored, uint8_t *to, int64_t bytes)
{
    char header[HEADER_BYTES], key[KEY_DIGITS + 2], size[SIZE_DIGITS + 1];
    struct iovec parts[] = {{header, sizeof header}, {to, (size_t)bytes}};
    ssize_t count;
    do
        count = preadv(stored->descriptor, parts, 2, stored->offset - HEADER_BYTES);
    while (count < 0 && errno == EINTR);
    int64_t got = count - HEADER_BYTES;
    if (got < 0 || !read_whole(stored->descriptor, to + got, bytes - got, stored->offset + got))
        return 0;
    snprintf(key, sizeof key, "%08u_", (unsigned)stored->key % 100000000);
    snprintf(size, sizeof size, "%011llo", (unsigned long long)bytes);
    return !memcmp(header, key, KEY_DIGITS + 1) && !memcmp(header + SIZE_AT, size, SIZE_DIGITS);
}

void read_sample(void *context, struct decoder *decoder, int i)
{
    const struct reading *reading = context;
    uint8_t *to = reading->out + reading->places[i];
    int64_t bytes = reading->lengths[i], head = (int64_t)reading->head_bytes;
    (void)decoder;
    int descriptor = reading->descriptors[i];
    int64_t offset = reading->offsets[i];
    int there = reading->keys ? read_planes_of(&(struct stored){descriptor, reading->keys[i], offset}, to, bytes)
                              : read_whole(descriptor, to, bytes, offset);
    if (!there)
        reading->found[i] = FOUND_NOT;
    else if (0 < head && head <= bytes && !memcmp(to, reading->head, reading->head_bytes))
        reading->found[i] = FOUND_WITH_HEAD;
    else
        reading->found[i] = FOUND;
}
