/* The language of prompts: pieces and weights, chunks and commas, and words that a plan adds, against
 * tests/reference/prompts.py, and by hand. */
#include <stdbool.h>

#include "golden.h"
#include "model/prompt.h"

static const weft_allocator *heap(void)
{
    static weft_allocator a;
    a = wf_allocator(NULL);
    return &a;
}

START_TEST(pieces_and_weights)
{
    json_t *index = golden_json("prompts.json"), *cases = json_object_get(index, "parse");
    ck_assert_uint_ge(json_array_size(cases), 40);
    for (size_t i = 0; i < json_array_size(cases); i++) {
        json_t *c = json_array_get(cases, i), *want = json_object_get(c, "pieces");
        const char *text = json_string_value(json_object_get(c, "prompt"));
        wf_prompt p;
        must(wf_prompt_parse(&p, text, true, heap(), &golden_err));
        ck_assert_msg(p.count == json_array_size(want), "%s: %zu pieces, wanted %zu", text, p.count,
                      json_array_size(want));
        for (size_t k = 0; k < p.count; k++) {
            json_t *one = json_array_get(want, k);
            const char *piece = json_string_value(json_array_get(one, 0));
            bool ends = json_array_size(one) == 1;
            ck_assert_msg(p.pieces[k].ends_chunk == ends, "%s: piece %zu", text, k);
            if (ends) continue;
            ck_assert_msg(p.pieces[k].len == strlen(piece) && memcmp(p.text + p.pieces[k].begin, piece, strlen(piece)) == 0,
                          "%s: piece %zu is \"%.*s\", wanted \"%s\"", text, k, (int)p.pieces[k].len,
                          p.text + p.pieces[k].begin, piece);
            ck_assert_msg(fabs(p.pieces[k].weight - json_number_value(json_array_get(one, 1))) < 1e-12,
                          "%s: piece %zu weighs %g", text, k, p.pieces[k].weight);
        }
        wf_prompt_free(&p);
    }
    json_decref(index);
}
END_TEST

/* A number may stand between spaces of any width, as Python's \s has them. */
START_TEST(spaces_around_a_number)
{
    static const char *const prompts[] = { "(a:\xe3\x80\x80" "1.5)", "(a: 1.5\xe3\x80\x80)", "(a:\xc2\xa0" "1.5\xe2\x80\xa8)" };
    for (size_t i = 0; i < WF_LEN(prompts); i++) {
        wf_prompt p;
        must(wf_prompt_parse(&p, prompts[i], true, heap(), &golden_err));
        ck_assert(p.count == 1 && p.len == 1 && p.pieces[0].weight == 1.5);
        wf_prompt_free(&p);
    }
}
END_TEST

static bool has(json_t *flags, const char *name)
{
    for (size_t i = 0; i < json_array_size(flags); i++)
        if (strcmp(json_string_value(json_array_get(flags, i)), name) == 0) return true;
    return false;
}

/* Each chunk as the golden's ids (BOS, tokens, EOS, padding) and weights have it. */
static void check_chunks(const char *what, const wf_chunks *c, const golden *ids, const golden *weights, int32_t eos)
{
    ck_assert_msg(c->count <= ids->n / 77, "%s: %zu chunks", what, c->count);
    for (size_t k = 0; k < c->count; k++) {
        size_t n = c->begin[k + 1] - c->begin[k];
        ck_assert_uint_le(n, 75);
        for (size_t i = 0; i < n; i++) {
            ck_assert_msg(c->ids[c->begin[k] + i] == (int32_t)ids->v[77 * k + 1 + i], "%s: chunk %zu, id %zu", what, k, i);
            ck_assert_float_eq_tol(c->weights[c->begin[k] + i], weights->v[77 * k + 1 + i], 1e-6f);
        }
        ck_assert_msg((int32_t)ids->v[77 * k + 1 + n] == eos, "%s: chunk %zu ends after %zu tokens", what, k, n);
    }
}

START_TEST(chunks_of_every_prompt)
{
    json_t *index = golden_json("prompts.json"), *models = json_object_get(index, "models");
    weft_tensors *t = golden_open("prompts.safetensors");
    for (size_t m = 0; m < json_array_size(models); m++) {
        const char *name = json_string_value(json_object_get(json_array_get(models, m), "name"));
        json_t *cases = json_object_get(json_array_get(models, m), "cases");
        for (int which = 0; which < (strcmp(name, "tiny-sdxl") == 0 ? 2 : 1); which++) {
            wf_tokenizer *tok;
            const char *end = which == 0 ? "" : "_2";
            must(wf_tokenizer_open(data_path("models/%s/tokenizer%s", name, end), NULL, &tok, &golden_err));
            for (size_t i = 0; i < json_array_size(cases); i++) {
                json_t *c = json_array_get(cases, i), *flags = json_object_get(c, "flags");
                const char *one = json_string_value(json_object_get(c, "name"));
                golden ids = golden_read(t, "%s/%s/ids%s", name, one, end);
                golden weights = golden_read(t, "%s/%s/weights%s", name, one, end);
                wf_prompt p;
                wf_chunks chunks;
                must(wf_prompt_parse(&p, json_string_value(json_object_get(c, "prompt")), has(flags, "weights"), heap(),
                                     &golden_err));
                must(wf_prompt_chunk(&chunks, &p, tok, NULL, 75, has(flags, "comma"), &golden_err));
                check_chunks(one, &chunks, &ids, &weights, wf_tokenizer_eos(tok));
                wf_chunks_free(&chunks);
                wf_prompt_free(&p);
                free(ids.v), free(weights.v);
            }
            wf_tokenizer_free(tok);
        }
    }
    weft_tensors_free(t);
    json_decref(index);
}
END_TEST

static void refused(const char *prompt, const char *text)
{
    wf_prompt p;
    ck_assert_int_eq(wf_prompt_parse(&p, prompt, true, heap(), &golden_err), WEFT_E_ARG);
    ck_assert_str_eq(golden_err.text, text);
}

START_TEST(what_is_no_weight)
{
    char deep[300], *huge = calloc(1, 400);
    wf_prompt p;
    refused("(x:1.2.3)", "the prompt's weight \"1.2.3\" is not a number: wanted one like 1.3, or \\) for a bracket that is "
            "meant as text");
    refused("(smile :.)", "the prompt's weight \".\" is not a number: wanted one like 1.3, or \\) for a bracket that is "
            "meant as text");
    refused("((x:99999999999999999999999999999999):99999999)", "the prompt's weights multiply to more than a float holds");
    refused("\xff", "the text to tokenize is not valid UTF-8 at byte 0");
    memset(deep, '(', sizeof deep);
    deep[sizeof deep - 1] = '\0';
    refused(deep, "the prompt opens more than 256 brackets inside each other");
    memset(huge, '9', 399);
    memcpy(huge, "(x:", 3);
    huge[398] = ')';
    ck_assert_int_eq(wf_prompt_parse(&p, huge, true, heap(), &golden_err), WEFT_E_ARG);
    free(huge);
    must(wf_prompt_parse(&p, deep, false, heap(), &golden_err)); /* and is text where weights are not read */
    ck_assert_uint_eq(p.count, 1);
    wf_prompt_free(&p);
}
END_TEST

/* ---- words beside the vocabulary ---- */

static void open_words(wf_extra *word, const char *const *names, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        char *folded;
        must(wf_tokenizer_fold(names[i], heap(), &folded, &word[i].len, &golden_err));
        word[i].text = folded;
    }
}

/* "." a token of the vocabulary, a digit the word of that number */
static void seen(const wf_tokenizer *t, const wf_extras *x, const char *text, const char *want)
{
    int32_t ids[64];
    size_t  n;
    char    got[65] = "";
    must(wf_tokenizer_encode_with(t, x, text, strlen(text), ids, 64, &n, &golden_err));
    ck_assert_uint_le(n, 64);
    for (size_t i = 0; i < n; i++) got[i] = ids[i] >= x->base ? (char)('0' + ids[i] - x->base) : '.';
    got[n] = '\0';
    ck_assert_msg(strcmp(got, want) == 0, "%s: %s, wanted %s", text, got, want);
}

START_TEST(words_are_found_whole)
{
    static const char *const names[] = { "<Cat>", "the", "the cat", "\xc3\xa9t\xc3\xa9", "s1", "  <a  b>\t" };
    wf_extra word[6] = { { 0 } };
    wf_extras x = { word, 6, 5000 };
    wf_tokenizer *t;
    open_words(word, names, 6);
    ck_assert_uint_eq(word[5].len, 5); /* "<a b>" */
    must(wf_tokenizer_open(data_path("models/tiny-sd1/tokenizer"), NULL, &t, &golden_err));
    seen(t, &x, "<cat><CAT>x<cat>", "00.0");
    seen(t, &x, "the", "1");
    seen(t, &x, "the, The; (the)-the_the'the", "1.1..1..1.1.1");
    seen(t, &x, "the cat the  \n cat", "22");
    seen(t, &x, "the1 1the other", "......");
    seen(t, &x, "\xc3\x89T\xc3\x89 e\xcc\x81te\xcc\x81", "33"); /* capitals, and the accents apart */
    seen(t, &x, "s1 s12 as1", "4.....");
    seen(t, &x, "<a b><a\tb><ab>", "55....");
    seen(t, &x, "", "");
    x.count = 0;
    seen(t, &x, "the", ".");
    for (size_t i = 0; i < 6; i++) wf_free(heap(), (void *)(uintptr_t)word[i].text);
    wf_tokenizer_free(t);
}
END_TEST

/* Words of 3 and 75 places: a word is not split over chunks, and the comma moves words as it moves tokens. */
START_TEST(a_word_stays_whole)
{
    static const char *const names[] = { "<w>", "<big>" };
    wf_extra word[2] = { { 0 } };
    wf_extras x = { word, 2, 5000 };
    wf_tokenizer *t;
    wf_prompt p;
    wf_chunks c;
    char prompt[2000] = "";
    open_words(word, names, 2);
    word[0].row = 0, word[0].places = 3;
    word[1].row = 3, word[1].places = 75;
    must(wf_tokenizer_open(data_path("models/tiny-sd1/tokenizer"), NULL, &t, &golden_err));

    for (int i = 0; i < 60; i++) strcat(prompt, "a ");
    strcat(prompt, ", <w> ");
    for (int i = 0; i < 10; i++) strcat(prompt, "b "); /* 60 + 1 + 3 + 10 = 74 */
    strcat(prompt, "(<w>:1.5) c");
    must(wf_prompt_parse(&p, prompt, true, heap(), &golden_err));
    must(wf_prompt_chunk(&c, &p, t, &x, 75, false, &golden_err));
    ck_assert_uint_eq(c.count, 2);
    ck_assert_uint_eq(c.tokens, 78);
    ck_assert_uint_eq(c.begin[1], 74);
    ck_assert_int_eq(c.ids[61], 5000);
    ck_assert_int_eq(c.ids[63], 5002);
    ck_assert_int_eq(c.ids[74], 5000);
    ck_assert_float_eq(c.weights[76], 1.5f);
    ck_assert_float_eq(c.weights[77], 1.0f);
    wf_chunks_free(&c);
    wf_prompt_free(&p);

    strcpy(prompt, "");
    for (int i = 0; i < 60; i++) strcat(prompt, "a ");
    strcat(prompt, ", <w> ");
    for (int i = 0; i < 12; i++) strcat(prompt, "b "); /* 75 is passed: what follows the comma moves, 14 tokens and one */
    must(wf_prompt_parse(&p, prompt, true, heap(), &golden_err));
    must(wf_prompt_chunk(&c, &p, t, &x, 75, true, &golden_err));
    ck_assert_uint_eq(c.count, 2);
    ck_assert_uint_eq(c.begin[1], 61);
    ck_assert_int_eq(c.ids[61], 5000);
    wf_chunks_free(&c);
    wf_prompt_free(&p);

    must(wf_prompt_parse(&p, "a <big> <big>", true, heap(), &golden_err));
    must(wf_prompt_chunk(&c, &p, t, &x, 75, false, &golden_err));
    ck_assert_uint_eq(c.count, 3);
    ck_assert_uint_eq(c.begin[2], 76);
    ck_assert_int_eq(c.ids[150], 5077);
    wf_chunks_free(&c);
    wf_prompt_free(&p);
    for (size_t i = 0; i < 2; i++) wf_free(heap(), (void *)(uintptr_t)word[i].text);
    wf_tokenizer_free(t);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("prompts");
    TCase *c = tcase_create("prompts");
    tcase_add_test(c, pieces_and_weights);
    tcase_add_test(c, spaces_around_a_number);
    tcase_add_test(c, chunks_of_every_prompt);
    tcase_add_test(c, what_is_no_weight);
    tcase_add_test(c, words_are_found_whole);
    tcase_add_test(c, a_word_stays_whole);
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
