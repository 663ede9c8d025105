/* The sparse products of one type, for each width of vectors that there may be. */

#if HAS_WIDTHS
#define WIDE 64
#define TARGET __attribute__((target("avx512f")))
#define AS(name) OF(name##_64)
#include "sparse.h"
#undef WIDE
#undef TARGET
#undef AS
#define WIDE 32
#define TARGET __attribute__((target("avx2")))
#define AS(name) OF(name##_32)
#include "sparse.h"
#undef WIDE
#undef TARGET
#undef AS
#endif
#define WIDE 16
#define TARGET
#define AS(name) OF(name##_16)
#include "sparse.h"
#undef WIDE
#undef TARGET
#undef AS
