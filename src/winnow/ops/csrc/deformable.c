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

#include <math.h>
#include <stddef.h>
#include <stdint.h>

#ifndef ISA
#define ISA portable
#endif
#define JOIN_(name, isa) winnow_##name##_##isa
#define JOIN(name, isa) JOIN_(name, isa)
#define EXPORTED(name) __attribute__((visibility("default"))) void JOIN(name, ISA)
#define INLINE static inline __attribute__((always_inline))

#if defined(__AVX512F__)
#define LANES 16
#elif defined(__AVX2__)
#define LANES 8
#else
#define LANES 4 /* SSE2, NEON */
#endif
#define SLAB 32 /* channels that stay in registers while a head's places are read */

typedef float Lanes __attribute__((vector_size(4 * LANES)));
typedef float Anywhere __attribute__((vector_size(4 * LANES), aligned(4), may_alias)); /* as it lies in memory */
typedef float Four __attribute__((vector_size(16)));
typedef float FourAnywhere __attribute__((vector_size(16), aligned(4), may_alias));
typedef int32_t Fours __attribute__((vector_size(16)));
typedef int32_t Ints __attribute__((vector_size(4 * LANES)));
typedef int32_t IntsAnywhere __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef uint32_t Words __attribute__((vector_size(4 * LANES)));
typedef uint32_t WordsAnywhere __attribute__((vector_size(4 * LANES), aligned(2), may_alias));
typedef uint16_t Halves __attribute__((vector_size(2 * LANES), aligned(2), may_alias));

/* ---- what Python hands over ---- */

typedef struct {
    void *data;
    int64_t batch, item, head; /* strides in elements; within a row elements are neighbours */
    int64_t half;              /* bfloat16 instead of float32 */
} Rows;

/* Runs a function on so many threads at once and returns when all are done; OpenMP's GOMP_parallel. */
typedef void Team(void (*work)(void *), void *argument, unsigned threads, unsigned flags);

typedef struct {
    int64_t images, queries, heads, channels, levels, points;
    const int64_t *shapes; /* (L, 2) height and width */
    Rows values;           /* (B, T, M) rows of D */
    Rows places;           /* (B, Q, M) rows of (L, P, 2): locations in [0, 1], or offsets in `attend` */
    Rows weights;          /* (B, Q, M) rows of (L, P): weights, or logits in `attend` */
    Rows reference;        /* (B, Q, 1) rows of (L, sides) */
    int64_t sides;         /* 2 points, 4 boxes */
    Rows rows;             /* (B, Q, M) rows of D: what was asked, or the gradient of what was read */
    Rows out;              /* (B, Q, M) rows of D, or of (L, P) in `match` */
    Rows to_values;        /* (B, T, M) rows of D, float32 and zero */
    Rows to_places;        /* like places and weights */
    Rows to_weights;
    Team *team;            /* none: this thread does all */
    int64_t threads;
} Call;

/* ---- numbers ---- */

INLINE int64_t bytes(const Rows *rows) { return rows->half ? 2 : 4; }

INLINE char *row(const Rows *rows, int64_t batch, int64_t item, int64_t head) {
    return (char *)rows->data + (batch * rows->batch + item * rows->item + head * rows->head) * bytes(rows);
}

INLINE float widened(uint16_t half) {
    union { uint32_t bits; float number; } both = {(uint32_t)half << 16};
    return both.number;
}

INLINE uint16_t narrowed(float number) { /* to the nearest, ties to even */
    union { float number; uint32_t bits; } both = {number};
    if (number != number) return (uint16_t)(both.bits >> 16 | 0x40);
    return (uint16_t)((both.bits + 0x7fff + (both.bits >> 16 & 1)) >> 16);
}

INLINE float get(const char *from, int64_t i, int half) {
    return half ? widened(((const uint16_t *)from)[i]) : ((const float *)from)[i];
}

INLINE void set(char *to, int64_t i, float number, int half) {
    if (half) ((uint16_t *)to)[i] = narrowed(number);
    else ((float *)to)[i] = number;
}

/* Vectors of channels from c on. Halves come two in a word: the even ones in one vector, the odd ones in the next. */
INLINE void fetch(Lanes *to, int vectors, const char *from, int64_t c, int half) {
    if (!half)
        for (int v = 0; v < vectors; v++) to[v] = *(const Anywhere *)((const float *)from + c + v * LANES);
    else if (vectors == 1)
        to[0] = (Lanes)(__builtin_convertvector(*(const Halves *)((const uint16_t *)from + c), Words) << 16);
    else
        for (int v = 0; v < vectors; v += 2) {
            Words pairs = *(const WordsAnywhere *)((const uint16_t *)from + c + v * LANES);
            to[v] = (Lanes)(pairs << 16);
            to[v + 1] = (Lanes)(pairs & 0xffff0000u);
        }
}

/* To the nearest half, ties to even, in the upper half of each word. */
INLINE Words rounded(Lanes x) {
    Words bits = (Words)x, up = bits + 0x7fff + (bits >> 16 & 1), number = (Words)(x == x);
    return ((up & number) | ((bits | 0x400000) & ~number)) & 0xffff0000u;
}

/* What fetch would fetch. */
INLINE void put(const Lanes *from, int vectors, char *to, int64_t c, int half) {
    if (!half)
        for (int v = 0; v < vectors; v++) *(Anywhere *)((float *)to + c + v * LANES) = from[v];
    else if (vectors == 1)
        *(Halves *)((uint16_t *)to + c) = __builtin_convertvector(rounded(from[0]) >> 16, Halves);
    else
        for (int v = 0; v < vectors; v += 2)
            *(WordsAnywhere *)((uint16_t *)to + c + v * LANES) = rounded(from[v]) >> 16 | rounded(from[v + 1]);
}

INLINE Four folded(Lanes x) {
    union { Lanes whole; Four parts[LANES / 4]; } both = {x};
    Four total = both.parts[0];
    for (int i = 1; i < LANES / 4; i++) total += both.parts[i];
    return total;
}

INLINE float sum(Four x) { return (x[0] + x[1]) + (x[2] + x[3]); }

#if defined(__clang__) || __GNUC__ >= 12
#define PICK(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define PICK(a, b, ...) __builtin_shuffle(a, b, (Fours){__VA_ARGS__})
#endif

/* The sum of each of four. */
INLINE Four sums(Four a, Four b, Four c, Four d) {
    Four ab = PICK(a, b, 0, 4, 1, 5) + PICK(a, b, 2, 6, 3, 7), cd = PICK(c, d, 0, 4, 1, 5) + PICK(c, d, 2, 6, 3, 7);
    return PICK(ab, cd, 0, 1, 4, 5) + PICK(ab, cd, 2, 3, 6, 7);
}

INLINE Lanes all(float x) { return (Lanes){0} + x; }

INLINE Lanes either(Ints which, Lanes yes, Lanes no) { return (Lanes)(((Ints)yes & which) | ((Ints)no & ~which)); }

INLINE Lanes at_least(Lanes x, Lanes low) { return either(x > low, x, low); } /* of a NaN, low */

INLINE Lanes at_most(Lanes x, Lanes high) { return either(x < high, x, high); }

/* e^x for x <= 0 within 1e-7 of its size: 2^n times a polynomial of the rest. NaN is handed on. */
INLINE Lanes exponential(Lanes x) {
    Lanes bounded = either(x < -87.0f, all(-87.0f), x);
    Ints n = __builtin_convertvector(bounded * 1.44269504f - 0.5f, Ints);
    Lanes whole = __builtin_convertvector(n, Lanes);
    Lanes r = (bounded - whole * 0.693359375f) + whole * 2.12194440e-4f;
    Lanes p = r * 1.9875691e-4f + 1.3981999e-3f; /* Cephes' coefficients */
    p = p * r + 8.3334519e-3f;
    p = p * r + 4.1665796e-2f;
    p = p * r + 1.6666665e-1f;
    p = p * r + 5.0000001e-1f;
    p = p * r * r + r + 1.0f;
    return either(x < -87.0f, all(0), p * (Lanes)((n + 127) << 23));
}

/* ---- spots ---- */

#define GROUP 16 /* arrays of spots are padded to a multiple, so that loops over them have no tail */

INLINE int64_t padded(int64_t n) { return (n + GROUP - 1) / GROUP * GROUP; }

/* Places of one query's head, or of some queries on one level. Arrays of n, in one room of floats. */
typedef struct {
    int64_t n;
    float *width, *height;    /* of the level */
    int32_t *columns, *start; /* and its first token */
    float *origin_x, *origin_y, *step_x, *step_y; /* a place is origin * size + step * offset - 0.5, in tokens */
    float *x, *y, *weight;
    /* what aim makes of them */
    float *right, *below;  /* share of the way to the next token */
    float *count[4];       /* of the tokens top left, top right, bottom left, bottom right */
    int32_t *token;        /* top left */
    int32_t *there;        /* bit k: token k exists */
    float *answer;         /* what compare found at the four, (n, 4) */
} Spots;

#define FIELDS 23
#define ROOM(n) (FIELDS * padded(n))

static Spots furnish(float *room, int64_t n) {
    int64_t size = padded(n);
    for (int64_t i = 0; i < FIELDS * size; i++) room[i] = 0;
    float *field[FIELDS];
    for (int i = 0; i < FIELDS; i++) field[i] = room + i * size;
    return (Spots){n, field[0], field[1], (int32_t *)field[2], (int32_t *)field[3], field[4], field[5], field[6],
                   field[7], field[8], field[9], field[10], field[11], field[12],
                   {field[13], field[14], field[15], field[16]}, (int32_t *)field[17], (int32_t *)field[18], field[19]};
}

static void lay_level(const Call *call, int64_t level, Spots *spots, int64_t from, int64_t to) {
    int64_t start = 0, height = call->shapes[2 * level], width = call->shapes[2 * level + 1];
    for (int64_t l = 0; l < level; l++) start += call->shapes[2 * l] * call->shapes[2 * l + 1];
    for (int64_t i = from; i < to; i++) {
        spots->width[i] = spots->step_x[i] = (float)width;
        spots->height[i] = spots->step_y[i] = (float)height;
        spots->columns[i] = (int32_t)width;
        spots->start[i] = (int32_t)start;
    }
}

static void lay_levels(const Call *call, Spots *spots) {
    for (int64_t l = 0; l < call->levels; l++)
        lay_level(call, l, spots, l * call->points, (l + 1) * call->points);
}

INLINE void read_places(Spots *spots, int64_t to, const char *places, int64_t first, int64_t n, int half) {
    for (int64_t i = 0; i < n; i++) {
        spots->x[to + i] = get(places, 2 * (first + i), half);
        spots->y[to + i] = get(places, 2 * (first + i) + 1, half);
    }
}

INLINE void read_weights(Spots *spots, int64_t to, const char *weights, int64_t first, int64_t n, int half) {
    for (int64_t i = 0; i < n; i++) spots->weight[to + i] = get(weights, first + i, half);
}

/* Around this reference, places count in tokens (a point) or in halves of its sides, shared by the points (a box). */
INLINE void refer(const Call *call, Spots *spots, const char *reference) {
    int half = (int)call->reference.half;
    for (int64_t l = 0; l < call->levels; l++)
        for (int64_t i = l * call->points; i < (l + 1) * call->points; i++) {
            int64_t at = l * call->sides;
            spots->origin_x[i] = get(reference, at, half);
            spots->origin_y[i] = get(reference, at + 1, half);
            spots->step_x[i] = spots->step_y[i] = 1;
            if (call->sides == 4) {
                spots->step_x[i] = get(reference, at + 2, half) * spots->width[i] * 0.5f / call->points;
                spots->step_y[i] = get(reference, at + 3, half) * spots->height[i] * 0.5f / call->points;
            }
        }
}

/* Logits to weights. */
INLINE void share(Spots *spots) {
    int64_t size = padded(spots->n);
    float *weight = spots->weight, parts[LANES];
    for (int64_t i = spots->n; i < size; i++) weight[i] = -INFINITY;
    Lanes most = all(-INFINITY), total = all(0);
    for (int64_t i = 0; i < size; i += LANES) most = at_least(*(Anywhere *)(weight + i), most);
    *(Anywhere *)parts = most;
    for (int i = 1; i < LANES; i++) parts[0] = parts[i] > parts[0] ? parts[i] : parts[0];
    for (int64_t i = 0; i < size; i += LANES)
        total += *(Anywhere *)(weight + i) = exponential(*(Anywhere *)(weight + i) - parts[0]);
    float each = 1 / sum(folded(total));
    for (int64_t i = 0; i < size; i += LANES) *(Anywhere *)(weight + i) *= each;
}

INLINE void aim(Spots *spots) {
    for (int64_t i = 0; i < padded(spots->n); i += LANES) {
        Lanes width = *(Anywhere *)(spots->width + i), height = *(Anywhere *)(spots->height + i);
        Lanes origin_x = *(Anywhere *)(spots->origin_x + i), origin_y = *(Anywhere *)(spots->origin_y + i);
        Lanes step_x = *(Anywhere *)(spots->step_x + i), step_y = *(Anywhere *)(spots->step_y + i);
        Lanes given_x = *(Anywhere *)(spots->x + i), given_y = *(Anywhere *)(spots->y + i);
        Lanes x = (origin_x * width - 0.5f) + step_x * given_x, y = (origin_y * height - 0.5f) + step_y * given_y;
        Lanes weight = either((x == x) & (y == y), *(Anywhere *)(spots->weight + i), all(NAN));
        x = at_most(at_least(x, all(-2)), width + 1);
        y = at_most(at_least(y, all(-2)), height + 1);
        Ints column = __builtin_convertvector(x, Ints), line = __builtin_convertvector(y, Ints);
        column += __builtin_convertvector(column, Lanes) > x; /* truth is -1: down, not to zero */
        line += __builtin_convertvector(line, Lanes) > y;
        Ints columns = *(IntsAnywhere *)(spots->columns + i), lines = __builtin_convertvector(height, Ints);
        Ints left = (column >= 0) & (column < columns), next = (column >= -1) & (column < columns - 1);
        Ints top = (line >= 0) & (line < lines), under = (line >= -1) & (line < lines - 1);
        *(IntsAnywhere *)(spots->there + i) = (left & top & 1) | (next & top & 2) | (left & under & 4) | (next & under & 8);
        *(IntsAnywhere *)(spots->token + i) = *(IntsAnywhere *)(spots->start + i) + line * columns + column;
        /* Once more from the start, so that what is large cancels before it is rounded. */
        Lanes right = (origin_x * width - (__builtin_convertvector(column, Lanes) + 0.5f)) + step_x * given_x;
        Lanes below = (origin_y * height - (__builtin_convertvector(line, Lanes) + 0.5f)) + step_y * given_y;
        right = at_most(at_least(right, all(0)), all(1)); /* far outside they are anything */
        below = at_most(at_least(below, all(0)), all(1));
        Lanes lower = weight * below, upper = weight - lower;
        Lanes lower_right = lower * right, upper_right = upper * right;
        *(Anywhere *)(spots->right + i) = right;
        *(Anywhere *)(spots->below + i) = below;
        *(Anywhere *)(spots->count[0] + i) = upper - upper_right;
        *(Anywhere *)(spots->count[1] + i) = upper_right;
        *(Anywhere *)(spots->count[2] + i) = lower - lower_right;
        *(Anywhere *)(spots->count[3] + i) = lower_right;
    }
}

#define ALL 15 /* the four tokens around a place exist */

/* ---- tokens ---- */

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

INLINE void add(Lanes *total, int vectors, const char *token, int64_t c, int half, float much) {
    Lanes found[SLAB / LANES];
    fetch(found, vectors, token, c, half);
    for (int v = 0; v < vectors; v++) total[v] += much * found[v];
}

/* Vectors of channels, from c on, of all spots together. */
INLINE void gather_vectors(const Spots *spots, const Plane *from, char *out, int64_t c, int vectors, int half) {
    Lanes total[SLAB / LANES];
    for (int v = 0; v < vectors; v++) total[v] = all(0);
    for (int64_t i = 0; i < spots->n; i++) {
        char *at[4];
        corners(from, spots, i, at);
        if (spots->there[i] == ALL) {
            for (int k = 0; k < 4; k++) add(total, vectors, at[k], c, half, spots->count[k][i]);
            continue;
        }
        for (int k = 0; k < 4; k++) {
            if (spots->there[i] >> k & 1) add(total, vectors, at[k], c, half, spots->count[k][i]);
            else for (int v = 0; v < vectors; v++) total[v] += 0 * spots->count[k][i]; /* hands a NaN on */
        }
    }
    put(total, vectors, out, c, half);
}

INLINE void gather(const Spots *spots, const Plane *from, char *out, int64_t channels, int half) {
    int64_t c = 0;
    for (; c + SLAB <= channels; c += SLAB) gather_vectors(spots, from, out, c, SLAB / LANES, half);
    for (; c + LANES <= channels; c += LANES) gather_vectors(spots, from, out, c, 1, half);
    for (; c < channels; c++) {
        float total = 0;
        for (int64_t i = 0; i < spots->n; i++) {
            char *at[4];
            corners(from, spots, i, at);
            for (int k = 0; k < 4; k++)
                total += spots->count[k][i] * (spots->there[i] >> k & 1 ? get(at[k], c, half) : 0);
        }
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
                    *(Anywhere *)((float *)at[k] + c + v * LANES) += spots->count[k][i] * mine[v];
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
                if (spots->there[i] >> k & 1) ((float *)at[k])[c] += spots->count[k][i] * get(given, c, half);
        }
}

/* ---- work, and who does it ---- */

typedef struct Job {
    const Call *call;
    void (*work)(const Call *, int64_t from, int64_t to);
    int64_t items, grain, next;
} Job;

static void labour(void *given) {
    Job *job = given;
    for (;;) {
        int64_t from = __atomic_fetch_add(&job->next, job->grain, __ATOMIC_RELAXED);
        if (from >= job->items) return;
        job->work(job->call, from, from + job->grain < job->items ? from + job->grain : job->items);
    }
}

static void spread(const Call *call, void (*work)(const Call *, int64_t, int64_t), int64_t items, int64_t grain) {
    Job job = {call, work, items, grain, 0};
    int64_t useful = (items + grain - 1) / grain;
    int64_t threads = call->threads < useful ? call->threads : useful;
    if (call->team && threads > 1) call->team(labour, &job, (unsigned)threads, 0);
    else labour(&job);
}

#define QUERIES 32 /* a thread takes so many at a time */

INLINE void read_queries(const Call *call, int64_t from, int64_t to, int fused) {
    int64_t n = call->levels * call->points;
    float room[ROOM(n)];
    Spots spots = furnish(room, n);
    lay_levels(call, &spots);
    for (int64_t item = from; item < to; item++) {
        int64_t b = item / call->queries, q = item % call->queries;
        if (fused) refer(call, &spots, row(&call->reference, b, q, 0));
        for (int64_t m = 0; m < call->heads; m++) {
            Plane values = plane(&call->values, b, m);
            if (call->places.half) read_places(&spots, 0, row(&call->places, b, q, m), 0, n, 1);
            else read_places(&spots, 0, row(&call->places, b, q, m), 0, n, 0);
            if (call->weights.half) read_weights(&spots, 0, row(&call->weights, b, q, m), 0, n, 1);
            else read_weights(&spots, 0, row(&call->weights, b, q, m), 0, n, 0);
            if (fused) share(&spots);
            aim(&spots);
            char *out = row(&call->out, b, q, m);
            if (values.half) gather(&spots, &values, out, call->channels, 1);
            else gather(&spots, &values, out, call->channels, 0);
        }
    }
}

static void sample(const Call *call, int64_t from, int64_t to) { read_queries(call, from, to, 0); }
static void attend(const Call *call, int64_t from, int64_t to) { read_queries(call, from, to, 1); }

EXPORTED(sample)(const Call *call) { spread(call, sample, call->images * call->queries, QUERIES); }
EXPORTED(attend)(const Call *call) { spread(call, attend, call->images * call->queries, QUERIES); }

static void match(const Call *call, int64_t from, int64_t to) {
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
                for (int k = 0; k < 4; k++) total += spots.count[k][i] * spots.answer[4 * i + k];
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
static void learn(const Call *call, int64_t from, int64_t to) {
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
static void splat(const Call *call, int64_t from, int64_t to) {
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

EXPORTED(match)(const Call *call) { spread(call, match, call->images * call->queries, QUERIES); }
EXPORTED(sample_backward)(const Call *call) { spread(call, learn, call->images * call->heads * call->levels, 1); }
EXPORTED(splat)(const Call *call) { spread(call, splat, call->images * call->levels, 1); }
