/* Reading a pyramid at learned places, on a CPU.

   What the functions compute is written in ../plain.py. This file is compiled once for each instruction set (ISA names
   it), with vectors as wide as its registers: vectors of another width are many times slower. It needs neither Python
   nor PyTorch: ../cpu.py hands over plain pointers.

   A query's head looks at n = L * P places. `aim` turns them into spots: the top left one of the four tokens around a
   place, which of the four exist, and how much each counts. Then, for all channels of a head,

       gather   adds up the tokens by what they count            sample, attend, ask, read
       compare  multiplies the tokens with a row of channels     match, ask, and the gradient of places and weights
       scatter  adds a row of channels to the tokens             splat, and the gradient of values

   Letters in shapes as in ../../structures.py, and D the channels of a head. */

#include <string.h>

#include "numbers.h"

#include "work.h"

#include "call.h"
#include "spots.h"
#include "tokens.h"

#define QUERIES 32 /* a thread takes so many at a time */
#define SPOTS 1024 /* that gradients and splats keep on the stack; see MOST in ../cpu.py */

/* So many queries of one head and level are looked at together. */
INLINE int64_t together(int64_t points) {
    int64_t fit = SPOTS / points;
    return fit < 1 ? 1 : fit < QUERIES ? fit : QUERIES;
}

#include "reading.h"
#include "late.h"
#include "gradients.h"
#include "splat.h"

static void start(const Call *call, Work *work, int64_t items, int64_t grain) {
    spread(call, work, items, grain, call->team, call->threads);
}

EXPORTED(sample)(const Call *call) { start(call, sample, call->images * call->queries, QUERIES); }
EXPORTED(attend)(const Call *call) { start(call, attend, call->images * call->queries, QUERIES); }
EXPORTED(read)(const Call *call) { start(call, read_tokens, call->images * call->queries, 8 * COMPANY); }
EXPORTED(ask)(const Call *call) { start(call, ask, call->images * call->queries, QUERIES); }
EXPORTED(match)(const Call *call) { start(call, match, call->images * call->queries, QUERIES); }
EXPORTED(splat)(const Call *call) { start(call, splat, call->images * call->levels, 1); }

EXPORTED(sample_backward)(const Call *call) {
    start(call, learn_sample, call->images * call->heads * call->levels, 1);
}

EXPORTED(attend_backward)(const Call *call) {
    start(call, learn_attend, call->images * call->heads * call->levels, 1);
    start(call, trace_back, call->images * call->queries, QUERIES);
}
