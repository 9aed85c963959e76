/* fuzz_tokenizer.c - tokenizer files and a prompt, all from one input.
 *
 * Byte 0x1e cuts the input into merges.txt, vocab.json, tokenizer_config.json, special_tokens_map.json, the prompt
 * and added_tokens.json; a part that is missing or empty is NULL. Where the first part begins with '{' it is a tokenizer.json.
 * Whatever comes out: ids lie below the size, and encoding into too little room counts the same. */
#include <stdlib.h>

#include "model/tokenizer.h"

enum { MERGES, VOCAB, CONFIG, SPECIAL, PROMPT, ADDED, PARTS };

typedef struct part {
    const char *text; /* NULL where empty */
    size_t      len;
} part;

static void cut(const uint8_t *data, size_t size, part parts[PARTS])
{
    for (int i = 0; i < PARTS; i++) {
        const uint8_t *end = size > 0 && i + 1 < PARTS ? memchr(data, 0x1e, size) : NULL;

        parts[i].len  = end != NULL ? (size_t)(end - data) : size;
        parts[i].text = parts[i].len > 0 ? (const char *)data : NULL;
        data += parts[i].len + (end != NULL);
        size -= parts[i].len + (end != NULL);
    }
}

static void encode(const wf_tokenizer *t, part p)
{
    char      *prompt = malloc(p.len + 1);
    int32_t    ids[64];
    size_t     needed = 0, again = 0;
    weft_error err;

    if (prompt == NULL) return;
    if (p.len > 0) memcpy(prompt, p.text, p.len);
    prompt[p.len] = '\0';
    if (wf_tokenizer_encode(t, prompt, ids, 64, &needed, &err) == WEFT_OK) {
        for (size_t i = 0; i < needed && i < 64; i++)
            if (ids[i] < 0 || ids[i] >= wf_tokenizer_size(t)) abort();
        if (wf_tokenizer_encode(t, prompt, NULL, 0, &again, &err) != WEFT_OK || again != needed) abort();
    }
    free(prompt);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    part          p[PARTS];
    wf_tokenizer *t = NULL;
    weft_status   st;
    weft_error    err;

    cut(data, size, p);
    wf_tokenizer_source from = { .where = "fuzz", .config = p[CONFIG].text, .config_len = p[CONFIG].len };
    if (p[MERGES].text != NULL && p[MERGES].text[0] == '{') {
        from.whole = p[MERGES].text, from.whole_len = p[MERGES].len;
    } else {
        from.merges = p[MERGES].text != NULL ? p[MERGES].text : "", from.merges_len = p[MERGES].len;
        from.vocab = p[VOCAB].text, from.vocab_len = p[VOCAB].len;
        from.special = p[SPECIAL].text, from.special_len = p[SPECIAL].len;
        from.added = p[ADDED].text, from.added_len = p[ADDED].len;
    }
    st = wf_tokenizer_make(&from, NULL, &t, &err);
    if (st != WEFT_OK && t != NULL) abort();
    if (st == WEFT_OK) encode(t, p[PROMPT]);
    wf_tokenizer_free(t);
    return 0;
}
