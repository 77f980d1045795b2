/* What is done with the tokens of spots, for all channels of a head: gather, compare, scatter. */

#define SLAB 32 /* channels that stay in registers while a head's places are read */

/* Tokens of one image and one head. */
typedef struct {
    char *data;
    int64_t stride; /* bytes from one token to the next */
    int half;
} Plane;

INLINE Plane plane(const Rows *rows, int64_t batch, int64_t head) {
    return (Plane){row(rows, batch, 0, head), rows->item * bytes(rows), (int)rows->half};
}

/* Where the four tokens around a place are, if they are there. */
INLINE void corners(const Plane *from, const Spots *spots, int64_t i, char *at[4]) {
    at[0] = from->data + spots->token[i] * from->stride;
    at[1] = at[0] + from->stride;
    at[2] = at[0] + spots->columns[i] * from->stride;
    at[3] = at[2] + from->stride;
}

/* Finds the four tokens around places: those of the first `late` places in one plane, of the others in another. Nothing
   is a row of zeros, for where there is no token. */
INLINE void find(const Plane *whole, int64_t late, const Plane *values, const float *nothing, Spots *spots) {
    Longs number;
    for (int i = 0; i < LANES / 2; i++) number[i] = i;
    for (int64_t i = 0; i < spots->n; i += LANES / 2) {
        Longs token = __builtin_convertvector(*(FewIntsAnywhere *)(spots->token + i), Longs);
        Longs columns = __builtin_convertvector(*(FewIntsAnywhere *)(spots->columns + i), Longs);
        Longs there = __builtin_convertvector(*(FewIntsAnywhere *)(spots->there + i), Longs);
        Longs first = number + i < late;
        Longs stride = (first & whole->stride) | (~first & values->stride);
        Longs data = (first & (int64_t)whole->data) | (~first & (int64_t)values->data);
        Longs from = token * stride + (data - (int64_t)nothing), line = columns * stride;
        Longs place[4] = {from, from + stride, from + line, from + line + stride};
        for (int k = 0; k < 4; k++)
            *(LongsAnywhere *)(spots->corners.at[k] + i) = (int64_t)nothing + (place[k] & -(there >> k & 1));
    }
}

#define LINE 64 /* bytes that come from memory at once */

/* Sends for the tokens around places from ... to, for so many bytes of each: they are here by the time that others are
   read. The nearest cache is too small for them. */
INLINE void send_for(const Corners *corners, int64_t from, int64_t to, int64_t bytes) {
    for (int64_t i = from; i < to; i++)
        for (int k = 0; k < 4; k++)
            for (int64_t byte = 0; byte < bytes; byte += LINE)
                __builtin_prefetch((char *)corners->at[k][i] + byte, 0, 2);
}

INLINE void look_for(const Plane *values, const float *nothing, Spots *spots) {
    find(values, 0, values, nothing, spots);
    send_for(&spots->corners, 0, spots->n, SLAB * (values->half ? 2 : 4));
}

/* Vectors of channels, from c on, of all n places together. */
INLINE void gather_vectors(const Corners *corners, int64_t n, char *out, int64_t c, int vectors, int half) {
    Lanes total[SLAB / LANES], found[SLAB / LANES];
    for (int v = 0; v < vectors; v++) total[v] = all(0);
    for (int64_t i = 0; i < n; i++)
        for (int k = 0; k < 4; k++) {
            fetch(found, vectors, (const char *)corners->at[k][i], c, half);
            for (int v = 0; v < vectors; v++) total[v] += corners->count[k][i] * found[v];
        }
    put(total, vectors, out, c, half);
}

/* Adds up the tokens around n places by what they count. */
INLINE void gather(const Corners *corners, int64_t n, char *out, int64_t channels, int half) {
    int64_t c = 0;
    for (; c + SLAB <= channels; c += SLAB) gather_vectors(corners, n, out, c, SLAB / LANES, half);
    for (; c + LANES <= channels; c += LANES) gather_vectors(corners, n, out, c, 1, half);
    for (; c < channels; c++) {
        float total = 0;
        for (int64_t i = 0; i < n; i++)
            for (int k = 0; k < 4; k++)
                total += corners->count[k][i] * get((const char *)corners->at[k][i], c, half);
        set(out, c, total, half);
    }
}

INLINE Four product(const Lanes *mine, int vectors, const char *token, int64_t c, int half) {
    Lanes found[SLAB / LANES], total = all(0);
    fetch(found, vectors, token, c, half);
    for (int v = 0; v < vectors; v++) total += mine[v] * found[v];
    return folded(total);
}

/* What the tokens of spots from ... to answer to a row, in these channels. */
INLINE void compare_vectors(Spots *spots, int64_t from, int64_t to, const Plane *with, const char *asked, int64_t c,
                            int vectors, int half) {
    Lanes mine[SLAB / LANES];
    fetch(mine, vectors, asked, c, half);
    for (int64_t i = from; i < to; i++) {
        char *at[4];
        Four parts[4];
        corners(with, spots, i, at);
        for (int k = 0; k < 4; k++)
            parts[k] = spots->there[i] >> k & 1 ? product(mine, vectors, at[k], c, half) : (Four){0};
        *(FourAnywhere *)(spots->answer + 4 * i) += sums(parts[0], parts[1], parts[2], parts[3]);
    }
}

INLINE void compare(Spots *spots, int64_t from, int64_t to, const Plane *with, const char *asked, int64_t channels,
                    int half) {
    for (int64_t i = 4 * from; i < 4 * to; i++) spots->answer[i] = 0;
    int64_t c = 0;
    for (; c + SLAB <= channels; c += SLAB) compare_vectors(spots, from, to, with, asked, c, SLAB / LANES, half);
    for (; c + LANES <= channels; c += LANES) compare_vectors(spots, from, to, with, asked, c, 1, half);
    for (; c < channels; c++)
        for (int64_t i = from; i < to; i++) {
            char *at[4];
            corners(with, spots, i, at);
            for (int k = 0; k < 4; k++)
                if (spots->there[i] >> k & 1) spots->answer[4 * i + k] += get(asked, c, half) * get(at[k], c, half);
        }
}

INLINE void scatter_vectors(const Spots *spots, int64_t from, int64_t to, const Plane *onto, const char *given,
                            int64_t c, int vectors, int half) {
    Lanes mine[SLAB / LANES];
    for (int v = 0; v < vectors; v++) fetch(mine + v, 1, given, c + v * LANES, half); /* not in pairs: sums are floats */
    for (int64_t i = from; i < to; i++) {
        char *at[4];
        corners(onto, spots, i, at);
        for (int k = 0; k < 4; k++)
            if (spots->there[i] >> k & 1)
                for (int v = 0; v < vectors; v++)
                    *(Anywhere *)((float *)at[k] + c + v * LANES) += spots->corners.count[k][i] * mine[v];
    }
}

/* Adds a row to the tokens of spots from ... to, by what they count. */
INLINE void scatter(const Spots *spots, int64_t from, int64_t to, const Plane *onto, const char *given,
                    int64_t channels, int half) {
    int64_t c = 0;
    for (; c + SLAB <= channels; c += SLAB) scatter_vectors(spots, from, to, onto, given, c, SLAB / LANES, half);
    for (; c + LANES <= channels; c += LANES) scatter_vectors(spots, from, to, onto, given, c, 1, half);
    for (; c < channels; c++)
        for (int64_t i = from; i < to; i++) {
            char *at[4];
            corners(onto, spots, i, at);
            for (int k = 0; k < 4; k++)
                if (spots->there[i] >> k & 1) ((float *)at[k])[c] += spots->corners.count[k][i] * get(given, c, half);
        }
}
