/* Memory: every allocation of open, bind, seal and run may fail and leaves nothing; a step takes none; the bytes
 * that weft_run_bytes() tells are those that a run takes. */
#include <pthread.h>

#include "base/support.h"
#include "golden.h"
#include "plain.h"

static weft_allocator counted;
static test_memory    memory;

static weft_status open_model(const weft_allocator *a, weft_model **model)
{
    weft_model_options o = WEFT_MODEL_OPTIONS_INIT;
    o.allocator = a;
    return weft_model_open(data_path("models/tiny-sd1"), &o, model, &golden_err);
}

static weft_status open_adapter(const weft_allocator *a, const char *name, weft_adapter **adapter)
{
    weft_adapter_options o = WEFT_ADAPTER_OPTIONS_INIT;
    o.allocator = a;
    return weft_adapter_open(data_path("adapters/%s", name), &o, adapter, &golden_err);
}

static weft_model   *model;
static weft_adapter *content, *style;

static void setup(void)
{
    must(open_model(NULL, &model));
    must(open_adapter(NULL, "content.safetensors", &content));
    must(open_adapter(NULL, "style.safetensors", &style));
    counted = test_allocator(&memory);
}

static void teardown(void)
{
    weft_model_free(model);
    weft_adapter_free(content);
    weft_adapter_free(style);
}

enum { CACHED = 2 }; /* in place of klora: composite that keeps features */

static weft_status make_plan(const weft_allocator *a, int klora, int32_t path, weft_plan **plan)
{
    weft_plan_options o = WEFT_PLAN_OPTIONS_INIT;
    weft_status st;
    o.allocator = a;
    o.path = path;
    if ((st = weft_plan_create(model, &o, plan, &golden_err)) != WEFT_OK) return st;
    if ((st = weft_plan_add(*plan, content, 1, NULL, &golden_err)) != WEFT_OK) goto done;
    if ((st = weft_plan_add(*plan, style, 1, NULL, &golden_err)) != WEFT_OK) goto done;
    weft_composite_options cached = WEFT_COMPOSITE_OPTIONS_INIT;
    cached.flags = WEFT_COMPOSITE_CACHED;
    if (klora == CACHED && (st = weft_plan_composite(*plan, &cached, &golden_err)) != WEFT_OK) goto done;
    if (klora == 1 && (st = weft_plan_klora(*plan, NULL, &golden_err)) != WEFT_OK) goto done;
    st = weft_plan_seal(*plan, 5, &golden_err);
done:
    if (st != WEFT_OK) {
        weft_plan_free(*plan);
        *plan = NULL;
    }
    return st;
}

static weft_status make_run(const weft_allocator *a, weft_plan *plan, weft_run **run)
{
    weft_run_options o = WEFT_RUN_OPTIONS_INIT;
    o.allocator = a;
    o.threads = 2;
    return weft_run_create(plan, &o, run, &golden_err);
}

/* One attempt with allocations failing from number `at` on; 1 when it came through. */
typedef int (*attempt)(void);

static int try_model(void)
{
    weft_model *m = (weft_model *)&memory;
    weft_status st = open_model(&counted, &m);
    ck_assert(st == WEFT_OK || st == WEFT_E_NOMEM);
    ck_assert(st == WEFT_OK || m == NULL);
    weft_model_free(m);
    return st == WEFT_OK;
}

static int try_adapter_of(const char *name)
{
    weft_adapter *a = (weft_adapter *)&memory;
    weft_status st = open_adapter(&counted, name, &a);
    ck_assert_msg(st == WEFT_OK || st == WEFT_E_NOMEM, "%s: %s", weft_status_name(st), golden_err.text);
    ck_assert(st == WEFT_OK || a == NULL);
    weft_adapter_free(a);
    return st == WEFT_OK;
}

static int try_adapter(void) { return try_adapter_of("content.safetensors"); }
static int try_kohya(void) { return try_adapter_of("sd1_kohya_conv.safetensors"); }
static int try_peft(void) { return try_adapter_of("sd1_peft"); }

static int try_report(void)
{
    weft_report *r = (weft_report *)&memory;
    weft_adapter *a;
    weft_adapter_options o = WEFT_ADAPTER_OPTIONS_INIT;
    test_memory keep = memory;
    o.allocator = &counted;
    memory.fail_at = 0;
    must(weft_adapter_open(data_path("adapters/content.safetensors"), &o, &a, &golden_err));
    memory.calls = keep.calls;
    memory.fail_at = keep.fail_at;
    weft_status st = weft_report_create(model, a, &r, &golden_err);
    ck_assert(st == WEFT_OK || (st == WEFT_E_NOMEM && r == NULL));
    weft_report_free(r);
    weft_adapter_free(a);
    return st == WEFT_OK;
}

static int try_plan_of(int klora, int32_t path)
{
    weft_plan *p = NULL;
    weft_status st = make_plan(&counted, klora, path, &p);
    ck_assert_msg(st == WEFT_OK || st == WEFT_E_NOMEM, "%s: %s", weft_status_name(st), golden_err.text);
    weft_plan_free(p);
    return st == WEFT_OK;
}

static int try_plan(void) { return try_plan_of(0, WEFT_PATH_SIDE); }
static int try_klora(void) { return try_plan_of(1, WEFT_PATH_AUTO); }

static int try_run_of(int klora, int32_t path)
{
    weft_plan *p = NULL;
    weft_run *r = (weft_run *)&memory;
    must(make_plan(NULL, klora, path, &p));
    weft_status st = make_run(&counted, p, &r);
    ck_assert(st == WEFT_OK || (st == WEFT_E_NOMEM && r == NULL));
    weft_run_free(r);
    weft_plan_free(p);
    return st == WEFT_OK;
}

static int try_run(void) { return try_run_of(0, WEFT_PATH_SIDE); }
static int try_run_cached(void) { return try_run_of(CACHED, WEFT_PATH_SIDE); }
static int try_run_merged(void) { return try_run_of(0, WEFT_PATH_MERGED); }

static int try_encode(void)
{
    weft_plan *p = NULL;
    weft_run *r = NULL;
    float text[77 * 24];
    plain_encode e = PLAIN_ENCODE_INIT;
    test_memory keep = memory;
    must(make_plan(NULL, 0, 0, &p));
    memory.fail_at = 0;
    must(make_run(&counted, p, &r));
    memory.calls = keep.calls;
    memory.fail_at = keep.fail_at;
    e.prompt = "a red cat";
    e.text = text;
    e.text_len = 77 * 24;
    weft_status st = plain_run_encode(r, &e, &golden_err);
    ck_assert(st == WEFT_OK || st == WEFT_E_NOMEM);
    weft_run_free(r);
    weft_plan_free(p);
    return st == WEFT_OK;
}

/* A plan with a mask and two regions, its copy, and a run on that. */
static weft_status make_regions(weft_plan **p, weft_plan **copy, weft_run **r)
{
    static const float values[4] = { 0, 1, 1, 0.5f };
    weft_mask m = WEFT_MASK_INIT;
    weft_region region = WEFT_REGION_INIT;
    weft_plan_options o = WEFT_PLAN_OPTIONS_INIT;
    weft_status st;
    m.values = values;
    m.len = 4;
    m.width = m.height = 2;
    o.allocator = &counted;
    region.mask = &m;
    if ((st = weft_plan_create(model, &o, p, &golden_err)) != WEFT_OK) return st;
    if ((st = weft_plan_add(*p, content, 0.8f, NULL, &golden_err)) != WEFT_OK) return st;
    if ((st = weft_plan_set_mask(*p, 0, &m, &golden_err)) != WEFT_OK) return st;
    if ((st = weft_plan_add_region(*p, &region, &golden_err)) != WEFT_OK) return st;
    region.mask = NULL;
    region.flags = WEFT_REGION_ADAPTER;
    if ((st = weft_plan_add_region(*p, &region, &golden_err)) != WEFT_OK) return st;
    if ((st = weft_plan_blend(*p, NULL, &golden_err)) != WEFT_OK) return st;
    if ((st = weft_plan_copy(*p, copy, &golden_err)) != WEFT_OK) return st;
    if ((st = weft_plan_seal(*copy, 2, &golden_err)) != WEFT_OK) return st;
    return make_run(&counted, *copy, r);
}

static int try_regions(void)
{
    weft_plan *p = NULL, *copy = NULL;
    weft_run *r = NULL;
    weft_status st = make_regions(&p, &copy, &r);
    ck_assert_msg(st == WEFT_OK || st == WEFT_E_NOMEM, "%s: %s", weft_status_name(st), golden_err.text);
    weft_run_free(r);
    weft_plan_free(copy);
    weft_plan_free(p);
    return st == WEFT_OK;
}

static const struct { const char *name; attempt f; } attempts[] = {
    { "opening a model", try_model }, { "opening a diffusers adapter", try_adapter },
    { "opening a kohya adapter", try_kohya }, { "opening a PEFT folder", try_peft }, { "a report", try_report },
    { "a plan", try_plan }, { "a K-LoRA plan", try_klora }, { "a run", try_run },
    { "a run with merged copies", try_run_merged }, { "a run that keeps features", try_run_cached }, { "a prompt", try_encode },
    { "regions", try_regions },
};

START_TEST(every_allocation_may_fail)
{
    memory.fail_at = 0;
    ck_assert_msg(attempts[_i].f(), "%s failed with memory: %s", attempts[_i].name, golden_err.text);
    ck_assert_uint_eq(memory.live_blocks, 0);
    for (size_t at = 1;; at++) {
        ck_assert_uint_lt(at, 20000);
        memory.calls = 0;
        memory.fail_at = at;
        int through = attempts[_i].f();
        ck_assert_msg(memory.live_blocks == 0, "%s: %zu blocks left after failure of allocation %zu",
                      attempts[_i].name, memory.live_blocks, at);
        if (through) break;
    }
}
END_TEST

/* An allocator for one thread: it fails where another thread calls it, and remembers that. */
typedef struct one_thread {
    pthread_t  owner;
    atomic_int strangers;
    atomic_int live;
} one_thread;

static void *owned_alloc(void *user, size_t size, size_t align)
{
    one_thread *o = user;
    if (!pthread_equal(o->owner, pthread_self())) {
        atomic_fetch_add(&o->strangers, 1);
        return NULL;
    }
    atomic_fetch_add(&o->live, 1);
    return aligned_alloc(align, (size + align - 1) / align * align);
}

static void owned_free(void *user, void *p, size_t size)
{
    one_thread *o = user;
    (void)size;
    if (!pthread_equal(o->owner, pthread_self())) atomic_fetch_add(&o->strangers, 1);
    atomic_fetch_sub(&o->live, 1);
    free(p);
}

/* Of families that need little and much beside the copy, alone and together. */
static const char *const merged_files[][2] = {
    { "content.safetensors", "style.safetensors" },
    { "../families/lyco_mixed.safetensors", "../families/lyco_dora_loha.safetensors" },
    { "../families/lyco_boft.safetensors" },
    { "../families/peft_boft" },
    { "../families/lyco_lokr_tucker.safetensors", "../families/lyco_oft.safetensors" },
};

START_TEST(the_allocator_is_called_on_the_callers_thread)
{
    one_thread own = { .owner = pthread_self() };
    const weft_allocator a = { owned_alloc, owned_free, &own };
    weft_plan_options o = WEFT_PLAN_OPTIONS_INIT;
    weft_run_options shape = WEFT_RUN_OPTIONS_INIT;
    weft_adapter *adapter[2] = { NULL };
    weft_model *m;
    weft_plan *p;
    weft_run *r;
    float x[4 * 16 * 16] = { 0.5f }, out[4 * 16 * 16], text[77 * 24] = { 1 };

    o.allocator = &a;
    o.path = WEFT_PATH_MERGED;
    must(open_model(&a, &m));
    must(weft_plan_create(m, &o, &p, &golden_err));
    for (int i = 0; i < 2 && merged_files[_i][i] != NULL; i++) {
        must(open_adapter(&a, merged_files[_i][i], &adapter[i]));
        must(weft_plan_add(p, adapter[i], 1, NULL, &golden_err));
    }
    must(weft_plan_seal(p, 5, &golden_err));
    shape.allocator = &a;
    for (shape.threads = 1; shape.threads <= 5; shape.threads += 2) { /* more merges than workers, and as many */
        must(weft_run_create(p, &shape, &r, &golden_err));
        plain_step s = PLAIN_STEP_INIT;
        s.latent = x;
        s.out = out;
        s.text = text;
        s.latent_len = s.out_len = sizeof x / sizeof *x;
        s.text_len = sizeof text / sizeof *text;
        s.timestep = 500;
        must(plain_run_step(r, &s, &golden_err));
        must(weft_run_set_plan(r, p, &golden_err));
        weft_run_free(r);
    }
    weft_plan_free(p);
    weft_model_free(m);
    for (int i = 0; i < 2; i++) weft_adapter_free(adapter[i]);
    ck_assert_int_eq(own.strangers, 0);
    ck_assert_int_eq(own.live, 0);
}
END_TEST

START_TEST(a_step_takes_no_memory)
{
    for (int klora = 0; klora < 2; klora++) {
        weft_plan *p;
        weft_run *r;
        float x[4 * 16 * 16] = { 0.5f }, out[4 * 16 * 16], text[77 * 24] = { 1 }, image[3 * 32 * 32];
        must(make_plan(&counted, klora, 0, &p));
        must(make_run(&counted, p, &r));
        size_t calls = memory.calls;
        for (int n = 0; n < 5; n++) {
            plain_step s = PLAIN_STEP_INIT;
            s.latent = x;
            s.out = out;
            s.text = s.negative = text;
            s.latent_len = s.out_len = sizeof x / sizeof *x;
            s.text_len = s.negative_len = sizeof text / sizeof *text;
            s.guidance = 3;
            s.call = n;
            s.timestep = 500;
            must(plain_run_step(r, &s, &golden_err));
        }
        must(weft_run_decode(r, x, sizeof x / sizeof *x, image, sizeof image / sizeof *image, &golden_err));
        must(weft_run_encode_image(r, image, sizeof image / sizeof *image, x, sizeof x / sizeof *x, out,
                                   sizeof out / sizeof *out, &golden_err));
        ck_assert_uint_eq(memory.calls, calls);
        weft_run_free(r);
        weft_plan_free(p);
        ck_assert_uint_eq(memory.live_blocks, 0);
    }
}
END_TEST

/* Bytes that a run of this shape takes besides those that it reports: handles, and what stands before each block. */
static size_t unreported(weft_plan *p, int32_t batch, int32_t height, int32_t tokens, size_t *blocks)
{
    weft_run_options o = WEFT_RUN_OPTIONS_INIT;
    weft_run_info info = WEFT_RUN_INFO_INIT;
    weft_run *r;
    uint64_t told;
    o.allocator = &counted;
    o.threads = 2, o.batch = batch, o.height = height, o.text_tokens = tokens;
    must(weft_run_bytes(p, &o, &told, &golden_err));
    size_t before = memory.live_bytes, live = memory.live_blocks;
    must(weft_run_create(p, &o, &r, &golden_err));
    size_t took = memory.live_bytes - before;
    *blocks = memory.live_blocks - live;
    must(weft_run_info_get(r, &info, &golden_err));
    ck_assert_uint_eq(info.bytes, told);
    ck_assert_uint_ge(took, told);
    weft_run_free(r);
    return took - (size_t)told;
}

/* What is not reported does not depend on the shape: so no buffer of a step, an encode or a decode is left out. */
START_TEST(a_run_takes_what_was_told)
{
    for (int32_t path = WEFT_PATH_SIDE; path <= WEFT_PATH_MERGED; path++) {
        weft_plan *p;
        size_t blocks, more;
        must(make_plan(NULL, 0, path, &p));
        size_t rest = unreported(p, 1, 16, 77, &blocks);
        ck_assert_msg(rest < 4096 + 128 * blocks, "%zu bytes in %zu blocks", rest, blocks);
        for (int i = 0; i < 3; i++) {
            size_t other = unreported(p, i == 0 ? 3 : 1, i == 1 ? 40 : 16, i == 2 ? 385 : 77, &more);
            ck_assert_uint_eq(more, blocks);
            ck_assert_msg(other <= rest + 64 && rest <= other + 64, "%zu bytes, or %zu", rest, other);
        }
        weft_plan_free(p);
    }
}
END_TEST

static size_t merged_bytes(const weft_plan *p)
{
    weft_plan_info i = WEFT_PLAN_INFO_INIT;
    must(weft_plan_info_get(p, &i, &golden_err));
    return (size_t)i.merged_bytes;
}

/* What is told of a run before it is made is what the run then tells, and its parts are its own. */
START_TEST(a_run_is_measured_before_it_is_made)
{
    for (int32_t path = WEFT_PATH_SIDE; path <= WEFT_PATH_MERGED; path++)
        for (uint32_t flags = 0; flags <= WEFT_RUN_FORGET_TEXT; flags += WEFT_RUN_FORGET_TEXT) {
            weft_run_options o = WEFT_RUN_OPTIONS_INIT;
            weft_run_info told = WEFT_RUN_INFO_INIT, is = WEFT_RUN_INFO_INIT;
            weft_plan *p;
            weft_run *r;
            uint64_t bytes;
            must(make_plan(NULL, 0, path, &p));
            o.flags = flags;
            o.batch = 2, o.height = 24, o.width = 16, o.threads = 3, o.text_tokens = 154;
            must(weft_run_measure(p, &o, &told, &golden_err));
            must(weft_run_bytes(p, &o, &bytes, &golden_err));
            must(weft_run_create(p, &o, &r, &golden_err));
            must(weft_run_info_get(r, &is, &golden_err));
            ck_assert_mem_eq(&told, &is, sizeof told);
            ck_assert_uint_eq(told.bytes, bytes);
            ck_assert_uint_gt(told.bytes, told.scratch_bytes + told.copy_bytes + told.kept_bytes);
            ck_assert_int_eq(told.copy_bytes > 0, path == WEFT_PATH_MERGED);
            ck_assert_int_eq(told.kept_bytes > 0, flags == 0);
            if (path == WEFT_PATH_MERGED) ck_assert_uint_eq(told.copy_bytes, merged_bytes(p));
            if (flags == 0) /* two halves of two samples, 154 tokens: of each what the layers over the text give */
                ck_assert_uint_gt(told.kept_bytes, 2 * 2 * 154 * 2 * 8 * sizeof(float));
            uint64_t most = told.step_bytes;
            if (told.encode_bytes > most) most = told.encode_bytes;
            if (told.decode_bytes > most) most = told.decode_bytes;
            if (told.encode_image_bytes > most) most = told.encode_image_bytes;
            ck_assert(told.encode_bytes > 0 && told.decode_bytes > 0 && told.encode_image_bytes > 0);
            ck_assert_uint_le(most, told.scratch_bytes);
            /* workers' scratch is that of the use that needs most of it, whatever that needs besides */
            ck_assert_uint_lt(told.scratch_bytes, told.step_bytes + told.encode_bytes + told.decode_bytes + told.encode_image_bytes);
            weft_run_free(r);
            o.struct_size = 0;
            ck_assert_int_eq(weft_run_measure(p, &o, &told, &golden_err), WEFT_E_ARG);
            ck_assert_int_eq(weft_run_measure(p, NULL, NULL, &golden_err), WEFT_E_ARG);
            ck_assert_int_eq(weft_run_measure(NULL, NULL, &told, &golden_err), WEFT_E_ARG);
            weft_plan_free(p);
        }
}
END_TEST

/* Images whose pixels are more than 32 bits count. */
START_TEST(a_huge_run_is_measured)
{
    weft_run_options o = WEFT_RUN_OPTIONS_INIT;
    weft_run_info small = WEFT_RUN_INFO_INIT, told = WEFT_RUN_INFO_INIT;
    weft_plan *p;
    must(make_plan(NULL, 0, WEFT_PATH_SIDE, &p));
    o.threads = 1;
    o.height = o.width = 58;
    must(weft_run_measure(p, &o, &small, &golden_err));
    o.height = o.width = 5800;
    must(weft_run_measure(p, &o, &told, &golden_err));
    ck_assert_uint_gt(told.decode_bytes, 9000 * small.decode_bytes);
    ck_assert_uint_lt(told.decode_bytes, 10000 * small.decode_bytes);
    weft_plan_free(p);
}
END_TEST

/* Content in the up blocks, style in the down blocks, where the slider is. */
static weft_plan *with_slider(int32_t path, float weight)
{
    weft_plan_options o = WEFT_PLAN_OPTIONS_INIT;
    weft_add_options up = WEFT_ADD_OPTIONS_INIT, down = WEFT_ADD_OPTIONS_INIT;
    weft_plan *p;
    o.path = path;
    up.select = "unet.up_blocks.*";
    down.select = "unet.down_blocks.*";
    must(weft_plan_create(model, &o, &p, &golden_err));
    must(weft_plan_add(p, content, 1, &up, &golden_err));
    must(weft_plan_add(p, style, weight, &down, &golden_err));
    must(weft_plan_seal(p, 5, &golden_err));
    return p;
}

/* Memory that a run takes beyond its own while it moves to a copy of its plan with this weight. */
static size_t move_to(weft_run *r, const weft_plan *from, float weight)
{
    weft_plan *to;
    size_t before = memory.live_bytes;
    must(weft_plan_copy(from, &to, &golden_err));
    must(weft_plan_set_weight(to, 1, weight, NULL, &golden_err));
    must(weft_plan_seal(to, 5, &golden_err));
    memory.peak_bytes = before;
    must(weft_run_set_plan(r, to, &golden_err));
    ck_assert_uint_eq(memory.live_bytes, before);
    weft_plan_free(to);
    return memory.peak_bytes - before;
}

/* A run that moves to a plan with one changed weight takes memory for the copies that change, and nothing twice: neither
 * the copies that stay nor the scratch. What the move needs in any case, a run on the side path tells. */
START_TEST(a_run_that_moves_takes_only_what_changes)
{
    weft_plan *side = with_slider(WEFT_PATH_SIDE, 0.5f), *merged = with_slider(WEFT_PATH_MERGED, 0.5f);
    weft_plan *rest = with_slider(WEFT_PATH_MERGED, 0);
    weft_run *a, *b;
    size_t changed = merged_bytes(merged) - merged_bytes(rest), kept = merged_bytes(rest);

    must(make_run(&counted, side, &a));
    size_t needed = move_to(a, side, 0.75f);
    weft_run_free(a);
    must(make_run(&counted, merged, &b));
    size_t whole = memory.live_bytes, same = move_to(b, merged, 0.5f), moved = move_to(b, merged, 0.75f);
    ck_assert_uint_gt(changed, 0);
    ck_assert_uint_gt(kept, changed);
    ck_assert_msg(same <= needed + 1024, "nothing changes, and yet %zu bytes more than %zu", same, needed);
    /* Making a copy needs at most as much beside it. */
    ck_assert_msg(moved <= needed + 2 * changed + 4096, "%zu bytes change, and moving takes %zu, of which %zu anyway",
                  changed, moved, needed);
    ck_assert_uint_lt(moved, whole / 4);
    weft_run_free(b);
    weft_plan_free(side);
    weft_plan_free(merged);
    weft_plan_free(rest);
    ck_assert_uint_eq(memory.live_blocks, 0);
}
END_TEST

START_TEST(half_an_allocator_is_refused)
{
    for (int half = 0; half < 2; half++) {
        weft_allocator a = counted;
        weft_model *m = (weft_model *)&a;
        weft_adapter *d = (weft_adapter *)&a;
        weft_noise_options no = WEFT_NOISE_OPTIONS_INIT;
        weft_noise *n = (weft_noise *)&a;
        weft_plan *p = NULL;
        weft_run *r = (weft_run *)&a;
        if (half == 0) a.alloc = NULL;
        else a.free = NULL;
        no.allocator = &a;
        ck_assert_int_eq(open_model(&a, &m), WEFT_E_ARG);
        ck_assert_ptr_nonnull(strstr(golden_err.text, half == 0 ? "alloc is NULL" : "free is NULL"));
        ck_assert_int_eq(open_adapter(&a, "content.safetensors", &d), WEFT_E_ARG);
        ck_assert_int_eq(weft_noise_create(1, &no, &n, &golden_err), WEFT_E_ARG);
        ck_assert_int_eq(make_plan(&a, 0, 0, &p), WEFT_E_ARG);
        must(make_plan(NULL, 0, 0, &p));
        ck_assert_int_eq(make_run(&a, p, &r), WEFT_E_ARG);
        ck_assert(m == NULL && d == NULL && n == NULL && r == NULL);
        weft_plan_free(p);
    }
}
END_TEST

int main(void)
{
    Suite *s = suite_create("memory");
    TCase *c = tcase_create("memory");
    tcase_add_checked_fixture(c, setup, teardown);
    tcase_set_timeout(c, 600);
    tcase_add_loop_test(c, every_allocation_may_fail, 0, (int)(sizeof attempts / sizeof *attempts));
    tcase_add_loop_test(c, the_allocator_is_called_on_the_callers_thread, 0,
                        (int)(sizeof merged_files / sizeof *merged_files));
    tcase_add_test(c, a_step_takes_no_memory);
    tcase_add_test(c, a_run_takes_what_was_told);
    tcase_add_test(c, a_run_is_measured_before_it_is_made);
    tcase_add_test(c, a_huge_run_is_measured);
    tcase_add_test(c, a_run_that_moves_takes_only_what_changes);
    tcase_add_test(c, half_an_allocator_is_refused);
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
