/* Rows of one matrix times a panel of another: so many columns, which lie side by side row by row. */

#define VECTORS 2 /* of columns at a time */
#define PANEL (VECTORS * LANES)
#if LANES == 16
#define ROWS 14 /* at a time: so many sums of VECTORS fill the registers */
#else
#define ROWS 6
#endif

/* Adds rows, of which there are so many as is known when this is compiled, times a panel to sums that stay in
   registers. */
INLINE void add_products(const float *const *a, const float *panel, int64_t depth, Lanes sums[ROWS][VECTORS], int rows) {
    for (int64_t c = 0; c < depth; c++) {
        Lanes weights[VECTORS];
        for (int v = 0; v < VECTORS; v++) weights[v] = *(const Anywhere *)(panel + c * PANEL + v * LANES);
#pragma GCC unroll 14
        for (int row = 0; row < rows; row++)
            for (int v = 0; v < VECTORS; v++) sums[row][v] += a[row][c] * weights[v];
    }
}

/* Does something with `rows` known when it is compiled, for what is left of them, and at most ROWS. */
#define CASE(n, ...) case n: { enum { rows = n }; __VA_ARGS__; break; }
#if ROWS > 6
#define MORE_CASES(...) CASE(7, __VA_ARGS__) CASE(8, __VA_ARGS__) CASE(9, __VA_ARGS__) CASE(10, __VA_ARGS__) \
    CASE(11, __VA_ARGS__) CASE(12, __VA_ARGS__) CASE(13, __VA_ARGS__) CASE(14, __VA_ARGS__)
#else
#define MORE_CASES(...)
#endif
#define FOR_ROWS(left, ...) switch ((left) < ROWS ? (left) : ROWS) { \
    CASE(1, __VA_ARGS__) CASE(2, __VA_ARGS__) CASE(3, __VA_ARGS__) CASE(4, __VA_ARGS__) CASE(5, __VA_ARGS__) \
    CASE(6, __VA_ARGS__) MORE_CASES(__VA_ARGS__) }
