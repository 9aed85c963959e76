/* FreeFuse: where words are found in the image, and the masks that share it out, against a re-statement on top of diffusers
 * (tests/reference/make_locate.py); and what is refused. */
#include <math.h>

#include "base/base.h"
#include "golden.h"
#include "plain.h"
#include "run/run_internal.h"

static json_t *book;

static double real(json_t *o, const char *key) { return json_number_value(json_object_get(o, key)); }
static const char *word(json_t *o, const char *key) { return json_string_value(json_object_get(o, key)); }

typedef struct scene {
    weft_tensors *t;
    json_t       *entry;
    weft_model   *model;
    weft_plan    *plan;
    weft_run     *run;
    weft_subject  subject[2];
    int32_t       rows[2][32];
    golden        latent, streams[2][2]; /* [half][stream] */
    size_t        count;                 /* streams        */
    float        *out;
} scene;

static weft_plan *merged(const scene *s)
{
    weft_plan *plan;
    json_t    *paths = json_object_get(s->entry, "adapters"), *weights = json_object_get(s->entry, "weights");

    must(weft_plan_create(s->model, NULL, &plan, &golden_err));
    for (size_t i = 0; i < json_array_size(paths); i++) {
        weft_adapter *a;
        must(weft_adapter_open(data_path("%s", json_string_value(json_array_get(paths, i))), NULL, &a, &golden_err));
        must(weft_plan_add(plan, a, (float)json_number_value(json_array_get(weights, i)), NULL, &golden_err));
        weft_adapter_free(a);
    }
    return plan;
}

static void begin(scene *s, size_t model, int32_t threads, int32_t batch)
{
    static const char *const side[] = { "uncond", "cond" };
    weft_run_options ro = WEFT_RUN_OPTIONS_INIT;
    json_t          *rows;

    *s = (scene){ .t = golden_open("locate.safetensors"), .entry = json_array_get(json_object_get(book, "models"), model) };
    const char *name = word(s->entry, "name");
    s->count = strstr(name, "sdxl") != NULL ? 2 : 1;
    must(weft_model_open(data_path("%s", word(s->entry, "model")), NULL, &s->model, &golden_err));
    s->latent = golden_read(s->t, "%s/latent", name);
    for (int h = 0; h < 2; h++)
        for (size_t k = 0; k < s->count; k++) s->streams[h][k] = golden_read(s->t, "%s/%s%s", name, side[h], k > 0 ? "_pooled" : "");
    s->plan = merged(s);
    must(weft_plan_seal(s->plan, 10, &golden_err));
    ro.threads = threads;
    ro.batch = batch;
    ro.height = 12, ro.width = 16;
    must(weft_run_create(s->plan, &ro, &s->run, &golden_err));
    rows = json_object_get(s->entry, "rows");
    for (size_t i = 0; i < 2; i++) {
        json_t *list = json_array_get(rows, i);
        weft_subject_init(&s->subject[i], sizeof s->subject[i]);
        for (size_t k = 0; k < json_array_size(list); k++) s->rows[i][k] = (int32_t)json_integer_value(json_array_get(list, k));
        s->subject[i].count = json_array_size(list);
        s->subject[i].tokens = s->rows[i];
    }
    s->out = malloc(s->latent.n * (size_t)batch * sizeof *s->out);
}

static void end(scene *s)
{
    free(s->out), free(s->latent.v);
    for (int h = 0; h < 2; h++)
        for (size_t k = 0; k < s->count; k++) free(s->streams[h][k].v);
    weft_run_free(s->run);
    weft_plan_free(s->plan);
    weft_model_free(s->model);
    weft_tensors_free(s->t);
}

static weft_locate_options wanted(const scene *s, json_t *c)
{
    weft_locate_options o = WEFT_LOCATE_OPTIONS_INIT;
    o.subjects = s->subject;
    o.subject_count = 2;
    o.block = c != NULL ? word(c, "block") : NULL;
    o.share = c != NULL ? (float)real(c, "share") : 0;
    o.temperature = c != NULL ? (float)real(c, "temperature") : 0;
    return o;
}

static void step(scene *s, const float *latent, size_t n, uint32_t flags)
{
    weft_step st = WEFT_STEP_INIT;
    weft_text text[2][2];

    for (int h = 0; h < 2; h++)
        for (size_t k = 0; k < s->count; k++) {
            weft_text_init(&text[h][k], sizeof text[h][k]);
            text[h][k].data = s->streams[h][k].v;
            text[h][k].len = s->streams[h][k].n;
            text[h][k].tokens = k == 0 ? (int32_t)s->streams[h][k].shape[1] : 0;
        }
    st.flags = flags;
    st.latent = latent;
    st.latent_len = st.out_len = n;
    st.out = s->out;
    st.text = text[1], st.negative = text[0];
    st.text_count = st.negative_count = s->count;
    st.timestep = (float)real(book, "timestep");
    st.guidance = (float)real(book, "guidance");
    must(weft_run_step(s->run, &st, &golden_err));
}

static size_t size_of(const scene *s)
{
    int32_t h, w;
    must(weft_run_located_size(s->run, &h, &w, &golden_err));
    return 2 * (size_t)h * (size_t)w;
}

START_TEST(maps_and_masks_are_their_restatement)
{
    scene   s;
    json_t *cases;

    begin(&s, (size_t)_i, 2, 1);
    cases = json_object_get(s.entry, "cases");
    for (size_t i = 0; i < json_array_size(cases); i++) {
        json_t             *c = json_array_get(cases, i);
        weft_locate_options o = wanted(&s, c);
        golden maps = golden_read(s.t, "%s/maps", word(c, "key")), masks = golden_read(s.t, "%s/masks", word(c, "key"));
        golden pred = golden_read(s.t, "%s/pred", word(s.entry, "name"));
        must(weft_run_locate(s.run, &o, &golden_err));
        for (int split = 0; split < 2; split++) {
            step(&s, s.latent.v, s.latent.n, split ? WEFT_STEP_SPLIT_GUIDANCE : 0);
            near_golden("pred", s.out, pred.v, pred.n, 1e-5);
            ck_assert_uint_eq(size_of(&s), maps.n);
            float *got = malloc(maps.n * sizeof *got);
            must(weft_run_located(s.run, 0, WEFT_LOCATED_MAPS, got, maps.n, &golden_err));
            near_golden(word(c, "key"), got, maps.v, maps.n, 3e-5);
            must(weft_run_located(s.run, 0, WEFT_LOCATED_MASKS, got, maps.n, &golden_err));
            ck_assert_mem_eq(got, masks.v, masks.n * sizeof *got);
            free(got);
        }
        free(maps.v), free(masks.v), free(pred.v);
    }
    end(&s);
}
END_TEST

/* Masks of maps that are much larger than any network's here: 96 x 128, three subjects. */
START_TEST(masks_share_the_image_evenly)
{
    enum { H = 96, W = 128, N = H * W };
    float *maps = malloc(3 * N * sizeof *maps);
    int    count[3] = { 0 };

    for (int l = 0; l < 3; l++)
        for (int p = 0; p < N; p++) {
            double x = p % W / (double)W - 0.25 * (l + 1), y = p / W / (double)H - 0.5;
            maps[l * N + p] = (float)((l == 0 ? 1.02e-4 : 1e-4) * exp(-4 * (x * x + y * y))); /* the first is a little stronger */
        }
    const weft_allocator heap = wf_allocator(NULL);
    must(wf_share_image(maps, 3, H, W, &heap, &golden_err));
    for (int p = 0; p < N; p++) {
        ck_assert_float_eq(maps[p] + maps[N + p] + maps[2 * N + p], 1);
        for (int l = 0; l < 3; l++) count[l] += maps[l * N + p] > 0;
    }
    for (int l = 0; l < 3; l++) ck_assert_msg(count[l] > N / 5 && count[l] < N / 2, "%d: %d of %d", l, count[l], N);
    ck_assert_float_eq(maps[N / 2 + 2], 1);                 /* the left edge is the first's */
    ck_assert_float_eq(maps[2 * N + N / 2 + W - 3], 1);     /* the right edge the last's    */
    free(maps);
}
END_TEST

START_TEST(even_maps_are_shared_by_place)
{
    const weft_allocator heap = wf_allocator(NULL);
    weft_tensors *t = golden_open("locate.safetensors");
    golden        maps = golden_read(t, "flat/maps"), masks = golden_read(t, "flat/masks");

    must(wf_share_image(maps.v, (int32_t)maps.shape[0], (int32_t)maps.shape[1], (int32_t)maps.shape[2], &heap, &golden_err));
    ck_assert_mem_eq(maps.v, masks.v, masks.n * sizeof *masks.v);
    free(maps.v), free(masks.v);
    weft_tensors_free(t);
}
END_TEST

/* What is located changes no bit of a prediction; each sample of a batch has its own, for any number of threads. */
START_TEST(a_step_is_the_same_step)
{
    scene  s;
    float *plain, *two, *maps[2];
    size_t n, m;

    begin(&s, 0, 1, 1);
    n = s.latent.n;
    plain = malloc(n * sizeof *plain);
    step(&s, s.latent.v, n, 0);
    memcpy(plain, s.out, n * sizeof *plain);
    weft_locate_options o = wanted(&s, NULL);
    must(weft_run_locate(s.run, &o, &golden_err));
    step(&s, s.latent.v, n, 0);
    ck_assert_mem_eq(plain, s.out, n * sizeof *plain);
    m = size_of(&s);
    for (int i = 0; i < 2; i++) maps[i] = malloc(m * sizeof *maps[i]);
    must(weft_run_located(s.run, 0, WEFT_LOCATED_MAPS, maps[0], m, &golden_err));
    must(weft_run_locate(s.run, NULL, &golden_err));
    ck_assert_int_eq(weft_run_located(s.run, 0, 0, maps[1], m, &golden_err), WEFT_E_STATE);
    end(&s);

    begin(&s, 0, 3, 2);
    two = malloc(2 * n * sizeof *two);
    for (size_t i = 0; i < n; i++) two[i] = -s.latent.v[i], two[n + i] = s.latent.v[i];
    o = wanted(&s, NULL);
    must(weft_run_locate(s.run, &o, &golden_err));
    step(&s, two, 2 * n, 0);
    ck_assert_mem_eq(plain, s.out + n, n * sizeof *plain);
    must(weft_run_located(s.run, 1, WEFT_LOCATED_MAPS, maps[1], m, &golden_err));
    ck_assert_mem_eq(maps[0], maps[1], m * sizeof *maps[0]);
    must(weft_run_located(s.run, 0, WEFT_LOCATED_MAPS, maps[1], m, &golden_err));
    ck_assert(memcmp(maps[0], maps[1], m * sizeof *maps[0]) != 0);
    end(&s);
    free(plain), free(two), free(maps[0]), free(maps[1]);
}
END_TEST

START_TEST(words_stand_where_they_stand)
{
    json_t *words = json_object_get(book, "words"), *rows;
    scene   s;

    for (size_t model = 0; model < 2; model++) {
        begin(&s, model, 1, 1);
        rows = json_object_get(s.entry, "rows");
        for (size_t i = 0; i < 2; i++) {
            int32_t at[32];
            size_t  n, want = json_array_size(json_array_get(rows, i));
            must(weft_plan_find_words(s.plan, word(book, "prompt"), json_string_value(json_array_get(words, i)), 0, at, 32, &n, &golden_err));
            ck_assert_uint_eq(n, want);
            for (size_t k = 0; k < n; k++) ck_assert_int_eq(at[k], json_integer_value(json_array_get(json_array_get(rows, i), k)));
            must(weft_plan_find_words(s.plan, word(book, "prompt"), json_string_value(json_array_get(words, i)), 0, NULL, 0, &n, &golden_err));
            ck_assert_uint_eq(n, want);
        }
        int32_t at[200];
        size_t  n, one;
        must(weft_plan_find_words(s.plan, "cat cat cat", "cat cat", 0, at, 8, &n, &golden_err)); /* overlapping places count once */
        must(weft_plan_find_words(s.plan, "cat", "cat", 0, at, 8, &one, &golden_err));
        ck_assert_uint_eq(n, 3 * one);
        char long_prompt[600] = "";
        for (int i = 0; i < 60; i++) strcat(long_prompt, "a mat, ");
        strcat(long_prompt, "a red cat");
        must(weft_plan_find_words(s.plan, long_prompt, "red cat", 0, at, 200, &n, &golden_err));
        ck_assert_int_gt(at[0], 77); /* in a later chunk, behind its BOS */
        must(weft_plan_find_words(s.plan, "a (red cat:1.3)", "red cat", WEFT_ENCODE_WEIGHTS, at, 200, &n, &golden_err));
        ck_assert_int_eq(weft_plan_find_words(s.plan, "a dog", "cat", 0, at, 8, &n, &golden_err), WEFT_E_MISMATCH);
        ck_assert_str_eq(golden_err.text, "the words 'cat' are not in the prompt 'a dog'");
        ck_assert_int_eq(weft_plan_find_words(s.plan, "a dog", "", 0, at, 8, &n, &golden_err), WEFT_E_MISMATCH);
        end(&s);
    }
}
END_TEST

static void refuses(scene *s, weft_locate_options o, weft_status code, const char *words)
{
    ck_assert_msg(weft_run_locate(s->run, &o, &golden_err) == code, "%s", golden_err.text);
    ck_assert_msg(strstr(golden_err.text, words) != NULL, "'%s' is not in: %s", words, golden_err.text);
}

static int stop_there(void *user, const char *what, int64_t done, int64_t total)
{
    (void)what, (void)total;
    return *(int64_t *)user > 0 && done >= *(int64_t *)user;
}

/* Notes of a call that was cancelled inside, that failed, or whose text is too short are none; nor are those of another plan. */
START_TEST(only_whole_notes_count)
{
    scene            s;
    weft_run_options ro = WEFT_RUN_OPTIONS_INIT;
    int64_t          at = 0;
    int32_t          late = 100;
    float           *maps[2], *bad;
    weft_plan       *other;
    weft_step        st = WEFT_STEP_INIT;
    weft_text        text[1] = { WEFT_TEXT_INIT };

    begin(&s, 0, 1, 1);
    weft_run_free(s.run);
    ro.threads = 1, ro.height = 12, ro.width = 16;
    ro.progress = stop_there, ro.progress_user = &at;
    must(weft_run_create(s.plan, &ro, &s.run, &golden_err));
    weft_locate_options o = wanted(&s, NULL);
    must(weft_run_locate(s.run, &o, &golden_err));
    step(&s, s.latent.v, s.latent.n, 0);
    size_t n = size_of(&s);
    for (int i = 0; i < 2; i++) maps[i] = malloc(n * sizeof *maps[i]);
    must(weft_run_located(s.run, 0, 0, maps[0], n, &golden_err));

    text->data = s.streams[1][0].v, text->len = s.streams[1][0].n, text->tokens = 77;
    st.latent = s.latent.v, st.latent_len = st.out_len = s.latent.n, st.out = s.out;
    st.text = text, st.text_count = 1, st.timestep = 500;
    for (at = 1; at < 400; at += 7) { /* wherever it is stopped, there is nothing, or what was there before */
        weft_status end = weft_run_step(s.run, &st, &golden_err);
        if (end == WEFT_OK) break;
        ck_assert_int_eq(end, WEFT_E_CANCELLED);
        end = weft_run_located(s.run, 0, 0, maps[1], n, &golden_err);
        if (end == WEFT_OK) ck_assert_mem_eq(maps[0], maps[1], n * sizeof *maps[0]);
        else ck_assert_int_eq(end, WEFT_E_STATE);
    }
    ck_assert_int_gt((int)at, 100);
    at = 0;
    must(weft_run_step(s.run, &st, &golden_err));
    must(weft_run_located(s.run, 0, 0, maps[1], n, &golden_err));
    ck_assert(memcmp(maps[0], maps[1], n * sizeof *maps[0]) != 0);

    bad = malloc(s.latent.n * sizeof *bad); /* a latent that is no number */
    memcpy(bad, s.latent.v, s.latent.n * sizeof *bad);
    bad[5] = NAN;
    st.latent = bad;
    ck_assert_int_eq(weft_run_step(s.run, &st, &golden_err), WEFT_E_ARG);
    ck_assert_int_eq(weft_run_located(s.run, 0, 0, maps[1], n, &golden_err), WEFT_E_STATE);
    st.latent = s.latent.v;

    must(weft_run_step(s.run, &st, &golden_err));
    other = merged(&s);
    must(weft_plan_seal(other, 10, &golden_err));
    must(weft_run_set_plan(s.run, other, &golden_err));
    ck_assert_int_eq(weft_run_located(s.run, 0, 0, maps[1], n, &golden_err), WEFT_E_STATE);
    weft_plan_free(other);

    s.subject[1].tokens = &late, s.subject[1].count = 1; /* the run has room for it, the text has not */
    o = wanted(&s, NULL);
    must(weft_run_locate(s.run, &o, &golden_err));
    must(weft_run_step(s.run, &st, &golden_err));
    ck_assert_int_eq(weft_run_located(s.run, 0, 0, maps[1], n, &golden_err), WEFT_E_STATE);
    free(maps[0]), free(maps[1]), free(bad);
    end(&s);
}
END_TEST

START_TEST(what_cannot_be_located_is_refused)
{
    scene               s;
    float               values[512];
    int32_t             h, w, far = 1000;
    weft_locate_options o;
    weft_subject        bad[2];

    begin(&s, 0, 1, 1);
    ck_assert_int_eq(weft_run_located_size(s.run, &h, &w, &golden_err), WEFT_E_STATE);
    o = wanted(&s, NULL), o.subject_count = 1;
    refuses(&s, o, WEFT_E_ARG, "1 subjects, wanted 2 to 64");
    o = wanted(&s, NULL), o.share = 1.5f;
    refuses(&s, o, WEFT_E_ARG, "share is 1.5, wanted 0 to 1");
    o = wanted(&s, NULL), o.temperature = -1;
    refuses(&s, o, WEFT_E_ARG, "temperature is -1");
    o = wanted(&s, NULL), o.block = "mid_block.nothing";
    refuses(&s, o, WEFT_E_MISMATCH, "no transformer block mid_block.nothing");
    memcpy(bad, s.subject, sizeof bad);
    o = wanted(&s, NULL), o.subjects = bad;
    bad[1].count = 0;
    refuses(&s, o, WEFT_E_ARG, "subject 1 has 0 tokens");
    bad[1] = s.subject[1], bad[0].tokens = &far, bad[0].count = 1;
    refuses(&s, o, WEFT_E_ARG, "is row 1000 of the text");
    o = wanted(&s, NULL);
    must(weft_run_locate(s.run, &o, &golden_err));
    ck_assert_int_eq(weft_run_located(s.run, 0, 0, values, size_of(&s), &golden_err), WEFT_E_STATE);
    ck_assert_msg(strstr(golden_err.text, "nothing is located") != NULL, "%s", golden_err.text);
    step(&s, s.latent.v, s.latent.n, 0);
    ck_assert_int_eq(weft_run_located(s.run, 1, 0, values, size_of(&s), &golden_err), WEFT_E_ARG);
    ck_assert_int_eq(weft_run_located(s.run, 0, 2, values, size_of(&s), &golden_err), WEFT_E_ARG);
    ck_assert_int_eq(weft_run_located(s.run, 0, 0, values, size_of(&s) - 1, &golden_err), WEFT_E_ARG);
    end(&s);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("words in the image");
    TCase *t = tcase_create("locate");

    book = json_load_file(data_path("golden/locate.json"), 0, NULL);
    if (book == NULL) return EXIT_FAILURE;
    tcase_set_timeout(t, 120);
    tcase_add_loop_test(t, maps_and_masks_are_their_restatement, 0, (int)json_array_size(json_object_get(book, "models")));
    tcase_add_test(t, masks_share_the_image_evenly);
    tcase_add_test(t, even_maps_are_shared_by_place);
    tcase_add_test(t, a_step_is_the_same_step);
    tcase_add_test(t, words_stand_where_they_stand);
    tcase_add_test(t, only_whole_notes_count);
    tcase_add_test(t, what_cannot_be_located_is_refused);
    suite_add_tcase(suite, t);
    SRunner *r = srunner_create(suite);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    json_decref(book);
    return failed != 0;
}
