/* layer.c - linear layers and convolutions, and the one place that looks at adapters.
 *
 *     y = x W^T + b + sum over parts p of  c_p (s_p B_p A_p x | s_p W1 X W2^T | D_p x)  +  c_p db_p
 *
 * The products themselves are a tier's (tensor/product.h); here is what adapters make of them. The
 * low-rank side path reads the stack of all adapters of the layer: a thin product down to
 * h (rows, R), the coefficients multiplied into h, and a product up, which the wide product adds
 * at its end.
 * Only the ranks between the first and the last part with a coefficient take part. A dense part is
 * added to the widened tile of the weight, with its coefficient in the sample's branch: one product
 * then does for both. A Kronecker product has its own way, two small products for each of the i1
 * groups of channels. If all coefficients are zero, nothing at all is computed, so an adapter at
 * weight 0 leaves the base's bits.
 *
 * A vector multiplies the columns of A_p, of D_p, or of X; a mask multiplies rows of h, of the
 * Kronecker middle, of a bias. A masked dense part cannot share the base's product, since its
 * weight would differ from row to row, and has one of its own. */
#include "nets/tape.h"
#include "nets/turn.h"

enum { ROWS = WF_TILE_ROWS, KRON_FLOATS = 1 << 18 };

/* A layer at work; what the hooks of its products see. */
typedef struct job {
    wf_exec        *e;
    const wf_layer *l;
    const wf_delta *delta;
    const wf_stack *stack;  /* NULL: no parts                                */
    wf_grid         out;
    wf_product      base;   /* x W^T and what is added on the way            */
    const float    *more;   /* (samples, out) added to their rows, or NULL   */
    size_t          row_tiles; /* of one sample                              */
    int32_t         part;   /* of a product of its own                       */
} job;

static size_t taps(const wf_layer *l) { return (size_t)l->kernel * (size_t)l->kernel; }

static size_t sample_rows(wf_grid g) { return (size_t)g.h * (size_t)g.w; }

wf_grid wf_layer_grid(const wf_layer *l, wf_grid g)
{
    wf_grid o = g;
    if (l->stride == 1) return o;
    /* Both forms of downsampling: pad 1 all around, or 1 at the bottom and right. */
    int32_t extra = l->asymmetric ? 1 : 2 * l->pad;
    o.h = (g.h + extra - l->kernel) / l->stride + 1;
    o.w = (g.w + extra - l->kernel) / l->stride + 1;
    return o;
}

/* ---- coefficients ---- */

static wf_coefficient coefficient(const job *j, size_t sample, int32_t part)
{
    return wf_coefficient_of(j->e, j->delta, sample, part, j->out);
}

/* tile (rows, taps, nc) *= v, over channels [c, c + nc) of each tap. */
static void scale_columns(const wf_layer *l, float *tile, size_t rows, const float *v, size_t c,
                          size_t nc)
{
    for (size_t r = 0; r < rows; r++)
        for (size_t q = 0; q < taps(l); q++, tile += nc)
            for (size_t i = 0; i < nc; i++) tile[i] *= v[q * (size_t)l->in + c + i];
}

/* Ranks of the stack that have a coefficient for this sample. Under a tape all: gradients are those
 * of the whole stack. */
static wf_span live_ranks(const job *j, size_t sample)
{
    wf_span live = { 0, 0 };
    size_t at = 0;
    if (wf_taped(j->e)) return (wf_span){ 0, (size_t)j->stack->rank };
    for (int32_t p = 0; p < j->stack->parts; p++) {
        size_t next = at + (size_t)j->stack->part_rank[p];
        if (next > at && coefficient(j, sample, p).number != 0.0f) {
            if (live.hi == 0) live.lo = at;
            live.hi = next;
        }
        at = next;
    }
    return live;
}

/* ---- low-rank pairs ---- */

/* A's columns, times the vectors of their parts: the thin product's amend_weight. */
static void scale_down(void *user, size_t sample, float *tile, size_t first, size_t count, size_t c,
                       size_t nc)
{
    const job *j = user;
    size_t at = 0;
    for (int32_t p = 0; p < j->stack->parts; p++) {
        size_t next = at + (size_t)j->stack->part_rank[p];
        size_t lo = WF_MAX(at, first), hi = WF_MIN(next, first + count);
        const float *v = coefficient(j, sample, p).columns;
        if (v != NULL && lo < hi)
            scale_columns(j->l, tile + (lo - first) * taps(j->l) * nc, hi - lo, v, c, nc);
        at = next;
    }
}

/* h times the coefficients: the thin product's finish. */
static void scale_h(void *user, size_t sample, size_t row, size_t rows, float *h)
{
    const job *j = user;
    const wf_stack *s = j->stack;
    wf_span live = j->base.live[sample];
    size_t at = 0;
    for (int32_t p = 0; p < s->parts; p++) {
        size_t next = at + (size_t)s->part_rank[p];
        size_t lo = WF_MAX(at, live.lo), hi = WF_MIN(next, live.hi);
        wf_coefficient k = coefficient(j, sample, p);
        float number = k.number * s->part_scale[p];
        for (size_t r = 0; r < rows && lo < hi; r++) {
            float c = k.rows != NULL ? number * k.rows[row + r] : number;
            for (size_t i = lo; i < hi; i++) h[r * (size_t)s->rank + i - live.lo] *= c;
        }
        at = next;
    }
}

static bool any_vector(const job *j, size_t sample)
{
    bool any = false;
    for (int32_t p = 0; p < j->stack->parts && !any; p++)
        any = j->stack->part_rank[p] > 0 && coefficient(j, sample, p).columns != NULL;
    return any;
}

/* h (rows, R) = x A^T as a product. */
static wf_product down_product(job *j, float *h)
{
    wf_product d = j->base;
    d.y = h;
    d.out = (size_t)j->stack->rank;
    d.weight = j->stack->down;
    d.type = WF_F32;
    d.ordered = true;
    d.gated = false;
    d.user = j;
    d.finish = scale_h;
    d.amend_weight = j->e->vectors != NULL ? scale_down : NULL;
    return d;
}

/* ---- dense parts ---- */

/* tile += c_p D_p for the matrices among the parts that no mask keeps apart: amend_weight. */
static void add_dense(void *user, size_t sample, float *tile, size_t first, size_t count, size_t c,
                      size_t nc)
{
    const job *j = user;
    size_t t = taps(j->l), ins = (size_t)j->l->in;
    for (int32_t p = 0; p < j->stack->parts; p++) {
        const float *D = j->stack->nonpair[p].dense;
        wf_coefficient k = coefficient(j, sample, p);
        if (D == NULL || k.number == 0.0f || k.rows != NULL) continue;
        for (size_t o = 0; o < count; o++)
            for (size_t q = 0; q < t; q++) {
                const float *d = D + ((first + o) * t + q) * ins + c;
                const float *v = k.columns != NULL ? k.columns + q * ins + c : NULL;
                float *to = tile + (o * t + q) * nc;
                for (size_t i = 0; i < nc && v == NULL; i++) to[i] += k.number * d[i];
                for (size_t i = 0; i < nc && v != NULL; i++) to[i] += k.number * (v[i] * d[i]);
            }
    }
}

/* The rows that a masked part sees, times its coefficient: amend_rows of a product of its own. */
static bool mask_input(void *user, size_t sample, float *tile, size_t row, size_t rows, size_t c,
                       size_t nc)
{
    const job *j = user;
    wf_coefficient k = coefficient(j, sample, j->part);
    size_t width = taps(j->l) * nc;
    if (k.number == 0.0f || k.rows == NULL) return false;
    for (size_t r = 0; r < rows; r++) {
        float m = k.number * k.rows[row + r];
        for (size_t i = 0; i < width; i++) tile[r * width + i] *= m;
    }
    if (k.columns != NULL) scale_columns(j->l, tile, rows, k.columns, c, nc);
    return true;
}

/* y += c mask (x D^T) for part j->part. */
static wf_product masked_product(job *j)
{
    wf_product p = j->base;
    p.weight = j->stack->nonpair[j->part].dense;
    p.type = WF_F32;
    p.ordered = true;
    p.user = j;
    p.amend_weight = NULL;
    p.amend_rows = mask_input;
    p.add = true;
    p.bias = NULL;
    p.own_bias = NULL;
    p.h = NULL;
    return p;
}

/* ---- biases ---- */

/* sums += k d; before the first addition it takes the layer's bias. */
static void add_bias(const job *j, const float **own, float *sums, float k, const float *d)
{
    size_t out = (size_t)j->l->out;
    if (*own == NULL) memset(sums, 0, out * sizeof *sums);
    else if (*own != sums) memcpy(sums, *own, out * sizeof *sums);
    for (size_t i = 0; i < out; i++) sums[i] += k * d[i];
    *own = sums;
}

/* Each sample's bias: the layer's, the differences that no mask keeps apart and what the sample has
 * of its own, summed into `sums` (n, out) if there are any. */
static void sum_biases(const job *j, const float **own, float *sums)
{
    size_t out = (size_t)j->l->out;
    bool any = j->stack != NULL && j->stack->nonpair != NULL;
    for (size_t n = 0; n < (size_t)j->out.n; n++, sums += out) {
        own[n] = j->base.bias;
        for (int32_t p = 0; any && p < j->stack->parts; p++) {
            const float *db = j->stack->nonpair[p].bias;
            wf_coefficient k = coefficient(j, n, p);
            if (db == NULL || k.number == 0.0f || k.rows != NULL) continue;
            add_bias(j, &own[n], sums, k.number, db);
        }
        if (j->more != NULL) add_bias(j, &own[n], sums, 1, j->more + n * out);
    }
}

/* y += c mask db, for the rows of a tile of one sample. */
static void add_masked_biases(const job *j, size_t sample, size_t row, size_t end)
{
    size_t out = (size_t)j->l->out;
    for (int32_t p = 0; p < j->stack->parts; p++) {
        const float *db = j->stack->nonpair[p].bias;
        wf_coefficient k = coefficient(j, sample, p);
        if (db == NULL || k.number == 0.0f || k.rows == NULL) continue;
        for (size_t r = row; r < end; r++) {
            float *y = j->base.y + (sample * sample_rows(j->out) + r) * out;
            float m = k.number * k.rows[r];
            for (size_t i = 0; i < out; i++) y[i] += m * db[i];
        }
    }
}

/* ---- Kronecker products ---- */

static bool is_plain(const wf_layer *l) { return l->kernel == 1 && l->stride == 1; }

/* Floats for each row: the middle, and a group's neighbourhoods or, with `vectors`, its
 * channels. */
static size_t kron_width(const wf_layer *l, const wf_nonpair *x, bool vectors)
{
    size_t tile = is_plain(l) && !vectors ? 0 : taps(l) * (size_t)x->i2;
    return (size_t)x->i1 * (size_t)x->o2 + tile;
}

/* Rows at a time: what they need fits a cache. */
static size_t kron_rows(const wf_layer *l, const wf_nonpair *x)
{
    return WF_MAX((size_t)1, WF_MIN((size_t)ROWS, KRON_FLOATS / kron_width(l, x, false)));
}

/* y += c s W1 X W2^T for some rows: Z (rows, i1, o2) = X W2^T group by group, then W1 mixes each
 * row's groups. */
static void add_kron(const job *j, const wf_nonpair *x, const wf_coefficient *c, float cs,
                     size_t sample, size_t row, size_t rows, float *scratch)
{
    const wf_layer *l = j->l;
    const wf_products *t = j->e->products;
    size_t i1 = (size_t)x->i1, o1 = (size_t)x->o1, i2 = (size_t)x->i2, o2 = (size_t)x->o2;
    size_t k2 = taps(l) * i2, first = sample * sample_rows(j->out) + row;
    float *z = scratch, *tile = scratch + rows * i1 * o2;
    if (is_plain(l) && c->columns == NULL) {
        t->nt(z, o2, j->base.x + first * (size_t)l->in, i2, x->w2, k2, rows * i1, o2, i2, 0.0f);
    } else {
        for (size_t g = 0; g < i1; g++) {
            wf_gather(&j->base, tile, sample, row, rows, g * i2, i2);
            if (c->columns != NULL) scale_columns(l, tile, rows, c->columns, g * i2, i2);
            t->nt(z + g * o2, i1 * o2, tile, k2, x->w2, k2, rows, o2, k2, 0.0f);
        }
    }
    for (size_t r = 0; r < rows; r++) {
        float m = c->rows != NULL ? cs * c->rows[row + r] : cs;
        for (size_t i = 0; i < i1 * o2; i++) z[r * i1 * o2 + i] *= m;
    }
    for (size_t r = 0; r < rows; r++)
        t->nn(j->base.y + (first + r) * (size_t)l->out, o2, x->w1, i1, z + r * i1 * o2, o2, o1, o2,
              i1, 1.0f);
}

/* What is added after the products, to one row tile of one sample: Kronecker products, and biases
 * under a mask. */
static void after_task(void *user, size_t task, int32_t worker)
{
    const job *j = user;
    const wf_stack *s = j->stack;
    size_t sample = task / j->row_tiles, row = (task % j->row_tiles) * ROWS;
    size_t end = WF_MIN(row + ROWS, sample_rows(j->out));
    for (int32_t p = 0; p < s->parts; p++) {
        const wf_nonpair *x = &s->nonpair[p];
        wf_coefficient c = coefficient(j, sample, p);
        if (x->w1 == NULL || c.number == 0.0f) continue;
        size_t step = kron_rows(j->l, x);
        for (size_t r = row; r < end; r += step)
            add_kron(j, x, &c, c.number * s->part_scale[p], sample, r, WF_MIN(step, end - r),
                     (float *)(void *)j->e->scratch[worker]);
    }
    add_masked_biases(j, sample, row, end);
}

/* ---- the layer ---- */

static void note_size(wf_exec *e, wf_grid g)
{
    wf_sizes *s = e->sizes;

    if (s == NULL || g.domain != WF_DOMAIN_IMAGE) return;
    for (int32_t i = 0; i < s->count; i++)
        if (s->at[i].h == g.h && s->at[i].w == g.w) return;
    if (s->count == WF_SIZES_MAX) {
        e->arena.overflow = true;
        return;
    }
    s->at[s->count].h = g.h;
    s->at[s->count++].w = g.w;
}

/* Does the part have a coefficient in this sample? In a dry run that is not exact, any may. */
static bool counts(const job *j, size_t sample, int32_t part)
{
    return !j->e->exact ||
           wf_cell_number(j->e, wf_cell_of(j->e, j->delta, sample, part), j->out) != 0.0f;
}

static bool masked_apart(const job *j, size_t sample, int32_t part)
{
    return j->e->exact && j->out.domain == WF_DOMAIN_IMAGE &&
           wf_cell_of(j->e, j->delta, sample, part)->mask != 0;
}

/* Products of the parts for each row of a sample, besides the base's. */
static double side_products(const job *j, size_t sample)
{
    const wf_layer *l = j->l;
    const wf_stack *s = j->stack;
    double K = (double)(taps(l) * (size_t)l->in), n = 0;
    size_t at = 0, lo = 0, hi = 0; /* of the ranks with a coefficient */

    for (int32_t p = 0; p < s->parts; p++) {
        size_t next = at + (size_t)s->part_rank[p];
        if (next > at && counts(j, sample, p)) {
            if (hi == 0) lo = at;
            hi = next;
        }
        at = next;
    }
    n = (double)(hi - lo) * (K + l->out);
    for (int32_t p = 0; s->nonpair != NULL && p < s->parts; p++) {
        const wf_nonpair *x = &s->nonpair[p];
        if (!counts(j, sample, p)) continue;
        if (x->w1 != NULL) n += (double)x->i1 * x->o2 * ((double)taps(l) * x->i2 + x->o1);
        if (x->dense != NULL && masked_apart(j, sample, p)) n += K * l->out;
    }
    return n;
}

/* Floats of the parts that some sample reads. */
static double part_floats(const job *j)
{
    const wf_layer *l = j->l;
    const wf_stack *s = j->stack;
    double K = (double)(taps(l) * (size_t)l->in), n = 0;

    for (int32_t p = 0; p < s->parts; p++) {
        const wf_nonpair *x = s->nonpair != NULL ? &s->nonpair[p] : NULL;
        bool any = false;
        for (size_t i = 0; i < (size_t)j->out.n && !any; i++) any = counts(j, i, p);
        if (!any) continue;
        n += (double)s->part_rank[p] * (K + l->out);
        if (x == NULL) continue;
        if (x->w1 != NULL) n += (double)x->o1 * x->i1 + (double)x->o2 * (double)taps(l) * x->i2;
        n += (x->dense != NULL ? K * l->out : 0) + (x->bias != NULL ? l->out : 0);
    }
    return n;
}

/* Columns of y that a product writes. */
static size_t written(const wf_product *p) { return p->gated ? p->out / 2 : p->out; }

/* A dry run's counts: products, and the bytes of what is read and written once. */
static void count(job *j, wf_grid in)
{
    wf_exec *e = j->e;
    const wf_layer *l = j->l;
    double rows = (double)sample_rows(j->out), K = (double)(taps(l) * (size_t)l->in);
    double weight = wf_dtype_bits(j->base.type) / 8.0;

    note_size(e, j->out);
    /* so that a dry run counts the layers too */
    if (e->stop != NULL) (void)e->stop(e->stop_user);
    e->flops += 2.0 * (double)j->out.n * rows * K * l->out;
    e->weight_bytes += K * l->out * weight + (j->base.bias != NULL ? 4.0 * l->out : 0);
    e->moved_bytes += 4.0 * ((double)wf_rows(in) * l->in +
                             (double)j->out.n * rows * (double)written(&j->base));
    if (j->stack == NULL) return;
    e->weight_bytes += 4.0 * part_floats(j);
    for (size_t s = 0; s < (size_t)j->out.n; s++)
        e->side_flops += 2.0 * rows * side_products(j, s);
}

/* The base's product, without what adapters add. */
static wf_product base_product(const wf_layer *l, float *y, const float *x, wf_grid g, wf_grid out,
                               bool add)
{
    return (wf_product){
        .y = y, .x = x, .samples = (size_t)g.n, .in = (size_t)l->in, .out = (size_t)l->out,
        .window = { g.h, g.w, out.h, out.w, l->kernel, l->stride, l->pad },
        .weight = l->weight, .type = l->dtype, .bias = l->bias, .add = add,
    };
}

/* The layer's merged copy in place of its weight. */
static void use_merged(job *j)
{
    j->base.weight = j->delta->merged;
    j->base.type = WF_F32;
    j->base.ordered = true;
    if (j->delta->merged_bias != NULL) j->base.bias = j->delta->merged_bias;
}

/* Memory for the samples' own biases, where they have any. */
static void prepare_biases(job *j, bool own)
{
    wf_exec *e = j->e;
    size_t n = (size_t)j->out.n;
    bool any = own;

    for (int32_t p = 0; j->stack != NULL && j->stack->nonpair != NULL && p < j->stack->parts; p++)
        any |= j->stack->nonpair[p].bias != NULL;
    if (!any) return;
    const float **biases = wf_arena_take(&e->arena, n, sizeof *biases);
    float *sums = wf_take(e, n, (size_t)j->l->out);
    if (!e->dry && !e->stopped) sum_biases(j, biases, sums);
    j->base.own_bias = biases;
}

/* What the parts make of the products: memory for h and for the spans of its ranks, and the scratch
 * of all. */
static void prepare_parts(job *j)
{
    wf_exec *e = j->e;
    const wf_stack *s = j->stack;
    size_t n = (size_t)j->out.n, rows = sample_rows(j->out), need = 0;

    for (int32_t p = 0; s->nonpair != NULL && p < s->parts; p++) {
        const wf_nonpair *x = &s->nonpair[p];
        if (x->w1 != NULL)
            need = WF_MAX(need, kron_rows(j->l, x) * kron_width(j->l, x, e->vectors != NULL));
        if (x->dense == NULL) continue;
        j->base.amend_weight = add_dense;
        j->base.variant = e->branch;
        j->part = p;
        wf_product masked = masked_product(j);
        if (e->masks != NULL) wf_need_scratch(e, e->products->wide_scratch(&masked));
    }
    wf_need_scratch(e, need * sizeof(float));
    if (s->rank > 0) {
        float *h = wf_take(e, n * rows, (size_t)s->rank);
        wf_span *live = wf_arena_take(&e->arena, n, sizeof *live);
        bool *amended = e->vectors != NULL ? wf_arena_take(&e->arena, n, sizeof *amended) : NULL;
        wf_product down = down_product(j, h);
        wf_need_scratch(e, e->products->thin_scratch(&down));
        j->base.h = h;
        j->base.up = s->up;
        j->base.rank = (size_t)s->rank;
        j->base.live = live;
        e->stopped = e->stopped || e->arena.overflow;
        for (size_t i = 0; i < n && !e->dry && !e->stopped; i++) {
            live[i] = live_ranks(j, i);
            if (amended != NULL) amended[i] = any_vector(j, i);
        }
        j->base.amended = amended;
    }
}

static void compute(job *j)
{
    wf_exec *e = j->e;
    const wf_stack *s = j->stack;
    bool after = false, live = false;

    for (size_t n = 0; n < j->base.samples && j->base.h != NULL && !live; n++)
        live = j->base.live[n].lo != j->base.live[n].hi;
    if (live) {
        wf_product down = down_product(j, (float *)j->base.h);
        e->products->thin(&down, e->k, e->pool, e->scratch);
    } else {
        j->base.h = NULL;
    }
    e->products->wide(&j->base, e->k, e->pool, e->scratch);
    if (s == NULL || s->nonpair == NULL) return;
    for (int32_t p = 0; p < s->parts; p++) {
        bool masked = wf_part_masked(e, j->delta, p, j->out);
        after |= s->nonpair[p].w1 != NULL || (masked && s->nonpair[p].bias != NULL);
        if (!masked || s->nonpair[p].dense == NULL) continue;
        j->part = p;
        wf_product own = masked_product(j);
        e->products->wide(&own, e->k, e->pool, e->scratch);
    }
    if (after) wf_pool_run(e->pool, j->base.samples * j->row_tiles, after_task, j);
}

/* ---- the way back ----
 *
 * With G the gradient of y, and the pairs' h = c s (x A^T), y += h B^T:
 *
 *     dH = c s (G B),    dB^T += h^T G,  dA += dH^T x
 *     dx += G W + dH A,  dW += G^T x,    db += sums of G
 *
 * What stands to the right of a ^T is a sum over rows (tensor/outer.c), the others are products as
 * on the way there, with weights turned around (turn.h). */

typedef struct layer_entry {
    const wf_layer       *l;
    const wf_delta       *delta;
    const wf_layer_grads *trained; /* NULL: nothing of its own                 */
    wf_grid               in, out;
    const float          *x, *h;   /* h NULL: no pairs                         */
    const wf_span        *live;
    float                *gy, *gx, *gmore; /* gx, gmore NULL: they are not wanted */
    bool                  done;    /* no gradient of y goes further back       */
} layer_entry;

/* Pairs under plain numbers have a way back, and dense parts and Kronecker products none: who
 * trains merges those. */
static bool has_way_back(const job *j)
{
    for (int32_t p = 0; j->stack != NULL && p < j->stack->parts; p++) {
        const wf_nonpair *x = j->stack->nonpair != NULL ? &j->stack->nonpair[p] : NULL;
        for (size_t n = 0; n < (size_t)j->out.n; n++) {
            const wf_cell *c = wf_cell_of(j->e, j->delta, n, p);
            if (c->number == 0.0f) continue;
            if (c->vector != 0 || c->mask != 0) return false;
            if (x != NULL && (x->w1 != NULL || x->dense != NULL)) return false;
        }
    }
    return true;
}

/* The pairs' dH (rows, R). */
static float *back_down(job *j, const layer_entry *t)
{
    wf_exec *e = j->e;
    size_t R = (size_t)j->stack->rank;
    float *dh = wf_take(e, wf_rows(t->out), R);
    wf_product p = { .y = dh, .x = t->gy, .samples = (size_t)t->out.n, .in = (size_t)t->l->out,
                     .out = R, .window = { t->out.h, t->out.w, t->out.h, t->out.w, 1, 1, 0 },
                     .weight = j->stack->up, .type = WF_F32, .ordered = true, .user = j,
                     .live = t->live, .finish = scale_h };

    wf_need_scratch(e, e->products->thin_scratch(&p));
    if (!e->dry && !e->stopped) e->products->thin(&p, e->k, e->pool, e->scratch);
    return dh;
}

/* Gradients of what is trained: sums over rows. */
static void back_trained(job *j, const layer_entry *t, const float *dh)
{
    wf_exec *e = j->e;
    const wf_layer *l = t->l;
    const wf_layer_grads none = { NULL, NULL, NULL, NULL }, *to = t->trained;
    size_t n = (size_t)t->out.n, ins = (size_t)l->in, outs = (size_t)l->out, count = 0;
    size_t R = j->stack != NULL ? (size_t)j->stack->rank : 0;
    wf_window plain = { t->out.h, t->out.w, t->out.h, t->out.w, 1, 1, 0 };
    wf_outer sums[3];

    if (to == NULL) to = &none;
    if (e->dry || (to->up != NULL && dh != NULL))
        sums[count++] = (wf_outer){ to->up, t->h, t->gy, n, R, outs, plain };
    if (e->dry || (to->down != NULL && dh != NULL))
        sums[count++] = (wf_outer){ to->down, dh, t->x, n, R, ins, j->base.window };
    if (e->dry || to->weight != NULL)
        sums[count++] = (wf_outer){ to->weight, t->gy, t->x, n, outs, ins, j->base.window };
    for (size_t i = 0; i < count; i++) wf_need_scratch(e, wf_outer_scratch(&sums[i]));
    if (e->dry || e->stopped) return;
    if (count > 0) wf_outer_products(e->products, sums, count, e->pool, e->scratch);
    if (to->bias != NULL) wf_add_columns(e, to->bias, t->gy, 1, wf_rows(t->out), outs);
    if (t->gmore != NULL)
        wf_add_columns(e, t->gmore, t->gy, n, sample_rows(t->out), outs);
}

/* A gradient of y's rows, where pixels lie as they do in x: a stride's with zeros between them. */
static const float *spread_out(wf_exec *e, const layer_entry *t, const float *g, size_t c,
                               wf_grid to, int32_t first)
{
    if (t->l->stride == 1) return g;
    float *wide = wf_take(e, wf_rows(to), c);
    wf_spread(e, wide, to, g, t->out, t->l->stride, first, c);
    return wide;
}

/* The weight of a product turned, in the arena. */
static void turn_here(wf_exec *e, wf_product *back, const wf_product *there)
{
    float *turned = wf_take(e, there->in * wf_window_taps(&there->window), there->out);
    wf_turn_product(e, turned, there);
    back->weight = turned;
    back->type = WF_F32;
    back->ordered = true;
}

static void run_back(wf_exec *e, const wf_product *p)
{
    wf_need_scratch(e, e->products->wide_scratch(p));
    if (!e->dry && !e->stopped) e->products->wide(p, e->k, e->pool, e->scratch);
}

/* gx += G W + dH A, as windows over the gradients. */
static void back_input(job *j, const layer_entry *t, const float *dh)
{
    wf_exec *e = j->e;
    const wf_layer *l = t->l;
    const void *turned = e->tape->turned != NULL ? e->tape->turned[l->id] : NULL;
    int32_t last = l->kernel - 1, first = 0; /* row that a stride's first one goes to */
    wf_grid from = t->out;

    if (l->stride > 1) {
        first = WF_MAX(last / 2 - l->pad, 0);
        from.h = WF_MAX(t->in.h, l->stride * (t->out.h - 1) + first + 1);
        from.w = WF_MAX(t->in.w, l->stride * (t->out.w - 1) + first + 1);
    }
    wf_product p = { .y = t->gx, .samples = (size_t)t->in.n, .in = (size_t)l->out,
                     .out = (size_t)l->in, .add = true,
                     .window = { from.h, from.w, t->in.h, t->in.w, l->kernel, 1,
                                 last - l->pad - first } };
    bool merged = t->delta != NULL && t->delta->merged != NULL;
    bool plain = l->kernel == 1 && l->stride == 1;
    if (merged || turned == NULL) turn_here(e, &p, &j->base);
    else p.weight = turned, p.type = l->dtype;
    p.x = spread_out(e, t, t->gy, p.in, from, first);
    if (j->stack != NULL && plain) { /* added at the product's end */
        p.h = dh;
        p.up = j->stack->down;
        p.rank = (size_t)j->stack->rank;
        p.live = t->live;
    }
    run_back(e, &p);
    if (j->stack == NULL || plain) return;
    wf_product down = j->base;
    down.out = (size_t)j->stack->rank;
    down.weight = j->stack->down;
    down.type = WF_F32;
    down.ordered = true;
    p.in = down.out;
    turn_here(e, &p, &down);
    p.x = spread_out(e, t, dh, p.in, from, first);
    run_back(e, &p);
}

static void back_layer(wf_exec *e, const void *entry)
{
    const layer_entry *t = entry;
    size_t mark = wf_arena_mark(&e->arena);
    job j = { .e = e, .l = t->l, .delta = t->delta, .out = t->out };

    if (!e->dry && e->stop != NULL && e->stop(e->stop_user)) e->stopped = true;
    if (t->h != NULL || (e->dry && t->live != NULL)) j.stack = t->delta->stack;
    j.base = base_product(t->l, NULL, t->x, t->in, t->out, false);
    j.base.live = t->live;
    if (t->delta != NULL && t->delta->merged != NULL) use_merged(&j);
    float *dh = j.stack != NULL ? back_down(&j, t) : NULL;
    back_trained(&j, t, dh);
    if (e->dry || t->gx != NULL) back_input(&j, t, dh);
    if (t->done) wf_grad_done(e, t->gy, wf_rows(t->out) * (size_t)t->l->out);
    wf_arena_release(&e->arena, mark);
}

/* What back_layer() will take, by a dry run of it. */
static void measure_back(wf_exec *e, const layer_entry *t)
{
    wf_arena before = e->arena;

    e->arena.held = false;
    e->arena.peak = before.used;
    back_layer(e, t);
    wf_need_back(e, (e->arena.peak - before.used) / sizeof(float));
    before.overflow = e->arena.overflow;
    e->arena = before;
}

static void record(job *j, float *y, wf_grid in, bool add)
{
    wf_exec *e = j->e;
    const float *x = j->base.x;
    const wf_layer_grads *trained = wf_trained(e, j->l);
    bool pairs = j->stack != NULL && j->stack->rank > 0;

    bool done = !add || !wf_wanted(e, y);
    bool wanted = trained != NULL || wf_wanted(e, x) || (j->more != NULL && wf_wanted(e, j->more));
    if (!wf_track(e, y, add, wanted)) return;
    layer_entry t = { .l = j->l, .delta = j->delta, .trained = trained, .in = in, .out = j->out,
                      .x = x, .done = done };
    if (e->dry) {
        static const wf_span some = { 0, 0 };
        t.live = pairs ? &some : NULL;
        measure_back(e, &t);
        return;
    }
    if (!has_way_back(j)) {
        wf_no_way_back(e);
        return;
    }
    layer_entry *entry = wf_record(e, back_layer, sizeof *entry);
    if (entry == NULL) return;
    t.gy = wf_grad(e, y);
    t.gx = wf_grad(e, x);
    t.gmore = wf_grad(e, j->more);
    if (pairs) t.h = j->base.h, t.live = j->base.live;
    *entry = t;
}

/* What is made of a product. */
typedef struct use {
    bool         add, gated;
    bool         own; /* each sample has a bias of its own, `more` */
    const float *more;
} use;

static void apply(wf_exec *e, const wf_layer *l, float *y, const float *x, wf_grid g, use as)
{
    job j = { .e = e, .l = l, .out = wf_layer_grid(l, g), .more = as.more };
    size_t rows = sample_rows(j.out), mark = wf_arena_mark(&e->arena);

    j.base = base_product(l, y, x, g, j.out, as.add);
    j.base.gated = as.gated;
    j.base.user = &j;
    j.row_tiles = (rows + ROWS - 1) / ROWS;
    if (e->deltas != NULL) j.delta = &e->deltas[l->id];
    if (j.delta != NULL && j.delta->merged != NULL) use_merged(&j);
    else if (j.delta != NULL) j.stack = j.delta->stack;
    if (j.stack != NULL && (e->dry || e->masks == NULL || wf_masks_fit(e, j.delta, j.out)))
        prepare_parts(&j);
    prepare_biases(&j, as.own);
    wf_need_scratch(e, e->products->wide_scratch(&j.base));
    if (e->dry) {
        count(&j, g);
    } else if (!e->stopped) {
        e->stopped = e->stop != NULL && e->stop(e->stop_user);
        compute(&j);
        wf_note_layer(e, l, j.out);
        if (e->tap != NULL && !e->stopped) e->tap->see(e->tap->user, e, l, &j.base, j.out);
        wf_watch_layer(e, l, x, wf_rows(g) * (size_t)l->in, y,
                       (size_t)g.n * rows * written(&j.base));
    }
    if (wf_taped(e)) record(&j, y, g, as.add);
    wf_arena_release(&e->arena, mark);
}

void wf_layer_apply(wf_exec *e, const wf_layer *l, float *y, const float *x, wf_grid g, bool add)
{
    apply(e, l, y, x, g, (use){ .add = add });
}

void wf_layer_apply_to_each(wf_exec *e, const wf_layer *l, float *y, const float *x, wf_grid g,
                            const float *more)
{
    apply(e, l, y, x, g, (use){ .own = true, .more = more });
}

void wf_layer_apply_gated(wf_exec *e, const wf_layer *l, float *y, const float *x, wf_grid g)
{
    const wf_delta *d = e->deltas != NULL ? &e->deltas[l->id] : NULL;
    size_t mark = wf_arena_mark(&e->arena);

    /* Some parts are added afterwards, and a tape needs values and gates. */
    bool at_once = d == NULL || d->merged != NULL || d->stack == NULL || d->stack->nonpair == NULL;
    if (at_once && !wf_taped(e)) {
        apply(e, l, y, x, g, (use){ .gated = true });
        return;
    }
    float *wide = wf_take(e, wf_rows(g), (size_t)l->out);
    apply(e, l, wide, x, g, (use){ .add = false });
    wf_geglu(e, y, wide, wf_rows(g), (size_t)l->out / 2);
    wf_arena_release(&e->arena, mark);
}

void wf_layer_load_rows(float *dst, const wf_kernels *k, const wf_layer *l, size_t first,
                        size_t count)
{
    size_t         row = (size_t)l->in * taps(l) * (size_t)(wf_dtype_bits(l->dtype) / 8);
    const uint8_t *weight = l->weight;

    wf_order_weight(dst, k, weight + first * row, l->dtype, count, (size_t)l->in, taps(l));
}

void wf_layer_load(float *dst, const wf_kernels *k, const wf_layer *l)
{
    wf_layer_load_rows(dst, k, l, 0, (size_t)l->out);
}
