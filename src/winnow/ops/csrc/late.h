/* Reading tokens before they are projected: a head reads whole tokens of the finest levels and projects what it found,
   which is less work than projecting all of them where queries are few. Of the other levels it reads values.

   A thread takes a company of queries, head by head, so that a head's weights serve them all. */

#define COMPANY 12
#define BAND 128                                        /* channels of tokens that stay in registers */
#define VECTORS (SLAB / LANES)                          /* of channels that are projected at once */
#define ABREAST (LANES == 16 ? 12 : LANES == 8 ? 3 : 1) /* queries that have their sums in registers meanwhile */

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
        for (int64_t d = 0; d < projected; d += SLAB) {
            Lanes total[ABREAST][VECTORS];
            for (int q = 0; q < ABREAST; q++)
                for (int v = 0; v < VECTORS; v++)
                    total[q][v] = *(Anywhere *)(sums + (first + q) * projected + d + v * LANES);
            for (int64_t c = 0; c < width; c++)
                for (int v = 0; v < VECTORS; v++) {
                    Lanes row = *(const Anywhere *)(weight + c * projected + d + v * LANES);
                    for (int q = 0; q < ABREAST; q++) total[q][v] += found[(first + q) * width + c] * row;
                }
            for (int q = 0; q < ABREAST; q++)
                for (int v = 0; v < VECTORS; v++)
                    *(Anywhere *)(sums + (first + q) * projected + d + v * LANES) = total[q][v];
        }
}

INLINE void read_late(const Call *call, int64_t from, int64_t to, int half) {
    int64_t n = call->levels * call->points, late = call->late * call->points, start = 0;
    int64_t heads = call->heads, width = call->width, projected = call->projected, size = CORNERS * padded(n);
    for (int64_t l = 0; l < call->late; l++) start += call->shapes[2 * l] * call->shapes[2 * l + 1];
    float room[ROOM(n)], kept[COMPANY * heads * size], bare[COMPANY * heads];
    float found[COMPANY * width], sums[COMPANY * projected];
    Spots spots = furnish(room, n);
    lay_levels(call, &spots);
    for (int64_t i = 0; i < COMPANY * width; i++) found[i] = 0; /* a company may not be complete */
    for (int64_t i = 0; i < COMPANY * projected; i++) sums[i] = 0;
    for (int64_t first = from; first < to; first += COMPANY) {
        int64_t members = to - first < COMPANY ? to - first : COMPANY;
        for (int64_t j = 0; j < members * heads; j++) {
            int64_t item = first + j / heads, m = j % heads, b = item / call->queries, q = item % call->queries;
            Plane tokens = plane(&call->tokens, b, 0), values = plane(&call->values, b, m);
            values.data -= start * values.stride; /* spots number the tokens of all levels */
            spots.corners = four(kept + j * size, n);
            if (m == 0) refer(call, &spots, row(&call->reference, b, q, 0));
            read_spots(call, &spots, b, q, m);
            share(&spots);
            aim(&spots);
            if (call->padding) leave_out(&spots, late, call->padding + b * start);
            bare[j] = covered(&spots, late);
            find(&tokens, late, &values, call->nothing, &spots);
            send_for(&spots.corners, 0, late, width * bytes(&call->tokens));
            send_for(&spots.corners, late, n, SLAB * bytes(&call->values));
        }
        for (int64_t m = 0; m < heads; m++) {
            for (int64_t q = 0; q < members; q++) {
                Corners corners = four(kept + (q * heads + m) * size, n);
                for (int64_t c = 0; c < width; c++) found[q * width + c] = 0;
                add_up(&corners, 0, late, found + q * width, width, half);
                for (int64_t d = 0; d < projected; d++)
                    sums[q * projected + d] = late ? bare[q * heads + m] * call->bias[m * projected + d] : 0;
            }
            if (late) add_projected(found, width, call->weight + m * width * projected, projected, sums);
            for (int64_t q = 0; q < members; q++) {
                Corners corners = four(kept + (q * heads + m) * size, n);
                float *sum = sums + q * projected;
                char *out = row(&call->out, (first + q) / call->queries, (first + q) % call->queries, m);
                add_up(&corners, late, n, sum, call->channels, half);
                for (int64_t d = 0; d < call->channels; d++) set(out, d, sum[d], half);
            }
        }
    }
}

static void read_tokens(const void *given, int64_t worker, int64_t from, int64_t to) {
    const Call *call = given;
    if (call->tokens.half) read_late(call, from, to, 1);
    else read_late(call, from, to, 0);
}
