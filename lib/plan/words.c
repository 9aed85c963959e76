/* words.c - the words that concepts give to a plan's prompts. */
#include "model/parts.h"
#include "model/prompt.h"
#include "plan/method.h"
#include "weft/run.h"

const wf_words  *wf_plan_words(const weft_plan *p) { (void)p; return NULL; }
const wf_extras *wf_words_extras(const wf_words *w, int32_t encoder) { (void)w, (void)encoder; return NULL; }
size_t           wf_words_rows(const wf_words *w) { (void)w; return 0; }
const char      *wf_words_name(const wf_words *w, int32_t row) { (void)w, (void)row; return ""; }
int32_t          wf_words_layers(const wf_words *w, int32_t row) { (void)w, (void)row; return 0; }

void wf_words_fill(const wf_words *w, int32_t encoder, int32_t layer, const float **rows)
{
    (void)w, (void)encoder, (void)layer, (void)rows;
}

weft_status weft_plan_prompt_size(const weft_plan *plan, const char *prompt, uint32_t flags, int32_t *tokens,
                                  int32_t *chunks, weft_error *err)
{
    bool      cut = (flags & WEFT_ENCODE_TRUNCATE) != 0, comma = (flags & WEFT_ENCODE_COMMA) != 0 && !cut;
    size_t    most = 0, needed = 0;
    wf_prompt p;

    if (plan == NULL || prompt == NULL)
        return wf_fail(err, WEFT_E_ARG, "weft_plan_prompt_size: %s is NULL", plan == NULL ? "plan" : "prompt");
    if ((flags & ~WF_ENCODE_FLAGS) != 0)
        return wf_fail(err, WEFT_E_UNSUPPORTED, "weft_plan_prompt_size: flags are %u, of which some are not known", flags);
    WF_TRY(wf_model_need_tokenizer(plan->model, err));
    const wf_parts *parts = wf_model_parts(plan->model);
    weft_status     st = wf_prompt_parse(&p, prompt, (flags & WEFT_ENCODE_WEIGHTS) != 0, &plan->alloc, err);
    for (int i = 0; i < 2 && st == WEFT_OK; i++) {
        wf_chunks c;
        if (parts->text[i] == NULL) continue;
        size_t room = (size_t)wf_clip_get_config(parts->text[i])->positions - 2;
        st = wf_prompt_chunk(&c, &p, parts->tokenizer[i], wf_words_extras(wf_plan_words(plan), i), room, comma, err);
        if (st != WEFT_OK) break;
        most = WF_MAX(most, c.tokens);
        needed = WF_MAX(needed, cut ? 1 : c.count);
        wf_chunks_free(&c);
    }
    wf_prompt_free(&p);
    if (st != WEFT_OK) return st;
    if (tokens != NULL) *tokens = (int32_t)most;
    if (chunks != NULL) *chunks = (int32_t)needed;
    return WEFT_OK;
}
