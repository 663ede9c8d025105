/* The kernels of numpy_kernels.py, compiled: one pass over memory each, to the same bits.
 *
 * Here are the doors: they take NumPy's arrays by the buffer protocol, check them, and call the
 * loop (loops.h) of their type. What is wrong raises TypeError, ValueError or IndexError before
 * anything has changed.
 */

#define Py_LIMITED_API 0x030b0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <math.h>
#include <string.h>

typedef Py_ssize_t Size;

enum { MOST = 4 };                 /* arrays of a call */
enum { TILE = 1024, LANES = 64 };  /* columns that are worked on at a time; see pull */

/* Of each loop one version for each width of vectors; which one is taken, the loader finds out. */
#if defined(__x86_64__) && defined(__GLIBC__)
#define VECTORISED __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define VECTORISED
#endif

#define T float
#define OF(name) name##_float
#define SQRT sqrtf
#define ABS fabsf
#include "loops.h"
#undef T
#undef OF
#undef SQRT
#undef ABS
#define T double
#define OF(name) name##_double
#define SQRT sqrt
#define ABS fabs
#include "loops.h"

/* The loop of the arrays' type. */
#define RUN(arrays, name, ...)                                                                     \
    ((arrays)->type == 'd' ? name##_double(__VA_ARGS__) : name##_float(__VA_ARGS__))

/* The arrays of a call. type: 'f' or 'd', of all. */
typedef struct {
    Py_buffer views[MOST];
    int count;
    char type;
} Arrays;

enum { READ = PyBUF_FORMAT | PyBUF_C_CONTIGUOUS, CHANGE = READ | PyBUF_WRITABLE };
enum { READ_ROWS = PyBUF_FORMAT | PyBUF_STRIDES };

static void *memory(const Arrays *arrays, int i)
{
    return arrays->views[i].buf;
}

static Size length(const Arrays *arrays, int i)
{
    return arrays->views[i].len / arrays->views[i].itemsize;
}

/* The next array, whatever its type; false, and an error is set, if it cannot be had so. */
static int hold(Arrays *arrays, PyObject *array, int how)
{
    if (PyObject_GetBuffer(array, &arrays->views[arrays->count], how) < 0)
        return 0;
    arrays->count++;
    return 1;
}

/* The next array, which is to be of the first one's type. */
static int take(Arrays *arrays, PyObject *array, int how)
{
    if (!hold(arrays, array, how))
        return 0;
    const char *format = arrays->views[arrays->count - 1].format;
    int is_ours = strcmp(format, "f") == 0 || strcmp(format, "d") == 0;
    if (!is_ours || (arrays->type && arrays->type != format[0])) {
        PyErr_Format(PyExc_TypeError,
                     "the arrays of a kernel are all of float32 or all of float64; got format '%s' "
                     "for array %d",
                     format, arrays->count - 1);
        return 0;
    }
    arrays->type = format[0];
    return 1;
}

/* Takes `count` numbers from Python. */
static int numbers(PyObject *const *args, int count, double *into)
{
    for (int i = 0; i < count; i++) {
        into[i] = PyFloat_AsDouble(args[i]);
        if (into[i] == -1.0 && PyErr_Occurred())
            return 0;
    }
    return 1;
}

static int expect(int holds, const char *rule)
{
    if (!holds)
        PyErr_SetString(PyExc_ValueError, rule);
    return holds;
}

static int counted(Py_ssize_t n_args, Py_ssize_t wanted)
{
    if (n_args != wanted)
        PyErr_Format(PyExc_TypeError, "this kernel takes %zd arguments; got %zd", wanted, n_args);
    return n_args == wanted;
}

/* The end of every door: gives the arrays back; None, or the error that is set. */
static PyObject *leave(Arrays *arrays)
{
    for (int i = 0; i < arrays->count; i++)
        PyBuffer_Release(&arrays->views[i]);
    if (PyErr_Occurred())
        return NULL;
    Py_RETURN_NONE;
}

/* A number in place of None. */
static PyObject *number_after(PyObject *none, double number)
{
    Py_XDECREF(none);
    return none ? PyFloat_FromDouble(number) : NULL;
}

static PyObject *add_scaled(PyObject *module, PyObject *const *args, Py_ssize_t n_args)
{
    Arrays at = {.count = 0};
    double factor;
    if (counted(n_args, 3) && take(&at, args[0], CHANGE) && numbers(args + 1, 1, &factor) &&
        take(&at, args[2], READ) &&
        expect(length(&at, 0) == length(&at, 1), "y and x are of one length"))
        RUN(&at, add_scaled, memory(&at, 0), factor, memory(&at, 1), length(&at, 0));
    return leave(&at);
}

static PyObject *pull(PyObject *module, PyObject *const *args, Py_ssize_t n_args)
{
    Arrays at = {.count = 0};
    double factor, sum = 0;
    if (counted(n_args, 3) && take(&at, args[0], CHANGE) && numbers(args + 1, 1, &factor) &&
        take(&at, args[2], READ) &&
        expect(length(&at, 0) == length(&at, 1), "y and x are of one length"))
        sum = RUN(&at, pull, memory(&at, 0), factor, memory(&at, 1), length(&at, 0));
    return number_after(leave(&at), sum);
}

static int are_rows(const Arrays *at)
{
    const Py_buffer *out = &at->views[0], *rows = &at->views[1], *weights = &at->views[2];
    return expect(rows->ndim == 2 && rows->shape[0] > 0 &&
                      (rows->strides[1] == rows->itemsize || rows->shape[1] < 2) &&
                      rows->strides[0] % rows->itemsize == 0,
                  "rows are [S, n], of at least one row, each of them contiguous") &&
           expect(out->len == rows->shape[1] * rows->itemsize, "out is as long as a row") &&
           expect(weights->len == rows->shape[0] * rows->itemsize, "every row has a weight");
}

static PyObject *weighted_sum(PyObject *module, PyObject *const *args, Py_ssize_t n_args)
{
    Arrays at = {.count = 0};
    if (counted(n_args, 3) && take(&at, args[0], CHANGE) && take(&at, args[1], READ_ROWS) &&
        take(&at, args[2], READ) && are_rows(&at)) {
        const Py_buffer *rows = &at.views[1];
        RUN(&at, weighted_sum, memory(&at, 0), memory(&at, 1), rows->strides[0] / rows->itemsize,
            memory(&at, 2), rows->shape[0], rows->shape[1]);
    }
    return leave(&at);
}

static PyObject *shrink(PyObject *module, PyObject *const *args, Py_ssize_t n_args)
{
    Arrays at = {.count = 0};
    double number[2]; /* factor, least */
    if (counted(n_args, 3) && take(&at, args[0], CHANGE) && numbers(args + 1, 2, number))
        RUN(&at, shrink, memory(&at, 0), number[0], number[1], length(&at, 0));
    return leave(&at);
}

static PyObject *adam(PyObject *module, PyObject *const *args, Py_ssize_t n_args)
{
    Arrays at = {.count = 0};
    double number[5]; /* gain_1, gain_2, epsilon, rate, least */
    if (counted(n_args, 9) && take(&at, args[0], CHANGE) && take(&at, args[1], CHANGE) &&
        take(&at, args[2], CHANGE) && take(&at, args[3], READ) && numbers(args + 4, 5, number) &&
        expect(length(&at, 0) == length(&at, 1) && length(&at, 0) == length(&at, 2) &&
                   length(&at, 0) == length(&at, 3),
               "parameters, moments and gradient are of one length"))
        RUN(&at, adam, memory(&at, 0), memory(&at, 1), memory(&at, 2), memory(&at, 3),
            length(&at, 0), number[0], number[1], number[2], number[3], number[4]);
    return leave(&at);
}

static int is_matrix(const Arrays *at, int i)
{
    const Py_buffer *view = &at->views[i];
    return expect(view->ndim == 2 && view->shape[0] > 0, "a matrix has at least one row");
}

static PyObject *add_bias(PyObject *module, PyObject *const *args, Py_ssize_t n_args)
{
    Arrays at = {.count = 0};
    if (counted(n_args, 2) && take(&at, args[0], CHANGE) && take(&at, args[1], READ) &&
        is_matrix(&at, 0) &&
        expect(at.views[0].shape[0] == length(&at, 1), "every row has a bias"))
        RUN(&at, add_bias, memory(&at, 0), memory(&at, 1), at.views[0].shape[0],
            at.views[0].shape[1]);
    return leave(&at);
}

static PyObject *relu(PyObject *module, PyObject *const *args, Py_ssize_t n_args)
{
    Arrays at = {.count = 0};
    if (counted(n_args, 1) && take(&at, args[0], CHANGE))
        RUN(&at, relu, memory(&at, 0), length(&at, 0));
    return leave(&at);
}

static PyObject *relu_backward(PyObject *module, PyObject *const *args, Py_ssize_t n_args)
{
    Arrays at = {.count = 0};
    if (counted(n_args, 2) && take(&at, args[0], CHANGE) && take(&at, args[1], READ) &&
        expect(length(&at, 0) == length(&at, 1), "activations and deltas are of one size"))
        RUN(&at, relu_backward, memory(&at, 0), memory(&at, 1), length(&at, 0));
    return leave(&at);
}

static PyObject *subtract_max(PyObject *module, PyObject *const *args, Py_ssize_t n_args)
{
    Arrays at = {.count = 0};
    if (counted(n_args, 1) && take(&at, args[0], CHANGE) && is_matrix(&at, 0))
        RUN(&at, subtract_max, memory(&at, 0), at.views[0].shape[0], at.views[0].shape[1]);
    return leave(&at);
}

static PyObject *divide_by_sum(PyObject *module, PyObject *const *args, Py_ssize_t n_args)
{
    Arrays at = {.count = 0};
    if (counted(n_args, 1) && take(&at, args[0], CHANGE) && is_matrix(&at, 0))
        RUN(&at, divide_by_sum, memory(&at, 0), at.views[0].shape[0], at.views[0].shape[1]);
    return leave(&at);
}

static int are_classes(const Arrays *at)
{
    const Py_buffer *predictions = &at->views[0], *classes = &at->views[2];
    const char *format = classes->format;
    if (classes->itemsize != sizeof(Py_ssize_t) || strlen(format) != 1 || !strchr("lqn", *format)) {
        PyErr_Format(PyExc_TypeError, "classes are of numpy.intp; got format '%s'", format);
        return 0;
    }
    if (!expect(classes->len == predictions->shape[1] * classes->itemsize,
                "every column has a class") ||
        !expect(at->views[1].len == predictions->shape[1] * predictions->itemsize,
                "every column has a likelihood"))
        return 0;
    const Py_ssize_t *class = classes->buf;
    for (Size j = 0; j < predictions->shape[1]; j++)
        if (class[j] < 0 || class[j] >= predictions->shape[0]) {
            PyErr_Format(PyExc_IndexError, "class %zd of %zd", class[j], predictions->shape[0]);
            return 0;
        }
    return 1;
}

static PyObject *take_classes(PyObject *module, PyObject *const *args, Py_ssize_t n_args)
{
    Arrays at = {.count = 0};
    if (counted(n_args, 3) && take(&at, args[0], CHANGE) && is_matrix(&at, 0) &&
        take(&at, args[2], CHANGE) && hold(&at, args[1], READ) && are_classes(&at))
        RUN(&at, take_classes, memory(&at, 0), memory(&at, 2), memory(&at, 1),
            at.views[0].shape[1]);
    return leave(&at);
}

#define DOOR(name) {#name, (PyCFunction)(void (*)(void))name, METH_FASTCALL, NULL}

static PyMethodDef doors[] = {
    DOOR(add_scaled), DOOR(pull),    DOOR(weighted_sum), DOOR(shrink),        DOOR(adam),         DOOR(add_bias),
    DOOR(relu),          DOOR(relu_backward), DOOR(subtract_max), DOOR(divide_by_sum),
    DOOR(take_classes),
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "phalanx.pure.kernels.compiled",
    .m_doc = "See numpy_kernels.py.",
    .m_methods = doors,
};

PyMODINIT_FUNC PyInit_compiled(void)
{
    return PyModuleDef_Init(&definition);
}
