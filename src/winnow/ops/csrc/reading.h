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

/* What each place answers, from what its four tokens do; `aim` weighed each by 1. */
INLINE float answered(const Spots *spots, int64_t i) {
    float total = 0;
    for (int k = 0; k < 4; k++) total += spots->corners.count[k][i] * spots->answer[4 * i + k];
    return total;
}

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
            for (int64_t i = 0; i < n; i++) set(out, i, answered(&spots, i), keys.half);
        }
}

/* Where the head of a query looks that will be answered next: its keys and values are sent for. */
INLINE void look_ahead(const Call *call, Spots *spots, int64_t b, int64_t q, int64_t m) {
    Plane keys = plane(&call->keys, b, m), values = plane(&call->values, b, m);
    const char *places = row(&call->places, b, q, m);
    refer(call, spots, row(&call->reference, b, q, 0));
    for (int64_t i = 0; i < padded(spots->n); i++) spots->weight[i] = 1;
    if (call->places.half) read_places(spots, 0, places, 0, spots->n, 1);
    else read_places(spots, 0, places, 0, spots->n, 0);
    aim(spots);
    if (keys.data != values.data) look_for(&keys, call->nothing, spots);
    look_for(&values, call->nothing, spots);
}

/* What is found there is asked how much it counts, and added up. */
INLINE void weigh(const Call *call, Spots *spots, int64_t b, int64_t q, int64_t m) {
    Plane keys = plane(&call->keys, b, m);
    const char *asked = row(&call->rows, b, q, m);
    char *out = row(&call->out, b, q, m);
    if (keys.half) compare(spots, 0, spots->n, &keys, asked, call->channels, 1);
    else compare(spots, 0, spots->n, &keys, asked, call->channels, 0);
    for (int64_t i = 0; i < spots->n; i++) spots->weight[i] = answered(spots, i);
    share(spots);
    for (int k = 0; k < 4; k++)
        for (int64_t i = 0; i < padded(spots->n); i++) spots->corners.count[k][i] *= spots->weight[i];
    if (call->values.half) gather(&spots->corners, spots->n, out, call->channels, 1);
    else gather(&spots->corners, spots->n, out, call->channels, 0);
}

static void ask(const void *given, int64_t worker, int64_t from, int64_t to) {
    const Call *call = given;
    int64_t n = call->levels * call->points, heads = call->heads;
    float room[2][ROOM(n)];
    Spots both[2] = {furnish(room[0], n), furnish(room[1], n)}; /* of the head that is weighed, and of the next */
    lay_levels(call, &both[0]);
    lay_levels(call, &both[1]);
    for (int64_t i = from * heads; i <= to * heads; i++) {
        int64_t item = i / heads, last = (i - 1) / heads;
        if (i < to * heads) look_ahead(call, &both[i & 1], item / call->queries, item % call->queries, i % heads);
        if (i > from * heads) weigh(call, &both[(i - 1) & 1], last / call->queries, last % call->queries, (i - 1) % heads);
    }
}
