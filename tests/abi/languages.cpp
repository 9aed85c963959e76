/* languages.cpp - the headers from C++: every struct from its INIT macro and its init function,
 * which agree, and one step of the bundled model with a callback that is a lambda. Compiled and
 * linked by languages.sh in every standard. */
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include <weft/weft.h>

static weft_error err;

static void must(const char *what, weft_status st)
{
    if (st == WEFT_OK) return;
    std::printf("%s: %s: %s\n", what, weft_status_name(st), err.text);
    std::exit(1);
}

template <typename T>
static void agree(const char *name, const T &macro, void (*init)(T *, size_t))
{
    T filled;
    init(&filled, sizeof filled);
    if (filled.struct_size == sizeof filled && std::memcmp(&filled, &macro, sizeof filled) == 0)
        return;
    std::printf("%s: its macro and its function differ\n", name);
    std::exit(1);
}

static void inits()
{
#define INIT(type, MACRO) { const type macro = MACRO; agree<type>(#type, macro, type##_init); }
#include "inits.h"
}

int main(int argc, char **argv)
{
    weft_model  *model;
    weft_plan   *plan;
    weft_run    *run;
    int          told = 0;

    inits();
    if (argc < 2) return 2;
    must("model", weft_model_open(argv[1], NULL, &model, &err));
    must("plan", weft_plan_create(model, NULL, &plan, &err));
    must("seal", weft_plan_seal(plan, 1, &err));

    weft_run_options options = WEFT_RUN_OPTIONS_INIT;
    options.threads = 1;
    options.progress_user = &told;
    options.progress = [](void *user, const char *, int64_t, int64_t) -> int32_t {
        ++*static_cast<int *>(user);
        return 0;
    };
    must("run", weft_run_create(plan, &options, &run, &err));

    weft_model_info info = WEFT_MODEL_INFO_INIT;
    must("info", weft_model_info_get(model, &info, &err));
    size_t plane = size_t(info.latent_size) * size_t(info.latent_size);
    std::vector<float> latent(size_t(info.latent_channels) * plane, 0.5f);
    weft_text text = WEFT_TEXT_INIT;
    must("text", weft_run_text(run, 0, 1, &text, &err));
    std::vector<float> words(text.len, 0.25f), out(latent.size());
    text.data = words.data();
    weft_step step = WEFT_STEP_INIT;
    step.latent = latent.data();
    step.latent_len = latent.size();
    step.text = &text;
    step.text_count = 1;
    step.out = out.data();
    step.out_len = out.size();
    step.timestep = 500;
    must("step", weft_run_step(run, &step, &err));
    for (float v : out)
        if (!std::isfinite(v)) return 1;

    weft_run_free(run);
    weft_plan_free(plan);
    weft_model_free(model);
    return told > 0 ? 0 : 1;
}
