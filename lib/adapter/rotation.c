/* rotation.c - Cayley's map from skew matrices to rotations, and what LyCORIS stores around it.
 *
 * R = (I + Q) (I - Q)^-1. All singular values of I - Q are 1 or more, so the inverse always exists.
 * In double: R^T R = I is what the family promises. */
#include <math.h>

#include "adapter/rotation.h"
#include "tensor/linalg.h"

size_t wf_rotation_doubles(size_t n)
{
    return n * n + wf_inverse_work(n);
}

/* (I + Q) (I - Q)^-1 = 2 (I - Q)^-1 - I. */
void wf_cayley(double *q, size_t n)
{
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < n; j++) q[i * n + j] = (i == j ? 1 : 0) - q[i * n + j];
    (void)wf_inverse(q, n, q + n * n);
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < n; j++) q[i * n + j] = 2 * q[i * n + j] - (i == j ? 1 : 0);
}

weft_status wf_rotation_shape(wf_module *m, int64_t out, const char *source, weft_error *err)
{
    const wf_tensor *rescale = m->tensor[WF_TENSOR_RESCALE];

    if (out > INT32_MAX)
        return wf_module_fail(m, source, err, "the blocks turn more than 2^31 rows");
    m->out = (int32_t)out;
    m->in = m->kernel = m->rank = 0;
    m->scale = 1; /* alpha is the constraint */
    if (rescale != NULL && (rescale->shape[0] != out || rescale->count != (size_t)out))
        return wf_module_wrong_shape(rescale, source,
                                     "(out, 1) with as many rows as the blocks turn", err);
    return WEFT_OK;
}

bool wf_rotation_fits(const wf_module *m, const wf_layer *l)
{
    return l->kind != WEFT_LAYER_NORM && m->out == l->out;
}

double wf_rotation_shrink(const wf_module *m, const wf_tensor *t)
{
    size_t b = (size_t)t->shape[t->rank - 1];
    double limit = m->has_alpha ? (double)m->alpha * m->out : 0, sum = 0;

    if (!(limit > 0)) return 1;
    for (size_t k = 0; k < t->count / (b * b); k++)
        for (size_t i = 0; i < b; i++)
            for (size_t j = 0; j < i; j++) {
                float one, other;
                wf_tensor_read(t, (k * b + i) * b + j, 1, &one);
                wf_tensor_read(t, (k * b + j) * b + i, 1, &other);
                sum += 2 * ((double)one - other) * ((double)one - other);
            }
    double norm = sqrt(sum) + 1e-8;
    return norm > limit ? limit / norm : 1;
}

void wf_rotation_read(const wf_tensor *t, size_t k, size_t b, double shrink, double *R)
{
    float row[256];

    for (size_t i = 0; i < b; i++)
        for (size_t j = 0; j < b; j += WF_LEN(row)) {
            size_t n = WF_MIN(WF_LEN(row), b - j);
            wf_tensor_read(t, (k * b + i) * b + j, n, row);
            for (size_t x = 0; x < n; x++) R[i * b + j + x] = row[x];
        }
    for (size_t i = 0; i < b; i++) {
        R[i * b + i] = 0;
        for (size_t j = 0; j < i; j++) {
            double q = shrink * (R[i * b + j] - R[j * b + i]);
            R[i * b + j] = q;
            R[j * b + i] = -q;
        }
    }
    wf_cayley(R, b);
}

double wf_rotation_rescale(const wf_module *m, size_t o)
{
    float v = 1;

    if (m->tensor[WF_TENSOR_RESCALE] != NULL)
        wf_tensor_read(m->tensor[WF_TENSOR_RESCALE], o, 1, &v);
    return v;
}
