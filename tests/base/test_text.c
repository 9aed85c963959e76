/* Growing strings, copying out, patterns, UTF-8, and the map from strings to numbers. */
#include "support.h"

START_TEST(a_text_grows)
{
    test_memory    m;
    weft_allocator a = test_allocator(&m);
    wf_text        t;

    wf_text_init(&t, &a);
    ck_assert_ptr_null(t.s);
    for (int i = 0; i < 1000; i++) wf_text_add(&t, "%d,", i);
    wf_text_add(&t, "%0300d", 7);
    wf_text_bytes(&t, "\0x", 2);
    ck_assert(!t.failed);
    ck_assert_uint_eq(t.len, 10 * 2 + 90 * 3 + 900 * 4 + 300 + 2);
    ck_assert_int_eq(memcmp(t.s, "0,1,2,", 6), 0);
    ck_assert_int_eq(t.s[t.len], 0);
    wf_text_free(&t);
    wf_text_free(&t);
    ck_assert_uint_eq(m.live_blocks, 0);
}
END_TEST

START_TEST(a_text_remembers_that_memory_ran_out)
{
    test_memory    m;
    weft_allocator a = test_allocator(&m);
    wf_text        t;

    m.fail_at = 2;
    wf_text_init(&t, &a);
    wf_text_add(&t, "kept");
    wf_text_add(&t, "%0400d", 1);
    ck_assert(t.failed);
    ck_assert_str_eq(t.s, "kept");
    m.fail_at = 0;
    wf_text_add(&t, "too late");
    ck_assert_str_eq(t.s, "kept");
    wf_text_free(&t);
    ck_assert_uint_eq(m.live_blocks, 0);
}
END_TEST

START_TEST(copying_out_cuts_at_a_character)
{
    char   buf[8];
    size_t needed = 0;

    wf_copy_out("abc", 3, buf, sizeof buf, &needed);
    ck_assert_str_eq(buf, "abc");
    ck_assert_uint_eq(needed, 4);
    wf_copy_out("ab\xc3\xa9z", 5, buf, 4, &needed);
    ck_assert_str_eq(buf, "ab");
    ck_assert_uint_eq(needed, 6);
    wf_copy_out("ab\xc3\xa9z", 5, buf, 5, NULL);
    ck_assert_str_eq(buf, "ab\xc3\xa9");
    wf_copy_out("abc", 3, NULL, 0, &needed);
    ck_assert_uint_eq(needed, 4);
    wf_copy_out("abc", 3, buf, 1, NULL);
    ck_assert_str_eq(buf, "");
    wf_copy_out(NULL, 0, buf, 1, &needed);
    ck_assert_uint_eq(needed, 1);
}
END_TEST

START_TEST(formatting_cuts_at_a_character)
{
    char buf[6];

    ck_assert(wf_format(buf, sizeof buf, "%d-%s", 12, "ab"));
    ck_assert_str_eq(buf, "12-ab");
    ck_assert(!wf_format(buf, sizeof buf, "%s", "abcdefgh"));
    ck_assert_str_eq(buf, "abcde");
    ck_assert(!wf_format(buf, sizeof buf, "abcd%s", "\xc3\xa9"));
    ck_assert_str_eq(buf, "abcd");
    ck_assert(!wf_format(buf, sizeof buf, "abc%sd", "\xc3\xa9"));
    ck_assert_str_eq(buf, "abc\xc3\xa9");
    ck_assert(!wf_format(buf, sizeof buf, "ab%s", "\xf0\x9f\x98\x80"));
    ck_assert_str_eq(buf, "ab");
    ck_assert(!wf_format(buf, 1, "%s", "abc"));
    ck_assert_str_eq(buf, "");
}
END_TEST

START_TEST(patterns_match_whole_names)
{
    static const struct { const char *patterns, *name; bool match; } cases[] = {
        { "*", "anything", true },         { "*", "", true },
        { "a", "a", true },                { "a", "ab", false },
        { "a", "ba", false },              { "a*", "abc", true },
        { "*c", "abc", true },             { "*b*", "abc", true },
        { "a?c", "abc", true },            { "a?c", "ac", false },
        { "?", "\xc3\xa9", true },         { "??", "\xc3\xa9", false },
        { "*.to_q,*.to_k", "x.to_k", true }, { "*.to_q, *.to_k", "x.to_k", true },
        { "*.to_q,*.to_k", "x.to_v", false }, { "", "a", false },
        { "", "", false },                 { ",,", "", false },
        { "*a*b", "aXbXab", true },        { "*a*b", "aXbXa", false },
        { "a**b", "ab", true },            { "*aab", "aaaaab", true },
        { "unet.*attn2*", "unet.down_blocks.0.attn2.to_q", true },
        { NULL, "a", false },
    };

    for (size_t i = 0; i < WF_LEN(cases); i++)
        ck_assert_msg(wf_glob_any(cases[i].patterns, cases[i].name) == cases[i].match, "\"%s\" on \"%s\"",
                      cases[i].patterns ? cases[i].patterns : "NULL", cases[i].name);
}
END_TEST

/* Against a matcher that is too slow to be wrong: all patterns and names of up to 5 of "a*?" and "ab". */
static bool slow_glob(const char *p, const char *s)
{
    if (*p == '\0') return *s == '\0';
    if (*p == '*')  return slow_glob(p + 1, s) || (*s != '\0' && slow_glob(p, s + 1));
    return *s != '\0' && (*p == '?' || *p == *s) && slow_glob(p + 1, s + 1);
}

static void spell(char *out, unsigned code, unsigned length, const char *letters, unsigned n)
{
    for (unsigned i = 0; i < length; i++, code /= n) out[i] = letters[code % n];
    out[length] = '\0';
}

START_TEST(patterns_agree_with_the_definition)
{
    char p[8], s[8];

    for (unsigned pl = 1, pn = 4; pl <= 5; pl++, pn *= 4)
        for (unsigned i = 0; i < pn; i++)
            for (unsigned sl = 0, sn = 1; sl <= 5; sl++, sn *= 2)
                for (unsigned j = 0; j < sn; j++) {
                    spell(p, i, pl, "ab*?", 4);
                    spell(s, j, sl, "ab", 2);
                    if (wf_glob_any(p, s) != slow_glob(p, s)) ck_abort_msg("\"%s\" on \"%s\"", p, s);
                    wf_glob_tidy(p); /* says the same, and no star stands beside another */
                    if (wf_glob_any(p, s) != slow_glob(p, s) || strstr(p, "**") != NULL)
                        ck_abort_msg("tidied to \"%s\" on \"%s\"", p, s);
                }
}
END_TEST

START_TEST(a_pattern_of_many_stars_is_not_slow)
{
    char name[20001], pattern[201];

    memset(name, 'a', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    for (size_t i = 0; i < sizeof pattern - 1; i += 2) memcpy(pattern + i, "*a", 3);
    pattern[199] = 'b';
    ck_assert(!wf_glob_any(pattern, name));
}
END_TEST

START_TEST(utf8_is_checked)
{
    static const struct { const char *s; size_t n; bool valid; } cases[] = {
        { "", 0, true }, { "abc", 3, true }, { "a\0c", 3, false }, { "\xc3\xa9", 2, true }, { "\xc3", 1, false },
        { "\xa9", 1, false }, { "\xc0\x80", 2, false }, { "\xc1\xbf", 2, false }, { "\xe0\x9f\xbf", 3, false },
        { "\xe0\xa0\x80", 3, true }, { "\xed\x9f\xbf", 3, true }, { "\xed\xa0\x80", 3, false },
        { "\xee\x80\x80", 3, true }, { "\xef\xbf\xbf", 3, true }, { "\xf0\x8f\xbf\xbf", 4, false },
        { "\xf0\x90\x80\x80", 4, true }, { "\xf4\x8f\xbf\xbf", 4, true }, { "\xf4\x90\x80\x80", 4, false },
        { "\xf8\x88\x80\x80\x80", 5, false }, { "\xff", 1, false }, { "\xe2\x82\x28", 3, false },
    };

    for (size_t i = 0; i < WF_LEN(cases); i++)
        ck_assert_msg(wf_utf8_valid(cases[i].s, cases[i].n) == cases[i].valid, "case %zu", i);
}
END_TEST

/* ---- map ---- */

START_TEST(a_map_keeps_the_first_value)
{
    test_memory    m;
    weft_allocator a = test_allocator(&m);
    wf_map         map;
    bool           added;

    ck_assert_int_eq(wf_map_init(&map, &a, 0, NULL), WEFT_OK);
    ck_assert_int_eq(wf_map_get(&map, "x"), -1);
    ck_assert_int_eq(wf_map_put(&map, "x", 5, &added, NULL), WEFT_OK);
    ck_assert(added);
    ck_assert_int_eq(wf_map_put(&map, "x", 6, &added, NULL), WEFT_OK);
    ck_assert(!added);
    ck_assert_int_eq(wf_map_get(&map, "x"), 5);
    ck_assert_int_eq(wf_map_put(&map, "", 7, NULL, NULL), WEFT_OK);
    ck_assert_int_eq(wf_map_get(&map, ""), 7);
    wf_map_free(&map);
    ck_assert_int_eq(wf_map_get(&map, "x"), -1);
    wf_map_free(&map);
    ck_assert_uint_eq(m.live_blocks, 0);
}
END_TEST

#define MANY 20000

START_TEST(a_map_grows_to_any_size)
{
    static char    keys[MANY][64];
    test_memory    m;
    weft_allocator a = test_allocator(&m);
    wf_map         map;

    ck_assert_int_eq(wf_map_init(&map, &a, _i == 0 ? 0 : MANY, NULL), WEFT_OK);
    for (int i = 0; i < MANY; i++) {
        snprintf(keys[i], sizeof keys[i], "%.*s%d", i % 40, "unet.down_blocks.0.attentions.0.transformer", i);
        ck_assert_int_eq(wf_map_put(&map, keys[i], i, NULL, NULL), WEFT_OK);
    }
    ck_assert_uint_eq(map.count, MANY);
    for (int i = 0; i < MANY; i++)
        if (wf_map_get(&map, keys[i]) != i) ck_abort_msg("%s", keys[i]);
    ck_assert_int_eq(wf_map_get(&map, "unet"), -1);
    if (_i == 1) ck_assert_uint_eq(m.calls, 2);  /* an expected size is taken at once */
    wf_map_free(&map);
    ck_assert_uint_eq(m.live_blocks, 0);
}
END_TEST

START_TEST(a_map_without_memory_stays_whole)
{
    static const char keys[20][3] = { "a", "b", "c", "d", "e", "f", "g", "h", "i", "j",
                                      "k", "l", "m", "n", "o", "p", "q", "r", "s", "t" };

    for (size_t n = 1; n <= 4; n++) {
        test_memory    m;
        weft_allocator a = test_allocator(&m);
        weft_error     err = { 0, 0, "" };
        wf_map         map;
        weft_status    st;
        int64_t        i = 0;

        m.fail_at = n;
        st = wf_map_init(&map, &a, 0, &err);
        while (st == WEFT_OK && i < 20)
            if ((st = wf_map_put(&map, keys[i], i, NULL, &err)) == WEFT_OK) i++;
        ck_assert_int_eq(st, WEFT_E_NOMEM);
        ck_assert_int_eq(err.code, WEFT_E_NOMEM);
        for (int64_t k = 0; k < i; k++) ck_assert_int_eq(wf_map_get(&map, keys[k]), k);
        wf_map_free(&map);
        ck_assert_uint_eq(m.live_blocks, 0);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("text");
    TCase *c = tcase_create("all");

    tcase_add_test(c, a_text_grows);
    tcase_add_test(c, a_text_remembers_that_memory_ran_out);
    tcase_add_test(c, copying_out_cuts_at_a_character);
    tcase_add_test(c, formatting_cuts_at_a_character);
    tcase_add_test(c, patterns_match_whole_names);
    tcase_add_test(c, patterns_agree_with_the_definition);
    tcase_add_test(c, a_pattern_of_many_stars_is_not_slow);
    tcase_add_test(c, utf8_is_checked);
    tcase_add_test(c, a_map_keeps_the_first_value);
    tcase_add_loop_test(c, a_map_grows_to_any_size, 0, 2);
    tcase_add_test(c, a_map_without_memory_stays_whole);
    suite_add_tcase(suite, c);
    return run_suite(suite);
}
