/* costs.c - peak memory of a whole picture, and how long until the first step: each in a process of its own. */
#include "suite.h"

#include <pthread.h>
#include <time.h>

static weft_error err;

/* ---- memory --------------------------------------------------------------------------------------------- */

double status_kb(const char *key)
{
    FILE  *f = fopen("/proc/self/status", "r");
    char   line[256];
    double kb = NAN;

    if (f == NULL) return NAN;
    while (isnan(kb) && fgets(line, sizeof line, f) != NULL)
        if (strncmp(line, key, strlen(key)) == 0) kb = strtod(line + strlen(key), NULL);
    fclose(f);
    return kb;
}

/* The kernel keeps the peak of all pages only. What is not mapped from files is looked at every few milliseconds. */
static volatile bool watching = true;

static void *watch(void *most)
{
    while (watching) {
        *(double *)most = fmax(*(double *)most, status_kb("RssAnon:") + status_kb("RssShmem:"));
        nanosleep(&(struct timespec){ .tv_nsec = 5000000 }, NULL);
    }
    return NULL;
}

int child_memory(int argc, char **argv)
{
    pthread_t watcher;
    double    most = NAN; /* so it stays where the system does not tell */
    side      s;

    if (argc != 4) return 2;
    if (pthread_create(&watcher, NULL, watch, &most) != 0) return 1;
    weft_model *model = open_model(argv[1], false);
    side_open(&s, model, plan_of(model, NULL, 0, WEFT_PATH_AUTO, 2), (int32_t)atoi(argv[2]), (int32_t)atoi(argv[3]), 0);
    side_encode(&s);
    side_steps(&s, 2); /* as many as show the peak: later ones take nothing more */
    side_decode(&s);
    watching = false;
    pthread_join(watcher, NULL);
    printf("%.6g %.6g\n", most / 1024, status_kb("VmHWM:") / 1024);
    side_close(&s);
    weft_model_free(model);
    return 0;
}

bool ask_child(const char *const argv[], double *v, int count)
{
    child c;
    int   got = 0;

    if (!child_start(&c, argv)) return false;
    while (got < count && fscanf(c.from, "%lf", &v[got]) == 1) got++;
    return child_end(&c) && got == count;
}

void group_memory(suite *b)
{
    char    size[16], threads[16];
    double  v[2];
    samples own = { 0 }, all = { 0 };

    snprintf(size, sizeof size, "%d", (int)b->size);
    snprintf(threads, sizeof threads, "%d", (int)b->threads);
    const char *const argv[] = { b->self, "--child-memory", b->model, size, threads,
                           NULL };
    if (!ask_child(argv, v, 2) || isnan(v[0])) {
        note("memory: this system does not tell it");
        return;
    }
    sample(&own, v[0]);
    sample(&all, v[1]);
    figure r = figure_of("memory", "memory.own", "MB");
    snprintf(r.what, sizeof r.what, "peak of a %dx%d picture besides mapped files", (int)b->size, (int)b->size);
    set_figure(&r, &own);
    r.bar = 600;
    r.stretch = 300;
    add_figure(b, &r);
    r = figure_of("memory", "memory.all", "MB");
    snprintf(r.what, sizeof r.what, "with the pages of mapped files");
    set_figure(&r, &all);
    add_figure(b, &r);
}

/* ---- start-up --------------------------------------------------------------------------------------------- */

int child_startup(int argc, char **argv)
{
    weft_adapter *adapter[2];
    side          s;

    if (argc != 6) return 2;
    span begin = span_now();
    weft_model *model = open_model(argv[1], false);
    for (int i = 0; i < 2; i++) must(weft_adapter_open(argv[4 + i], NULL, &adapter[i], &err), &err);
    side_open(&s, model, plan_of(model, adapter, 2, WEFT_PATH_AUTO, 1), (int32_t)atoi(argv[2]), (int32_t)atoi(argv[3]), 0);
    span   ready = span_since(begin), step[3];
    for (int i = 0; i < 3; i++) step[i] = side_steps(&s, 1);
    printf("%.6g %.6g %.6g %.6g\n", ready.clock, step[0].clock, step[1].clock, step[2].clock);
    printf("%.6g %.6g %.6g %.6g\n", ready.busy, step[0].busy, step[1].busy, step[2].busy);
    side_close(&s);
    for (int i = 0; i < 2; i++) weft_adapter_free(adapter[i]);
    weft_model_free(model);
    return 0;
}

void group_startup(suite *b)
{
    char    size[16], threads[16], answer[64];
    double  both[8], *v = both + (b->processor ? 4 : 0);
    samples seconds = { 0 };
    span    theirs = { NAN, NAN };

    snprintf(size, sizeof size, "%d", (int)b->small);
    snprintf(threads, sizeof threads, "%d", (int)b->threads);
    const char *const argv[] = { b->self, "--child-startup", b->model, size, threads,
                           b->lora[0], b->lora[1], NULL };
    for (int i = -1; i < b->rounds; i++) {
        if (!ask_child(argv, both, 8)) die("a child for the start-up failed");
        if (i < 0) continue; /* now the files are in the page cache */
        note("start-up: ready in %.3f s, steps of %.3f, %.3f and %.3f s", v[0], v[1], v[2], v[3]);
        sample(&seconds, v[0] + fmax(v[1] - fmin(v[2], v[3]), 0) / (b->processor ? b->threads : 1));
    }
    bool had = b->worker != NULL && peer_time(b->worker, &theirs, "load\tstart\t%s\tf32\tunet,vae,text", b->model);
    if (had) peer_ask(b->worker, answer, sizeof answer, "drop\tstart");
    figure r = figure_of("startup", "startup", "s");
    snprintf(r.what, sizeof r.what, "open to first step, with two LoRAs");
    set_figure(&r, &seconds);
    r.bar = 1;
    r.stretch = 0.3;
    r.ours = r.measured;
    r.theirs = judged(b, theirs);
    if (had) snprintf(r.versus, sizeof r.versus, "PyTorch f32, loading");
    add_figure(b, &r);
}
