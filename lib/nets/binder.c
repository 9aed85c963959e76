/* binder.c - from names and shapes that a configuration asks for to the tensors of a file.
 *
 * The networks are built by walking their configuration in order of execution, and each layer asks
 * here for its tensors. That one walk therefore fixes the names, the shapes and the order of the
 * layer table. What it did not ask for should not be in the file. Large weights stay in the
 * mapped file. Biases and norms, which are small, are widened to float32 once, and the model owns the
 * copies (derived.h). */
#include "nets/exec.h"
#include "weft/model.h"

enum { NAME = 256 };

static weft_status join(char *buf, const wf_binder *b, const char *prefix, const char *name,
                        const char *suffix, weft_error *err)
{
    if (!wf_format(buf, NAME, "%s%s%s%s", prefix, *prefix != 0 && *name != 0 ? "." : "", name,
                   suffix))
        return wf_fail(err, WEFT_E_UNSUPPORTED, "%s: the name of a layer is too long", b->path);
    return WEFT_OK;
}

/* Find a tensor, also under its old name; mark it as asked for. */
static const wf_tensor *find(wf_binder *b, const char *name)
{
    char old[NAME];
    const wf_tensor *t = wf_tensors_find(b->file, name);
    if (t == NULL && b->old_name != NULL && b->old_name(name, old, sizeof old))
        t = wf_tensors_find(b->file, old);
    if (t != NULL) b->used[t - wf_tensors_at(b->file, 0)] = 1;
    return t;
}

static bool is_float(wf_dtype t)
{
    return t == WF_F32 || t == WF_F16 || t == WF_BF16 || t == WF_F64 || t == WF_F8_E4M3 ||
           t == WF_F8_E5M2;
}

/* A tensor with this name and shape. `linear` accepts (out, in, 1, 1) for (out, in) and the
 * reverse. */
static weft_status want(wf_binder *b, const wf_tensor **out, const char *name, const int64_t *shape,
                        int32_t rank, weft_error *err)
{
    wf_shape_text found, wanted;
    const wf_tensor *t = find(b, name);
    if (t == NULL)
        return wf_fail(err, WEFT_E_FORMAT, "%s: tensor %s is missing, wanted with shape %s",
                       b->path, name, wf_shape(&wanted, shape, rank));
    int32_t have = t->rank, ask = rank;
    if (have >= 2 && ask >= 2) { /* a kernel of 1 x 1 may be written or left out */
        while (have > 2 && t->shape[have - 1] == 1) have--;
        while (ask > 2 && shape[ask - 1] == 1) ask--;
    }
    bool same = have == ask;
    for (int32_t i = 0; same && i < have; i++) same = t->shape[i] == shape[i];
    if (!same)
        return wf_fail(err, WEFT_E_FORMAT, "%s: tensor %s is %s, wanted %s", b->path, name,
                       wf_shape(&found, t->shape, t->rank), wf_shape(&wanted, shape, rank));
    if (!is_float(t->dtype))
        return wf_fail(err, WEFT_E_FORMAT, "%s: tensor %s is %s, wanted a floating point type",
                       b->path, name, wf_dtype_name(t->dtype));
    b->parameters += (int64_t)t->count;
    *out = t;
    return WEFT_OK;
}

weft_status wf_bind_values(wf_binder *b, const float **out, const char *name, const int64_t *shape,
                           int32_t rank, weft_error *err)
{
    const wf_tensor *t;
    weft_status st = want(b, &t, name, shape, rank, err);
    if (st != WEFT_OK) return st;
    void *v;
    WF_TRY(wf_derived_take(b->derived, &v, t->count, sizeof **out, name, err));
    wf_widen_any(v, t->data, t->dtype, t->count);
    *out = v;
    return WEFT_OK;
}

static weft_status want_vector(wf_binder *b, const float **out, const char *name, int32_t n,
                               weft_error *err)
{
    return wf_bind_values(b, out, name, (int64_t[]){ n }, 1, err);
}

/* Room in the table for one more layer. */
static weft_status has_room(const wf_binder *b, weft_error *err)
{
    if (*b->layer_count < b->layer_cap) return WEFT_OK;
    return wf_fail(err, WEFT_E_INTERNAL, "%s: more layers than tensors", b->path);
}

/* The next row of the table, named and numbered; it counts once the caller says so. */
static weft_status name_layer(wf_binder *b, wf_layer **out, const wf_layer *like,
                              const wf_tensor *t, const char *prefix, const char *name,
                              weft_error *err)
{
    char full[NAME];
    wf_layer *l = &b->layers[*b->layer_count];
    *l = *like;
    l->weight = t->data;
    l->dtype = t->dtype;
    l->component = b->component_id;
    l->id = (int32_t)*b->layer_count;
    WF_TRY(join(full, b, prefix, name, "", err));
    size_t size = strlen(b->component) + strlen(full) + 2;
    char *canonical = wf_bag_take(b->names, size, 1);
    if (canonical == NULL) return wf_nomem(err, size, full);
    wf_format(canonical, size, "%s.%s", b->component, full);
    l->name = canonical;
    *out = l;
    return WEFT_OK;
}

static weft_status want_layer(wf_binder *b, const wf_layer **out, const char *prefix,
                              const char *name, const wf_layer *like, bool bias, weft_error *err)
{
    char full[NAME];
    const wf_tensor *t;
    wf_layer *l;
    int64_t shape[4] = { like->out, like->in, like->kernel, like->kernel };

    WF_TRY(join(full, b, prefix, name, ".weight", err));
    WF_TRY(want(b, &t, full, shape, like->kind == WEFT_LAYER_CONV ? 4 : 2, err));
    WF_TRY(has_room(b, err));
    WF_TRY(name_layer(b, &l, like, t, prefix, name, err));
    if (bias) {
        WF_TRY(join(full, b, prefix, name, ".bias", err));
        WF_TRY(want_vector(b, &l->bias, full, like->out, err));
    }
    (*b->layer_count)++;
    *out = l;
    return WEFT_OK;
}

weft_status wf_bind_linear(wf_binder *b, const wf_layer **out, const char *prefix, const char *name,
                           int32_t outs, int32_t ins, bool bias, weft_error *err)
{
    wf_layer like = { .kind = WEFT_LAYER_LINEAR, .out = outs, .in = ins, .kernel = 1, .stride = 1 };
    return want_layer(b, out, prefix, name, &like, bias, err);
}

weft_status wf_bind_conv(wf_binder *b, const wf_layer **out, const char *prefix, const char *name,
                         int32_t outs, int32_t ins, int32_t kernel, int32_t stride, weft_error *err)
{
    wf_layer like = { .kind = WEFT_LAYER_CONV,
                      .out = outs,
                      .in = ins,
                      .kernel = kernel,
                      .stride = stride,
                      .pad = kernel / 2 };
    if ((kernel != 1 && kernel != 3) ||
        (stride != 1 && stride != 2)) /* what layer.c has buffers for */
        return wf_fail(err, WEFT_E_UNSUPPORTED,
                       "%s: convolution %s%s%s has a kernel of %d and a stride of %d, "
                       "wanted a kernel of 1 or 3 and a stride of 1 or 2",
                       b->path, prefix, *prefix != 0 ? "." : "", name, kernel, stride);
    return want_layer(b, out, prefix, name, &like, true, err);
}

weft_status wf_bind_windows(wf_binder *b, const wf_layer **out, const char *prefix,
                            const char *name, int32_t outs, int32_t ins, int32_t size,
                            weft_error *err)
{
    const wf_layer like = { .kind = WEFT_LAYER_LINEAR, .out = outs, .in = ins * size * size,
                            .kernel = 1, .stride = 1 };
    const int64_t shape[4] = { outs, ins, size, size };
    char full[NAME];
    const wf_tensor *t;
    wf_layer *l;

    WF_TRY(join(full, b, prefix, name, ".weight", err));
    WF_TRY(want(b, &t, full, shape, 4, err));
    WF_TRY(has_room(b, err));
    WF_TRY(name_layer(b, &l, &like, t, prefix, name, err));
    (*b->layer_count)++;
    *out = l;
    return WEFT_OK;
}

weft_status wf_bind_norm(wf_binder *b, wf_norm *out, const char *prefix, const char *name,
                         int32_t channels, int32_t groups, float eps, weft_error *err)
{
    char full[NAME];
    const wf_layer like = {
        .kind = WEFT_LAYER_NORM, .out = channels, .in = 1, .kernel = 1, .stride = 1
    };
    wf_layer *l;
    *out = (wf_norm){ .channels = channels, .groups = groups, .eps = eps };
    if (groups > 0 && channels % groups != 0)
        return wf_fail(err, WEFT_E_FORMAT,
                       "%s: norm %s.%s has %d channels, which %d groups do not divide", b->path,
                       prefix, name, channels, groups);
    WF_TRY(has_room(b, err));
    WF_TRY(join(full, b, prefix, name, ".weight", err));
    WF_TRY(want_vector(b, &out->weight, full, channels, err));
    WF_TRY(name_layer(b, &l, &like, find(b, full), prefix, name, err));
    WF_TRY(join(full, b, prefix, name, ".bias", err));
    WF_TRY(want_vector(b, &out->bias, full, channels, err));
    l->bias = out->bias;
    (*b->layer_count)++;
    out->layer = l;
    return WEFT_OK;
}

weft_status wf_bind_table(wf_binder *b, const wf_tensor **out, const char *prefix, const char *name,
                          int32_t rows, int32_t columns, weft_error *err)
{
    char full[NAME];
    weft_status st = join(full, b, prefix, name, ".weight", err);
    if (st != WEFT_OK) return st;
    return want(b, out, full, (int64_t[]){ rows, columns }, 2, err);
}

wf_layer *wf_bind_last(wf_binder *b)
{
    return &b->layers[*b->layer_count - 1];
}

/* What old text encoders' files hold beside their weights: the numbers 0..76, and CLIP's
 * temperature. */
static bool known_buffer(const char *name)
{
    static const char *const buffers[] = { "embeddings.position_ids",
                                           "text_model.embeddings.position_ids",
                                           "vision_model.embeddings.position_ids", "logit_scale" };
    for (size_t i = 0; i < WF_LEN(buffers); i++)
        if (strcmp(name, buffers[i]) == 0) return true;
    return false;
}

weft_status wf_bind_finish(wf_binder *b, weft_error *err)
{
    for (size_t i = 0; i < wf_tensors_count(b->file); i++) {
        const wf_tensor *t = wf_tensors_at(b->file, i);
        wf_shape_text shape;
        if (!b->used[i] && !known_buffer(t->name))
            return wf_fail(err, WEFT_E_FORMAT, "%s: tensor %s %s is unknown to this configuration",
                           b->path, t->name, wf_shape(&shape, t->shape, t->rank));
    }
    return WEFT_OK;
}
