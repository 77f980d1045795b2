/* Work on numbered items, and the threads that share them out among themselves. */

/* Runs a function on so many threads at once and returns when all are done; OpenMP's GOMP_parallel. */
typedef void Team(void (*work)(void *), void *argument, unsigned threads, unsigned flags);

/* What is done with some items; workers are numbered from 0, so that each can have room of its own. */
typedef void Work(const void *call, int64_t worker, int64_t from, int64_t to);

typedef struct Job {
    const void *call;
    Work *work;
    int64_t items, grain, next, workers;
} Job;

static void labour(void *given) {
    Job *job = given;
    int64_t worker = __atomic_fetch_add(&job->workers, 1, __ATOMIC_RELAXED);
    for (;;) {
        int64_t from = __atomic_fetch_add(&job->next, job->grain, __ATOMIC_RELAXED);
        if (from >= job->items) return;
        job->work(job->call, worker, from, from + job->grain < job->items ? from + job->grain : job->items);
    }
}

/* So many items at a time go to each thread that is free. */
static void spread(const void *call, Work *work, int64_t items, int64_t grain, Team *team, int64_t threads) {
    Job job = {call, work, items, grain, 0, 0};
    int64_t useful = (items + grain - 1) / grain;
    if (threads > useful) threads = useful;
    if (team && threads > 1) team(labour, &job, (unsigned)threads, 0);
    else labour(&job);
}

#ifndef ISA
#define ISA portable
#endif
#define JOIN_(name, isa) winnow_##name##_##isa
#define JOIN(name, isa) JOIN_(name, isa)
#define EXPORTED(name) __attribute__((visibility("default"))) void JOIN(name, ISA)
