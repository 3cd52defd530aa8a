/* One sample of a batch, from where it lies in an open file to where it is wanted in memory.
 *
 * Bytes are read, not mapped: a file that is cut short while it is mapped kills the process.
 */
#include "decode.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

int read_whole(int descriptor, uint8_t *to, int64_t bytes, int64_t offset)
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

void read_sample(void *context, struct decoder *decoder, int i)
{
    const struct reading *reading = context;
    uint8_t *to = reading->out + reading->places[i];
    int64_t bytes = reading->lengths[i], head = (int64_t)reading->head_bytes;
    (void)decoder;
    if (!read_whole(reading->descriptors[i], to, bytes, reading->offsets[i]))
        reading->found[i] = FOUND_NOT;
    else if (0 < head && head <= bytes && !memcmp(to, reading->head, reading->head_bytes))
        reading->found[i] = FOUND_WITH_HEAD;
    else
        reading->found[i] = FOUND;
}
