/* naive.h - the UNet of the tiny SD1 model once more, as plain loops in double, with what adapters
 * add to each layer as dense matrices.
 *
 * Nothing here is taken from the library but the list of layers: weights are read from the file,
 * convolutions walk over pixels, attention over pairs of pixels, and each adapter's difference is a
 * matrix that is added to the weight before the layer is computed, or for a mask pixel by pixel.
 * So it says what a plan means and not how it is computed. */
#ifndef NAIVE_H
#define NAIVE_H

#include <stdbool.h>

#include "golden.h"
#include "model/model.h"

enum { NAIVE_ADAPTERS = 4, NAIVE_REGIONS = 3, NAIVE_SIZES = 8, NAIVE_LEVELS = 3, NAIVE_GROUPS = 4,
       NAIVE_HEADS = 2, NAIVE_TEXT = 24 };

/* The model: weights (out, in, k, k) as stored, biases (out) or NULL, by layer. */
typedef struct naive_net {
    const wf_layer *layers;
    size_t          count;
    double        **w, **b;
} naive_net;

/* What one adapter adds to one layer: c (w diag(columns), b), where its mask is. */
typedef struct naive_act {
    double        c;
    const double *columns; /* (K) as stored; NULL: 1                         */
    int           mask;    /* of naive_eval.mask, or -1: everywhere           */
    int           region;  /* whose keys and values it is for, or -1: of all  */
    const double *w, *b;   /* (out, K) and (out); NULL: 0                     */
} naive_act;

/* A mask in every size, and its number for rows that have no place in the image. */
typedef struct naive_mask {
    int     sizes, h[NAIVE_SIZES], w[NAIVE_SIZES];
    double *value[NAIVE_SIZES];
    double  text;
} naive_mask;

/* One evaluation of the network. */
typedef struct naive_eval {
    const naive_net  *net;
    const naive_act (*act)[NAIVE_ADAPTERS]; /* [layers] */
    const int        *acts;                 /* [layers] */
    const naive_mask *mask;                 /* of adapters */
    int               h, w, tokens, regions;
    const naive_mask *region;               /* [regions] as given, not shared */
    bool              isolated[NAIVE_REGIONS];
    const float      *text[1 + NAIVE_REGIONS]; /* of the whole image, then of regions */
    double            timestep;
    double           *time;                 /* act(embedding) (32) */
} naive_eval;

static inline double *naive_zeros(size_t n) { return calloc(n > 0 ? n : 1, sizeof(double)); }

static inline size_t naive_columns(const wf_layer *l)
{
    return (size_t)l->in * (size_t)l->kernel * (size_t)l->kernel;
}

static inline double *naive_read(const weft_tensors *t, const char *name, size_t n)
{
    int64_t at = weft_tensors_find(t, name);
    if (at < 0) return NULL;
    float  *v = malloc(n * sizeof *v);
    double *d = naive_zeros(n);
    must(weft_tensors_read(t, (size_t)at, v, n, &golden_err));
    for (size_t i = 0; i < n; i++) d[i] = (double)v[i];
    free(v);
    return d;
}

static inline naive_net naive_open(const weft_model *model, const char *file)
{
    naive_net     net = { 0 };
    weft_tensors *t;
    net.layers = wf_model_layers(model, &net.count);
    net.w = calloc(net.count, sizeof *net.w);
    net.b = calloc(net.count, sizeof *net.b);
    must(weft_tensors_open(file, NULL, &t, &golden_err));
    for (size_t i = 0; i < net.count; i++) {
        const wf_layer *l = &net.layers[i];
        char            name[512];
        if (l->component != WEFT_COMPONENT_DENOISER) continue;
        snprintf(name, sizeof name, "%s.weight", l->name + strlen("unet."));
        net.w[i] = naive_read(t, name, (size_t)l->out * naive_columns(l));
        ck_assert_msg(net.w[i] != NULL, "no %s", name);
        snprintf(name, sizeof name, "%s.bias", l->name + strlen("unet."));
        net.b[i] = naive_read(t, name, (size_t)l->out);
    }
    weft_tensors_free(t);
    return net;
}

static inline void naive_close(naive_net *net)
{
    for (size_t i = 0; i < net->count; i++) free(net->w[i]), free(net->b[i]);
    free(net->w), free(net->b);
}

static inline int naive_id(const naive_eval *e, const char *path, const char *what)
{
    static size_t hint; /* layers are asked for in the order of the list, nearly */
    char          name[1024];
    snprintf(name, sizeof name, "unet.%s%s%s", path, *path != '\0' ? "." : "", what);
    for (size_t k = 0; k < e->net->count; k++) {
        size_t i = (hint + k) % e->net->count;
        if (strcmp(e->net->layers[i].name, name) != 0) continue;
        hint = i + 1;
        return (int)i;
    }
    ck_abort_msg("no layer %s", name);
    return -1;
}

/* ---- masks ----------------------------------------------------------------------------------- */

/* A value map (mh, mw) averaged over each pixel of (h, w), on a grid that is fine enough to have
 * every border of either: exact, if slow. */
static inline void naive_shrink(double *to, int h, int w, const float *from, int mh, int mw)
{
    int fh = h * mh, fw = w * mw; /* h | fh and mh | fh */
    for (int y = 0; y < h; y++)
        for (int x = 0; x < w; x++) {
            double sum = 0;
            for (int j = y * mh; j < (y + 1) * mh; j++)
                for (int i = x * mw; i < (x + 1) * mw; i++)
                    sum += (double)from[(j / (fh / mh)) * mw + i / (fw / mw)];
            to[y * w + x] = sum / (mh * mw);
        }
}

static inline naive_mask naive_mask_of(int h, int w, const float *from, int mh, int mw, double text)
{
    naive_mask m = { .text = text };
    for (int level = 0; level < NAIVE_LEVELS; level++, h = (h + 1) / 2, w = (w + 1) / 2) {
        m.h[level] = h, m.w[level] = w;
        m.value[level] = naive_zeros((size_t)(h * w));
        naive_shrink(m.value[level], h, w, from, mh, mw);
        m.sizes++;
    }
    return m;
}

static inline void naive_mask_free(naive_mask *m)
{
    for (int i = 0; i < m->sizes; i++) free(m->value[i]);
}

static inline const double *naive_rows(const naive_mask *m, int h, int w)
{
    for (int i = 0; i < m->sizes; i++)
        if (m->h[i] == h && m->w[i] == w) return m->value[i];
    ck_abort_msg("no mask of %d x %d", h, w);
    return NULL;
}

/* ---- one layer ------------------------------------------------------------------------------- */

enum { NAIVE_IMAGE, NAIVE_TOKENS, NAIVE_VECTOR };
enum { NAIVE_ALL = -2, NAIVE_WHOLE = -1 }; /* every adapter; those without a region */

static inline bool naive_here(const naive_act *a, int region)
{
    return a->c != 0 && (region == NAIVE_ALL || a->region < 0 || a->region == region);
}

static inline double naive_column(const naive_act *a, size_t k)
{
    return a->columns != NULL ? a->columns[k] : 1;
}

/* y += (W + sum of acts) x + b. x (h, w, in), y (oh, ow, out). */
static inline void naive_layer(const naive_eval *e, int id, double *y, const double *x, int h, int w,
                               int where, int region)
{
    const wf_layer *l = &e->net->layers[id];
    int             k = l->kernel, pad = k / 2, oh = (h + 2 * pad - k) / l->stride + 1;
    int             ow = (w + 2 * pad - k) / l->stride + 1;
    size_t          K = naive_columns(l), out = (size_t)l->out;
    double         *W = naive_zeros(out * K), *b = naive_zeros(out), *col = naive_zeros(K);
    const naive_act *act = e->act[id];

    if (where != NAIVE_IMAGE) oh = h, ow = w;
    memcpy(W, e->net->w[id], out * K * sizeof *W);
    if (e->net->b[id] != NULL) memcpy(b, e->net->b[id], out * sizeof *b);
    for (int a = 0; a < e->acts[id]; a++) {
        double c = act[a].c;
        if (!naive_here(&act[a], region)) continue;
        if (act[a].mask >= 0 && where == NAIVE_IMAGE) continue;
        if (act[a].mask >= 0) c *= e->mask[act[a].mask].text;
        for (size_t o = 0; o < out && act[a].w != NULL; o++)
            for (size_t i = 0; i < K; i++)
                W[o * K + i] += c * act[a].w[o * K + i] * naive_column(&act[a], i);
        for (size_t o = 0; o < out && act[a].b != NULL; o++) b[o] += c * act[a].b[o];
    }
    for (int p = 0; p < oh * ow; p++) {
        int oy = p / ow, ox = p % ow;
        for (size_t i = 0; i < (size_t)l->in; i++)
            for (int ky = 0; ky < k; ky++)
                for (int kx = 0; kx < k; kx++) {
                    int iy = oy * l->stride + ky - pad, ix = ox * l->stride + kx - pad;
                    bool inside = iy >= 0 && ix >= 0 && iy < h && ix < w;
                    col[(i * (size_t)k + (size_t)ky) * (size_t)k + (size_t)kx] =
                        inside ? x[(size_t)(iy * w + ix) * (size_t)l->in + i] : 0;
                }
        double *to = y + (size_t)p * out;
        for (size_t o = 0; o < out; o++) {
            double sum = b[o];
            for (size_t i = 0; i < K; i++) sum += W[o * K + i] * col[i];
            to[o] += sum;
        }
        for (int a = 0; a < e->acts[id] && where == NAIVE_IMAGE; a++) {
            if (!naive_here(&act[a], region) || act[a].mask < 0) continue;
            double c = act[a].c * naive_rows(&e->mask[act[a].mask], oh, ow)[p];
            for (size_t o = 0; o < out && act[a].w != NULL; o++)
                for (size_t i = 0; i < K; i++)
                    to[o] += c * act[a].w[o * K + i] * naive_column(&act[a], i) * col[i];
            for (size_t o = 0; o < out && act[a].b != NULL; o++) to[o] += c * act[a].b[o];
        }
    }
    free(W), free(b), free(col);
}

/* y = (x - mean) / deviation * weight + bias, over groups of channels of all rows, or with groups 0
 * over each row. */
static inline void naive_norm(const naive_eval *e, int id, double *y, const double *x, int h, int w,
                              int groups, double eps)
{
    int              c = e->net->layers[id].out, rows = h * w, parts = groups > 0 ? groups : rows;
    int              width = groups > 0 ? c / groups : c;
    const naive_act *act = e->act[id];

    for (int g = 0; g < parts; g++) {
        int    r0 = groups > 0 ? 0 : g, r1 = groups > 0 ? rows : g + 1, c0 = groups > 0 ? g * width : 0;
        double mean = 0, var = 0, n = (double)(r1 - r0) * width;
        for (int r = r0; r < r1; r++)
            for (int i = c0; i < c0 + width; i++) mean += x[r * c + i] / n;
        for (int r = r0; r < r1; r++)
            for (int i = c0; i < c0 + width; i++)
                var += (x[r * c + i] - mean) * (x[r * c + i] - mean) / n;
        for (int r = r0; r < r1; r++)
            for (int i = c0; i < c0 + width; i++) {
                double weight = e->net->w[id][i], bias = e->net->b[id][i];
                for (int a = 0; a < e->acts[id]; a++) {
                    double m = act[a].mask < 0 ? 1 : naive_rows(&e->mask[act[a].mask], h, w)[r];
                    if (!naive_here(&act[a], NAIVE_ALL)) continue;
                    if (act[a].w != NULL) weight += act[a].c * m * act[a].w[i];
                    if (act[a].b != NULL) bias += act[a].c * m * act[a].b[i];
                }
                y[r * c + i] = (x[r * c + i] - mean) / sqrt(var + eps) * weight + bias;
            }
    }
}

static inline double naive_silu(double v) { return v / (1 + exp(-v)); }

/* ---- blocks ---------------------------------------------------------------------------------- */

/* A picture on its way: (h, w, c). */
typedef struct naive_image { int h, w, c; double *v; } naive_image;

static inline naive_image naive_new(int h, int w, int c)
{
    return (naive_image){ h, w, c, naive_zeros((size_t)h * (size_t)w * (size_t)c) };
}

static inline size_t naive_size(naive_image x) { return (size_t)x.h * (size_t)x.w * (size_t)x.c; }

static inline naive_image naive_group_norm(const naive_eval *e, const char *path, const char *what,
                                           naive_image x, double eps, bool act)
{
    naive_image y = naive_new(x.h, x.w, x.c);
    naive_norm(e, naive_id(e, path, what), y.v, x.v, x.h, x.w, NAIVE_GROUPS, eps);
    for (size_t i = 0; act && i < naive_size(y); i++) y.v[i] = naive_silu(y.v[i]);
    return y;
}

static inline naive_image naive_conv(const naive_eval *e, const char *path, const char *what,
                                     naive_image x)
{
    int             id = naive_id(e, path, what);
    const wf_layer *l = &e->net->layers[id];
    int s = l->stride, pad = l->kernel / 2;
    naive_image y = naive_new((x.h + 2 * pad - l->kernel) / s + 1, (x.w + 2 * pad - l->kernel) / s + 1,
                              l->out);
    naive_layer(e, id, y.v, x.v, x.h, x.w, NAIVE_IMAGE, NAIVE_ALL);
    return y;
}

static inline naive_image naive_resnet(const naive_eval *e, const char *path, naive_image x)
{
    naive_image n = naive_group_norm(e, path, "norm1", x, 1e-5, true);
    naive_image h = naive_conv(e, path, "conv1", n);
    double     *t = naive_zeros((size_t)h.c);
    free(n.v);
    naive_layer(e, naive_id(e, path, "time_emb_proj"), t, e->time, 1, 1, NAIVE_VECTOR, NAIVE_ALL);
    for (int p = 0; p < h.h * h.w; p++)
        for (int i = 0; i < h.c; i++) h.v[p * h.c + i] += t[i];
    n = naive_group_norm(e, path, "norm2", h, 1e-5, true);
    free(h.v);
    h = naive_conv(e, path, "conv2", n);
    naive_image around = x.c != h.c ? naive_conv(e, path, "conv_shortcut", x) : x;
    for (size_t i = 0; i < naive_size(h); i++) h.v[i] += around.v[i];
    if (x.c != h.c) free(around.v);
    free(n.v), free(t);
    return h;
}

/* o (rows, c) = the heads' means of v (keys, c), weighted as q and k say. group NULL: all see all. */
static inline void naive_attend(double *o, const double *q, int rows, const double *k, const double *v,
                                int keys, int c, const int *group)
{
    int     d = c / NAIVE_HEADS;
    double *p = naive_zeros((size_t)keys);

    for (int r = 0; r < rows; r++)
        for (int head = 0; head < NAIVE_HEADS; head++) {
            double most = -INFINITY, sum = 0;
            for (int j = 0; j < keys; j++) {
                p[j] = 0;
                for (int i = head * d; i < (head + 1) * d; i++)
                    p[j] += q[r * c + i] * k[j * c + i] / sqrt(d);
                if (group != NULL && group[r] != 0 && group[j] != 0 && group[r] != group[j])
                    p[j] = -INFINITY;
                most = fmax(most, p[j]);
            }
            for (int j = 0; j < keys; j++) sum += p[j] = exp(p[j] - most);
            for (int i = head * d; i < (head + 1) * d; i++) {
                o[r * c + i] = 0;
                for (int j = 0; j < keys; j++) o[r * c + i] += p[j] / sum * v[j * c + i];
            }
        }
    free(p);
}

/* Attention of q's rows to `source` (n, width), whose keys and values are a region's. */
static inline void naive_look(const naive_eval *e, const char *path, double *o, const double *q, int rows,
                              int c, const double *source, int n, int where, int region,
                              const int *group)
{
    double *k = naive_zeros((size_t)(n * c)), *v = naive_zeros((size_t)(n * c));
    naive_layer(e, naive_id(e, path, "to_k"), k, source, where == NAIVE_IMAGE ? e->h : n,
                where == NAIVE_IMAGE ? e->w : 1, where, region);
    naive_layer(e, naive_id(e, path, "to_v"), v, source, where == NAIVE_IMAGE ? e->h : n,
                where == NAIVE_IMAGE ? e->w : 1, where, region);
    naive_attend(o, q, rows, k, v, n, c, group);
    free(k), free(v);
}

static inline double *naive_widen(const float *v, size_t n)
{
    double *d = naive_zeros(n);
    for (size_t i = 0; i < n; i++) d[i] = (double)v[i];
    return d;
}

/* The sum of the regions' masks at a pixel. */
static inline double naive_covered(const naive_eval *e, int h, int w, int p)
{
    double sum = 0;
    for (int r = 0; r < e->regions; r++) sum += naive_rows(&e->region[r], h, w)[p];
    return sum;
}

static inline void naive_attention(const naive_eval *e, const char *path, const char *which, naive_image x,
                                   const double *n, bool cross)
{
    int     rows = x.h * x.w, c = x.c;
    char    at[768];
    double *q = naive_zeros(naive_size(x)), *o = naive_zeros(naive_size(x));
    double *one = naive_zeros(naive_size(x));
    int    *group = calloc((size_t)rows, sizeof *group);
    bool    any = false;
    naive_eval here = *e;

    here.h = x.h, here.w = x.w;
    snprintf(at, sizeof at, "%s.%s", path, which);
    naive_layer(&here, naive_id(e, at, "to_q"), q, n, x.h, x.w, NAIVE_IMAGE, NAIVE_ALL);
    for (int r = 0; r < e->regions; r++)
        for (int p = 0; p < rows && e->isolated[r]; p++) {
            double covered = naive_covered(e, x.h, x.w, p);
            if (naive_rows(&e->region[r], x.h, x.w)[p] / fmax(covered, 1) > 0.501) group[p] = 1 + r;
            any = true;
        }
    if (!cross) {
        naive_look(&here, at, o, q, rows, c, n, rows, NAIVE_IMAGE, NAIVE_ALL, any ? group : NULL);
    } else {
        for (int r = -1; r < e->regions; r++) {
            double *text = naive_widen(e->text[1 + r], (size_t)(e->tokens * NAIVE_TEXT));
            naive_look(&here, at, one, q, rows, c, text, e->tokens, NAIVE_TOKENS,
                       e->regions > 0 ? r : NAIVE_ALL, NULL);
            for (int p = 0; p < rows; p++) {
                double covered = naive_covered(e, x.h, x.w, p);
                double part = r < 0 ? fmax(0, 1 - covered) : naive_rows(&e->region[r], x.h, x.w)[p];
                for (int i = 0; i < c; i++)
                    o[p * c + i] += part / fmax(covered, 1) * one[p * c + i];
            }
            free(text);
        }
    }
    naive_layer(e, naive_id(e, at, "to_out.0"), x.v, o, x.h, x.w, NAIVE_IMAGE, NAIVE_ALL);
    free(q), free(o), free(one), free(group);
}

static inline void naive_transformer(const naive_eval *e, const char *path, naive_image x)
{
    char        block[512];
    naive_image n = naive_group_norm(e, path, "norm", x, 1e-6, false), t = naive_conv(e, path, "proj_in", n);
    int         rows = x.h * x.w, c = x.c;
    double     *wide = naive_zeros(8 * naive_size(x)), *gated = naive_zeros(4 * naive_size(x));

    snprintf(block, sizeof block, "%s.transformer_blocks.0", path);
    naive_norm(e, naive_id(e, block, "norm1"), n.v, t.v, x.h, x.w, 0, 1e-5);
    naive_attention(e, block, "attn1", t, n.v, false);
    naive_norm(e, naive_id(e, block, "norm2"), n.v, t.v, x.h, x.w, 0, 1e-5);
    naive_attention(e, block, "attn2", t, n.v, true);
    naive_norm(e, naive_id(e, block, "norm3"), n.v, t.v, x.h, x.w, 0, 1e-5);
    naive_layer(e, naive_id(e, block, "ff.net.0.proj"), wide, n.v, x.h, x.w, NAIVE_IMAGE, NAIVE_ALL);
    for (int p = 0; p < rows; p++)
        for (int i = 0; i < 4 * c; i++) {
            double gate = wide[p * 8 * c + 4 * c + i];
            gated[p * 4 * c + i] = wide[p * 8 * c + i] * gate * (1 + erf(gate / sqrt(2))) / 2;
        }
    naive_layer(e, naive_id(e, block, "ff.net.2"), t.v, gated, x.h, x.w, NAIVE_IMAGE, NAIVE_ALL);
    naive_layer(e, naive_id(e, path, "proj_out"), x.v, t.v, x.h, x.w, NAIVE_IMAGE, NAIVE_ALL);
    free(n.v), free(t.v), free(wide), free(gated);
}

/* ---- the network ----------------------------------------------------------------------------- */

static inline void naive_time(naive_eval *e)
{
    double angles[8], hidden[32] = { 0 };
    e->time = naive_zeros(32);
    for (int i = 0; i < 4; i++) {
        double f = exp(-log(10000) * i / 4) * e->timestep;
        angles[i] = cos(f), angles[4 + i] = sin(f);
    }
    naive_layer(e, naive_id(e, "", "time_embedding.linear_1"), hidden, angles, 1, 1, NAIVE_VECTOR, NAIVE_ALL);
    for (int i = 0; i < 32; i++) hidden[i] = naive_silu(hidden[i]);
    naive_layer(e, naive_id(e, "", "time_embedding.linear_2"), e->time, hidden, 1, 1, NAIVE_VECTOR, NAIVE_ALL);
    for (int i = 0; i < 32; i++) e->time[i] = naive_silu(e->time[i]);
}

static inline naive_image naive_beside(naive_image a, naive_image b)
{
    naive_image y = naive_new(a.h, a.w, a.c + b.c);
    for (int p = 0; p < a.h * a.w; p++) {
        memcpy(y.v + p * y.c, a.v + p * a.c, (size_t)a.c * sizeof *y.v);
        memcpy(y.v + p * y.c + a.c, b.v + p * b.c, (size_t)b.c * sizeof *y.v);
    }
    free(a.v), free(b.v);
    return y;
}

static inline naive_image naive_grown(naive_image x, int h, int w)
{
    naive_image y = naive_new(h, w, x.c);
    for (int p = 0; p < h * w; p++)
        memcpy(y.v + p * x.c, x.v + ((p / w) * x.h / h * x.w + (p % w) * x.w / w) * x.c,
               (size_t)x.c * sizeof *y.v);
    free(x.v);
    return y;
}

static inline naive_image naive_copy(naive_image x)
{
    naive_image y = naive_new(x.h, x.w, x.c);
    memcpy(y.v, x.v, naive_size(x) * sizeof *y.v);
    return y;
}

/* out (4, h, w) = the prediction for latent (4, h, w). */
static inline void naive_predict(naive_eval e, double *out, const float *latent)
{
    static const bool attends[NAIVE_LEVELS] = { true, true, false };
    naive_image skip[16], x = naive_new(e.h, e.w, 4), h;
    int         skips = 0, pixels = e.h * e.w;
    char        at[128];

    for (int p = 0; p < pixels; p++)
        for (int c = 0; c < 4; c++) x.v[p * 4 + c] = (double)latent[c * pixels + p];
    naive_time(&e);
    h = naive_conv(&e, "", "conv_in", x);
    free(x.v);
    skip[skips++] = naive_copy(h);
    for (int level = 0; level < NAIVE_LEVELS; level++) {
        for (int j = 0; j < 2; j++) {
            snprintf(at, sizeof at, "down_blocks.%d.resnets.%d", level, j);
            x = naive_resnet(&e, at, h);
            free(h.v);
            h = x;
            snprintf(at, sizeof at, "down_blocks.%d.attentions.%d", level, j);
            if (attends[level]) naive_transformer(&e, at, h);
            skip[skips++] = naive_copy(h);
        }
        if (level + 1 == NAIVE_LEVELS) break;
        snprintf(at, sizeof at, "down_blocks.%d", level);
        x = naive_conv(&e, at, "downsamplers.0.conv", h);
        free(h.v);
        h = x;
        skip[skips++] = naive_copy(h);
    }
    x = naive_resnet(&e, "mid_block.resnets.0", h);
    free(h.v);
    naive_transformer(&e, "mid_block.attentions.0", x);
    h = naive_resnet(&e, "mid_block.resnets.1", x);
    free(x.v);
    for (int i = 0; i < NAIVE_LEVELS; i++) {
        int level = NAIVE_LEVELS - 1 - i;
        for (int j = 0; j < 3; j++) {
            h = naive_beside(h, skip[--skips]);
            snprintf(at, sizeof at, "up_blocks.%d.resnets.%d", i, j);
            x = naive_resnet(&e, at, h);
            free(h.v);
            h = x;
            snprintf(at, sizeof at, "up_blocks.%d.attentions.%d", i, j);
            if (attends[level]) naive_transformer(&e, at, h);
        }
        if (level == 0) break;
        h = naive_grown(h, skip[skips - 1].h, skip[skips - 1].w);
        snprintf(at, sizeof at, "up_blocks.%d", i);
        x = naive_conv(&e, at, "upsamplers.0.conv", h);
        free(h.v);
        h = x;
    }
    x = naive_group_norm(&e, "", "conv_norm_out", h, 1e-5, true);
    free(h.v);
    h = naive_conv(&e, "", "conv_out", x);
    for (int p = 0; p < pixels; p++)
        for (int c = 0; c < 4; c++) out[c * pixels + p] = h.v[p * 4 + c];
    free(x.v), free(h.v), free(e.time);
}

#endif
