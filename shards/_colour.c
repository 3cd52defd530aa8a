/* The inner loop of alexnet.shards.colour: integer sums of one image's pixels, RGB or RGBX.
 *
 * RGBX is a 32-bit word a pixel: each channel is masked into a word of its own, and since a product of two bytes has 16
 * bits, multiplying the lower halves of words is enough. 0.02 ms for 256x256.
 *
 * With RGB, x[i]*x[i], x[i]*x[i+1] and x[i]*x[i+2] summed apart for i modulo 3 hold all six products of two channels,
 * and three that nobody reads. Three vectors of 32 bytes hold whole pixels. Even and odd bytes become 16-bit numbers by
 * mask and shift, and so do products 32-bit ones, because shuffling bytes into place would take twice the time. 0.04 ms.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

#if !defined(__GNUC__) || __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "written for GCC or clang and little-endian machines; elsewhere alexnet sums with NumPy"
#endif

#if defined(__x86_64__) && defined(__gnu_linux__)
#define EACH_CPU __attribute__((target_clones("avx2", "default")))
#else
#define EACH_CPU
#endif

enum {
    VECTOR = 32,
    STRIDE = 3 * VECTOR,
    BLOCK = 256, /* times 96 bytes is 24 kB, which stay in L1 for three passes; a uint32 holds 66,051 products */
    WORD_PIXELS = 1 << 18 /* 32,768 products in each of a vector's words */
};
typedef uint16_t Halves __attribute__((vector_size(VECTOR)));
typedef uint32_t Words __attribute__((vector_size(VECTOR)));

/* Sum the products of values with those `shift` places on, by place in the pixel, over `blocks` times 96 values. */
EACH_CPU static void sum_products_at(const uint8_t *x, int shift, Py_ssize_t blocks, uint64_t totals[3])
{
    Words sums[3][4] = {{{0}}}; /* by vector, and by byte modulo 4 in the order 0, 2, 1, 3 */
    for (Py_ssize_t b = 0; b < blocks; b++)
        for (int v = 0; v < 3; v++, x += VECTOR) {
            Halves here, there;
            memcpy(&here, x, VECTOR);
            memcpy(&there, x + shift, VECTOR);
            Words even = (Words)((here & 0xFF) * (there & 0xFF)), odd = (Words)((here >> 8) * (there >> 8));
            sums[v][0] += even & 0xFFFF;
            sums[v][1] += even >> 16;
            sums[v][2] += odd & 0xFFFF;
            sums[v][3] += odd >> 16;
        }
    static const int byte_of[4] = {0, 2, 1, 3};
    for (int v = 0; v < 3; v++)
        for (int k = 0; k < 4; k++)
            for (int j = 0; j < VECTOR / 4; j++)
                totals[(VECTOR * v + 4 * j + byte_of[k]) % 3] += sums[v][k][j];
}

EACH_CPU static void add_four_images(
    const uint8_t *restrict a, const uint8_t *restrict b, const uint8_t *restrict c, const uint8_t *restrict d,
    uint16_t *restrict recent, Py_ssize_t n)
{
    for (Py_ssize_t i = 0; i < n; i++)
        recent[i] = (uint16_t)(recent[i] + a[i] + b[i] + c[i] + d[i]);
}

/* Sum the products of RGB pixels: rr, rg, rb, gg, gb, bb. */
static void sum_rgb(const uint8_t *x, Py_ssize_t n, uint64_t sums[6])
{
    uint64_t totals[3][3] = {{0}}; /* by shift, and by the first one's channel */
    Py_ssize_t done = 0, whole = n >= 2 ? (n - 2) / STRIDE : 0; /* the last product reads two values on */
    while (done < whole) {
        Py_ssize_t blocks = whole - done < BLOCK ? whole - done : BLOCK;
        for (int shift = 0; shift < 3; shift++)
            sum_products_at(x + done * STRIDE, shift, blocks, totals[shift]);
        done += blocks;
    }
    for (Py_ssize_t i = done * STRIDE; i < n; i++)
        for (int shift = 0; shift < 3 && i + shift < n; shift++)
            totals[shift][i % 3] += (uint64_t)x[i] * x[i + shift];
    memcpy(sums, (uint64_t[6]){totals[0][0], totals[1][0], totals[2][0], totals[0][1], totals[1][1], totals[0][2]},
           6 * sizeof *sums);
}

/* The same of at most WORD_PIXELS pixels of RGBX, a multiple of 8. */
EACH_CPU static void sum_words(const uint8_t *x, Py_ssize_t pixels, uint64_t sums[6])
{
    Words totals[6] = {{0}};
    for (Py_ssize_t i = 0; i < pixels; i += VECTOR / 4, x += VECTOR) {
        Words pixel;
        memcpy(&pixel, x, VECTOR);
        Halves red = (Halves)(pixel & 0xFF), green = (Halves)(pixel >> 8 & 0xFF), blue = (Halves)(pixel >> 16 & 0xFF);
        totals[0] += (Words)(red * red);
        totals[1] += (Words)(red * green);
        totals[2] += (Words)(red * blue);
        totals[3] += (Words)(green * green);
        totals[4] += (Words)(green * blue);
        totals[5] += (Words)(blue * blue);
    }
    for (int k = 0; k < 6; k++)
        for (int j = 0; j < VECTOR / 4; j++)
            sums[k] += totals[k][j];
}

static void sum_rgbx(const uint8_t *x, Py_ssize_t pixels, uint64_t sums[6])
{
    Py_ssize_t whole = pixels - pixels % (VECTOR / 4);
    for (Py_ssize_t done = 0; done < whole; done += WORD_PIXELS)
        sum_words(x + 4 * done, whole - done < WORD_PIXELS ? whole - done : WORD_PIXELS, sums);
    for (const uint8_t *p = x + 4 * whole; p < x + 4 * pixels; p += 4)
        for (int a = 0, k = 0; a < 3; a++)
            for (int b = a; b < 3; b++)
                sums[k++] += (uint64_t)p[a] * p[b];
}

static PyObject *products(PyObject *module, PyObject *args)
{
    (void)module;
    Py_buffer pixels;
    int channels;
    if (!PyArg_ParseTuple(args, "y*i:products", &pixels, &channels))
        return NULL;
    PyObject *result = NULL;
    uint64_t sums[6] = {0};
    if ((channels != 3 && channels != 4) || pixels.len % channels != 0) {
        PyErr_Format(PyExc_ValueError, "pixels: %zd bytes are no pixels of 3 or 4 channels", pixels.len);
    } else {
        Py_BEGIN_ALLOW_THREADS
        if (channels == 3)
            sum_rgb(pixels.buf, pixels.len, sums);
        else
            sum_rgbx(pixels.buf, pixels.len / 4, sums);
        Py_END_ALLOW_THREADS
        result = Py_BuildValue("(KKKKKK)", sums[0], sums[1], sums[2], sums[3], sums[4], sums[5]);
    }
    PyBuffer_Release(&pixels);
    return result;
}

static PyObject *add_four(PyObject *module, PyObject *args)
{
    (void)module;
    Py_buffer in[4], recent;
    if (!PyArg_ParseTuple(args, "y*y*y*y*w*:add_four", &in[0], &in[1], &in[2], &in[3], &recent))
        return NULL;
    Py_ssize_t n = in[0].len;
    int fits = recent.len == 2 * n && (uintptr_t)recent.buf % sizeof(uint16_t) == 0;
    for (int i = 1; i < 4; i++)
        fits = fits && in[i].len == n;
    if (fits) {
        Py_BEGIN_ALLOW_THREADS
        add_four_images(in[0].buf, in[1].buf, in[2].buf, in[3].buf, recent.buf, n);
        Py_END_ALLOW_THREADS
    } else {
        PyErr_SetString(PyExc_ValueError, "four images of one size and as many uint16 sums are wanted");
    }
    for (int i = 0; i < 4; i++)
        PyBuffer_Release(&in[i]);
    PyBuffer_Release(&recent);
    return fits ? Py_NewRef(Py_None) : NULL;
}

static PyMethodDef methods[] = {
    {"products", products, METH_VARARGS, "Return the sums rr, rg, rb, gg, gb, bb of pixels of 3 or 4 channels."},
    {"add_four", add_four, METH_VARARGS, "Add four images of bytes to uint16 sums of their shape."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef_Slot slots[] = {{0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_colour", "The inner loop of alexnet.shards.colour.", 0, methods, slots, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__colour(void)
{
    return PyModuleDef_Init(&definition);
}
