/* fuzz_plan.c - any bytes as a plan in JSON: what is loaded can be saved, and is loaded again as the same.
 *
 * The files that it may name are those of tests/data; the model is a tiny one. */
#include <stdio.h>
#include <unistd.h>

#include "fuzz.h"
#include "weft/weft.h"

static weft_model *model;
static char        folder[512];

static void begin(void)
{
    const char *root = getenv("WEFT_TESTS");
    char        path[512];
    weft_error  err;

    if (root == NULL) root = "tests";
    snprintf(path, sizeof path, "%s/data/models/tiny-sd1", root);
    snprintf(folder, sizeof folder, "%s/data/adapters", root);
    must(weft_model_open(path, NULL, &model, &err) == WEFT_OK);
}

static weft_status load(const char *text, size_t size, weft_plan **out, weft_error *err)
{
    weft_plan_load_options o = WEFT_PLAN_LOAD_OPTIONS_INIT;
    o.folder = folder;
    return weft_plan_from_json(model, text, size, &o, out, err);
}

static char *text_of(const weft_plan *p)
{
    weft_error err;
    size_t     needed;

    must(weft_plan_to_json(p, NULL, NULL, 0, &needed, &err) == WEFT_OK);
    char *text = malloc(needed);
    must(text != NULL && weft_plan_to_json(p, NULL, text, needed, NULL, &err) == WEFT_OK);
    return text;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    weft_plan *p = NULL, *q = NULL;
    weft_error err;

    if (model == NULL) begin();
    if (load((const char *)data, size, &p, &err) != WEFT_OK) {
        must(p == NULL && one_line(err.text));
        return 0;
    }
    char *once = text_of(p), hash[65], again[65];
    must(load(once, strlen(once), &q, &err) == WEFT_OK);
    char *twice = text_of(q);
    must(strcmp(once, twice) == 0);
    must(weft_plan_hash(p, hash, sizeof hash, &err) == WEFT_OK);
    must(weft_plan_hash(q, again, sizeof again, &err) == WEFT_OK);
    must(strcmp(hash, again) == 0);
    free(once);
    free(twice);
    weft_plan_free(p);
    weft_plan_free(q);
    return 0;
}
