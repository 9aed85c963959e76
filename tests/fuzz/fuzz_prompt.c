/* fuzz_prompt.c - any bytes as a prompt: its weights, its chunks, the words that a plan adds.
 *
 * The first byte chooses weights, commas and words; the rest is the prompt, up to a NUL. */
#include "fuzz.h"
#include "model/prompt.h"

enum { ROOM = 75, BASE = 5000 };

static void check_chunks(const wf_chunks *c, size_t rows)
{
    must(c->count > 0 && c->begin[0] == 0 && c->begin[c->count] == c->tokens);
    for (size_t i = 0; i < c->count; i++) must(c->begin[i] <= c->begin[i + 1] && c->begin[i + 1] - c->begin[i] <= ROOM);
    for (size_t i = 0; i < c->tokens; i++) {
        must(c->ids[i] >= 0 && (c->ids[i] < BASE || (size_t)(c->ids[i] - BASE) < rows));
        must(c->weights[i] - c->weights[i] == 0);
    }
}

/* Only the vectors of one word, in their order, stand side by side in one chunk. */
static void check_whole(const wf_chunks *c, const wf_extra *w)
{
    for (size_t k = 0; k < c->count; k++)
        for (size_t i = c->begin[k]; i < c->begin[k + 1]; i++) {
            int32_t at = c->ids[i] - BASE - w->row;
            if (at < 0 || at >= w->places) continue;
            must(at == 0 || (i > c->begin[k] && c->ids[i - 1] == c->ids[i] - 1));
            must(at + 1 == w->places || (i + 1 < c->begin[k + 1] && c->ids[i + 1] == c->ids[i] + 1));
        }
}

/* What is found as misread lies in the prompt, and each is found once. */
static void check_misread(const char *prompt, bool weights)
{
    size_t     n = strlen(prompt), before = 0;
    wf_misread m = { 0 };
    while (wf_prompt_misread(prompt, n, weights, &m)) {
        must(m.len > 0 && m.at < n && m.len <= n - m.at && m.from > before && m.from == m.at + m.len);
        must(wf_misread_says(m.kind) != NULL);
        before = m.from;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char merges[] = "#version: 0.2\na b</w>\nth e</w>\nt h\n";
    static const wf_extra words[] = { { "<w>", 3, 0, 3 }, { "the", 3, 3, 1 }, { "big one", 7, 4, 75 } };
    const weft_allocator heap = wf_allocator(NULL);
    const wf_extras      extras = { words, WF_LEN(words), BASE };
    static wf_tokenizer *t; /* the same for every input */
    wf_prompt            p;
    wf_chunks            c;
    weft_error           err;

    if (size == 0) return 0;
    if (t == NULL)
        must(wf_tokenizer_parse(NULL, 0, merges, sizeof merges - 1, NULL, 0, NULL, 0, &heap, &t, &err) == WEFT_OK);
    char *prompt = malloc(size);
    must(prompt != NULL);
    memcpy(prompt, data + 1, size - 1);
    prompt[size - 1] = '\0';

    weft_status st = wf_prompt_parse(&p, prompt, (data[0] & 1) != 0, &heap, &err);
    if (st == WEFT_OK) {
        must(p.len <= strlen(prompt) && ((data[0] & 1) != 0 || p.count <= 1));
        for (size_t i = 0; i < p.count; i++) must(p.pieces[i].begin + p.pieces[i].len <= p.len);
        check_misread(prompt, (data[0] & 1) != 0);
        st = wf_prompt_chunk(&c, &p, t, (data[0] & 4) != 0 ? &extras : NULL, ROOM, (data[0] & 2) != 0, &err);
        if (st == WEFT_OK) {
            check_chunks(&c, (data[0] & 4) != 0 ? 79 : 0);
            for (size_t i = 0; i < WF_LEN(words); i++) check_whole(&c, &words[i]);
            wf_chunks_free(&c);
        }
        wf_prompt_free(&p);
    }
    must(st == WEFT_OK || (st == WEFT_E_ARG && one_line(err.text)));
    free(prompt);
    return 0;
}
