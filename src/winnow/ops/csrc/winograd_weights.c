/* The gradient of a convolution's weights by 3 x 3 with fewer multiplications, on a CPU: winograd.c turned round.

   There, weights' and maps' values at 36 places are multiplied for each tile; so here, maps' values and those of the
   results' gradient are, summed over tiles, and only the sums become 3 x 3 taps:

       enter   transforms tiles of maps and of the gradient     36 matrices of tiles x channels and tiles x filters
       gather  multiplies them, summing over tiles              36 matrices of channels x filters
       leave   transforms back, and adds what is found to the gradient of the weights

   All this for so few tiles at once that they stay in a cache. The arithmetic is float32, also for bfloat16. */

#include <string.h>

#include "tiles.h"

#include "work.h"

#define ABREAST (LANES == 16 ? 8 : 4) /* channels at a time: so many sums of VECTORS fill the registers */
#define TILES 128                     /* at a time */
#define PITCH (TILES + 1)             /* from place to place: an odd number spreads them over the cache */

typedef struct {
    Size size;
    int64_t channels, filters;
    int64_t stride;              /* 1, or 2: then a gradient is that of every other pixel, from the first one on */
    const char *maps, *gradient; /* (B, H, W, channels), (B, H / stride, W / stride, filters) */
    float *entered;              /* (channels / LANES, PLACES, PITCH, LANES) */
    float *came;                 /* (filters / PANEL, PLACES, PITCH, PANEL) */
    float *out;                  /* (filters, channels, 9), zeros at first */
    Team *team;
    int64_t half; /* maps and gradient are bfloat16 instead of float32 */
    int64_t threads;
} Call;

typedef struct {
    const Call *call;
    int64_t first, tiles; /* those that are worked on */
} Piece;

INLINE void enter_map(const Call *call, Tile tile, float *to, int half) {
    for (int64_t c = 0; c < call->channels; c += LANES) {
        Lanes x[PLACES];
        take(x, 6, 1, call->maps, &call->size, tile, call->channels, c, half);
        for (int row = 0; row < 6; row++) evaluate(x + 6 * row, 1);
        for (int column = 0; column < 6; column++) evaluate(x + column, 6);
        for (int place = 0; place < PLACES; place++)
            *(Anywhere *)(to + (c / LANES * PLACES + place) * PITCH * LANES) = x[place];
    }
}

INLINE void enter_gradient(const Call *call, Tile tile, float *to, int half) {
    Size coarse = {call->size.images, (call->size.height + 1) / 2, (call->size.width + 1) / 2};
    Tile few = {tile.image, tile.top / 2, tile.left / 2};
    for (int64_t f = 0; f < call->filters; f += LANES) {
        Lanes y[16], down[24], z[PLACES];
        if (call->stride == 1) {
            take(y, 4, 0, call->gradient, &call->size, tile, call->filters, f, half);
            for (int column = 0; column < 4; column++) evaluate_four(y + column, 4, down + column, 4);
            for (int row = 0; row < 6; row++) evaluate_four(down + 4 * row, 1, z + 6 * row, 1);
        } else {
            take(y, 2, 0, call->gradient, &coarse, few, call->filters, f, half);
            for (int column = 0; column < 2; column++) evaluate_two(y + column, 2, down + column, 2);
            for (int row = 0; row < 6; row++) evaluate_two(down + 2 * row, 1, z + 6 * row, 1);
        }
        for (int place = 0; place < PLACES; place++)
            *(Anywhere *)(to + (f / PANEL * PLACES + place) * PITCH * PANEL + f % PANEL) = z[place];
    }
}

INLINE void enter(const Piece *piece, int64_t from, int64_t to, int half) {
    const Call *call = piece->call;
    for (int64_t i = from; i < to; i++) {
        Tile tile = tile_at(&call->size, piece->first + i);
        enter_map(call, tile, call->entered + i * LANES, half);
        enter_gradient(call, tile, call->came + i * PANEL, half);
    }
}

static void enter_floats(const void *piece, int64_t worker, int64_t from, int64_t to) {
    (void)worker;
    enter(piece, from, to, 0);
}

static void enter_halves(const void *piece, int64_t worker, int64_t from, int64_t to) {
    (void)worker;
    enter(piece, from, to, 1);
}

/* Some channels of all tiles by a panel of filters: sums stay in registers. */
INLINE void gather_rows(const float *x, const float *z, int64_t tiles, float (*to)[PANEL]) {
    Lanes sums[ABREAST][VECTORS];
    for (int row = 0; row < ABREAST; row++)
        for (int v = 0; v < VECTORS; v++) sums[row][v] = (Lanes){0};
    for (int64_t i = 0; i < tiles; i++) {
        Lanes came[VECTORS];
        for (int v = 0; v < VECTORS; v++) came[v] = *(const Anywhere *)(z + i * PANEL + v * LANES);
#pragma GCC unroll 8
        for (int row = 0; row < ABREAST; row++)
            for (int v = 0; v < VECTORS; v++) sums[row][v] += x[i * LANES + row] * came[v];
    }
    for (int row = 0; row < ABREAST; row++)
        for (int v = 0; v < VECTORS; v++) *(Anywhere *)(to[row] + v * LANES) = sums[row][v];
}

INLINE void leave(const Call *call, float (*sums)[LANES][PANEL], int64_t channel, int64_t filter) {
    float taps[LANES * 9][PANEL];
    for (int c = 0; c < LANES; c++)
        for (int v = 0; v < VECTORS; v++) {
            Lanes x[PLACES], down[18], nine[9];
            for (int place = 0; place < PLACES; place++) x[place] = *(const Anywhere *)(sums[place][c] + v * LANES);
            for (int column = 0; column < 6; column++) interpolate_taps(x + column, 6, down + column, 6);
            for (int row = 0; row < 3; row++) interpolate_taps(down + 6 * row, 1, nine + 3 * row, 1);
            for (int tap = 0; tap < 9; tap++) *(Anywhere *)(taps[c * 9 + tap] + v * LANES) = nine[tap];
        }
    for (int f = 0; f < PANEL; f++) {
        float *out = call->out + ((filter + f) * call->channels + channel) * 9;
        for (int i = 0; i < LANES * 9; i++) out[i] += taps[i][f];
    }
}

/* Blocks of LANES channels by PANEL filters; the channels of a panel follow each other. */
static void weigh(const void *given, int64_t worker, int64_t from, int64_t to) {
    const Piece *piece = given;
    const Call *call = piece->call;
    int64_t blocks = call->channels / LANES;
    (void)worker;
    for (int64_t i = from; i < to; i++) {
        float sums[PLACES][LANES][PANEL];
        int64_t panel = i / blocks, block = i % blocks;
        for (int64_t place = 0; place < PLACES; place++) {
            if (call->stride == 2 && (place / 6 == 5 || place % 6 == 5)) { /* zeros: see evaluate_two */
                memset(sums[place], 0, sizeof sums[place]);
                continue;
            }
            const float *x = call->entered + (block * PLACES + place) * PITCH * LANES;
            const float *z = call->came + (panel * PLACES + place) * PITCH * PANEL;
            for (int c = 0; c < LANES; c += ABREAST) gather_rows(x + c, z, piece->tiles, sums[place] + c);
        }
        leave(call, sums, block * LANES, panel * PANEL);
    }
}

EXPORTED(winograd_weights)(const Call *call) {
    int64_t tiles = tiles_of(&call->size), blocks = call->channels / LANES, panels = call->filters / PANEL;
    for (int64_t first = 0; first < tiles; first += TILES) {
        Piece piece = {call, first, tiles - first < TILES ? tiles - first : TILES};
        spread(&piece, call->half ? enter_halves : enter_floats, piece.tiles, 4, call->team, call->threads);
        spread(&piece, weigh, blocks * panels, blocks, call->team, call->threads);
    }
}

/* How much room is needed for each channel, and for each filter. */
EXPORTED(winograd_weights_room)(int64_t *room) { *room = PLACES * PITCH; }
