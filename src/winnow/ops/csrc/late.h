/* Reading tokens before they are projected: a head reads whole tokens of the finest levels and projects what it found,
   which is less work than projecting all of them where queries are few. Of the other levels it reads values.

   A thread takes a company of queries: all their heads read, and then each head's weights serve all of them. */

#define COMPANY 12
#define BAND (8 * LANES)               /* channels of tokens that stay in registers */
#define VECTORS 2                      /* of channels that are projected at once */
#define ABREAST (LANES == 16 ? 12 : 6) /* queries that have their sums in registers meanwhile */
#define FIRST (2 * LINE)               /* bytes of a whole token that are sent for; the others follow by themselves */

/* Nothing is there on padding. */
INLINE void leave_out(Spots *spots, int64_t places, const uint8_t *padding) {
    for (int64_t i = 0; i < places; i++)
        for (int k = 0; k < 4; k++)
            if (spots->there[i] >> k & 1 && padding[spots->token[i] + (k & 1) + (k >> 1) * spots->columns[i]])
                spots->there[i] &= ~(1 << k);
}

/* How much the tokens count that are there: so much of the bias is read. */
INLINE float covered(const Spots *spots, int64_t places) {
    float total = 0;
    for (int64_t i = 0; i < places; i++)
        for (int k = 0; k < 4; k++) total += spots->corners.count[k][i] * (float)(spots->there[i] >> k & 1);
    return total;
}

INLINE void add_band(const Corners *corners, int64_t from, int64_t to, float *sum, int64_t c, int vectors, int half) {
    Lanes total[BAND / LANES], found;
    for (int v = 0; v < vectors; v++) total[v] = *(Anywhere *)(sum + c + v * LANES);
    for (int64_t i = from; i < to; i++)
        for (int k = 0; k < 4; k++)
            for (int v = 0; v < vectors; v++) {
                fetch(&found, 1, (const char *)corners->at[k][i], c + v * LANES, half);
                total[v] += corners->count[k][i] * found;
            }
    for (int v = 0; v < vectors; v++) *(Anywhere *)(sum + c + v * LANES) = total[v];
}

/* Adds the tokens around places from ... to, by what they count, onto floats. */
INLINE void add_up(const Corners *corners, int64_t from, int64_t to, float *sum, int64_t channels, int half) {
    int64_t c = 0;
    for (; c + BAND <= channels; c += BAND) add_band(corners, from, to, sum, c, BAND / LANES, half);
    for (; c + SLAB <= channels; c += SLAB) add_band(corners, from, to, sum, c, SLAB / LANES, half);
    for (; c + LANES <= channels; c += LANES) add_band(corners, from, to, sum, c, 1, half);
    for (; c < channels; c++)
        for (int64_t i = from; i < to; i++)
            for (int k = 0; k < 4; k++)
                sum[c] += corners->count[k][i] * get((const char *)corners->at[k][i], c, half);
}

/* Adds found (COMPANY, width) times weight (width, projected) to sums (COMPANY, projected). */
INLINE void add_projected(const float *found, int64_t width, const float *weight, int64_t projected, float *sums) {
    for (int64_t first = 0; first < COMPANY; first += ABREAST)
        for (int64_t d = 0; d < projected; d += VECTORS * LANES) {
            Lanes total[ABREAST][VECTORS];
            for (int q = 0; q < ABREAST; q++)
                for (int v = 0; v < VECTORS; v++)
                    total[q][v] = *(Anywhere *)(sums + (first + q) * projected + d + v * LANES);
            for (int64_t c = 0; c < width; c++) {
                Lanes row[VECTORS];
                for (int v = 0; v < VECTORS; v++) row[v] = *(const Anywhere *)(weight + c * projected + d + v * LANES);
                for (int q = 0; q < ABREAST; q++) /* one number at a time, or there are too few registers */
                    for (int v = 0; v < VECTORS; v++) total[q][v] += found[(first + q) * width + c] * row[v];
            }
            for (int q = 0; q < ABREAST; q++)
                for (int v = 0; v < VECTORS; v++)
                    *(Anywhere *)(sums + (first + q) * projected + d + v * LANES) = total[q][v];
        }
}

/* Where a query's head looks; its sum starts with the bias, for as much of it as it reads. */
INLINE void look_late(const Call *call, Spots *spots, int64_t item, int64_t m, int64_t late, int64_t start,
                      float *to) {
    int64_t b = item / call->queries, q = item % call->queries;
    Plane tokens = plane(&call->tokens, b, 0), values = plane(&call->values, b, m);
    values.data -= start * values.stride; /* spots number the tokens of all levels */
    if (m == 0) refer(call, spots, row(&call->reference, b, q, 0));
    read_spots(call, spots, b, q, m);
    share(spots);
    aim(spots);
    if (call->padding) leave_out(spots, late, call->padding + b * start);
    float bare = late ? covered(spots, late) : 0;
    for (int64_t d = 0; d < call->projected; d++) to[d] = late ? bare * call->bias[m * call->projected + d] : 0;
    find(&tokens, late, &values, call->nothing, spots);
    send_for(&spots->corners, 0, late, FIRST);
    send_for(&spots->corners, late, spots->n, SLAB * bytes(&call->values));
}

INLINE void read_late(const Call *call, int64_t from, int64_t to, int half) {
    int64_t n = call->levels * call->points, late = call->late * call->points, start = 0, size = CORNERS * padded(n);
    int64_t heads = call->heads, width = call->width, projected = call->projected;
    for (int64_t l = 0; l < call->late; l++) start += call->shapes[2 * l] * call->shapes[2 * l + 1];
    float room[ROOM(n)], kept[(AHEAD + 1) * size], found[heads * COMPANY * width], sums[heads * COMPANY * projected];
    Spots spots = furnish(room, n);
    lay_levels(call, &spots);
    for (int64_t i = 0; i < heads * COMPANY * width; i++) found[i] = 0; /* a company may not be complete */
    for (int64_t i = 0; i < heads * COMPANY * projected; i++) sums[i] = 0;
    for (int64_t first = from; first < to; first += COMPANY) {
        int64_t members = to - first < COMPANY ? to - first : COMPANY;
        for (int64_t i = 0; i < members * heads + AHEAD; i++) {
            if (i < members * heads) {
                int64_t q = i / heads, m = i % heads;
                spots.corners = four(kept + i % (AHEAD + 1) * size, n);
                look_late(call, &spots, first + q, m, late, start, sums + (m * COMPANY + q) * projected);
            }
            if (i >= AHEAD) {
                int64_t ready = i - AHEAD, at = ready % heads * COMPANY + ready / heads;
                Corners corners = four(kept + ready % (AHEAD + 1) * size, n);
                for (int64_t c = 0; c < width; c++) found[at * width + c] = 0;
                add_up(&corners, 0, late, found + at * width, width, half);
                add_up(&corners, late, n, sums + at * projected, call->channels, half);
            }
        }
        for (int64_t m = 0; m < heads; m++) {
            const float *whole = found + m * COMPANY * width, *weight = call->weight + m * width * projected;
            float *total = sums + m * COMPANY * projected;
            if (late) add_projected(whole, width, weight, projected, total);
            for (int64_t q = 0; q < members; q++, total += projected) {
                char *out = row(&call->out, (first + q) / call->queries, (first + q) % call->queries, m);
                for (int64_t d = 0; d < call->channels; d++) set(out, d, total[d], half);
            }
        }
    }
}

static void read_tokens(const void *given, int64_t worker, int64_t from, int64_t to) {
    const Call *call = given;
    if (call->tokens.half) read_late(call, from, to, 1);
    else read_late(call, from, to, 0);
}
