/* Every form inside a whole UNet against PyTorch's gradients: DoRA, LoHa and LoKr as PEFT computes them, DoRA through
 * its norm, MoSLoRA, and whole layers with biases and norms. tests/reference/make_train_forms.py made the references;
 * relative error under 1e-4, for each trained tensor by itself. */
#include <stdbool.h>

#include "golden.h"
#include "model/networks.h"
#include "plain.h"
#include "tensor/blas_guard.h"
#include "train/form.h"

static const struct { const char *model, *name; const wf_form *form; } cases[] = {
    { "tiny-sd1", "dora", &wf_form_dora },       { "tiny-sd1", "dora_exact", &wf_form_dora },
    { "tiny-sd1", "loha", &wf_form_loha },       { "tiny-sd1", "lokr", &wf_form_lokr },
    { "tiny-sd1", "moslora", &wf_form_moslora }, { "tiny-sd1", "full", &wf_form_full },
    { "tiny-sdxl", "dora", &wf_form_dora },      { "tiny-sdxl", "loha", &wf_form_loha },
    { "tiny-sdxl", "lokr", &wf_form_lokr },      { "tiny-sdxl", "full", &wf_form_full },
};

enum { SITES = 32, BLOCKS = 1024 };

typedef struct school {
    weft_model        *model;
    const wf_networks *nets;
    weft_tensors      *t;       /* what is expected, and the values of tensors */
    weft_tensors      *inputs;
    const char        *name;    /* of the case                                 */
    wf_form_choice     choice;
    wf_site            site[SITES];
    int32_t            rank[SITES];
    float              scale[SITES];
    wf_stack           stack[SITES];
    size_t             sites;
    wf_cell            cell;
    wf_delta          *deltas;
    wf_layer_grads    *grads;
    wf_exec            e;
    wf_tape            tape;
    weft_allocator     alloc;
    void              *block[BLOCKS];
    size_t             blocks;
} school;

static float *floats(school *s, size_t n)
{
    ck_assert_uint_lt(s->blocks, BLOCKS);
    return s->block[s->blocks++] = calloc(n + 1, sizeof(float));
}

static float *keep(school *s, golden g)
{
    ck_assert_uint_lt(s->blocks, BLOCKS);
    return s->block[s->blocks++] = g.v;
}

static void open_site(school *s, const wf_layer *l, const wf_form *form)
{
    wf_site *x = &s->site[s->sites];
    const char *module = strchr(l->name, '.') + 1;
    size_t K = (size_t)l->in * (size_t)l->kernel * (size_t)l->kernel;

    ck_assert_uint_lt(s->sites, SITES);
    *x = (wf_site){ .layer = l, .form = form, .out = (size_t)l->out, .K = K };
    ck_assert_msg(form->shape(x, &s->choice), "%s: no %s", l->name, form->name);
    for (int32_t t = 0; t < x->tensors; t++) {
        golden g = golden_read(s->t, "%s/%s/%s", s->name, module, x->tensor[t].name);
        ck_assert_msg(g.n == x->tensor[t].rows * x->tensor[t].columns, "%s: %s has %zu numbers", l->name,
                      x->tensor[t].name, g.n);
        x->value[t] = keep(s, g);
        x->grad[t] = floats(s, g.n);
    }
    float *base = floats(s, x->out * K);
    if (form->base) wf_layer_load(base, s->nets->kernels, l);
    x->base = base;
    if (form->own != NULL) x->own = floats(s, form->own(x));
    size_t r = (size_t)x->rank;
    bool reads_pair = (form->reads & WF_READS_PAIR) != 0;
    if (form->in_place) {
        x->weight = x->value[0], x->g_weight = x->grad[0];
        if (x->tensors > 1) x->bias = x->value[1], x->g_bias = x->grad[1];
    } else if (reads_pair) {
        x->down = floats(s, r * K), x->g_down = floats(s, r * K);
        x->up = floats(s, r * x->out), x->g_up = floats(s, r * x->out);
    } else {
        x->weight = floats(s, x->out * K), x->g_weight = floats(s, x->out * K);
    }
    s->rank[s->sites] = x->rank;
    s->scale[s->sites] = x->scale;
    if (reads_pair) {
        s->stack[s->sites] = (wf_stack){ 1, x->rank, &s->rank[s->sites], &s->scale[s->sites], x->down, x->up, NULL };
        s->deltas[l->id].stack = &s->stack[s->sites];
    }
    s->deltas[l->id].merged = x->weight;
    s->deltas[l->id].merged_bias = x->bias;
    s->grads[l->id] = (wf_layer_grads){ x->g_down, x->g_up, x->g_weight, x->g_bias };
    s->sites++;
}

static void set_up(school *s, int i)
{
    size_t layers;

    *s = (school){ .name = cases[i].name, .cell = { 1, 0, 0 }, .alloc = wf_allocator(NULL) };
    char file[128];
    snprintf(file, sizeof file, "train_forms_%s.safetensors", cases[i].model);
    s->t = golden_open(file);
    snprintf(file, sizeof file, "nets_%s.safetensors", cases[i].model);
    s->inputs = golden_open(file);
    must(weft_model_open(data_path("models/%s", cases[i].model), NULL, &s->model, &golden_err));
    s->nets = wf_model_networks(s->model);
    golden c = golden_read(s->t, "%s/choice", s->name);
    s->choice = (wf_form_choice){ .rank = (int32_t)c.v[0], .alpha = c.v[1], .factor = (int32_t)c.v[2],
                                  .exact_norm = c.v[3] != 0, .both = c.v[4] != 0 };
    free(c.v);
    const wf_layer *l = wf_model_layers(s->model, &layers);
    s->deltas = calloc(layers, sizeof *s->deltas);
    s->grads = calloc(layers, sizeof *s->grads);
    for (size_t k = 0; k < layers; k++) {
        char first[256];
        if (l[k].component != WEFT_COMPONENT_DENOISER) continue;
        bool norm = l[k].kind == WEFT_LAYER_NORM;
        const wf_form *form = norm ? &wf_form_norm : cases[i].form;
        const char *tensor = form == &wf_form_loha ? "w1_a" : form == &wf_form_lokr ? "w2_b"
            : form->in_place ? "weight" : "lora_A";
        const char *other = form == &wf_form_lokr ? "w2" : tensor;
        snprintf(first, sizeof first, "%s/%s/%s", s->name, strchr(l[k].name, '.') + 1, tensor);
        bool there = golden_has(s->t, first);
        snprintf(first, sizeof first, "%s/%s/%s", s->name, strchr(l[k].name, '.') + 1, other);
        if (there || golden_has(s->t, first)) open_site(s, &l[k], form);
    }
    ck_assert_uint_eq(s->sites, cases[i].form == &wf_form_full ? 16 : 12);
    s->e = (wf_exec){ .k = s->nets->kernels, .products = s->nets->exact, .dry = true, .arena = { .dry = true },
                      .deltas = s->deltas, .cells = &s->cell, .tape = &s->tape };
    ck_assert_int_eq(wf_pool_create(&s->alloc, 2, &s->e.pool, NULL), WEFT_OK);
    wf_tape_init(&s->tape, &s->alloc);
    s->tape.layers = s->grads;
}

static void tear_down(school *s)
{
    for (int i = 0; s->e.scratch != NULL && i < 2; i++) wf_free(&s->alloc, s->e.scratch[i]);
    wf_free(&s->alloc, s->e.scratch);
    wf_free(&s->alloc, s->e.arena.base);
    wf_free(&s->alloc, s->tape.grads);
    wf_tape_free(&s->tape);
    wf_pool_free(s->e.pool);
    for (size_t i = 0; i < s->blocks; i++) free(s->block[i]);
    free(s->deltas), free(s->grads);
    weft_tensors_free(s->t);
    weft_tensors_free(s->inputs);
    weft_model_free(s->model);
}

/* The memory that the dry walk asked for. */
static void take_memory(school *s)
{
    size_t bytes = wf_tape_bytes(&s->e);

    s->e.dry = false;
    s->e.arena = (wf_arena){ .base = wf_zalloc(&s->alloc, bytes, 1), .size = bytes };
    s->tape.grads = wf_zalloc(&s->alloc, bytes, 1);
    s->e.scratch = wf_zalloc(&s->alloc, 2, sizeof *s->e.scratch);
    for (int i = 0; i < 2; i++) s->e.scratch[i] = wf_zalloc(&s->alloc, s->e.scratch_need, 1);
}

START_TEST(gradients_are_autograds)
{
    static school s;
    char what[256];

    set_up(&s, _i);
    golden x = golden_read(s.inputs, "unet/times/sample"), ts = golden_read(s.inputs, "unet/times/timestep"),
           text = golden_read(s.inputs, "unet/times/context"), want = golden_read(s.t, "%s/out", s.name), pooled = { 0 },
           ids = { 0 };
    bool xl = golden_has(s.inputs, "unet/times/text_embeds");
    if (xl) pooled = golden_read(s.inputs, "unet/times/text_embeds");
    if (xl) ids = golden_read(s.inputs, "unet/times/time_ids");
    const float *rows[2] = { text.v, text.v + text.n / 2 }, *vectors[2] = { pooled.v, xl ? pooled.v + pooled.n / 2 : NULL };
    wf_denoise_input in = { .grid = wf_image_grid(2, (int32_t)x.shape[2], (int32_t)x.shape[3]), .latent = x.v,
                            .timestep = ts.v, .time_ids = ids.v };
    in.text[0] = (wf_text_input){ rows, (int32_t)text.shape[1], 0 };
    in.text[1] = (wf_text_input){ vectors, 1, 0 };
    golden target = golden_read(s.t, "target");
    float *out = NULL;

    for (int dry = 1; dry >= 0; dry--) {
        if (!dry) take_memory(&s);
        if (!dry) wf_blas_begin();
        for (size_t i = 0; i < s.sites && !dry; i++)
            if (s.site[i].form->make != NULL) s.site[i].form->make(&s.site[i], &s.choice);
        wf_tape_begin(&s.e);
        out = wf_take(&s.e, x.n, 1);
        wf_denoise(s.nets->denoiser, &s.e, out, &in);
    }
    ck_assert(!s.e.stopped && !s.tape.failed && !s.tape.unsupported);
    snprintf(what, sizeof what, "%s %s: out", cases[_i].model, s.name);
    near_golden(what, out, want.v, x.n, 1e-5);
    float *g = wf_grad(&s.e, out); /* of mean((out - target)^2) */
    for (size_t i = 0; i < x.n; i++) g[i] = 2 * (out[i] - target.v[i]) / (float)x.n;
    wf_tape_back(&s.e);
    ck_assert(!s.e.stopped);
    for (size_t i = 0; i < s.sites; i++) {
        wf_site *site = &s.site[i];
        const char *module = strchr(site->layer->name, '.') + 1;
        if (site->form->pull != NULL) site->form->pull(site, &s.choice);
        for (int32_t t = 0; t < site->tensors; t++) {
            golden wanted = golden_read(s.t, "%s/%s/%s/grad", s.name, module, site->tensor[t].name);
            snprintf(what, sizeof what, "%s %s %s.%s", cases[_i].model, s.name, module, site->tensor[t].name);
            near_golden(what, site->grad[t], wanted.v, wanted.n, 1e-4);
            free(wanted.v);
        }
    }
    wf_blas_end();
    free(target.v), free(x.v), free(ts.v), free(text.v), free(want.v), free(pooled.v), free(ids.v);
    tear_down(&s);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("train: forms against autograd");
    TCase *c = tcase_create("unet");

    tcase_set_timeout(c, 120);
    tcase_add_loop_test(c, gradients_are_autograds, 0, (int)WF_LEN(cases));
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
