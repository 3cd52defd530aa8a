/* A main for compilers without libFuzzer: replay files, then, if asked to, mutate them for some seconds.
 *
 *     decode_fuzz [-seconds N] FILE...
 *
 * Knows nothing of coverage, so it finds less than libFuzzer. An input that crashes is left in `crash.jpg`.
 */
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MAX_BYTES = 1 << 17, MUTATIONS = 6 };

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count);

struct file {
    uint8_t *bytes;
    size_t count;
};

static uint8_t input[2 * MAX_BYTES];
static size_t input_count;

static void keep(int number)
{
    FILE *file = fopen("crash.jpg", "wb");
    if (file) {
        fwrite(input, 1, input_count, file);
        fclose(file);
    }
    signal(number, SIG_DFL);
    raise(number);
}

static struct file read_file(const char *path)
{
    struct file file = {malloc(MAX_BYTES), 0};
    FILE *stream = fopen(path, "rb");
    if (!stream || !file.bytes) {
        perror(path);
        exit(2);
    }
    file.count = fread(file.bytes, 1, MAX_BYTES, stream);
    fclose(stream);
    return file;
}

static size_t below(size_t n)
{
    return n ? (size_t)rand() % n : 0;
}

/* Change a few bytes, cut, or take over a piece of another file: at any place, or where the headers are. */
static void mutate(const struct file *other)
{
    size_t place = below(rand() % 2 && input_count > 700 ? 700 : input_count), left = input_count - place;
    size_t piece = below(rand() % 2 ? 16 : 2048), from = below(other->count);
    switch (rand() % 5) {
    case 0: input[place] ^= (uint8_t)(1 << rand() % 8); break;
    case 1: input[place] = (uint8_t)rand(); break;
    case 2: input_count = place; break;
    case 3: /* overwrite */
        piece = piece < left ? piece : left;
        piece = piece < other->count - from ? piece : other->count - from;
        memcpy(input + place, other->bytes + from, piece);
        break;
    default: /* insert */
        piece = piece < other->count - from ? piece : other->count - from;
        if (input_count + piece <= sizeof input) {
            memmove(input + place + piece, input + place, left);
            memcpy(input + place, other->bytes + from, piece);
            input_count += piece;
        }
    }
}

static void run(void)
{
    uint8_t *exact = malloc(input_count + !input_count); /* so that a sanitizer sees one byte too many */
    memcpy(exact, input, input_count);
    LLVMFuzzerTestOneInput(exact, input_count);
    free(exact);
}

int main(int count, char **arguments)
{
    int first = count > 2 && strcmp(arguments[1], "-seconds") == 0 ? 3 : 1, files_count = count - first;
    clock_t until = first == 3 ? atol(arguments[2]) * CLOCKS_PER_SEC : 0;
    struct file *files = calloc((size_t)files_count + 1, sizeof *files);
    unsigned long runs = 0;
    signal(SIGABRT, keep);
    signal(SIGSEGV, keep);
    for (int i = 0; i < files_count; i++, runs++) {
        files[i] = read_file(arguments[first + i]);
        input_count = files[i].count;
        memcpy(input, files[i].bytes, input_count);
        run();
    }
    for (; files_count && clock() < until; runs++) {
        struct file *file = files + below((size_t)files_count);
        input_count = file->count;
        memcpy(input, file->bytes, input_count);
        for (int k = 1 + rand() % MUTATIONS; k > 0; k--)
            mutate(files + below((size_t)files_count));
        run();
    }
    for (int i = 0; i < files_count; i++)
        free(files[i].bytes);
    free(files);
    printf("%lu inputs, nothing found\n", runs);
    return 0;
}
