/* From places to spots: which tokens lie around a place, and how much each of them counts. */

#define GROUP 16 /* arrays of spots are padded to a multiple, so that loops over them have no tail */

INLINE int64_t padded(int64_t n) { return (n + GROUP - 1) / GROUP * GROUP; }

/* The tokens top left, top right, bottom left and bottom right of n places. */
typedef struct {
    float *count[4]; /* how much of them */
    int64_t *at[4];  /* and where they are in memory, once they were looked for */
} Corners;

/* Places of one query's head, or of some queries on one level. Arrays of n, in one room of floats. */
typedef struct {
    int64_t n;
    float *width, *height;    /* of the level */
    int32_t *columns, *start; /* and its first token */
    float *origin_x, *origin_y, *step_x, *step_y; /* a place is origin * size + step * offset - 0.5, in tokens */
    float *x, *y, *weight;
    /* what aim makes of them */
    float *right, *below;  /* share of the way to the next token */
    int32_t *token;        /* top left */
    int32_t *there;        /* bit k: token k exists */
    float *answer;         /* what compare found at the four, (n, 4) */
    Corners corners;
} Spots;

#define FIELDS 19
#define CORNERS 12 /* fields of four floats and four longs */
#define ROOM(n) ((FIELDS + CORNERS) * padded(n))

INLINE Corners four(float *room, int64_t n) {
    int64_t size = padded(n), *at = (int64_t *)(room + 4 * size);
    return (Corners){{room, room + size, room + 2 * size, room + 3 * size},
                     {at, at + size, at + 2 * size, at + 3 * size}};
}

static Spots furnish(float *room, int64_t n) {
    int64_t size = padded(n);
    memset(room, 0, (size_t)ROOM(n) * sizeof(float)); /* of no type: some fields are integers */
    float *field[FIELDS];
    for (int i = 0; i < FIELDS; i++) field[i] = room + i * size;
    return (Spots){n, field[0], field[1], (int32_t *)field[2], (int32_t *)field[3], field[4], field[5], field[6],
                   field[7], field[8], field[9], field[10], field[11], field[12], (int32_t *)field[13],
                   (int32_t *)field[14], field[15], four(room + FIELDS * size, n)};
}

/* The length of a side. A level without tokens has one, too, as infinity times zero is no number. */
INLINE float extent(int64_t tokens) { return (float)(tokens ? tokens : 1); }

static void lay_level(const Call *call, int64_t level, Spots *spots, int64_t from, int64_t to) {
    int64_t start = 0, height = call->shapes[2 * level], width = call->shapes[2 * level + 1];
    for (int64_t l = 0; l < level; l++) start += call->shapes[2 * l] * call->shapes[2 * l + 1];
    for (int64_t i = from; i < to; i++) {
        spots->width[i] = spots->step_x[i] = extent(width);
        spots->height[i] = spots->step_y[i] = extent(height);
        spots->columns[i] = height ? (int32_t)width : 0; /* none exist where there is no column */
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

/* Where a query's head looks, and how much each place counts: its places from `first` on become spots from `to` on. */
INLINE void read_some(const Call *call, Spots *spots, int64_t to, int64_t b, int64_t q, int64_t m, int64_t first,
                      int64_t n) {
    const char *places = row(&call->places, b, q, m), *weights = row(&call->weights, b, q, m);
    if (call->places.half) read_places(spots, to, places, first, n, 1);
    else read_places(spots, to, places, first, n, 0);
    if (call->weights.half) read_weights(spots, to, weights, first, n, 1);
    else read_weights(spots, to, weights, first, n, 0);
}

INLINE void read_spots(const Call *call, Spots *spots, int64_t b, int64_t q, int64_t m) {
    read_some(call, spots, 0, b, q, m, 0, spots->n);
}

/* Of one head on one level, of so many queries from `start` on. */
INLINE void read_block(const Call *call, Spots *spots, int64_t b, int64_t start, int64_t many, int64_t m, int64_t first) {
    for (int64_t j = 0; j < many; j++)
        read_some(call, spots, j * call->points, b, start + j, m, first, call->points);
}

/* On one level around this reference, places count in tokens (a point) or in halves of its sides, shared by the points
   (a box). */
INLINE void refer_level(const Call *call, int64_t level, Spots *spots, int64_t from, const char *reference) {
    int64_t at = level * call->sides;
    int half = (int)call->reference.half;
    float x = get(reference, at, half), y = get(reference, at + 1, half), step_x = 1, step_y = 1;
    if (call->sides == 4) {
        step_x = get(reference, at + 2, half) * spots->width[from] * 0.5f / call->points;
        step_y = get(reference, at + 3, half) * spots->height[from] * 0.5f / call->points;
    }
    for (int64_t i = from; i < from + call->points; i++) {
        spots->origin_x[i] = x;
        spots->origin_y[i] = y;
        spots->step_x[i] = step_x;
        spots->step_y[i] = step_y;
    }
}

INLINE void refer(const Call *call, Spots *spots, const char *reference) {
    for (int64_t l = 0; l < call->levels; l++) refer_level(call, l, spots, l * call->points, reference);
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
        Ints number = (x == x) & (y == y);
        Lanes weight = either(number, *(Anywhere *)(spots->weight + i), all(NAN));
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
        *(Anywhere *)(spots->right + i) = either(number, right, all(NAN));
        *(Anywhere *)(spots->below + i) = either(number, below, all(NAN));
        *(Anywhere *)(spots->corners.count[0] + i) = upper - upper_right;
        *(Anywhere *)(spots->corners.count[1] + i) = upper_right;
        *(Anywhere *)(spots->corners.count[2] + i) = lower - lower_right;
        *(Anywhere *)(spots->corners.count[3] + i) = lower_right;
    }
}

#define ALL 15 /* the four tokens around a place exist */
