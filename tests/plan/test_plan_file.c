/* A plan as text: what is saved is what is loaded, to the bit, and anything else is refused with one line. */
#define _XOPEN_SOURCE 700 /* realpath */
#include <jansson.h>
#include <sys/stat.h>

#include "fixture.h"

enum { CALLS = 6 };

static weft_model *model;

static void setup(void) { model = open_model("tiny-sd1"); }
static void teardown(void) { weft_model_free(model); }

static weft_adapter *adapter_of(const char *name)
{
    weft_adapter *a;
    char          where[256];

    snprintf(where, sizeof where, "data/adapters/%s", name);
    OK(weft_adapter_open(test_path(where), NULL, &a, &err));
    return a;
}

/* ---- two plans are one ----------------------------------------------------------------------- */

static char *json_of(const weft_plan *p)
{
    size_t needed;
    OK(weft_plan_to_json(p, NULL, NULL, 0, &needed, &err));
    char *text = calloc(needed, 1);
    OK(weft_plan_to_json(p, NULL, text, needed, NULL, &err));
    ck_assert_uint_eq(strlen(text) + 1, needed);
    return text;
}

static void same_tables(const weft_plan *a, const weft_plan *b)
{
    weft_plan_info x = info_of(a), y = info_of(b);

    y.struct_size = x.struct_size;
    ck_assert_mem_eq(&x, &y, sizeof x);
    for (int32_t n = 0; n < x.calls; n++) {
        weft_call_info ca = WEFT_CALL_INFO_INIT, cb = WEFT_CALL_INFO_INIT;
        OK(weft_plan_call(a, n, &ca, &err));
        OK(weft_plan_call(b, n, &cb, &err));
        ck_assert_mem_eq(&ca, &cb, sizeof ca);
        for (int32_t k = 0; k < ca.branches; k++)
            for (int64_t l = 0; l < x.layers; l++)
                for (int32_t i = 0; i < x.adapters; i++) {
                    weft_cell u = WEFT_CELL_INIT, v = WEFT_CELL_INIT;
                    OK(weft_plan_cell(a, n, k, l, i, &u, &err));
                    OK(weft_plan_cell(b, n, k, l, i, &v, &err));
                    if (memcmp(&u, &v, sizeof u) != 0)
                        ck_abort_msg("call %d branch %d layer %d adapter %d differ", n, k, (int)l, i);
                }
    }
}

/* Texts of streams, made of numbers: what a prompt is does not matter here. */
static void step_of(weft_plan *p, int32_t call, float **out, size_t *len)
{
    enum { STREAMS = 2, REGIONS = 4 };
    weft_run_options o = WEFT_RUN_OPTIONS_INIT;
    weft_run_info    info = WEFT_RUN_INFO_INIT;
    weft_text        text[STREAMS], negative[STREAMS], region[STREAMS * REGIONS];
    weft_step        step = WEFT_STEP_INIT;
    weft_run        *run;
    int32_t          regions = info_of(p).regions;

    o.threads = 1;
    o.batch = 2;
    o.width = o.height = 8;
    OK(weft_run_create(p, &o, &run, &err));
    OK(weft_run_info_get(run, &info, &err));
    ck_assert(info.text_streams <= STREAMS && regions <= REGIONS);
    for (int32_t i = 0; i < info.text_streams; i++) {
        text[i] = (weft_text)WEFT_TEXT_INIT;
        OK(weft_run_text(run, i, 1, &text[i], &err));
        negative[i] = text[i];
        text[i].data = calloc(2 * text[i].len, sizeof(float));
        negative[i].data = text[i].data + text[i].len;
        for (size_t k = 0; k < 2 * text[i].len; k++) text[i].data[k] = (float)(k * 7919 % 101) / 50 - 1;
        for (int32_t r = 0; r < regions; r++) region[r * info.text_streams + i] = negative[i];
    }
    float *latent = calloc(info.latent_len, sizeof *latent);
    for (size_t k = 0; k < info.latent_len; k++) latent[k] = (float)(k * 104729 % 211) / 100 - 1;
    *out = calloc(info.latent_len, sizeof **out);
    *len = info.latent_len;
    step.latent = latent;
    step.latent_len = step.out_len = info.latent_len;
    step.text = text;
    step.negative = negative;
    step.text_count = step.negative_count = (size_t)info.text_streams;
    step.region_text = regions > 0 ? region : NULL;
    step.region_text_count = (size_t)(regions * info.text_streams);
    step.out = *out;
    step.timestep = 500;
    step.guidance = 4;
    step.call = call;
    OK(weft_run_step(run, &step, &err));
    for (int32_t i = 0; i < info.text_streams; i++) free(text[i].data);
    free(latent);
    weft_run_free(run);
}

static void same_steps(weft_plan *a, weft_plan *b)
{
    const int32_t calls[] = { 0, 3, CALLS - 1 };

    for (size_t i = 0; i < WF_LEN(calls); i++) {
        float *x, *y;
        size_t n, m;
        step_of(a, calls[i], &x, &n);
        step_of(b, calls[i], &y, &m);
        ck_assert_uint_eq(n, m);
        ck_assert_mem_eq(x, y, n * sizeof *x);
        free(x);
        free(y);
    }
}

static bool both(const void *a, const void *b)
{
    ck_assert_int_eq(a == NULL, b == NULL);
    return a != NULL;
}

/* What a plan was built from, which no table need show. */
static void same_inside(const weft_plan *a, const weft_plan *b)
{
    ck_assert_int_eq(a->path, b->path);
    ck_assert_int_eq(a->text, b->text);
    ck_assert_int_eq(a->mixed, b->mixed);
    ck_assert_int_eq(a->adapters, b->adapters);
    for (int32_t i = 0; i < a->adapters; i++) {
        const wf_entry *x = &a->entry[i], *y = &b->entry[i];
        ck_assert_float_eq(x->weight, y->weight);
        ck_assert_float_eq(x->share, y->share);
        ck_assert_mem_eq(x->text_weight, y->text_weight, sizeof x->text_weight);
        ck_assert_int_eq(x->role, y->role);
        ck_assert_int_eq(x->peft_dora, y->peft_dora);
        ck_assert_int_eq(x->partial, y->partial);
        ck_assert_str_eq(wf_blocks_text(x->blocks), wf_blocks_text(y->blocks));
        if (both(x->bound->select, y->bound->select)) ck_assert_str_eq(x->bound->select, y->bound->select);
        if (both(x->bound->exclude, y->bound->exclude)) ck_assert_str_eq(x->bound->exclude, y->bound->exclude);
        if (both(x->mask, y->mask)) {
            const wf_plan_mask *m = x->mask->data, *n = y->mask->data;
            ck_assert(m->adds == n->adds && m->text == n->text && m->w == n->w && m->h == n->h);
        }
        for (int32_t call = 0; call < CALLS; call++)
            ck_assert_double_eq(wf_curve_at(x->curve, call, CALLS), wf_curve_at(y->curve, call, CALLS));
    }
    ck_assert_int_eq(a->regions, b->regions);
    for (int32_t i = 0; i < a->regions; i++) {
        ck_assert_int_eq(a->region[i].adapter, b->region[i].adapter);
        ck_assert_int_eq(a->region[i].isolated, b->region[i].isolated);
        if (both(a->region[i].mask, b->region[i].mask))
            ck_assert_int_eq(wf_plan_region_mask(a, i)->w, wf_plan_region_mask(b, i)->w);
    }
    ck_assert_uint_eq(a->phases, b->phases);
    for (size_t i = 0; i < a->phases; i++) {
        ck_assert_ptr_eq(a->phase[i].method, b->phase[i].method);
        ck_assert_int_eq(a->phase[i].first, b->phase[i].first);
        ck_assert_double_eq(a->phase[i].at, b->phase[i].at);
    }
    if (both(a->balance, b->balance)) ck_assert_mem_eq(a->balance->data, b->balance->data, sizeof(weft_balance_options));
    if (both(a->align, b->align)) {
        const weft_align_options *x = a->align->data, *y = b->align->data;
        ck_assert(x->shared_score_scale == y->shared_score_scale && x->shared_score_shift == y->shared_score_shift);
        ck_assert(x->only_self_level == y->only_self_level);
        ck_assert_uint_eq(x->flags | WEFT_ALIGN_SCALE, y->flags | WEFT_ALIGN_SCALE);
    }
    if (both(a->notes, b->notes))
        for (size_t i = 0; weft_plan_note_name(a, i) != NULL; i++) {
            ck_assert_str_eq(weft_plan_note_name(a, i), weft_plan_note_name(b, i));
            ck_assert_str_eq(weft_plan_note(a, weft_plan_note_name(a, i)), weft_plan_note(b, weft_plan_note_name(a, i)));
        }
}

/* Save, load, save: the same text, hash, table and predictions. Frees the plan, which is sealed here. */
static void round_trip(weft_plan *p)
{
    weft_plan_load_options o = WEFT_PLAN_LOAD_OPTIONS_INIT;
    const char            *path = temp_path("plan.json");
    char                  *before, *after, hash[65], again[65];
    weft_plan             *q;

    OK(weft_plan_seal(p, CALLS, &err));
    OK(weft_plan_save(p, path, &err));
    o.flags = WEFT_LOAD_SEAL;
    OK(weft_plan_load(model, path, &o, &q, &err));
    unlink(path);
    before = json_of(p);
    after = json_of(q);
    ck_assert_str_eq(before, after);
    OK(weft_plan_hash(p, hash, sizeof hash, &err));
    OK(weft_plan_hash(q, again, sizeof again, &err));
    ck_assert_str_eq(hash, again);
    same_inside(p, q);
    same_tables(p, q);
    same_steps(p, q);
    free(before);
    free(after);
    weft_plan_free(p);
    weft_plan_free(q);
}

static void add(weft_plan *p, const char *file, float weight, int32_t role, float share)
{
    weft_adapter    *a = adapter_of(file);
    weft_add_options o = WEFT_ADD_OPTIONS_INIT;

    o.flags = WEFT_ADD_SHARE;
    o.share = share;
    o.role = role;
    OK(weft_plan_add(p, a, weight, &o, &err));
    weft_adapter_free(a);
}

static weft_plan *pair(void)
{
    weft_plan *p = new_plan(model);
    add(p, "content.safetensors", 0.8f, WEFT_ROLE_CONTENT, 0.7f);
    add(p, "style.safetensors", 1.1f, WEFT_ROLE_STYLE, 0.3f);
    return p;
}

static void box(weft_plan *p, int32_t index, uint32_t flags)
{
    float     values[8 * 8] = { 0 };
    weft_mask m = WEFT_MASK_INIT;

    for (int y = 1; y < 7; y++)
        for (int x = 0; x < 4; x++) values[8 * y + x + 4 * index] = 1;
    m.width = m.height = 8;
    m.values = values;
    m.len = WF_LEN(values);
    m.flags = flags;
    m.text = 0.25f;
    OK(weft_plan_set_mask(p, index, &m, &err));
}

/* ---- methods --------------------------------------------------------------------------------- */

START_TEST(merge_comes_back) { round_trip(pair()); }
END_TEST

START_TEST(switch_comes_back)
{
    const int32_t       order[] = { 1, 0, 1 };
    weft_switch_options o = WEFT_SWITCH_OPTIONS_INIT;
    weft_plan          *p = pair();

    o.flags = WEFT_SWITCH_OFFICIAL_OFFSET | WEFT_SWITCH_SHARES;
    o.period = 2;
    o.order = order;
    o.order_len = 3;
    o.last_calls = 1;
    o.last_role = WEFT_ROLE_STYLE;
    OK(weft_plan_switch(p, &o, &err));
    round_trip(p);

    p = pair();
    o = (weft_switch_options)WEFT_SWITCH_OPTIONS_INIT;
    o.last_calls = 2;
    o.last_adapter = 1;
    OK(weft_plan_switch(p, &o, &err));
    round_trip(p);
}
END_TEST

START_TEST(composite_comes_back)
{
    weft_composite_options o = WEFT_COMPOSITE_OPTIONS_INIT;
    weft_plan             *p = pair();

    OK(weft_plan_composite(p, NULL, &err));
    round_trip(p);
    p = pair();
    o.flags = WEFT_COMPOSITE_CACHED | WEFT_COMPOSITE_DIVIDE_BY_COUNT | WEFT_COMPOSITE_NOCFG_LAST;
    o.c1 = 3;
    o.c2 = 4;
    OK(weft_plan_composite(p, &o, &err));
    round_trip(p);
}
END_TEST

START_TEST(loratorio_and_subbands_come_back)
{
    weft_loratorio_options l = WEFT_LORATORIO_OPTIONS_INIT;
    weft_subbands_options  s = WEFT_SUBBANDS_OPTIONS_INIT;
    weft_plan             *p = pair();

    l.flags = WEFT_LORATORIO_BASE;
    l.patch = 3;
    l.keep = 1;
    l.temperature = 0.3f;
    l.base = 0.1f;
    OK(weft_plan_loratorio(p, &l, &err));
    round_trip(p);
    p = pair();
    s.flags = WEFT_SUBBANDS_SHARPNESS;
    s.levels = 1;
    s.keep = 2;
    s.sharpness = 2.7f;
    OK(weft_plan_subbands(p, &s, &err));
    round_trip(p);
}
END_TEST

START_TEST(blend_comes_back)
{
    weft_blend_options o = WEFT_BLEND_OPTIONS_INIT;
    weft_plan         *p = pair();

    box(p, 0, 0);
    box(p, 1, WEFT_MASK_TEXT);
    o.start = 2;
    OK(weft_plan_blend(p, &o, &err));
    round_trip(p);
}
END_TEST

START_TEST(klora_comes_back)
{
    weft_klora_options o = WEFT_KLORA_OPTIONS_INIT;
    weft_plan         *p = pair();

    o.flags = WEFT_KLORA_WRAP | WEFT_KLORA_IGNORE_ALPHA | WEFT_KLORA_ATTENTION_ONLY;
    o.pattern = WEFT_KLORA_CUSTOM;
    o.gamma = WEFT_KLORA_GAMMA_PAPER;
    o.top_k = 17;
    o.alpha = 1.0 / 3;
    o.beta = 0.1;
    o.modulus = 1e-3 + 1;
    OK(weft_plan_klora(p, &o, &err));
    round_trip(p);
    p = pair();
    o = (weft_klora_options)WEFT_KLORA_OPTIONS_INIT;
    o.flags = WEFT_KLORA_PAPER_BETA;
    o.granularity = WEFT_KLORA_BY_STEP;
    o.score = WEFT_KLORA_ENERGY;
    OK(weft_plan_klora(p, &o, &err));
    round_trip(p);
    p = pair();
    o = (weft_klora_options)WEFT_KLORA_OPTIONS_INIT;
    o.pattern = WEFT_KLORA_FIXED;
    o.share = 0.1 + 0.2; /* 0.30000000000000004 */
    OK(weft_plan_klora(p, &o, &err));
    round_trip(p);
}
END_TEST

START_TEST(zip_comes_back)
{
    weft_zip_options o = WEFT_ZIP_OPTIONS_INIT;
    weft_plan       *p = pair();

    o.flags = WEFT_ZIP_LAMBDA | WEFT_ZIP_STYLE;
    o.lambda = 0.35;
    o.style = 1.0 / 7;
    OK(weft_plan_zip(p, &o, &err));
    round_trip(p);
    p = pair();
    o.flags = WEFT_ZIP_STYLE;
    OK(weft_tensors_open(test_path("data/adapters/zip_coefficients.safetensors"), NULL, &o.coefficients, &err));
    OK(weft_plan_zip(p, &o, &err));
    weft_tensors_free(o.coefficients);
    round_trip(p);
}
END_TEST

START_TEST(blora_comes_back)
{
    weft_blora_options o = WEFT_BLORA_OPTIONS_INIT;
    weft_plan         *p = pair();

    OK(weft_plan_blora(p, NULL, &err));
    round_trip(p);
    p = pair();
    o.flags = WEFT_BLORA_SQUARED;
    o.content = "unet.up_blocks.0.*,unet.mid_block.*";
    o.style = "*attn2*";
    OK(weft_plan_blora(p, &o, &err));
    round_trip(p);
}
END_TEST

/* ---- what is not of a method ----------------------------------------------------------------- */

/* Everything that an adapter may have, regions, phases, a balance, and every policy. */
START_TEST(all_the_rest_comes_back)
{
    weft_plan_options po = WEFT_PLAN_OPTIONS_INIT;
    weft_plan        *p;
    weft_add_options  o = WEFT_ADD_OPTIONS_INIT;
    weft_text_weights text = WEFT_TEXT_WEIGHTS_INIT;
    weft_curve_point  curve[3] = { WEFT_CURVE_POINT_INIT, WEFT_CURVE_POINT_INIT, WEFT_CURVE_POINT_INIT };
    weft_phase_options phase = WEFT_PHASE_OPTIONS_INIT;
    weft_balance_options balance = WEFT_BALANCE_OPTIONS_INIT;
    weft_region       region = WEFT_REGION_INIT;
    weft_mask         m = WEFT_MASK_INIT;
    float             soft[5 * 3];
    weft_adapter     *a = adapter_of("content.safetensors");

    po.path = WEFT_PATH_SIDE;
    po.text = WEFT_TEXT_NONE;
    OK(weft_plan_create(model, &po, &p, &err));
    text.text_1 = 0.1f;
    text.text_3 = -1;
    o.flags = WEFT_ADD_PARTIAL | WEFT_ADD_PEFT_DORA;
    o.select = "unet.*,text_encoder.*";
    o.exclude = "*conv_in*";
    o.text_weights = &text;
    OK(weft_plan_add(p, a, -0.3f, &o, &err));
    weft_adapter_free(a);
    add(p, "style.safetensors", 1.25f, WEFT_ROLE_STYLE, 1);
    OK(weft_plan_set_blocks(p, 1, "ALL0.5,MID=0.1,*attn2*=0.7", &err));
    curve[1].at = 0.25, curve[2].at = 0.25;
    curve[0].value = 0, curve[1].value = 1.0 / 3, curve[2].value = -2;
    curve[0].shape = WEFT_CURVE_COSINE, curve[1].shape = WEFT_CURVE_LINEAR;
    OK(weft_plan_set_curve(p, 0, WEFT_CURVE_AT_SHARE, curve, 3, &err));
    curve[1].at = 2, curve[2].at = 5;
    OK(weft_plan_set_curve(p, 1, 0, curve, 3, &err));
    box(p, 0, WEFT_MASK_TEXT | WEFT_MASK_ADD);
    region.flags = WEFT_REGION_ADAPTER | WEFT_REGION_ISOLATED;
    OK(weft_plan_add_region(p, &region, &err));
    for (int i = 0; i < 15; i++) soft[i] = (float)i / 15;
    m.width = 5;
    m.height = 3;
    m.values = soft;
    m.len = WF_LEN(soft);
    region = (weft_region)WEFT_REGION_INIT;
    region.mask = &m;
    OK(weft_plan_add_region(p, &region, &err));
    region.flags = WEFT_REGION_ISOLATED;
    OK(weft_plan_add_region(p, &region, &err));
    balance.gamma = WEFT_KLORA_GAMMA_PAPER;
    balance.role = WEFT_ROLE_STYLE;
    OK(weft_plan_balance(p, &balance, &err));
    OK(weft_plan_switch(p, NULL, &err));
    phase.first = 2;
    OK(weft_plan_begin_phase(p, &phase, &err));
    OK(weft_plan_composite(p, NULL, &err));
    phase.first = 0;
    phase.flags = WEFT_PHASE_AT;
    phase.at = 2.0 / 3;
    OK(weft_plan_begin_phase(p, &phase, &err));
    OK(weft_plan_set_note(p, "prompt", "a \"cat\"\n\\ in ink\x01, \xc3\xa9", &err));
    OK(weft_plan_set_note(p, "seed", "7", &err));
    round_trip(p);
}
END_TEST

START_TEST(balance_of_defaults_and_of_an_index_come_back)
{
    weft_balance_options o = WEFT_BALANCE_OPTIONS_INIT;
    weft_plan           *p = pair();

    OK(weft_plan_balance(p, NULL, &err));
    round_trip(p);
    p = pair();
    o.reference = 1;
    OK(weft_plan_balance(p, &o, &err));
    round_trip(p);
    p = new_plan(model); /* without anything */
    round_trip(p);
}
END_TEST

START_TEST(alignment_comes_back)
{
    weft_align_options o = WEFT_ALIGN_OPTIONS_INIT;
    weft_plan         *p = pair();

    OK(weft_plan_align(p, NULL, &err));
    round_trip(p);
    p = pair();
    o.flags = WEFT_ALIGN_NO_GROUP_NORM | WEFT_ALIGN_NO_QUERIES | WEFT_ALIGN_NO_KEYS | WEFT_ALIGN_VALUES | WEFT_ALIGN_SCALE;
    o.shared_score_scale = 1.3f;
    o.shared_score_shift = -0.7f;
    o.only_self_level = 0.15;
    OK(weft_plan_align(p, &o, &err));
    round_trip(p);
    p = pair();
    o = (weft_align_options)WEFT_ALIGN_OPTIONS_INIT;
    o.flags = WEFT_ALIGN_FULL;
    OK(weft_plan_align(p, &o, &err));
    round_trip(p);
    p = pair();
    o.flags = WEFT_ALIGN_NO_ATTENTION;
    OK(weft_plan_align(p, &o, &err));
    round_trip(p);
}
END_TEST

START_TEST(policies_come_back)
{
    for (int32_t path = WEFT_PATH_AUTO; path <= WEFT_PATH_MERGED; path++)
        for (int32_t text = WEFT_TEXT_METHOD; text <= WEFT_TEXT_NONE; text++)
            for (int32_t mixed = WEFT_MIXED_DELTA; mixed <= WEFT_MIXED_DIRECTION; mixed++) {
                weft_plan_options o = WEFT_PLAN_OPTIONS_INIT;
                weft_plan        *p, *q;
                o.path = path;
                o.text = text;
                o.mixed = mixed;
                OK(weft_plan_create(model, &o, &p, &err));
                char *text_of = json_of(p);
                OK(weft_plan_from_json(model, text_of, strlen(text_of), NULL, &q, &err));
                ck_assert_int_eq(q->path, path);
                ck_assert_int_eq(q->text, text);
                ck_assert_int_eq(q->mixed, mixed);
                free(text_of);
                weft_plan_free(p);
                weft_plan_free(q);
            }
}
END_TEST

/* Folders of PEFT with their configuration, alpha that only an option says, a name. */
START_TEST(openings_come_back)
{
    weft_adapter_options o = WEFT_ADAPTER_OPTIONS_INIT;
    weft_plan           *p = new_plan(model);
    weft_adapter        *a = adapter_of("sd1_peft_rslora");

    OK(weft_plan_add(p, a, 1, NULL, &err));
    weft_adapter_free(a);
    o.alpha = 3;
    o.name = "bare";
    OK(weft_adapter_open(test_path("data/adapters/sd1_kohya_noalpha.safetensors"), &o, &a, &err));
    OK(weft_plan_add(p, a, 1, NULL, &err));
    weft_adapter_free(a);
    o = (weft_adapter_options)WEFT_ADAPTER_OPTIONS_INIT;
    o.config_text = "{\"peft_type\": \"LORA\", \"r\": 2, \"lora_alpha\": 3}";
    OK(weft_adapter_open(test_path("data/adapters/sd1_peft_bare.safetensors"), &o, &a, &err));
    OK(weft_plan_add(p, a, 1, NULL, &err));
    weft_adapter_free(a);
    round_trip(p);
}
END_TEST

static weft_concept *concept_of(const char *name, const char *tokens, const char *second)
{
    weft_concept_options o = WEFT_CONCEPT_OPTIONS_INIT;
    weft_concept        *c;
    char                 where[256], other[4096];

    snprintf(where, sizeof where, "data/concepts/%s", second != NULL ? second : name);
    snprintf(other, sizeof other, "%s", test_path(where));
    snprintf(where, sizeof where, "data/concepts/%s", name);
    o.tokens = tokens;
    if (second != NULL) o.second = other;
    OK(weft_concept_open(test_path(where), &o, &c, &err));
    return c;
}

/* Tokens alone, an adapter with tokens between two others, tokens whose adapter was taken out again. */
START_TEST(concepts_come_back)
{
    weft_plan       *p = pair();
    weft_add_options o = WEFT_ADD_OPTIONS_INIT;
    weft_concept    *tokens = concept_of("a1111.pt", NULL, NULL);
    weft_concept    *both = concept_of("custom_diffusion.safetensors", NULL, "new1.bin");
    weft_concept    *other = concept_of("bundle.safetensors", NULL, NULL);

    OK(weft_plan_add_concept(p, tokens, 1, NULL, &err));
    OK(weft_plan_add_concept(p, both, 0.5f, NULL, &err));
    OK(weft_plan_add_concept(p, other, 0.25f, &o, &err));
    OK(weft_plan_remove(p, 3, &err));
    add(p, "style.safetensors", 0.2f, 0, 1);
    weft_concept_free(tokens);
    weft_concept_free(both);
    weft_concept_free(other);
    char *text = json_of(p);
    ck_assert_ptr_nonnull(strstr(text, "\"concept\": 1"));
    free(text);
    uint64_t   stamp, again;
    weft_plan *q;
    OK(weft_plan_seal(p, CALLS, &err));
    text = json_of(p);
    OK(weft_plan_from_json(model, text, strlen(text), NULL, &q, &err));
    OK(weft_plan_seal(q, CALLS, &err));
    stamp = wf_plan_text_stamp(p); /* of every vector of every token */
    again = wf_plan_text_stamp(q);
    ck_assert_uint_eq(stamp, again);
    tokens = weft_plan_concept(q, 2);
    ck_assert_ptr_nonnull(tokens);
    ck_assert_ptr_null(weft_plan_concept(q, 3));
    weft_concept_free(tokens);
    free(text);
    weft_plan_free(p);
    round_trip(weft_plan_copy(q, &p, &err) == WEFT_OK ? p : NULL);
    weft_plan_free(q);
}
END_TEST

START_TEST(names_of_tokens_and_replacement_come_back)
{
    weft_plan       *p = new_plan(model), *q;
    weft_add_options o = WEFT_ADD_OPTIONS_INIT;
    weft_concept    *c = concept_of("a1111.pt", "cat", NULL);

    o.flags = WEFT_ADD_REPLACE;
    OK(weft_plan_add_concept(p, c, 1, &o, &err));
    weft_concept_free(c);
    char *text = json_of(p);
    ck_assert_ptr_nonnull(strstr(text, "\"tokens\": \"cat\""));
    ck_assert_ptr_nonnull(strstr(text, "\"replace\": true"));
    OK(weft_plan_from_json(model, text, strlen(text), NULL, &q, &err));
    char *again = json_of(q);
    ck_assert_str_eq(text, again);
    free(again);
    free(text);
    weft_plan_free(p);
    weft_plan_free(q);

    weft_model *sdxl = open_model("tiny-sdxl");
    p = new_plan(sdxl);
    c = concept_of("pair_1.safetensors", NULL, "pair_2.bin");
    OK(weft_plan_add_concept(p, c, 1, NULL, &err));
    weft_concept_free(c);
    text = json_of(p);
    ck_assert_ptr_nonnull(strstr(text, "\"second_sha256\""));
    OK(weft_plan_from_json(sdxl, text, strlen(text), NULL, &q, &err));
    again = json_of(q);
    ck_assert_str_eq(text, again);
    free(again);
    free(text);
    weft_plan_free(p);
    weft_plan_free(q);
    weft_model_free(sdxl);
}
END_TEST

/* ---- masks ----------------------------------------------------------------------------------- */

/* The mask of adapter 0 of a plan that was saved and loaded, and the form that it was saved in. */
static void mask_trip(const float *values, int32_t w, int32_t h, const char *form)
{
    weft_plan *p = new_plan(model), *q;
    weft_mask  m = WEFT_MASK_INIT;

    add(p, "content.safetensors", 1, 0, 1);
    m.width = w;
    m.height = h;
    m.values = values;
    m.len = (size_t)w * (size_t)h;
    OK(weft_plan_set_mask(p, 0, &m, &err));
    char *text = json_of(p);
    ck_assert_msg(strstr(text, form) != NULL, "%d x %d is not in %s", w, h, form);
    OK(weft_plan_from_json(model, text, strlen(text), NULL, &q, &err));
    const wf_plan_mask *back = wf_plan_mask_of(q, 0);
    ck_assert_int_eq(back->w, w);
    ck_assert_int_eq(back->h, h);
    ck_assert_mem_eq(back->values, values, m.len * sizeof *values);
    free(text);
    weft_plan_free(p);
    weft_plan_free(q);
}

START_TEST(masks_keep_every_bit)
{
    float *v = calloc(4096 * 4096, sizeof *v);

    v[0] = -0.0f;
    mask_trip(v, 1, 1, "\"rows\": [[1, -0.0, 1]]");
    mask_trip(v, 2, 1, "\"rows\": [[1, -0.0, 1, 0, 1]]");
    for (int i = 0; i < 64 * 64; i++) v[i] = i % 64 >= 16 && i / 64 < 32;
    mask_trip(v, 64, 64, "\"rows\": [[32, 0, 16, 1, 48], [32, 0, 64]]");
    for (int w = 61; w < 64; w++) { /* every end of base64 */
        for (int i = 0; i < 64 * 64; i++) v[i] = (float)(i * 31 % 256) / 255;
        mask_trip(v, w, 61, "\"gray\"");
        for (int i = 0; i < 64 * 64; i++) v[i] = (float)(i * 31 % 1009) / 1009;
        mask_trip(v, w, 61, "\"float32\"");
    }
    memset(v, 0, 4096 * 4096 * sizeof *v);
    mask_trip(v, 4096, 4096, "\"rows\": [[4096, 0, 4096]]");
    free(v);
}
END_TEST

/* Nine of the largest are one too many, for who saves and for who reads. */
START_TEST(all_masks_have_a_limit)
{
    static const char one[] = "{\"mask\": {\"width\": 4096, \"height\": 4096, \"rows\": [[4096, 1, 4096]]}}";
    char              text[2048] = "{\"weft_plan\": 1, \"regions\": [";
    weft_plan        *p = NULL;
    weft_region       r = WEFT_REGION_INIT;
    weft_mask         m = WEFT_MASK_INIT;

    for (int i = 0; i < 9; i++) strcat(strcat(text, i > 0 ? ", " : ""), one);
    strcat(text, "]}");
    FAILS(WEFT_E_FORMAT, "plan: regions[8].mask: masks of more than 134217728 pixels",
          weft_plan_from_json(model, text, strlen(text), NULL, &p, &err));
    ck_assert_ptr_null(p);
    p = new_plan(model);
    m.width = m.height = 4096;
    m.len = 4096 * 4096;
    float *values = calloc(m.len, sizeof *values);
    m.values = values;
    r.mask = &m;
    for (int i = 0; i < 9; i++) OK(weft_plan_add_region(p, &r, &err));
    FAILS(WEFT_E_UNSUPPORTED, "masks of more than 134217728 pixels", weft_plan_to_json(p, NULL, NULL, 0, NULL, &err));
    OK(weft_plan_remove_region(p, 0, &err));
    OK(weft_plan_to_json(p, NULL, NULL, 0, NULL, &err));
    free(values);
    weft_plan_free(p);
}
END_TEST

/* ---- paths, hashes, models ------------------------------------------------------------------- */

static void copy_file(const char *from, const char *to)
{
    FILE *in = fopen(from, "rb"), *out = fopen(to, "wb");
    char  buf[4096];
    ck_assert(in != NULL && out != NULL);
    for (size_t n; (n = fread(buf, 1, sizeof buf, in)) > 0; ) fwrite(buf, 1, n, out);
    fclose(in);
    fclose(out);
}

/* A folder with a plan and its adapter is moved, and read from another directory. */
START_TEST(a_folder_can_be_moved)
{
    char          from[4096], to[4096], file[4200], plan[4200], hash[65], again[65], cwd[4096];
    weft_plan    *p = new_plan(model), *q;
    weft_adapter *a;

    snprintf(from, sizeof from, "%s", temp_path("here"));
    snprintf(to, sizeof to, "%s", temp_path("there"));
    ck_assert_int_eq(mkdir(from, 0700), 0);
    snprintf(file, sizeof file, "%s/sub", from);
    ck_assert_int_eq(mkdir(file, 0700), 0);
    snprintf(file, sizeof file, "%s/sub/../sub/ink.safetensors", from);
    snprintf(plan, sizeof plan, "%s/./cat.json", from);
    copy_file(test_path("data/adapters/content.safetensors"), file);
    OK(weft_adapter_open(file, NULL, &a, &err));
    OK(weft_plan_add(p, a, 1, NULL, &err));
    weft_adapter_free(a);
    OK(weft_plan_save(p, plan, &err));
    OK(weft_plan_hash(p, hash, sizeof hash, &err));
    char *text = json_of(p);
    ck_assert_ptr_nonnull(strstr(text, from)); /* without a folder: from the root */
    free(text);
    weft_plan_free(p);
    ck_assert_int_eq(rename(from, to), 0);
    snprintf(plan, sizeof plan, "%s/cat.json", to);
    json_t *root = json_load_file(plan, 0, NULL);
    ck_assert_str_eq(json_string_value(json_object_get(json_array_get(json_object_get(root, "adapters"), 0), "file")),
                     "sub/ink.safetensors");
    json_decref(root);
    OK(weft_plan_load(model, plan, NULL, &q, &err));
    OK(weft_plan_hash(q, again, sizeof again, &err));
    ck_assert_str_eq(hash, again);
    weft_plan_free(q);
    ck_assert_ptr_nonnull(getcwd(cwd, sizeof cwd)); /* a path without a folder */
    ck_assert_int_eq(chdir(to), 0);
    OK(weft_plan_load(model, "cat.json", NULL, &q, &err));
    ck_assert_int_eq(chdir(cwd), 0);
    OK(weft_plan_save(q, plan, &err)); /* though its directory is another now */
    weft_plan_free(q);
    unlink(plan);
    snprintf(file, sizeof file, "%s/sub/ink.safetensors", to);
    unlink(file);
    snprintf(file, sizeof file, "%s/sub", to);
    rmdir(file);
    ck_assert_int_eq(rmdir(to), 0);
}
END_TEST

/* What sha256sum prints of the file stands in the text. */
START_TEST(hashes_are_sha256)
{
    static const struct { const char *text, *hash; } known[] = { /* FIPS 180-4's examples, and the empty text */
        { "", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855" },
        { "abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" },
        { "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
          "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1" },
    };
    wf_sha256      s;
    wf_sha256_text hash, other;
    uint8_t        bytes[1000];

    for (size_t i = 0; i < WF_LEN(known); i++) {
        wf_sha256_init(&s);
        wf_sha256_add(&s, known[i].text, strlen(known[i].text));
        wf_sha256_end(&s, &hash);
        ck_assert_str_eq(hash.text, known[i].hash);
    }
    wf_sha256_init(&s); /* a million times a */
    memset(bytes, 'a', sizeof bytes);
    for (int i = 0; i < 1000; i++) wf_sha256_add(&s, bytes, sizeof bytes);
    wf_sha256_end(&s, &hash);
    ck_assert_str_eq(hash.text, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    for (size_t cut = 0; cut <= 200; cut++) { /* in two pieces */
        for (size_t i = 0; i < 200; i++) bytes[i] = (uint8_t)(i * 37);
        wf_sha256_init(&s);
        wf_sha256_add(&s, bytes, cut);
        wf_sha256_add(&s, bytes + cut, 200 - cut);
        wf_sha256_end(&s, cut == 0 ? &other : &hash);
        if (cut > 0) ck_assert_str_eq(hash.text, other.text);
    }
}
END_TEST

/* Text with one thing replaced by another. */
static char *with(const char *text, const char *old, const char *new)
{
    const char *at = strstr(text, old);
    ck_assert_msg(at != NULL, "no %s", old);
    char *out = calloc(strlen(text) + strlen(new) + 1, 1);
    memcpy(out, text, (size_t)(at - text));
    strcat(out, new);
    strcat(out, at + strlen(old));
    return out;
}

static weft_status load_text(const char *text, uint32_t flags, weft_plan **out)
{
    weft_plan_load_options o = WEFT_PLAN_LOAD_OPTIONS_INIT;
    o.flags = flags;
    return weft_plan_from_json(model, text, strlen(text), &o, out, &err);
}

START_TEST(another_content_is_refused)
{
    char          file[4096], text[8192];
    weft_plan    *p = new_plan(model), *q;
    weft_adapter *a;

    snprintf(file, sizeof file, "%s", temp_path("x.safetensors"));
    copy_file(test_path("data/adapters/content.safetensors"), file);
    OK(weft_adapter_open(file, NULL, &a, &err));
    OK(weft_plan_add(p, a, 1, NULL, &err));
    weft_adapter_free(a);
    OK(weft_plan_to_json(p, NULL, text, sizeof text, NULL, &err));
    unlink(file);
    FAILS(WEFT_E_IO, "was opened, and is not there now", weft_plan_hash(p, text + 4096, 65, &err));
    FAILS(WEFT_E_IO, "plan: adapters[0]: ", load_text(text, 0, &q));
    ck_assert_ptr_null(q);
    ck_assert_int_eq(err.sys, 2);
    copy_file(test_path("data/adapters/style.safetensors"), file);
    FAILS(WEFT_E_STATE, "has changed since it was opened", weft_plan_hash(p, text + 4096, 65, &err));
    FAILS(WEFT_E_MISMATCH, "has another content: its hash is ", load_text(text, 0, &q));
    OK(load_text(text, WEFT_LOAD_ANY_FILES, &q));
    weft_plan_free(q);
    unlink(file);
    weft_plan_free(p);
}
END_TEST

static void write_text(const char *path, const char *text)
{
    FILE *f = fopen(path, "wb");
    ck_assert_ptr_nonnull(f);
    fputs(text, f);
    fclose(f);
}

/* What a file of a note is called in the text, and its hash. */
static void note_in(const char *plan, const char *name, const char *file, const char *sha256)
{
    json_t *root = json_load_file(plan, 0, NULL), *note = json_object_get(json_object_get(root, "notes"), name);

    ck_assert_str_eq(json_string_value(json_object_get(note, "file")), file);
    ck_assert_str_eq(json_string_value(json_object_get(note, "sha256")), sha256);
    ck_assert_uint_eq(json_object_size(note), 2);
    json_decref(root);
}

/* The hashes are those that sha256sum prints. */
static const char hash_of_abc[] = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

/* One note is a file below the plan's folder, one is a file elsewhere. */
START_TEST(notes_that_are_files_move_with_the_plan)
{
    char       from[4096], to[4096], file[4200], other[4200], plan[4200], real[4096], hash[65], again[65];
    weft_plan *p = new_plan(model), *q, *copy;

    snprintf(from, sizeof from, "%s", temp_path("here"));
    snprintf(to, sizeof to, "%s", temp_path("there"));
    snprintf(other, sizeof other, "%s", temp_path("other.png"));
    ck_assert_int_eq(mkdir(from, 0700), 0);
    snprintf(file, sizeof file, "%s/cat.png", from);
    snprintf(plan, sizeof plan, "%s/cat.json", from);
    write_text(file, "abc");
    write_text(other, "");
    OK(weft_plan_hash(p, hash, sizeof hash, &err));
    OK(weft_plan_set_note(p, "image", "a text, which gives way", &err));
    OK(weft_plan_set_note(p, "seed", "7", &err));
    OK(weft_plan_set_note_file(p, "image", file, &err));
    OK(weft_plan_set_note_file(p, "mask", other, &err));
    OK(weft_plan_hash(p, again, sizeof again, &err));
    ck_assert_str_eq(hash, again); /* notes are not part of it */
    OK(weft_plan_save(p, plan, &err));
    weft_plan_free(p);
    ck_assert_int_eq(rename(from, to), 0);
    snprintf(file, sizeof file, "%s/cat.png", to);
    snprintf(plan, sizeof plan, "%s/cat.json", to);
    ck_assert_ptr_nonnull(realpath(other, real));
    note_in(plan, "image", "cat.png", hash_of_abc);
    note_in(plan, "mask", real, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");

    OK(weft_plan_load(model, plan, NULL, &q, &err));
    OK(weft_plan_copy(q, &copy, &err));
    weft_plan_free(q);
    ck_assert_ptr_nonnull(realpath(file, real));
    ck_assert_str_eq(weft_plan_note(copy, "image"), real); /* from the root, so any program can open it */
    ck_assert_int_eq(weft_plan_note_is_file(copy, "image"), 1);
    ck_assert_int_eq(weft_plan_note_is_file(copy, "seed"), 0);
    ck_assert_int_eq(weft_plan_note_is_file(copy, "nothing"), 0);
    ck_assert_int_eq(weft_plan_note_is_file(NULL, "seed"), 0);
    ck_assert_str_eq(weft_plan_note_name(copy, 0), "seed");
    ck_assert_str_eq(weft_plan_note_name(copy, 1), "image");
    ck_assert_str_eq(weft_plan_note_name(copy, 2), "mask");
    ck_assert_ptr_null(weft_plan_note_name(copy, 3));
    OK(weft_plan_set_note(copy, "mask", NULL, &err)); /* the others stay what they are */
    OK(weft_plan_save(copy, plan, &err));
    note_in(plan, "image", "cat.png", hash_of_abc);
    OK(weft_plan_set_note(copy, "image", "cat.png", &err));
    ck_assert_int_eq(weft_plan_note_is_file(copy, "image"), 0);
    weft_plan_free(copy);
    unlink(plan);
    unlink(file);
    unlink(other);
    ck_assert_int_eq(rmdir(to), 0);
}
END_TEST

START_TEST(a_note_of_another_content_is_refused)
{
    char       file[4096], text[8192], folder[4096];
    weft_plan *p = new_plan(model), *q;

    snprintf(file, sizeof file, "%s", temp_path("x.png"));
    snprintf(folder, sizeof folder, "%s", test_path("data"));
    FAILS(WEFT_E_IO, "x.png: No such file", weft_plan_set_note_file(p, "image", file, &err));
    ck_assert_int_eq(err.sys, 2);
    FAILS(WEFT_E_IO, "data: ", weft_plan_set_note_file(p, "image", folder, &err));
    FAILS(WEFT_E_ARG, "path is NULL", weft_plan_set_note_file(p, "image", NULL, &err));
    ck_assert_ptr_null(weft_plan_note_name(p, 0));
    write_text(file, "abc");
    FAILS(WEFT_E_ARG, "a name has 1 to 64 bytes", weft_plan_set_note_file(p, "", file, &err));
    FAILS(WEFT_E_ARG, "the name is not UTF-8", weft_plan_set_note_file(p, "\xff", file, &err));
    OK(weft_plan_set_note_file(p, "image", file, &err));
    OK(weft_plan_to_json(p, NULL, text, sizeof text, NULL, &err));
    OK(load_text(text, 0, &q));
    weft_plan_free(q);
    unlink(file);
    FAILS(WEFT_E_IO, "plan: notes.image: ", load_text(text, 0, &q));
    ck_assert_int_eq(err.sys, 2);
    FAILS(WEFT_E_IO, "plan: notes.image: ", load_text(text, WEFT_LOAD_ANY_FILES, &q));
    write_text(file, "abcd");
    FAILS(WEFT_E_STATE, "x.png: has changed since it was opened", weft_plan_to_json(p, NULL, NULL, 0, NULL, &err));
    FAILS(WEFT_E_MISMATCH, "x.png has another content: its hash is 88d4266fd4e6.., the plan was made with ba7816bf8f01..",
          load_text(text, 0, &q));
    ck_assert_ptr_nonnull(strstr(err.text, "plan: notes.image: "));
    OK(load_text(text, WEFT_LOAD_ANY_FILES, &q));
    ck_assert_int_eq(weft_plan_note_is_file(q, "image"), 1);
    OK(weft_plan_seal(q, CALLS, &err));
    FAILS(WEFT_E_STATE, "sealed", weft_plan_set_note_file(q, "image", file, &err));
    weft_plan_free(q);
    unlink(file);
    weft_plan_free(p);
}
END_TEST

/* It has no place in JSON; the hash does not need it. */
START_TEST(a_path_that_is_not_utf8_is_refused)
{
    char          file[4096], hash[65];
    weft_plan    *p = new_plan(model);
    weft_adapter *a;

    snprintf(file, sizeof file, "%s", temp_path("\xff.safetensors"));
    copy_file(test_path("data/adapters/content.safetensors"), file);
    OK(weft_adapter_open(file, NULL, &a, &err));
    OK(weft_plan_add(p, a, 1, NULL, &err));
    weft_adapter_free(a);
    FAILS(WEFT_E_UNSUPPORTED, "UTF-8, and what it would say at adapters[0].file is not",
          weft_plan_save(p, temp_path("none.json"), &err));
    OK(weft_plan_hash(p, hash, sizeof hash, &err));
    weft_plan_free(p);
    p = new_plan(model);
    OK(weft_plan_set_note_file(p, "image", file, &err));
    FAILS(WEFT_E_UNSUPPORTED, " at notes.image.file is not", weft_plan_save(p, temp_path("none.json"), &err));
    unlink(file);
    weft_plan_free(p);
}
END_TEST

START_TEST(a_text_that_is_not_utf8_is_named)
{
    weft_adapter_options how = WEFT_ADAPTER_OPTIONS_INIT;
    weft_add_options     add = WEFT_ADD_OPTIONS_INIT;
    weft_plan           *p = new_plan(model);
    char                 hash[65];
    weft_adapter        *a;

    for (int named = 0; named < 2; named++) {
        if (named) how.name = "caf\xe9";
        OK(weft_adapter_open(test_path("data/adapters/content.safetensors"), &how, &a, &err));
        OK(weft_plan_add(p, a, 1, NULL, &err));
        weft_adapter_free(a);
    }
    FAILS(WEFT_E_UNSUPPORTED, " at adapters[1].name is not", weft_plan_to_json(p, NULL, NULL, 0, NULL, &err));
    OK(weft_plan_hash(p, hash, sizeof hash, &err)); /* a name is not part of it */
    OK(weft_plan_remove(p, 1, &err));
    OK(weft_adapter_open(test_path("data/adapters/content.safetensors"), NULL, &a, &err));
    add.exclude = "\xe9*";
    OK(weft_plan_add(p, a, 1, &add, &err));
    weft_adapter_free(a);
    FAILS(WEFT_E_UNSUPPORTED, " at adapters[1].exclude is not", weft_plan_to_json(p, NULL, NULL, 0, NULL, &err));
    FAILS(WEFT_E_UNSUPPORTED, " at adapters[1].exclude is not", weft_plan_hash(p, hash, sizeof hash, &err));
    weft_plan_free(p);
}
END_TEST

/* The configuration says alpha, so it counts. */
START_TEST(another_configuration_is_refused)
{
    char          folder[4096], file[4200], text[8192], hash[65], other[65];
    weft_plan    *p = new_plan(model), *q;
    weft_adapter *a;

    snprintf(folder, sizeof folder, "%s", temp_path("peft"));
    ck_assert_int_eq(mkdir(folder, 0700), 0);
    snprintf(file, sizeof file, "%s/adapter_model.safetensors", folder);
    copy_file(test_path("data/adapters/sd1_peft_rslora/adapter_model.safetensors"), file);
    snprintf(file, sizeof file, "%s/adapter_config.json", folder);
    copy_file(test_path("data/adapters/sd1_peft_rslora/adapter_config.json"), file);
    OK(weft_adapter_open(folder, NULL, &a, &err));
    OK(weft_plan_add(p, a, 1, NULL, &err));
    weft_adapter_free(a);
    OK(weft_plan_to_json(p, NULL, text, sizeof text, NULL, &err));
    OK(weft_plan_hash(p, hash, sizeof hash, &err));
    OK(load_text(text, 0, &q));
    weft_plan_free(q);
    FILE *f = fopen(file, "a");
    fputs("\n", f);
    fclose(f);
    FAILS(WEFT_E_MISMATCH, "adapter_config.json has another content", load_text(text, 0, &q));
    OK(load_text(text, WEFT_LOAD_ANY_FILES, &q));
    OK(weft_plan_hash(q, other, sizeof other, &err));
    ck_assert_str_ne(hash, other);
    weft_plan_free(q);
    weft_plan_free(p);
    unlink(file);
    snprintf(file, sizeof file, "%s/adapter_model.safetensors", folder);
    unlink(file);
    ck_assert_int_eq(rmdir(folder), 0);
}
END_TEST

START_TEST(another_model_is_refused)
{
    weft_plan *p = new_plan(model), *q;
    char      *text = json_of(p);
    weft_model *other = open_model("tiny-lcm"), *same = open_model("tiny-sd1");
    weft_plan_load_options o = WEFT_PLAN_LOAD_OPTIONS_INIT;

    OK(weft_plan_from_json(same, text, strlen(text), NULL, &q, &err));
    weft_plan_free(q);
    FAILS(WEFT_E_MISMATCH, "the plan was made for another model, tiny-sd1 of SD1.x",
          weft_plan_from_json(other, text, strlen(text), NULL, &q, &err));
    ck_assert_ptr_null(q);
    o.flags = WEFT_LOAD_ANY_MODEL;
    OK(weft_plan_from_json(other, text, strlen(text), &o, &q, &err));
    weft_plan_free(q);
    free(text);
    weft_plan_free(p);
    weft_model_free(other);
    weft_model_free(same);
}
END_TEST

/* The fingerprint of the model with a plan merged into it, which is written and opened. */
static wf_sha256_text written(weft_plan *p)
{
    char           where[4096], command[4200];
    weft_model    *m;
    wf_sha256_text hash;

    snprintf(where, sizeof where, "%s", temp_path("merged"));
    OK(weft_plan_seal(p, 1, &err));
    OK(weft_plan_save_model(p, where, &err));
    OK(weft_model_open(where, NULL, &m, &err));
    wf_model_fingerprint(m, &hash);
    weft_model_free(m);
    weft_plan_free(p);
    snprintf(command, sizeof command, "rm -rf '%s'", where);
    ck_assert_int_eq(system(command), 0);
    return hash;
}

START_TEST(a_fingerprint_is_of_the_weights)
{
    weft_model    *again = open_model("tiny-sd1"), *other = open_model("tiny-sd2");
    wf_sha256_text a, b;
    weft_plan     *p = new_plan(model);

    wf_model_fingerprint(model, &a);
    wf_model_fingerprint(again, &b);
    ck_assert_str_eq(a.text, b.text);
    b = written(new_plan(model));
    ck_assert_str_eq(a.text, b.text);
    add(p, "content.safetensors", 1, 0, 1);
    b = written(p);
    ck_assert_str_ne(a.text, b.text);
    wf_model_fingerprint(other, &b);
    ck_assert_str_ne(a.text, b.text);
    weft_model_free(again);
    weft_model_free(other);
}
END_TEST

START_TEST(what_was_made_in_memory_is_refused)
{
    weft_plan       *p = pair(), *q = new_plan(model);
    weft_adapter    *one;
    weft_tensors    *t;
    weft_zip_options o = WEFT_ZIP_OPTIONS_INIT;
    char             hash[65];

    OK(weft_plan_seal(p, 1, &err));
    OK(weft_plan_fold(p, NULL, &one, &err));
    OK(weft_plan_add(q, one, 1, NULL, &err));
    weft_adapter_free(one);
    FAILS(WEFT_E_UNSUPPORTED, "was made in memory: save it with weft_adapter_save()",
          weft_plan_save(q, temp_path("none.json"), &err));
    ck_assert_int_ne(access(temp_path("none.json"), F_OK), 0);
    FAILS(WEFT_E_UNSUPPORTED, "was made in memory", weft_plan_hash(q, hash, sizeof hash, &err));
    FAILS(WEFT_E_ARG, "a hash takes 65 bytes", weft_plan_hash(q, hash, 64, &err));
    weft_plan_free(p);
    weft_plan_free(q);

    p = pair();
    OK(weft_plan_zip(p, NULL, &err));
    OK(weft_plan_seal(p, 1, &err));
    OK(weft_plan_zip_save(p, temp_path("zip"), &err));
    OK(weft_tensors_open(temp_path("zip"), NULL, &o.coefficients, &err));
    q = pair();
    OK(weft_plan_zip(q, &o, &err));
    round_trip(q);
    weft_tensors_free(o.coefficients);
    unlink(temp_path("zip"));
    weft_plan_free(p);
    float vector[64];
    const wf_layer *l = &wf_model_layers(model, &(size_t){ 0 })[nth_layer(model, ATTENTION, 0)];
    char name[512];
    snprintf(name, sizeof name, "%s.zip.m_c", l->name);
    for (int i = 0; i < 64; i++) vector[i] = 1;
    ck_assert_int_le(l->in, 64);
    weft_tensor_out tensor = { .struct_size = sizeof tensor, .name = name, .data = vector, .rank = 1,
                               .shape = { l->in } };
    OK(weft_tensors_create(&tensor, 1, NULL, 0, NULL, &t, &err));
    o.coefficients = t;
    p = pair();
    OK(weft_plan_zip(p, &o, &err));
    weft_tensors_free(t);
    FAILS(WEFT_E_UNSUPPORTED, "coefficients: ", weft_plan_hash(p, hash, sizeof hash, &err));
    weft_plan_free(p);
}
END_TEST

/* ---- hostile texts --------------------------------------------------------------------------- */

/* A plan of one adapter with a mask and a curve, a region, and two phases. */
static const char good[] =
    "{\"weft_plan\": 1, \"calls\": 4, \"path\": \"side\", \"notes\": {\"seed\": 7, \"size\": 1.5, \"quick\": true,"
    " \"factors\": {\"file\": \"zip_coefficients.safetensors\"}},"
    " \"adapters\": [{\"file\": \"content.safetensors\", \"weight\": 0.5, \"share\": 2,"
    " \"curve\": {\"by\": \"call\", \"points\": [{\"at\": 0, \"value\": 1}, {\"at\": 2, \"value\": 0}]},"
    " \"mask\": {\"width\": 3, \"height\": 2, \"rows\": [[2, 0, 1, 1, 2]]}},"
    " {\"file\": \"style.safetensors\"}],"
    " \"regions\": [{\"adapter\": 0}, {\"mask\": {\"width\": 1, \"height\": 1, \"gray\": \"/w==\"}}],"
    " \"balance\": {\"by\": \"code\"},"
    " \"phases\": [{\"method\": \"switch\", \"period\": 2, \"order\": [1, 0]}, {\"first\": 2, \"method\": \"merge\"}]}";

static weft_status load_good(const char *text, weft_plan **out)
{
    weft_plan_load_options o = WEFT_PLAN_LOAD_OPTIONS_INIT;
    o.folder = test_path("data/adapters");
    o.flags = WEFT_LOAD_SEAL;
    return weft_plan_from_json(model, text, strlen(text), &o, out, &err);
}

START_TEST(a_plan_written_by_hand_is_read)
{
    weft_plan *p, *q;

    OK(load_good(good, &p));
    ck_assert_int_eq(info_of(p).calls, 4);
    ck_assert_int_eq(info_of(p).phases, 2);
    ck_assert_str_eq(weft_plan_note(p, "seed"), "7");
    ck_assert_str_eq(weft_plan_note(p, "size"), "1.5");
    ck_assert_str_eq(weft_plan_note(p, "quick"), "true");
    ck_assert_ptr_null(weft_plan_note(p, "no"));
    ck_assert_str_eq(weft_plan_note_name(p, 2), "quick");
    ck_assert_int_eq(weft_plan_note_is_file(p, "factors"), 1);
    ck_assert_ptr_null(weft_plan_note_name(p, 4));
    ck_assert_int_eq(info_of(p).regions, 2);
    ck_assert_int_eq(p->region[0].adapter, 0);
    ck_assert_int_eq(p->region[1].adapter, -1);
    FAILS(WEFT_E_STATE, "sealed", weft_plan_set_note(p, "a", "b", &err));
    OK(weft_plan_copy(p, &q, &err));
    OK(weft_plan_set_note(q, "size", NULL, &err));
    ck_assert_str_eq(weft_plan_note_name(q, 1), "quick");
    OK(weft_plan_set_note(q, "seed", "8", &err));
    ck_assert_str_eq(weft_plan_note(q, "seed"), "8");
    ck_assert_str_eq(weft_plan_note(p, "seed"), "7");
    char a[65], b[65];
    OK(weft_plan_seal(q, 4, &err));
    OK(weft_plan_hash(p, a, sizeof a, &err));
    OK(weft_plan_hash(q, b, sizeof b, &err));
    ck_assert_str_eq(a, b); /* notes are not part of it */
    weft_plan_free(q);
    weft_plan_free(p);
    for (int yes = 0; yes < 2; yes++) { /* what is said to be false is as if nothing was said */
        char *text = with(good, "\"weight\": 0.5", yes ? "\"partial\": true" : "\"partial\": false");
        OK(load_good(text, &p));
        ck_assert_int_eq(p->entry[0].partial, yes);
        ck_assert_float_eq(p->entry[0].weight, 1);
        weft_plan_free(p);
        free(text);
    }
}
END_TEST

/* Each with what is replaced in the good text, by what, the status, and words of the line. */
static const struct { const char *old, *new; weft_status st; const char *words; } bad[] = {
    { "\"weft_plan\": 1, ", "", WEFT_E_FORMAT, "plan: no plan: it has no field \"weft_plan\"" },
    { "\"weft_plan\": 1", "\"weft_plan\": 2", WEFT_E_FORMAT, "weft_plan is 2, expected 1, the format" },
    { "\"weft_plan\": 1", "\"weft_plan\": \"1\"", WEFT_E_FORMAT, "weft_plan is \"1\", expected 1" },
    { "\"calls\"", "\"cals\"", WEFT_E_FORMAT, "plan: cals is a field that this library" },
    { "\"calls\": 4", "\"calls\": 4.5", WEFT_E_FORMAT, "calls is 4.5, expected a whole number" },
    { "\"calls\": 4", "\"calls\": 4, \"calls\": 4", WEFT_E_FORMAT, "duplicate key \"calls\"" },
    { "\"calls\": 4", "\"calls\": 0", WEFT_E_FORMAT, "it says no \"calls\"" },
    { "\"calls\": 4", "\"calls\": 999999999", WEFT_E_ARG, "plan: calls: weft_plan_seal: 999999999 calls" },
    { "\"path\": \"side\"", "\"path\": \"aside\"", WEFT_E_FORMAT,
      "path is \"aside\", expected one of \"auto\", \"side\", \"merged\"" },
    { "\"path\": \"side\"", "\"path\": 1", WEFT_E_FORMAT, "path is 1, expected one of" },
    { "\"seed\": 7", "\"seed\": null", WEFT_E_FORMAT, "notes.seed is null, expected a text or a file" },
    { "\"seed\": 7", "\"image\": {\"sha256\": \"00\"}", WEFT_E_FORMAT,
      "plan: there is no notes.image.file, expected the path of a file" },
    { "\"seed\": 7", "\"image\": {\"file\": 7}", WEFT_E_FORMAT, "notes.image.file is 7, expected a text" },
    { "\"seed\": 7", "\"image\": {\"file\": \"nobody.png\"}", WEFT_E_IO, "plan: notes.image: " },
    { "\"seed\": 7", "\"image\": {\"file\": \"style.safetensors\", \"hash\": \"00\"}", WEFT_E_FORMAT,
      "plan: notes.image.hash is a field that" },
    { "\"seed\": 7", "\"image\": {\"file\": \"style.safetensors\", \"sha256\": \"00\"}", WEFT_E_FORMAT,
      "plan: notes.image.sha256 is no SHA-256 in 64" },
    { "\"seed\"", "\"\"", WEFT_E_ARG, "plan: notes.: weft_plan_set_note: a name has 1 to 64 bytes" },
    { "content.saf", "nobody.saf", WEFT_E_IO, "plan: adapters[0]: " },
    { "\"file\": \"content.safetensors\", ", "", WEFT_E_FORMAT, "adapters[0] has no \"file\" and no \"concept\"" },
    { "\"file\": \"style.safetensors\"", "\"concept\": 0", WEFT_E_FORMAT, "adapters[1].concept is 0: there is no such" },
    { "\"file\": \"style.safetensors\"", "\"file\": 3", WEFT_E_FORMAT, "adapters[1].file is 3, expected a text" },
    { "{\"file\": \"style.safetensors\"}", "[]", WEFT_E_FORMAT, "adapters[1] is a list of 0, expected an object" },
    { "\"weight\": 0.5", "\"wight\": 0.5", WEFT_E_FORMAT, "adapters[0].wight is a field that" },
    { "\"weight\": 0.5", "\"weight\": \"0.5\"", WEFT_E_FORMAT, "adapters[0].weight is \"0.5\", expected a number" },
    { "\"weight\": 0.5", "\"weight\": 1e39", WEFT_E_FORMAT, "adapters[0].weight is 1e39, expected a number" },
    { "\"weight\": 0.5", "\"role\": \"hero\"", WEFT_E_FORMAT, "adapters[0].role is \"hero\", expected one of \"none\"" },
    { "\"weight\": 0.5", "\"partial\": 1", WEFT_E_FORMAT, "adapters[0].partial is 1, expected true or false" },
    { "\"weight\": 0.5", "\"blocks\": \"1,2\"", WEFT_E_ARG, "plan: adapters[0].blocks: " },
    { "\"weight\": 0.5", "\"select\": \"nowhere\"", WEFT_E_MISMATCH, "plan: adapters[0]: adapter content: select" },
    { "\"weight\": 0.5", "\"sha256\": \"12\"", WEFT_E_FORMAT, "adapters[0].sha256 is no SHA-256 in 64" },
    { "\"weight\": 0.5", "\"sha256\": \"0000000000000000000000000000000000000000000000000000000000000000\"",
      WEFT_E_MISMATCH, "the plan was made with 000000000000.." },
    { "\"weight\": 0.5", "\"config_sha256\": \"0000000000000000000000000000000000000000000000000000000000000000\"",
      WEFT_E_MISMATCH, "adapters[0].config_sha256 is given, but no such file was found" },
    { "\"weight\": 0.5", "\"text_weights\": {\"text_4\": 1}", WEFT_E_FORMAT, "adapters[0].text_weights.text_4 is a field" },
    { "\"by\": \"call\"", "\"by\": \"day\"", WEFT_E_FORMAT, "curve.by is \"day\", expected \"call\" or \"share\"" },
    { "\"by\": \"call\"", "\"by\": \"share\"", WEFT_E_ARG, "adapters[0].curve.points: point 1 of a curve is at 2" },
    { "\"at\": 2, ", "", WEFT_E_FORMAT, "adapters[0].curve.points[1] has no \"at\"" },
    { "\"at\": 2", "\"at\": -1", WEFT_E_ARG, "point 1 of a curve is at -1" },
    { "\"at\": 2", "\"at\": 2, \"shape\": \"round\"", WEFT_E_FORMAT, "points[1].shape is \"round\"" },
    { "\"width\": 3", "\"width\": 5000", WEFT_E_FORMAT, "mask.width is 5000, expected 1 to 4096 pixels" },
    { "\"width\": 3", "\"width\": 4", WEFT_E_FORMAT, "adapters[0].mask.rows[0] has 3 pixels, the mask is 4 wide" },
    { "\"height\": 2", "\"height\": 3", WEFT_E_FORMAT, "adapters[0].mask.rows has 2 rows, the mask is 3 high" },
    { "\"height\": 2", "\"height\": 1", WEFT_E_FORMAT, "mask.rows[0] is 2 rows, the mask has 1 left" },
    { "[[2, 0, 1, 1, 2]]", "[[2, 0, 1, 1, 2], [1, 0, 3]]", WEFT_E_FORMAT, "mask.rows[1] is a row too many" },
    { "[[2, 0, 1, 1, 2]]", "[[2, 0, 1, 2]]", WEFT_E_FORMAT, "mask.rows[0] is a list of 4, expected rows alike" },
    { "[[2, 0, 1, 1, 2]]", "[[0, 0, 1, 1, 2]]", WEFT_E_FORMAT, "mask.rows[0][0] is 0, expected a number of rows" },
    { "[[2, 0, 1, 1, 2]]", "[[2, 0, 1, 1, 3]]", WEFT_E_FORMAT, "rows[0][4] is 3, expected pixels that the row has" },
    { "[[2, 0, 1, 1, 2]]", "[[2, 0, 1, 1.5, 2]]", WEFT_E_ARG, "adapters[0].mask: a mask's value at row 0, column 1" },
    { "[[2, 0, 1, 1, 2]]", "[[2, 0, 1, \"1\", 2]]", WEFT_E_FORMAT, "rows[0][3] is \"1\", expected a number of 0 to 1" },
    { "[[2, 0, 1, 1, 2]]", "7", WEFT_E_FORMAT, "mask.rows is 7, expected a list of rows" },
    { ", \"rows\": [[2, 0, 1, 1, 2]]", "", WEFT_E_FORMAT, "adapters[0].mask has no values: rows, gray or float32" },
    { "\"gray\": ", "\"rows\": [], \"gray\": ", WEFT_E_FORMAT, "regions[1].mask has rows and gray: one or the other" },
    { "/w==", "/x==", WEFT_E_FORMAT, "regions[1].mask.gray is not 1 bytes in base64" },
    { "/w==", "/w=", WEFT_E_FORMAT, "is not 1 bytes in base64" },
    { "/w==", "/w=w", WEFT_E_FORMAT, "is not 1 bytes in base64" },
    { "/w==", "/wAA", WEFT_E_FORMAT, "is not 1 bytes in base64" },
    { "/w==", "*w==", WEFT_E_FORMAT, "is not 1 bytes in base64" },
    { "{\"adapter\": 0}", "{\"adapter\": 1}", WEFT_E_ARG, "plan: calls: region 0 is where the mask of adapter style" },
    { "{\"adapter\": 0}", "{\"adapter\": 5}", WEFT_E_ARG, "plan: regions[0]: weft_plan_add_region: adapter 5 of 2" },
    { "{\"adapter\": 0}", "{}", WEFT_E_ARG, "plan: regions[0]: weft_region: it has neither" },
    { "\"by\": \"code\"", "\"by\": \"hand\"", WEFT_E_FORMAT, "balance.by is \"hand\"" },
    { "\"balance\": {\"by\": \"code\"}", "\"balance\": []", WEFT_E_FORMAT, "balance is a list of 0, expected an object" },
    { "\"method\": \"switch\"", "\"method\": \"swich\"", WEFT_E_FORMAT, "phases[0].method is \"swich\", which is no method" },
    { "\"method\": \"switch\", ", "", WEFT_E_FORMAT, "there is no phases[0].method, expected the name of a method" },
    { "\"method\": \"switch\"", "\"method\": \"merge\"", WEFT_E_FORMAT, "phases[0].period is a field that" },
    { "\"period\": 2", "\"period\": \"five\"", WEFT_E_FORMAT, "phases[0].period is \"five\", expected a whole number" },
    { "\"period\": 2", "\"period\": 3000000000", WEFT_E_FORMAT, "phases[0].period is 3000000000, expected a whole" },
    { "\"period\": 2", "\"period\": -2", WEFT_E_ARG, "plan: phases[0]: weft_switch_options: period is -2" },
    { "[1, 0]", "[1, \"A\"]", WEFT_E_FORMAT, "phases[0].order[1] is \"A\", expected a whole number" },
    { "[1, 0]", "[]", WEFT_E_FORMAT, "phases[0].order is a list of 0, expected a list of numbers" },
    { "[1, 0]", "[1, 9]", WEFT_E_ARG, "plan: calls: switch: turn 1 is of adapter 9" },
    { "\"first\": 2", "\"first\": 0", WEFT_E_ARG, "plan: phases[1]: weft_phase_options: first is 0" },
    { "\"first\": 2", "\"at\": 2", WEFT_E_ARG, "plan: phases[1]: weft_phase_options: at must be 0 to 1" },
    { "{\"method\": \"switch\"", "{\"first\": 1, \"method\": \"switch\"", WEFT_E_ARG, "the first phase begins at call 0" },
    { "\"phases\": [", "\"phases\": 3, \"x\": [", WEFT_E_FORMAT, "phases is 3, expected a list" },
    { "{\"weft_plan\"", "[{\"weft_plan\"", WEFT_E_FORMAT, "plan: not a plan in JSON: it is text" },
    { "\"merge\"}]}", "\"merge\"}]", WEFT_E_FORMAT, "plan: not valid JSON" },
    { "\"method\": \"merge\"", "\"method\": \"zip\", \"coefficients\": \"x\"", WEFT_E_FORMAT,
      "phases[1].coefficients is \"x\", expected an object" },
    { "\"method\": \"merge\"", "\"method\": \"zip\", \"coefficients\": {\"sha256\": \"x\"}", WEFT_E_FORMAT,
      "there is no phases[1].coefficients, expected an object with a \"file\"" },
    { "\"method\": \"merge\"", "\"method\": \"zip\", \"coefficients\": {\"file\": \"none\"}", WEFT_E_IO,
      "plan: phases[1].coefficients: " },
    { "\"method\": \"merge\"", "\"method\": \"zip\", \"coefficients\": {\"file\": \"zip_coefficients.safetensors\", \"a\": 1}",
      WEFT_E_FORMAT, "phases[1].coefficients.a is a field that" },
    { "\"balance\"", "\"model\": {\"fingerprint\": \"00\"}, \"balance\"", WEFT_E_MISMATCH, "made for another model" },
    { "\"balance\"", "\"concepts\": [{\"tokens\": \"a\"}], \"balance\"", WEFT_E_FORMAT, "there is no concepts[0].file" },
    { "\"balance\"", "\"concepts\": [{\"file\": \"content.safetensors\"}], \"balance\"", WEFT_E_UNSUPPORTED,
      "plan: concepts[0]: " },
};

START_TEST(bad_texts_are_refused_in_one_line)
{
    weft_plan *p = (weft_plan *)&err;

    for (size_t i = 0; i < WF_LEN(bad); i++) {
        char *text = with(good, bad[i].old, bad[i].new);
        weft_status st = load_good(text, &p);
        ck_assert_msg(st == bad[i].st && strstr(err.text, bad[i].words) != NULL, "%s for %s: %s: \"%s\" lacks \"%s\"",
                      bad[i].new, bad[i].old, weft_status_name(st), err.text, bad[i].words);
        ck_assert_ptr_null(p);
        ck_assert_ptr_null(strchr(err.text, '\n'));
        free(text);
    }
    FAILS(WEFT_E_FORMAT, "", weft_plan_load(model, test_path("data/adapters/content.safetensors"), NULL, &p, &err));
    FAILS(WEFT_E_IO, "nowhere.json", weft_plan_load(model, "nowhere.json", NULL, &p, &err));
    FAILS(WEFT_E_ARG, "model is NULL", weft_plan_load(NULL, "x", NULL, &p, &err));
    FAILS(WEFT_E_ARG, "NULL", weft_plan_from_json(model, NULL, 0, NULL, &p, &err));
    FAILS(WEFT_E_ARG, "out is NULL", weft_plan_from_json(model, "", 0, NULL, NULL, &err));
    FAILS(WEFT_E_FORMAT, "", weft_plan_from_json(model, "", 0, NULL, &p, &err));
    FAILS(WEFT_E_ARG, "plan is NULL", weft_plan_save(NULL, "x", &err));
    FAILS(WEFT_E_ARG, "path is NULL", weft_plan_save(p = new_plan(model), NULL, &err));
    FAILS(WEFT_E_IO, "/no/such/folder", weft_plan_save(p, "/no/such/folder/x.json", &err));
    FAILS(WEFT_E_ARG, "buf is NULL", weft_plan_to_json(p, NULL, NULL, 3, NULL, &err));
    weft_plan_free(p);
}
END_TEST

/* ---- memory ---------------------------------------------------------------------------------- */

static weft_plan *rich(void)
{
    weft_plan *p;
    OK(load_good(good, &p));
    return p;
}

/* Every allocation fails once, and the plan is not made, or its text not written; nothing is left. */
START_TEST(memory_may_run_out_anywhere)
{
    counter                c = { 0, 0, -1 };
    weft_allocator         alloc = { counter_alloc, counter_free, &c };
    weft_plan_load_options o = WEFT_PLAN_LOAD_OPTIONS_INIT;
    weft_plan             *p, *from = rich();
    char                  *text = json_of(from), hash[65];
    weft_status            st = WEFT_E_NOMEM;

    o.allocator = &alloc;
    o.folder = test_path("data/adapters");
    for (long n = 0; st != WEFT_OK; n++) {
        c = (counter){ 0, 0, n };
        st = weft_plan_from_json(model, text, strlen(text), &o, &p, &err);
        ck_assert_msg(st == WEFT_OK || st == WEFT_E_NOMEM, "%ld: %s: %s", n, weft_status_name(st), err.text);
        if (st != WEFT_OK) ck_assert_int_eq(c.live, 0);
        ck_assert_int_lt(n, 100000);
    }
    long live = c.live;
    for (int which = 0; which < 4; which++) {
        st = WEFT_E_NOMEM;
        for (long n = 0; st != WEFT_OK; n++) {
            c.asked = 0;
            c.refuse = n;
            st = which == 0   ? weft_plan_save(p, temp_path("nomem.json"), &err)
                 : which == 1 ? weft_plan_hash(p, hash, sizeof hash, &err)
                 : which == 2 ? weft_plan_set_note(p, "more", "text", &err)
                              : weft_plan_set_note_file(p, "file", test_path("data/adapters/style.safetensors"), &err);
            ck_assert_msg(st == WEFT_OK || st == WEFT_E_NOMEM, "%s: %s", weft_status_name(st), err.text);
            if (which < 2 || st != WEFT_OK) ck_assert_int_eq(c.live, live);
        }
    }
    unlink(temp_path("nomem.json"));
    c.refuse = -1;
    weft_plan_free(p);
    ck_assert_int_eq(c.live, 0);
    weft_plan_free(from);
    free(text);
}
END_TEST

/* Whoever gives these a field gives it to save.c and load.c too, and then counts again. */
START_TEST(nothing_of_a_plan_is_forgotten)
{
    if (sizeof(void *) != 8) return;
    ck_assert_uint_eq(sizeof(wf_entry), 64);
    ck_assert_uint_eq(sizeof(wf_region), 16);
    ck_assert_uint_eq(sizeof(wf_phase), 40);
    ck_assert_uint_eq(sizeof(wf_image_prompt), 48);
    ck_assert_uint_eq(sizeof(weft_plan), 432);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("plan as text");
    TCase *c = tcase_create("all");

    tcase_add_unchecked_fixture(c, setup, teardown);
    tcase_set_timeout(c, 120);
    tcase_add_test(c, merge_comes_back);
    tcase_add_test(c, switch_comes_back);
    tcase_add_test(c, composite_comes_back);
    tcase_add_test(c, loratorio_and_subbands_come_back);
    tcase_add_test(c, blend_comes_back);
    tcase_add_test(c, klora_comes_back);
    tcase_add_test(c, zip_comes_back);
    tcase_add_test(c, blora_comes_back);
    tcase_add_test(c, all_the_rest_comes_back);
    tcase_add_test(c, balance_of_defaults_and_of_an_index_come_back);
    tcase_add_test(c, alignment_comes_back);
    tcase_add_test(c, policies_come_back);
    tcase_add_test(c, openings_come_back);
    tcase_add_test(c, concepts_come_back);
    tcase_add_test(c, names_of_tokens_and_replacement_come_back);
    tcase_add_test(c, masks_keep_every_bit);
    tcase_add_test(c, all_masks_have_a_limit);
    tcase_add_test(c, a_folder_can_be_moved);
    tcase_add_test(c, notes_that_are_files_move_with_the_plan);
    tcase_add_test(c, a_note_of_another_content_is_refused);
    tcase_add_test(c, a_path_that_is_not_utf8_is_refused);
    tcase_add_test(c, a_text_that_is_not_utf8_is_named);
    tcase_add_test(c, hashes_are_sha256);
    tcase_add_test(c, another_content_is_refused);
    tcase_add_test(c, another_configuration_is_refused);
    tcase_add_test(c, another_model_is_refused);
    tcase_add_test(c, a_fingerprint_is_of_the_weights);
    tcase_add_test(c, what_was_made_in_memory_is_refused);
    tcase_add_test(c, a_plan_written_by_hand_is_read);
    tcase_add_test(c, bad_texts_are_refused_in_one_line);
    tcase_add_test(c, memory_may_run_out_anywhere);
    tcase_add_test(c, nothing_of_a_plan_is_forgotten);
    suite_add_tcase(suite, c);
    SRunner *r = srunner_create(suite);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
