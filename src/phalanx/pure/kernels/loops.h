/* The loops, of one type; compiled.c includes this once for float and once for double.
 *
 * T: the type. OF(name): the name of a loop for it. SQRT, ABS: its square root and magnitude.
 *
 * No product may be fused with a sum (-ffp-contract=off), and no sum may be reordered: each element
 * is rounded as often, and in the same order, as in numpy_kernels.py. Wider vectors change nothing
 * then, so every processor gets its own.
 */

VECTORISED static void OF(add_scaled)(T *restrict y, T factor, const T *restrict x, Size n)
{
    for (Size i = 0; i < n; i++)
        y[i] = y[i] + factor * x[i];
}

/* Adds multiples of x, too, and returns the sum of its squares: of each of so many lanes, in the
 * order of the lanes. */
VECTORISED static double OF(pull)(T *restrict y, T factor, const T *restrict x, Size n)
{
    T sums[LANES] = {0};
    double sum = 0;
    Size whole = n - n % LANES;
    for (Size start = 0; start < whole; start += LANES)
        for (Size j = 0; j < LANES; j++) {
            T it = x[start + j];
            y[start + j] = y[start + j] + factor * it;
            sums[j] = sums[j] + it * it;
        }
    for (Size i = whole; i < n; i++) {
        y[i] = y[i] + factor * x[i];
        sums[i - whole] = sums[i - whole] + x[i] * x[i];
    }
    for (Size j = 0; j < LANES; j++)
        sum = sum + sums[j];
    return sum;
}

/* Rows lie `stride` elements apart. Some columns at a time, so that they stay near the core. */
VECTORISED static void OF(weighted_sum)(T *restrict out, const T *restrict rows, Size stride,
                                        const T *restrict weights, Size n_rows, Size n)
{
    for (Size start = 0; start < n; start += TILE) {
        Size stop = start + TILE < n ? start + TILE : n;
        for (Size i = start; i < stop; i++)
            out[i] = weights[0] * rows[i];
        for (Size s = 1; s < n_rows; s++) {
            const T *row = rows + s * stride;
            for (Size i = start; i < stop; i++)
                out[i] = out[i] + weights[s] * row[i];
        }
    }
}

VECTORISED static void OF(shrink)(T *x, T factor, T least, Size n)
{
    for (Size i = 0; i < n; i++) {
        T it = factor * x[i];
        x[i] = it * (T)(ABS(it) >= least);
    }
}

VECTORISED static void OF(adam)(T *restrict params, T *restrict first, T *restrict second,
                                const T *restrict grad, Size n, T beta_1, T gain_1, T beta_2,
                                T gain_2, T epsilon, T rate, T least, T its_square)
{
    for (Size i = 0; i < n; i++) {
        T it = grad[i] * (T)(ABS(grad[i]) >= least);
        T mean = beta_1 * first[i] + gain_1 * it;
        T square = beta_2 * second[i] + gain_2 * (it * it);
        first[i] = mean * (T)(ABS(mean) >= least);
        second[i] = square * (T)(square >= its_square);
        params[i] = params[i] + rate * (first[i] / (SQRT(second[i]) + epsilon));
    }
}

/* Here, and in the two that follow, rows lie `stride` elements apart as well. */
VECTORISED static void OF(add_bias)(T *restrict z, Size stride, const T *restrict bias,
                                    Size height, Size width)
{
    for (Size i = 0; i < height; i++)
        for (Size j = 0; j < width; j++)
            z[i * stride + j] = z[i * stride + j] + bias[i];
}

VECTORISED static void OF(relu)(T *z, Size stride, Size height, Size width)
{
    for (Size i = 0; i < height; i++)
        for (Size j = 0; j < width; j++) {
            T it = z[i * stride + j];
            z[i * stride + j] = it <= 0 ? 0 : it; /* NaN stays */
        }
}

VECTORISED static void OF(relu_backward)(T *restrict delta, Size stride, const T *restrict a,
                                         Size its_stride, Size height, Size width)
{
    for (Size i = 0; i < height; i++)
        for (Size j = 0; j < width; j++)
            delta[i * stride + j] = delta[i * stride + j] * (T)(a[i * its_stride + j] > 0);
}

VECTORISED static void OF(subtract_max)(T *z, Size height, Size width)
{
    T most[TILE];
    for (Size start = 0; start < width; start += TILE) {
        Size n = start + TILE < width ? TILE : width - start;
        T *tile = z + start;
        for (Size j = 0; j < n; j++)
            most[j] = tile[j];
        for (Size i = 1; i < height; i++)
            for (Size j = 0; j < n; j++) {
                T it = tile[i * width + j];
                most[j] = it > most[j] || it != it ? it : most[j];
            }
        for (Size i = 0; i < height; i++)
            for (Size j = 0; j < n; j++)
                tile[i * width + j] = tile[i * width + j] - most[j] + 0; /* never -0 */
    }
}

VECTORISED static void OF(divide_by_sum)(T *z, Size height, Size width)
{
    T sum[TILE];
    for (Size start = 0; start < width; start += TILE) {
        Size n = start + TILE < width ? TILE : width - start;
        T *tile = z + start;
        for (Size j = 0; j < n; j++)
            sum[j] = tile[j];
        for (Size i = 1; i < height; i++)
            for (Size j = 0; j < n; j++)
                sum[j] = sum[j] + tile[i * width + j];
        for (Size i = 0; i < height; i++)
            for (Size j = 0; j < n; j++)
                tile[i * width + j] = tile[i * width + j] / sum[j];
    }
}

/* Every class is of 0..height - 1. */
static void OF(take_classes)(T *restrict predictions, const Size *restrict classes,
                             T *restrict likelihoods, Size width)
{
    for (Size j = 0; j < width; j++) {
        T *at = predictions + classes[j] * width + j;
        likelihoods[j] = *at;
        *at = *at - 1;
    }
}
