/* growth.c - a program that meets a library with other structs than it was compiled against.
 *
 * tests/abi/growth.sh compiles it against today's headers and against headers with a field more at
 * the end of every struct (-DGROWN), and runs both with both libraries. It runs one step of the
 * bundled model and prints the prediction, which must be the same four times. With "set" it sets
 * the field that an older library does not know, and must be refused. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <weft/weft.h>

static weft_error err;

static void must(const char *what, weft_status st)
{
    if (st == WEFT_OK) return;
    printf("%s: %s: %s\n", what, weft_status_name(st), err.text);
    exit(1);
}

/* A struct with bytes behind it that nobody may write to. */
#define GUARDED(type, name)                                              \
    struct { type s; unsigned char behind[64]; } name;                   \
    memset(&name, 0xA5, sizeof name);                                    \
    type##_init(&name.s, sizeof name.s);
#define UNTOUCHED(name)                                                  \
    for (size_t i_ = 0; i_ < sizeof name.behind; i_++)                   \
        if (name.behind[i_] != 0xA5) {                                   \
            printf(#name ": byte %zu behind the struct was written\n", i_); \
            exit(1);                                                     \
        }

#ifdef GROWN
/* Each struct of options with the field set: an older library says so, and does nothing. */
#define REFUSED(call) do { \
        weft_status st_ = (call); \
        printf("%s: %s\n", weft_status_name(st_), err.text); \
        if (st_ != WEFT_E_UNSUPPORTED) exit(1); \
    } while (0)
#endif

int main(int argc, char **argv)
{
    static float latent[4 * 16 * 16], noise[4 * 16 * 16], text[77 * 128];
    weft_model *model;
    weft_adapter *adapter;
    weft_plan *plan;
    weft_run *run;
    char path[512];

    if (argc < 2) return 2;
    GUARDED(weft_model_options, open)
    GUARDED(weft_model_info, info)
    must("model", weft_model_open(argv[1], &open.s, &model, &err));
    must("info", weft_model_info_get(model, &info.s, &err));

    GUARDED(weft_adapter_options, read)
    snprintf(path, sizeof path, "%s/adapters/monster.safetensors", argv[1]);
    must("adapter", weft_adapter_open(path, &read.s, &adapter, &err));
    GUARDED(weft_adapter_info, file)
    must("adapter info", weft_adapter_info_get(adapter, &file.s, &err));
    GUARDED(weft_plan_options, how)
    must("plan", weft_plan_create(model, &how.s, &plan, &err));
    GUARDED(weft_add_options, add)
    must("add", weft_plan_add(plan, adapter, 0.75f, &add.s, &err));
    must("seal", weft_plan_seal(plan, 1, &err));
    GUARDED(weft_plan_info, sealed)
    must("plan info", weft_plan_info_get(plan, &sealed.s, &err));
    GUARDED(weft_run_options, room)
    room.s.threads = 1;
    must("run", weft_run_create(plan, &room.s, &run, &err));

    GUARDED(weft_text, stream)
    must("text", weft_run_text(run, 0, 1, &stream.s, &err));
    stream.s.data = text;
    GUARDED(weft_encode, encode)
    encode.s.prompt = "a zib monster";
    encode.s.text = &stream.s;
    encode.s.text_count = 1;
    must("encode", weft_run_encode(run, &encode.s, &err));
    for (size_t i = 0; i < sizeof latent / sizeof *latent; i++)
        latent[i] = (float)((int)(i * 37 % 101) - 50) / 50.0f;
    GUARDED(weft_step, step)
    step.s.latent = latent;
    step.s.latent_len = sizeof latent / sizeof *latent;
    step.s.text = &stream.s;
    step.s.text_count = 1;
    step.s.out = noise;
    step.s.out_len = sizeof noise / sizeof *noise;
    step.s.timestep = 500.0f;
    must("step", weft_run_step(run, &step.s, &err));

    UNTOUCHED(open)
    UNTOUCHED(info)
    UNTOUCHED(read)
    UNTOUCHED(file)
    UNTOUCHED(how)
    UNTOUCHED(add)
    UNTOUCHED(sealed)
    UNTOUCHED(room)
    UNTOUCHED(stream)
    UNTOUCHED(encode)
    UNTOUCHED(step)
    printf("%s, %d modules, %d adapters\n", info.s.base_name, file.s.modules, sealed.s.adapters);
    for (size_t i = 0; i < sizeof noise / sizeof *noise; i += 97) printf("%a\n", (double)noise[i]);

#ifdef GROWN
    if (argc > 2 && strcmp(argv[2], "set") == 0) {
        weft_model *none;
        weft_adapter *no_adapter;
        weft_plan *no_plan;
        weft_run *no_run;
        open.s.grown = read.s.grown = how.s.grown = add.s.grown = room.s.grown = encode.s.grown = 1;
        step.s.grown = 1;
        REFUSED(weft_model_open(argv[1], &open.s, &none, &err));
        REFUSED(weft_adapter_open(path, &read.s, &no_adapter, &err));
        REFUSED(weft_plan_create(model, &how.s, &no_plan, &err));
        must("plan", weft_plan_create(model, NULL, &no_plan, &err));
        REFUSED(weft_plan_add(no_plan, adapter, 1.0f, &add.s, &err));
        weft_plan_free(no_plan);
        REFUSED(weft_run_create(plan, &room.s, &no_run, &err));
        REFUSED(weft_run_encode(run, &encode.s, &err));
        REFUSED(weft_run_step(run, &step.s, &err));
        encode.s.grown = step.s.grown = 0;
        stream.s.grown = 1;
        REFUSED(weft_run_encode(run, &encode.s, &err));
        REFUSED(weft_run_step(run, &step.s, &err));
    }
#endif
    weft_run_free(run);
    weft_plan_free(plan);
    weft_adapter_free(adapter);
    weft_model_free(model);
    return 0;
}
