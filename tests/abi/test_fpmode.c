/* test_fpmode.c - loading the library and running a step leave the floating-point mode alone.
 *
 * A library built with -ffast-math turns denormals off for the whole process that loads it, and nobody
 * notices until a host's own numbers change. So the shared library is loaded here as Python would
 * load it, by dlopen(), and the control register is read around that and around a step. */
#include <check.h>
#include <dlfcn.h>
#include <fenv.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <weft/weft.h>

/* Rounding, masks, flush-to-zero and denormals-are-zero, without the flags that any division sets. */
static uint64_t mode(void)
{
#if defined(__x86_64__)
    return __builtin_ia32_stmxcsr() & ~(uint64_t)0x3f;
#elif defined(__aarch64__)
    uint64_t fpcr;
    __asm__ volatile("mrs %0, fpcr" : "=r"(fpcr));
    return fpcr;
#else
    return (uint64_t)fegetround();
#endif
}

/* dlsym() gives an object pointer; POSIX promises that it holds a function's address. */
#define FIND(lib, name)                                          \
    do {                                                         \
        void *found_ = dlsym(lib, "weft_" #name);                \
        ck_assert_ptr_nonnull(found_);                           \
        memcpy(&name, &found_, sizeof name);                     \
    } while (0)

static void step_from(void *lib, const char *path)
{
    weft_status (*model_open)(const char *, const weft_model_options *, weft_model **, weft_error *);
    weft_status (*plan_create)(weft_model *, const weft_plan_options *, weft_plan **, weft_error *);
    weft_status (*plan_seal)(weft_plan *, int32_t, weft_error *);
    weft_status (*run_create)(weft_plan *, const weft_run_options *, weft_run **, weft_error *);
    weft_status (*run_text)(const weft_run *, int32_t, int32_t, weft_text *, weft_error *);
    weft_status (*run_step)(weft_run *, const weft_step *, weft_error *);
    weft_status (*model_info_get)(const weft_model *, weft_model_info *, weft_error *);
    void (*model_free)(weft_model *), (*plan_free)(weft_plan *), (*run_free)(weft_run *);
    weft_model *model;
    weft_plan *plan;
    weft_run *run;
    weft_error err = {0, 0, ""};
    weft_model_info info = WEFT_MODEL_INFO_INIT;
    weft_text text = WEFT_TEXT_INIT;
    weft_step step = WEFT_STEP_INIT;

    FIND(lib, model_open); FIND(lib, model_info_get); FIND(lib, model_free);
    FIND(lib, plan_create); FIND(lib, plan_seal); FIND(lib, plan_free);
    FIND(lib, run_create); FIND(lib, run_text); FIND(lib, run_step); FIND(lib, run_free);

    ck_assert_msg(model_open(path, NULL, &model, &err) == WEFT_OK, "%s", err.text);
    ck_assert_msg(plan_create(model, NULL, &plan, &err) == WEFT_OK, "%s", err.text);
    ck_assert_msg(plan_seal(plan, 1, &err) == WEFT_OK, "%s", err.text);
    ck_assert_msg(run_create(plan, NULL, &run, &err) == WEFT_OK, "%s", err.text);
    ck_assert_msg(model_info_get(model, &info, &err) == WEFT_OK, "%s", err.text);

    step.latent_len = step.out_len = (size_t)info.latent_channels * (size_t)info.latent_size * (size_t)info.latent_size;
    float *latent = calloc(step.latent_len, sizeof *latent), *out = calloc(step.out_len, sizeof *out);
    ck_assert_msg(run_text(run, 0, 1, &text, &err) == WEFT_OK, "%s", err.text);
    text.data = calloc(text.len, sizeof *text.data);
    for (size_t i = 0; i < step.latent_len; i++) latent[i] = i % 2 ? 1e-40f : 0.5f; /* denormals among them */
    step.latent = latent;
    step.text = &text;
    step.text_count = 1;
    step.out = out;
    step.timestep = 500;
    ck_assert_msg(run_step(run, &step, &err) == WEFT_OK, "%s", err.text);

    free(latent); free(text.data); free(out);
    run_free(run); plan_free(plan); model_free(model);
}

START_TEST(loading_and_a_step_leave_the_mode_alone)
{
    const char *b = getenv("B"), *tests = getenv("WEFT_TESTS");
    char library[512], model[512];
    uint64_t before = mode();

    snprintf(library, sizeof library, "%s/libweft.so", b ? b : "build");
    snprintf(model, sizeof model, "%s/data/models/tiny-sd1", tests ? tests : "tests");
    void *lib = dlopen(library, RTLD_NOW | RTLD_LOCAL);
    ck_assert_msg(lib != NULL, "%s", dlerror());
    ck_assert_uint_eq(mode(), before);
    step_from(lib, model);
    ck_assert_uint_eq(mode(), before);
    dlclose(lib);
    ck_assert_uint_eq(mode(), before);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("abi/fpmode");
    TCase *tc = tcase_create("all");
    SRunner *runner = srunner_create(suite);
    int failed;

    tcase_add_test(tc, loading_and_a_step_leave_the_mode_alone);
    suite_add_tcase(suite, tc);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
