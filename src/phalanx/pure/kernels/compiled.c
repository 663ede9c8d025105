/* The kernels of numpy_kernels.py, compiled: one pass over memory each, to the same bits.
 *
 * Here are the doors: they take arrays and numbers (arrays.h), check them, and call the loop
 * (loops.h) of the arrays' type. What does not fit raises TypeError, ValueError or IndexError before
 * anything has changed. The lock of the interpreter is kept: a call lasts microseconds.
 */

#define Py_LIMITED_API 0x030b0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <float.h>
#include <math.h>
#include <string.h>

#if defined(__FAST_MATH__) || FLT_EVAL_METHOD != 0
#error "sums and products would be rounded in another way: then the kernels are NumPy's"
#endif

#if defined(__GNUC__) && !defined(__NO_MATH_ERRNO__)
#error "roots would be taken one by one: -fno-math-errno belongs after what undoes it"
#endif

#include "arrays.h"

#define TILE 1024 /* columns that are worked on at a time */
#define LANES 64  /* as in numpy_kernels.py: what `pull` returns depends on it */

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

/* The loop of the arrays' type, to which numbers are rounded as they are handed over. */
#define RUN(arrays, name, ...)                                                                     \
    ((arrays)->type == 'd' ? name##_double(__VA_ARGS__) : name##_float(__VA_ARGS__))

#define DOOR(name)                                                                                 \
    static PyObject *name(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t n_args)

static PyObject *none_after(Arrays *arrays)
{
    return leave(arrays) ? Py_NewRef(Py_None) : NULL;
}

DOOR(add_scaled)
{
    Arrays at = {.count = 0};
    double factor;
    if (counted(n_args, 3) && numbers(args + 1, 1, &factor) && take(&at, args[0], CHANGE) &&
        take(&at, args[2], READ) &&
        expect(length(&at, 0) == length(&at, 1), "y and x are of one length"))
        RUN(&at, add_scaled, memory(&at, 0), factor, memory(&at, 1), length(&at, 0));
    return none_after(&at);
}

DOOR(pull)
{
    Arrays at = {.count = 0};
    double factor, squares = 0;
    if (counted(n_args, 3) && numbers(args + 1, 1, &factor) && take(&at, args[0], CHANGE) &&
        take(&at, args[2], READ) &&
        expect(length(&at, 0) == length(&at, 1), "y and x are of one length"))
        squares = RUN(&at, pull, memory(&at, 0), factor, memory(&at, 1), length(&at, 0));
    return leave(&at) ? PyFloat_FromDouble(squares) : NULL;
}

static int are_rows(const Arrays *at)
{
    const Py_buffer *out = &at->views[0], *rows = &at->views[1], *weights = &at->views[2];
    return has_rows(at, 1) &&
           expect(out->len == width(at, 1) * rows->itemsize, "out is as long as a row") &&
           expect(weights->len == height(at, 1) * rows->itemsize, "every row has a weight");
}

DOOR(weighted_sum)
{
    Arrays at = {.count = 0};
    if (counted(n_args, 3) && take(&at, args[0], CHANGE) && take(&at, args[1], READ_ROWS) &&
        take(&at, args[2], READ) && are_rows(&at))
        RUN(&at, weighted_sum, memory(&at, 0), memory(&at, 1), stride(&at, 1), memory(&at, 2),
            height(&at, 1), width(&at, 1));
    return none_after(&at);
}

DOOR(shrink)
{
    Arrays at = {.count = 0};
    double number[2]; /* factor, least */
    if (counted(n_args, 3) && numbers(args + 1, 2, number) && take(&at, args[0], CHANGE))
        RUN(&at, shrink, memory(&at, 0), number[0], number[1], length(&at, 0));
    return none_after(&at);
}

DOOR(adam)
{
    Arrays at = {.count = 0};
    double number[5]; /* beta_1, beta_2, epsilon, rate, least */
    if (counted(n_args, 9) && numbers(args + 4, 5, number) && take(&at, args[0], CHANGE) &&
        take(&at, args[1], CHANGE) && take(&at, args[2], CHANGE) && take(&at, args[3], READ) &&
        expect(length(&at, 0) == length(&at, 1) && length(&at, 0) == length(&at, 2) &&
                   length(&at, 0) == length(&at, 3),
               "parameters, moments and gradient are of one length"))
        RUN(&at, adam, memory(&at, 0), memory(&at, 1), memory(&at, 2), memory(&at, 3),
            length(&at, 0), number[0], 1 - number[0], number[1], 1 - number[1], number[2],
            number[3], number[4], number[4] * number[4]);
    return none_after(&at);
}

DOOR(add_bias)
{
    Arrays at = {.count = 0};
    if (counted(n_args, 2) && take(&at, args[0], CHANGE_ROWS) && take(&at, args[1], READ) &&
        has_rows(&at, 0) && expect(height(&at, 0) == length(&at, 1), "every row has a bias"))
        RUN(&at, add_bias, memory(&at, 0), stride(&at, 0), memory(&at, 1), height(&at, 0),
            width(&at, 0));
    return none_after(&at);
}

DOOR(relu)
{
    Arrays at = {.count = 0};
    if (counted(n_args, 1) && take(&at, args[0], CHANGE_ROWS) && has_rows(&at, 0))
        RUN(&at, relu, memory(&at, 0), stride(&at, 0), height(&at, 0), width(&at, 0));
    return none_after(&at);
}

DOOR(relu_backward)
{
    Arrays at = {.count = 0};
    if (counted(n_args, 2) && take(&at, args[0], CHANGE_ROWS) && take(&at, args[1], READ_ROWS) &&
        has_rows(&at, 0) && has_rows(&at, 1) &&
        expect(height(&at, 0) == height(&at, 1) && width(&at, 0) == width(&at, 1),
               "activations and deltas are of one size"))
        RUN(&at, relu_backward, memory(&at, 0), stride(&at, 0), memory(&at, 1), stride(&at, 1),
            height(&at, 0), width(&at, 0));
    return none_after(&at);
}

DOOR(subtract_max)
{
    Arrays at = {.count = 0};
    if (counted(n_args, 1) && take(&at, args[0], CHANGE) && is_matrix(&at, 0))
        RUN(&at, subtract_max, memory(&at, 0), height(&at, 0), width(&at, 0));
    return none_after(&at);
}

DOOR(divide_by_sum)
{
    Arrays at = {.count = 0};
    if (counted(n_args, 1) && take(&at, args[0], CHANGE) && is_matrix(&at, 0))
        RUN(&at, divide_by_sum, memory(&at, 0), height(&at, 0), width(&at, 0));
    return none_after(&at);
}

static int are_indices(const Py_buffer *view)
{
    const char *format = view->format;
    int fits = view->itemsize == sizeof(Size) && strlen(format) == 1 && strchr("ilqn", *format);
    if (!fits)
        PyErr_Format(PyExc_TypeError, "classes are of numpy.intp; got format '%s'", format);
    return fits;
}

static int are_below(Size n_classes, const Size *classes, Size count)
{
    for (Size j = 0; j < count; j++)
        if (classes[j] < 0 || classes[j] >= n_classes) {
            PyErr_Format(PyExc_IndexError, "class %zd of %zd", classes[j], n_classes);
            return 0;
        }
    return 1;
}

DOOR(take_classes)
{
    Arrays at = {.count = 0};
    enum { PREDICTIONS, LIKELIHOODS, CLASSES }; /* classes are the last: they have another type */
    if (counted(n_args, 3) && take(&at, args[0], CHANGE) && take(&at, args[2], CHANGE) &&
        hold(&at, args[1], READ) && is_matrix(&at, PREDICTIONS) &&
        are_indices(&at.views[CLASSES]) &&
        expect(length(&at, CLASSES) == width(&at, PREDICTIONS), "every column has a class") &&
        expect(length(&at, LIKELIHOODS) == width(&at, PREDICTIONS),
               "every column has a likelihood") &&
        are_below(height(&at, PREDICTIONS), memory(&at, CLASSES), length(&at, CLASSES)))
        RUN(&at, take_classes, memory(&at, PREDICTIONS), memory(&at, CLASSES),
            memory(&at, LIKELIHOODS), width(&at, PREDICTIONS));
    return none_after(&at);
}

#define NAMED(name) {#name, (PyCFunction)(void (*)(void))name, METH_FASTCALL, NULL}

static PyMethodDef doors[] = {
    NAMED(add_bias),
    NAMED(add_scaled),
    NAMED(adam),
    NAMED(divide_by_sum),
    NAMED(pull),
    NAMED(relu),
    NAMED(relu_backward),
    NAMED(shrink),
    NAMED(subtract_max),
    NAMED(take_classes),
    NAMED(weighted_sum),
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
