/* What the tokens of one level are given by all heads. They count from their corner here, not from their centre. */
static void splat(const void *given, int64_t worker, int64_t from, int64_t to) {
    const Call *call = given;
    int64_t points = call->points, most = together(points), n = most * points;
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
        for (int64_t start = 0; start < call->queries; start += most) {
            int64_t many = start + most < call->queries ? most : call->queries - start;
            for (int64_t m = 0; m < call->heads; m++) {
                read_block(call, &spots, b, start, many, m, first);
                aim(&spots);
                scatter(&spots, 0, many * points, &onto, (const char *)&one, 1, 0);
            }
        }
    }
}
