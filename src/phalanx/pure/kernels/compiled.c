/* The kernels of numpy_kernels.py, compiled: one pass over memory each, to the same bits.
 *
 * Here are the doors: they take arrays and numbers (arrays.h), check them, and call the loop
 * (loops.h) of the arrays' type. What does not fit raises TypeError, ValueError or IndexError before
 * anything has changed. The lock of the interpreter is kept where a call lasts microseconds.
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
#define BAND 32   /* outputs that a sparse product works on at a time: as in __init__.py */
#ifndef FEW
#define FEW 2 /* times as many features as entries: then these are few */
#endif

/* Of each loop one version for each width of vectors; which one is taken, the loader finds out. */
#if defined(__x86_64__) && defined(__GLIBC__)
#define HAS_WIDTHS 1
#define VECTORISED __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define HAS_WIDTHS 0
#define VECTORISED
#endif
#ifndef WIDEST
#define WIDEST 64 /* bytes of a vector; tests take less */
#endif

#define INLINE static inline __attribute__((always_inline))
#ifndef CAN_SHUFFLE
#if defined(__GNUC__) && !defined(__clang__)
#define CAN_SHUFFLE 1 /* vectors, by other vectors */
#else
#define CAN_SHUFFLE 0
#endif
#endif

/* Some rows of sparse samples: row b has the entries starts[index[b]] up to those of the next row,
 * of type T, each of its column. */
typedef struct {
    const Size *starts;
    const int *columns;
    const void *entries;
    const Size *index;
    Size count, itemsize;
    Size total; /* entries of all these rows */
} Entries;

typedef struct {
    Size start, count;
} Row;

INLINE Row row_of(const Entries *at, Size b)
{
    Size start = at->starts[at->index[b]];
    return (Row){start, at->starts[at->index[b] + 1] - start};
}

/* How many of n outputs are made at a time: one, where it lies, if there is one or few entries. */
INLINE Size lanes_for(Size n, Size n_features, const Entries *at)
{
    if (n == 1 || at->total < n_features / FEW)
        return 1;
    return n > BAND / 2 ? BAND : BAND / 2;
}

#define T float
#define I int
#define OF(name) name##_float
#define SQRT sqrtf
#define ABS fabsf
#include "loops.h"
#include "widths.h"
#undef T
#undef I
#undef OF
#undef SQRT
#undef ABS
#define T double
#define I long long
#define OF(name) name##_double
#define SQRT sqrt
#define ABS fabs
#include "loops.h"
#include "widths.h"

/* The loop of the arrays' type, to which numbers are rounded as they are handed over. */
#define RUN(arrays, name, ...)                                                                     \
    ((arrays)->type == 'd' ? name##_double(__VA_ARGS__) : name##_float(__VA_ARGS__))

/* Likewise, for the width of the processor's vectors; others may compute meanwhile. */
#if HAS_WIDTHS
#define OF_WIDTH(name, type)                                                                       \
    (WIDEST >= 64 && __builtin_cpu_supports("avx512f") ? name##_64_##type                          \
     : WIDEST >= 32 && __builtin_cpu_supports("avx2")  ? name##_32_##type                          \
                                                       : name##_16_##type)
#else
#define OF_WIDTH(name, type) name##_16_##type
#endif
#define RUN_WIDE(arrays, name, ...)                                                                \
    do {                                                                                           \
        Py_BEGIN_ALLOW_THREADS;                                                                    \
        if ((arrays)->type == 'd')                                                                 \
            OF_WIDTH(name, double)(__VA_ARGS__);                                                   \
        else                                                                                       \
            OF_WIDTH(name, float)(__VA_ARGS__);                                                    \
        Py_END_ALLOW_THREADS;                                                                      \
    } while (0)

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

static int is_of(const Py_buffer *view, size_t size, const char *what)
{
    const char *format = view->format;
    int fits = view->itemsize == (Size)size && strlen(format) == 1 && strchr("ilqn", *format);
    if (!fits)
        PyErr_Format(PyExc_TypeError, "%s are integers of %zd bytes; got format '%s'", what,
                     (Size)size, format);
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
        is_of(&at.views[CLASSES], sizeof(Size), "classes") &&
        expect(length(&at, CLASSES) == width(&at, PREDICTIONS), "every column has a class") &&
        expect(length(&at, LIKELIHOODS) == width(&at, PREDICTIONS),
               "every column has a likelihood") &&
        are_below(height(&at, PREDICTIONS), memory(&at, CLASSES), length(&at, CLASSES)))
        RUN(&at, take_classes, memory(&at, PREDICTIONS), memory(&at, CLASSES),
            memory(&at, LIKELIHOODS), width(&at, PREDICTIONS));
    return none_after(&at);
}

enum { OUT, FACTOR, ENTRIES, ROOM, STARTS, COLUMNS, INDEX }; /* of a sparse product */

/* Asks memory for what will be read soon; rows lie anywhere in it. */
static void fetch(const void *start, Size bytes)
{
    for (Size at = 0; at < bytes; at += 64)
        __builtin_prefetch((const char *)start + at);
}

static int are_rows_there(Entries *at, Size n_rows, Size n_entries)
{
    for (Size b = 0; b < at->count; b++) {
        Size row = at->index[b];
        if (row < 0 || row >= n_rows) {
            PyErr_Format(PyExc_IndexError, "row %zd of %zd", row, n_rows);
            return 0;
        }
        if (!expect(0 <= at->starts[row] && at->starts[row] <= at->starts[row + 1] &&
                        at->starts[row + 1] <= n_entries,
                    "rows lie in the entries"))
            return 0;
        at->total += at->starts[row + 1] - at->starts[row];
    }
    return 1;
}

/* Beside that, fetches all that the product will read. */
static int are_columns_there(const Entries *at, Size n_columns)
{
    for (Size b = 0; b < at->count; b++) {
        Row row = row_of(at, b), soon = row_of(at, b + 2 < at->count ? b + 2 : b);
        unsigned most = 0; /* a negative column is a large one */
        fetch(at->columns + soon.start, soon.count * sizeof(int));
        fetch((const char *)at->entries + row.start * at->itemsize, row.count * at->itemsize);
        for (Size e = row.start; e < row.start + row.count; e++)
            most = (unsigned)at->columns[e] > most ? (unsigned)at->columns[e] : most;
        if (row.count && most >= n_columns) {
            PyErr_Format(PyExc_IndexError, "column %u of %zd", most, n_columns);
            return 0;
        }
    }
    return 1;
}

/* Takes (out, factor, starts, columns, entries, index, room). by_feature: which one has a column for
 * each feature, OUT or FACTOR; the other one has one for each sample. */
static int take_sparse(Arrays *at, PyObject *const *args, Entries *found, int by_feature)
{
    if (!take(at, args[0], CHANGE_ROWS) || !take(at, args[1], READ_ROWS) ||
        !take(at, args[4], READ) || !take(at, args[6], CHANGE) || !hold(at, args[2], READ) ||
        !hold(at, args[3], READ) || !hold(at, args[5], READ) || !has_rows(at, OUT) ||
        !has_rows(at, FACTOR) || !is_of(&at->views[STARTS], sizeof(Size), "starts") ||
        !is_of(&at->views[COLUMNS], sizeof(int), "columns") ||
        !is_of(&at->views[INDEX], sizeof(Size), "indices"))
        return 0;
    *found = (Entries){memory(at, STARTS), memory(at, COLUMNS), memory(at, ENTRIES),
                       memory(at, INDEX), length(at, INDEX), at->views[ENTRIES].itemsize, 0};
    Size features = width(at, by_feature), samples = width(at, OUT + FACTOR - by_feature);
    return expect(height(at, OUT) == height(at, FACTOR), "both have a row for each output") &&
           expect(samples == found->count, "every sample has a column") &&
           expect(length(at, ENTRIES) == length(at, COLUMNS), "every entry has a column") &&
           expect(length(at, ROOM) >= BAND * (features + samples), "there is room") &&
           are_rows_there(found, length(at, STARTS) - 1, length(at, ENTRIES)) &&
           are_columns_there(found, features);
}

DOOR(project_entries)
{
    Arrays at = {.count = 0};
    Entries entries;
    if (counted(n_args, 7) && take_sparse(&at, args, &entries, FACTOR))
        RUN_WIDE(&at, project_entries, memory(&at, OUT), stride(&at, OUT), memory(&at, FACTOR),
            stride(&at, FACTOR), height(&at, OUT), width(&at, FACTOR), entries, memory(&at, ROOM));
    return none_after(&at);
}

DOOR(correlate_entries)
{
    Arrays at = {.count = 0};
    Entries entries;
    if (counted(n_args, 7) && take_sparse(&at, args, &entries, OUT))
        RUN_WIDE(&at, correlate_entries, memory(&at, OUT), stride(&at, OUT), memory(&at, FACTOR),
            stride(&at, FACTOR), height(&at, OUT), width(&at, OUT), entries, memory(&at, ROOM));
    return none_after(&at);
}

#define NAMED(name) {#name, (PyCFunction)(void (*)(void))name, METH_FASTCALL, NULL}

static PyMethodDef doors[] = {
    NAMED(add_bias),
    NAMED(add_scaled),
    NAMED(adam),
    NAMED(correlate_entries),
    NAMED(divide_by_sum),
    NAMED(project_entries),
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
