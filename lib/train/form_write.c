/* form_write.c - trained tensors as an adapter file has them.
 *
 * In a trainer a matrix lies as it is computed with: pairs with the up factor transposed, columns
 * in the order (ky, kx, in). A file has (out, r), columns in the order (in, ky, kx), and beside a
 * convolution four dimensions. Here is the way from one to the other. */
#include "train/form.h"

size_t wf_site_taps(const wf_site *s)
{
    return (size_t)s->layer->kernel * (size_t)s->layer->kernel;
}

static bool is_conv(const wf_site *s)
{
    return s->layer->kind == WEFT_LAYER_CONV;
}

/* The next tensor, of n floats; NULL without memory. */
static float *next_out(wf_outs *o, const char *ending, size_t n, int32_t rank, const int64_t *shape)
{
    wf_form_out *t;

    if (o->count < 0) return NULL;
    t = &o->out[o->count];
    *t = (wf_form_out){ .ending = ending, .rank = rank };
    for (int32_t i = 0; i < rank; i++) t->shape[i] = shape[i];
    t->data = wf_bag_take(o->bag, n, sizeof *t->data);
    o->count = t->data != NULL ? o->count + 1 : -1;
    return t->data;
}

void wf_out_matrix(wf_outs *o, const char *ending, const float *v, size_t rows, size_t columns)
{
    float *data = next_out(o, ending, rows * columns, 2,
                           (int64_t[]){ (int64_t)rows, (int64_t)columns });

    if (data != NULL) memcpy(data, v, rows * columns * sizeof *v);
}

void wf_out_vector(wf_outs *o, const char *ending, const float *v, size_t n)
{
    float *data = next_out(o, ending, n, 1, (int64_t[]){ (int64_t)n });

    if (data != NULL) memcpy(data, v, n * sizeof *v);
}

void wf_out_number(wf_outs *o, const char *ending, float v)
{
    float *data = next_out(o, ending, 1, 0, NULL);

    if (data != NULL) *data = v;
}

void wf_out_flat(wf_outs *o, const char *ending, const float *v, size_t rows, size_t taps,
                 size_t in)
{
    float *data = next_out(o, ending, rows * taps * in, 2,
                           (int64_t[]){ (int64_t)rows, (int64_t)(taps * in) });

    if (data != NULL) wf_unorder(data, v, rows, taps, in);
}

void wf_out_inner(wf_outs *o, const wf_site *s, const char *ending, const float *v, size_t rows,
                  size_t in)
{
    int64_t k = s->layer->kernel;
    float  *data = next_out(o, ending, rows * wf_site_taps(s) * in, is_conv(s) ? 4 : 2,
                            (int64_t[]){ (int64_t)rows, (int64_t)in, k, k });

    if (data != NULL) wf_unorder(data, v, rows, wf_site_taps(s), in);
}

void wf_out_outer(wf_outs *o, const wf_site *s, const char *ending, const float *up)
{
    size_t r = (size_t)s->rank;
    float *data = next_out(o, ending, s->out * r, is_conv(s) ? 4 : 2,
                           (int64_t[]){ (int64_t)s->out, (int64_t)r, 1, 1 });

    for (size_t i = 0; data != NULL && i < s->out * r; i++) data[i] = up[i % r * s->out + i / r];
}

void wf_out_rows(wf_outs *o, const wf_site *s, const char *ending, const float *v, bool first)
{
    int64_t n = (int64_t)s->out;
    int64_t ahead[] = { n, 1, 1, 1 }, behind[] = { 1, n, 1, 1 };
    int32_t rank = is_conv(s) ? 4 : first ? 2 : 1;
    float  *data = next_out(o, ending, s->out, rank, first || rank == 1 ? ahead : behind);

    if (data != NULL) memcpy(data, v, s->out * sizeof *v);
}
