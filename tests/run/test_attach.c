/* Adapters come and go: what is left when they are gone, and what a change costs.
 *
 * A hundred adapters are attached and detached, one by one under every method and all in one plan;
 * the base's picture is then the same to the bit, and nothing of theirs is in memory. A change of a weight, an
 * order or a schedule opens no file and makes no factors, also when the files are gone; another
 * adapter in one's place touches its own layers and that one's. */
#define _GNU_SOURCE /* RTLD_NEXT */
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/support.h"
#include "naive_adapters.h"
#include "plain.h"
#include "plan/method/method.h"
#include "run/run_internal.h"

enum { H = 4, W = 6, N = 4 * H * W, TOKENS = 9, TEXT = TOKENS * 24, STEPS = 3, MANY = 100 };

static weft_model *model;
static naive_net   net;
static float       noise[N], cond[TEXT], uncond[TEXT];

/* Stands before the C library's: the files that are opened are counted. */
static int opened;
int open(const char *path, int flags, ...)
{
    static int (*next)(const char *, int, ...);
    va_list args;
    va_start(args, flags);
    int mode = (flags & O_CREAT) != 0 ? va_arg(args, int) : 0;
    va_end(args);
    if (next == NULL) *(void **)&next = dlsym(RTLD_NEXT, "open");
    opened++;
    return next(path, flags, mode);
}

static void setup(void)
{
    weft_noise *source;
    char        file[4096];
    must(weft_model_open(data_path("models/tiny-sd1"), NULL, &model, &golden_err));
    snprintf(file, sizeof file, "%s", data_path("models/tiny-sd1/unet/diffusion_pytorch_model.safetensors"));
    net = naive_open(model, file);
    must(weft_noise_create(21, NULL, &source, &golden_err));
    must(weft_noise_normal(source, noise, N, &golden_err));
    must(weft_noise_normal(source, cond, TEXT, &golden_err));
    must(weft_noise_normal(source, uncond, TEXT, &golden_err));
    weft_noise_free(source);
}

static void teardown(void)
{
    naive_close(&net);
    weft_model_free(model);
}

/* An allocator that counts what lives. */
typedef struct counter { long live; size_t bytes; } counter;

static void *count_alloc(void *user, size_t size, size_t align)
{
    counter *c = user;
    void    *p = NULL;
    if (posix_memalign(&p, align < sizeof(void *) ? sizeof(void *) : align, size > 0 ? size : 1) != 0) return NULL;
    c->live++, c->bytes += size;
    return p;
}

static void count_free(void *user, void *ptr, size_t size)
{
    counter *c = user;
    if (ptr != NULL) c->live--, c->bytes -= size;
    free(ptr);
}

static weft_plan *new_plan(const weft_allocator *alloc, int32_t path)
{
    weft_plan_options o = WEFT_PLAN_OPTIONS_INIT;
    weft_plan        *plan;
    o.allocator = alloc, o.path = path;
    must(weft_plan_create(model, &o, &plan, &golden_err));
    return plan;
}

static weft_run *new_run(weft_plan *plan, const weft_allocator *alloc)
{
    weft_run_options o = WEFT_RUN_OPTIONS_INIT;
    weft_run        *run;
    o.allocator = alloc;
    o.height = H, o.width = W, o.threads = 2, o.text_tokens = 77;
    must(weft_run_create(plan, &o, &run, &golden_err));
    return run;
}

static void take_step(weft_run *run, const float *latent, float *out, float timestep, int32_t call)
{
    plain_step s = PLAIN_STEP_INIT;
    s.latent = latent, s.out = out, s.latent_len = s.out_len = N;
    s.text = cond, s.negative = uncond, s.text_len = s.negative_len = TEXT, s.tokens = TOKENS;
    s.timestep = timestep, s.guidance = 4, s.call = call;
    must(plain_run_step(run, &s, &golden_err));
}

/* From noise to a picture's latents, for plans of STEPS calls. */
static void picture(weft_run *run, const float *from, float *x)
{
    weft_sampler_options o = WEFT_SAMPLER_OPTIONS_INIT;
    weft_sampler        *sampler;
    float                out[N];
    o.kind = WEFT_SAMPLER_DDIM, o.steps = STEPS;
    must(weft_sampler_create(&o, &sampler, &golden_err));
    must(weft_sampler_begin(sampler, 0, N, &golden_err));
    memcpy(x, from, N * sizeof *x);
    for (int n = 0; n < STEPS; n++) {
        take_step(run, x, out, weft_sampler_timestep(sampler, n), n);
        must(weft_sampler_step(sampler, n, out, x, N, NULL, &golden_err));
    }
    weft_sampler_free(sampler);
}

enum { MERGE, SWITCH, COMPOSITE, CACHED, KLORA, ZIP, BLORA, BLEND, LORATORIO, SUBBANDS, METHODS };

static void use(weft_plan *plan, int method)
{
    static const float     ramp[4] = { 0, 0.25f, 0.75f, 1 };
    weft_switch_options    turns = WEFT_SWITCH_OPTIONS_INIT;
    weft_composite_options cached = WEFT_COMPOSITE_OPTIONS_INIT;
    weft_mask              mask = WEFT_MASK_INIT;

    turns.period = 1;
    cached.flags = WEFT_COMPOSITE_CACHED;
    mask.height = 1, mask.width = 4, mask.values = ramp, mask.len = 4;
    if (method == SWITCH) must(weft_plan_switch(plan, &turns, &golden_err));
    if (method == COMPOSITE) must(weft_plan_composite(plan, NULL, &golden_err));
    if (method == CACHED) must(weft_plan_composite(plan, &cached, &golden_err));
    if (method == KLORA) must(weft_plan_klora(plan, NULL, &golden_err));
    if (method == ZIP) must(weft_plan_zip(plan, NULL, &golden_err));
    if (method == BLORA) must(weft_plan_blora(plan, NULL, &golden_err));
    if (method == BLEND) must(weft_plan_set_mask(plan, 0, &mask, &golden_err));
    if (method == BLEND) must(weft_plan_blend(plan, NULL, &golden_err));
    if (method == LORATORIO) must(weft_plan_loratorio(plan, NULL, &golden_err));
    if (method == SUBBANDS) must(weft_plan_subbands(plan, NULL, &golden_err));
}

static void same_bits(const char *what, const float *a, const float *b)
{
    ck_assert_msg(memcmp(a, b, N * sizeof *a) == 0, "%s: bits differ (relative %g)", what, relative(a, b, N, NULL));
}

/* ---- attached and detached ------------------------------------------------------------------- */

static naive_adapter number(int i)
{
    char name[16];
    snprintf(name, sizeof name, "n%d", i);
    return naive_make(&net, model, name, i % 4 == 0 ? -1 : i % F_NORM, 1 + i % 3, 3000 + (uint64_t)i);
}

/* One after the other, two at a time, under every method, on either path, each let go before the next comes. */
START_TEST(a_hundred_come_and_go_and_leave_the_base)
{
    counter              c = { 0, 0 };
    const weft_allocator counting = { count_alloc, count_free, &c };
    weft_plan           *base = new_plan(&counting, WEFT_PATH_AUTO);
    float                before[N], after[N], with[N], first[N];
    naive_adapter        last = number(0);

    must(weft_plan_seal(base, STEPS, &golden_err));
    weft_run *run = new_run(base, &counting);
    picture(run, noise, before);
    counter at_first = c;
    for (int i = 1; i <= MANY; i++) {
        naive_adapter next = number(i);
        weft_plan    *plan = new_plan(&counting, i % 3);
        must(weft_plan_add(plan, last.handle, 0.8f, NULL, &golden_err));
        must(weft_plan_add(plan, next.handle, 0.6f, NULL, &golden_err));
        use(plan, i % METHODS);
        must(weft_plan_seal(plan, STEPS, &golden_err));
        must(weft_run_set_plan(run, plan, &golden_err));
        picture(run, noise, with);
        ck_assert_double_gt(relative(with, before, N, NULL), 1e-4);
        must(weft_run_set_plan(run, base, &golden_err));
        take_step(run, noise, after, 801, 0);
        if (i == 1) memcpy(first, after, sizeof first);
        same_bits("detached", after, first);
        weft_plan_free(plan);
        naive_adapter_free(&last, net.count);
        last = next;
    }
    naive_adapter_free(&last, net.count);
    picture(run, noise, after);
    same_bits("the base's picture", after, before);
    ck_assert_int_eq(c.live, at_first.live); /* the run's scratch is as large as any plan needed */
    weft_run_free(run);
    weft_plan_free(base);
    ck_assert_int_eq(c.live, 0);
    ck_assert_uint_eq(c.bytes, 0);
}
END_TEST

/* All in one plan, of which copies lose them one by one, until none is left. */
START_TEST(a_hundred_at_once_leave_one_by_one)
{
    static const int   stops[] = { 100, 99, 50, 2, 1, 0 };
    static naive_adapter all[MANY];
    float              before[N], after[N], alone[N];
    weft_plan         *base = new_plan(NULL, WEFT_PATH_AUTO), *one = new_plan(NULL, WEFT_PATH_AUTO);
    weft_plan         *plan = new_plan(NULL, WEFT_PATH_AUTO);

    must(weft_plan_seal(base, STEPS, &golden_err));
    weft_run *run = new_run(base, NULL);
    picture(run, noise, before);
    for (int i = 0; i < MANY; i++) {
        all[i] = number(i);
        must(weft_plan_add(plan, all[i].handle, 0.1f, NULL, &golden_err));
    }
    must(weft_plan_add(one, all[MANY - 1].handle, 0.1f, NULL, &golden_err));
    must(weft_plan_seal(one, STEPS, &golden_err));
    must(weft_run_set_plan(run, one, &golden_err));
    picture(run, noise, alone);
    for (size_t i = 0; i < WF_LEN(stops); i++) {
        weft_plan     *copy;
        weft_plan_info info = WEFT_PLAN_INFO_INIT;
        must(weft_plan_copy(plan, &copy, &golden_err));
        for (int n = MANY; n > stops[i]; n--) must(weft_plan_remove(copy, 0, &golden_err));
        must(weft_plan_seal(copy, STEPS, &golden_err));
        must(weft_plan_info_get(copy, &info, &golden_err));
        ck_assert_int_eq(info.adapters, stops[i]);
        must(weft_run_set_plan(run, copy, &golden_err));
        picture(run, noise, after);
        if (stops[i] == 1) same_bits("the last one alone", after, alone);
        else if (stops[i] == 0) same_bits("none left", after, before);
        else ck_assert_double_gt(relative(after, before, N, NULL), 1e-4);
        weft_plan_free(copy);
    }
    weft_run_free(run);
    weft_plan_free(plan), weft_plan_free(base), weft_plan_free(one);
    for (int i = 0; i < MANY; i++) naive_adapter_free(&all[i], net.count);
}
END_TEST

/* ---- pictures after and between others ------------------------------------------------------- */

static weft_plan *pair_of(int method, const naive_adapter *a, const naive_adapter *b)
{
    weft_plan *plan = new_plan(NULL, WEFT_PATH_AUTO);
    must(weft_plan_add(plan, a->handle, 0.8f, NULL, &golden_err));
    must(weft_plan_add(plan, b->handle, 0.6f, NULL, &golden_err));
    use(plan, method);
    must(weft_plan_seal(plan, STEPS, &golden_err));
    return plan;
}

/* A run draws a picture, another, and the first again; or two plans of different methods on one model take
 * turns call by call: each is what it is alone. */
START_TEST(pictures_do_not_see_each_other)
{
    naive_adapter a = number(3), b = number(8);
    float         other[N], alone[METHODS][N], got[N];

    for (int i = 0; i < N; i++) other[i] = -noise[N - 1 - i];
    for (int m = 0; m < METHODS; m++) {
        weft_plan *plan = pair_of(m, &a, &b);
        weft_run  *run = new_run(plan, NULL);
        picture(run, noise, alone[m]);
        picture(run, other, got);
        ck_assert_double_gt(relative(got, alone[m], N, NULL), 1e-2);
        picture(run, noise, got);
        same_bits("the first picture again", got, alone[m]);
        weft_run_free(run);
        weft_plan_free(plan);
    }
    for (int m = 0; m < METHODS; m++) {
        int          who[2] = { m, (m + 1) % METHODS };
        weft_plan   *plan[2];
        weft_run    *run[2];
        weft_sampler *sampler[2];
        float         x[2][N], out[N];
        for (int k = 0; k < 2; k++) {
            weft_sampler_options o = WEFT_SAMPLER_OPTIONS_INIT;
            o.kind = WEFT_SAMPLER_DDIM, o.steps = STEPS;
            plan[k] = pair_of(who[k], &a, &b);
            run[k] = new_run(plan[k], NULL);
            must(weft_sampler_create(&o, &sampler[k], &golden_err));
            must(weft_sampler_begin(sampler[k], 0, N, &golden_err));
            memcpy(x[k], noise, sizeof noise);
        }
        for (int n = 0; n < STEPS; n++)
            for (int k = 0; k < 2; k++) {
                take_step(run[k], x[k], out, weft_sampler_timestep(sampler[k], n), n);
                must(weft_sampler_step(sampler[k], n, out, x[k], N, NULL, &golden_err));
            }
        for (int k = 0; k < 2; k++) {
            same_bits("between another's calls", x[k], alone[who[k]]);
            weft_sampler_free(sampler[k]);
            weft_run_free(run[k]);
            weft_plan_free(plan[k]);
        }
    }
    naive_adapter_free(&a, net.count), naive_adapter_free(&b, net.count);
}
END_TEST

/* ---- what a change costs --------------------------------------------------------------------- */

/* The model in a folder of its own, to be taken away: every file of a folder that is one level deep. */
static void copy_tree(const char *from, const char *to)
{
    char command[9000];
    snprintf(command, sizeof command, "cp -r '%s' '%s'", from, to);
    ck_assert_int_eq(system(command), 0);
}

static void remove_tree(const char *path)
{
    char command[4200];
    snprintf(command, sizeof command, "rm -rf '%s'", path);
    ck_assert_int_eq(system(command), 0);
}

static weft_adapter *open_copy(const char *dir, const char *name)
{
    char          to[4200], from[4096];
    weft_adapter *a;
    snprintf(from, sizeof from, "%s", data_path("adapters/%s", name));
    snprintf(to, sizeof to, "%s/%s", dir, name);
    copy_tree(from, to);
    must(weft_adapter_open(to, NULL, &a, &golden_err));
    return a;
}

/* The patch of a layer in the only phase, or NULL. */
static const wf_patch *patch_of(const weft_plan *plan, int32_t layer)
{
    const wf_sheet *s = wf_plan_phase(plan, 0);
    for (size_t i = 0; i < s->patched_count; i++)
        if (s->patched[i].layer == layer) return s->patched[i].patch;
    return NULL;
}

static bool has(const weft_plan *plan, int32_t adapter, int32_t layer)
{
    return wf_plan_module(plan, adapter, layer) != NULL;
}

enum { WEIGHT, ORDER, SCHEDULE, BLOCKS, METHOD, CHANGES };

/* A change to a copy of a plan of turns; weight and schedule also to one that is merged. */
static void change(weft_plan *copy, int what)
{
    static const int32_t order[] = { 1, 0, 1 };
    weft_switch_options  turns = WEFT_SWITCH_OPTIONS_INIT;
    weft_curve_point     half = WEFT_CURVE_POINT_INIT;

    turns.period = 1, turns.order = order, turns.order_len = 3;
    half.value = 0.5;
    if (what == WEIGHT) must(weft_plan_set_weight(copy, 0, 0.31f, NULL, &golden_err));
    if (what == ORDER) must(weft_plan_switch(copy, &turns, &golden_err));
    if (what == SCHEDULE) must(weft_plan_set_curve(copy, 1, 0, &half, 1, &golden_err));
    if (what == BLOCKS) must(weft_plan_set_blocks(copy, 0, "*attn2*=0.5", &golden_err));
    if (what == METHOD) must(weft_plan_merge(copy, &golden_err));
}

/* The files are gone; nothing is opened; every patch is the old plan's own, with its factors and bindings; and the
 * numbers are those of a plan that was made so from the start. */
START_TEST(a_change_reads_no_file_and_makes_no_factors)
{
    const char   *dir = test_dir();
    char          where[4200], from[4096];
    weft_model   *own;
    weft_adapter *a, *b;

    snprintf(from, sizeof from, "%s", data_path("models/tiny-sd1"));
    snprintf(where, sizeof where, "%s/model", dir);
    copy_tree(from, where);
    must(weft_model_open(where, NULL, &own, &golden_err));
    a = open_copy(dir, "content.safetensors"), b = open_copy(dir, "style.safetensors");
    remove_tree(dir);
    for (int what = 0; what < CHANGES; what++) {
        weft_plan_options   o = WEFT_PLAN_OPTIONS_INIT;
        weft_switch_options turns = WEFT_SWITCH_OPTIONS_INIT;
        weft_plan          *plan, *copy, *made;
        float               got[N], want[N], old[N];
        turns.period = 1;
        o.path = WEFT_PATH_SIDE;
        int before = opened;
        for (int k = 0; k < 2; k++) {
            weft_plan **p = k == 0 ? &plan : &made;
            must(weft_plan_create(own, &o, p, &golden_err));
            must(weft_plan_add(*p, a, 0.8f, NULL, &golden_err));
            must(weft_plan_add(*p, b, 0.6f, NULL, &golden_err));
            must(weft_plan_switch(*p, &turns, &golden_err));
            if (k == 1) change(*p, what);
            must(weft_plan_seal(*p, STEPS, &golden_err));
        }
        weft_run *run = new_run(plan, NULL), *fresh = new_run(made, NULL);
        take_step(run, noise, old, 701, 1);
        must(weft_plan_copy(plan, &copy, &golden_err));
        change(copy, what);
        must(weft_plan_seal(copy, STEPS, &golden_err));
        must(weft_run_set_plan(run, copy, &golden_err));
        for (int32_t n = 0; n < STEPS; n++) {
            take_step(run, noise, got, 701, n);
            take_step(fresh, noise, want, 701, n);
            same_bits("a changed copy", got, want);
        }
        ck_assert_int_eq(opened, before);
        size_t layers, shared = 0;
        wf_model_layers(own, &layers);
        for (int32_t l = 0; l < (int32_t)layers; l++) {
            ck_assert_ptr_eq(patch_of(copy, l), patch_of(plan, l));
            shared += patch_of(copy, l) != NULL;
        }
        ck_assert_uint_gt(shared, 50);
        for (int32_t i = 0; i < 2; i++) ck_assert_ptr_eq(copy->entry[i].bound, plan->entry[i].bound);
        weft_run_free(run), weft_run_free(fresh);
        weft_plan_free(plan), weft_plan_free(copy), weft_plan_free(made);
    }
    weft_adapter_free(a), weft_adapter_free(b);
    weft_model_free(own);
}
END_TEST

/* Of three adapters the second makes room for a fourth. Layers that neither of the two has keep their patch and
 * their merged copy; the others have new ones. */
START_TEST(another_adapter_touches_its_own_layers_only)
{
    naive_adapter all[4];
    weft_plan    *plan = new_plan(NULL, WEFT_PATH_MERGED), *copy;
    size_t        kept = 0, made = 0, copies = 0;
    float         got[N], want[N];

    for (int i = 0; i < 4; i++) { /* on a third of the layers each */
        char name[8];
        snprintf(name, sizeof name, "%d", i);
        all[i] = naive_make(&net, model, name, F_LORA, 3, 500 + (uint64_t)i);
    }
    for (int i = 0; i < 3; i++) must(weft_plan_add(plan, all[i].handle, 0.5f, NULL, &golden_err));
    must(weft_plan_seal(plan, STEPS, &golden_err));
    weft_run *run = new_run(plan, NULL);
    float   **weight = calloc(net.count, sizeof *weight);
    for (size_t i = 0; i < run->memory.phase[0].count; i++)
        if (run->memory.phase[0].merged[i] != NULL)
            weight[run->memory.phase[0].merged[i]->patch->layer] = run->memory.phase[0].merged[i]->weight;
    must(weft_plan_copy(plan, &copy, &golden_err));
    must(weft_plan_replace(copy, 1, all[3].handle, 0.5f, NULL, &golden_err));
    must(weft_plan_seal(copy, STEPS, &golden_err));
    must(weft_run_set_plan(run, copy, &golden_err));
    for (int32_t l = 0; l < (int32_t)net.count; l++) {
        const wf_patch *was = patch_of(plan, l), *is = patch_of(copy, l);
        if (was == NULL && is == NULL) continue;
        bool touched = has(plan, 1, l) || has(copy, 1, l);
        ck_assert_msg((was == is) == !touched, "%s", net.layers[l].name);
        kept += !touched;
        made += touched;
    }
    for (size_t i = 0; i < run->memory.phase[0].count; i++) {
        const wf_merged *m = run->memory.phase[0].merged[i];
        if (m == NULL) continue;
        bool touched = has(plan, 1, m->patch->layer) || has(copy, 1, m->patch->layer);
        ck_assert_msg((m->weight == weight[m->patch->layer]) == !touched, "%s", net.layers[m->patch->layer].name);
        copies += !touched;
    }
    ck_assert_uint_gt(kept, 20);
    ck_assert_uint_gt(made, 20);
    ck_assert_uint_gt(copies, 10);
    take_step(run, noise, got, 401, 0);
    weft_run *fresh = new_run(copy, NULL);
    take_step(fresh, noise, want, 401, 0);
    same_bits("another adapter", got, want);
    free(weight);
    weft_run_free(run), weft_run_free(fresh);
    weft_plan_free(plan), weft_plan_free(copy);
    for (int i = 0; i < 4; i++) naive_adapter_free(&all[i], net.count);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("attached and detached");
    TCase *c = tcase_create("all");
    tcase_set_timeout(c, 300);
    tcase_add_checked_fixture(c, setup, teardown);
    tcase_add_test(c, a_hundred_come_and_go_and_leave_the_base);
    tcase_add_test(c, a_hundred_at_once_leave_one_by_one);
    tcase_add_test(c, pictures_do_not_see_each_other);
    tcase_add_test(c, a_change_reads_no_file_and_makes_no_factors);
    tcase_add_test(c, another_adapter_touches_its_own_layers_only);
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
