/* fuzz_concept.c - any bytes as a file of tokens: the container, its keys, the vectors. */
#include "concept/concept.h"
#include "fuzz.h"

static void look_at(const wf_token_list *list)
{
    must(list->count <= WF_CONCEPT_TOKENS && (list->count == 0 || list->format != NULL));
    for (size_t i = 0; i < list->count; i++) {
        const wf_concept_token *w = &list->tokens[i];
        size_t n = (size_t)WF_MAX(w->layers, w->vectors);
        must(w->name != NULL && w->vectors > 0 && w->layers >= 0 && (w->of[0].v != NULL || w->of[1].v != NULL));
        for (int k = 0; k < 2; k++) {
            must((w->of[k].v != NULL) == (w->of[k].width > 0));
            for (size_t j = 0; j < n * (size_t)w->of[k].width; j++) must(w->of[k].v[j] - w->of[k].v[j] == 0);
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const weft_allocator heap = wf_allocator(NULL);
    weft_tensors        *t = NULL;
    wf_token_list         list;
    weft_error           err;

    weft_status st = wf_tensors_parse(data, size, "fuzz", &heap, &t, &err);
    if (st == WEFT_OK) {
        st = wf_tokens_read(&list, t, "stem", &heap, &err);
        if (st == WEFT_OK) look_at(&list);
        wf_token_list_free(&list);
    }
    must(st == WEFT_OK || one_line(err.text));
    weft_tensors_free(t);
    return 0;
}
