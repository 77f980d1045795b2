/* Tall matrices times small ones, on a CPU: what linear layers do with tokens.

   Weights come ordered as they are read, (outputs / PANEL, inputs, PANEL), filled up with zeros. A thread takes so many
   rows that they stay in its cache while one panel after the other, a slice of its depth at a time, stays in the
   nearest; sums stay in registers. The bias and the ReLU are part of it, so that results are written once, or once for
   each slice. Meanwhile what will be needed next is sent for. ../matrix.py hands over plain pointers. */

#include <string.h>

#include "numbers.h"

#include "work.h"

#include "panels.h"

#define STRIPS 8  /* of ROWS at a time */
#define SLICE 256 /* inputs at a time */

typedef struct {
    int64_t rows, inputs, outputs;
    int64_t pitch, newer_pitch;    /* from one row to the next */
    const float *x, *weights, *bias;
    const float *newer;            /* rows that take the place of some of x */
    const int32_t *turns;          /* which of them does, for each row; less than 0: none. Without it, none do */
    float *out;                    /* (rows, outputs) */
    Team *team;                    /* none: this thread does all */
    int64_t relu, threads;
} Call;

INLINE const float *row_at(const Call *call, int64_t row) {
    int64_t turn = call->turns ? call->turns[row] : -1;
    return turn < 0 ? call->x + row * call->pitch : call->newer + turn * call->newer_pitch;
}

/* Rows that lie at `x`, as many as are known when this is compiled, a slice of their inputs from `start` on, and the
   panel of `output`. The next rows that this thread will take lie at `next`. */
INLINE void multiply(const Call *call, const float *const *x, const float *const *next, float *out, int64_t start,
                     int64_t depth, int64_t output, int rows) {
    int64_t some = call->outputs - output < PANEL ? call->outputs - output : PANEL;
    float kept[ROWS * PANEL], *to = some < PANEL ? kept : out; /* behind the last output there is no place */
    int64_t pitch = some < PANEL ? PANEL : call->outputs, step = start ? pitch : 0;
    const float *a[ROWS], *before = start ? to : call->bias + output;
    Lanes sums[ROWS][VECTORS], least = all(call->relu && start + depth == call->inputs ? 0 : -INFINITY);
    if (some < PANEL && start)
        for (int row = 0; row < rows; row++)
            memcpy(kept + row * PANEL, out + row * call->outputs, (size_t)some * sizeof(float));
#pragma GCC unroll 14
    for (int row = 0; row < rows; row++) {
        a[row] = x[row] + start;
        for (int v = 0; v < VECTORS; v++) sums[row][v] = *(const Anywhere *)(before + row * step + v * LANES);
        __builtin_prefetch(out + row * call->outputs, 1, 3);
        __builtin_prefetch(next[row] + start + output, 0, 2);
    }
    add_products(a, call->weights + output * call->inputs + start * PANEL, depth, sums, rows);
#pragma GCC unroll 14
    for (int row = 0; row < rows; row++)
        for (int v = 0; v < VECTORS; v++) /* what is not a number is handed on */
            *(Anywhere *)(to + row * pitch + v * LANES) = either(sums[row][v] < least, least, sums[row][v]);
    if (some < PANEL)
        for (int row = 0; row < rows; row++)
            memcpy(out + row * call->outputs, kept + row * PANEL, (size_t)some * sizeof(float));
}

static int64_t strips_of(int64_t rows) { return (rows + ROWS - 1) / ROWS; }

static int64_t pieces_of(const Call *call) { /* as many for each thread */
    return (strips_of(call->rows) + call->threads * STRIPS - 1) / (call->threads * STRIPS) * call->threads;
}

static void multiply_piece(const void *given, int64_t worker, int64_t piece, int64_t end) {
    const Call *call = given;
    (void)worker, (void)end;
    int64_t strips = strips_of(call->rows), pieces = pieces_of(call);
    int64_t from = strips * piece / pieces * ROWS, to = strips * (piece + 1) / pieces * ROWS;
    const float *x[STRIPS * ROWS], *next[STRIPS * ROWS];
    if (to > call->rows) to = call->rows;
    for (int64_t row = from; row < to; row++) {
        int64_t later = row + call->threads * (to - from);
        x[row - from] = row_at(call, row);
        next[row - from] = row_at(call, later < call->rows ? later : row);
    }
    for (int64_t start = 0; start < call->inputs; start += SLICE) {
        int64_t depth = call->inputs - start < SLICE ? call->inputs - start : SLICE;
        for (int64_t output = 0; output < call->outputs; output += PANEL)
            for (int64_t row = from; row < to; row += ROWS)
                FOR_ROWS(to - row, multiply(call, x + row - from, next + row - from,
                                            call->out + row * call->outputs + output, start, depth, output, rows))
    }
}

EXPORTED(matrix)(const Call *call) { spread(call, multiply_piece, pieces_of(call), 1, call->team, call->threads); }

/* How weights must be ordered. */
EXPORTED(matrix_panel)(int64_t *panel) { *panel = PANEL; }
