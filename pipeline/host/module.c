/* The Python face of the C decoder, as thin as can be; that of reading is in module_read.c. pool.py and jpeg.py check
 * what comes in and name what is wrong; here only what memory depends on is checked again, so that no argument can crash
 * the interpreter.
 */
#include "module.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "decoder.h"

enum { MAX_SIDE = 65535 /* what a JPEG's header can say */, MAX_THREADS = 4096 };

static const char no_memory[] = "could not be decoded: no memory";

/* A batch in work. */
struct batch {
    struct task task;
    Py_ssize_t count;
    Py_buffer *jpegs;
    const int32_t *descriptors; /* of planes in files, instead */
    const int64_t *offsets;
    const int32_t *keys;
    const int32_t *crop_yx;
    const uint8_t *mirror;
    const float *mean;
    char *out;
    char **messages;
    atomic_int lost; /* a message for which there was no memory */
};

static void decode_one(void *context, struct decoder *decoder, int i)
{
    struct batch *batch = context;
    size_t bytes = image_bytes(&batch->task);
    struct image image = {.out = batch->out + (size_t)i * bytes, .mean = batch->mean ? batch->mean + 3 * i : NULL};
    if (batch->descriptors) {
        image.stored = (struct stored){batch->descriptors[i], batch->keys[i], batch->offsets[i]};
    } else {
        image.jpeg = batch->jpegs[i].buf;
        image.bytes = (size_t)batch->jpegs[i].len;
    }
    if (batch->task.kind != KIND_PLANES) {
        image.y = batch->crop_yx[2 * i];
        image.x = batch->crop_yx[2 * i + 1];
        image.mirror = batch->mirror[i];
    }
    const char *message = no_memory;
    if (decoder)
        message = (batch->descriptors ? read_window_of_planes : decode_image)(decoder, &batch->task, &image);
    if (message) {
        memset(image.out, 0, bytes);
        batch->messages[i] = strdup(message);
        if (!batch->messages[i])
            atomic_store(&batch->lost, 1);
    }
}

static PyObject *errors_of(const struct batch *batch)
{
    PyObject *errors = PyList_New(0);
    for (Py_ssize_t i = 0; errors && i < batch->count; i++)
        if (batch->messages[i]) {
            PyObject *pair = Py_BuildValue("(ns)", i, batch->messages[i]);
            if (!pair || PyList_Append(errors, pair) < 0)
                Py_CLEAR(errors);
            Py_XDECREF(pair);
        }
    return errors;
}

/* Run a batch whose arguments are checked; `jpegs` is a tuple. */
static PyObject *run_batch(struct pool *pool, struct batch *batch, PyObject *jpegs)
{
    PyObject *errors = NULL;
    Py_ssize_t held = 0;
    size_t count = (size_t)batch->count;
    batch->jpegs = calloc(count + 1, sizeof *batch->jpegs);
    batch->messages = calloc(count + 1, sizeof *batch->messages);
    if (!batch->jpegs || !batch->messages)
        PyErr_NoMemory();
    else
        while (!batch->descriptors && held < batch->count &&
               PyObject_GetBuffer(PyTuple_GetItem(jpegs, held), batch->jpegs + held, PyBUF_SIMPLE) == 0)
            held++;
    if (!PyErr_Occurred()) {
        int error;
        Py_BEGIN_ALLOW_THREADS
        error = pool_run(pool, decode_one, batch, (int)count);
        Py_END_ALLOW_THREADS
        errno = error;
        errors = error ? PyErr_SetFromErrno(PyExc_OSError) : batch->lost ? PyErr_NoMemory() : errors_of(batch);
    }
    for (Py_ssize_t i = 0; i < held; i++)
        PyBuffer_Release(batch->jpegs + i);
    for (size_t i = 0; batch->messages && i < count; i++)
        free(batch->messages[i]);
    free(batch->messages);
    free(batch->jpegs);
    return errors;
}

int has(const Py_buffer *buffer, const char *name, size_t bytes, size_t item)
{
    if ((buffer->buf || !bytes) && (size_t)buffer->len == bytes && (uintptr_t)buffer->buf % item == 0)
        return 1;
    PyErr_Format(PyExc_ValueError, "%s: must have %zu bytes, aligned to %zu", name, bytes, item);
    return 0;
}

static int is_size(int height, int width)
{
    if (height > 0 && height <= MAX_SIDE && width > 0 && width <= MAX_SIDE)
        return 1;
    PyErr_Format(PyExc_ValueError, "size: (%d, %d): both must be between 1 and %d", height, width, MAX_SIDE);
    return 0;
}

static int fits(const struct batch *batch, const Py_buffer buffers[9])
{
    const struct task *task = &batch->task;
    size_t n = (size_t)batch->count, item = kind_bytes[task->kind];
    if (buffers[6].buf && !(has(buffers + 6, "descriptors", n * sizeof(int32_t), sizeof(int32_t)) &&
                            has(buffers + 7, "offsets", n * sizeof(int64_t), sizeof(int64_t)) &&
                            has(buffers + 8, "keys", n * sizeof(int32_t), sizeof(int32_t))))
        return 0;
    if (!has(buffers + 5, "out", n * image_bytes(task), item) || task->kind == KIND_PLANES)
        return !PyErr_Occurred();
    if (!has(buffers, "crop_yx", 2 * n * sizeof(int32_t), sizeof(int32_t)) || !has(buffers + 1, "mirror", n, 1))
        return 0;
    if (task->kind != KIND_UINT8 && (!has(buffers + 2, "mean", 3 * n * sizeof(float), sizeof(float)) ||
                                     !has(buffers + 3, "scale", 3 * sizeof(float), sizeof(float))))
        return 0;
    size_t values = 3 * (size_t)task->rows * (size_t)task->columns;
    return !buffers[4].buf || has(buffers + 4, "mean_image", values * sizeof(float), sizeof(float));
}

static void pool_destroy(PyObject *capsule)
{
    struct pool *pool = PyCapsule_GetPointer(capsule, "pool");
    Py_BEGIN_ALLOW_THREADS
    pool_free(pool);
    Py_END_ALLOW_THREADS
}

static PyObject *new_pool(PyObject *module, PyObject *args)
{
    int threads;
    (void)module;
    if (!PyArg_ParseTuple(args, "i:new_pool", &threads))
        return NULL;
    if (threads < 1 || threads > MAX_THREADS)
        return PyErr_Format(PyExc_ValueError, "threads=%d: must be between 1 and %d", threads, MAX_THREADS);
    struct pool *pool = pool_new(threads);
    return pool ? PyCapsule_New(pool, "pool", pool_destroy) : PyErr_NoMemory();
}

static PyObject *decode(PyObject *module, PyObject *args)
{
    PyObject *capsule, *sequence, *result = NULL;
    Py_buffer buffers[9] = {{0}}; /* crop_yx, mirror, mean, scale, mean_image, out, descriptors, offsets, keys */
    struct batch batch = {.task = {.max_pixels = INT64_MAX}};
    struct task *task = &batch.task;
    int kind, crop;
    (void)module;
    if (!PyArg_ParseTuple(args, "OOz*z*z*z*z*w*iiiip|z*z*z*p:decode", &capsule, &sequence, buffers, buffers + 1,
                          buffers + 2, buffers + 3, buffers + 4, buffers + 5, &task->height, &task->width, &crop, &kind,
                          &task->planar, buffers + 6, buffers + 7, buffers + 8, &task->copy_only))
        return NULL;
    struct pool *pool = PyCapsule_GetPointer(capsule, "pool");
    PyObject *jpegs = pool ? PySequence_Tuple(sequence) : NULL;
    batch.descriptors = buffers[6].buf;
    batch.offsets = buffers[7].buf;
    batch.keys = buffers[8].buf;
    batch.count = batch.descriptors ? buffers[6].len / (Py_ssize_t)sizeof(int32_t) : jpegs ? PyTuple_Size(jpegs) : 0;
    if (jpegs && (kind < 0 || kind > KIND_PLANES || batch.count > MAX_IMAGES))
        PyErr_SetString(PyExc_ValueError, "kind or jpegs: out of range");
    else if (jpegs && is_size(task->height, task->width) && is_size(crop, crop)) {
        task->kind = (enum kind)kind;
        task->rows = task->columns = crop;
        batch.crop_yx = buffers[0].buf;
        batch.mirror = buffers[1].buf;
        batch.mean = buffers[2].buf;
        task->scale = buffers[3].buf;
        task->mean_image = buffers[4].buf;
        batch.out = buffers[5].buf;
        if (fits(&batch, buffers))
            result = run_batch(pool, &batch, jpegs);
    }
    Py_XDECREF(jpegs);
    for (int i = 0; i < 9; i++)
        PyBuffer_Release(buffers + i);
    return result;
}

static PyObject *decode_rows(PyObject *module, PyObject *args)
{
    Py_buffer jpeg, out;
    struct task task = {.to_the_end = 1};
    struct image image = {0};
    long long max_pixels;
    int with_filler;
    PyObject *result = NULL;
    (void)module;
    if (!PyArg_ParseTuple(args, "y*iiiiipLw*:decode_rows", &jpeg, &image.y, &image.x, &task.rows, &task.columns,
                          &task.reduced_by, &with_filler, &max_pixels, &out))
        return NULL;
    task.kind = with_filler ? KIND_RGBX : KIND_UINT8;
    if (is_size(task.rows, task.columns) && has(&out, "out", image_bytes(&task), 1)) {
        struct decoder *decoder = decoder_new();
        const char *message = no_memory;
        task.max_pixels = max_pixels;
        image.jpeg = jpeg.buf;
        image.bytes = (size_t)jpeg.len;
        image.out = out.buf;
        Py_BEGIN_ALLOW_THREADS
        if (decoder)
            message = decode_image(decoder, &task, &image);
        Py_END_ALLOW_THREADS
        result = Py_BuildValue("zO", message, decoder && decoder->hopeless ? Py_True : Py_False);
        decoder_free(decoder);
    }
    PyBuffer_Release(&out);
    PyBuffer_Release(&jpeg);
    return result;
}

static PyObject *truncation(PyObject *module, PyObject *args)
{
    Py_buffer jpeg;
    long long max_pixels;
    (void)module;
    if (!PyArg_ParseTuple(args, "y*L:truncation", &jpeg, &max_pixels))
        return NULL;
    struct decoder *decoder = decoder_new();
    const char *message = no_memory;
    Py_BEGIN_ALLOW_THREADS
    if (decoder)
        message = decode_to_the_end(decoder, jpeg.buf, (size_t)jpeg.len, max_pixels);
    Py_END_ALLOW_THREADS
    PyObject *result = Py_BuildValue("z", message);
    decoder_free(decoder);
    PyBuffer_Release(&jpeg);
    return result;
}

static PyMethodDef functions[] = {
    {"new_pool", new_pool, METH_VARARGS, NULL},
    {"decode", decode, METH_VARARGS, NULL},
    {"read_samples", read_samples, METH_VARARGS, NULL},
    {"will_need", will_need, METH_VARARGS, NULL},
    {"decode_rows", decode_rows, METH_VARARGS, NULL},
    {"truncation", truncation, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef_Slot slots[] = {{0, NULL}};
static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_host", "The C side of alexnet.pipeline.host.", 0, functions, slots, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__host(void)
{
    return PyModuleDef_Init(&definition);
}
