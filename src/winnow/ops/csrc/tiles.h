/* Tiles of maps, and the polynomials in disguise that Winograd's way makes of them (Lavin & Gray, 2016).

   Tiles of 4 x 4 pixels lie side by side over all images, the last ones beyond a map's border. Maps lie with channels
   last, and vectors are of channels. Places are those where a polynomial of two variables is known: 6 x 6 of them. */

#include "numbers.h"
#include "panels.h"

#define PLACES 36

typedef struct {
    int64_t images, height, width;
} Size;

typedef struct {
    int64_t image, top, left; /* its first pixel */
} Tile;

INLINE int64_t tiles_of(const Size *size) { return size->images * ((size->height + 3) / 4) * ((size->width + 3) / 4); }

INLINE Tile tile_at(const Size *size, int64_t i) {
    int64_t across = (size->width + 3) / 4, down = (size->height + 3) / 4;
    return (Tile){i / (across * down), i / across % down * 4, i % across * 4};
}

/* Channels from c on of side x side pixels, from so many before the tile's first one on; zeros beyond the map. */
INLINE void take(Lanes *x, int side, int before, const char *maps, const Size *size, Tile tile, int64_t channels,
                 int64_t c, int half) {
    int64_t top = tile.top - before, left = tile.left - before;
    int64_t map = tile.image * size->height * size->width;
    int inside = top >= 0 && left >= 0 && top + side <= size->height && left + side <= size->width;
    for (int64_t row = 0; row < side; row++)
        for (int64_t column = 0; column < side; column++) {
            int64_t y = top + row, at = left + column;
            int there = inside || (y >= 0 && at >= 0 && y < size->height && at < size->width);
            if (there) fetch(x + side * row + column, 1, maps, (map + y * size->width + at) * channels + c, half);
            else x[side * row + column] = (Lanes){0};
        }
}

/* Six numbers, so far apart, become the values of their polynomial at 0, 1, -1, 2, -2 and infinity. */
INLINE void evaluate(Lanes *x, int step) {
    Lanes a = x[0], b = x[step], c = x[2 * step], d = x[3 * step], e = x[4 * step], f = x[5 * step];
    Lanes even = e - 4 * c, odd = d - 4 * b, wide = e - c, wide_odd = 2 * (d - b);
    x[0] = 4 * a - 5 * c + e;
    x[step] = even + odd;
    x[2 * step] = even - odd;
    x[3 * step] = wide + wide_odd;
    x[4 * step] = wide - wide_odd;
    x[5 * step] = 4 * b - 5 * d + f;
}

/* Four coefficients of the polynomial that has these six values. */
INLINE void interpolate(const Lanes *x, int step, Lanes *to) {
    Lanes one = x[step] + x[2 * step], one_odd = x[step] - x[2 * step];
    Lanes two = x[3 * step] + x[4 * step], two_odd = x[3 * step] - x[4 * step];
    to[0] = x[0] + one + two;
    to[step] = one_odd + 2 * two_odd;
    to[2 * step] = one + 4 * two;
    to[3 * step] = one_odd + 8 * two_odd + x[5 * step];
}

/* Three coefficients, so far apart, become the values of their polynomial where evaluate has its, each over Lagrange's
   denominator: 4, -6, -6, 24, 24 and 1. */
INLINE void evaluate_taps(const Lanes *x, int step, Lanes *to, int to_step) {
    Lanes a = x[0], b = x[step], c = x[2 * step];
    Lanes even = (a + c) * (-1 / 6.0f), odd = b * (-1 / 6.0f);
    Lanes wide = a * (1 / 24.0f) + c * (1 / 6.0f), wide_odd = b * (1 / 12.0f);
    to[0] = a * 0.25f;
    to[to_step] = even + odd;
    to[2 * to_step] = even - odd;
    to[3 * to_step] = wide + wide_odd;
    to[4 * to_step] = wide - wide_odd;
    to[5 * to_step] = c;
}

/* What interpolate turned round does: four coefficients, so far apart, become values of their polynomial. */
INLINE void evaluate_four(const Lanes *x, int step, Lanes *to, int to_step) {
    Lanes a = x[0], b = x[step], c = x[2 * step], d = x[3 * step];
    Lanes even = a + c, odd = b + d, wide = a + 4 * c, wide_odd = 2 * b + 8 * d;
    to[0] = a;
    to[to_step] = even + odd;
    to[2 * to_step] = even - odd;
    to[3 * to_step] = wide + wide_odd;
    to[4 * to_step] = wide - wide_odd;
    to[5 * to_step] = d;
}

/* The same of two coefficients, of which others were left out between them and behind: at 1 and -1 values are alike, so
   are they at 2 and -2, and there is none at infinity. */
INLINE void evaluate_two(const Lanes *x, int step, Lanes *to, int to_step) {
    Lanes a = x[0], b = x[step];
    to[0] = a;
    to[to_step] = to[2 * to_step] = a + b;
    to[3 * to_step] = to[4 * to_step] = a + 4 * b;
    to[5 * to_step] = (Lanes){0};
}

/* What evaluate_taps turned round does: six numbers become three. */
INLINE void interpolate_taps(const Lanes *x, int step, Lanes *to, int to_step) {
    Lanes one = (x[step] + x[2 * step]) * (-1 / 6.0f), one_odd = (x[2 * step] - x[step]) * (1 / 6.0f);
    Lanes two = x[3 * step] + x[4 * step], two_odd = x[3 * step] - x[4 * step];
    to[0] = x[0] * 0.25f + one + two * (1 / 24.0f);
    to[to_step] = one_odd + two_odd * (1 / 12.0f);
    to[2 * to_step] = one + two * (1 / 6.0f) + x[5 * step];
}
