/* Sparse products, of one type and for one width of vectors: sums stay in registers, so vectors are as
 * wide as the processor's. compiled.c includes this for each type and width.
 *
 * T: the type; I: an integer of its size. WIDE: bytes of a vector. TARGET: the processors that have
 * such ones. AS(name): the name of a function for this type and width. As in loops.h, no product is
 * fused with a sum, and no sum reordered.
 */

#define LENGTH (WIDE / (int)sizeof(T))
#define PARTS (BAND / LENGTH)

typedef T AS(Vector) __attribute__((vector_size(WIDE), aligned(sizeof(T)), may_alias));
typedef I AS(Places) __attribute__((vector_size(WIDE)));

#if CAN_SHUFFLE
/* Of each pair of vectors `apart` from each other, the first one's lanes that have this bit and the
 * second one's that have not change places. */
INLINE void AS(swap)(AS(Vector) *at, const int apart)
{
    AS(Places) lane = {0};
    for (int j = 0; j < LENGTH; j++)
        lane[j] = j;
    AS(Places) stays = (lane & apart) == 0, other = lane + LENGTH;
    for (int k = 0; k < LENGTH; k++)
        if (!(k & apart)) {
            AS(Vector) first = at[k], second = at[k + apart];
            at[k] = __builtin_shuffle(first, second, (stays & lane) | (~stays & (other - apart)));
            at[k + apart] =
                __builtin_shuffle(first, second, (stays & (lane + apart)) | (~stays & other));
        }
}

/* into[j][i] <- from[i][j], of as many rows and columns as a vector is long. */
INLINE void AS(turn_square)(T *restrict into, Size its_stride, const T *restrict from, Size stride)
{
    AS(Vector) at[LENGTH];
    for (int i = 0; i < LENGTH; i++)
        at[i] = *(const AS(Vector) *)(from + i * stride);
    AS(swap)(at, 1);
    if (LENGTH > 2)
        AS(swap)(at, 2);
    if (LENGTH > 4)
        AS(swap)(at, 4);
    if (LENGTH > 8)
        AS(swap)(at, 8);
    for (int j = 0; j < LENGTH; j++)
        *(AS(Vector) *)(into + j * its_stride) = at[j];
}
#else
INLINE void AS(turn_square)(T *restrict into, Size its_stride, const T *restrict from, Size stride)
{
    for (int i = 0; i < LENGTH; i++)
        for (int j = 0; j < LENGTH; j++)
            into[j * its_stride + i] = from[i * stride + j];
}
#endif

/* into[j][i] <- from[i][j] */
TARGET static void AS(turn)(T *restrict into, Size its_stride, const T *restrict from, Size stride,
                            Size height, Size width)
{
    const int length = LENGTH;
    Size whole = height - height % length, across = width - width % length;
    for (Size j = 0; j < across; j += length) {
        for (Size i = 0; i < whole; i += length)
            AS(turn_square)(into + j * its_stride + i, its_stride, from + i * stride + j, stride);
        for (Size i = whole; i < height; i++)
            for (Size k = j; k < j + length; k++)
                into[k * its_stride + i] = from[i * stride + k];
    }
    for (Size j = across; j < width; j++)
        for (Size i = 0; i < height; i++)
            into[j * its_stride + i] = from[i * stride + j];
}

/* Sparse products, of BAND outputs at a time: what they have of one feature is turned to lie side by
 * side, so that vectors take it, `parts` of them; the last outputs may need but half of them. A single
 * one is made where it lies, and so are all where there are but few entries: to turn what they have of
 * all features takes longer. Each sum is added up in the order of the entries. room: BAND times
 * (features + samples). */
INLINE void AS(add_times)(AS(Vector) *sum, T factor, const AS(Vector) *x, const int parts)
{
    for (int part = 0; part < parts; part++)
        sum[part] = sum[part] + factor * x[part];
}

/* Of each sample; two take turns, so that neither waits for its last sum. */
INLINE void AS(project_band)(T *sums, const T *turned, const Entries *at, const int parts)
{
    const T *entries = at->entries;
    const Size lanes = parts * LENGTH;
#define ADD(which, e)                                                                              \
    AS(add_times)(sum[which], entries[e],                                                          \
                  (const AS(Vector) *)(turned + (Size)at->columns[e] * lanes), parts)
    for (Size b = 0; b < at->count; b += 2) {
        Size twin = b + 1 < at->count ? b + 1 : b; /* the last one may be alone, and twice */
        Row one = row_of(at, b), other = row_of(at, twin);
        Size both = one.count < other.count ? one.count : other.count;
        AS(Vector) sum[2][PARTS] = {{{0}}};
        for (Size e = 0; e < both; e++) {
            ADD(0, one.start + e);
            ADD(1, other.start + e);
        }
        for (Size e = both; e < one.count; e++)
            ADD(0, one.start + e);
        for (Size e = both; e < other.count; e++)
            ADD(1, other.start + e);
        for (int part = 0; part < parts; part++) {
            ((AS(Vector) *)(sums + b * lanes))[part] = sum[0][part];
            ((AS(Vector) *)(sums + twin * lanes))[part] = sum[1][part];
        }
    }
#undef ADD
}

INLINE void AS(project_one)(T *restrict out, const T *weights, const Entries *at)
{
    const T *entries = at->entries;
    for (Size b = 0; b < at->count; b++) {
        Row row = row_of(at, b);
        T sum = 0;
        for (Size e = row.start; e < row.start + row.count; e++)
            sum = sum + entries[e] * weights[at->columns[e]];
        out[b] = sum;
    }
}

TARGET static void AS(project_entries)(T *restrict out, Size its_stride, const T *weights,
                                       Size stride, Size height, Size width, Entries at,
                                       T *restrict room)
{
    T *sums = room + width * BAND;
    for (Size band = 0; band < height; band += BAND) {
        Size n = height - band < BAND ? height - band : BAND;
        Size lanes = lanes_for(n, width, &at);
        if (lanes == 1) {
            for (Size h = band; h < band + n; h++)
                AS(project_one)(out + h * its_stride, weights + h * stride, &at);
            continue;
        }
        if (n < lanes)
            memset(room, 0, width * lanes * sizeof(T));
        AS(turn)(room, lanes, weights + band * stride, stride, n, width);
        if (lanes == BAND)
            AS(project_band)(sums, room, &at, PARTS);
        else
            AS(project_band)(sums, room, &at, PARTS / 2);
        AS(turn)(out + band * its_stride, its_stride, sums, lanes, at.count, n);
    }
}

/* Into each feature. */
INLINE void AS(correlate_band)(T *sums, const T *turned, const Entries *at, const int parts)
{
    const T *entries = at->entries;
    const Size lanes = parts * LENGTH;
    for (Size b = 0; b < at->count; b++) {
        Row row = row_of(at, b);
        AS(Vector) delta[PARTS];
        for (int part = 0; part < parts; part++)
            delta[part] = ((const AS(Vector) *)(turned + b * lanes))[part];
        for (Size e = row.start; e < row.start + row.count; e++)
            AS(add_times)((AS(Vector) *)(sums + (Size)at->columns[e] * lanes), entries[e], delta,
                          parts);
    }
}

INLINE void AS(correlate_one)(T *restrict out, const T *deltas, Size width, const Entries *at)
{
    const T *entries = at->entries;
    memset(out, 0, width * sizeof(T));
    for (Size b = 0; b < at->count; b++) {
        Row row = row_of(at, b);
        for (Size e = row.start; e < row.start + row.count; e++)
            out[at->columns[e]] = out[at->columns[e]] + entries[e] * deltas[b];
    }
}

TARGET static void AS(correlate_entries)(T *restrict out, Size its_stride, const T *deltas,
                                         Size stride, Size height, Size width, Entries at,
                                         T *restrict room)
{
    T *turned = room + width * BAND;
    for (Size band = 0; band < height; band += BAND) {
        Size n = height - band < BAND ? height - band : BAND;
        Size lanes = lanes_for(n, width, &at);
        if (lanes == 1) {
            for (Size h = band; h < band + n; h++)
                AS(correlate_one)(out + h * its_stride, deltas + h * stride, width, &at);
            continue;
        }
        memset(room, 0, width * lanes * sizeof(T));
        memset(turned, 0, at.count * lanes * sizeof(T));
        AS(turn)(turned, lanes, deltas + band * stride, stride, n, at.count);
        if (lanes == BAND)
            AS(correlate_band)(room, turned, &at, PARTS);
        else
            AS(correlate_band)(room, turned, &at, PARTS / 2);
        AS(turn)(out + band * its_stride, its_stride, room, lanes, width, n);
    }
}

#undef LENGTH
#undef PARTS
