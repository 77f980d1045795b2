/* Convolution by 3 x 3 with fewer multiplications, on a CPU (Lavin & Gray, 2016: F(4 x 4, 3 x 3)).

   A tile of 4 x 4 results depends on 6 x 6 numbers of a map. Both are polynomials' values in disguise: transformed,
   36 products take the place of 144. Maps and results lie with channels last, and vectors are of channels.
   The arithmetic is float32, also for bfloat16:

       enter     takes tiles out of a map and transforms them      36 matrices of tiles x channels
       multiply  each matrix with the weights of its place         36 matrices of tiles x filters
       leave     transforms back, adds what a filter adds, and stores

   A thread does all this for so few tiles at once that the matrices stay in its cache. Weights come transformed, and
   ordered as they are read: (filters / PANEL, 36, channels, PANEL); `winograd_prepare` makes them so. ../winograd.py
   hands over plain pointers. */

#include <string.h>

#include "tiles.h"

#include "work.h"

#define TILES (LANES == 16 ? 14 : 24) /* at a time */

typedef struct {
    Size size;
    int64_t channels, filters;
    int64_t pitch;               /* from a pixel's results to the next one's, which may hold those of other filters */
    const char *maps;            /* (B, H, W, channels) */
    const float *weights, *bias; /* bias (filters) */
    char *out;                   /* (B, H, W, filters of pitch) */
    float *room;                 /* for each thread, PLACES * TILES * (channels + PANEL) numbers */
    Team *team;                  /* none: this thread does all */
    int64_t half;                /* maps and results are bfloat16 instead of float32 */
    int64_t relu;                /* negative results become 0 */
    int64_t threads;
} Call;

INLINE void enter(const Call *call, float *entered, int64_t from, int64_t to, int half) {
    int64_t channels = call->channels;
    for (int64_t i = from; i < to; i++) {
        Tile tile = tile_at(&call->size, i);
        for (int64_t c = 0; c < channels; c += LANES) {
            Lanes x[PLACES];
            take(x, 6, 1, call->maps, &call->size, tile, channels, c, half);
            for (int row = 0; row < 6; row++) evaluate(x + 6 * row, 1);
            for (int column = 0; column < 6; column++) evaluate(x + column, 6);
            for (int place = 0; place < PLACES; place++)
                *(Anywhere *)(entered + (place * TILES + i - from) * channels + c) = x[place];
        }
    }
}

/* Rows of a matrix, a number known when it is compiled, times a panel of another. */
INLINE void multiply_rows(const float *a, const float *panel, float *out, int64_t channels, int rows) {
    const float *at[ROWS];
    Lanes sums[ROWS][VECTORS];
    for (int row = 0; row < rows; row++) {
        at[row] = a + row * channels;
        for (int v = 0; v < VECTORS; v++) sums[row][v] = (Lanes){0};
    }
    add_products(at, panel, channels, sums, rows);
    for (int row = 0; row < rows; row++)
        for (int v = 0; v < VECTORS; v++) *(Anywhere *)(out + row * PANEL + v * LANES) = sums[row][v];
}

static void multiply(const float *entered, const float *weights, float *products, int64_t channels, int64_t tiles) {
    for (int64_t place = 0; place < PLACES; place++) {
        const float *a = entered + place * TILES * channels, *panel = weights + place * channels * PANEL;
        float *out = products + place * TILES * PANEL;
        for (int64_t i = 0; i < tiles; i += ROWS)
            FOR_ROWS(tiles - i, multiply_rows(a + i * channels, panel, out + i * PANEL, channels, rows))
    }
}

INLINE void leave(const Call *call, const float *products, int64_t filter, int64_t from, int64_t to, int half) {
    for (int64_t i = from; i < to; i++) {
        const Size *size = &call->size;
        Tile tile = tile_at(size, i);
        int64_t rows = size->height - tile.top < 4 ? size->height - tile.top : 4;
        int64_t columns = size->width - tile.left < 4 ? size->width - tile.left : 4;
        int64_t start = (tile.image * size->height + tile.top) * size->width + tile.left;
        for (int v = 0; v < VECTORS; v++) {
            int64_t f = filter + v * LANES;
            Lanes x[PLACES], down[24], bias = *(const Anywhere *)(call->bias + f);
            for (int place = 0; place < PLACES; place++)
                x[place] = *(const Anywhere *)(products + (place * TILES + i - from) * PANEL + v * LANES);
            for (int column = 0; column < 6; column++) interpolate(x + column, 6, down + column);
            for (int row = 0; row < 4; row++) interpolate(down + 6 * row, 1, x + 6 * row);
            for (int64_t row = 0; row < rows; row++)
                for (int64_t column = 0; column < columns; column++) {
                    Lanes result = x[6 * row + column] + bias;
                    if (call->relu) result = either(result < 0, (Lanes){0}, result); /* NaN is handed on */
                    put(&result, 1, call->out, (start + row * size->width + column) * call->pitch + f, half);
                }
        }
    }
}

INLINE void convolve(const Call *call, int64_t worker, int64_t from, int64_t to, int half) {
    float *entered = call->room + worker * PLACES * TILES * (call->channels + PANEL);
    float *products = entered + PLACES * TILES * call->channels;
    enter(call, entered, from, to, half);
    for (int64_t filter = 0; filter < call->filters; filter += PANEL) {
        multiply(entered, call->weights + filter * PLACES * call->channels, products, call->channels, to - from);
        leave(call, products, filter, from, to, half);
    }
}

static void convolve_floats(const void *call, int64_t worker, int64_t from, int64_t to) {
    convolve(call, worker, from, to, 0);
}

static void convolve_halves(const void *call, int64_t worker, int64_t from, int64_t to) {
    convolve(call, worker, from, to, 1);
}

EXPORTED(winograd)(const Call *call) {
    int64_t tiles = tiles_of(&call->size);
    if (!tiles) return;
    int64_t pieces = (tiles + TILES - 1) / TILES; /* all alike, and as many for each thread */
    pieces = (pieces + call->threads - 1) / call->threads * call->threads;
    spread(call, call->half ? convolve_halves : convolve_floats, tiles, (tiles + pieces - 1) / pieces, call->team,
           call->threads);
}

#define SOME 4 /* channels at a time, so that what lies far apart is read and written in longer pieces */

typedef struct {
    int64_t filters, channels;
    const float *weights;                  /* the first of the nine taps of the first filter and channel */
    int64_t to_filter, to_channel, to_tap; /* from one to the next; from the last tap back, a filter is turned */
    float *prepared;                       /* (filters / PANEL, PLACES, channels, PANEL) */
    Team *team;
    int64_t threads;
} Preparation;

static void prepare(const void *given, int64_t worker, int64_t from, int64_t to) {
    const Preparation *call = given;
    (void)worker;
    for (int64_t panel = from; panel < to; panel++)
        for (int64_t first = 0; first < call->channels; first += SOME) {
            int64_t some = call->channels - first < SOME ? call->channels - first : SOME;
            float taps[SOME][9][PANEL], made[PLACES][SOME][PANEL];
            for (int64_t f = 0; f < PANEL; f++)
                for (int64_t c = 0; c < some; c++) {
                    const float *nine = call->weights + (panel * PANEL + f) * call->to_filter
                                        + (first + c) * call->to_channel;
                    __builtin_prefetch(nine + SOME * call->to_channel);
                    for (int64_t tap = 0; tap < 9; tap++) taps[c][tap][f] = nine[tap * call->to_tap];
                }
            for (int64_t c = 0; c < some; c++)
                for (int64_t v = 0; v < VECTORS; v++) {
                    Lanes x[9], down[18], places[PLACES];
                    for (int tap = 0; tap < 9; tap++) x[tap] = *(const Anywhere *)(taps[c][tap] + v * LANES);
                    for (int column = 0; column < 3; column++) evaluate_taps(x + column, 3, down + column, 3);
                    for (int row = 0; row < 6; row++) evaluate_taps(down + 3 * row, 1, places + 6 * row, 1);
                    for (int64_t place = 0; place < PLACES; place++)
                        *(Anywhere *)(made[place][c] + v * LANES) = places[place];
                }
            for (int64_t place = 0; place < PLACES; place++)
                memcpy(call->prepared + ((panel * PLACES + place) * call->channels + first) * PANEL, made[place],
                       (size_t)some * sizeof made[place][0]);
        }
}

EXPORTED(winograd_prepare)(const Preparation *call) {
    spread(call, prepare, call->filters / PANEL, 1, call->team, call->threads);
}

/* How weights must be ordered, and how much room a thread needs for each channel and once more for PANEL. */
EXPORTED(winograd_sizes)(int64_t *panel, int64_t *room) {
    *panel = PANEL;
    *room = PLACES * TILES;
}
