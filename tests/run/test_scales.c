/* Adapters whose scale has to be found: PEFT's regular expressions for ranks and alphas, files that were moved away from their
 * configuration, and one component as diffusers saves it, each against the program's own prediction, relative error under 1e-5.
 * tests/reference/make_scales.py made files and references. */
#include "base/support.h"
#include "inputs.h"

static const double limit = 1e-5;

static double error_of(const inputs *in, weft_adapter *a, const char *name, float weight)
{
    weft_plan *plan;
    weft_run  *run;
    golden     want = golden_read(in->t, "%s/unet", name);
    plain_step step = PLAIN_STEP_INIT;

    must(weft_plan_create(in->model, NULL, &plan, &golden_err));
    must(weft_plan_add(plan, a, weight, NULL, &golden_err));
    must(weft_plan_seal(plan, 1, &golden_err));
    must(weft_run_create(plan, &(weft_run_options){ .struct_size = sizeof(weft_run_options), .width = 8, .height = 12 }, &run,
                         &golden_err));
    step.latent = in->x.v;
    step.text = in->text.v;
    step.text_len = in->text.n;
    step.out = malloc(in->x.n * sizeof *step.out);
    step.latent_len = step.out_len = in->x.n;
    step.timestep = in->ts.v[0];
    must(plain_run_step(run, &step, &golden_err));
    double e = relative(step.out, want.v, want.n, NULL);
    free(step.out);
    free(want.v);
    weft_run_free(run);
    weft_plan_free(plan);
    return e;
}

static void check(const inputs *in, weft_adapter *a, const char *name)
{
    double e = error_of(in, a, name, 1);
    if (getenv("GOLDEN_SHOW") != NULL) printf("%-12s %.2e\n", name, e);
    ck_assert_msg(e <= limit, "%s: %.2e", name, e);
    ck_assert(error_of(in, a, name, 0) > 0.01); /* it does something */
}

static const struct { const char *name, *path; } opened[] = {
    { "peft_regex", "scales/peft_regex" }, { "peft_lora", "scales/peft_lora" }, { "peft_lokr", "scales/peft_lokr" },
    { "bare", "scales/bare.safetensors" },
};

START_TEST(scale_is_as_the_program_has_it)
{
    inputs        in = read_inputs("models/tiny-sd1", "scales.safetensors");
    weft_adapter *a;

    weft_status st = weft_adapter_open(data_path("%s", opened[_i].path), NULL, &a, &golden_err);
    ck_assert_msg(st == WEFT_OK, "%s", golden_err.text);
    check(&in, a, opened[_i].name);
    weft_adapter_free(a);
    free_inputs(&in);
}
END_TEST

/* The file of a folder alone, under keys that begin with `front`, with metadata in place of the configuration. */
static const struct moved {
    const char *name, *front, *metadata[4];
    float       alpha, scale;
} moved[] = {
    { "peft_lora", "", { "lora_alpha", "16", NULL }, 0, 0 },
    { "peft_lora", "", { "unet.lora_alpha", "16", NULL }, 0, 0 },
    { "peft_lora", "", { "ss_network_alpha", "16", "ss_network_dim", "4" }, 0, 0 },
    { "peft_lora", "", { "format", "pt", NULL }, 16, 0 },
    { "peft_lora", "", { "format", "pt", NULL }, 0, 4 },
    { "peft_lora", "unet.", { "lora_alpha", "16", NULL }, 0, 0 }, /* as a script for LCM writes it */
    { "peft_lora", "module.unet._orig_mod.", { "network_alpha", "16.0", NULL }, 0, 0 },
    { "peft_lokr", "", { "alpha", "8", "r", "64" }, 0, 0 },
    { "peft_lokr", "", { "format", "pt", NULL }, 0, 0.125f },
    { "peft_lokr", "unet.", { "unet.alpha", "8", "unet.rank", "64" }, 0, 0 },
};

static weft_tensors *move(const struct moved *m)
{
    weft_tensors    *file, *made;
    weft_tensor_out  out[64];
    static char      keys[64][256];
    float           *data[64];
    char             path[100];
    size_t           count;

    snprintf(path, sizeof path, "scales/%s/adapter_model.safetensors", m->name);
    must(weft_tensors_open(data_path("%s", path), NULL, &file, &golden_err));
    count = weft_tensors_count(file);
    ck_assert_uint_le(count, 64);
    for (size_t i = 0; i < count; i++) {
        weft_tensor_info t = WEFT_TENSOR_INFO_INIT;
        must(weft_tensors_info(file, i, &t, &golden_err));
        snprintf(keys[i], sizeof keys[i], "%s%s", m->front, t.name);
        data[i] = malloc((size_t)t.count * sizeof *data[i]);
        must(weft_tensors_read(file, i, data[i], (size_t)t.count, &golden_err));
        out[i] = (weft_tensor_out){ .struct_size = sizeof out[i], .name = keys[i], .data = data[i], .rank = t.rank };
        for (size_t d = 0; d < t.rank; d++) out[i].shape[d] = t.shape[d];
    }
    must(weft_tensors_create(out, count, m->metadata, m->metadata[2] != NULL ? 2 : 1, NULL, &made, &golden_err));
    for (size_t i = 0; i < count; i++) free(data[i]);
    weft_tensors_free(file);
    return made;
}

START_TEST(a_moved_file_has_the_scale_that_it_or_the_caller_says)
{
    const struct moved  *m = &moved[_i];
    inputs               in = read_inputs("models/tiny-sd1", "scales.safetensors");
    weft_tensors        *made = move(m);
    weft_adapter_options o = WEFT_ADAPTER_OPTIONS_INIT;
    weft_adapter        *a = NULL;

    if (m->alpha != 0 || m->scale != 0) {
        ck_assert_int_eq(weft_adapter_create(made, &o, &a, &golden_err), WEFT_E_UNSUPPORTED); /* nobody says it */
        ck_assert_ptr_nonnull(strstr(golden_err.text, "nothing says its alpha"));
    }
    o.alpha = m->alpha;
    o.scale = m->scale;
    weft_status st = weft_adapter_create(made, &o, &a, &golden_err);
    ck_assert_msg(st == WEFT_OK, "%s", golden_err.text);
    check(&in, a, m->name);
    weft_adapter_free(a);
    weft_tensors_free(made);
    free_inputs(&in);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("scales of adapters");
    TCase *t = tcase_create("against PEFT and diffusers");

    tcase_add_loop_test(t, scale_is_as_the_program_has_it, 0, (int)(sizeof opened / sizeof opened[0]));
    tcase_add_loop_test(t, a_moved_file_has_the_scale_that_it_or_the_caller_says, 0, (int)(sizeof moved / sizeof moved[0]));
    tcase_set_timeout(t, 60);
    suite_add_tcase(s, t);
    return run_suite(s);
}
