/* Reading a pyramid at learned places, on a CPU.

   What the functions compute is written in ../plain.py. This file is compiled once for each instruction set (ISA names
   it), with vectors as wide as its registers: vectors of another width are many times slower. It needs neither Python
   nor PyTorch: ../cpu.py hands over plain pointers.

   A query's head looks at n = L * P places. `aim` turns them into spots: the top left one of the four tokens around a
   place, which of the four exist, and how much each counts. Then, for all channels of a head,

       gather   adds up the tokens by what they count            sample, attend
       compare  multiplies the tokens with a row of channels     match, and the gradient of places and weights
       scatter  adds a row of channels to the tokens             splat, and the gradient of values

   Letters in shapes as in ../../structures.py, and D the channels of a head. */

#include "numbers.h"

#include "work.h"

#include "call.h"
#include "spots.h"
#include "tokens.h"

#define QUERIES 32 /* a thread takes so many at a time */

static void start(const Call *call, Work *work, int64_t items, int64_t grain) {
    spread(call, work, items, grain, call->team, call->threads);
}

/* Where a query's head looks, and how much each place counts. */
INLINE void read_spots(const Call *call, Spots *spots, int64_t b, int64_t q, int64_t m) {
    const char *places = row(&call->places, b, q, m), *weights = row(&call->weights, b, q, m);
    if (call->places.half) read_places(spots, 0, places, 0, spots->n, 1);
    else read_places(spots, 0, places, 0, spots->n, 0);
    if (call->weights.half) read_weights(spots, 0, weights, 0, spots->n, 1);
    else read_weights(spots, 0, weights, 0, spots->n, 0);
}

#define AHEAD 3 /* heads that have aimed and are not yet read: memory has time to bring what they will read */

INLINE void read_queries(const Call *call, int64_t from, int64_t to, int fused) {
    int64_t n = call->levels * call->points, heads = call->heads, size = CORNERS * padded(n);
    float room[ROOM(n)], kept[(AHEAD + 1) * size];
    Spots spots = furnish(room, n);
    lay_levels(call, &spots);
    for (int64_t i = from * heads; i < to * heads + AHEAD; i++) {
        int64_t ready = i - AHEAD;
        if (i < to * heads) {
            int64_t item = i / heads, m = i % heads, b = item / call->queries, q = item % call->queries;
            Plane values = plane(&call->values, b, m);
            spots.corners = four(kept + i % (AHEAD + 1) * size, n);
            if (fused && m == 0) refer(call, &spots, row(&call->reference, b, q, 0));
            read_spots(call, &spots, b, q, m);
            if (fused) share(&spots);
            aim(&spots);
            look_for(&values, call->nothing, &spots);
        }
        if (ready >= from * heads) {
            int64_t item = ready / heads, m = ready % heads;
            Corners corners = four(kept + ready % (AHEAD + 1) * size, n);
            char *out = row(&call->out, item / call->queries, item % call->queries, m);
            if (call->values.half) gather(&corners, n, out, call->channels, 1);
            else gather(&corners, n, out, call->channels, 0);
        }
    }
}

static void sample(const void *call, int64_t worker, int64_t from, int64_t to) { read_queries(call, from, to, 0); }
static void attend(const void *call, int64_t worker, int64_t from, int64_t to) { read_queries(call, from, to, 1); }

EXPORTED(sample)(const Call *call) { start(call, sample, call->images * call->queries, QUERIES); }
EXPORTED(attend)(const Call *call) { start(call, attend, call->images * call->queries, QUERIES); }

static void match(const void *given, int64_t worker, int64_t from, int64_t to) {
    const Call *call = given;
    int64_t n = call->levels * call->points;
    float room[ROOM(n)];
    Spots spots = furnish(room, n);
    lay_levels(call, &spots);
    for (int64_t i = 0; i < n; i++) spots.weight[i] = 1;
    for (int64_t item = from; item < to; item++)
        for (int64_t m = 0; m < call->heads; m++) {
            int64_t b = item / call->queries, q = item % call->queries;
            Plane keys = plane(&call->values, b, m);
            const char *asked = row(&call->rows, b, q, m);
            char *out = row(&call->out, b, q, m);
            read_places(&spots, 0, row(&call->places, b, q, m), 0, n, (int)call->places.half);
            aim(&spots);
            if (keys.half) compare(&spots, 0, n, &keys, asked, call->channels, 1);
            else compare(&spots, 0, n, &keys, asked, call->channels, 0);
            for (int64_t i = 0; i < n; i++) {
                float total = 0;
                for (int k = 0; k < 4; k++) total += spots.corners.count[k][i] * spots.answer[4 * i + k];
                set(out, i, total, keys.half);
            }
        }
}

/* Places and weights of one head on one level, of so many queries from `start` on. */
INLINE void read_block(const Call *call, Spots *spots, int64_t b, int64_t start, int64_t many, int64_t m, int64_t first) {
    for (int64_t j = 0; j < many; j++) {
        const char *places = row(&call->places, b, start + j, m), *weights = row(&call->weights, b, start + j, m);
        read_places(spots, j * call->points, places, first, call->points, (int)call->places.half);
        read_weights(spots, j * call->points, weights, first, call->points, (int)call->weights.half);
    }
}

/* Gradients of one head's reading of one level, of which no other thread has a part. */
static void learn(const void *given, int64_t worker, int64_t from, int64_t to) {
    const Call *call = given;
    int64_t points = call->points, channels = call->channels, n = QUERIES * points;
    float room[ROOM(n)];
    Spots spots = furnish(room, n);
    for (int64_t item = from; item < to; item++) {
        int64_t level = item % call->levels, m = item / call->levels % call->heads;
        int64_t b = item / call->levels / call->heads, first = level * points;
        Plane values = plane(&call->values, b, m), onto = plane(&call->to_values, b, m);
        lay_level(call, level, &spots, 0, n);
        for (int64_t start = 0; start < call->queries; start += QUERIES) {
            int64_t many = start + QUERIES < call->queries ? QUERIES : call->queries - start;
            read_block(call, &spots, b, start, many, m, first);
            aim(&spots);
            for (int64_t j = 0; j < many; j++) {
                const char *came = row(&call->rows, b, start + j, m);
                int64_t at = j * points, behind = at + points;
                if (values.half) compare(&spots, at, behind, &values, came, channels, 1);
                else compare(&spots, at, behind, &values, came, channels, 0);
                if (values.half) scatter(&spots, at, behind, &onto, came, channels, 1);
                else scatter(&spots, at, behind, &onto, came, channels, 0);
                float *to_places = (float *)row(&call->to_places, b, start + j, m) + 2 * first;
                float *to_weights = (float *)row(&call->to_weights, b, start + j, m) + first;
                for (int64_t p = 0, i = at; p < points; p++, i++) {
                    float right = spots.right[i], below = spots.below[i];
                    Four a = *(FourAnywhere *)(spots.answer + 4 * i);
                    float along = (a[1] - a[0]) * (1 - below) + (a[3] - a[2]) * below;
                    float down = (a[2] - a[0]) * (1 - right) + (a[3] - a[1]) * right;
                    to_places[2 * p] = along * spots.weight[i] * spots.step_x[i];
                    to_places[2 * p + 1] = down * spots.weight[i] * spots.step_y[i];
                    to_weights[p] = (a[0] * (1 - right) + a[1] * right) * (1 - below) + (a[2] * (1 - right) + a[3] * right) * below;
                }
            }
        }
    }
}

/* What the tokens of one level are given by all heads. They count from their corner here, not from their centre. */
static void splat(const void *given, int64_t worker, int64_t from, int64_t to) {
    const Call *call = given;
    int64_t points = call->points, n = QUERIES * points;
    float room[ROOM(n)], one = 1;
    Spots spots = furnish(room, n);
    for (int64_t item = from; item < to; item++) {
        int64_t b = item / call->levels, level = item % call->levels, first = level * points;
        Plane onto = plane(&call->to_values, b, 0);
        lay_level(call, level, &spots, 0, n);
        for (int64_t i = 0; i < n; i++) {
            spots.origin_x[i] = 0.5f / spots.width[i];
            spots.origin_y[i] = 0.5f / spots.height[i];
        }
        for (int64_t start = 0; start < call->queries; start += QUERIES) {
            int64_t many = start + QUERIES < call->queries ? QUERIES : call->queries - start;
            for (int64_t m = 0; m < call->heads; m++) {
                read_block(call, &spots, b, start, many, m, first);
                aim(&spots);
                scatter(&spots, 0, many * points, &onto, (const char *)&one, 1, 0);
            }
        }
    }
}

EXPORTED(match)(const Call *call) { start(call, match, call->images * call->queries, QUERIES); }
EXPORTED(sample_backward)(const Call *call) { start(call, learn, call->images * call->heads * call->levels, 1); }
EXPORTED(splat)(const Call *call) { start(call, splat, call->images * call->levels, 1); }
