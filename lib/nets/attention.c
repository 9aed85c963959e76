/* attention.c - attention over the workers: a task is some queries of one head of one sample.
 *
 * How many a task has and how it goes about them is the tier's business (tensor/product.h). */
#include "nets/exec.h"

typedef struct job {
    wf_exec            *e;
    const wf_attention *a;
    float              *o;
} job;

static void attend_task(void *user, size_t task, int32_t worker)
{
    const job *j = user;
    j->e->products->attend(j->o, j->a, j->e->k, task, (float *)(void *)j->e->scratch[worker]);
}

static void count(wf_exec *e, const wf_attention *a)
{
    double width = (double)a->heads * a->d, pairs = 0; /* of a sample and a key that it sees */
    for (int32_t g = 0; g < a->segments; g++) {
        bool lent = a->shared > 0 && g + 1 == a->segments;
        int32_t see = lent ? a->n - a->n / a->shared : a->n;
        pairs += (double)see * a->keys[g].length;
    }
    e->flops += 4.0 * width * a->lq * pairs;
    e->moved_bytes += 8.0 * width * ((double)a->n * a->lq + pairs);
}

void wf_attend(wf_exec *e, float *o, const wf_attention *a)
{
    job j = { .e = e, .a = a, .o = o };
    wf_need_scratch(e, e->products->attend_scratch(a));
    if (e->dry) {
        count(e, a);
        return;
    }
    size_t tiles = ((size_t)a->lq + e->products->queries - 1) / e->products->queries;
    if (!e->stopped)
        wf_pool_run(e->pool, (size_t)a->n * (size_t)a->heads * tiles, attend_task, &j);
}
