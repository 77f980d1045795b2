/* The way back of sample and attend.

   Of attend, weights come as such, not as logits. Its way back has two steps: heads learn level by level, as in sample,
   and then queries trace back what they learned to what their heads, levels and points share. */

/* How the answer of spot i to a row changes with the place, in tokens along and down, and with the weight. */
INLINE void slope(const Spots *spots, int64_t i, float *along, float *down, float *much) {
    float right = spots->right[i], below = spots->below[i], weight = spots->weight[i];
    Four a = *(FourAnywhere *)(spots->answer + 4 * i);
    *along = ((a[1] - a[0]) * (1 - below) + (a[3] - a[2]) * below) * weight;
    *down = ((a[2] - a[0]) * (1 - right) + (a[3] - a[1]) * right) * weight;
    *much = (a[0] * (1 - right) + a[1] * right) * (1 - below) + (a[2] * (1 - right) + a[3] * right) * below;
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
        lay_level(call, level, &spots, 0, n);
        float step_x = fused ? 1 : spots.width[0], step_y = fused ? 1 : spots.height[0];
        for (int64_t start = 0; start < call->queries; start += most) {
            int64_t many = start + most < call->queries ? most : call->queries - start;
            read_block(call, &spots, b, start, many, m, first);
            for (int64_t j = 0; fused && j < many; j++)
                locate(call, level, &spots, j * points, row(&call->reference, b, start + j, 0));
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
                for (int64_t p = 0; p < points; p++) {
                    slope(&spots, at + p, to_places + 2 * p, to_places + 2 * p + 1, to_weights + p);
                    to_places[2 * p] *= step_x;
                    to_places[2 * p + 1] *= step_y;
                }
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
