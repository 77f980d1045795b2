#define PRE 1





/* Reading tokens of the finest levels whole, and projecting what was found: a thread takes a company of queries. */

#define VECTORS (SLAB / LANES)                         /* of the channels that are projected at once */
#define ABREAST (LANES == 16 ? 12 : LANES == 8 ? 3 : 1) /* queries whose sums stay in registers meanwhile */
#define COMPANY 12
#define BAND 128 /* channels of tokens that stay in registers while a head's places are read */

/* Of places on padding nothing is there. */
INLINE void leave_out(Spots *spots, int64_t places, const uint8_t *padding) {
    for (int64_t i = 0; i < places; i++)
        for (int k = 0; k < 4; k++)
            if (spots->there[i] >> k & 1 && padding[spots->token[i] + (k & 1) + (k >> 1) * spots->columns[i]])
                spots->there[i] &= ~(1 << k);
}

/* How much the tokens count that are there. What is not a number is handed on. */
INLINE float covered(const Spots *spots, int64_t places) {
    float total = 0;
    for (int64_t i = 0; i < places; i++)
        for (int k = 0; k < 4; k++) total += spots->corners.count[k][i] * (float)(spots->there[i] >> k & 1);
    return total;
}

INLINE void add_band(const Corners *corners, int64_t from, int64_t to, float *out, int64_t c, int vectors, int half) {
    Lanes total[BAND / LANES], found;
    for (int v = 0; v < vectors; v++) total[v] = *(Anywhere *)(out + c + v * LANES);
    for (int64_t i = from; i < to; i++)
        for (int k = 0; k < 4; k++)
            for (int v = 0; v < vectors; v++) {
                fetch(&found, 1, (const char *)corners->at[k][i], c + v * LANES, half);
                total[v] += corners->count[k][i] * found;
            }
    for (int v = 0; v < vectors; v++) *(Anywhere *)(out + c + v * LANES) = total[v];
}

/* Adds up tokens by what they count, onto floats. */
INLINE void add_up(const Corners *corners, int64_t from, int64_t to, float *out, int64_t channels, int half) {
    int64_t c = 0;
    for (; c + BAND <= channels; c += BAND) add_band(corners, from, to, out, c, BAND / LANES, half);
    for (; c + SLAB <= channels; c += SLAB) add_band(corners, from, to, out, c, SLAB / LANES, half);
    for (; c + LANES <= channels; c += LANES) add_band(corners, from, to, out, c, 1, half);
    for (; c < channels; c++)
        for (int64_t i = from; i < to; i++)
            for (int k = 0; k < 4; k++)
                out[c] += corners->count[k][i] * get((const char *)corners->at[k][i], c, half);
}

/* Adds found (COMPANY, channels) times weight (channels, out) to sums (COMPANY, out). */
INLINE void add_projected(const float *found, int64_t channels, const float *weight, int64_t out, float *sums) {
    for (int64_t first = 0; first < COMPANY; first += ABREAST)
        for (int64_t d = 0; d < out; d += SLAB) {
            Lanes total[ABREAST][VECTORS];
            for (int q = 0; q < ABREAST; q++)
                for (int v = 0; v < VECTORS; v++) total[q][v] = *(Anywhere *)(sums + (first + q) * out + d + v * LANES);
            for (int64_t c = 0; c < channels; c++)
                for (int v = 0; v < VECTORS; v++) {
                    Lanes row = *(const Anywhere *)(weight + c * out + d + v * LANES);
                    for (int q = 0; q < ABREAST; q++) total[q][v] += found[(first + q) * channels + c] * row;
                }
            for (int q = 0; q < ABREAST; q++)
                for (int v = 0; v < VECTORS; v++) *(Anywhere *)(sums + (first + q) * out + d + v * LANES) = total[q][v];
        }
}

INLINE void read_late(const Call *call, int64_t from, int64_t to, int half) {
    int64_t n = call->levels * call->points, heads = call->heads, width = call->width, out = call->projected;
    int64_t late = call->late * call->points, start = 0, size = CORNERS * padded(n);
    for (int64_t l = 0; l < call->late; l++) start += call->shapes[2 * l] * call->shapes[2 * l + 1];
    float room[ROOM(n)], found[heads * COMPANY * width], sums[COMPANY * out], bare[COMPANY * heads];
    float kept[COMPANY * heads * size];
    Spots spots = furnish(room, n);
    lay_levels(call, &spots);
    for (int64_t i = 0; i < heads * COMPANY * width; i++) found[i] = 0;
    for (int64_t first = from; first < to; first += COMPANY) {
        int64_t here = to - first < COMPANY ? to - first : COMPANY;
        for (int64_t j = 0; j < here * heads; j++) {
            int64_t item = first + j / heads, m = j % heads, b = item / call->queries, q = item % call->queries;
            spots.corners = four(kept + j * size, n);
            if (m == 0) refer(call, &spots, row(&call->reference, b, q, 0));
            read_spots(call, &spots, b, q, m);
            share(&spots);
            aim(&spots);
            if (call->padding) leave_out(&spots, late, call->padding + b * start);
            bare[j] = covered(&spots, late);
            Plane tokens = plane(&call->tokens, b, 0), values = plane(&call->values, b, m);
            values.data -= start * values.stride;
            find(&values, &tokens, late, call->nothing, &spots);
#ifdef PRE
            for (int64_t i = 0; i < n; i++)
                for (int k = 0; k < 4; k++)
                    for (int64_t byte = 0; byte < (i < late ? width : SLAB) * (half ? 2 : 4); byte += LINE)
                        __builtin_prefetch((char *)spots.corners.at[k][i] + byte, 0, 2);
#endif
        }
        for (int64_t q = 0; q < here; q++)
            for (int64_t c = 0; c < width; c += BAND)
                for (int64_t m = 0; m < heads; m++) {
                    Corners corners = four(kept + (q * heads + m) * size, n);
                    float *mind = found + (m * COMPANY + q) * width;
                    for (int64_t i = 0; i < BAND; i++) mind[c + i] = 0;
                    add_band(&corners, 0, late, mind, c, BAND / LANES, half);
                }
        for (int64_t m = 0; m < heads; m++) {
            const float *bias = call->bias + m * out;
            for (int64_t q = 0; q < here; q++)
                for (int64_t d = 0; d < out; d++) sums[q * out + d] = bare[q * heads + m] * bias[d];
            add_projected(found + m * COMPANY * width, width, call->weight + m * width * out, out, sums);
            for (int64_t q = 0; q < here; q++) {
                int64_t j = q * heads + m, b = (first + q) / call->queries;
                Corners corners = four(kept + j * size, n);
                add_up(&corners, late, n, sums + q * out, call->channels, half);
                char *to = row(&call->out, b, (first + q) % call->queries, m);
                for (int64_t d = 0; d < call->channels; d++) set(to, d, sums[q * out + d], half);
            }
        }
    }
}

static void read_tokens(const void *given, int64_t worker, int64_t from, int64_t to) {
    const Call *call = given;
    if (call->tokens.half) read_late(call, from, to, 1);
    else read_late(call, from, to, 0);
}
