/* fixture.h - small adapters made to measure for the tiny models: kohya files, written, opened, deleted. */
#ifndef TESTS_PLAN_FIXTURE_H
#define TESTS_PLAN_FIXTURE_H

#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "plan/method/method.h"
#include "plan/patches.h"
#include "weft/weft.h"
#include "weights.h"

static weft_error err;

#define OK(call)                                                                                                     \
    do {                                                                                                             \
        weft_status st_ = (call);                                                                                    \
        ck_assert_msg(st_ == WEFT_OK, "%s: %s: %s", #call, weft_status_name(st_), err.text);                         \
    } while (0)
/* The call fails with this status, and its line has this in it. */
#define FAILS(status, words, call)                                                                                   \
    do {                                                                                                             \
        ck_assert_int_eq((call), (status));                                                                          \
        ck_assert_msg(strstr(err.text, (words)) != NULL, "\"%s\" lacks \"%s\"", err.text, (words));                  \
    } while (0)

static inline const char *test_path(const char *name)
{
    static char path[4096];
    const char *root = getenv("WEFT_TESTS");
    snprintf(path, sizeof path, "%s/%s", root != NULL ? root : "tests", name);
    return path;
}

static inline const char *temp_path(const char *name)
{
    static char path[4096];
    const char *root = getenv("TMPDIR");
    snprintf(path, sizeof path, "%s/weft-plan-%d-%s", root != NULL ? root : "/tmp", (int)getpid(), name);
    return path;
}

static inline weft_model *open_model(const char *name)
{
    char        where[256];
    weft_model *m;
    snprintf(where, sizeof where, "data/models/%s", name);
    OK(weft_model_open(test_path(where), NULL, &m, &err));
    return m;
}

/* An adapter file in the making. */
typedef struct maker {
    const weft_model *model;
    weft_tensor_out   tensor[4096];
    size_t            count;
} maker;

static inline maker *make(const weft_model *model)
{
    maker *m = calloc(1, sizeof *m);
    m->model = model;
    return m;
}

static inline float *put(maker *m, const char *stem, const char *ending, int64_t a, int64_t b, int32_t k, size_t rank)
{
    weft_tensor_out *t = &m->tensor[m->count++];
    char            *name = malloc(strlen(stem) + strlen(ending) + 1);
    float           *data = calloc((size_t)(a * b) * (size_t)(k * k) + 1, sizeof *data);

    ck_assert_uint_lt(m->count, WF_LEN(m->tensor));
    strcpy(name, stem);
    strcat(name, ending);
    *t = (weft_tensor_out){ .struct_size = sizeof *t, .name = name, .data = data, .rank = rank };
    t->shape[0] = a;
    t->shape[1] = b;
    t->shape[2] = t->shape[3] = k;
    return data;
}

/* Factors of a layer, all zero: *down (rank, in, k, k), *up (out, rank). alpha 0: none in the file. */
static inline void module_of(maker *m, int64_t layer, int32_t rank, float alpha, float **down, float **up)
{
    size_t          count;
    const wf_layer *l = &wf_model_layers(m->model, &count)[layer];
    bool            conv = l->kind == WEFT_LAYER_CONV;
    char            stem[512];

    ck_assert(wf_name_kohya(m->model, l, stem, sizeof stem));
    *down = put(m, stem, ".lora_down.weight", rank, l->in, l->kernel, conv ? 4 : 2);
    *up = put(m, stem, ".lora_up.weight", l->out, rank, 1, conv ? 4 : 2);
    if (alpha != 0) *put(m, stem, ".alpha", 1, 1, 1, 0) = alpha;
}

/* The same with numbers that differ from entry to entry; `scale` multiplies the delta. */
static inline void random_module(maker *m, int64_t layer, int32_t rank, float alpha, float scale, uint32_t seed)
{
    const wf_layer *l = &wf_model_layers(m->model, &(size_t){ 0 })[layer];
    size_t          in = (size_t)rank * wf_layer_columns(l), out = (size_t)rank * (size_t)l->out;
    uint32_t        state = seed * 2654435761u + (uint32_t)layer;
    float          *down, *up;

    module_of(m, layer, rank, alpha, &down, &up);
    for (size_t i = 0; i < in; i++) {
        state = state * 1664525 + 1013904223;
        down[i] = (float)(state >> 8) / 8388608.0f - 1;
    }
    for (size_t i = 0; i < out; i++) {
        state = state * 1664525 + 1013904223;
        up[i] = scale * ((float)(state >> 8) / 8388608.0f - 1);
    }
}

/* Write, open, delete: the file lives on in its mapping. Frees the maker. */
static inline weft_adapter *finish(maker *m, const char *name)
{
    weft_adapter_options o = WEFT_ADAPTER_OPTIONS_INIT;
    weft_adapter        *a;
    char                 file[64];
    const char          *path;

    snprintf(file, sizeof file, "%s.safetensors", name);
    path = temp_path(file);
    o.name = name;
    OK(weft_tensors_write(path, m->tensor, m->count, NULL, 0, &err));
    OK(weft_adapter_open(path, &o, &a, &err));
    unlink(path);
    for (size_t i = 0; i < m->count; i++) {
        free((void *)(uintptr_t)m->tensor[i].name);
        free((void *)(uintptr_t)m->tensor[i].data);
    }
    free(m);
    return a;
}

enum { ATTENTION = 1, OTHERS = 2, TEXT = 4 };

/* Normalisations are of no kind: factors do not apply to them. */
static inline int kind_of(const wf_layer *l)
{
    if (l->kind == WEFT_LAYER_NORM) return 0;
    return l->component == WEFT_COMPONENT_DENOISER ? (l->attention ? ATTENTION : OTHERS) : l->component <= 2 ? TEXT : 0;
}

/* An adapter on all attention layers, all other UNet layers, all text layers, as `what` says. */
static inline weft_adapter *adapter_on(const weft_model *model, const char *name, int what, int32_t rank, float scale,
                                       uint32_t seed)
{
    size_t          count;
    const wf_layer *layers = wf_model_layers(model, &count);
    maker          *m = make(model);
    char            stem[512];

    for (size_t l = 0; l < count; l++) {
        int kind = kind_of(&layers[l]);
        if ((kind & what) && wf_name_kohya(model, &layers[l], stem, sizeof stem))
            random_module(m, (int64_t)l, rank, 0, scale, seed);
    }
    return finish(m, name);
}

/* The n-th layer of a kind, or -1. */
static inline int64_t nth_layer(const weft_model *model, int what, int n)
{
    size_t          count;
    const wf_layer *layers = wf_model_layers(model, &count);

    for (size_t l = 0; l < count; l++) {
        int kind = kind_of(&layers[l]);
        if ((kind & what) && n-- == 0) return (int64_t)l;
    }
    return -1;
}

static inline int count_layers(const weft_model *model, int what)
{
    int n = 0;
    while (nth_layer(model, what, n) >= 0) n++;
    return n;
}

static inline float cell(const weft_plan *p, int32_t call, int32_t branch, int64_t layer, int32_t adapter)
{
    weft_cell c = WEFT_CELL_INIT;
    OK(weft_plan_cell(p, call, branch, layer, adapter, &c, &err));
    ck_assert_int_eq(c.kind, WEFT_CELL_NUMBER);
    return c.number;
}

static inline weft_phase_info phase_of(const weft_plan *p, int32_t index)
{
    weft_phase_info i = WEFT_PHASE_INFO_INIT;
    OK(weft_plan_phase(p, index, &i, &err));
    return i;
}

/* The combination of predictions of n values, at call 0. */
static inline void combine(const weft_plan *p, float *out, const float *const *preds, int32_t n, bool guided)
{
    const wf_sheet *s = wf_plan_phase(p, 0);
    const wf_combine x = { .n = 1, .c = 1, .h = 1, .w = n, .half = WF_CONDITIONAL, .guided = guided,
                           .branches = wf_sheet_branches(s), .preds = preds, .cond = preds, .out = out };
    wf_plan_combine(p, &x);
}

static inline weft_plan *new_plan(weft_model *model)
{
    weft_plan *p;
    OK(weft_plan_create(model, NULL, &p, &err));
    return p;
}

static inline weft_plan_info info_of(const weft_plan *p)
{
    weft_plan_info i = WEFT_PLAN_INFO_INIT;
    OK(weft_plan_info_get(p, &i, &err));
    return i;
}

/* An allocator that counts, and refuses the n-th request (none while n is negative). */
typedef struct counter {
    long live;
    long asked;
    long refuse;
} counter;

static inline void *counter_alloc(void *user, size_t size, size_t align)
{
    counter *c = user;
    void    *p = NULL;

    if (c->asked++ == c->refuse) return NULL;
    if (posix_memalign(&p, align < sizeof(void *) ? sizeof(void *) : align, size > 0 ? size : 1) != 0) return NULL;
    c->live++;
    return p;
}

static inline void counter_free(void *user, void *ptr, size_t size)
{
    counter *c = user;
    (void)size;
    if (ptr != NULL) c->live--;
    free(ptr);
}

#endif
