/* Reading forwards: a thread takes some queries and does all their heads. */

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
