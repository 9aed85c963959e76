/* main.c - the benchmark: what is asked for, in order, then the table and the pictures.
 *
 *     bench [--quick] [--only GROUP,...] [--rounds N] [--size PIXELS] [--threads N] [--model DIR] [--out DIR]
 *           [--sdxl] [--no-peers] [--processor-time] [--before FILE] [--as-before]
 *           [--draw FILE]
 *
 * Groups: kernels, startup, memory, bundled, threads, steps, sdcpp, adapters, time, train, sdxl. The model has the true shapes of
 * SD1.5 and random weights; it is made once, in OUT, where Python has numpy. Without one the bundled model takes its place.
 * Bars are for the shapes of SD1.5 and left out for any other model. --sdxl makes and measures SDXL too: 7 GB and minutes;
 * --only sdxl that alone. --size is 512 pixels if not given; what is also measured at 256 then is not repeated.
 *
 * PyTorch runs in turns with weft where $PYTHON (python3) has torch and diffusers, and stable-diffusion.cpp where
 * $SDCPP_PYTHON, or that one, has its package. --quick is the bundled model and one round: it shows that all works, and
 * measures nothing well. --processor-time judges by the time of the processor, for a machine that has other things to do;
 * an idle machine and the clock are better.
 *
 * --draw makes the table and the pictures again from a file of results; those of several runs may be put together.
 *
 * Written: OUT/results.jsonl, table.md; roofline.md and time.png by the group time; bench.png where a row has a bar. */
#include "suite.h"

#include <errno.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/base.h"

static void usage(FILE *f)
{
    fputs("usage: bench [--quick] [--only GROUP,...] [--rounds N] [--size PIXELS] [--threads N] [--model DIR]\n"
          "             [--out DIR] [--sdxl] [--no-peers] [--processor-time] [--before FILE] [--as-before]\n"
          "             [--draw FILE]\n"
          "groups: kernels, startup, memory, bundled, threads, steps, sdcpp, adapters, time, train, sdxl\n", f);
}

/* What was asked for cannot be: one line. */
static void refuse(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));
static void refuse(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fputs("bench: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    exit(2);
}

/* Is `word` one of those that commas part? */
static bool among(const char *words, const char *word)
{
    size_t n = strlen(word);

    for (const char *at = words; at != NULL; at = strchr(at, ',') != NULL ? strchr(at, ',') + 1 : NULL)
        if (strncmp(at, word, n) == 0 && (at[n] == ',' || at[n] == '\0')) return true;
    return false;
}

static bool asked_for(const suite *b, const char *group)
{
    return b->only == NULL || among(b->only, group);
}

static bool only_sdxl(const suite *b)
{
    return b->only != NULL && strcmp(b->only, "sdxl") == 0;
}

static bool exists(const char *path)
{
    struct stat s;
    return stat(path, &s) == 0;
}

/* A name that lasts as long as the program. */
static const char *path_of(const char *folder, const char *name)
{
    static char *kept[64];
    static int   count;
    size_t       n = strlen(folder) + strlen(name) + 2;
    char        *p = malloc(n);

    if (p == NULL || count == 64) die("out of memory for names");
    snprintf(p, n, "%s/%s", folder, name);
    return kept[count++] = p;
}

static const char *folder_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    char        folder[1024];

    if (slash == NULL) return ".";
    snprintf(folder, sizeof folder, "%.*s", (int)(slash - path), path);
    return path_of(folder, ".");
}

static bool run_python(const char *python, const char *script, const char *const *words)
{
    const char *argv[16] = { python, script };
    int   n = 2;
    child c;

    while (*words != NULL && n < 15) argv[n++] = *words++;
    if (!child_start(&c, argv)) return false;
    char line[512];
    while (fgets(line, sizeof line, c.from) != NULL) {}
    return child_end(&c);
}

/* A folder or file that a script makes: under another name until it is whole. */
static bool make(const suite *b, const char *path, const char *script, const char *first, const char *const *words)
{
    const char *argv[12] = { 0 };
    const char *part = path_of(b->dir, "part.safetensors"), *tool = path_of(b->source, script);
    int         n = 0;
    bool        ok = exists(path);

    if (!ok) {
        note("making %s", path);
        if (first != NULL) argv[n++] = first;
        argv[n++] = part;
        while (*words != NULL && n < 11) argv[n++] = *words++;
        ok = run_python(b->python, tool, argv) && rename(part, path) == 0;
        if (!ok) note("%s could not be made: it takes Python with numpy and the space", path);
    }
    return ok;
}

static const char *const layout[] = { "--layout", "diffusers", NULL }, *const nothing[] = { NULL };

/* Does a model have the shapes of SD1.5? Denoiser and VAE have 943.2 million weights, with the text encoder 1066.2. */
static bool true_shapes(const char *path)
{
    weft_model_info about = WEFT_MODEL_INFO_INIT;
    weft_model     *model = open_model(path, false);
    weft_error      err;

    must(weft_model_info_get(model, &about, &err), &err);
    weft_model_free(model);
    return about.base == WEFT_BASE_SD1 && about.latent_channels == 4 && about.input_channels == 4
           && about.parameters > 940000000 && about.parameters < 1070000000;
}

/* The model of true shapes and its adapters; else the one that was given, or the bundled one, and the bundled adapters. */
static void choose_model(suite *b)
{
    static const char *const bundled[LORAS] = { "hatching", "monster", "mosaic", "hatching" };
    char name[64];
    bool given = b->model != NULL;

    b->full = !b->quick && !only_sdxl(b);
    if (b->full && !given) {
        b->model = path_of(b->dir, "sd15");
        b->full = make(b, b->model, "gen_sd15.py", "model", layout);
    }
    if (b->full && given) b->full = true_shapes(b->model);
    for (int i = 0; i < LORAS && b->full; i++) {
        char        seed[16];
        const char *words[] = { "--rank", "16", "--targets", "attn,ff,proj", "--seed", seed, NULL };
        snprintf(seed, sizeof seed, "%d", i + 1);
        snprintf(name, sizeof name, "lora%d.safetensors", i + 1);
        b->lora[i] = path_of(b->dir, name);
        b->full = make(b, b->lora[i], "gen_sd15.py", "lora", words);
    }
    b->size = b->size > 0 ? b->size : 512;
    b->small = b->size < 256 ? b->size : 256;
    b->steps = 1;
    if (b->full || only_sdxl(b)) return;
    if (given) note("the model does not have the shapes of SD1.5: no bars, and the bundled adapters");
    else {
        note("measuring the bundled model only");
        b->model = b->bundled;
        b->size = b->small = 64;
    }
    b->steps = b->quick ? 1 : 10;
    for (int i = 0; i < LORAS; i++) {
        snprintf(name, sizeof name, "adapters/%s.safetensors", bundled[i]);
        b->lora[i] = path_of(b->bundled, name);
    }
}

static peer *greet(suite *b, const char *python, const char *name)
{
    const char *script = path_of(b->source, name);
    char  answer[256];
    peer *p = peer_start(python, script);

    if (p != NULL && !peer_ask(p, answer, sizeof answer, "hello")) {
        peer_stop(p);
        p = NULL;
    }
    if (p == NULL) return NULL;
    note("a peer: %s", answer);
    fprintf(b->json, "{\"group\": \"peer\", \"versions\": ");
    put_text(b->json, answer);
    fputs("}\n", b->json);
    return p;
}

static void choose_peers(suite *b, bool wanted)
{
    const char *python = getenv("SDCPP_PYTHON");
    char        answer[64];

    /* Its waiting threads spin, which is right where the machine is its own, and would count as work where it is not. */
    if (b->processor) setenv("OMP_WAIT_POLICY", "passive", 0);
    b->worker = wanted ? greet(b, b->python, "peer.py") : NULL;
    if (b->worker != NULL) peer_ask(b->worker, answer, sizeof answer, "threads\t%d", (int)b->threads);
    else note("no PyTorch beside: %s", wanted ? "$PYTHON has no torch with diffusers" : "not wanted");
    if (python == NULL) python = b->python;
    b->sdcpp = wanted && b->full && asked_for(b, "sdcpp") ? greet(b, python, "peer_sdcpp.py") : NULL;
    b->single = path_of(b->dir, "sd15.safetensors");
    if (b->sdcpp != NULL && !make(b, b->single, "gen_sd15.py", "model", nothing)) {
        peer_stop(b->sdcpp);
        b->sdcpp = NULL;
    }
}

static void say_machine(suite *b)
{
    FILE  *f = fopen("/proc/cpuinfo", "r");
    char   line[512], name[128] = "unknown";
    double load = NAN;

    while (f != NULL && fgets(line, sizeof line, f) != NULL)
        if (sscanf(line, "model name : %127[^\n]", name) == 1) break;
    if (f != NULL) fclose(f);
    f = fopen("/proc/loadavg", "r");
    if (f != NULL && fscanf(f, "%lf", &load) != 1) load = NAN;
    if (f != NULL) fclose(f);
    fputs("{\"group\": \"machine\", \"processor\": ", b->json);
    put_text(b->json, name);
    fprintf(b->json, ", \"threads\": %d, \"bf16\": %s, \"judged_by\": \"%s\"", (int)b->threads, b->bf16 ? "true" : "false",
            b->processor ? "processor time" : "clock");
    put_number(b->json, "load", load);
    fputs("}\n", b->json);
    note("%s, %d threads, load %.1f", name, (int)b->threads, load);
}

typedef struct group { const char *name; void (*run)(suite *b); } group;
static const group groups[] = {
    { "kernels", group_kernels }, { "startup", group_startup }, { "memory", group_memory }, { "bundled", group_bundled },
    { "threads", group_threads }, { "steps", group_steps }, { "sdcpp", group_sdcpp },
    { "adapters", group_adapters }, { "time", group_time }, { "train", group_train },
};
enum { GROUPS = sizeof groups / sizeof *groups };

static void run_groups(suite *b)
{
    static const char *const parts[] = { "--parts", "unet,vae", NULL };

    for (int i = 0; i < GROUPS; i++) {
        bool asked = asked_for(b, groups[i].name);
        /* Rows have the ceilings as their bars: they are measured before the steps and after them. */
        if (groups[i].run == group_time && (asked || b->rate_count > 0)) {
            measure_ceilings(b);
            add_rates(b);
        }
        if (!asked) continue;
        fprintf(stderr, "%s\n", groups[i].name);
        if (groups[i].run == group_steps) measure_ceilings(b);
        groups[i].run(b);
    }
    if (!b->sdxl) return;
    fprintf(stderr, "sdxl\n");
    const char *path = path_of(b->dir, "sdxl");
    if (make(b, path, "gen_sdxl.py", NULL, parts)) group_sdxl(b);
    else if (only_sdxl(b)) die("nothing to measure without SDXL");
}

static int number_of(const char *option, const char *text, long least, long most)
{
    char *rest;
    errno = 0;
    long v = strtol(text, &rest, 10);
    if (rest == text || *rest != '\0' || errno != 0 || v < least || v > most)
        refuse("%s takes a number from %ld to %ld, not '%s'", option, least, most, text);
    return (int)v;
}

/* All words of --only are groups. */
static void check_groups(const char *only)
{
    for (const char *at = only; at != NULL; at = strchr(at, ',') != NULL ? strchr(at, ',') + 1 : NULL) {
        size_t n = strcspn(at, ",");
        bool   known = n == 4 && strncmp(at, "sdxl", n) == 0;
        for (int i = 0; i < GROUPS; i++)
            known = known || (strlen(groups[i].name) == n && strncmp(at, groups[i].name, n) == 0);
        if (!known) refuse("there is no group '%.*s'; --help lists them", (int)n, at);
    }
}

static void read_options(suite *b, bool *peers, int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        const char *o = argv[i], *value = i + 1 < argc ? argv[i + 1] : NULL;
        if (strcmp(o, "--quick") == 0) b->quick = true;
        else if (strcmp(o, "--sdxl") == 0) b->sdxl = true;
        else if (strcmp(o, "--no-peers") == 0) *peers = false;
        else if (strcmp(o, "--processor-time") == 0) b->processor = true;
        else if (strcmp(o, "--as-before") == 0) b->as_before = true;
        else if (strcmp(o, "--help") == 0) usage(stdout), exit(0);
        else if (value == NULL) usage(stderr), exit(2);
        else if (strcmp(o, "--only") == 0) b->only = argv[++i];
        else if (strcmp(o, "--rounds") == 0) b->rounds = number_of(o, argv[++i], 1, ROUNDS_MAX - 2);
        else if (strcmp(o, "--threads") == 0) b->threads = number_of(o, argv[++i], 1, 128);
        else if (strcmp(o, "--size") == 0) b->size = number_of(o, argv[++i], 64, 4096);
        else if (strcmp(o, "--model") == 0) b->model = argv[++i];
        else if (strcmp(o, "--out") == 0) b->dir = argv[++i];
        else if (strcmp(o, "--draw") == 0) b->drawn = argv[++i];
        else if (strcmp(o, "--before") == 0) b->before = argv[++i];
        else usage(stderr), exit(2);
    }
    check_groups(b->only);
    if (b->only != NULL && among(b->only, "sdxl")) b->sdxl = true;
    if (b->size % 64 != 0) refuse("--size takes a multiple of 64, not %d", (int)b->size);
    if (b->model != NULL && !exists(b->model)) refuse("there is no model %s", b->model);
    if (b->quick && b->model != NULL) refuse("--quick measures the bundled model: not with --model");
    if (b->quick && b->sdxl) refuse("SDXL has its true shapes: not with --quick");
    if (b->drawn != NULL && !exists(b->drawn)) refuse("there is no file %s", b->drawn);
    if (b->quick) b->rounds = 1;
    if (b->threads < 1) b->threads = (int32_t)sysconf(_SC_NPROCESSORS_ONLN);
    if (b->threads > 128) b->threads = 128;
}

/* Says what was written. */
static void say_written(const suite *b, long seconds)
{
    printf("\n%ld s; %s/results.jsonl, table.md", seconds, b->dir);
    if (b->wrote_time) printf(", roofline.md, time.png");
    if (b->drew_targets) printf(", bench.png");
    printf("\n");
}

/* The table and the pictures from lines that are there. */
static int draw_again(suite *b)
{
    FILE *f = fopen(b->drawn, "r");

    if (f == NULL) die("cannot read %s", b->drawn);
    read_figures(b, f);
    fclose(f);
    if (b->size == 0) b->size = 512;
    b->full = b->size >= 256;
    print_table(b, stdout);
    (void)draw_targets(b, path_of(b->dir, "bench.png"));
    draw_time_of(b, b->drawn);
    return 0;
}

int main(int argc, char **argv)
{
    static suite b = { .bundled = "examples/model", .source = "tests/bench", .dir = "build/bench", .rounds = 3,
                       .peak_f32 = NAN, .peak_bf16 = NAN, .one_f32 = NAN, .one_bf16 = NAN };
    bool   peers = true;
    time_t begun = time(NULL);

    if (argc > 1 && strcmp(argv[1], "--child-memory") == 0) return child_memory(argc - 1, argv + 1);
    if (argc > 1 && strcmp(argv[1], "--child-startup") == 0) return child_startup(argc - 1, argv + 1);
    if (argc > 1 && strcmp(argv[1], "--child-train") == 0) return child_train(argc - 1, argv + 1);
    b.before = "tests/bench/before.jsonl";
    read_options(&b, &peers, argc, argv);
    b.self = argv[0];
    b.beside = folder_of(argv[0]);
    b.python = getenv("PYTHON") != NULL && getenv("PYTHON")[0] != '\0' ? getenv("PYTHON") : "python3";
#if defined(__x86_64__)
    b.bf16 = wf_cpu_detect().avx512_bf16;
#endif
    mkdir(b.dir, 0777);
    if (b.drawn != NULL) return draw_again(&b);
    if (!exists(b.bundled) || !exists(b.source)) die("run from the top of weft's sources");
    b.json = fopen(path_of(b.dir, "results.jsonl"), "w");
    if (b.json == NULL) die("cannot write into %s", b.dir);
    say_machine(&b);
    choose_model(&b);
    choose_peers(&b, peers);
    run_groups(&b);
    peer_stop(b.worker);
    peer_stop(b.sdcpp);
    printf("\n");
    print_table(&b, stdout);
    FILE *f = fopen(path_of(b.dir, "table.md"), "w");
    if (f == NULL) die("cannot write into %s", b.dir);
    print_table(&b, f);
    fclose(f);
    b.drew_targets = draw_targets(&b, path_of(b.dir, "bench.png"));
    say_written(&b, (long)(time(NULL) - begun));
    if (fclose(b.json) != 0) die("cannot write results");
    return 0;
}
