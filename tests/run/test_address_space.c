/* Under a limit on addresses everything ends: with a result, or with WEFT_E_NOMEM before the first product, since
 * OpenBLAS never returns from a product that finds no memory for its work area. Each trial is a process of its own,
 * started without OpenBLAS's idle threads, which would ask for areas themselves. */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/support.h"
#include "golden.h"
#include "plain.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#endif
#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif

enum { H = 8, W = 8, N = 4 * H * W, TEXT = 77 * 24 };
enum { RUN, MERGED, SEAL, SAVE, MOVE, MERGE, MODES };
enum { FINE = 0, NO_AREA = 10, NO_MEMORY = 11, NO_THREAD = 12, WRONG = 13 }; /* how a trial ends */

static const char *self;

/* ---- a trial ---- */

static int verdict(weft_status st)
{
    if (st == WEFT_OK) return FINE;
    if (st == WEFT_E_NOMEM) return strstr(golden_err.text, "OpenBLAS") != NULL ? NO_AREA : NO_MEMORY;
    if (st == WEFT_E_IO && golden_err.sys == ENOMEM) return NO_MEMORY; /* to map a file */
    if (st == WEFT_E_IO && strstr(golden_err.text, "does not start") != NULL) return NO_THREAD;
    fprintf(stderr, "%s: %s\n", weft_status_name(st), golden_err.text);
    return WRONG;
}

/* Memory of today, and so much more. */
static void limit_addresses(long mib)
{
    unsigned long pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    struct rlimit r;

    if (f == NULL || fscanf(f, "%lu", &pages) != 1) exit(WRONG);
    fclose(f);
    r.rlim_cur = r.rlim_max = pages * (rlim_t)sysconf(_SC_PAGESIZE) + ((rlim_t)mib << 20);
    if (setrlimit(RLIMIT_AS, &r) != 0) exit(WRONG);
}

static weft_status draw(weft_run *run)
{
    static float latent[N], text[TEXT], out[N], image[3 * 64 * N];
    weft_run_info info = WEFT_RUN_INFO_INIT;
    plain_encode e = { .prompt = "a cat", .text = text, .text_len = TEXT, .chunks = 1 };
    plain_step s = { .latent = latent, .latent_len = N, .out = out, .out_len = N, .text = text, .text_len = TEXT,
                     .timestep = 500 };
    weft_status st = weft_run_info_get(run, &info, &golden_err);
    if (st == WEFT_OK) st = plain_run_encode(run, &e, &golden_err);
    if (st == WEFT_OK) st = plain_run_step(run, &s, &golden_err);
    if (st == WEFT_OK) st = weft_run_decode(run, latent, N, image, info.image_len, &golden_err);
    return st;
}

static weft_status merge(weft_model *model, weft_adapter *a)
{
    weft_merge_source  source = WEFT_MERGE_SOURCE_INIT;
    weft_merge_options o = WEFT_MERGE_OPTIONS_INIT;
    weft_adapter      *merged;
    weft_status        st;

    source.adapter = a;
    source.weight = 1;
    o.rank = 2;
    st = weft_adapter_merge(model, &source, 1, &o, &merged, NULL, &golden_err);
    weft_adapter_free(merged);
    return st;
}

static int trial(int mode, long mib, const char *to)
{
    weft_run_options o = WEFT_RUN_OPTIONS_INIT;
    weft_plan_options how = WEFT_PLAN_OPTIONS_INIT;
    weft_add_options unet = WEFT_ADD_OPTIONS_INIT;
    weft_model *model;
    weft_adapter *a;
    weft_plan *plan, *base;
    weft_run *run = NULL;
    weft_status st;

    alarm(20); /* a trial takes a tenth of a second, or for ever */
    unet.select = "unet.*"; /* with merged copies, sealing then makes no factors */
    o.threads = 3;
    o.height = H, o.width = W;
    how.path = mode == RUN || mode == SEAL ? WEFT_PATH_SIDE : WEFT_PATH_MERGED;
    if (weft_model_open(data_path("models/tiny-sd1"), NULL, &model, &golden_err) != WEFT_OK ||
        weft_adapter_open(data_path("adapters/content.safetensors"), NULL, &a, &golden_err) != WEFT_OK ||
        weft_plan_create(model, NULL, &base, &golden_err) != WEFT_OK ||
        weft_plan_seal(base, 2, &golden_err) != WEFT_OK ||
        weft_plan_create(model, &how, &plan, &golden_err) != WEFT_OK ||
        (mode != RUN && weft_plan_add(plan, a, 1, &unet, &golden_err) != WEFT_OK))
        return WRONG;
    if (mode != SEAL && weft_plan_seal(plan, 2, &golden_err) != WEFT_OK) return WRONG; /* multiplies nothing */
    limit_addresses(mib);
    if (mode == SEAL) return verdict(weft_plan_seal(plan, 2, &golden_err));
    if (mode == MERGE) return verdict(merge(model, a));
    if (mode == SAVE) return verdict(weft_plan_save_model(plan, to, &golden_err));
    st = weft_run_create(mode == MOVE ? base : plan, &o, &run, &golden_err);
    if (st == WEFT_OK) st = draw(run);
    if (st == WEFT_OK && mode == MOVE && (st = weft_run_set_plan(run, plan, &golden_err)) == WEFT_OK) st = draw(run);
    weft_run_free(run);
    return verdict(st);
}

/* ---- all of them ---- */

static int start_trial(int mode, long mib, const char *to)
{
    char words[2][32];
    char *args[] = { (char *)(uintptr_t)self, words[0], words[1], (char *)(uintptr_t)to, NULL };
    int status;

    snprintf(words[0], sizeof words[0], "%d", mode);
    snprintf(words[1], sizeof words[1], "%ld", mib);
    pid_t pid = fork();
    if (pid == 0) {
        setenv("OPENBLAS_NUM_THREADS", "1", 1);
        execv(self, args);
        _exit(WRONG);
    }
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_msg(WIFEXITED(status), "mode %d, %ld MiB: signal %d", mode, mib, WTERMSIG(status));
    return WEXITSTATUS(status);
}

START_TEST(all_ends_under_any_limit)
{
    int count[WRONG + 1] = { 0 };
    char to[300], remove[320];
    const char *dir = test_dir();

    snprintf(to, sizeof to, "%s/saved", dir);
    snprintf(remove, sizeof remove, "rm -rf '%s'", to);
    for (long mib = 0; mib <= 1024; mib += mib < 448 ? 64 : 192) {
        int how = start_trial(_i, mib, to);
        ck_assert_int_eq(system(remove), 0);
        ck_assert_msg(how == FINE || (how >= NO_AREA && how <= NO_THREAD), "mode %d, %ld MiB: %d", _i, mib, how);
        count[how]++;
    }
    test_rmdir(dir);
    ck_assert_int_gt(count[FINE], 0);
    ck_assert_int_gt(count[NO_AREA], 0);
}
END_TEST

int main(int argc, char **argv)
{
    self = argv[0];
    if (argc == 4) return trial(atoi(argv[1]), atol(argv[2]), argv[3]);
#ifdef SANITIZED
    puts("SKIP a sanitizer needs more addresses than any limit here");
    return 77;
#endif
    Suite *s = suite_create("address space");
    TCase *c = tcase_create("all");
    tcase_set_timeout(c, 300);
    tcase_add_loop_test(c, all_ends_under_any_limit, 0, MODES);
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
