/* checkpoint.c - a training in a file, and back.
 *
 * One safetensors file: the vectors of values, moments and mean as they lie in memory, and in its
 * metadata the steps done and all that the training is: options, a fingerprint of the model, a
 * stamp of the pictures, and a hash of the places of all tensors. What is drawn at a step depends
 * on the seed and the step alone, so nothing else is needed to go on with the same bits.
 *
 * It is written beside its place and renamed, so that a kill or a full disk leaves the one before.
 * On the way back everything is compared, and the first difference named, before anything of the
 * trainer changes. */
#include <math.h>

#include "train/dataset.h"
#include "train/trainer_internal.h"
#include "train/zip.h"

#define VERSION "1"
#define MOST_STEPS 1099511627776.0 /* 2^40: times the most evaluations of a step it is an int64 */

static const char *const vector_names[WF_CHECKPOINT_VECTORS] = { "values", "first", "second",
                                                                 "mean" };

enum { SECOND = 2 };
enum { MOST = 64 }; /* pairs of metadata */

typedef struct description {
    wf_bag      bag;
    const char *text[2 * MOST];
    size_t      count;
    bool        failed;
} description;

static void say(void *user, const char *name, const char *value)
{
    description *d = user;

    if (d->count == MOST) { /* more options than there is room for: ours to mend */
        d->failed = true;
        return;
    }
    d->text[2 * d->count] = wf_bag_string(&d->bag, name, strlen(name));
    d->text[2 * d->count + 1] = wf_bag_string(&d->bag, value, strlen(value));
    if (d->text[2 * d->count] == NULL || d->text[2 * d->count + 1] == NULL) d->failed = true;
    d->count++;
}

static void say_hash(description *d, const char *name, uint64_t hash)
{
    char text[32];
    wf_format(text, sizeof text, "%llu", (unsigned long long)hash);
    say(d, name, text);
}

/* The two adapters between which ZipLoRA finds coefficients are frozen, and in no other option. */
static uint64_t hash_zip(uint64_t hash, const wf_site *s)
{
    const wf_zip_layer *z = s->given;

    for (int part = 0; part < WF_ZIP_PARTS; part++) {
        size_t r = (size_t)z->rank[part];
        if (r == 0) continue;
        hash = wf_hash(hash, z->down[part], r * s->K * sizeof(float));
        hash = wf_hash(hash, z->up[part], r * s->out * sizeof(float));
    }
    return hash;
}

/* Which number of the vectors is what. */
static uint64_t places(const weft_trainer *t)
{
    uint64_t hash = wf_hash(1, &t->floats, sizeof t->floats);

    for (size_t i = 0; i < t->sites; i++) {
        const wf_site *s = &t->site[i];
        hash = wf_hash(hash, s->layer->name, strlen(s->layer->name));
        hash = wf_hash(hash, s->form->name, strlen(s->form->name));
        for (int32_t k = 0; k < s->tensors; k++) {
            uint64_t size[2] = { s->tensor[k].rows, s->tensor[k].columns };
            hash = wf_hash(hash, s->tensor[k].name, strlen(s->tensor[k].name));
            hash = wf_hash(hash, size, sizeof size);
        }
        if ((t->recipe->uses & WF_USES_ZIP) != 0) hash = hash_zip(hash, s);
    }
    return hash;
}

/* How noise is mixed into latents, and what the network says of the mixture. */
static uint64_t levels(const weft_trainer *t)
{
    return wf_hash((uint64_t)t->prediction, t->alpha, (size_t)t->train_steps * sizeof *t->alpha);
}

/* All but the step. The pictures are last: a trainer that has none yet cannot say. */
static weft_status describe(const weft_trainer *t, const uint64_t *pictures, description *d,
                            weft_error *err)
{
    wf_sha256_text model;

    wf_bag_init(&d->bag, &t->alloc);
    d->count = 0;
    d->failed = false;
    wf_model_fingerprint(t->model, &model);
    say(d, "weft.checkpoint", VERSION);
    say(d, "model", model.text);
    wf_vae_fingerprint(t->model, &model);
    say(d, "latents", model.text);
    say_hash(d, "levels", levels(t));
    wf_train_say_options(&t->o, say, d);
    say_hash(d, "places", places(t));
    if (pictures != NULL) say_hash(d, "pictures", *pictures);
    return d->failed ? wf_nomem(err, sizeof *d, "a checkpoint's description") : WEFT_OK;
}

/* A checkpoint that nothing could go on from must not take the place of the one before. */
static weft_status check_finite(const weft_trainer *t, const wf_tensor *v, weft_error *err)
{
    const float *x = (const float *)(const void *)v->data;

    for (size_t i = 0; i < v->count; i++)
        if (!isfinite(x[i]))
            return wf_fail(err, WEFT_E_NOT_FINITE,
                           "train: after step %lld \"%s\" has a value that is not finite: no "
                           "checkpoint was written", (long long)t->step, v->name);
    return WEFT_OK;
}

weft_status weft_trainer_checkpoint(weft_trainer *t, const char *path, weft_error *err)
{
    wf_tensor   tensors[WF_CHECKPOINT_VECTORS];
    size_t      count = 0;
    description d;
    char        step[32];

    if (t == NULL || path == NULL)
        return wf_fail(err, WEFT_E_ARG, "%s is NULL", t == NULL ? "trainer" : "path");
    const float *vectors[WF_CHECKPOINT_VECTORS] = { t->values, t->first, t->second, t->mean };
    /* where pictures are still to be added after resuming: those of the training */
    uint64_t    pictures = t->expected != 0 ? t->expected : wf_dataset_stamp(t->data);
    weft_status st = describe(t, &pictures, &d, err);
    wf_format(step, sizeof step, "%lld", (long long)t->step);
    say(&d, "step", step);
    for (int i = 0; i < WF_CHECKPOINT_VECTORS; i++)
        if (vectors[i] != NULL)
            tensors[count++] = (wf_tensor){ .name = vector_names[i],
                                            .data = (const uint8_t *)vectors[i],
                                            .bytes = t->floats * sizeof(float),
                                            .count = t->floats, .shape = { (int64_t)t->floats },
                                            .rank = 1, .dtype = WF_F32 };
    if (st == WEFT_OK && d.failed) st = wf_nomem(err, sizeof d, "a checkpoint's description");
    for (size_t i = 0; i < count && st == WEFT_OK; i++) st = check_finite(t, &tensors[i], err);
    if (st == WEFT_OK)
        st = wf_tensors_write_as_stored(path, tensors, count, d.text, d.count, &t->alloc, err);
    wf_bag_free(&d.bag);
    return st;
}

/* ---- back ------------------------------------------------------------------------------------ */

static weft_status no_checkpoint(const weft_tensors *file, const char *why, weft_error *err)
{
    return wf_fail(err, WEFT_E_FORMAT, "%.300s is no checkpoint of a training: %s",
                   wf_tensors_what(file), why);
}

static weft_status compare(const weft_tensors *file, const char *name, const char *want,
                           weft_error *err)
{
    const char *found = weft_tensors_metadata(file, name);

    if (found == NULL)
        return wf_fail(err, WEFT_E_FORMAT, "%.300s is no checkpoint of this version: it does not "
                       "say %s", wf_tensors_what(file), name);
    if (strcmp(found, want) == 0) return WEFT_OK;
    if (strcmp(name, "weft.checkpoint") == 0)
        return wf_fail(err, WEFT_E_FORMAT, "%.300s is a checkpoint of version %.20s, wanted %s",
                       wf_tensors_what(file), found, want);
    if (strcmp(name, "model") == 0)
        return wf_fail(err, WEFT_E_MISMATCH, "%.300s was made with another model",
                       wf_tensors_what(file));
    if (strcmp(name, "pictures") == 0)
        return wf_fail(err, WEFT_E_MISMATCH, "%.300s was made with other pictures or captions",
                       wf_tensors_what(file));
    if (strcmp(name, "latents") == 0)
        return wf_fail(err, WEFT_E_MISMATCH, "%.300s was made with another VAE",
                       wf_tensors_what(file));
    if (strcmp(name, "levels") == 0)
        return wf_fail(err, WEFT_E_MISMATCH,
                       "%.300s was made with other noise levels, or for another prediction",
                       wf_tensors_what(file));
    if (strcmp(name, "places") == 0)
        return wf_fail(err, WEFT_E_MISMATCH,
                       "%.300s trains other layers, or between other adapters",
                       wf_tensors_what(file));
    return wf_fail(err, WEFT_E_MISMATCH, "%.200s: %s is \"%.80s\", this training's is \"%.80s\"",
                   wf_tensors_what(file), name, found, want);
}

static weft_status read_vector(const weft_tensors *file, int which, size_t floats,
                               const wf_tensor **out, weft_error *err)
{
    const wf_tensor *v = wf_tensors_find(file, vector_names[which]);

    if (v == NULL || v->dtype != WF_F32 || v->rank != 1 || v->count != floats) {
        wf_shape_text shape;
        return wf_fail(err, WEFT_E_FORMAT, "%.200s: %s is %s, wanted %zu numbers in F32",
                       wf_tensors_what(file), vector_names[which],
                       v == NULL ? "missing" : wf_shape(&shape, v->shape, v->rank), floats);
    }
    for (size_t i = 0; i < floats; i++) {
        float x;
        memcpy(&x, v->data + i * sizeof x, sizeof x);
        if (!isfinite(x))
            return wf_fail(err, WEFT_E_FORMAT, "%.200s: %s has a value that is not finite, at %zu",
                           wf_tensors_what(file), vector_names[which], i);
        if (which == SECOND && x < 0) /* a mean of squares, of which roots are taken */
            return wf_fail(err, WEFT_E_FORMAT, "%.200s: %s has a value below 0, at %zu",
                           wf_tensors_what(file), vector_names[which], i);
    }
    *out = v;
    return WEFT_OK;
}

weft_status wf_checkpoint_read(const weft_tensors *file, const wf_checkpoint_want *want,
                               const wf_tensor *vector[WF_CHECKPOINT_VECTORS], int64_t *step,
                               weft_error *err)
{
    const char *mark = weft_tensors_metadata(file, "weft.checkpoint");
    const char *says = weft_tensors_metadata(file, "step");
    size_t count = 0;
    double number;

    if (mark == NULL || says == NULL) return no_checkpoint(file, "its metadata says nothing", err);
    for (size_t i = 0; i < want->count; i++)
        WF_TRY(compare(file, want->pairs[2 * i], want->pairs[2 * i + 1], err));
    if (!wf_number_read(says, strlen(says), &number) || !(number >= 0 && number <= MOST_STEPS) ||
        number != floor(number))
        return no_checkpoint(file, "its step is no whole number", err);
    for (int i = 0; i < WF_CHECKPOINT_VECTORS; i++) {
        vector[i] = NULL;
        if (!want->has[i]) continue;
        WF_TRY(read_vector(file, i, want->floats, &vector[i], err));
        count++;
    }
    if (wf_tensors_count(file) != count) return no_checkpoint(file, "it has other tensors", err);
    *step = (int64_t)number;
    return WEFT_OK;
}

/* The stamp of the pictures, for a trainer that gets them later. */
static weft_status read_stamp(const weft_tensors *file, uint64_t *stamp, weft_error *err)
{
    const char *s = weft_tensors_metadata(file, "pictures");

    *stamp = 0;
    for (; s != NULL && *s >= '0' && *s <= '9'; s++) *stamp = *stamp * 10 + (uint64_t)(*s - '0');
    if (s != NULL && *s == '\0') return WEFT_OK;
    return no_checkpoint(file, "it does not say which pictures", err);
}

static weft_status resume(weft_trainer *t, const weft_tensors *file, weft_error *err)
{
    float *vectors[WF_CHECKPOINT_VECTORS] = { t->values, t->first, t->second, t->mean };
    bool has_pictures = wf_dataset_count(t->data, WF_DATA_INSTANCE) > 0;
    const wf_tensor *vector[WF_CHECKPOINT_VECTORS];
    wf_checkpoint_want want = { .floats = t->floats };
    description d;
    uint64_t stamp, own = wf_dataset_stamp(t->data);
    int64_t step;
    weft_status st = describe(t, has_pictures ? &own : NULL, &d, err);

    for (int i = 0; i < WF_CHECKPOINT_VECTORS; i++) want.has[i] = vectors[i] != NULL;
    want.pairs = d.text;
    want.count = d.count;
    if (st == WEFT_OK) st = wf_checkpoint_read(file, &want, vector, &step, err);
    if (st == WEFT_OK) st = read_stamp(file, &stamp, err);
    wf_bag_free(&d.bag);
    if (st != WEFT_OK) return st;
    for (int i = 0; i < WF_CHECKPOINT_VECTORS; i++)
        if (vectors[i] != NULL) memcpy(vectors[i], vector[i]->data, t->floats * sizeof(float));
    t->step = step;
    t->expected = stamp; /* more could be added before the next step */
    return WEFT_OK;
}

weft_status weft_trainer_resume(weft_trainer *t, const char *path, weft_error *err)
{
    weft_tensors *file = NULL;

    if (t == NULL || path == NULL)
        return wf_fail(err, WEFT_E_ARG, "%s is NULL", t == NULL ? "trainer" : "path");
    WF_TRY(wf_tensors_open(path, false, &t->alloc, &file, err));
    weft_status st = resume(t, file, err);
    weft_tensors_free(file);
    return st;
}
