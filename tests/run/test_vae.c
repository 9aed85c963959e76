/* Pictures and latents: what the encoder draws, tiles in both directions against diffusers' own, and what tiles are
 * for: memory that one tile decides, and no seam. tests/reference/make_vae.py made the references. */
#include <stdbool.h>

#include "golden.h"
#include "run/run_internal.h"

static const char *word(json_t *o, const char *key)
{
    const char *v = json_string_value(json_object_get(o, key));
    return v != NULL ? v : "";
}

static weft_model *open_model(const char *name)
{
    weft_model *m;
    must(weft_model_open(data_path("models/%s", name), NULL, &m, &golden_err));
    return m;
}

static weft_run *open_run(weft_model *m, int32_t h, int32_t w, int32_t tile, int32_t batch, int32_t threads)
{
    weft_run_options o = WEFT_RUN_OPTIONS_INIT;
    weft_plan *plan;
    weft_run *run;
    must(weft_plan_create(m, NULL, &plan, &golden_err));
    must(weft_plan_seal(plan, 1, &golden_err));
    o.height = h;
    o.width = w;
    o.tile = tile;
    o.batch = batch;
    o.threads = threads;
    must(weft_run_create(plan, &o, &run, &golden_err));
    weft_plan_free(plan);
    return run;
}

/* ---- against diffusers ---- */

static void check_case(const weft_tensors *t, json_t *c)
{
    const char *name = word(c, "name");
    bool decodes = strcmp(word(c, "do"), "decode") == 0;
    golden image = golden_read(t, "%s/image", name), latent = golden_read(t, "%s/latent", name), noise = { 0 };
    char key[128];
    snprintf(key, sizeof key, "%s/noise", name);
    if (golden_has(t, key)) noise = golden_read(t, "%s", key);
    weft_model_options mo = WEFT_MODEL_OPTIONS_INIT;
    weft_model *m;
    const char *vae = word(c, "vae");
    if (*vae != 0) { /* stored in float16, and beyond its range inside */
        mo.vae = data_path("models/%s", vae);
        ck_assert(json_real_value(json_object_get(c, "peak")) > 65504);
    }
    must(weft_model_open(data_path("models/%s", word(c, "model")), &mo, &m, &golden_err));
    weft_run *run = open_run(m, (int32_t)latent.shape[2], (int32_t)latent.shape[3],
                             (int32_t)json_integer_value(json_object_get(c, "tile")), (int32_t)latent.shape[0], 2);
    float *out = malloc((decodes ? image.n : latent.n) * sizeof *out);
    if (decodes) {
        for (size_t i = 0; i < image.n; i++) {
            float y = image.v[i] * 0.5f + 0.5f;
            image.v[i] = y < 0 ? 0 : y > 1 ? 1 : y;
        }
        must(weft_run_decode(run, latent.v, latent.n, out, image.n, &golden_err));
        near_golden(name, out, image.v, image.n, 1e-5);
    } else {
        bool bytes = false;
        for (size_t i = 0; i < image.n; i++) bytes = bytes || image.v[i] > 1;
        for (size_t i = 0; i < image.n && bytes; i++) image.v[i] /= 255;
        must(weft_run_encode_image(run, image.v, image.n, noise.v, noise.n, out, latent.n, &golden_err));
        near_golden(name, out, latent.v, latent.n, 1e-5);
    }
    weft_run_free(run);
    weft_model_free(m);
    free(out), free(image.v), free(latent.v), free(noise.v);
}

START_TEST(every_case_is_diffusers)
{
    json_t *index = golden_json("vae.json"), *cases = json_object_get(index, "cases");
    weft_tensors *t = golden_open("vae.safetensors");
    ck_assert_uint_ge(json_array_size(cases), 15);
    for (size_t i = 0; i < json_array_size(cases); i++) check_case(t, json_array_get(cases, i));
    weft_tensors_free(t);
    json_decref(index);
}
END_TEST

/* ---- what must hold whatever the numbers are ---- */

enum { H = 30, W = 23, N = 4 * H * W, TILE = 16 };

static float *numbers(size_t n, uint64_t seed, float scale, float shift)
{
    weft_noise *noise;
    float *v = malloc(n * sizeof *v);
    must(weft_noise_create(seed, NULL, &noise, &golden_err));
    must(weft_noise_normal(noise, v, n, &golden_err));
    for (size_t i = 0; i < n; i++) v[i] = v[i] * scale + shift;
    weft_noise_free(noise);
    return v;
}

/* The samples of a batch, and any number of threads, in tiles and whole. */
/* A VAE with a shift b and a scale s reads z / s + b and writes (z - b) s. So what it decodes is what one
 * without a shift makes of z + b s, and what it encodes is less by b s. */
START_TEST(a_shift_moves_latents)
{
    enum { H = 8, W = 8, Z = 4 * H * W };
    const float shift = 0.25f;
    weft_model *m = open_model("tiny-sd1");
    weft_run *run = open_run(m, H, W, 0, 1, 1);
    const wf_vae *vae = wf_run_networks(&run->memory)->vae;
    wf_vae_config *c = (wf_vae_config *)(uintptr_t)wf_vae_get_config(vae);
    size_t n = 3 * (size_t)(H * wf_vae_factor(vae)) * (size_t)(W * wf_vae_factor(vae));
    float *image[2] = { malloc(n * sizeof(float)), malloc(n * sizeof(float)) }, z[2][Z], moved[Z];

    ck_assert_float_eq(c->shift_factor, 0);
    for (int i = 0; i < Z; i++) {
        z[0][i] = (float)(i % 13) / 13 - 0.5f;
        moved[i] = z[0][i] + shift * c->scaling_factor;
    }
    must(weft_run_decode(run, moved, Z, image[0], n, &golden_err));
    must(weft_run_encode_image(run, image[0], n, NULL, 0, z[1], Z, &golden_err));
    c->shift_factor = shift;
    must(weft_run_decode(run, z[0], Z, image[1], n, &golden_err));
    near_golden("decoded", image[1], image[0], n, 1e-5);
    must(weft_run_encode_image(run, image[0], n, NULL, 0, z[0], Z, &golden_err));
    for (int i = 0; i < Z; i++) ck_assert_float_eq_tol(z[0][i], z[1][i] - shift * c->scaling_factor, 1e-5f);
    free(image[0]), free(image[1]);
    weft_run_free(run);
    weft_model_free(m);
}
END_TEST

START_TEST(each_sample_is_computed_alone)
{
    weft_model *m = open_model("tiny-sd1");
    size_t pixels = 3 * 4 * H * W;
    float *z = numbers(2 * N, 1, 1, 0), *x = numbers(2 * pixels, 2, 0.2f, 0.5f), *noise = numbers(2 * N, 3, 1, 0);
    float *image = malloc(3 * pixels * sizeof *image), *latent = malloc(3 * N * sizeof *latent);
    for (int32_t tile = 0; tile <= TILE; tile += TILE) {
        weft_run *two = open_run(m, H, W, tile, 2, 1), *one = open_run(m, H, W, tile, 1, 3);
        must(weft_run_decode(two, z, 2 * N, image, 2 * pixels, &golden_err));
        must(weft_run_encode_image(two, x, 2 * pixels, noise, 2 * N, latent, 2 * N, &golden_err));
        for (size_t i = 0; i < 2; i++) {
            must(weft_run_decode(one, z + i * N, N, image + 2 * pixels, pixels, &golden_err));
            ck_assert(memcmp(image + 2 * pixels, image + i * pixels, pixels * sizeof *image) == 0);
            must(weft_run_encode_image(one, x + i * pixels, pixels, noise + i * N, N, latent + 2 * N, N, &golden_err));
            ck_assert(memcmp(latent + 2 * N, latent + i * N, N * sizeof *latent) == 0);
        }
        weft_run_free(two);
        weft_run_free(one);
    }
    free(z), free(x), free(noise), free(image), free(latent);
    weft_model_free(m);
}
END_TEST

static wf_exec dry_exec(const weft_run *run)
{
    return (wf_exec){ .k = run->exec.k, .products = run->exec.products, .dry = true, .arena = { .dry = true }, .branch = run->memory.branch };
}

START_TEST(a_dry_walk_takes_what_a_real_one_takes)
{
    static const int32_t sizes[][3] = { { 1, 1, 0 }, { 16, 16, 16 }, { 17, 40, 16 }, { 41, 30, 21 }, { 5, 9, 0 } };
    weft_model *m = open_model("tiny-sd2");
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        weft_run *run = open_run(m, sizes[i][0], sizes[i][1], sizes[i][2], 1, 2);
        size_t n = wf_run_latent_floats(run), pixels = wf_run_image_floats(run);
        float *z = calloc(n, sizeof *z), *image = calloc(pixels, sizeof *image);
        wf_exec dry = dry_exec(run);
        wf_decode_forward(run, &dry, NULL, NULL);
        run->exec.arena.peak = 0;
        must(weft_run_decode(run, z, n, image, pixels, &golden_err));
        ck_assert_uint_eq(run->exec.arena.peak, dry.arena.peak);
        dry = dry_exec(run);
        wf_encode_image_forward(run, &dry, NULL, NULL, NULL);
        run->exec.arena.peak = 0;
        must(weft_run_encode_image(run, image, pixels, z, n, z, n, &golden_err));
        ck_assert_uint_eq(run->exec.arena.peak, dry.arena.peak);
        free(z), free(image);
        weft_run_free(run);
    }
    weft_model_free(m);
}
END_TEST

/* Arena of a decode and an encode, which for a model without a UNet's step would be all of a run's. */
static size_t arena_of(weft_model *m, int32_t h, int32_t w, int32_t tile)
{
    weft_run *run = open_run(m, h, w, tile, 1, 1);
    wf_exec dry = dry_exec(run);
    wf_decode_forward(run, &dry, NULL, NULL);
    wf_encode_image_forward(run, &dry, NULL, NULL, NULL);
    weft_run_free(run);
    return dry.arena.peak;
}

/* The bound: a tile's own memory, and of the picture only strips, 3 floats for each pixel of a row's overlaps. */
START_TEST(a_tile_decides_the_memory)
{
    weft_model *m = open_model("tiny-sd2");
    const int32_t f = 4, overlap = TILE / 4;
    size_t one = arena_of(m, TILE, TILE, 0);
    for (int32_t size = 32; size <= 256; size *= 2) {
        size_t tiles = (size_t)(size + TILE - overlap - 1) / (size_t)(TILE - overlap);
        size_t strips = (tiles + 1) * 3 * (size_t)(overlap * f) * (size_t)(TILE * f) * sizeof(float);
        size_t took = arena_of(m, size, size, TILE), whole = arena_of(m, size, size, 0);
        ck_assert_msg(took >= one && took <= one + strips + 256, "%d: %zu, a tile %zu, strips %zu", size, took, one,
                      strips);
        ck_assert_uint_ge(whole, (size_t)(size / TILE) * (size_t)(size / TILE) * (one / 2));
        /* height costs nothing */
        ck_assert_uint_eq(arena_of(m, 4 * size, TILE + 1, TILE), arena_of(m, 16 * size, TILE + 1, TILE));
    }
    weft_model_free(m);
}
END_TEST

/* What the tool's users see: a run's own count falls when tiles are asked for. */
START_TEST(a_run_tells_what_tiles_save)
{
    weft_model *m = open_model("tiny-sd2");
    weft_plan *plan;
    uint64_t whole, tiled;
    weft_run_options o = WEFT_RUN_OPTIONS_INIT;
    must(weft_plan_create(m, NULL, &plan, &golden_err));
    must(weft_plan_seal(plan, 1, &golden_err));
    o.threads = 1;
    o.height = o.width = 64;
    must(weft_run_bytes(plan, &o, &whole, &golden_err));
    o.tile = 16;
    must(weft_run_bytes(plan, &o, &tiled, &golden_err));
    ck_assert_uint_lt(tiled, whole);
    for (o.tile = -1; o.tile < 16; o.tile += 8) {
        if (o.tile == 7) continue;
        ck_assert_int_eq(weft_run_bytes(plan, &o, &tiled, &golden_err), WEFT_E_ARG);
        ck_assert_ptr_nonnull(strstr(golden_err.text, "at least 16 latent pixels, or 0"));
    }
    weft_plan_free(plan);
    weft_model_free(m);
}
END_TEST

/* On a VAE that was trained: a scene of a slope, bars and a disc. What tiles change is small, and no rougher between
 * the two columns (rows) where one begins or ends than between any others. */
START_TEST(tiles_leave_no_seam)
{
    enum { SIDE = 64, PX = 4 * SIDE, STEP = 24 * 4, END = 8 * 4 };
    weft_model *m;
    must(weft_model_open(data_path("../../examples/model"), NULL, &m, &golden_err));
    size_t n = 4 * SIDE * SIDE, pixels = 3 * (size_t)PX * PX;
    float *x = malloc(pixels * sizeof *x), *z = malloc(n * sizeof *z), *y[2];
    for (size_t i = 0; i < pixels; i++) {
        double c = (double)(i / (PX * PX)), v = (double)(i / PX % PX) / PX, u = (double)(i % PX) / PX;
        double disc = (u - 0.55) * (u - 0.55) + (v - 0.45) * (v - 0.45) < 0.06 ? 0.3 : 0;
        x[i] = (float)(0.2 + 0.3 * u + 0.2 * c * v + disc + (fmod(8 * u + 3 * v, 1) < 0.5 ? 0.1 : 0));
    }
    for (int i = 0; i < 2; i++) {
        weft_run *run = open_run(m, SIDE, SIDE, i == 0 ? 0 : 32, 1, 2);
        if (i == 0) must(weft_run_encode_image(run, x, pixels, NULL, 0, z, n, &golden_err));
        y[i] = malloc(pixels * sizeof *y[i]);
        must(weft_run_decode(run, z, n, y[i], pixels, &golden_err));
        weft_run_free(run);
    }
    double mean = 0, at[2][2] = { { 0 } }, count[2][2] = { { 0 } };
    for (size_t i = 0; i < pixels; i++) {
        size_t place[2] = { i % PX, i / PX % PX }, back[2] = { 1, PX };
        double d = (double)y[1][i] - y[0][i];
        mean += fabs(d) / (double)pixels;
        for (int axis = 0; axis < 2; axis++) {
            if (place[axis] == 0) continue;
            int border = place[axis] >= STEP && (place[axis] % STEP == 0 || place[axis] % STEP == END);
            at[axis][border] += fabs(d - ((double)y[1][i - back[axis]] - y[0][i - back[axis]]));
            count[axis][border]++;
        }
    }
    ck_assert_msg(mean < 8.0 / 255, "the mean difference is %g / 255", mean * 255);
    for (int axis = 0; axis < 2; axis++) {
        double border = at[axis][1] / count[axis][1], other = at[axis][0] / count[axis][0];
        if (getenv("GOLDEN_SHOW") != NULL)
            printf("tiles: mean %g / 255; borders %g, elsewhere %g\n", mean * 255, border, other);
        ck_assert_msg(border < 1.5 * other, "borders %g, elsewhere %g", border, other);
    }
    free(x), free(z), free(y[0]), free(y[1]);
    weft_model_free(m);
}
END_TEST

typedef struct watch { weft_run *run; int64_t last, total, stop_at; } watch;

static int32_t see(void *user, const char *what, int64_t done, int64_t total)
{
    watch *w = user;
    ck_assert(what != NULL && done == w->last + 1 && done <= total);
    w->last = done;
    w->total = total;
    return w->stop_at > 0 && done >= w->stop_at;
}

START_TEST(progress_and_cancelling_reach_into_tiles)
{
    weft_model *m = open_model("tiny-sd1");
    size_t pixels = 3 * 4 * H * W;
    float *z = numbers(N, 1, 1, 0), *image = malloc(pixels * sizeof *image);
    weft_run *run = open_run(m, H, W, TILE, 1, 1);
    watch w = { .run = run };
    run->progress = see;
    run->progress_user = &w;
    must(weft_run_decode(run, z, N, image, pixels, &golden_err));
    ck_assert_int_eq(w.last, w.total);
    w.last = 0;
    must(weft_run_encode_image(run, image, pixels, NULL, 0, z, N, &golden_err));
    ck_assert_int_eq(w.last, w.total);
    w = (watch){ .stop_at = w.total / 2 };
    ck_assert_int_eq(weft_run_encode_image(run, image, pixels, NULL, 0, z, N, &golden_err), WEFT_E_CANCELLED);
    ck_assert_str_eq(golden_err.text, "encoding the image was cancelled");
    ck_assert_int_eq(w.last, w.stop_at);
    w = (watch){ 0 };
    must(weft_run_encode_image(run, image, pixels, NULL, 0, z, N, &golden_err));
    free(z), free(image);
    weft_run_free(run);
    weft_model_free(m);
}
END_TEST

START_TEST(wrong_sizes_are_refused)
{
    weft_model *m = open_model("tiny-sd1");
    float z[4 * 36], x[3 * 144];
    weft_run *run = open_run(m, 6, 6, 0, 1, 1);
    memset(x, 0, sizeof x);
    ck_assert_int_eq(weft_run_encode_image(run, x, 431, NULL, 0, z, 144, &golden_err), WEFT_E_ARG);
    ck_assert_str_eq(golden_err.text, "image has 431 floats, wanted 432");
    ck_assert_int_eq(weft_run_encode_image(run, x, 432, NULL, 0, z, 143, &golden_err), WEFT_E_ARG);
    ck_assert_str_eq(golden_err.text, "latent has 143 floats, wanted 144");
    ck_assert_int_eq(weft_run_encode_image(run, x, 432, z, 3, z, 144, &golden_err), WEFT_E_ARG);
    ck_assert_str_eq(golden_err.text, "noise has 3 floats, wanted 144");
    ck_assert_int_eq(weft_run_encode_image(run, NULL, 432, NULL, 0, z, 144, &golden_err), WEFT_E_ARG);
    ck_assert_int_eq(weft_run_encode_image(run, x, 432, NULL, 0, NULL, 144, &golden_err), WEFT_E_ARG);
    ck_assert_int_eq(weft_run_encode_image(NULL, x, 432, NULL, 0, z, 144, &golden_err), WEFT_E_ARG);
    must(weft_run_encode_image(run, x, 432, NULL, 0, z, 144, &golden_err));
    weft_run_free(run);
    weft_model_free(m);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("pictures and latents");
    TCase *c = tcase_create("vae");
    tcase_set_timeout(c, 300);
    tcase_add_test(c, every_case_is_diffusers);
    tcase_add_test(c, a_shift_moves_latents);
    tcase_add_test(c, each_sample_is_computed_alone);
    tcase_add_test(c, a_dry_walk_takes_what_a_real_one_takes);
    tcase_add_test(c, a_tile_decides_the_memory);
    tcase_add_test(c, a_run_tells_what_tiles_save);
    tcase_add_test(c, tiles_leave_no_seam);
    tcase_add_test(c, progress_and_cancelling_reach_into_tiles);
    tcase_add_test(c, wrong_sizes_are_refused);
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
