/* The Python face of the C decoder, as thin as can be: alexnet.pipeline.host.decoder checks types and shapes and names
 * what is wrong; here only lengths are checked again, so that no argument can crash the interpreter.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "decode.h"

enum { MAX_SIDE = 65535 }; /* what a JPEG's header can say */

typedef struct {
    PyObject_HEAD
    struct pool *pool;
    struct decoder **decoders; /* one a thread, made by the thread */
    int threads, users;        /* users: calls in progress, guarded by the GIL */
    pid_t process;             /* threads do not survive a fork, so neither does the pool */
} PoolObject;

/* A batch in work. */
struct batch {
    PoolObject *owner;
    struct task task;
    int planes;
    Py_ssize_t count;
    Py_buffer *jpegs;
    const int32_t *crop_yx;
    const uint8_t *mirror;
    const float *mean;
    char *out;
    size_t image_bytes;
    char **messages;
    atomic_int lost; /* a message for which there was no memory */
};

static void decode_one(void *context, int thread, int i)
{
    struct batch *batch = context;
    struct decoder **decoder = batch->owner->decoders + thread;
    struct image image = {.jpeg = batch->jpegs[i].buf, .bytes = (size_t)batch->jpegs[i].len,
                          .out = batch->out + (size_t)i * batch->image_bytes};
    const char *message = "libjpeg cannot be used: no memory, or not the version this was compiled for";
    if (!*decoder)
        *decoder = decoder_new();
    if (*decoder && batch->planes)
        message = decode_planes(*decoder, &batch->task, &image);
    else if (*decoder) {
        image.y = batch->crop_yx[2 * i];
        image.x = batch->crop_yx[2 * i + 1];
        image.mirror = batch->mirror[i];
        image.mean = batch->mean ? batch->mean + 3 * i : NULL;
        message = decode_window(*decoder, &batch->task, &image);
    }
    if (message) {
        memset(image.out, 0, batch->image_bytes);
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
static PyObject *run_batch(PoolObject *self, struct batch *batch, PyObject *jpegs)
{
    PyObject *errors = NULL;
    Py_ssize_t held = 0;
    size_t count = (size_t)batch->count;
    batch->owner = self;
    batch->jpegs = calloc(count + 1, sizeof *batch->jpegs);
    batch->messages = calloc(count + 1, sizeof *batch->messages);
    if (!batch->jpegs || !batch->messages)
        PyErr_NoMemory();
    else
        while (held < batch->count &&
               PyObject_GetBuffer(PyTuple_GetItem(jpegs, held), batch->jpegs + held, PyBUF_SIMPLE) == 0)
            held++;
    if (!PyErr_Occurred()) {
        int error;
        self->users++;
        Py_BEGIN_ALLOW_THREADS
        error = pool_run(self->pool, decode_one, batch, (int)count);
        Py_END_ALLOW_THREADS
        self->users--;
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

static int is_usable(const PoolObject *self)
{
    if (!self->pool)
        PyErr_SetString(PyExc_ValueError, "the decoder is closed");
    else if (self->process != getpid())
        PyErr_Format(PyExc_RuntimeError, "this decoder was made by process %ld, whose threads did not come along with a fork; "
                     "make a new one in process %ld", (long)self->process, (long)getpid());
    return !PyErr_Occurred();
}

/* Check the length of a buffer that may be None, and that its values lie where the CPU wants them. */
static int has(const Py_buffer *buffer, const char *name, size_t bytes, size_t item)
{
    if ((size_t)buffer->len == bytes && (uintptr_t)buffer->buf % item == 0)
        return 1;
    PyErr_Format(PyExc_ValueError, "%s: has %zd bytes where %zu are needed, aligned to %zu", name, buffer->len, bytes, item);
    return 0;
}

static int is_size(int height, int width)
{
    if (height > 0 && height <= MAX_SIDE && width > 0 && width <= MAX_SIDE)
        return 1;
    PyErr_Format(PyExc_ValueError, "size: %d and %d must be between 1 and %d", height, width, MAX_SIDE);
    return 0;
}

static PyObject *pool_decode(PoolObject *self, PyObject *args)
{
    PyObject *sequence, *result = NULL;
    Py_buffer yx = {0}, mirror = {0}, mean = {0}, scale = {0}, mean_image = {0}, out = {0};
    int height, width, crop, kind, planar;
    if (!PyArg_ParseTuple(args, "Oy*y*z*z*z*w*iiiip:decode", &sequence, &yx, &mirror, &mean, &scale, &mean_image, &out,
                          &height, &width, &crop, &kind, &planar))
        return NULL;
    PyObject *jpegs = PySequence_Tuple(sequence);
    if (jpegs && (kind < 0 || kind >= KINDS))
        PyErr_Format(PyExc_ValueError, "kind: %d is not one", kind);
    if (jpegs && !PyErr_Occurred() && is_usable(self) && is_size(height, width) && is_size(crop, crop)) {
        size_t n = (size_t)PyTuple_Size(jpegs), item = kind_bytes[kind], values = 3 * (size_t)crop * (size_t)crop;
        int floats = kind != KIND_UINT8;
        if (n > INT32_MAX)
            PyErr_SetString(PyExc_ValueError, "jpegs: too many");
        else if (has(&yx, "crop_yx", 8 * n, 4) && has(&mirror, "mirror", n, 1) && has(&out, "out", n * values * item, item) &&
                 (!floats || (has(&mean, "mean", 12 * n, 4) && has(&scale, "scale", 12, 4))) &&
                 (!mean_image.buf || has(&mean_image, "mean_image", 4 * values, 4))) {
            struct batch batch = {
                .task = {.max_pixels = INT64_MAX, .height = height, .width = width, .rows = crop, .columns = crop,
                         .kind = (enum kind)kind, .planar = planar, .scale = scale.buf, .mean_image = mean_image.buf},
                .count = (Py_ssize_t)n, .crop_yx = yx.buf, .mirror = mirror.buf, .mean = mean.buf, .out = out.buf,
                .image_bytes = values * item};
            result = run_batch(self, &batch, jpegs);
        }
    }
    Py_XDECREF(jpegs);
    Py_buffer *held[] = {&yx, &mirror, &mean, &scale, &mean_image, &out};
    for (size_t i = 0; i < sizeof held / sizeof *held; i++)
        PyBuffer_Release(held[i]);
    return result;
}

static PyObject *pool_decode_planes(PoolObject *self, PyObject *args)
{
    PyObject *sequence, *result = NULL;
    Py_buffer out;
    int height, width;
    if (!PyArg_ParseTuple(args, "Ow*ii:decode_planes", &sequence, &out, &height, &width))
        return NULL;
    PyObject *jpegs = PySequence_Tuple(sequence);
    if (jpegs && is_usable(self) && is_size(height, width)) {
        size_t n = (size_t)PyTuple_Size(jpegs), bytes = planes_bytes(height, width);
        if (n > INT32_MAX)
            PyErr_SetString(PyExc_ValueError, "jpegs: too many");
        else if (has(&out, "out", n * bytes, 1)) {
            struct batch batch = {.task = {.max_pixels = INT64_MAX, .height = height, .width = width}, .planes = 1,
                                  .count = (Py_ssize_t)n, .out = out.buf, .image_bytes = bytes};
            result = run_batch(self, &batch, jpegs);
        }
    }
    Py_XDECREF(jpegs);
    PyBuffer_Release(&out);
    return result;
}

static int pool_init(PoolObject *self, PyObject *args, PyObject *keywords)
{
    int threads;
    if (keywords && PyDict_Size(keywords) > 0) {
        PyErr_SetString(PyExc_TypeError, "Pool takes no keywords");
        return -1;
    }
    if (!PyArg_ParseTuple(args, "i:Pool", &threads))
        return -1;
    if (self->pool || threads < 1 || threads > 4096) {
        PyErr_Format(PyExc_ValueError, "threads=%d: must be between 1 and 4096", threads);
        return -1;
    }
    self->decoders = calloc((size_t)threads, sizeof *self->decoders);
    self->pool = self->decoders ? pool_new(threads) : NULL;
    self->threads = threads;
    self->process = getpid();
    if (!self->pool) {
        PyErr_NoMemory();
        return -1;
    }
    return 0;
}

/* Stop the threads; in a forked child, where there are none, leave their memory alone. */
static void shut(PoolObject *self)
{
    struct pool *pool = self->pool;
    self->pool = NULL;
    if (!pool || self->process != getpid())
        return;
    Py_BEGIN_ALLOW_THREADS
    pool_free(pool);
    Py_END_ALLOW_THREADS
    for (int i = 0; i < self->threads; i++)
        decoder_free(self->decoders[i]);
    free(self->decoders);
    self->decoders = NULL;
}

static PyObject *pool_close(PoolObject *self, PyObject *none)
{
    (void)none;
    if (self->users) {
        PyErr_SetString(PyExc_RuntimeError, "the decoder is at work in another thread: close it afterwards");
        return NULL;
    }
    shut(self);
    Py_RETURN_NONE;
}

static void pool_dealloc(PoolObject *self)
{
    PyTypeObject *type = Py_TYPE((PyObject *)self);
    shut(self);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF(type);
}

static PyObject *read_header(PyObject *module, PyObject *args)
{
    Py_buffer jpeg;
    (void)module;
    if (!PyArg_ParseTuple(args, "y*:read_header", &jpeg))
        return NULL;
    struct header header = {0};
    struct decoder *decoder = decoder_new();
    const char *message = decoder ? decode_header(decoder, jpeg.buf, (size_t)jpeg.len, &header) : "libjpeg cannot be used";
    PyObject *result = message ? Py_BuildValue("s", message)
                               : Py_BuildValue("(iiisO)", header.width, header.height, header.components,
                                               header.colour_space, header.progressive ? Py_True : Py_False);
    decoder_free(decoder);
    PyBuffer_Release(&jpeg);
    return result;
}

static PyObject *decode_rows(PyObject *module, PyObject *args)
{
    Py_buffer jpeg, out;
    int y, x, rows, columns;
    long long max_pixels;
    PyObject *result = NULL;
    (void)module;
    if (!PyArg_ParseTuple(args, "y*iiiiLw*:decode_rows", &jpeg, &y, &x, &rows, &columns, &max_pixels, &out))
        return NULL;
    if (is_size(rows, columns) && has(&out, "out", 3 * (size_t)rows * (size_t)columns, 1)) {
        struct task task = {.max_pixels = max_pixels, .rows = rows, .columns = columns, .to_the_end = 1, .kind = KIND_UINT8};
        struct image image = {.jpeg = jpeg.buf, .bytes = (size_t)jpeg.len, .y = y, .x = x, .out = out.buf};
        struct decoder *decoder = decoder_new();
        const char *message = "libjpeg cannot be used";
        Py_BEGIN_ALLOW_THREADS
        if (decoder)
            message = decode_window(decoder, &task, &image);
        Py_END_ALLOW_THREADS
        result = Py_BuildValue("z", message);
        decoder_free(decoder);
    }
    PyBuffer_Release(&out);
    PyBuffer_Release(&jpeg);
    return result;
}

static PyMethodDef pool_methods[] = {
    {"decode", (PyCFunction)(void (*)(void))pool_decode, METH_VARARGS, NULL},
    {"decode_planes", (PyCFunction)(void (*)(void))pool_decode_planes, METH_VARARGS, NULL},
    {"close", (PyCFunction)(void (*)(void))pool_close, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot pool_slots[] = {
    {Py_tp_new, PyType_GenericNew},  {Py_tp_init, pool_init},
    {Py_tp_dealloc, pool_dealloc},   {Py_tp_methods, pool_methods},
    {Py_tp_doc, "Threads with a decompressor each."}, {0, NULL},
};

static PyType_Spec pool_spec = {
    .name = "alexnet.pipeline.host._host.Pool",
    .basicsize = sizeof(PoolObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = pool_slots,
};

static int fill(PyObject *module)
{
    PyObject *type = PyType_FromModuleAndSpec(module, &pool_spec, NULL);
    int failed = !type || PyModule_AddType(module, (PyTypeObject *)type) < 0;
    Py_XDECREF(type);
    return failed ? -1 : 0;
}

static PyMethodDef functions[] = {
    {"read_header", read_header, METH_VARARGS, NULL},
    {"decode_rows", decode_rows, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef_Slot slots[] = {{Py_mod_exec, fill}, {0, NULL}};
static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_host", "The C side of alexnet.pipeline.host.", 0, functions, slots, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__host(void)
{
    return PyModuleDef_Init(&definition);
}
