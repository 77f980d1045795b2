/* The way back of sample and attend.

   Of attend, weights come as such, not as logits. Its way back has two steps: heads learn level by level, as in sample,
   and then queries trace back what they learned to what their heads, levels and points share. */

/* How the answers of four spots to a row change with their places, in tokens along and down, and with their weights. */
INLINE void slopes(const Spots *spots, int64_t i, Four *along, Four *down, Four *much) {
    const FourAnywhere *answer = (const FourAnywhere *)(spots->answer + 4 * i);
    Four right = *(FourAnywhere *)(spots->right + i), below = *(FourAnywhere *)(spots->below + i);
    Four weight = *(FourAnywhere *)(spots->weight + i), a[4] = {answer[0], answer[1], answer[2], answer[3]};
    turn_over(a); /* now of each token that of all four spots */
    *along = ((a[1] - a[0]) * (1 - below) + (a[3] - a[2]) * below) * weight;
    *down = ((a[2] - a[0]) * (1 - right) + (a[3] - a[1]) * right) * weight;
    *much = (a[0] * (1 - right) + a[1] * right) * (1 - below) + (a[2] * (1 - right) + a[3] * right) * below;
}

/* The gradients of n places, from spot `at` on, and of their weights; places are locations, or (fused) in tokens. */
INLINE void hand_back(const Spots *spots, int64_t at, int64_t n, float *to_places, float *to_weights, int fused) {
    for (int64_t i = 0; i < n; i += 4) { /* behind the last place spots are anything */
        Four along, down, much;
        float kept[12];
        slopes(spots, at + i, &along, &down, &much);
        if (!fused) {
            along *= *(FourAnywhere *)(spots->width + at + i);
            down *= *(FourAnywhere *)(spots->height + at + i);
        }
        *(FourAnywhere *)kept = PICK(along, down, 0, 4, 1, 5);
        *(FourAnywhere *)(kept + 4) = PICK(along, down, 2, 6, 3, 7);
        *(FourAnywhere *)(kept + 8) = much;
        int64_t some = n - i < 4 ? n - i : 4;
        memcpy(to_places + 2 * i, kept, (size_t)(2 * some) * sizeof(float));
        memcpy(to_weights + i, kept + 8, (size_t)some * sizeof(float));
    }
}

/* Offsets around a reference become locations in [0, 1] of the level. That rounds, as where places are kept, and so it
   shall: models start out looking at tokens' very centres, where reading has a slope to either side, and rounding takes
   now the one and now the other. Without it all queries would look to the same side. */
INLINE void locate(const Call *call, int64_t level, Spots *spots, int64_t from, const char *reference) {
    int64_t at = level * call->sides;
    int half = (int)call->reference.half;
    float step_x = 1 / (spots->width[from] > 0 ? spots->width[from] : 1);
    float step_y = 1 / (spots->height[from] > 0 ? spots->height[from] : 1);
    if (call->sides == 4) {
        step_x = get(reference, at + 2, half) * (0.5f / call->points);
        step_y = get(reference, at + 3, half) * (0.5f / call->points);
    }
    for (int64_t i = from; i < from + call->points; i++) {
        spots->x[i] = get(reference, at, half) + spots->x[i] * step_x;
        spots->y[i] = get(reference, at + 1, half) + spots->y[i] * step_y;
    }
}

#define NEXT 2 /* queries from here on is the one whose tokens are sent for */

/* Sends for the tokens of spots from ... to, and for what they were given. */
INLINE void send_for_both(const Spots *spots, int64_t from, int64_t to, const Plane *values, const Plane *onto) {
    for (int64_t i = from; i < to; i++) {
        char *at[4], *sums[4];
        corners(values, spots, i, at);
        corners(onto, spots, i, sums);
        for (int k = 0; k < 4; k++) {
            for (int64_t byte = 0; byte < SLAB * (values->half ? 2 : 4); byte += LINE)
                __builtin_prefetch(at[k] + byte, 0, 2);
            for (int64_t byte = 0; byte < SLAB * 4; byte += LINE) __builtin_prefetch(sums[k] + byte, 1, 2);
        }
    }
}

/* Nothing has been given yet to the tokens of a level. */
INLINE void clear(const Call *call, int64_t b, int64_t m, int64_t level) {
    int64_t first = 0, many = call->shapes[2 * level] * call->shapes[2 * level + 1];
    for (int64_t l = 0; l < level; l++) first += call->shapes[2 * l] * call->shapes[2 * l + 1];
    for (int64_t i = first; i < first + many; i++)
        memset(row(&call->to_values, b, i, m), 0, (size_t)call->channels * sizeof(float));
}

/* Gradients of one head's reading of one level, of which no other thread has a part. Places are locations, or (fused)
   offsets, whose gradient is then in tokens. */
INLINE void learn(const Call *call, int64_t from, int64_t to, int fused) {
    int64_t points = call->points, channels = call->channels, most = together(points), n = most * points;
    float room[ROOM(n)];
    Spots spots = furnish(room, n);
    for (int64_t item = from; item < to; item++) {
        int64_t level = item % call->levels, m = item / call->levels % call->heads;
        int64_t b = item / call->levels / call->heads, first = level * points;
        Plane values = plane(&call->values, b, m), onto = plane(&call->to_values, b, m);
        clear(call, b, m, level);
        lay_level(call, level, &spots, 0, n);
        for (int64_t start = 0; start < call->queries; start += most) {
            int64_t many = start + most < call->queries ? most : call->queries - start;
            read_block(call, &spots, b, start, many, m, first);
            for (int64_t j = 0; fused && j < many; j++)
                locate(call, level, &spots, j * points, row(&call->reference, b, start + j, 0));
            aim(&spots);
            send_for_both(&spots, 0, (many < NEXT ? many : NEXT) * points, &values, &onto);
            for (int64_t j = 0; j < many; j++) {
                const char *came = row(&call->rows, b, start + j, m);
                int64_t at = j * points, behind = at + points, next = at + NEXT * points;
                if (j + NEXT < many) send_for_both(&spots, next, next + points, &values, &onto);
                if (values.half) compare(&spots, at, behind, &values, came, channels, 1);
                else compare(&spots, at, behind, &values, came, channels, 0);
                if (values.half) scatter(&spots, at, behind, &onto, came, channels, 1);
                else scatter(&spots, at, behind, &onto, came, channels, 0);
                hand_back(&spots, at, points, (float *)row(&call->to_places, b, start + j, m) + 2 * first,
                          (float *)row(&call->to_weights, b, start + j, m) + first, fused);
            }
        }
    }
}

static void learn_sample(const void *call, int64_t worker, int64_t from, int64_t to) { learn(call, from, to, 0); }
static void learn_attend(const void *call, int64_t worker, int64_t from, int64_t to) { learn(call, from, to, 1); }

/* Gradients of a head's weights become those of its logits. */
INLINE void trace_logits(const float *weights, float *gradients, int64_t n) {
    float mean = 0;
    for (int64_t i = 0; i < n; i++) mean += weights[i] * gradients[i];
    for (int64_t i = 0; i < n; i++) gradients[i] = weights[i] * (gradients[i] - mean);
}

/* Gradients of a head's places on one level, in tokens, become those of its offsets; the reference gets its part. */
INLINE void trace_offsets(const Call *call, int64_t level, const char *offsets, const char *reference,
                          float *to_offsets, float *to_reference) {
    float height = (float)call->shapes[2 * level], width = (float)call->shapes[2 * level + 1];
    float along = 0, down = 0, wider = 0, higher = 0, half = 0.5f / call->points;
    int64_t side = level * call->sides, first = 2 * level * call->points, end = first + 2 * call->points;
    for (int64_t i = first; i < end; i += 2) {
        along += to_offsets[i];
        down += to_offsets[i + 1];
    }
    to_reference[side] += along * width;
    to_reference[side + 1] += down * height;
    if (call->sides == 2) return;
    float step_x = get(reference, side + 2, (int)call->reference.half) * width * half;
    float step_y = get(reference, side + 3, (int)call->reference.half) * height * half;
    for (int64_t i = first; i < end; i += 2) {
        wider += to_offsets[i] * get(offsets, i, (int)call->places.half);
        higher += to_offsets[i + 1] * get(offsets, i + 1, (int)call->places.half);
        to_offsets[i] *= step_x;
        to_offsets[i + 1] *= step_y;
    }
    to_reference[side + 2] += wider * width * half;
    to_reference[side + 3] += higher * height * half;
}

/* From places, in tokens, and weights of queries to their offsets, logits and references. */
static void trace_back(const void *given, int64_t worker, int64_t from, int64_t to) {
    const Call *call = given;
    int64_t n = call->levels * call->points, sides = call->levels * call->sides;
    for (int64_t item = from; item < to; item++) {
        int64_t b = item / call->queries, q = item % call->queries;
        const char *reference = row(&call->reference, b, q, 0);
        float *to_reference = (float *)row(&call->to_reference, b, q, 0);
        for (int64_t i = 0; i < sides; i++) to_reference[i] = 0;
        for (int64_t m = 0; m < call->heads; m++) {
            const char *offsets = row(&call->places, b, q, m);
            float *to_offsets = (float *)row(&call->to_places, b, q, m);
            trace_logits((const float *)row(&call->weights, b, q, m), (float *)row(&call->to_weights, b, q, m), n);
            for (int64_t l = 0; l < call->levels; l++)
                trace_offsets(call, l, offsets, reference, to_offsets, to_reference);
        }
    }
}
