/* Vectors as wide as the registers of the instruction set, halves, and a few functions of vectors. */

#include <math.h>
#include <stdint.h>

#define INLINE static inline __attribute__((always_inline))

#if defined(__AVX512F__)
#define LANES 16
#elif defined(__AVX2__)
#define LANES 8
#else
#define LANES 4 /* SSE2, NEON */
#endif

typedef float Lanes __attribute__((vector_size(4 * LANES)));
typedef float Anywhere __attribute__((vector_size(4 * LANES), aligned(4), may_alias)); /* as it lies in memory */
typedef float Four __attribute__((vector_size(16)));
typedef float FourAnywhere __attribute__((vector_size(16), aligned(4), may_alias));
typedef int32_t Fours __attribute__((vector_size(16)));
typedef int32_t Ints __attribute__((vector_size(4 * LANES)));
typedef int32_t IntsAnywhere __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int64_t Longs __attribute__((vector_size(4 * LANES))); /* half as many */
typedef int64_t LongsAnywhere __attribute__((vector_size(4 * LANES), aligned(8), may_alias));
typedef int32_t FewIntsAnywhere __attribute__((vector_size(2 * LANES), aligned(4), may_alias));
typedef uint32_t Words __attribute__((vector_size(4 * LANES)));
typedef uint32_t WordsAnywhere __attribute__((vector_size(4 * LANES), aligned(2), may_alias));
typedef uint16_t Halves __attribute__((vector_size(2 * LANES), aligned(2), may_alias));

INLINE float widened(uint16_t half) {
    union { uint32_t bits; float number; } both = {(uint32_t)half << 16};
    return both.number;
}

INLINE uint16_t narrowed(float number) { /* to the nearest, ties to even */
    union { float number; uint32_t bits; } both = {number};
    if (number != number) return (uint16_t)(both.bits >> 16 | 0x40);
    return (uint16_t)((both.bits + 0x7fff + (both.bits >> 16 & 1)) >> 16);
}

INLINE float get(const char *from, int64_t i, int half) {
    return half ? widened(((const uint16_t *)from)[i]) : ((const float *)from)[i];
}

INLINE void set(char *to, int64_t i, float number, int half) {
    if (half) ((uint16_t *)to)[i] = narrowed(number);
    else ((float *)to)[i] = number;
}

/* Vectors of channels from c on. Halves come two in a word: the even ones in one vector, the odd ones in the next. */
INLINE void fetch(Lanes *to, int vectors, const char *from, int64_t c, int half) {
    if (!half)
        for (int v = 0; v < vectors; v++) to[v] = *(const Anywhere *)((const float *)from + c + v * LANES);
    else if (vectors == 1)
        to[0] = (Lanes)(__builtin_convertvector(*(const Halves *)((const uint16_t *)from + c), Words) << 16);
    else
        for (int v = 0; v < vectors; v += 2) {
            Words pairs = *(const WordsAnywhere *)((const uint16_t *)from + c + v * LANES);
            to[v] = (Lanes)(pairs << 16);
            to[v + 1] = (Lanes)(pairs & 0xffff0000u);
        }
}

/* To the nearest half, ties to even, in the upper half of each word. */
INLINE Words rounded(Lanes x) {
    Words bits = (Words)x, up = bits + 0x7fff + (bits >> 16 & 1), number = (Words)(x == x);
    return ((up & number) | ((bits | 0x400000) & ~number)) & 0xffff0000u;
}

/* What fetch would fetch. */
INLINE void put(const Lanes *from, int vectors, char *to, int64_t c, int half) {
    if (!half)
        for (int v = 0; v < vectors; v++) *(Anywhere *)((float *)to + c + v * LANES) = from[v];
    else if (vectors == 1)
        *(Halves *)((uint16_t *)to + c) = __builtin_convertvector(rounded(from[0]) >> 16, Halves);
    else
        for (int v = 0; v < vectors; v += 2)
            *(WordsAnywhere *)((uint16_t *)to + c + v * LANES) = rounded(from[v]) >> 16 | rounded(from[v + 1]);
}

INLINE Four folded(Lanes x) {
    union { Lanes whole; Four parts[LANES / 4]; } both = {x};
    Four total = both.parts[0];
    for (int i = 1; i < LANES / 4; i++) total += both.parts[i];
    return total;
}

INLINE float sum(Four x) { return (x[0] + x[1]) + (x[2] + x[3]); }

#if defined(__clang__) || __GNUC__ >= 12
#define PICK(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define PICK(a, b, ...) __builtin_shuffle(a, b, (Fours){__VA_ARGS__})
#endif

/* Rows become columns. */
INLINE void turn_over(Four x[4]) {
    Four ab = PICK(x[0], x[1], 0, 4, 1, 5), cd = PICK(x[2], x[3], 0, 4, 1, 5);
    Four behind_ab = PICK(x[0], x[1], 2, 6, 3, 7), behind_cd = PICK(x[2], x[3], 2, 6, 3, 7);
    x[0] = PICK(ab, cd, 0, 1, 4, 5);
    x[1] = PICK(ab, cd, 2, 3, 6, 7);
    x[2] = PICK(behind_ab, behind_cd, 0, 1, 4, 5);
    x[3] = PICK(behind_ab, behind_cd, 2, 3, 6, 7);
}

/* The sum of each of four. */
INLINE Four sums(Four a, Four b, Four c, Four d) {
    Four ab = PICK(a, b, 0, 4, 1, 5) + PICK(a, b, 2, 6, 3, 7), cd = PICK(c, d, 0, 4, 1, 5) + PICK(c, d, 2, 6, 3, 7);
    return PICK(ab, cd, 0, 1, 4, 5) + PICK(ab, cd, 2, 3, 6, 7);
}

INLINE Lanes all(float x) { return x - (Lanes){0}; } /* 0 + x would be no copy of -0 */

INLINE Lanes either(Ints which, Lanes yes, Lanes no) { return (Lanes)(((Ints)yes & which) | ((Ints)no & ~which)); }

INLINE Lanes at_least(Lanes x, Lanes low) { return either(x > low, x, low); } /* of a NaN, low */

INLINE Lanes at_most(Lanes x, Lanes high) { return either(x < high, x, high); }

/* e^x for x <= 0 within 1e-7 of its size: 2^n times a polynomial of the rest. NaN is handed on. */
INLINE Lanes exponential(Lanes x) {
    Lanes bounded = either(x < -87.0f, all(-87.0f), x);
    Ints n = __builtin_convertvector(bounded * 1.44269504f - 0.5f, Ints);
    Lanes whole = __builtin_convertvector(n, Lanes);
    Lanes r = (bounded - whole * 0.693359375f) + whole * 2.12194440e-4f;
    Lanes p = r * 1.9875691e-4f + 1.3981999e-3f; /* Cephes' coefficients */
    p = p * r + 8.3334519e-3f;
    p = p * r + 4.1665796e-2f;
    p = p * r + 1.6666665e-1f;
    p = p * r + 5.0000001e-1f;
    p = p * r * r + r + 1.0f;
    return either(x < -87.0f, all(0), p * (Lanes)((n + 127) << 23));
}
