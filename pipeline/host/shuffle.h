/* The bytes of a row of pixels in another order, 16 at a time: mirrored, split into planes, joined from planes.
 *
 * All is inlined where it is used, to be compiled for the instruction set of the place.
 */
#ifndef ALEXNET_HOST_SHUFFLE_H
#define ALEXNET_HOST_SHUFFLE_H

#include <stdint.h>
#include <string.h>

#define EVERYWHERE static inline __attribute__((always_inline))

typedef uint8_t bytes16 __attribute__((vector_size(16)));

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

EVERYWHERE bytes16 reversed16(bytes16 v)
{
    return PICK(v, v, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
}

/* Reads up to 15 bytes before the plane, and writes as many behind. */
EVERYWHERE void mirror_plane(const uint8_t *plane, uint8_t *mirrored, int columns)
{
    for (int x = 0; x < columns; x += 16)
        store16(mirrored + x, reversed16(load16(plane + columns - x - 16)));
}

/* R... G... B... to RGBRGB..., and up to 45 bytes behind it; mirrored, reads up to 15 bytes before each plane */
EVERYWHERE void join_row(const uint8_t *planes, int apart, uint8_t *rgb, int columns, int mirror)
{
    for (int x = 0; x < columns; x += 16, rgb += 48) {
        const uint8_t *from = planes + (mirror ? columns - x - 16 : x);
        bytes16 r = load16(from), g = load16(from + apart), b = load16(from + 2 * apart);
        if (mirror)
            r = reversed16(r), g = reversed16(g), b = reversed16(b);
        bytes16 first = PICK(r, g, 0, 16, 0, 1, 17, 0, 2, 18, 0, 3, 19, 0, 4, 20, 0, 5);
        bytes16 second = PICK(r, g, 21, 0, 6, 22, 0, 7, 23, 0, 8, 24, 0, 9, 25, 0, 10, 26);
        bytes16 third = PICK(r, g, 0, 11, 27, 0, 12, 28, 0, 13, 29, 0, 14, 30, 0, 15, 31, 0);
        store16(rgb, PICK(first, b, 0, 1, 16, 3, 4, 17, 6, 7, 18, 9, 10, 19, 12, 13, 20, 15));
        store16(rgb + 16, PICK(second, b, 0, 21, 2, 3, 22, 5, 6, 23, 8, 9, 24, 11, 12, 25, 14, 15));
        store16(rgb + 32, PICK(third, b, 26, 1, 2, 27, 4, 5, 28, 7, 8, 29, 10, 11, 30, 13, 14, 31));
    }
}

#endif
