// The C interface of NumPy. One source file defines LOGITLAB_IMPORTS_NUMPY before this header and
// calls import_numpy.
#pragma once

#define NPY_NO_DEPRECATED_API NPY_2_0_API_VERSION
#define NPY_TARGET_VERSION NPY_2_0_API_VERSION
#define PY_ARRAY_UNIQUE_SYMBOL logitlab_numpy_api
#if !defined(LOGITLAB_IMPORTS_NUMPY)
#define NO_IMPORT_ARRAY
#endif
#include <Python.h>
#include <numpy/arrayobject.h>

namespace logitlab {

// The memory of an array, which must outlive it.
inline Py_buffer buffer_of(PyArrayObject* a) {
  Py_buffer b = {};
  b.buf = PyArray_DATA(a);
  b.itemsize = PyArray_ITEMSIZE(a);
  b.len = PyArray_SIZE(a) * b.itemsize;
  b.readonly = !PyArray_ISWRITEABLE(a);
  b.ndim = PyArray_NDIM(a);
  b.shape = PyArray_DIMS(a), b.strides = PyArray_STRIDES(a);
  return b;
}

}  // namespace logitlab
