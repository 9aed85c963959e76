/* Pictures and captions to train on: prepared as by Pillow, drawn as in Python (tests/reference/make_dataset.py), latents
 * as a run encodes them, and folders that are not what they should be, each refused by name. */
#include <sys/stat.h>
#include <unistd.h>

#include "../base/support.h"
#include "golden.h"
#include "io/io.h"
#include "train/dataset.h"

static weft_allocator heap;
static weft_error     err;
static char           dir[256], said[4096];

static void log_line(void *user, int32_t level, const char *line)
{
    (void)user, (void)level;
    strncat(said, line, sizeof said - strlen(said) - 2);
    strcat(said, "\n");
}

static void setup(void)
{
    heap = wf_allocator(NULL);
    said[0] = '\0';
    snprintf(dir, sizeof dir, "%s", test_dir());
}

static void teardown(void)
{
    char command[300];
    snprintf(command, sizeof command, "rm -rf '%s'", dir);
    ck_assert_int_eq(system(command), 0);
}

static void good(weft_status st) { ck_assert_msg(st == WEFT_OK, "%s: %s", weft_status_name(st), err.text); }

static void bad(weft_status st, weft_status want, const char *words)
{
    ck_assert_msg(st == want, "%s, wanted %s: %s", weft_status_name(st), weft_status_name(want), st == WEFT_OK ? "" : err.text);
    ck_assert_msg(strstr(err.text, words) != NULL, "'%s' is not in: %s", words, err.text);
    check_one_line(&err);
}

static wf_dataset_options plain(int32_t width, int32_t height)
{
    return (wf_dataset_options){ .width = width, .height = height, .factor = 2, .log = log_line };
}

static wf_dataset *make(const wf_dataset_options *o)
{
    wf_dataset *set;
    good(wf_dataset_create(&set, o, &heap, &err));
    return set;
}

static const char *in_dir(const char *name)
{
    static char path[4][512];
    static int  turn;
    char *p = path[turn++ % 4];
    snprintf(p, 512, "%s/%s", dir, name);
    return p;
}

static void put(const char *name, const char *text)
{
    FILE *f = fopen(in_dir(name), "wb");
    ck_assert_ptr_nonnull(f);
    fputs(text, f);
    fclose(f);
}

static void put_png(const char *name, int32_t w, int32_t h, uint8_t shade)
{
    uint8_t *rgb = malloc((size_t)(3 * w * h));
    for (int32_t i = 0; i < 3 * w * h; i++) rgb[i] = (uint8_t)(shade + i * 7);
    good(weft_png_write(in_dir(name), rgb, (size_t)(3 * w * h), w, h, NULL, 0, &err));
    free(rgb);
}

static void add_blank(wf_dataset *set, wf_data_list list, int32_t w, int32_t h)
{
    uint8_t *rgb = calloc((size_t)(3 * w * h), 1);
    good(wf_dataset_add_pixels(set, list, rgb, (size_t)(3 * w * h), w, h, "x", &err));
    free(rgb);
}

/* ---- pixels ---- */

static const struct { const char *name; int32_t w, h; } sizes[] = {
    { "same", 64, 64 }, { "wide", 64, 64 }, { "tall", 64, 64 }, { "large", 64, 64 }, { "broad", 96, 64 },
    { "high", 48, 96 }, { "small", 64, 64 }, { "odd", 64, 64 },
};

/* The golden's bytes, and every float the one that its byte stands for. */
START_TEST(pictures_are_prepared_as_by_pillow)
{
    weft_tensors *t = golden_open("dataset.safetensors");
    const char   *name = sizes[_i].name;
    int32_t       w = sizes[_i].w, h = sizes[_i].h, flips = 0;
    golden        p = golden_read(t, "picture/%s", name);
    uint8_t      *rgb = malloc(p.n);
    float        *image = malloc((size_t)(3 * w * h) * sizeof *image);
    wf_dataset_options o = plain(w, h);

    o.flip = true;
    o.allow_small = strcmp(name, "small") == 0;
    wf_dataset *set = make(&o);
    for (size_t i = 0; i < p.n; i++) rgb[i] = (uint8_t)p.v[i];
    good(wf_dataset_add_pixels(set, WF_DATA_INSTANCE, rgb, p.n, (int32_t)p.shape[1], (int32_t)p.shape[0], "x", &err));
    for (uint64_t position = 0; position < 16; position++) {
        wf_sample s;
        good(wf_dataset_draw(set, WF_DATA_INSTANCE, 1, position, &s, &err));
        golden want = golden_read(t, "%s/%s", s.flip ? "mirrored" : "prepared", name);
        ck_assert_uint_eq(want.n, (size_t)(3 * w * h));
        good(wf_dataset_image(set, &s, image, &err));
        for (int32_t y = 0; y < h; y++)
            for (int32_t x = 0; x < w; x++)
                for (int32_t c = 0; c < 3; c++) {
                    float byte = want.v[(y * w + x) * 3 + c], v = image[(c * h + y) * w + x];
                    ck_assert_msg(fabsf(v - (byte / 127.5f - 1)) < 1e-6f, "%s: (%d, %d, %d) is %g of byte %g", name, c, y, x,
                                  (double)v, (double)byte);
                }
        flips += s.flip;
        free(want.v);
    }
    ck_assert(flips > 0 && flips < 16);
    wf_dataset_free(set);
    free(p.v), free(rgb), free(image);
    weft_tensors_free(t);
}
END_TEST

/* ---- draws ---- */

static int64_t number(const json_t *o, const char *key, size_t i)
{
    const json_t *v = json_object_get(o, key);
    return json_integer_value(json_is_array(v) ? json_array_get(v, i) : v);
}

static bool flag(const json_t *o, const char *key) { return json_is_true(json_object_get(o, key)); }

static uint64_t word(const json_t *o, const char *key)
{
    return strtoull(json_string_value(json_object_get(o, key)), NULL, 10);
}

START_TEST(draws_are_those_of_python)
{
    json_t *j = golden_json("dataset.json"), *c, *d;
    size_t  i, k;

    json_array_foreach(json_object_get(j, "cases"), i, c) {
        json_t *of = json_object_get(c, "options"), *pictures = json_object_get(of, "pictures"), *p;
        wf_dataset_options o = { .width = (int32_t)number(of, "width", 0), .height = (int32_t)number(of, "height", 0),
                                 .factor = 8, .flip = flag(of, "flip"), .random_crop = flag(of, "random_crop"),
                                 .augment = flag(of, "augment") };
        wf_data_list list = (wf_data_list)number(c, "list", 0);
        wf_dataset  *set = make(&o);
        json_array_foreach(pictures, k, p)
            add_blank(set, list, (int32_t)json_integer_value(json_array_get(p, 0)), (int32_t)json_integer_value(json_array_get(p, 1)));
        json_array_foreach(json_object_get(c, "draws"), k, d) {
            wf_sample   s;
            const char *phrase = json_string_value(json_object_get(d, "phrase"));
            good(wf_dataset_draw(set, list, word(c, "seed"), (uint64_t)number(d, "position", 0), &s, &err));
            ck_assert_uint_eq(s.picture, (size_t)number(d, "picture", 0));
            ck_assert_uint_eq(s.epoch, (uint64_t)number(d, "epoch", 0));
            ck_assert_int_eq(s.flip, number(d, "flip", 0));
            ck_assert(s.resized_w == number(d, "resized", 0) && s.resized_h == number(d, "resized", 1));
            ck_assert(s.left == number(d, "cut", 0) && s.top == number(d, "cut", 1));
            ck_assert(s.cut_w == number(d, "cut", 2) && s.cut_h == number(d, "cut", 3));
            ck_assert(s.at_x == number(d, "at", 0) && s.at_y == number(d, "at", 1));
            ck_assert((phrase == NULL) == (s.phrase == NULL));
            if (phrase != NULL) ck_assert_ptr_nonnull(strstr(s.phrase, phrase));
            ck_assert_uint_eq(s.seed, word(d, "seed"));
            ck_assert_uint_eq(s.spare_seed, word(d, "spare"));
        }
        wf_dataset_free(set);
    }
    json_decref(j);
}
END_TEST

START_TEST(every_picture_comes_once_in_an_epoch)
{
    wf_dataset_options o = plain(8, 8);
    wf_dataset *set = make(&o);
    wf_sample   s, again;
    int         same = 0;
    size_t      first[10];

    bad(wf_dataset_draw(set, WF_DATA_CLASS, 1, 0, &s, &err), WEFT_E_STATE, "there are no class pictures to train on");
    for (int i = 0; i < 10; i++) add_blank(set, WF_DATA_INSTANCE, 8 + i, 8);
    for (uint64_t epoch = 0; epoch < 5; epoch++) {
        int seen[10] = { 0 };
        for (uint64_t k = 0; k < 10; k++) {
            good(wf_dataset_draw(set, WF_DATA_INSTANCE, 3, 10 * epoch + k, &s, &err));
            seen[s.picture]++;
            ck_assert_int_eq(s.original_w, 8 + (int32_t)s.picture);
            if (epoch == 0) first[k] = s.picture;
            else same += first[k] == s.picture;
        }
        for (int i = 0; i < 10; i++) ck_assert_int_eq(seen[i], 1);
    }
    ck_assert_int_lt(same, 20); /* orders of their own, and so has another seed */
    same = 0;
    for (uint64_t k = 0; k < 10; k++) {
        good(wf_dataset_draw(set, WF_DATA_INSTANCE, 3, k, &s, &err));
        good(wf_dataset_draw(set, WF_DATA_INSTANCE, 4, k, &again, &err));
        ck_assert_uint_eq(s.picture, first[k]);
        same += again.picture == s.picture;
    }
    ck_assert_int_lt(same, 8);
    /* an earlier position after a later one, and another seed between */
    good(wf_dataset_draw(set, WF_DATA_INSTANCE, 3, 7, &s, &err));
    good(wf_dataset_draw(set, WF_DATA_INSTANCE, 4, 41, &again, &err));
    good(wf_dataset_draw(set, WF_DATA_INSTANCE, 3, 7, &again, &err));
    ck_assert(s.picture == first[7] && again.picture == s.picture && again.seed == s.seed);
    wf_dataset_free(set);
}
END_TEST

/* Custom Diffusion's sizes: a third to 1.4, which is what phrase, mask and grey follow. */
START_TEST(augmented_pictures_have_a_mask)
{
    wf_dataset_options o = plain(64, 48);
    float image[3 * 64 * 48], mask[32 * 24];
    int   small = 0, close = 0, between = 0;

    o.augment = true;
    wf_dataset *set = make(&o);
    uint8_t rgb[64 * 48 * 3];
    memset(rgb, 255, sizeof rgb);
    good(wf_dataset_add_pixels(set, WF_DATA_INSTANCE, rgb, sizeof rgb, 64, 48, "x", &err));
    good(wf_dataset_add_pixels(set, WF_DATA_CLASS, rgb, sizeof rgb, 64, 48, "x", &err));
    ck_assert(!wf_dataset_cacheable(set, WF_DATA_INSTANCE) && wf_dataset_cacheable(set, WF_DATA_CLASS));
    for (uint64_t k = 0; k < 300; k++) {
        wf_sample s;
        float     whole = 0;
        good(wf_dataset_draw(set, WF_DATA_INSTANCE, 5, k, &s, &err));
        good(wf_dataset_image(set, &s, image, &err));
        wf_dataset_mask(set, &s, mask);
        for (int i = 0; i < 32 * 24; i++) whole += mask[i];
        bool is_small = s.phrase != NULL && strstr(s.phrase, "small") != NULL, is_close = s.phrase != NULL && !is_small;
        small += is_small, close += is_close, between += s.phrase == NULL;
        ck_assert(s.cut_w >= 21 && s.cut_h >= 16 && s.resized_w <= 90 && whole >= 1);
        ck_assert(s.at_x >= 0 && s.at_x + s.cut_w <= 64 && s.at_y >= 0 && s.at_y + s.cut_h <= 48);
        ck_assert(s.left >= 0 && s.left + s.cut_w <= s.resized_w && s.top >= 0 && s.top + s.cut_h <= s.resized_h);
        ck_assert(s.cut_w == 38 || is_small == (s.cut_w < 38)); /* 0.6 * 64 is 38.4 */
        ck_assert(is_close == (s.resized_w >= 76));
        if (s.cut_w == 64) ck_assert(whole == 32 * 24);
        for (int y = 0; y < 48; y++)
            for (int x = 0; x < 64; x++) {
                bool inside = x >= s.at_x && x < s.at_x + s.cut_w && y >= s.at_y && y < s.at_y + s.cut_h;
                ck_assert(image[y * 64 + x] == (inside ? 1.0f : 0.0f));
                if (mask[y / 2 * 32 + x / 2] == 1) ck_assert(inside);
            }
        good(wf_dataset_draw(set, WF_DATA_CLASS, 5, k, &s, &err));
        ck_assert(s.cut_w == 64 && s.cut_h == 48 && s.phrase == NULL);
    }
    wf_dataset_free(set);

    /* 21 of 64 pixels may cover no latent pixel of 8 with one to spare: still some of the picture counts */
    o.factor = 8;
    set = make(&o);
    good(wf_dataset_add_pixels(set, WF_DATA_INSTANCE, rgb, sizeof rgb, 64, 48, "x", &err));
    for (uint64_t k = 0; k < 300; k++) {
        wf_sample s;
        float     whole = 0;
        good(wf_dataset_draw(set, WF_DATA_INSTANCE, 5, k, &s, &err));
        wf_dataset_mask(set, &s, mask);
        for (int i = 0; i < 8 * 6; i++) whole += mask[i];
        ck_assert(whole >= 1 && whole <= (s.cut_w == 64 ? 48 : 35)); /* 7 x 5 at most beside a border */
    }
    ck_assert_msg(small > 50 && close > 70 && between > 50, "%d %d %d", small, close, between);
    wf_dataset_free(set);
}
END_TEST

/* 8 x 8 of 21 x 14, so that 5 x 0 places would be left in the middle; every place comes. */
START_TEST(random_crops_stay_inside_and_are_not_kept)
{
    wf_dataset_options o = plain(8, 8);
    bool seen[5] = { false };

    o.random_crop = o.flip = true;
    wf_dataset *set = make(&o);
    add_blank(set, WF_DATA_INSTANCE, 21, 14);
    ck_assert(!wf_dataset_cacheable(set, WF_DATA_INSTANCE) && !wf_dataset_cacheable(set, WF_DATA_CLASS));
    for (uint64_t k = 0; k < 100; k++) {
        wf_sample s;
        good(wf_dataset_draw(set, WF_DATA_INSTANCE, 2, k, &s, &err));
        ck_assert(s.resized_w == 12 && s.resized_h == 8 && s.top == 0 && s.left >= 0 && s.left <= 4);
        seen[s.left] = true;
    }
    for (int i = 0; i < 5; i++) ck_assert(seen[i]);
    wf_dataset_free(set);
}
END_TEST

/* ---- folders ---- */

START_TEST(a_folder_is_read_in_the_order_of_its_names)
{
    wf_dataset_options o = plain(8, 8);
    wf_dataset *set = make(&o);

    put_png("b.png", 9, 8, 1), put("b.txt", "\xef\xbb\xbf  a red \xc3\xa9toile \r\n");
    put_png("a.PNG", 8, 9, 2), put("a.TXT", "first");
    put_png("B.jpeg", 8, 8, 3);                      /* a PNG all the same: bytes decide */
    put_png("c.d.jpg", 8, 8, 4), put("c.d.txt", "\n\t \n");
    put("unpaired.txt", "who?"), put("notes.md", "not read");
    put_png(".hidden.png", 1, 1, 5), put(".x.txt", "\xff");
    ck_assert_int_eq(mkdir(in_dir("sub.png"), 0777), 0);
    good(wf_dataset_add_folder(set, WF_DATA_INSTANCE, dir, "the prompt", &err));
    ck_assert_uint_eq(wf_dataset_count(set, WF_DATA_INSTANCE), 4);
    ck_assert_uint_eq(wf_dataset_count(set, WF_DATA_CLASS), 0);
    const char *names[] = { "B.jpeg", "a.PNG", "b.png", "c.d.jpg" };
    const char *captions[] = { "the prompt", "first", "a red \xc3\xa9toile", "the prompt" };
    for (size_t i = 0; i < 4; i++) {
        ck_assert_str_eq(wf_dataset_name(set, WF_DATA_INSTANCE, i), in_dir(names[i]));
        ck_assert_str_eq(wf_dataset_caption(set, WF_DATA_INSTANCE, i), captions[i]);
    }
    ck_assert_ptr_nonnull(strstr(said, "unpaired.txt: a caption without a picture"));
    ck_assert_ptr_nonnull(strstr(said, "1 files are neither"));
    ck_assert_ptr_null(strstr(said, "b.txt"));

    /* the class's list is another, and the stamp knows every caption */
    uint64_t before = wf_dataset_stamp(set);
    good(wf_dataset_add_folder(set, WF_DATA_CLASS, dir, "other", &err));
    ck_assert_uint_eq(wf_dataset_count(set, WF_DATA_CLASS), 4);
    ck_assert_str_eq(wf_dataset_caption(set, WF_DATA_CLASS, 0), "other");
    ck_assert_uint_ne(wf_dataset_stamp(set), before);
    wf_dataset_free(set);
}
END_TEST

/* What comes with the repository, for the bundled model. */
START_TEST(the_example_folders_are_whole)
{
    static const struct { const char *name, *word; size_t count; } of[] = {
        { "monster", "zib monster", 16 }, { "rocket", "vok rocket", 16 }, { "hatching", "hatched style", 64 },
        { "mosaic", "mosaic style", 64 }, { "teal", "<teal>", 96 }, { "shapes", "", 96 },
    };
    for (size_t i = 0; i < WF_LEN(of); i++) {
        wf_dataset_options o = plain(64, 64);
        wf_dataset *set = make(&o);
        good(wf_dataset_add_folder(set, WF_DATA_INSTANCE, data_path("../../examples/data/%s", of[i].name), NULL, &err));
        ck_assert_uint_eq(wf_dataset_count(set, WF_DATA_INSTANCE), of[i].count);
        for (size_t k = 0; k < of[i].count; k++)
            ck_assert_ptr_nonnull(strstr(wf_dataset_caption(set, WF_DATA_INSTANCE, k), of[i].word));
        wf_dataset_free(set);
    }
    ck_assert_str_eq(said, "");
}
END_TEST

START_TEST(the_stamp_is_the_data)
{
    uint64_t stamp[6];
    for (int i = 0; i < 6; i++) {
        wf_dataset_options o = plain(8, 8);
        o.flip = i == 1;
        wf_dataset *set = make(&o);
        put_png("a.png", 8, 8, i == 2), put("a.txt", i == 3 ? "one" : "two");
        good(wf_dataset_add_folder(set, i == 4, dir, NULL, &err));
        stamp[i] = wf_dataset_stamp(set);
        wf_dataset_free(set);
        for (int k = 0; k < i; k++) ck_assert((stamp[k] == stamp[i]) == (k == 0 && i == 5));
    }
}
END_TEST

static void folder_refused(wf_dataset *set, const char *prompt, weft_status want, const char *words)
{
    uint64_t stamp = wf_dataset_stamp(set);
    bad(wf_dataset_add_folder(set, WF_DATA_INSTANCE, dir, prompt, &err), want, words);
    ck_assert_uint_eq(wf_dataset_count(set, WF_DATA_INSTANCE), 0);
    ck_assert_uint_eq(wf_dataset_stamp(set), stamp);
}

START_TEST(a_bad_folder_is_refused_by_name)
{
    wf_dataset_options o = plain(8, 6);
    wf_dataset *set = make(&o);

    bad(wf_dataset_add_folder(set, WF_DATA_INSTANCE, NULL, "x", &err), WEFT_E_ARG, "folder is NULL");
    bad(wf_dataset_add_folder(set, WF_DATA_INSTANCE, in_dir("absent"), "x", &err), WEFT_E_IO, "absent");
    folder_refused(set, "x", WEFT_E_FORMAT, "no pictures: no file in it ends in .png, .jpg or .jpeg, of 0 there");
    put("a.webp", "x");
    folder_refused(set, "x", WEFT_E_FORMAT, "of 1 there");

    put_png("a.png", 8, 6, 0);
    folder_refused(set, NULL, WEFT_E_ARG, "a.png: no caption: there is no a.txt, and no prompt was given for all");
    put("a.txt", " ");
    folder_refused(set, NULL, WEFT_E_ARG, "a.png: no caption: there is nothing in a.txt");
    put("a.txt", "one\ntwo");
    folder_refused(set, "x", WEFT_E_FORMAT, "a.txt: several lines");
    put("a.txt", "\xc3");
    folder_refused(set, "x", WEFT_E_FORMAT, "a.txt: not UTF-8");
    put("a.txt", "good");

    /* the first is whole, the second is not */
    put_png("b.png", 8, 5, 0);
    folder_refused(set, "x", WEFT_E_ARG, "b.png: 8 x 5 pixels, wanted at least 8 x 6");
    put_png("b.png", 7, 60, 0);
    folder_refused(set, "x", WEFT_E_ARG, "b.png: 7 x 60 pixels");
    put("b.png", "\x89PNG\r\n\x1a\n");
    folder_refused(set, "x", WEFT_E_FORMAT, "b.png: not a PNG that can be read");
    put("b.png", "<html>");
    folder_refused(set, "x", WEFT_E_FORMAT, "b.png: not a PNG or a JPEG: it is a web page");
    put("b.png", "");
    folder_refused(set, "x", WEFT_E_FORMAT, "b.png: neither a PNG nor a JPEG: the file is empty");

    /* pixels that end early: its size alone looks well */
    put_png("b.png", 40, 40, 9);
    ck_assert_int_eq(truncate(in_dir("b.png"), 200), 0);
    folder_refused(set, "x", WEFT_E_FORMAT, "b.png: ");
    wf_dataset_free(set);
}
END_TEST

START_TEST(small_pictures_may_be_allowed)
{
    wf_dataset_options o = plain(8, 8);
    wf_sample s;

    o.allow_small = true;
    wf_dataset *set = make(&o);
    add_blank(set, WF_DATA_INSTANCE, 4, 2);
    good(wf_dataset_draw(set, WF_DATA_INSTANCE, 0, 0, &s, &err));
    ck_assert(s.resized_w == 16 && s.resized_h == 8 && s.left == 4 && s.original_w == 4 && s.original_h == 2);
    wf_dataset_free(set);
}
END_TEST

START_TEST(arguments_are_checked)
{
    wf_dataset *set;
    uint8_t     rgb[8 * 8 * 3] = { 0 };
    const struct { int32_t w, h, f; } wrong[] = { { 0, 8, 2 }, { 8, -8, 2 }, { 9, 8, 2 }, { 8, 8, 0 }, { 8, 16386, 2 } };

    for (size_t i = 0; i < WF_LEN(wrong); i++) {
        wf_dataset_options o = { .width = wrong[i].w, .height = wrong[i].h, .factor = wrong[i].f };
        bad(wf_dataset_create(&set, &o, &heap, &err), WEFT_E_ARG, "wanted multiples of");
        ck_assert_ptr_null(set);
    }
    wf_dataset_options o = plain(8, 8);
    set = make(&o);
    bad(wf_dataset_add_pixels(set, 0, NULL, 192, 8, 8, "x", &err), WEFT_E_ARG, "picture 0: rgb is NULL");
    bad(wf_dataset_add_pixels(set, 0, rgb, 192, 8, 8, NULL, &err), WEFT_E_ARG, "caption is NULL");
    bad(wf_dataset_add_pixels(set, 0, rgb, 191, 8, 8, "x", &err), WEFT_E_ARG, "191 values");
    bad(wf_dataset_add_pixels(set, 0, rgb, 0, 0, 8, "x", &err), WEFT_E_ARG, "0 x 8");
    bad(wf_dataset_add_pixels(set, 0, rgb, 7 * 8 * 3, 7, 8, "x", &err), WEFT_E_ARG, "picture 0: 7 x 8 pixels, wanted at least 8 x 8");
    bad(wf_dataset_add_pixels(set, 0, rgb, 192, 8, 8, "\xff", &err), WEFT_E_FORMAT, "not UTF-8");
    ck_assert_uint_eq(wf_dataset_count(set, 0), 0);
    wf_dataset_free(set);
    wf_dataset_free(NULL);
}
END_TEST

START_TEST(a_file_that_changed_is_noticed)
{
    wf_dataset_options o = plain(8, 8);
    wf_dataset *set = make(&o);
    wf_sample   s;
    float       image[192];

    put_png("a.png", 8, 8, 0);
    good(wf_dataset_add_folder(set, WF_DATA_INSTANCE, dir, "x", &err));
    good(wf_dataset_draw(set, WF_DATA_INSTANCE, 0, 0, &s, &err));
    good(wf_dataset_image(set, &s, image, &err));
    put_png("a.png", 9, 8, 0);
    bad(wf_dataset_image(set, &s, image, &err), WEFT_E_STATE, "a.png: 9 x 8 pixels, and it had 8 x 8 when it was added");
    unlink(in_dir("a.png"));
    bad(wf_dataset_image(set, &s, image, &err), WEFT_E_IO, "a.png");
    wf_dataset_free(set);
}
END_TEST

/* ---- latents ---- */

enum { W = 24, H = 16, FLOATS = 4 * W * H / 4 };

static weft_model *open_model(void)
{
    weft_model *m;
    must(weft_model_open(data_path("models/tiny-sd1"), NULL, &m, &golden_err));
    return m;
}

static wf_dataset *some_pictures(bool random_crop, const weft_allocator *alloc)
{
    wf_dataset_options o = plain(W, H);
    wf_dataset *set;
    uint8_t     rgb[30 * 20 * 3];

    o.flip = true;
    o.random_crop = random_crop;
    good(wf_dataset_create(&set, &o, alloc, &err));
    for (int k = 0; k < 3; k++) {
        for (size_t i = 0; i < sizeof rgb; i++) rgb[i] = (uint8_t)(i * (size_t)(k + 3) / 5);
        good(wf_dataset_add_pixels(set, k == 2, rgb, sizeof rgb, 30, 20, "x", &err));
    }
    return set;
}

static int32_t count_progress(void *user, const char *what, int64_t done, int64_t total)
{
    int *calls = user;
    ck_assert_str_eq(what, "encoding the pictures");
    ck_assert_int_eq(done, ++*calls < 0 ? done : *calls);
    ck_assert_int_eq(total, 3);
    return 0;
}

static int32_t stop_at_two(void *user, const char *what, int64_t done, int64_t total)
{
    (void)user, (void)what, (void)total;
    return done == 2;
}

/* What a run makes of the same picture and the same noise. */
static void by_run(weft_model *m, const float *image, uint64_t seed, float *latent)
{
    weft_run_options o = WEFT_RUN_OPTIONS_INIT;
    weft_plan  *plan;
    weft_run   *run;
    weft_noise *noise;
    float       unit[3 * W * H], eps[FLOATS];

    must(weft_plan_create(m, NULL, &plan, &golden_err));
    must(weft_plan_seal(plan, 1, &golden_err));
    o.height = H / 2, o.width = W / 2, o.threads = 1;
    must(weft_run_create(plan, &o, &run, &golden_err));
    must(weft_noise_create(seed, NULL, &noise, &golden_err));
    must(weft_noise_normal(noise, eps, FLOATS, &golden_err));
    for (size_t i = 0; i < WF_LEN(unit); i++) unit[i] = (float)round((double)(image[i] + 1) * 127.5) / 255.0f;
    must(weft_run_encode_image(run, unit, WF_LEN(unit), eps, FLOATS, latent, FLOATS, &golden_err));
    weft_noise_free(noise);
    weft_run_free(run);
    weft_plan_free(plan);
}

/* Kept, encoded anew, and by a run of the public interface: the same bits, for any number of threads. */
START_TEST(latents_are_those_of_a_run)
{
    weft_model *m = open_model();
    wf_dataset *set = some_pictures(false, &heap);
    wf_pool    *pool;
    wf_encoder *encoder;
    float       image[3 * W * H], kept[FLOATS], anew[FLOATS], want[FLOATS], last[FLOATS] = { 0 };
    int         calls = 0, flips = 0;

    good(wf_pool_create(&heap, _i + 1, &pool, &err));
    good(wf_encoder_create(&encoder, m, pool, W, H, NULL, NULL, &heap, &err));
    ck_assert_uint_eq(wf_encoder_floats(encoder), FLOATS);
    for (uint64_t k = 0; k < 8; k++) {
        wf_sample s;
        good(wf_dataset_draw(set, k % 4 == 3, 9, k, &s, &err));
        wf_dataset_cache_free(set);
        good(wf_dataset_latent(set, &s, encoder, anew, &err));
        if (k == 0) good(wf_dataset_cache(set, encoder, count_progress, &calls, &err));
        else good(wf_dataset_cache(set, encoder, NULL, NULL, &err));
        good(wf_dataset_latent(set, &s, NULL, kept, &err));
        good(wf_dataset_image(set, &s, image, &err));
        by_run(m, image, s.seed, want);
        ck_assert_int_eq(memcmp(kept, anew, sizeof kept), 0);
        ck_assert_int_eq(memcmp(kept, want, sizeof kept), 0);
        ck_assert_int_ne(memcmp(kept, last, sizeof kept), 0);
        memcpy(last, kept, sizeof last);
        flips += s.flip;
    }
    ck_assert_int_eq(calls, 3);
    ck_assert(flips > 0 && flips < 8);
    ck_assert_uint_eq(wf_dataset_cache_bytes(set), 3 * 2 * 2 * FLOATS * sizeof(float));
    wf_dataset_free(set);
    wf_encoder_free(encoder);
    wf_pool_free(pool);
    weft_model_free(m);
}
END_TEST

static bool stop_now(void *user) { return *(bool *)user; }

START_TEST(encoding_can_be_refused_and_stopped)
{
    weft_model *m = open_model();
    wf_dataset *set = some_pictures(false, &heap), *crops = some_pictures(true, &heap);
    wf_pool    *pool;
    wf_encoder *encoder;
    wf_sample   s;
    float       latent[FLOATS], other[FLOATS];
    bool        stop = false;

    good(wf_pool_create(&heap, 1, &pool, &err));
    bad(wf_encoder_create(&encoder, m, pool, W + 1, H, NULL, NULL, &heap, &err), WEFT_E_ARG, "25 x 16 pixels, wanted multiples of 2");
    ck_assert_ptr_null(encoder);
    good(wf_encoder_create(&encoder, m, pool, W, H, stop_now, &stop, &heap, &err));
    good(wf_dataset_draw(set, WF_DATA_INSTANCE, 9, 0, &s, &err));
    bad(wf_dataset_latent(set, &s, NULL, latent, &err), WEFT_E_STATE, "are not kept, and there is no encoder");
    bad(wf_dataset_cache(set, encoder, stop_at_two, NULL, &err), WEFT_E_CANCELLED, "cancelled");
    ck_assert_uint_eq(wf_dataset_cache_bytes(set), 0);
    stop = true;
    bad(wf_dataset_cache(set, encoder, NULL, NULL, &err), WEFT_E_CANCELLED, "encoding picture 0 was cancelled");
    ck_assert_uint_eq(wf_dataset_cache_bytes(set), 0);
    stop = false;
    good(wf_dataset_cache(set, encoder, NULL, NULL, &err)); /* none the worse for it */
    bad(wf_dataset_add_folder(set, WF_DATA_INSTANCE, dir, "x", &err), WEFT_E_STATE, "encoded already");
    wf_dataset_cache_free(set);
    add_blank(set, WF_DATA_INSTANCE, 30, 20);

    /* nothing can be kept of what is cut anew: it is encoded in each step */
    good(wf_dataset_cache(crops, encoder, NULL, NULL, &err));
    ck_assert_uint_eq(wf_dataset_cache_bytes(crops), 0);
    good(wf_dataset_draw(crops, WF_DATA_INSTANCE, 9, 0, &s, &err));
    good(wf_dataset_latent(crops, &s, encoder, latent, &err));
    good(wf_dataset_latent(crops, &s, encoder, other, &err));
    ck_assert_int_eq(memcmp(latent, other, sizeof latent), 0);
    wf_dataset_free(set);
    wf_dataset_free(crops);
    wf_encoder_free(encoder);
    wf_encoder_free(NULL);
    wf_pool_free(pool);
    weft_model_free(m);
}
END_TEST

/* Everything, failing at the first allocation, the second, .. until nothing fails. */
START_TEST(without_memory_nothing_is_lost)
{
    weft_model *m = open_model();
    wf_pool    *pool;
    bool        whole = false;

    put_png("a.png", 30, 20, 0), put("a.txt", "a");
    put_png("b.png", 24, 16, 0), put("b.txt", "b");
    good(wf_pool_create(&heap, 2, &pool, &err));
    for (size_t at = 1; !whole && at < 200; at++) {
        test_memory    memory;
        weft_allocator a = test_allocator(&memory);
        wf_dataset    *set = NULL;
        wf_encoder    *encoder = NULL;
        wf_sample      s;
        float          latent[FLOATS];
        wf_dataset_options o = plain(W, H);

        memory.fail_at = at;
        weft_status st = wf_dataset_create(&set, &o, &a, &err);
        if (st == WEFT_OK) st = wf_dataset_add_folder(set, WF_DATA_INSTANCE, dir, NULL, &err);
        if (st == WEFT_OK) st = wf_encoder_create(&encoder, m, pool, W, H, NULL, NULL, &a, &err);
        if (st == WEFT_OK) st = wf_dataset_cache(set, encoder, NULL, NULL, &err);
        if (st == WEFT_OK) st = wf_dataset_draw(set, WF_DATA_INSTANCE, 0, 0, &s, &err);
        if (st == WEFT_OK) st = wf_dataset_latent(set, &s, NULL, latent, &err);
        if (st == WEFT_OK) wf_dataset_cache_free(set);
        if (st == WEFT_OK) st = wf_dataset_latent(set, &s, encoder, latent, &err);
        whole = st == WEFT_OK;
        if (!whole) {
            ck_assert_int_eq(st, WEFT_E_NOMEM);
            check_one_line(&err);
        }
        wf_dataset_free(set);
        wf_encoder_free(encoder);
        ck_assert_uint_eq(memory.live_blocks, 0);
    }
    ck_assert(whole);
    wf_pool_free(pool);
    weft_model_free(m);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("data to train on");
    TCase *c = tcase_create("all");

    tcase_add_checked_fixture(c, setup, teardown);
    tcase_add_loop_test(c, pictures_are_prepared_as_by_pillow, 0, WF_LEN(sizes));
    tcase_add_test(c, draws_are_those_of_python);
    tcase_add_test(c, every_picture_comes_once_in_an_epoch);
    tcase_add_test(c, augmented_pictures_have_a_mask);
    tcase_add_test(c, random_crops_stay_inside_and_are_not_kept);
    tcase_add_test(c, a_folder_is_read_in_the_order_of_its_names);
    tcase_add_test(c, the_example_folders_are_whole);
    tcase_add_test(c, the_stamp_is_the_data);
    tcase_add_test(c, a_bad_folder_is_refused_by_name);
    tcase_add_test(c, small_pictures_may_be_allowed);
    tcase_add_test(c, arguments_are_checked);
    tcase_add_test(c, a_file_that_changed_is_noticed);
    tcase_add_loop_test(c, latents_are_those_of_a_run, 0, 3);
    tcase_add_test(c, encoding_can_be_refused_and_stopped);
    tcase_add_test(c, without_memory_nothing_is_lost);
    tcase_set_timeout(c, 60);
    suite_add_tcase(suite, c);
    return run_suite(suite);
}
