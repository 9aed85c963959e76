/* Random plans against what they mean.
 *
 * A plan is drawn: adapters of many families with weights, roles, selections, blocks, curves and
 * masks; regions; phases of every method with every option; balance; side path or merged copies. Two
 * things are then asked of the library. Its table must be the one that follows from the options,
 * derived in naive_plans.h by the plainest rule for each method. And its predictions must be those of
 * naive.h's network with these coefficients, which shares no line with the library's. */
#include "naive_plans.h"

/* With a sanitizer each plan takes many times as long. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { GROUPS = 10, PLANS = 6 };
#else
enum { GROUPS = 10, PLANS = 56 };
#endif

enum { POOL = 14 };
static naive_adapter pool[POOL];

static float draw_weight(uint64_t *r)
{
    static const float usual[] = { 1, 0.5f, 0.8f, -0.4f, 0.3f, 0.7f };
    return chance(r, 12) ? 0 : chance(r, 2) ? usual[below(r, 6)] : (float)(1.4 * unit(r) - 0.4);
}

static void draw_blocks(uint64_t *r, blocks *b)
{
    static const struct { const char *name; int first, end, first2, end2, mid; } preset[] = {
        { "ALL", 1, 10, 11, 20, 1 }, { "INS", 1, 5, 0, 0, 0 },      { "IND", 5, 10, 0, 0, 0 },
        { "INALL", 1, 10, 0, 0, 0 }, { "MIDD", 5, 10, 11, 17, 1 }, { "OUTD", 11, 17, 0, 0, 0 },
        { "OUTS", 17, 20, 0, 0, 0 }, { "OUTALL", 11, 20, 0, 0, 0 },
    };
    int kind = below(r, 4), n = 0;

    *b = (blocks){ .text = "" };
    for (int k = 0; k < BLOCKS; k++) b->slot[k] = 1;
    if (kind <= 1) { /* 20 numbers, or 12: those blocks that have attention */
        for (int k = 0; k < BLOCKS; k++) {
            bool attends = k == 0 || k == 2 || k == 3 || k == 5 || k == 6 || k == 10 || k >= 14;
            b->slot[k] = 0;
            if (kind == 1 && !attends) continue;
            b->slot[k] = below(r, 9) / 8.0;
            n += snprintf(b->text + n, sizeof b->text - (size_t)n, "%s%g", n > 0 ? "," : "", b->slot[k]);
        }
    } else if (kind == 2) {
        int w = below(r, 8);
        for (int k = 0; k < BLOCKS; k++)
            b->slot[k] = k == 0 || (k == 10 && preset[w].mid) || (k >= preset[w].first && k < preset[w].end) ||
                         (k >= preset[w].first2 && k < preset[w].end2);
        n = snprintf(b->text, sizeof b->text, "%s", preset[w].name);
    }
    if (kind == 3 || chance(r, 2)) {
        n += snprintf(b->text + n, sizeof b->text - (size_t)n, "%sIN01-OUT02=0.25,OUT05=1.5", n > 0 ? "," : "");
        for (int k = 2; k <= 13; k++) b->slot[k] = 0.25;
        b->slot[16] = 1.5;
    }
    if (chance(r, 2)) {
        snprintf(b->text + n, sizeof b->text - (size_t)n, "%sup_blocks.1*=0.5,*attn2*=0.75", n > 0 ? "," : "");
        b->pattern[0] = "unet.up_blocks.1*", b->over[0] = 0.5;
        b->pattern[1] = "*attn2*", b->over[1] = 0.75;
    }
}

static void draw_mask(uint64_t *r, int *mh, int *mw, float *mask)
{
    static const int size[][2] = { { 4, 6 }, { 2, 3 }, { 3, 5 }, { 1, 1 }, { 8, 12 } };
    int s = below(r, 5), edge;
    *mh = size[s][0], *mw = size[s][1];
    edge = below(r, *mw + 1);
    for (int i = 0; i < *mh * *mw; i++)
        mask[i] = chance(r, 3) ? (float)unit(r) : (float)((i % *mw < edge) ^ (s == 0));
}

static void draw_part(uint64_t *r, spec *s, int index)
{
    static const char *const selects[] = { NULL, NULL, NULL, "*attn*", "*up_blocks*, *down_blocks*",
                                           "unet.*" };
    static const char *const excludes[] = { NULL, NULL, "*.ff.*", "*to_k,*to_v", "*norm*" };
    part *p = &s->part[index];

    *p = (part){ .of = &pool[below(r, POOL)], .weight = draw_weight(r), .text = draw_weight(r) };
    if (p->weight == 0 && index == 0) p->weight = 0.9f;
    p->share = chance(r, 2) ? 1 : (float)(0.25 + unit(r));
    p->select = selects[below(r, 6)];
    p->exclude = excludes[below(r, 5)];
    p->has_blocks = chance(r, 4);
    if (p->has_blocks) draw_blocks(r, &p->blocks);
    p->points = chance(r, 3) ? 1 + below(r, POINTS) : 0;
    p->by_share = chance(r, 2);
    for (int i = 0; i < p->points; i++) {
        double at = i * 0.25 + 0.2 * unit(r);
        p->point[i] = (curve_point){ below(r, 3), p->by_share ? at : at * s->calls, 1.5 * unit(r) };
        if (i > 0 && chance(r, 4)) p->point[i].at = p->point[i - 1].at; /* a jump */
    }
    p->masked = chance(r, 4);
    p->adds = chance(r, 3);
    p->mask_text = chance(r, 2) ? 1 : unit(r);
    draw_mask(r, &p->mh, &p->mw, p->mask);
}

/* Two of them take the roles by themselves, or one is given; of more each has one. */
static void draw_roles(uint64_t *r, spec *s)
{
    int k = below(r, 3);
    for (int a = 0; a < s->adapters; a++) {
        int role = a == 0 ? WEFT_ROLE_CONTENT : a == 1 ? WEFT_ROLE_STYLE : 1 + below(r, 2);
        if (s->adapters == 2 && k == 2) role = 3 - role;
        s->part[a].role = s->adapters > 2 || k > 0 ? role : WEFT_ROLE_NONE;
        if (s->adapters == 2 && k == 1 && a == 1) s->part[a].role = WEFT_ROLE_NONE;
    }
}

static void draw_switch(uint64_t *r, const spec *s, phase *p)
{
    p->sw = (weft_switch_options)WEFT_SWITCH_OPTIONS_INIT;
    p->sw.period = below(r, 4);
    if (chance(r, 3)) p->sw.flags |= WEFT_SWITCH_OFFICIAL_OFFSET;
    if (chance(r, 3)) p->sw.flags |= WEFT_SWITCH_SHARES;
    if (chance(r, 2)) {
        p->sw.order_len = (size_t)(1 + below(r, 6));
        for (size_t i = 0; i < p->sw.order_len; i++) p->order[i] = below(r, s->adapters);
        p->sw.order = p->order;
    }
    if (chance(r, 3)) {
        p->sw.last_calls = 1 + below(r, p->end - p->first);
        p->sw.last_adapter = below(r, s->adapters);
    }
}

static void draw_klora(uint64_t *r, const spec *s, phase *p)
{
    weft_klora_options *k = &p->klora;

    *k = (weft_klora_options)WEFT_KLORA_OPTIONS_INIT;
    k->pattern = below(r, s->adapters == 2 ? 4 : 3);
    if (chance(r, 4)) k->flags |= WEFT_KLORA_ATTENTION_ONLY;
    if (chance(r, 4)) k->flags |= WEFT_KLORA_WRAP;
    if (k->pattern == WEFT_KLORA_FIXED) {
        k->share = chance(r, 2) ? 0 : unit(r);
        return;
    }
    if (k->pattern == WEFT_KLORA_S_STAR && chance(r, 3)) k->flags |= WEFT_KLORA_PAPER_BETA;
    if (k->pattern == WEFT_KLORA_CUSTOM) {
        k->alpha = 0.5 + unit(r), k->beta = unit(r), k->modulus = chance(r, 2) ? 1.1 : 0;
    }
    k->gamma = below(r, 3);
    k->granularity = below(r, 2);
    k->score = below(r, 2);
    if (k->score == WEFT_KLORA_TOP_K && chance(r, 2)) k->top_k = 1 + below(r, 100);
}

static bool may_blend(const spec *s)
{
    bool any = false;
    for (int a = 0; a < s->adapters; a++) {
        any = any || s->part[a].masked;
        if (s->part[a].masked && s->part[a].adds) return false;
    }
    return any;
}

static int draw_method(uint64_t *r, const spec *s)
{
    for (;;) {
        int m = below(r, METHODS);
        if ((m == KLORA && s->adapters < 2) || (m == ZIP && s->adapters != 2)) continue;
        if (m == BLEND && !may_blend(s)) continue;
        return m;
    }
}

static void draw_options(uint64_t *r, const spec *s, phase *p)
{
    draw_switch(r, s, p);
    if (s->adapters > 1) draw_klora(r, s, p);
    p->composite = (weft_composite_options)WEFT_COMPOSITE_OPTIONS_INIT;
    p->composite.flags = (uint32_t)below(r, 8);
    p->zip = (weft_zip_options)WEFT_ZIP_OPTIONS_INIT;
    p->zip.flags = (uint32_t)below(r, 4);
    p->zip.lambda = (p->zip.flags & WEFT_ZIP_LAMBDA) ? 1.2 * unit(r) : 0;
    p->zip.style = (p->zip.flags & WEFT_ZIP_STYLE) ? below(r, 12) / 8.0 : 0;
    p->from_file = chance(r, 3);
    p->blora = (weft_blora_options)WEFT_BLORA_OPTIONS_INIT;
    if (chance(r, 3)) p->blora.flags = WEFT_BLORA_SQUARED;
    if (chance(r, 3)) p->blora.content = "*up_blocks.1.*,*down_blocks.0.*", p->blora.style = "*down_blocks*";
    p->blend = (weft_blend_options)WEFT_BLEND_OPTIONS_INIT;
    p->blend.start = chance(r, 2) ? below(r, p->end - p->first) : 0;
    p->loratorio = (weft_loratorio_options)WEFT_LORATORIO_OPTIONS_INIT;
    p->loratorio.patch = below(r, 5);
    p->loratorio.keep = below(r, 3);
    p->loratorio.temperature = chance(r, 2) ? 0 : (float)(0.05 + unit(r));
    if (chance(r, 2)) p->loratorio.flags = WEFT_LORATORIO_BASE, p->loratorio.base = (float)unit(r);
    p->subbands = (weft_subbands_options)WEFT_SUBBANDS_OPTIONS_INIT;
    p->subbands.levels = below(r, 4);
    p->subbands.keep = below(r, 3);
    if (chance(r, 2)) p->subbands.flags = WEFT_SUBBANDS_SHARPNESS, p->subbands.sharpness = (float)(2 * unit(r));
}

static void draw_phases(uint64_t *r, spec *s)
{
    int first = 0;

    s->phases = 1 + below(r, PHASES);
    for (int i = 0; i < s->phases; i++) {
        phase *p = &s->phase[i];
        *p = (phase){ .first = first, .by_share = chance(r, 2) };
        if (i + 1 < s->phases) first += 1 + below(r, s->calls - first - (s->phases - i - 1));
        p->end = i + 1 < s->phases ? first : s->calls;
        p->method = draw_method(r, s);
        draw_options(r, s, p);
    }
}

static void draw_regions(uint64_t *r, spec *s)
{
    s->regions = chance(r, 3) ? 1 + below(r, NAIVE_REGIONS) : 0;
    for (int i = 0; i < s->regions; i++) {
        area *x = &s->region[i];
        *x = (area){ .adapter = -1, .isolated = chance(r, 2) };
        draw_mask(r, &x->mh, &x->mw, x->mask);
        if (i < s->adapters && s->part[i].masked && chance(r, 2)) {
            x->adapter = i;
            x->mh = s->part[i].mh, x->mw = s->part[i].mw;
            memcpy(x->mask, s->part[i].mask, sizeof x->mask);
        }
    }
}

static void draw_spec(spec *s, uint64_t seed)
{
    uint64_t r = seed;

    memset(s, 0, sizeof *s);
    s->seed = seed;
    s->calls = 3 + below(&r, 6);
    s->adapters = chance(&r, 2) ? 2 : 1 + below(&r, NAIVE_ADAPTERS);
    for (int a = 0; a < s->adapters; a++) draw_part(&r, s, a);
    draw_roles(&r, s);
    draw_phases(&r, s);
    draw_regions(&r, s);
    s->path = below(&r, 3);
    s->text = below(&r, 4);
    s->balanced = chance(&r, 4);
    s->balance = (weft_balance_options)WEFT_BALANCE_OPTIONS_INIT;
    s->balance.gamma = below(&r, 2);
    s->balance.reference = below(&r, s->adapters);
}
/* ---- tests ----------------------------------------------------------------------------------- */

static void setup(void)
{
    open_all();
    for (int i = 0; i < POOL; i++) { /* each family by itself, then mixtures */
        char name[16];
        snprintf(name, sizeof name, "%c", 'a' + i);
        pool[i] = naive_make(&net, model, name, i < F_NORM ? i : -1, i < F_NORM ? 1 : 1 + i % 2, 900 + (uint64_t)i);
    }
}

static void teardown(void)
{
    for (int i = 0; i < POOL; i++) naive_adapter_free(&pool[i], net.count);
    close_all();
}

START_TEST(a_random_plan_is_what_it_means)
{
    spec *s = malloc(sizeof *s);

    for (int k = 0; k < PLANS; k++) {
        uint64_t seed = (uint64_t)(_i * PLANS + k) + 1;
        draw_spec(s, seed);
        check_plan(s, seed);
    }
    free(s);
}
END_TEST

/* The draw has to reach everything, or the test above says little. */
START_TEST(the_draw_reaches_everything)
{
    spec *s = malloc(sizeof *s);
    int   methods[METHODS] = { 0 }, masks = 0, regions = 0, curves = 0, blocked = 0, balanced = 0, paths[3] = { 0 };
    int   phases = 0, of[POOL] = { 0 };

    for (uint64_t seed = 1; seed <= GROUPS * 56; seed++) {
        draw_spec(s, seed);
        for (int i = 0; i < s->phases; i++) methods[s->phase[i].method]++;
        for (int a = 0; a < s->adapters; a++) {
            masks += s->part[a].masked, curves += s->part[a].points > 0, blocked += s->part[a].has_blocks;
            of[s->part[a].of - pool]++;
        }
        regions += s->regions > 0, balanced += s->balanced, phases += s->phases > 1;
        paths[s->path]++;
    }
    for (int m = 0; m < METHODS; m++) ck_assert_int_ge(methods[m], 30);
    for (int i = 0; i < POOL; i++) ck_assert_int_ge(of[i], 50);
    for (int i = 0; i < 3; i++) ck_assert_int_ge(paths[i], 100);
    ck_assert_int_ge(masks, 100);
    ck_assert_int_ge(regions, 100);
    ck_assert_int_ge(curves, 100);
    ck_assert_int_ge(blocked, 100);
    ck_assert_int_ge(balanced, 100);
    ck_assert_int_ge(phases, 200);
    free(s);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("random plans");
    TCase *c = tcase_create("plans");
    tcase_set_timeout(c, 600);
    tcase_add_unchecked_fixture(c, setup, teardown);
    tcase_add_loop_test(c, a_random_plan_is_what_it_means, 0, GROUPS);
    tcase_add_test(c, the_draw_reaches_everything);
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
