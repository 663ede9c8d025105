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

typedef T OF(Vector) __attribute__((vector_size(WIDE), aligned(sizeof(T)), may_alias));
typedef I OF(Places) __attribute__((vector_size(WIDE)));
enum { OF(LENGTH) = WIDE / sizeof(T) }; /* of a vector */

#if CAN_SHUFFLE
/* Of each pair of vectors `apart` from each other, the first one's lanes that have this bit and the
 * second one's that have not change places. */
INLINE void OF(swap)(OF(Vector) *at, const int apart)
{
    OF(Places) lane = {0};
    for (int j = 0; j < OF(LENGTH); j++)
        lane[j] = j;
    OF(Places) stays = (lane & apart) == 0, other = lane + OF(LENGTH);
    for (int k = 0; k < OF(LENGTH); k++)
        if (!(k & apart)) {
            OF(Vector) first = at[k], second = at[k + apart];
            at[k] = __builtin_shuffle(first, second, (stays & lane) | (~stays & (other - apart)));
            at[k + apart] =
                __builtin_shuffle(first, second, (stays & (lane + apart)) | (~stays & other));
        }
}

/* into[j][i] <- from[i][j], of as many rows and columns as a vector is long. */
INLINE void OF(turn_square)(T *restrict into, Size its_stride, const T *restrict from, Size stride)
{
    OF(Vector) at[OF(LENGTH)];
    for (int i = 0; i < OF(LENGTH); i++)
        at[i] = *(const OF(Vector) *)(from + i * stride);
    OF(swap)(at, 1);
    OF(swap)(at, 2);
    OF(swap)(at, 4);
    if (OF(LENGTH) > 8)
        OF(swap)(at, OF(LENGTH) / 2);
    for (int j = 0; j < OF(LENGTH); j++)
        *(OF(Vector) *)(into + j * its_stride) = at[j];
}
#else
INLINE void OF(turn_square)(T *restrict into, Size its_stride, const T *restrict from, Size stride)
{
    for (int i = 0; i < OF(LENGTH); i++)
        for (int j = 0; j < OF(LENGTH); j++)
            into[j * its_stride + i] = from[i * stride + j];
}
#endif

/* into[j][i] <- from[i][j] */
VECTORISED static void OF(turn)(T *restrict into, Size its_stride, const T *restrict from,
                                Size stride, Size height, Size width)
{
    const int length = OF(LENGTH);
    Size whole = height - height % length, across = width - width % length;
    for (Size j = 0; j < across; j += length) {
        for (Size i = 0; i < whole; i += length)
            OF(turn_square)(into + j * its_stride + i, its_stride, from + i * stride + j, stride);
        for (Size i = whole; i < height; i++)
            for (Size k = j; k < j + length; k++)
                into[k * its_stride + i] = from[i * stride + k];
    }
    for (Size j = across; j < width; j++)
        for (Size i = 0; i < height; i++)
            into[j * its_stride + i] = from[i * stride + j];
}

/* Sparse products, of BAND outputs at a time: what they have of one feature is turned to lie side by
 * side, so that vectors take it, `parts` of them; the last outputs may need but half of them. Each
 * sum is added up in the order of the entries. room: BAND times (features + samples). */
enum { OF(PARTS) = BAND * sizeof(T) / WIDE };

INLINE void OF(add_times)(OF(Vector) *sum, T factor, const OF(Vector) *x, const int parts)
{
    for (int part = 0; part < parts; part++)
        sum[part] = sum[part] + factor * x[part];
}

/* Of each sample; two take turns, so that neither waits for its last sum. */
INLINE void OF(project_band)(T *sums, const T *turned, const Entries *at, const int parts)
{
    const T *entries = at->entries;
#define ADD(which, e)                                                                              \
    OF(add_times)(sum[which], entries[e],                                                          \
                  (const OF(Vector) *)(turned + (Size)at->columns[e] * BAND), parts)
    for (Size b = 0; b < at->count; b += 2) {
        Size twin = b + 1 < at->count ? b + 1 : b; /* the last one may be alone, and twice */
        Row one = row_of(at, b), other = row_of(at, twin);
        Size both = one.count < other.count ? one.count : other.count;
        OF(Vector) sum[2][OF(PARTS)] = {{{0}}};
        for (Size e = 0; e < both; e++) {
            ADD(0, one.start + e);
            ADD(1, other.start + e);
        }
        for (Size e = both; e < one.count; e++)
            ADD(0, one.start + e);
        for (Size e = both; e < other.count; e++)
            ADD(1, other.start + e);
        for (int part = 0; part < parts; part++) {
            ((OF(Vector) *)(sums + b * BAND))[part] = sum[0][part];
            ((OF(Vector) *)(sums + twin * BAND))[part] = sum[1][part];
        }
    }
#undef ADD
}

VECTORISED static void OF(project_entries)(T *restrict out, Size its_stride, const T *weights,
                                           Size stride, Size height, Size width, Entries at,
                                           T *restrict room)
{
    T *sums = room + width * BAND;
    for (Size band = 0; band < height; band += BAND) {
        Size n = height - band < BAND ? height - band : BAND;
        if (n < BAND)
            memset(room, 0, width * BAND * sizeof(T));
        OF(turn)(room, BAND, weights + band * stride, stride, n, width);
        if (n > BAND / 2)
            OF(project_band)(sums, room, &at, OF(PARTS));
        else
            OF(project_band)(sums, room, &at, OF(PARTS) / 2);
        OF(turn)(out + band * its_stride, its_stride, sums, BAND, at.count, n);
    }
}

/* Into each feature. */
INLINE void OF(correlate_band)(T *sums, const T *turned, const Entries *at, const int parts)
{
    const T *entries = at->entries;
    for (Size b = 0; b < at->count; b++) {
        Row row = row_of(at, b);
        OF(Vector) delta[OF(PARTS)];
        for (int part = 0; part < parts; part++)
            delta[part] = ((const OF(Vector) *)(turned + b * BAND))[part];
        for (Size e = row.start; e < row.start + row.count; e++)
            OF(add_times)((OF(Vector) *)(sums + (Size)at->columns[e] * BAND), entries[e], delta,
                          parts);
    }
}

VECTORISED static void OF(correlate_entries)(T *restrict out, Size its_stride, const T *deltas,
                                             Size stride, Size height, Size width, Entries at,
                                             T *restrict room)
{
    T *turned = room + width * BAND;
    for (Size band = 0; band < height; band += BAND) {
        Size n = height - band < BAND ? height - band : BAND;
        memset(room, 0, (width + at.count) * BAND * sizeof(T));
        OF(turn)(turned, BAND, deltas + band * stride, stride, n, at.count);
        if (n > BAND / 2)
            OF(correlate_band)(room, turned, &at, OF(PARTS));
        else
            OF(correlate_band)(room, turned, &at, OF(PARTS) / 2);
        OF(turn)(out + band * its_stride, its_stride, room, BAND, width, n);
    }
}
