/* save.c - what was learnt, as an adapter and as files.
 *
 * Forms write tensors in kohya's (LyCORIS') names, where each module says its own alpha; the reader
 * that files go through makes an adapter of them, and its writer puts them into the other dialects.
 * So there is one way of writing names in the house, and what is saved has been read once. Where a
 * mean of the weights is kept, it is that which is written.
 *
 * Metadata says how it came about, under keys that begin with "weft.". */
#include "base/structs.h"
#include "train/dataset.h"
#include "train/trainer_internal.h"

/* ---- metadata -------------------------------------------------------------------------------- */

enum { PAIRS = 16 };

typedef struct pairs {
    wf_bag      *bag;
    const char **text; /* [2 * PAIRS] */
    size_t       count;
    bool         failed;
} pairs;

static void put(pairs *p, const char *key, const char *value)
{
    char *copy = wf_bag_string(p->bag, value, strlen(value));
    if (copy == NULL) p->failed = true;
    p->text[2 * p->count] = key;
    p->text[2 * p->count++ + 1] = copy;
}

static void put_number(pairs *p, const char *key, double value)
{
    wf_number_text text;
    put(p, key, wf_number_double(&text, value));
}

static void put_whole(pairs *p, const char *key, uint64_t value)
{
    char text[32];
    wf_format(text, sizeof text, "%llu", (unsigned long long)value);
    put(p, key, text);
}

/* The words that a prompt should have: those learnt, or the caption that all pictures have. */
static const char *trigger(const weft_trainer *t)
{
    size_t n = wf_dataset_count(t->data, WF_DATA_INSTANCE);
    const char *first;

    if (t->o.tokens != NULL) return t->o.tokens;
    if (n == 0) return NULL;
    first = wf_dataset_caption(t->data, WF_DATA_INSTANCE, 0);
    for (size_t i = 1; i < n; i++)
        if (strcmp(wf_dataset_caption(t->data, WF_DATA_INSTANCE, i), first) != 0) return NULL;
    return first;
}

weft_status wf_trainer_metadata(const weft_trainer *t, wf_bag *bag, const char *const **out,
                                size_t *count, weft_error *err)
{
    const weft_train_options *o = &t->o;
    pairs p = { .bag = bag, .text = wf_bag_take(bag, 2 * PAIRS, sizeof *p.text) };
    char size[32];

    if (p.text == NULL) return wf_nomem(err, 2 * PAIRS * sizeof *p.text, "metadata");
    put(&p, "weft.recipe", t->recipe->name);
    put(&p, "weft.base", wf_base_name(wf_facts(t->networks)->base));
    if (o->name != NULL) put(&p, "weft.name", o->name);
    if (trigger(t) != NULL) put(&p, "weft.trigger", trigger(t));
    if ((t->recipe->uses & WF_USES_RANK) != 0) {
        put_whole(&p, "weft.rank", (uint64_t)o->rank);
        put_number(&p, "weft.alpha", o->alpha);
    }
    put_whole(&p, "weft.seed", o->seed);
    put_whole(&p, "weft.steps", (uint64_t)t->step);
    put_whole(&p, "weft.batch", (uint64_t)o->batch * (uint64_t)o->accumulate);
    put_number(&p, "weft.rate", o->rate);
    wf_format(size, sizeof size, "%dx%d", (int)o->width, (int)o->height);
    put(&p, "weft.resolution", size);
    wf_format(size, sizeof size, "%d.%d.%d", WEFT_VERSION_MAJOR, WEFT_VERSION_MINOR,
              WEFT_VERSION_PATCH);
    put(&p, "weft.version", size);
    *out = p.text;
    *count = p.count;
    return p.failed ? wf_nomem(err, 0, "metadata") : WEFT_OK;
}

/* ---- tensors --------------------------------------------------------------------------------- */

static weft_status add_tensor(weft_tensors *to, const char *stem, const wf_form_out *out,
                              weft_error *err)
{
    char   name[512];
    size_t n = sizeof(float);
    void  *own;

    if (!wf_format(name, sizeof name, "%s.%s", stem, out->ending))
        return wf_fail(err, WEFT_E_UNSUPPORTED, "train: the name of %s is too long", stem);
    for (int32_t i = 0; i < out->rank; i++) n *= (size_t)out->shape[i];
    if ((own = wf_tensors_own(to, n, err)) == NULL) return WEFT_E_NOMEM;
    memcpy(own, out->data, n);
    return wf_tensors_add(to, name, WF_F32, out->rank, out->shape, own, err);
}

static weft_status add_site(weft_trainer *t, const wf_site *s, int32_t dialect, weft_tensors *to,
                            weft_error *err)
{
    wf_form_out outs[WF_FORM_OUTS];
    char        stem[400];
    wf_bag      bag;
    weft_status st = WEFT_OK;

    if (dialect != WEFT_DIALECT_KOHYA) wf_format(stem, sizeof stem, "%s", s->layer->name);
    else if (!wf_name_kohya(t->model, s->layer, stem, sizeof stem))
        return wf_fail(err, WEFT_E_UNSUPPORTED, "train: %s has no name in kohya's dialect",
                       s->layer->name);
    wf_bag_init(&bag, &t->alloc);
    int32_t count = s->form->write(s, dialect, &bag, outs);
    if (count < 0) st = wf_nomem(err, s->out * s->K * sizeof(float), s->layer->name);
    if (count == 0)
        st = wf_fail(err, WEFT_E_UNSUPPORTED, "train: the dialect has no form for %s, of %s",
                     s->form->name, s->layer->name);
    for (int32_t i = 0; i < count && st == WEFT_OK; i++) st = add_tensor(to, stem, &outs[i], err);
    wf_bag_free(&bag);
    return st;
}

weft_status wf_trainer_tensors(weft_trainer *t, int32_t dialect, weft_tensors **out,
                               weft_error *err)
{
    const char *const *metadata;
    weft_tensors *to = NULL;
    wf_bag bag;
    size_t pairs;
    weft_status st = wf_tensors_new(&t->alloc, t->o.name != NULL ? t->o.name : t->recipe->name, &to,
                                    err);

    *out = NULL;
    if (st != WEFT_OK) return st;
    wf_bag_init(&bag, &t->alloc);
    if (t->mean != NULL) wf_train_point(t, t->mean);
    wf_blas_begin(); /* some forms multiply their factors */
    for (size_t i = 0; i < t->sites && st == WEFT_OK; i++)
        st = add_site(t, &t->site[i], dialect, to, err);
    wf_blas_end();
    if (t->mean != NULL) wf_train_point(t, t->values);
    if (st == WEFT_OK) st = wf_trainer_metadata(t, &bag, &metadata, &pairs, err);
    for (size_t i = 0; st == WEFT_OK && i < pairs; i++)
        st = wf_tensors_add_meta(to, metadata[2 * i], metadata[2 * i + 1], err);
    if (st == WEFT_OK) st = wf_tensors_seal(to, err);
    wf_bag_free(&bag);
    if (st == WEFT_OK) *out = to;
    else weft_tensors_free(to);
    return st;
}

/* ---- the calls ------------------------------------------------------------------------------- */

static weft_status no_result(const weft_trainer *t, const char *what, weft_error *err)
{
    return wf_fail(err, WEFT_E_UNSUPPORTED, "train: %s learns no %s", t->recipe->name, what);
}

weft_status weft_trainer_adapter(weft_trainer *t, weft_adapter **out, weft_error *err)
{
    weft_adapter_options o = WEFT_ADAPTER_OPTIONS_INIT;
    weft_tensors *tensors;

    if (out == NULL) return wf_fail(err, WEFT_E_ARG, "out is NULL");
    *out = NULL;
    if (t == NULL) return wf_fail(err, WEFT_E_ARG, "trainer is NULL");
    if (t->recipe->adapter != NULL) return t->recipe->adapter(t, out, err);
    if (t->sites == 0) return no_result(t, "layers", err);
    WF_TRY(wf_trainer_tensors(t, WEFT_DIALECT_KOHYA, &tensors, err));
    o.allocator = &t->alloc;
    o.log = t->o.log;
    o.log_user = t->o.log_user;
    o.name = t->o.name != NULL ? t->o.name : t->recipe->name;
    weft_status st = weft_adapter_create(tensors, &o, out, err);
    weft_tensors_free(tensors);
    return st;
}

weft_status weft_trainer_concept(weft_trainer *t, weft_concept **out, weft_error *err)
{
    if (out == NULL) return wf_fail(err, WEFT_E_ARG, "out is NULL");
    *out = NULL;
    if (t == NULL) return wf_fail(err, WEFT_E_ARG, "trainer is NULL");
    return t->recipe->concept != NULL ? t->recipe->concept(t, out, err)
                                      : no_result(t, "words", err);
}

/* diffusers' dialect has LoRA and DoRA; of other families kohya's names are the common ones. */
static int32_t usual_dialect(const weft_trainer *t)
{
    for (size_t i = 0; i < t->sites; i++)
        if (t->site[i].form != &wf_form_lora && t->site[i].form != &wf_form_dora &&
            t->site[i].form != &wf_form_moslora)
            return WEFT_DIALECT_KOHYA;
    return WEFT_DIALECT_DIFFUSERS;
}

weft_status wf_trainer_save_adapter(weft_trainer *t, const char *path, int32_t dialect, bool half,
                                    weft_error *err)
{
    weft_save_options o = WEFT_SAVE_OPTIONS_INIT;
    weft_adapter *adapter;

    WF_TRY(weft_trainer_adapter(t, &adapter, err));
    o.dialect = dialect != 0 ? dialect : usual_dialect(t);
    o.flags = half ? WEFT_SAVE_HALF : 0;
    weft_status st = weft_adapter_save(adapter, t->model, path, &o, err);
    weft_adapter_free(adapter);
    return st;
}

weft_status weft_trainer_save(weft_trainer *t, const char *path, int32_t dialect, int32_t half,
                              weft_error *err)
{
    if (t == NULL || path == NULL)
        return wf_fail(err, WEFT_E_ARG, "%s is NULL", t == NULL ? "trainer" : "path");
    if (dialect < 0 || dialect > WEFT_DIALECT_PEFT)
        return wf_fail(err, WEFT_E_ARG, "train: dialect is %d, wanted a WEFT_DIALECT_*, or 0",
                       (int)dialect);
    if (half != 0 && half != 1)
        return wf_fail(err, WEFT_E_ARG, "train: half is %d, wanted 0 or 1", (int)half);
    if (t->recipe->save != NULL) return t->recipe->save(t, path, dialect, half == 1, err);
    return wf_trainer_save_adapter(t, path, dialect, half == 1, err);
}
