/* What Python hands over; ../cpu.py has the same structures. */

typedef struct {
    void *data;
    int64_t batch, item, head; /* strides in elements; within a row elements are neighbours */
    int64_t half;              /* bfloat16 instead of float32 */
} Rows;

typedef struct {
    int64_t images, queries, heads, channels, levels, points;
    const int64_t *shapes; /* (L, 2) height and width */
    Rows values;           /* (B, T, M) rows of D */
    Rows keys;             /* like values */
    Rows places;           /* (B, Q, M) rows of (L, P, 2): locations in [0, 1]; of `attend` and `ask`, offsets */
    Rows weights;          /* (B, Q, M) rows of (L, P): weights, or logits in `attend` */
    Rows reference;        /* (B, Q, 1) rows of (L, sides) */
    int64_t sides;         /* 2 points, 4 boxes */
    Rows rows;             /* (B, Q, M) rows of D: what was asked, or the gradient of what was read */
    Rows out;              /* (B, Q, M) rows of D, or of (L, P) in `match` */
    const float *nothing;  /* D zeros, and `width` */
    Rows to_values;        /* (B, T, M) rows of D, float32; in `splat` zero */
    Rows to_places;        /* like places and weights */
    Rows to_weights;
    Rows to_reference;     /* (B, Q, 1) rows of (L, sides), float32 */
    Rows tokens;           /* (B, T', 1) rows of `width`: the tokens of the `late` finest levels, in `read` */
    const float *weight;   /* (M, width, projected): makes values of them; projected is D, to a multiple of SLAB */
    const float *bias;     /* (M, projected) */
    const uint8_t *padding; /* (B, T') what is not 0 is not there; or none */
    int64_t late, width, projected;
    Team *team;            /* none: this thread does all */
    int64_t threads;
} Call;

INLINE int64_t bytes(const Rows *rows) { return rows->half ? 2 : 4; }

INLINE char *row(const Rows *rows, int64_t batch, int64_t item, int64_t head) {
    return (char *)rows->data + (batch * rows->batch + item * rows->item + head * rows->head) * bytes(rows);
}
