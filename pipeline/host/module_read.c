/* The Python face of reading: the samples of a batch, and what will be read after it. */
#include "module.h"

#include <errno.h>
#include <fcntl.h>

#include "decode.h"

static int lies_inside(const struct reading *reading, Py_ssize_t count, int64_t bytes)
{
    for (Py_ssize_t i = 0; i < count; i++) {
        int64_t length = reading->lengths[i], place = reading->places[i];
        if (length < 0 || length > bytes || place < 0 || place > bytes - length) {
            PyErr_Format(PyExc_ValueError, "sample %zd: must lie inside `out`", i);
            return 0;
        }
    }
    return 1;
}

PyObject *read_samples(PyObject *module, PyObject *args)
{
    PyObject *capsule, *result = NULL;
    Py_buffer buffers[8] = {{0}}; /* descriptors, offsets, lengths, places, head, out, found, keys */
    (void)module;
    if (!PyArg_ParseTuple(args, "Oy*y*y*y*y*w*w*z*:read_samples", &capsule, buffers, buffers + 1, buffers + 2,
                          buffers + 3, buffers + 4, buffers + 5, buffers + 6, buffers + 7))
        return NULL;
    struct pool *pool = PyCapsule_GetPointer(capsule, "pool");
    size_t n = (size_t)buffers[6].len;
    struct reading reading = {.descriptors = buffers[0].buf, .offsets = buffers[1].buf, .lengths = buffers[2].buf,
                              .places = buffers[3].buf, .head = buffers[4].buf, .head_bytes = (size_t)buffers[4].len,
                              .out = buffers[5].buf, .found = buffers[6].buf, .keys = buffers[7].buf};
    if (pool && n > MAX_IMAGES)
        PyErr_SetString(PyExc_ValueError, "found: out of range");
    else if (pool && has(buffers, "descriptors", n * sizeof(int32_t), sizeof(int32_t)) &&
             has(buffers + 1, "offsets", n * sizeof(int64_t), sizeof(int64_t)) &&
             has(buffers + 2, "lengths", n * sizeof(int64_t), sizeof(int64_t)) &&
             has(buffers + 3, "places", n * sizeof(int64_t), sizeof(int64_t)) &&
             (!reading.keys || has(buffers + 7, "keys", n * sizeof(int32_t), sizeof(int32_t))) &&
             lies_inside(&reading, (Py_ssize_t)n, buffers[5].len)) {
        int error;
        Py_BEGIN_ALLOW_THREADS
        error = pool_run(pool, read_sample, &reading, (int)n);
        Py_END_ALLOW_THREADS
        errno = error;
        result = error ? PyErr_SetFromErrno(PyExc_OSError) : Py_NewRef(Py_None);
    }
    for (int i = 0; i < 8; i++)
        PyBuffer_Release(buffers + i);
    return result;
}

/* Tell the system what will be read of files; return how much of it could be told. */
PyObject *will_need(PyObject *module, PyObject *args)
{
    PyObject *result = NULL;
    Py_buffer buffers[3] = {{0}}; /* descriptors, offsets, lengths */
    (void)module;
    if (!PyArg_ParseTuple(args, "y*y*y*:will_need", buffers, buffers + 1, buffers + 2))
        return NULL;
    const int32_t *descriptors = buffers[0].buf;
    const int64_t *offsets = buffers[1].buf, *lengths = buffers[2].buf;
    size_t n = (size_t)buffers[0].len / sizeof *descriptors;
    if (has(buffers, "descriptors", n * sizeof *descriptors, sizeof *descriptors) &&
        has(buffers + 1, "offsets", n * sizeof *offsets, sizeof *offsets) &&
        has(buffers + 2, "lengths", n * sizeof *lengths, sizeof *lengths)) {
        long told = 0;
        Py_BEGIN_ALLOW_THREADS
        for (size_t i = 0; i < n; i++)
            told += posix_fadvise(descriptors[i], offsets[i], lengths[i], POSIX_FADV_WILLNEED) == 0;
        Py_END_ALLOW_THREADS
        result = PyLong_FromLong(told);
    }
    for (int i = 0; i < 3; i++)
        PyBuffer_Release(buffers + i);
    return result;
}
