/* How a kernel takes its arguments: NumPy's arrays by the buffer protocol, and numbers.
 *
 * Whatever returns an int returns false, and sets an error, where an argument does not fit. Numbers
 * are to be taken before arrays: to convert one may run the caller's code, which could free memory.
 */

#define MOST 7 /* arrays of a call, at most */

typedef Py_ssize_t Size;

/* The arrays of a call, in the order in which they were taken. type: 'f' or 'd', of all. */
typedef struct {
    Py_buffer views[MOST];
    int count;
    char type;
} Arrays;

enum { READ = PyBUF_FORMAT | PyBUF_C_CONTIGUOUS, CHANGE = READ | PyBUF_WRITABLE };
/* Of matrices whose rows may lie apart. */
enum { READ_ROWS = PyBUF_FORMAT | PyBUF_STRIDES, CHANGE_ROWS = READ_ROWS | PyBUF_WRITABLE };

static int counted(Py_ssize_t n_args, Py_ssize_t wanted)
{
    if (n_args != wanted)
        PyErr_Format(PyExc_TypeError, "this kernel takes %zd arguments; got %zd", wanted, n_args);
    return n_args == wanted;
}

static int expect(int holds, const char *rule)
{
    if (!holds)
        PyErr_SetString(PyExc_ValueError, rule);
    return holds;
}

static int numbers(PyObject *const *args, int count, double *into)
{
    for (int i = 0; i < count; i++) {
        into[i] = PyFloat_AsDouble(args[i]);
        if (into[i] == -1.0 && PyErr_Occurred())
            return 0;
    }
    return 1;
}

/* The next array, whatever its type. */
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
                     "the arrays of a kernel are all of float32 or all of float64; got format '%s'",
                     format);
        return 0;
    }
    arrays->type = format[0];
    return 1;
}

/* Gives the arrays back; false, if an error is set. */
static int leave(Arrays *arrays)
{
    for (int i = 0; i < arrays->count; i++)
        PyBuffer_Release(&arrays->views[i]);
    return !PyErr_Occurred();
}

static void *memory(const Arrays *arrays, int i)
{
    return arrays->views[i].buf;
}

static Size length(const Arrays *arrays, int i)
{
    return arrays->views[i].len / arrays->views[i].itemsize;
}

static Size height(const Arrays *arrays, int i)
{
    return arrays->views[i].shape[0];
}

static Size width(const Arrays *arrays, int i)
{
    return arrays->views[i].shape[1];
}

static int is_matrix(const Arrays *arrays, int i)
{
    return expect(arrays->views[i].ndim == 2 && height(arrays, i) > 0,
                  "a matrix has at least one row");
}

/* Elements from one row to the next. */
static Size stride(const Arrays *arrays, int i)
{
    return arrays->views[i].strides[0] / arrays->views[i].itemsize;
}

static int has_rows(const Arrays *arrays, int i)
{
    const Py_buffer *view = &arrays->views[i];
    return is_matrix(arrays, i) &&
           expect((view->strides[1] == view->itemsize || width(arrays, i) < 2) &&
                      view->strides[0] % view->itemsize == 0,
                  "each of the rows is contiguous");
}
