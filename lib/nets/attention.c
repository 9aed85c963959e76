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

void wf_attend(wf_exec *e, float *o, const wf_attention *a)
{
    job j = { .e = e, .a = a, .o = o };
    double lk = 0;
    wf_need_scratch(e, e->products->attend_scratch(a));
    if (e->dry) {
        for (int32_t g = 0; g < a->segments; g++) lk += a->keys[g].length;
        e->flops += 4.0 * a->n * a->heads * (double)a->d * a->lq * lk;
        return;
    }
    size_t tiles = ((size_t)a->lq + e->products->queries - 1) / e->products->queries;
    if (!e->stopped)
        wf_pool_run(e->pool, (size_t)a->n * (size_t)a->heads * tiles, attend_task, &j);
}
