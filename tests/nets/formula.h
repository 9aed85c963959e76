/* formula.h - nets whose weights are a formula, on the workbench.
 *
 * Tensor number k of the sorted names holds sin(1 + 0.61803398875 i + k), scaled by its rank and name, so that weights
 * need no file. */
#ifndef WF_TEST_FORMULA_H
#define WF_TEST_FORMULA_H

#include <stdbool.h>
#include <unistd.h>

#include "golden.h"
#include "nets/config.h"
#include "nets/workbench.h"

enum { MOST = 1024 }; /* tensors of a net */

static inline void formula_fill(float *v, const weft_tensor_out *t, size_t count, size_t k, float times)
{
    size_t n = strlen(t->name);
    bool gain = n >= 7 && strcmp(t->name + n - 7, ".weight") == 0;
    double root = sqrt((double)count / (double)t->shape[0]);
    for (size_t i = 0; i < count; i++) {
        double s = sin(1 + 0.61803398875 * (double)i + (double)k);
        v[i] = times * (float)(t->rank >= 2 ? s / root : gain ? 1 + 0.1 * s : 0.1 * s);
    }
}

/* Tensors with their names and shapes, sorted, as a safetensors file, opened; the names are freed. */
static inline weft_tensors *formula_file(weft_tensor_out *tensors, size_t count, float (*times)(const char *name))
{
    char path[] = "/tmp/weft-formula-XXXXXX";
    weft_tensors *file;

    for (size_t k = 0; k < count; k++) {
        weft_tensor_out *t = &tensors[k];
        size_t n = 1;
        for (size_t i = 0; i < t->rank; i++) n *= (size_t)t->shape[i];
        float *v = malloc(n * sizeof *v);
        formula_fill(v, t, n, k, times != NULL ? times(t->name) : 1.0f);
        t->data = v;
    }
    int fd = mkstemp(path);
    ck_assert_int_ge(fd, 0);
    close(fd);
    must(weft_tensors_write(path, tensors, count, NULL, 0, &golden_err));
    must(weft_tensors_open(path, NULL, &file, &golden_err));
    unlink(path);
    for (size_t i = 0; i < count; i++) free((void *)tensors[i].name), free((void *)tensors[i].data);
    return file;
}

/* ---- a net on the workbench ------------------------------------------------------------------ */

typedef struct net {
    weft_allocator alloc;
    weft_tensors  *file;
    wf_layer       layers[MOST];
    size_t         layer_count;
    wf_derived     derived;
    wf_bag         names;
    uint8_t        used[MOST];
    wf_binder      binder;
    workbench      w;
} net;

/* Takes the file. */
static inline net *net_open(weft_tensors *file, const char *path, const char *component)
{
    const wf_kernels *tables[2];
    net *n = calloc(1, sizeof *n);
    n->alloc = wf_allocator(NULL);
    n->derived.alloc = &n->alloc;
    wf_bag_init(&n->names, &n->alloc);
    n->file = file;
    n->binder = (wf_binder){ .alloc = &n->alloc, .file = n->file, .path = path, .component = component,
                             .layers = n->layers, .layer_count = &n->layer_count, .layer_cap = MOST, .used = n->used,
                             .derived = &n->derived, .names = &n->names };
    bench_open(&n->w, tables[bench_tables(tables) - 1], 2);
    return n;
}

static inline void net_close(net *n)
{
    bench_close(&n->w);
    wf_derived_free(&n->derived);
    wf_bag_free(&n->names);
    weft_tensors_free(n->file);
    free(n);
}

static inline float *wave(double (*f)(double), double step, size_t n)
{
    float *v = malloc(n * sizeof *v);
    for (size_t i = 0; i < n; i++) v[i] = (float)f(step * (double)i);
    return v;
}

#endif
