/* test_tokenizer.c - ids equal those of OpenAI's tokenizer and of transformers; broken files are named; nothing
 * takes long. */
#include <time.h>
#include <unistd.h>

#include "model/tokenizer.h"
#include "sampler/help.h"

static weft_error err;

/* ---- building small tokenizers --------------------------------------------------------------- */

static weft_status parse(const char *vocab, const char *merges, const char *config, const char *special,
                         const weft_allocator *alloc, wf_tokenizer **out)
{
    return wf_tokenizer_parse(vocab, vocab ? strlen(vocab) : 0, merges, merges ? strlen(merges) : 0, config,
                              config ? strlen(config) : 0, special, special ? strlen(special) : 0, alloc, out, &err);
}

static wf_tokenizer *parsed(const char *vocab, const char *merges, const char *config, const char *special)
{
    wf_tokenizer *t = NULL;

    ck_assert_msg(parse(vocab, merges, config, special, NULL, &t) == WEFT_OK, "%s", err.text);
    return t;
}

static void expect_ids(const wf_tokenizer *t, const char *text, const int32_t *want, size_t count)
{
    int32_t ids[2048];
    size_t  needed = 0;

    ck_assert_msg(wf_tokenizer_encode(t, text, ids, COUNT_OF(ids), &needed, &err) == WEFT_OK, "%s", err.text);
    ck_assert_msg(needed == count, "\"%s\": %zu ids, expected %zu", text, needed, count);
    for (size_t i = 0; i < count; i++)
        ck_assert_msg(ids[i] == want[i], "\"%s\": id %zu is %d, expected %d", text, i, ids[i], want[i]);
}

static void expect_json_ids(const wf_tokenizer *t, const char *text, const json_t *want)
{
    static int32_t ids[2048];
    size_t         i;
    const json_t  *v;

    ck_assert_uint_le(json_array_size(want), COUNT_OF(ids));
    json_array_foreach(want, i, v) ids[i] = (int32_t)json_integer_value(v);
    expect_ids(t, text, ids, json_array_size(want));
}

static char *read_file(const char *name, size_t *size)
{
    FILE *f = fopen(data_path(name), "rb");
    char *text = malloc(4 << 20);

    ck_assert_msg(f != NULL, "%s", data_path(name));
    *size = fread(text, 1, (4 << 20) - 1, f);
    text[*size] = '\0';
    fclose(f);
    return text;
}

static wf_tokenizer *published(void)
{
    size_t        size;
    char         *merges = read_file("shared/clip_bpe_merges.txt", &size);
    wf_tokenizer *t = NULL;

    ck_assert_msg(wf_tokenizer_parse(NULL, 0, merges, size, NULL, 0, NULL, 0, NULL, &t, &err) == WEFT_OK, "%s", err.text);
    free(merges);
    return t;
}

/* The ids that follow from merges alone: byte symbols in order of printing, at 256 the same ending a word. */
enum { A = 'a' - 33, A_END = A + 256, B_END = A_END + 1, FIRST_MERGE = 512 };

/* ---- agreement ------------------------------------------------------------------------------- */

START_TEST(published_merges_give_published_ids)
{
    json_t       *all = data_json("shared/clip_tokenizer_vectors.json"), *c;
    wf_tokenizer *t = published();
    size_t        i;

    ck_assert_int_eq(wf_tokenizer_bos(t), 49406);
    ck_assert_int_eq(wf_tokenizer_eos(t), 49407);
    ck_assert_int_eq(wf_tokenizer_pad(t), 49407);
    ck_assert_int_eq(wf_tokenizer_size(t), 49408);
    json_array_foreach(json_object_get(all, "cases"), i, c)
        expect_json_ids(t, text_of(c, "text"), json_object_get(c, "ids"));
    ck_assert_uint_eq(i, 21);
    wf_tokenizer_free(t);
    json_decref(all);
}
END_TEST

/* The tiny models' folders, with ids in no particular order, an unusual padding token, and merges of their own. */
START_TEST(folders_give_the_ids_of_transformers)
{
    json_t *all = data_json("golden/tokenizers.json"), *folder, *c;
    size_t  i, k, seen = 0;

    json_array_foreach(json_object_get(all, "tokenizers"), i, folder) {
        wf_tokenizer *t = NULL;

        ck_assert_msg(wf_tokenizer_open(data_path(text_of(folder, "folder")), NULL, &t, &err) == WEFT_OK, "%s", err.text);
        ck_assert_int_eq(wf_tokenizer_bos(t), (int)number_of(folder, "bos"));
        ck_assert_int_eq(wf_tokenizer_eos(t), (int)number_of(folder, "eos"));
        ck_assert_int_eq(wf_tokenizer_pad(t), (int)number_of(folder, "pad"));
        ck_assert_int_eq(wf_tokenizer_size(t), (int)number_of(folder, "vocab"));
        json_array_foreach(json_object_get(folder, "cases"), k, c) {
            expect_json_ids(t, text_of(c, "text"), json_object_get(c, "ids"));
            seen++;
        }
        wf_tokenizer_free(t);
    }
    ck_assert_uint_ge(seen, 100);
    json_decref(all);
}
END_TEST

/* The same from tokenizer.json, all that transformers 5 writes. */
START_TEST(tokenizer_json_gives_the_same)
{
    json_t *all = data_json("golden/tokenizers.json"), *folder, *c;
    size_t  i, k;

    json_array_foreach(json_object_get(all, "tokenizers"), i, folder) {
        wf_tokenizer *t = NULL;
        char          name[256], *whole, *config;
        size_t        whole_len, config_len;

        snprintf(name, sizeof name, "%s/tokenizer.json", text_of(folder, "folder"));
        whole = read_file(name, &whole_len);
        snprintf(name, sizeof name, "%s/tokenizer_config.json", text_of(folder, "folder"));
        config = read_file(name, &config_len);
        ck_assert_msg(wf_tokenizer_parse_whole(whole, whole_len, config, config_len, NULL, &t, &err) == WEFT_OK, "%s",
                      err.text);
        ck_assert_int_eq(wf_tokenizer_pad(t), (int)number_of(folder, "pad"));
        json_array_foreach(json_object_get(folder, "cases"), k, c)
            expect_json_ids(t, text_of(c, "text"), json_object_get(c, "ids"));
        wf_tokenizer_free(t);
        free(whole);
        free(config);
    }
    json_decref(all);
}
END_TEST

/* ---- the algorithm, by hand ------------------------------------------------------------------ */

/* Merges 0: a a, 1: aa a</w>. "aaaa" = a a a a</w>: the first two merge, then the third has no partner but a</w>
 * ("a a</w>" is no merge), so aa a a</w>. "aaa" = aa a</w> = aaa</w>. */
START_TEST(merges_go_by_rank_then_from_the_left)
{
    wf_tokenizer *t = parsed(NULL, "#version: 0.2\na a\naa a</w>\n", NULL, NULL);
    int32_t       aa = FIRST_MERGE, aaa_end = FIRST_MERGE + 1;

    expect_ids(t, "a", (int32_t[]){ A_END }, 1);
    expect_ids(t, "aa", (int32_t[]){ A, A_END }, 2);
    expect_ids(t, "aaa", (int32_t[]){ aaa_end }, 1);
    expect_ids(t, "aaaa", (int32_t[]){ aa, A, A_END }, 3);
    expect_ids(t, "aaaaa", (int32_t[]){ aa, aaa_end }, 2);
    expect_ids(t, "AAA aaa", (int32_t[]){ aaa_end, aaa_end }, 2);
    wf_tokenizer_free(t);
}
END_TEST

START_TEST(a_later_pair_of_lower_rank_goes_first)
{
    wf_tokenizer *t = parsed(NULL, "b c</w>\na b\nab c</w>\n", NULL, NULL); /* abc: bc</w> first, then no ab */

    expect_ids(t, "abc", (int32_t[]){ A, FIRST_MERGE }, 2);
    wf_tokenizer_free(t);
}
END_TEST

START_TEST(ids_beyond_cap_are_counted_only)
{
    wf_tokenizer *t = parsed(NULL, "", NULL, NULL);
    int32_t       ids[3] = { -7, -7, -7 };
    size_t        needed;

    ck_assert_int_eq(wf_tokenizer_encode(t, "abcd", ids, 2, &needed, &err), WEFT_OK);
    ck_assert_uint_eq(needed, 4);
    ck_assert_int_eq(ids[0], A);
    ck_assert_int_eq(ids[2], -7);
    ck_assert_int_eq(wf_tokenizer_encode(t, "abcd", NULL, 0, &needed, &err), WEFT_OK);
    ck_assert_int_eq(wf_tokenizer_encode(t, "abcd", NULL, 9, NULL, &err), WEFT_OK);
    wf_tokenizer_free(t);
}
END_TEST

/* Two marks in the wrong order, decomposed and composed: one text. */
START_TEST(equal_texts_have_equal_ids)
{
    static const char *const same[] = { "q\xcc\xa3\xcc\x87", "q\xcc\x87\xcc\xa3" }; /* dot below, dot above */
    wf_tokenizer *t = parsed(NULL, "", NULL, NULL);
    int32_t       a[16], b[16];
    size_t        n, m;

    ck_assert_int_eq(wf_tokenizer_encode(t, same[0], a, 16, &n, &err), WEFT_OK);
    ck_assert_int_eq(wf_tokenizer_encode(t, same[1], b, 16, &m, &err), WEFT_OK);
    ck_assert_uint_eq(n, m);
    ck_assert_mem_eq(a, b, n * sizeof *a);
    wf_tokenizer_free(t);
}
END_TEST

/* ---- special tokens -------------------------------------------------------------------------- */

START_TEST(tokens_come_as_strings_or_objects)
{
    const char *vocab = "{\"<s>\": 3, \"</s>\": 7, \"<p>\": 5, \"?\": 9}";
    const char *object = "{\"bos_token\": {\"content\": \"<s>\", \"lstrip\": false}, \"eos_token\": \"</s>\","
                         "\"pad_token\": {\"__type\": \"AddedToken\", \"content\": \"<p>\"}, \"unk_token\": \"?\"}";
    wf_tokenizer *t = parsed(vocab, "", object, NULL);

    ck_assert_int_eq(wf_tokenizer_bos(t), 3);
    ck_assert_int_eq(wf_tokenizer_eos(t), 7);
    ck_assert_int_eq(wf_tokenizer_pad(t), 5);
    ck_assert_int_eq(wf_tokenizer_size(t), 10);
    expect_ids(t, "ab<p> <s>", (int32_t[]){ 9, 9, 5, 3 }, 4); /* no byte is in the vocabulary */
    wf_tokenizer_free(t);

    t = parsed(vocab, "", NULL, object);
    ck_assert_int_eq(wf_tokenizer_pad(t), 5);
    wf_tokenizer_free(t);

    t = parsed(vocab, "", "{\"pad_token\": \"<s>\"}", object); /* the map wins over an old config */
    ck_assert_int_eq(wf_tokenizer_pad(t), 5);
    wf_tokenizer_free(t);

    t = parsed(vocab, "", "{\"pad_token\": \"<s>\", \"added_tokens_decoder\": {}}", object); /* not over a new one */
    ck_assert_int_eq(wf_tokenizer_pad(t), 3);
    wf_tokenizer_free(t);

    t = parsed(vocab, "", "{\"pad_token\": null}",
               "{\"bos_token\": \"<s>\", \"eos_token\": \"</s>\", \"unk_token\": \"?\"}"); /* pads with EOS */
    ck_assert_int_eq(wf_tokenizer_pad(t), 7);
    wf_tokenizer_free(t);
}
END_TEST

START_TEST(added_tokens_are_found_in_the_text)
{
    const char *config = "{\"added_tokens_decoder\": {\"600\": {\"content\": \"<Cat>\"}, \"601\": {\"content\": \"<Cat>s\"},"
                         "\"602\": {\"content\": \"<DOG>\", \"normalized\": true}}}";
    wf_tokenizer *t = parsed(NULL, "", config, NULL);

    ck_assert_int_eq(wf_tokenizer_size(t), 603);
    expect_ids(t, "a<Cat>b", (int32_t[]){ A_END, 600, B_END }, 3);
    expect_ids(t, "<Cat>s", (int32_t[]){ 601 }, 1); /* the longest */
    expect_ids(t, "!<dog>!<Dog>", (int32_t[]){ 256, 602, 256, 602 }, 4);
    wf_tokenizer_free(t);

    t = parsed(NULL, "", NULL, NULL);
    expect_ids(t, "<|startoftext|>a<|endoftext|>", (int32_t[]){ 512, A_END, 513 }, 3);
    wf_tokenizer_free(t);
}
END_TEST

/* ---- refusals -------------------------------------------------------------------------------- */

START_TEST(broken_files_are_named)
{
    static const struct { const char *vocab, *merges, *config, *special; weft_status st; const char *text; } wrong[] = {
        { NULL, NULL, NULL, NULL, WEFT_E_ARG, "merges is NULL" },
        { "{", "", NULL, NULL, WEFT_E_FORMAT, "vocab.json" },
        { "[1]", "", NULL, NULL, WEFT_E_FORMAT, "vocab.json" },
        { "{}", "", NULL, NULL, WEFT_E_FORMAT, "vocabulary has 0 tokens" },
        { "{\"a\": 1.5}", "", NULL, NULL, WEFT_E_FORMAT, "the id of token \"a\" is not a whole number" },
        { "{\"a\": -1}", "", NULL, NULL, WEFT_E_FORMAT, "token \"a\" has id -1, expected 0 to 16777215" },
        { "{\"a\": 16777216}", "", NULL, NULL, WEFT_E_FORMAT, "token \"a\" has id 16777216" },
        { "{\"a\": 1, \"a\": 2}", "", NULL, NULL, WEFT_E_FORMAT, "duplicate" },
        { "{\"\xff\": 1}", "", NULL, NULL, WEFT_E_FORMAT, "vocab.json" },
        { "{\"a\": 1}", "", NULL, NULL, WEFT_E_FORMAT, "bos_token \"<|startoftext|>\" is not in the vocabulary" },
        { "{\"a\": 1, \"<|startoftext|>\": 2}", "", NULL, NULL, WEFT_E_FORMAT, "eos_token \"<|endoftext|>\" is not in" },
        { "{\"a\": 1, \"b\": 2}", "#version\na b\n", NULL, NULL, WEFT_E_FORMAT,
          "merges line 2: the merged symbol \"ab\" is not in the vocabulary" },
        { "{\"a\": 1, \"ab\": 2}", "a b\n", NULL, NULL, WEFT_E_FORMAT, "merges line 1: symbol \"b\" is not in the" },
        { "{\"b\": 1, \"ab\": 2}", "a b\n", NULL, NULL, WEFT_E_FORMAT, "merges line 1: symbol \"a\" is not in the" },
        { NULL, "ab\n", NULL, NULL, WEFT_E_FORMAT, "merges line 1: expected two symbols with one space" },
        { NULL, "a b c\n", NULL, NULL, WEFT_E_FORMAT, "merges line 1: expected two symbols with one space" },
        { NULL, " a\n", NULL, NULL, WEFT_E_FORMAT, "merges line 1: expected two symbols with one space" },
        { NULL, "\n\na \n", NULL, NULL, WEFT_E_FORMAT, "merges line 3: expected two symbols with one space" },
        { NULL, "a b\na \xff\n", NULL, NULL, WEFT_E_FORMAT, "merges line 2: not valid UTF-8" },
        { NULL, "a b\nb c\na b\n", NULL, NULL, WEFT_E_FORMAT, "two merges make \"ab\"" },
        { NULL, "a b\nb c\na bc\nab c\n", NULL, NULL, WEFT_E_FORMAT, "two merges make \"abc\"" },
        { NULL, "#version\na #x\n", NULL, NULL, WEFT_E_FORMAT, "symbol \"#x\" is not in the vocabulary" },
        { NULL, "", "{", NULL, WEFT_E_FORMAT, "tokenizer_config.json" },
        { NULL, "", NULL, "{", WEFT_E_FORMAT, "special_tokens_map.json" },
        { NULL, "", "{\"bos_token\": 3}", NULL, WEFT_E_FORMAT, "bos_token is neither a string nor an object" },
        { NULL, "", NULL, "{\"pad_token\": {\"content\": \"\"}}", WEFT_E_FORMAT, "pad_token is neither" },
        { NULL, "", "{\"pad_token\": \"<none>\"}", NULL, WEFT_E_FORMAT, "pad_token \"<none>\" is not in the vocabulary" },
        { NULL, "", "{\"added_tokens_decoder\": {\"x\": {\"content\": \"yy\"}}}", NULL, WEFT_E_FORMAT, "has id -1" },
        { NULL, "", "{\"added_tokens_decoder\": {\"99999999999999999999\": {\"content\": \"yy\"}}}", NULL, WEFT_E_FORMAT,
          "token \"yy\" has id" },
        { NULL, "", "{\"added_tokens_decoder\": {\"7\": {}}}", NULL, WEFT_E_FORMAT, "added token 7 has no content" },
        { NULL, "", "{\"added_tokens_decoder\": {\"7\": {\"content\": \"!\"}}}", NULL, WEFT_E_FORMAT,
          "token \"!\" is 0 in the vocabulary and 7 among the added tokens" },
        { "{\"<|startoftext|>\": 0, \"<|endoftext|>\": 1, \"!\": 2}", "", "{\"unk_token\": \"<none>\"}", NULL,
          WEFT_E_FORMAT, "the vocabulary has no unk_token, and no symbol \"\xc4\x80\" for byte 0" },
    };

    for (size_t i = 0; i < COUNT_OF(wrong); i++) {
        wf_tokenizer *t = (wf_tokenizer *)&err;

        ck_assert_int_eq(parse(wrong[i].vocab, wrong[i].merges, wrong[i].config, wrong[i].special, NULL, &t), wrong[i].st);
        ck_assert_ptr_null(t);
        ck_assert_msg(strstr(err.text, wrong[i].text) != NULL, "\"%s\" is not in \"%s\"", wrong[i].text, err.text);
    }
}
END_TEST

START_TEST(a_nul_or_a_long_symbol_is_refused)
{
    wf_tokenizer *t;
    char          merges[4096];

    ck_assert_int_eq(wf_tokenizer_parse(NULL, 0, "a \0b\n", 5, NULL, 0, NULL, 0, NULL, &t, &err), WEFT_E_FORMAT);
    memset(merges, 'a', sizeof merges);
    merges[2000] = ' ';
    ck_assert_int_eq(wf_tokenizer_parse(NULL, 0, merges, sizeof merges, NULL, 0, NULL, 0, NULL, &t, &err), WEFT_E_FORMAT);
    ck_assert_str_eq(err.text, "tokenizer: merges line 1: the symbols are too long");
}
END_TEST

START_TEST(tokenizer_json_of_another_kind_is_refused)
{
    static const struct { const char *json; weft_status st; const char *text; } wrong[] = {
        { "{}", WEFT_E_FORMAT, "no model with a vocab and merges" },
        { "{\"model\": {\"vocab\": [], \"merges\": []}}", WEFT_E_FORMAT, "no model with a vocab and merges" },
        { "{\"model\": {\"vocab\": {\"a\": 1}, \"merges\": []}}", WEFT_E_UNSUPPORTED, "it is not CLIP's" },
        { "{\"model\": {\"vocab\": {\"a\": 1}, \"merges\": [3], \"end_of_word_suffix\": \"</w>\"}}", WEFT_E_FORMAT,
          "merges line 1: expected two symbols" },
        { "{\"model\": {\"vocab\": {\"a\": 1, \"aa\": 2}, \"merges\": [\"a a\", [\"a\", \"b\"]],"
          "\"end_of_word_suffix\": \"</w>\"}}", WEFT_E_FORMAT, "merges line 2: symbol \"b\"" },
        { "{\"model\": {\"vocab\": {\"a\": 1}, \"merges\": [], \"end_of_word_suffix\": \"</w>\"},"
          "\"added_tokens\": [{\"content\": \"x\"}]}", WEFT_E_FORMAT, "token \"x\" has id -1" },
    };

    for (size_t i = 0; i < COUNT_OF(wrong); i++) {
        wf_tokenizer *t;

        ck_assert_int_eq(wf_tokenizer_parse_whole(wrong[i].json, strlen(wrong[i].json), NULL, 0, NULL, &t, &err),
                         wrong[i].st);
        ck_assert_msg(strstr(err.text, wrong[i].text) != NULL, "%s", err.text);
    }
}
END_TEST

START_TEST(texts_that_are_none_are_refused)
{
    static const struct { const char *text; const char *why; } wrong[] = {
        { "ab\xff", "at byte 2" }, { "\xc3", "at byte 0" }, { "a\xed\xa0\x80", "at byte 1" }, { "\xc0\x80", "at byte 0" },
        { "\xf5\x80\x80\x80", "at byte 0" },
    };
    wf_tokenizer *t = parsed(NULL, "", NULL, NULL);
    char         *huge = malloc((1 << 20) + 2);
    size_t        needed;

    for (size_t i = 0; i < COUNT_OF(wrong); i++) {
        ck_assert_int_eq(wf_tokenizer_encode(t, wrong[i].text, NULL, 0, &needed, &err), WEFT_E_ARG);
        ck_assert_msg(strstr(err.text, wrong[i].why) != NULL, "%s", err.text);
        ck_assert_uint_eq(needed, 0);
    }
    ck_assert_int_eq(wf_tokenizer_encode(t, NULL, NULL, 0, &needed, &err), WEFT_E_ARG);
    memset(huge, 'a', (1 << 20) + 1);
    huge[(1 << 20) + 1] = '\0';
    ck_assert_int_eq(wf_tokenizer_encode(t, huge, NULL, 0, &needed, &err), WEFT_E_ARG);
    ck_assert_str_eq(err.text, "the text to tokenize has 1048577 bytes, expected at most 1048576");
    free(huge);
    wf_tokenizer_free(t);
    wf_tokenizer_free(NULL);
}
END_TEST

static void write_file(const char *folder, const char *name, const char *text)
{
    char  path[512];
    FILE *f;

    snprintf(path, sizeof path, "%s/%s", folder, name);
    if (text == NULL) {
        remove(path);
        return;
    }
    f = fopen(path, "wb");
    ck_assert_ptr_nonnull(f);
    fputs(text, f);
    fclose(f);
}

START_TEST(a_folder_says_what_it_lacks)
{
    char          folder[] = "/tmp/weft-tokenizer-XXXXXX", want[256];
    wf_tokenizer *t;
    const char   *whole = "{\"model\": {\"vocab\": {\"<|startoftext|>\": 0, \"<|endoftext|>\": 1}, \"merges\": [],"
                          "\"end_of_word_suffix\": \"</w>\"}}";

    ck_assert_ptr_nonnull(mkdtemp(folder));
    ck_assert_int_eq(wf_tokenizer_open("/nowhere/at/all", NULL, &t, &err), WEFT_E_IO);
    ck_assert_str_eq(err.text, "/nowhere/at/all: no such folder");
    ck_assert_int_eq(wf_tokenizer_open(folder, NULL, &t, &err), WEFT_E_IO);
    snprintf(want, sizeof want, "%s: no vocab.json: a tokenizer is vocab.json and merges.txt, or tokenizer.json", folder);
    ck_assert_str_eq(err.text, want);
    write_file(folder, "vocab.json", "{\"<|startoftext|>\": 0, \"<|endoftext|>\": 1}");
    ck_assert_int_eq(wf_tokenizer_open(folder, NULL, &t, &err), WEFT_E_IO);
    ck_assert_ptr_nonnull(strstr(err.text, "no merges.txt"));
    write_file(folder, "merges.txt", "a b\n");
    ck_assert_int_eq(wf_tokenizer_open(folder, NULL, &t, &err), WEFT_E_FORMAT);
    snprintf(want, sizeof want, "%s: merges line 1: symbol \"a\" is not in the vocabulary", folder);
    ck_assert_str_eq(err.text, want);
    write_file(folder, "merges.txt", "");
    ck_assert_int_eq(wf_tokenizer_open(folder, NULL, &t, &err), WEFT_OK);
    wf_tokenizer_free(t);
    write_file(folder, "tokenizer_config.json", "nonsense");
    ck_assert_int_eq(wf_tokenizer_open(folder, NULL, &t, &err), WEFT_E_FORMAT);
    write_file(folder, "tokenizer_config.json", NULL);
    write_file(folder, "merges.txt", NULL);
    write_file(folder, "tokenizer.json", whole);
    ck_assert_msg(wf_tokenizer_open(folder, NULL, &t, &err) == WEFT_OK, "%s", err.text);
    ck_assert_int_eq(wf_tokenizer_eos(t), 1);
    wf_tokenizer_free(t);
    write_file(folder, "tokenizer.json", NULL);
    write_file(folder, "vocab.json", NULL);
    rmdir(folder);
}
END_TEST

/* Folders as older and newer programs leave them: tokens in added_tokens.json or added_tokens_decoder, a length of
 * 1e30, byte order marks, other ends of lines. */
START_TEST(folders_of_any_age_give_the_ids_of_transformers)
{
    static const char *const names[] = { "vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json",
                                         "added_tokens.json" };
    json_t *all = data_json("golden/vocabularies.json"), *f, *c;
    size_t  i, k, size;
    char    folder[] = "/tmp/weft-tokenizer-XXXXXX", name[256];

    ck_assert_ptr_nonnull(mkdtemp(folder));
    json_array_foreach(json_object_get(all, "folders"), i, f) {
        wf_tokenizer *t = NULL;
        for (size_t n = 0; n < COUNT_OF(names); n++) {
            const char *given = text_of(json_object_get(f, "files"), names[n]);
            snprintf(name, sizeof name, "models/tiny-sd1/tokenizer/%s", names[n]);
            char *text = given != NULL ? strdup(given) : n < 4 ? read_file(name, &size) : NULL;
            char *marked = text != NULL ? malloc(strlen(text) + 4) : NULL;
            if (marked != NULL) sprintf(marked, "%s%s", json_array_size(json_object_get(f, "mark")) > 0 ? "\xef\xbb\xbf" : "", text);
            write_file(folder, names[n], marked);
            free(text);
            free(marked);
        }
        ck_assert_msg(wf_tokenizer_open(folder, NULL, &t, &err) == WEFT_OK, "%s: %s", text_of(f, "name"), err.text);
        ck_assert_int_eq(wf_tokenizer_size(t), (int)number_of(f, "size"));
        json_array_foreach(json_object_get(f, "cases"), k, c)
            expect_json_ids(t, text_of(c, "text"), json_object_get(c, "ids"));
        wf_tokenizer_free(t);
    }
    ck_assert_uint_eq(i, 7);
    for (size_t n = 0; n < COUNT_OF(names); n++) write_file(folder, names[n], NULL);
    rmdir(folder);
    json_decref(all);
}
END_TEST

/* ---- what must agree ------------------------------------------------------------------------- */

static json_t *whole_vocabulary(void) { return data_json("models/tiny-sd1/tokenizer/vocab.json"); }

static void refused_as(json_t *vocab, const char *merges, const char *config, const char *want)
{
    wf_tokenizer *t;
    char         *text = json_dumps(vocab, 0);

    ck_assert_msg(parse(text, merges, config, NULL, NULL, &t) == WEFT_E_FORMAT, "opened: %s", want);
    ck_assert_str_eq(err.text, want);
    free(text);
    json_decref(vocab);
}

static int64_t id_of(const json_t *vocab, const char *token)
{
    ck_assert_ptr_nonnull(json_object_get(vocab, token));
    return json_integer_value(json_object_get(vocab, token));
}

/* Two tokens with one id, an id without a token, a token that no merge makes: tiny-sd1's 770 have ids 0 to 769. */
START_TEST(a_damaged_vocabulary_is_refused)
{
    size_t  size;
    char   *merges = read_file("models/tiny-sd1/tokenizer/merges.txt", &size), want[256];
    json_t *v = whole_vocabulary();
    int64_t id = id_of(v, "the</w>");

    json_object_set_new(v, "of</w>", json_integer(id));
    snprintf(want, sizeof want, " have one id, %d", (int)id);
    char *text = json_dumps(v, 0);
    wf_tokenizer *t;
    ck_assert_int_eq(parse(text, merges, NULL, NULL, NULL, &t), WEFT_E_FORMAT);
    ck_assert_msg(strstr(err.text, "\"of</w>\"") != NULL && strstr(err.text, "\"the</w>\"") != NULL &&
                  strstr(err.text, want) != NULL, "%s", err.text);
    free(text);
    json_decref(v);

    v = whole_vocabulary();
    id = id_of(v, "the</w>");
    json_object_set_new(v, "the</w>", json_integer(9999));
    ck_assert_int_eq(id_of(v, "<|endoftext|>"), 769);
    snprintf(want, sizeof want, "tokenizer: no token has the id %d, the next is ", (int)id);
    text = json_dumps(v, 0);
    ck_assert_int_eq(parse(text, merges, NULL, NULL, NULL, &t), WEFT_E_FORMAT);
    ck_assert_msg(strncmp(err.text, want, strlen(want)) == 0, "%s", err.text);
    free(text);
    json_decref(v);

    v = whole_vocabulary();
    json_object_set_new(v, "zebra</w>", json_integer(770));
    refused_as(v, merges, NULL, "tokenizer: no merge makes 1 of the vocabulary's 771 tokens, the first of them \"zebra</w>\": "
                                "merges are missing");
    refused_as(whole_vocabulary(), merges, "{\"added_tokens_decoder\": {\"768\": {\"content\": \"<cat>\"}}}",
               "tokenizer: the tokens \"<|startoftext|>\" and \"<cat>\" have one id, 768");
    refused_as(whole_vocabulary(), merges, "{\"added_tokens_decoder\": {\"800\": {\"content\": \"<a>\"},"
               "\"0800\": {\"content\": \"<b>\"}}}", "tokenizer: the tokens \"<a>\" and \"<b>\" have one id, 800");
    free(merges);
}
END_TEST

/* What stands in the vocabulary without a merge is a token if something names it; ids may be filled by added ones. */
START_TEST(a_named_token_needs_no_merge)
{
    size_t        size;
    char         *merges = read_file("models/tiny-sd1/tokenizer/merges.txt", &size), *text;
    json_t       *v = whole_vocabulary();
    wf_tokenizer *t;

    json_object_set_new(v, "<new1>", json_integer(770));
    json_object_set_new(v, "<new2>", json_integer(772));
    text = json_dumps(v, 0);
    t = parsed(text, merges, "{\"additional_special_tokens\": [\"<new1>\", {\"content\": \"<new2>\"}, \"<absent>\"],"
                             "\"added_tokens_decoder\": {\"771\": {\"content\": \"<cat>\"}}}", NULL);
    ck_assert_int_eq(wf_tokenizer_size(t), 773);
    expect_ids(t, "<new1><cat><new2>", (int32_t[]){ 770, 771, 772 }, 3);
    wf_tokenizer_free(t);
    free(text);
    free(merges);
    json_decref(v);
}
END_TEST

/* The file cut after each of its lines, and each line left out: every time some token is out of reach. The same in a
 * tokenizer.json. */
START_TEST(a_list_of_merges_with_a_hole_is_refused)
{
    size_t        size, count = 0, line[300];
    char         *merges = read_file("models/tiny-sd1/tokenizer/merges.txt", &size), *cut = malloc(size + 1);
    json_t       *v = whole_vocabulary(), *whole = data_json("models/tiny-sd1/tokenizer/tokenizer.json");
    char         *text = json_dumps(v, 0);
    wf_tokenizer *t;

    for (size_t i = 0; i < size; i++)
        if (i == 0 || merges[i - 1] == '\n') line[count++] = i;
    line[count] = size;
    ck_assert_uint_eq(count, 257); /* with the title */
    wf_tokenizer_free(parsed(text, merges, NULL, NULL));
    for (size_t i = 1; i < count; i++) {
        ck_assert_int_eq(wf_tokenizer_parse(text, strlen(text), merges, line[i], NULL, 0, NULL, 0, NULL, &t, &err), WEFT_E_FORMAT);
        memcpy(cut, merges, line[i]);
        memcpy(cut + line[i], merges + line[i + 1], size - line[i + 1]);
        cut[size - (line[i + 1] - line[i])] = '\0';
        ck_assert_msg(parse(text, cut, NULL, NULL, NULL, &t) == WEFT_E_FORMAT, "without line %zu", i + 1);
        ck_assert_msg(strstr(err.text, "no merge makes 1 of the vocabulary's 770 tokens") != NULL, "%s", err.text);
    }
    json_array_remove(json_object_get(json_object_get(whole, "model"), "merges"), 100);
    free(text);
    text = json_dumps(whole, 0);
    ck_assert_int_eq(wf_tokenizer_parse_whole(text, strlen(text), NULL, 0, NULL, &t, &err), WEFT_E_FORMAT);
    ck_assert_msg(strstr(err.text, "no merge makes 1 of the vocabulary's 770 tokens") != NULL, "%s", err.text);
    free(text);
    free(cut);
    free(merges);
    json_decref(v);
    json_decref(whole);
}
END_TEST

/* ---- cost and memory ------------------------------------------------------------------------- */

static double seconds_for(const wf_tokenizer *t, const char *text)
{
    clock_t begin = clock();
    size_t  needed;

    ck_assert_int_eq(wf_tokenizer_encode(t, text, NULL, 0, &needed, &err), WEFT_OK);
    ck_assert_uint_gt(needed, 0);
    return (double)(clock() - begin) / CLOCKS_PER_SEC;
}

/* One word of a megabyte, a megabyte of marks in the worst order, of one-byte pieces, of almost-special tokens: a square
 * of any of them would take minutes. */
START_TEST(no_text_takes_long)
{
    static const char *const units[] = { "a", "ab", "aaab", "\xcc\x87\xcc\xa3", "1", "<|startoftext|", "'", "a \xc3\xa9" };
    const size_t  size = 1 << 20;
    wf_tokenizer *t = published();
    char         *text = malloc(size + 1);

    for (size_t i = 0; i < COUNT_OF(units); i++) {
        size_t unit = strlen(units[i]), used = 0;

        while (used + unit <= size) memcpy(text + used, units[i], unit), used += unit;
        text[used] = '\0';
        ck_assert_double_lt(seconds_for(t, text), 10);
    }
    memset(text, 0, size); /* half a megabyte of marks of one class, then of a lower one */
    for (size_t i = 0; i + 1 < size; i += 2) memcpy(text + i, i < size / 2 ? "\xcc\x87" : "\xcc\xa3", 2);
    text[size] = '\0';
    ck_assert_double_lt(seconds_for(t, text), 10);
    free(text);
    wf_tokenizer_free(t);
}
END_TEST

START_TEST(every_allocation_may_fail)
{
    const char *config = "{\"added_tokens_decoder\": {\"600\": {\"content\": \"<c>\", \"normalized\": true}}}";
    const char *vocab = "{\"<|startoftext|>\": 0, \"<|endoftext|>\": 1, \"a\": 2, \"a</w>\": 3, \"aa</w>\": 4}";
    const char *whole = "{\"model\": {\"vocab\": {\"<|startoftext|>\": 0, \"<|endoftext|>\": 1}, \"merges\": [],"
                        "\"end_of_word_suffix\": \"</w>\"}}";
    const char *folder = data_path("models/tiny-sd1/tokenizer");

    for (int way = 0; way < 4; way++) {
        weft_status st = WEFT_E_NOMEM;

        for (long n = 0; st != WEFT_OK; n++) {
            counting       c = { n, 0, 0 };
            weft_allocator alloc = counting_allocator(&c);
            wf_tokenizer  *t = NULL;
            size_t         needed;

            ck_assert_int_lt(n, 100);
            if (way == 0) st = parse(NULL, "a a\n", config, NULL, &alloc, &t);
            if (way == 1) st = parse(vocab, "a a</w>\n", config, NULL, &alloc, &t);
            if (way == 2) st = wf_tokenizer_parse_whole(whole, strlen(whole), NULL, 0, &alloc, &t, &err);
            if (way == 3) st = wf_tokenizer_open(folder, &alloc, &t, &err);
            if (st == WEFT_OK) st = wf_tokenizer_encode(t, "aa <c> \xc3\xa9 and a longer piece", NULL, 0, &needed, &err);
            if (st != WEFT_OK) ck_assert_int_eq(st, WEFT_E_NOMEM);
            wf_tokenizer_free(t);
            ck_assert_int_eq(c.out, 0);
        }
    }
}
END_TEST

int main(void)
{
    Suite *s = suite_create("tokenizer");
    TCase *agree = tcase_create("agreement"), *rules = tcase_create("rules"), *refusals = tcase_create("refusals");
    TCase *cost = tcase_create("cost");

    tcase_add_test(agree, published_merges_give_published_ids);
    tcase_add_test(agree, folders_give_the_ids_of_transformers);
    tcase_add_test(agree, tokenizer_json_gives_the_same);
    tcase_add_test(agree, folders_of_any_age_give_the_ids_of_transformers);
    tcase_add_test(rules, a_named_token_needs_no_merge);
    tcase_add_test(rules, merges_go_by_rank_then_from_the_left);
    tcase_add_test(rules, a_later_pair_of_lower_rank_goes_first);
    tcase_add_test(rules, ids_beyond_cap_are_counted_only);
    tcase_add_test(rules, equal_texts_have_equal_ids);
    tcase_add_test(rules, tokens_come_as_strings_or_objects);
    tcase_add_test(rules, added_tokens_are_found_in_the_text);
    tcase_add_test(refusals, broken_files_are_named);
    tcase_add_test(refusals, a_nul_or_a_long_symbol_is_refused);
    tcase_add_test(refusals, tokenizer_json_of_another_kind_is_refused);
    tcase_add_test(refusals, texts_that_are_none_are_refused);
    tcase_add_test(refusals, a_folder_says_what_it_lacks);
    tcase_add_test(refusals, a_damaged_vocabulary_is_refused);
    tcase_add_test(refusals, a_list_of_merges_with_a_hole_is_refused);
    tcase_add_test(cost, no_text_takes_long);
    tcase_add_test(cost, every_allocation_may_fail);
    tcase_set_timeout(cost, 120);
    suite_add_tcase(s, agree);
    suite_add_tcase(s, rules);
    suite_add_tcase(s, refusals);
    suite_add_tcase(s, cost);
    return run_suite(s);
}
