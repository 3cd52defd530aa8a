/* What module.c and module_read.c, which know Python, offer each other. */
#ifndef ALEXNET_HOST_MODULE_H
#define ALEXNET_HOST_MODULE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

enum { MAX_IMAGES = 1 << 24 }; /* of a batch: so that no product with a side leaves its type */

/* Check that a buffer has the right length and its values lie where the CPU wants them; else raise ValueError. */
int has(const Py_buffer *buffer, const char *name, size_t bytes, size_t item);

PyObject *read_samples(PyObject *module, PyObject *args);
PyObject *will_need(PyObject *module, PyObject *args);

#endif
