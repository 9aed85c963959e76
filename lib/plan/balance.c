/* balance.c - how much stronger one adapter is than another: K-LoRA's gamma, and a plan's weights
 * balanced by it.
 *
 * Files are trained at very different strengths, and what is stronger drowns the rest. The measure
 * is the ratio of the sums of all |entries| of both differences, layer by layer, and the mean of
 * these ratios without those that lie far off (the authors' program), or the ratio of the sums over
 * all layers (their paper). Source: Ouyang et al., K-LoRA (2025), section 4.2.
 *
 * The factors of a plan depend on its bindings alone, and pass to its copies. */
#include <math.h>

#include "base/structs.h"
#include "plan/plan_internal.h"

static const double FAR_RATIO = 3; /* ratios this far over the mean are left out */

double wf_klora_gamma(const double *ratio, size_t count, int32_t *dropped)
{
    double mean = 0, kept = 0;
    size_t n = 0;

    *dropped = 0;
    if (count == 0) return 1;
    for (size_t i = 0; i < count; i++) mean += ratio[i];
    mean /= (double)count;
    for (size_t i = 0; i < count; i++) {
        if (ratio[i] >= FAR_RATIO * mean) continue;
        kept += ratio[i];
        n++;
    }
    *dropped = (int32_t)(count - n);
    return kept / (double)n;
}

/* Layers where one of the two has nothing, or nothing but zeros, say nothing about the pair. */
wf_balance wf_balance_of(double *own, const double *other, size_t count, int32_t gamma)
{
    wf_balance b = { .gamma = gamma, .factor = 1 };
    double     mine = 0, its = 0;
    size_t     n = 0;

    for (size_t l = 0; l < count; l++) {
        if (!(own[l] > 0 && other[l] > 0)) continue;
        mine += own[l];
        its += other[l];
        own[n++] = own[l] / other[l];
    }
    b.pairs = (int32_t)n;
    if (gamma == WEFT_KLORA_GAMMA_NONE) return b;
    if (gamma == WEFT_KLORA_GAMMA_CODE) b.factor = wf_klora_gamma(own, n, &b.dropped);
    if (gamma == WEFT_KLORA_GAMMA_PAPER && n > 0) b.factor = mine / its;
    b.failed = n == 0 || !isfinite(b.factor) || b.factor <= 0;
    if (b.failed) b.factor = 1;
    return b;
}

void wf_balance_warn(const weft_plan *p, wf_table *t, const char *who, const char *what,
                     const wf_balance *b, int32_t reference, int32_t adapter)
{
    const char *of = wf_adapter_name(p->entry[reference].bound->adapter);
    const char *and = wf_adapter_name(p->entry[adapter].bound->adapter);

    if (b->pairs == 0)
        wf_table_warn(p, t, "%s: no layer has something of both %s and %s; %s is 1", who, of, and,
                      what);
    else
        wf_table_warn(p, t, "%s: the sizes of %s and %s have no finite ratio; %s is 1", who, of,
                      and, what);
}

void wf_balance_describe(const wf_balance *b, wf_text *out)
{
    if (b->gamma == WEFT_KLORA_GAMMA_NONE) wf_text_add(out, " (left out)\n");
    else if (b->gamma == WEFT_KLORA_GAMMA_PAPER)
        wf_text_add(out, ", ratio of the sums over %d layers\n", (int)b->pairs);
    else
        wf_text_add(out, ", mean ratio of %d layers, %d far ones left out\n",
                    (int)(b->pairs - b->dropped), (int)b->dropped);
}

/* ---- a plan's weights ------------------------------------------------------------------------ */

typedef struct balanced {
    int32_t      gamma, reference, adapters;
    wf_balance  *of;    /* [adapters]       */
    wf_binding **bound; /* [adapters], kept */
} balanced;

double wf_balance_at(const wf_blob *blob, int32_t adapter)
{
    return blob != NULL ? ((const balanced *)blob->data)->of[adapter].factor : 1;
}

static void drop_balanced(void *data)
{
    balanced *b = data;
    for (int32_t a = 0; a < b->adapters; a++) wf_binding_drop(b->bound[a]);
}

static weft_status find_reference(int32_t *reference, const weft_plan *p,
                                  const weft_balance_options *o, weft_error *err)
{
    if (o->role == WEFT_ROLE_NONE) {
        *reference = o->reference;
        if (o->reference < p->adapters) return WEFT_OK;
        return wf_fail(err, WEFT_E_UNSUPPORTED, "balance: to adapter %d, and the plan has %d",
                       (int)o->reference, (int)p->adapters);
    }
    for (*reference = 0; *reference < p->adapters; ++*reference)
        if (p->entry[*reference].role == o->role) return WEFT_OK;
    return wf_fail(err, WEFT_E_UNSUPPORTED, "balance: no adapter has the role %s",
                   o->role == WEFT_ROLE_CONTENT ? "content" : "style");
}

static bool same(const wf_blob *blob, const weft_plan *p, int32_t gamma, int32_t reference)
{
    const balanced *b = blob != NULL ? blob->data : NULL;

    if (b == NULL || b->adapters != p->adapters || b->gamma != gamma || b->reference != reference)
        return false;
    for (int32_t a = 0; a < p->adapters; a++)
        if (b->bound[a] != p->entry[a].bound) return false;
    return true;
}

static weft_status sum_at(double *sum, const weft_plan *p, int32_t adapter, const wf_layer *layer,
                          weft_error *err)
{
    int32_t         count;
    const wf_slice *slice = wf_plan_slices(p, adapter, layer->id, &count);
    double          top;

    return wf_slices_score(p->entry[adapter].bound->adapter, slice, count, layer, false, 0, sum,
                           &top, &p->alloc, err);
}

static weft_status tell(const weft_plan *p, size_t done, size_t total, weft_error *err)
{
    if (p->progress != NULL &&
        p->progress(p->progress_user, "balancing layers", (int64_t)done, (int64_t)total) != 0)
        return wf_fail(err, WEFT_E_CANCELLED,
                       "sealing was stopped after %zu of %zu layers were balanced", done, total);
    return WEFT_OK;
}

/* The sums of all |entries| of every adapter, [adapters][layers], where the reference has something
 * too. */
static weft_status sum_all(double *sums, const weft_plan *p, int32_t reference, weft_error *err)
{
    size_t          count;
    const wf_layer *layers = wf_model_layers(p->model, &count);

    for (size_t l = 0; l < count; l++) {
        if (layers[l].component != WEFT_COMPONENT_DENOISER || layers[l].kind == WEFT_LAYER_NORM ||
            wf_plan_module(p, reference, layers[l].id) == NULL)
            continue;
        WF_TRY(tell(p, l, count, err));
        for (int32_t a = 0; a < p->adapters; a++)
            if (wf_plan_module(p, a, layers[l].id) != NULL)
                WF_TRY(sum_at(&sums[(size_t)a * count + l], p, a, &layers[l], err));
    }
    return tell(p, count, count, err);
}

static weft_status fill(balanced *b, wf_table *t, const weft_plan *p, weft_error *err)
{
    size_t      count;
    weft_status st;

    wf_model_layers(p->model, &count);
    double *sums = wf_zalloc(&p->alloc, ((size_t)p->adapters + 1) * count, sizeof *sums);
    if (sums == NULL) return wf_nomem(err, count * sizeof *sums, "the balance of adapters");
    double *own = sums + (size_t)p->adapters * count;
    st = sum_all(sums, p, b->reference, err);
    for (int32_t a = 0; a < p->adapters && st == WEFT_OK; a++) {
        memcpy(own, sums + (size_t)b->reference * count, count * sizeof *own);
        b->of[a] = wf_balance_of(own, sums + (size_t)a * count, count,
                                 a == b->reference ? WEFT_KLORA_GAMMA_NONE : b->gamma);
        if (b->of[a].failed)
            wf_balance_warn(p, t, "balance", "its factor", &b->of[a], b->reference, a);
    }
    wf_free(&p->alloc, sums);
    return st;
}

weft_status wf_balance_make(wf_table *t, const weft_plan *p, weft_error *err)
{
    const weft_balance_options *o = p->balance != NULL ? p->balance->data : NULL;
    size_t                      n = (size_t)p->adapters, size;
    int32_t                     reference;

    if (o == NULL || n == 0) return WEFT_OK;
    WF_TRY(find_reference(&reference, p, o, err));
    if (same(p->balanced, p, o->gamma, reference)) {
        t->balanced = wf_blob_ref(p->balanced);
        return WEFT_OK;
    }
    size = sizeof(balanced) + n * (sizeof(wf_balance) + sizeof(wf_binding *));
    t->balanced = wf_blob_create(&p->alloc, size); /* the table's, whatever comes */
    if (t->balanced == NULL) return wf_nomem(err, size, "the balance of adapters");
    balanced *b = t->balanced->data;
    *b = (balanced){ o->gamma, reference, p->adapters, (wf_balance *)(b + 1), NULL };
    b->bound = (wf_binding **)(b->of + n);
    for (size_t a = 0; a < n; a++) b->bound[a] = wf_binding_ref(p->entry[a].bound);
    t->balanced->drop = drop_balanced;
    return fill(b, t, p, err);
}

void wf_balance_explain(const weft_plan *p, wf_text *out)
{
    const balanced *b = p->table.balanced != NULL ? p->table.balanced->data : NULL;
    wf_letter_text  letter;
    wf_number_text  number;

    if (b == NULL) return;
    wf_text_add(out, "  balance    weights in the UNet, to %s:\n",
                wf_letter(&letter, b->reference));
    for (int32_t a = 0; a < p->adapters; a++) {
        if (a == b->reference) continue;
        wf_text_add(out, "             %s times %s", wf_letter(&letter, a),
                    wf_fixed(&number, b->of[a].factor, 6));
        wf_balance_describe(&b->of[a], out);
    }
}

weft_status wf_balance_forget(wf_blob **out, const weft_plan *p, const wf_blob *options,
                              int32_t adapter, weft_error *err)
{
    const weft_balance_options *o = options != NULL ? options->data : NULL;

    *out = NULL;
    if (o == NULL) return WEFT_OK;
    if (o->role == WEFT_ROLE_NONE && o->reference == adapter && p->adapters > 1)
        return wf_fail(err, WEFT_E_UNSUPPORTED,
                       "balance: the others are brought to %s, which is to be removed",
                       wf_plan_adapter_name(p, adapter));
    if ((*out = wf_blob_create(&p->alloc, sizeof *o)) == NULL)
        return wf_nomem(err, sizeof *o, "the options of a balance");
    memcpy((*out)->data, o, sizeof *o);
    ((weft_balance_options *)(*out)->data)->reference -= o->reference > adapter;
    return WEFT_OK;
}

static weft_status check_options(const weft_balance_options *o, weft_error *err)
{
    if (o->gamma < WEFT_KLORA_GAMMA_CODE || o->gamma > WEFT_KLORA_GAMMA_NONE)
        return wf_fail(err, WEFT_E_ARG,
                       "weft_balance_options: gamma is %d, not one of WEFT_KLORA_GAMMA_*",
                       (int)o->gamma);
    if (o->role < WEFT_ROLE_NONE || o->role > WEFT_ROLE_STYLE)
        return wf_fail(err, WEFT_E_ARG, "weft_balance_options: role is %d, not one of WEFT_ROLE_*",
                       (int)o->role);
    if (o->reference < 0 || (o->reference > 0 && o->role != WEFT_ROLE_NONE))
        return wf_fail(err, WEFT_E_ARG,
                       "weft_balance_options: reference is %d, need an adapter, or 0 beside a role",
                       (int)o->reference);
    if (o->reserved0 != 0)
        return wf_fail(err, WEFT_E_UNSUPPORTED,
                       "weft_balance_options: reserved0 is %d, must be zero", (int)o->reserved0);
    return WEFT_OK;
}

weft_status weft_plan_balance(weft_plan *plan, const weft_balance_options *options, weft_error *err)
{
    weft_balance_options o;
    wf_blob             *blob = NULL;

    WF_TRY(wf_plan_still_open(plan, "weft_plan_balance", err));
    WF_TRY(WF_OPTIONS(&o, options, weft_balance_options, 0, err));
    WF_TRY(check_options(&o, err));
    if (o.gamma != WEFT_KLORA_GAMMA_NONE) {
        if ((blob = wf_blob_create(&plan->alloc, sizeof o)) == NULL)
            return wf_nomem(err, sizeof o, "the options of a balance");
        memcpy(blob->data, &o, sizeof o);
    }
    wf_blob_drop(plan->balance);
    plan->balance = blob;
    return WEFT_OK;
}
