/* weft.c - the command-line tool: generate a picture, inspect a file, explain a plan.
 *
 * It is also the longest example, and uses nothing but the public headers. All options stand in
 * one table that writes straight into the library's option structs; after that each subcommand is
 * a straight story: generate() owns the denoising loop, explain() never runs the network, and
 * inspect() never makes a plan.
 *
 * An option that could have no effect is refused: --period under merge is a question, not a setting.
 *
 * Exit status: 0 done, 1 failed with one line "weft: ...", 2 the command line itself is wrong. */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <weft/weft.h>

static weft_error err;

/* ------------------------------------------------------------------ leaving, with one line */

static const char *subcommand = "";
static int progress_shown;                       /* the terminal's last line is ours to overwrite */

static void clear_progress(void)
{
    if (progress_shown) fputs("\r\033[K", stderr);
    progress_shown = 0;
}

static _Noreturn void fail(const char *format, ...)
{
    va_list args;
    clear_progress();
    fputs("weft: ", stderr);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    exit(1);
}

static _Noreturn void misuse(const char *format, ...)
{
    va_list args;
    fputs("weft: ", stderr);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fprintf(stderr, "; see weft %s%s--help\n", subcommand, *subcommand ? " " : "");
    exit(2);
}

static void must(weft_status st)
{
    if (st != WEFT_OK) fail("%s", st == WEFT_E_CANCELLED ? "stopped" : err.text);
}

static void *room(size_t count, size_t size)
{
    void *p = calloc(count ? count : 1, size);
    if (p == NULL) fail("out of memory");
    return p;
}

static float *floats(size_t count) { return room(count, sizeof(float)); }

/* ------------------------------------------------------------------ what was asked for */

enum { MERGE = 1, SWITCH = 2, COMPOSITE = 4, KLORA = 8 };         /* bits, so that an option can belong to several */
enum { NOTHING_SAID = -1 };
enum { QUIET = 1, KARRAS = 2, KEYS = 4, NO_PARAMETERS = 8, HELP = 16 };

typedef struct adapter_use {
    char            *file;
    float            weight;
    weft_add_options how;
    weft_adapter    *adapter;
} adapter_use;

typedef struct settings {
    const char             *target;              /* the model, or the file to look at */
    adapter_use            *adapters;
    size_t                  adapter_count;
    uint32_t                flags;               /* QUIET ... */
    int32_t                 method;
    int32_t                 sampler, steps, spacing;
    int32_t                 width, height;       /* of the picture; 0: the model's */
    float                   eta, guidance, rescale;
    uint64_t                seed;
    const char             *prompt, *negative;
    const char             *latents, *conditioning, *save, *output;
    const char             *against;             /* inspect --model */
    weft_model_options      open;
    weft_plan_options       plan;
    weft_run_options        run;
    weft_switch_options     taking_turns;
    weft_composite_options  composite;
    weft_klora_options      klora;
} settings;

static void settings_init(settings *s, int argc)
{
    memset(s, 0, sizeof *s);
    weft_model_options_init(&s->open);
    weft_plan_options_init(&s->plan);
    weft_run_options_init(&s->run);
    weft_switch_options_init(&s->taking_turns);
    weft_composite_options_init(&s->composite);
    weft_klora_options_init(&s->klora);
    s->adapters = room((size_t)argc, sizeof *s->adapters);
    s->method = MERGE;
    s->sampler = WEFT_SAMPLER_DDIM;
    s->steps = 20;
    s->spacing = NOTHING_SAID;
    s->guidance = 7.5f;
}

/* ------------------------------------------------------------------ the options, one table */

enum { GENERATE = 1, EXPLAIN = 2, INSPECT = 4 };
enum { HEADING, BIT, INT32, INT64, FLOAT, DOUBLE, STRING, WORD, OTHER };

typedef struct word { const char *name; int32_t value; } word;

typedef struct option {
    int         kind;
    int         used_by;                             /* GENERATE | EXPLAIN | INSPECT                      */
    char        letter;
    const char *name;
    const char *value;                               /* what the help calls it; NULL for a BIT            */
    const char *help;
    size_t      field;                               /* in settings, or in adapter_use where per_adapter  */
    double      low, high;                           /* of numbers                                        */
    uint32_t    bit;                                 /* of a BIT, and of a value that a flag must announce */
    size_t      flags;                               /* where that bit goes                               */
    int         per_adapter;
    int         method;                              /* 0: any                                            */
    const word *words;
    void      (*parse)(settings *s, const char *name, const char *value);
} option;

static const word methods[]  = { { "merge", MERGE }, { "switch", SWITCH }, { "composite", COMPOSITE },
                                 { "klora", KLORA }, { NULL, 0 } };
static const word roles[]    = { { "content", WEFT_ROLE_CONTENT }, { "style", WEFT_ROLE_STYLE }, { NULL, 0 } };
static const word paths[]    = { { "auto", WEFT_PATH_AUTO }, { "side", WEFT_PATH_SIDE },
                                 { "merged", WEFT_PATH_MERGED }, { NULL, 0 } };
static const word texts[]    = { { "method", WEFT_TEXT_METHOD }, { "all", WEFT_TEXT_ALL },
                                 { "first", WEFT_TEXT_FIRST }, { "none", WEFT_TEXT_NONE }, { NULL, 0 } };
static const word patterns[] = { { "s_star", WEFT_KLORA_S_STAR }, { "s", WEFT_KLORA_S },
                                 { "custom", WEFT_KLORA_CUSTOM }, { NULL, 0 } };
static const word gammas[]   = { { "code", WEFT_KLORA_GAMMA_CODE }, { "paper", WEFT_KLORA_GAMMA_PAPER },
                                 { "none", WEFT_KLORA_GAMMA_NONE }, { NULL, 0 } };
static const word grains[]   = { { "call", WEFT_KLORA_BY_CALL }, { "step", WEFT_KLORA_BY_STEP }, { NULL, 0 } };
static const word samplers[] = { { "ddim", WEFT_SAMPLER_DDIM }, { "euler", WEFT_SAMPLER_EULER },
                                 { "euler_a", WEFT_SAMPLER_EULER_A }, { "dpmpp_2m", WEFT_SAMPLER_DPMPP_2M },
                                 { NULL, 0 } };
static const word spacings[] = { { "default", WEFT_SPACING_DEFAULT }, { "leading", WEFT_SPACING_LEADING },
                                 { "linspace", WEFT_SPACING_LINSPACE }, { "trailing", WEFT_SPACING_TRAILING },
                                 { NULL, 0 } };

static void parse_adapter(settings *s, const char *name, const char *value);
static void parse_size(settings *s, const char *name, const char *value);
static void parse_seed(settings *s, const char *name, const char *value);

#define IN(member) .field = offsetof(settings, member)
#define OF(member) .per_adapter = 1, .field = offsetof(adapter_use, how.member)
#define SETS(where, mask) .flags = offsetof(settings, where), .bit = (mask)
#define ANNOUNCED(mask) .flags = offsetof(adapter_use, how.flags), .bit = (mask)
#define ANY_FLOAT .low = -1e6, .high = 1e6
enum { PICTURE = GENERATE | EXPLAIN, ALL = GENERATE | EXPLAIN | INSPECT };

static const option options[] = {
    { HEADING, PICTURE, .name = "The picture" },
    { STRING, GENERATE, 'p', "--prompt", "TEXT", "what to draw", IN(prompt) },
    { STRING, GENERATE, 'n', "--negative", "TEXT", "what guidance pushes away from (the empty text)", IN(negative) },
    { OTHER, GENERATE, 0, "--seed", "N", "of the first noise, which equals torch's CPU generator (0)",
      .parse = parse_seed },
    { OTHER, PICTURE, 0, "--size", "WxH", "in pixels (the size the model was trained at)", .parse = parse_size },
    { STRING, GENERATE, 'o', "--output", "FILE", "the PNG to write (weft.png)", IN(output) },
    { BIT, GENERATE, 0, "--no-parameters", NULL, "leave the generation parameters out of the PNG",
      SETS(flags, NO_PARAMETERS) },

    { HEADING, PICTURE, .name = "Adapters" },
    { OTHER, PICTURE, 'a', "--adapter", "FILE[:WEIGHT]",
      "add a LoRA file or folder (weight 1); may be repeated. A name that has\n"
      "a colon itself needs the weight", .parse = parse_adapter },
    { HEADING, PICTURE, .name = "For the adapter just named" },
    { WORD, PICTURE, 0, "--role", "ROLE", "content or style: what K-LoRA takes it for (first content,\nsecond style)",
      OF(role), .words = roles },
    { STRING, PICTURE, 0, "--select", "PATTERNS",
      "act on these layers only: names with * and ?, separated by commas,\nas in 'unet.up_blocks.*,unet.mid_block.*'",
      OF(select) },
    { STRING, PICTURE, 0, "--exclude", "PATTERNS", "and not on these", OF(exclude) },
    { FLOAT, PICTURE, 0, "--text-weight", "W", "weight of its text-encoder part (as the rest)", OF(text_weight),
      ANY_FLOAT, ANNOUNCED(WEFT_ADD_TEXT_WEIGHT) },
    { FLOAT, PICTURE, 0, "--share", "W", "weight of its prediction under composite (1)", OF(share), ANY_FLOAT,
      ANNOUNCED(WEFT_ADD_SHARE), .method = COMPOSITE },
    { BIT, PICTURE, 0, "--partial", NULL, "allow keys that the model has no layer for", .per_adapter = 1,
      ANNOUNCED(WEFT_ADD_PARTIAL) },

    { HEADING, PICTURE, .name = "How adapters combine" },
    { WORD, PICTURE, 0, "--compose", "METHOD", "merge, switch, composite or klora (merge)", IN(method),
      .words = methods },
    { WORD, PICTURE, 0, "--text-plan", "WHICH",
      "whose text-encoder parts act on the prompt: all, first, none, or\n"
      "method: the method's own (switch first, klora none, others all)", IN(plan.text), .words = texts },
    { WORD, PICTURE, 0, "--path", "PATH", "side: factors beside the weights; merged: in copies of the\n"
      "weights; auto: the cheaper for each layer (auto)", IN(plan.path), .words = paths },
    { INT32, PICTURE, 0, "--period", "N", "switch: calls of one turn (5)", IN(taking_turns.period), 1, 100000,
      .method = SWITCH },
    { BIT, PICTURE, 0, "--official-offset", NULL, "switch: the timing of the authors' program, one call late",
      SETS(taking_turns.flags, WEFT_SWITCH_OFFICIAL_OFFSET), .method = SWITCH },
    { BIT, PICTURE, 0, "--divide-by-count", NULL, "composite: divide by the number of adapters, not by the\n"
      "sum of shares", SETS(composite.flags, WEFT_COMPOSITE_DIVIDE_BY_COUNT), .method = COMPOSITE },
    { BIT, PICTURE, 0, "--last-without-guidance", NULL, "composite: without guidance keep the last adapter's\n"
      "prediction alone, as the authors' program does",
      SETS(composite.flags, WEFT_COMPOSITE_NOCFG_LAST), .method = COMPOSITE },
    { WORD, PICTURE, 0, "--pattern", "CURVE", "klora: s_star, s or custom (s_star)", IN(klora.pattern),
      .words = patterns, .method = KLORA },
    { DOUBLE, PICTURE, 0, "--alpha", "X", "klora, custom: S = (alpha tau + beta) mod modulus", IN(klora.alpha),
      ANY_FLOAT, .method = KLORA },
    { DOUBLE, PICTURE, 0, "--beta", "X", "klora, custom", IN(klora.beta), ANY_FLOAT, .method = KLORA },
    { DOUBLE, PICTURE, 0, "--modulus", "X", "klora, custom (0: no modulus)", IN(klora.modulus), 0, 1e6,
      .method = KLORA },
    { BIT, PICTURE, 0, "--paper-beta", NULL, "klora: s_star with the paper's offset 1.3 for the program's 1.275",
      SETS(klora.flags, WEFT_KLORA_PAPER_BETA), .method = KLORA },
    { WORD, PICTURE, 0, "--gamma", "BALANCE", "klora: code, paper or none (code)", IN(klora.gamma), .words = gammas,
      .method = KLORA },
    { WORD, PICTURE, 0, "--granularity", "UNIT", "klora: time passes with every layer call, or by step (call)",
      IN(klora.granularity), .words = grains, .method = KLORA },
    { INT64, PICTURE, 0, "--top-k", "N", "klora: entries that make a score (product of the two ranks)",
      IN(klora.top_k), 1, 1e12, .method = KLORA },
    { BIT, PICTURE, 0, "--attention-only", NULL, "klora: act on q, k, v and out of the attentions alone",
      SETS(klora.flags, WEFT_KLORA_ATTENTION_ONLY), .method = KLORA },
    { BIT, PICTURE, 0, "--ignore-alpha", NULL, "klora: leave the files' alpha out, as the authors' program does",
      SETS(klora.flags, WEFT_KLORA_IGNORE_ALPHA), .method = KLORA },
    { BIT, PICTURE, 0, "--wrap", NULL, "klora: let the very last layer call fall back to time 0, likewise",
      SETS(klora.flags, WEFT_KLORA_WRAP), .method = KLORA },

    { HEADING, PICTURE, .name = "Denoising" },
    { INT32, PICTURE, 's', "--steps", "N", "denoising steps (20)", IN(steps), 1, 1000 },
    { WORD, PICTURE, 0, "--sampler", "SOLVER", "ddim, euler, euler_a or dpmpp_2m (ddim)", IN(sampler),
      .words = samplers },
    { BIT, PICTURE, 0, "--karras", NULL, "noise levels of Karras et al.; not with ddim", SETS(flags, KARRAS) },
    { FLOAT, PICTURE, 0, "--eta", "X", "ddim: 0 deterministic, 1 draws as much noise as DDPM (0)", IN(eta), 0, 1 },
    { WORD, PICTURE, 0, "--spacing", "WAY", "timesteps: default, leading, linspace or trailing (the model's)",
      IN(spacing), .words = spacings },
    { FLOAT, PICTURE, 'g', "--guidance", "W", "how strongly the prompt counts; at most 1: no guidance (7.5)",
      IN(guidance), 0, 1000 },
    { FLOAT, GENERATE, 0, "--guidance-rescale", "X", "0 none .. 1 full (0)", IN(rescale), 0, 1 },
    { INT32, PICTURE, 't', "--threads", "N", "(one for each core); the picture is the same for any number",
      IN(run.threads), 1, 128 },

    { HEADING, GENERATE, .name = "Comparing with other programs (safetensors files)" },
    { STRING, GENERATE, 0, "--latents", "FILE",
      "begin with its tensor `start`, else `latents`, (1,c,h,w), noise as\n"
      "drawn, not scaled; a drawing solver then draws from a fresh seed", IN(latents) },
    { STRING, GENERATE, 0, "--conditioning", "FILE",
      "take `text` (1,t,d) and where needed `negative`, `pooled` and\n"
      "`negative_pooled` instead of encoding prompts", IN(conditioning) },
    { STRING, GENERATE, 0, "--save", "FILE",
      "write `start`, the conditioning, `prediction_000` ... of each step,\n"
      "and the last `latents`", IN(save) },

    { HEADING, EXPLAIN, .name = "The table" },
    { STRING, EXPLAIN, 'o', "--output", "FILE", "draw the table as a PNG: layers down, calls across", IN(output) },

    { HEADING, INSPECT, .name = "Options" },
    { STRING, INSPECT, 'm', "--model", "MODEL", "check the adapter against this model, key by key; the exit\n"
      "status is 1 when something does not fit", IN(against) },
    { BIT, INSPECT, 'k', "--keys", NULL, "list every module with rank, alpha and shape", SETS(flags, KEYS) },

    { HEADING, PICTURE, .name = "Other" },
    { STRING, ALL, 0, "--variant", "NAME", "of the model's weight files, as in fp16 (the plain file)",
      IN(open.variant) },
    { STRING, ALL, 0, "--tokenizer", "DIR", "folder to use for the model's tokenizer/", IN(open.tokenizer) },
    { STRING, ALL, 0, "--tokenizer-2", "DIR", "likewise for its second text encoder", IN(open.tokenizer_2) },
    { BIT, PICTURE, 'q', "--quiet", NULL, "no progress, and no word on success", SETS(flags, QUIET) },
    { BIT, ALL, 'h', "--help", NULL, "this text", SETS(flags, HELP) },
};
enum { OPTIONS = sizeof options / sizeof options[0] };

static double number(const char *name, const char *value, double low, double high)
{
    char *end;
    double v = strtod(value, &end);
    if (end == value || *end || !isfinite(v)) misuse("%s: '%s' is not a number", name, value);
    if (v < low || v > high) misuse("%s: %s is not between %g and %g", name, value, low, high);
    return v;
}

static double whole_number(const char *name, const char *value, double low, double high)
{
    double v = number(name, value, low, high);
    if (v != floor(v)) misuse("%s: %s is not a whole number", name, value);
    return v;
}

static void parse_seed(settings *s, const char *name, const char *value)
{
    char *end;
    errno = 0;
    s->seed = strtoull(value, &end, 10);
    if (end == value || *end || errno || strchr(value, '-') != NULL)
        misuse("%s: '%s' is not a whole number from 0 to 2^64 - 1", name, value);
}

static void parse_size(settings *s, const char *name, const char *value)
{
    char rest;
    if (sscanf(value, "%5" SCNd32 "x%5" SCNd32 "%c", &s->width, &s->height, &rest) != 2 ||
        s->width < 1 || s->height < 1)
        misuse("%s: '%s' is not a size like 512x768", name, value);
}

static void parse_adapter(settings *s, const char *name, const char *value)
{
    adapter_use *use = &s->adapters[s->adapter_count++];
    const char *colon = strrchr(value, ':');
    size_t length = colon ? (size_t)(colon - value) : strlen(value);

    if (length == 0) misuse("%s: '%s' names no file", name, value);
    weft_add_options_init(&use->how);
    use->weight = 1.0f;
    use->file = room(length + 1, 1);
    memcpy(use->file, value, length);
    if (colon) {
        char *end;
        double weight = strtod(colon + 1, &end);
        if (end == colon + 1 || *end || !isfinite(weight) || fabs(weight) > 1e6)
            misuse("%s %s: '%s' is not a weight", name, value, colon + 1);
        use->weight = (float)weight;
    }
}

static void parse_word(int32_t *out, const option *o, const char *value)
{
    char wanted[128] = "";
    for (const word *w = o->words; w->name; w++) {
        if (strcmp(w->name, value) == 0) { *out = w->value; return; }
        if (w != o->words) strcat(wanted, w[1].name ? ", " : " or ");
        strcat(wanted, w->name);
    }
    misuse("%s: there is no '%s', only %s", o->name, value, wanted);
}

static void set(settings *s, const option *o, const char *value)
{
    char *base = (char *)s;

    if (o->per_adapter) {
        if (s->adapter_count == 0) misuse("%s is for the --adapter before it, and there is none", o->name);
        base = (char *)&s->adapters[s->adapter_count - 1];
    }
    char *field = base + o->field;
    if (o->bit) *(uint32_t *)(void *)(base + o->flags) |= o->bit;
    switch (o->kind) {
    case INT32:  *(int32_t *)(void *)field = (int32_t)whole_number(o->name, value, o->low, o->high); break;
    case INT64:  *(int64_t *)(void *)field = (int64_t)whole_number(o->name, value, o->low, o->high); break;
    case FLOAT:  *(float *)(void *)field = (float)number(o->name, value, o->low, o->high); break;
    case DOUBLE: *(double *)(void *)field = number(o->name, value, o->low, o->high); break;
    case STRING: *(const char **)(void *)field = value; break;
    case WORD:   parse_word((int32_t *)(void *)field, o, value); break;
    case OTHER:  o->parse(s, o->name, value); break;
    default:     break;
    }
}

/* An option by its name ("--steps", "--steps=20" with `value` set to the 20) or letter ("-s"). */
static const option *find_option(const char *arg, int used_by, const char **value)
{
    size_t length = strcspn(arg, "=");
    for (const option *o = options; o < options + OPTIONS; o++) {
        if (o->kind == HEADING || !(o->used_by & used_by)) continue;
        if (o->letter && arg[1] == o->letter && arg[2] == '\0') return o;
        if (strncmp(o->name, arg, length) != 0 || o->name[length]) continue;
        if (arg[length] == '=') *value = arg + length + 1;
        return o;
    }
    return NULL;
}

static const char *word_of(const word *words, int32_t value)
{
    while (words->name && words->value != value) words++;
    return words->name ? words->name : "?";
}

static const option **given;                     /* what was said, to see at the end whether it can have an effect */
static size_t         given_count;

static int was_given(const char *name)
{
    for (size_t i = 0; i < given_count; i++)
        if (strcmp(given[i]->name, name) == 0) return 1;
    return 0;
}

static void refuse_idle_options(const settings *s)
{
    for (size_t i = 0; i < given_count; i++)
        if (given[i]->method && given[i]->method != s->method)
            misuse("%s is of %s, and the method is %s", given[i]->name, word_of(methods, given[i]->method),
                   word_of(methods, s->method));
    int custom = s->method == KLORA && s->klora.pattern == WEFT_KLORA_CUSTOM;
    int curve = was_given("--alpha") || was_given("--beta") || was_given("--modulus");
    if (curve && !custom) misuse("--alpha, --beta and --modulus are of --pattern custom");
    if (custom && !(was_given("--alpha") && was_given("--beta"))) misuse("--pattern custom needs --alpha and --beta");
    if (was_given("--paper-beta") && s->klora.pattern != WEFT_KLORA_S_STAR)
        misuse("--paper-beta is of --pattern s_star");
    if (was_given("--eta") && s->sampler != WEFT_SAMPLER_DDIM) misuse("--eta is of --sampler ddim");
    if ((s->flags & KARRAS) && s->sampler == WEFT_SAMPLER_DDIM) misuse("--karras is not for --sampler ddim");
    if (was_given("--compose") && s->adapter_count == 0) misuse("--compose needs an --adapter");
}

static void parse_arguments(settings *s, int used_by, int argc, char **argv)
{
    int only_names = 0;
    given = room((size_t)argc, sizeof *given);
    for (int i = 0; i < argc; i++) {
        const char *value = NULL;
        if (only_names || argv[i][0] != '-' || argv[i][1] == '\0') {
            if (s->target) misuse("'%s' is one name too many: there is '%s' already", argv[i], s->target);
            s->target = argv[i];
            continue;
        }
        if (strcmp(argv[i], "--") == 0) { only_names = 1; continue; }
        const option *o = find_option(argv[i], used_by, &value);
        if (o == NULL) misuse("there is no option %s", argv[i]);
        if (o->kind == BIT && value) misuse("%s takes no value", o->name);
        if (o->kind != BIT && value == NULL) {
            if (i + 1 == argc) misuse("%s wants a value: %s %s", o->name, o->name, o->value);
            value = argv[++i];
        }
        set(s, o, value);
        given[given_count++] = o;
    }
    if (s->flags & HELP) return;
    if (s->target == NULL) misuse(used_by == INSPECT ? "which file or folder?" : "which model?");
    if (used_by != INSPECT) refuse_idle_options(s);
}

static void print_options(int used_by)
{
    for (const option *o = options; o < options + OPTIONS; o++) {
        char left[64];
        if (!(o->used_by & used_by)) continue;
        if (o->kind == HEADING) { printf("\n%s:\n", o->name); continue; }
        snprintf(left, sizeof left, "%c%c%c %s %s", o->letter ? '-' : ' ', o->letter ? o->letter : ' ',
                 o->letter ? ',' : ' ', o->name, o->value ? o->value : "");
        printf("  %-30s", left);
        if (strlen(left) > 29) printf("\n%32s", "");
        for (const char *c = o->help; *c; c++) {
            putchar(*c);
            if (*c == '\n') printf("%32s", "");
        }
        putchar('\n');
    }
}

/* ------------------------------------------------------------------ progress, and stopping in good order */

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

typedef struct meter {
    int     shown;                                   /* stderr is a terminal, and may be used */
    int32_t step, steps;                             /* 0 before the loop                     */
    double  began, last;
} meter;

static int32_t show_progress(void *user, const char *what, int64_t done, int64_t total)
{
    meter *m = user;
    double t = now();
    if (!m->shown || t - m->last < 0.1) return 0;    /* ten times a second is enough for eyes */
    m->last = t;
    clear_progress();
    if (m->steps == 0) {
        fprintf(stderr, "%s %" PRId64 " of %" PRId64, what, done, total);
    } else {
        double part = total > 0 ? (double)done / (double)total : 0.0, spent = t - m->began;
        double share = (m->step + part) / m->steps;
        fprintf(stderr, "step %d of %d, %.0f s", (int)m->step + 1, (int)m->steps, spent);
        if (spent > 2.0 && share > 0.0) fprintf(stderr, ", %.0f s to go", spent / share - spent);
    }
    progress_shown = 1;
    return 0;
}

static weft_run *interrupted;                        /* the run that Ctrl-C stops; a second Ctrl-C ends the program */

static void on_interrupt(int signal_number)
{
    (void)signal_number;
    weft_run_cancel(interrupted);
}

static void watch_interrupt(weft_run *run)
{
    struct sigaction action;

    sigaction(SIGINT, NULL, &action);
    if (action.sa_handler == SIG_IGN) return;        /* as under nohup */
    memset(&action, 0, sizeof action);
    interrupted = run;
    action.sa_handler = run ? on_interrupt : SIG_DFL;
    action.sa_flags = (int)SA_RESETHAND;
    sigaction(SIGINT, &action, NULL);
}

/* ------------------------------------------------------------------ from settings to handles */

static void warn_line(void *user, int32_t level, const char *line)
{
    (void)user;
    if (level < WEFT_LOG_WARN) return;
    clear_progress();
    fprintf(stderr, "weft: warning: %s\n", line);
}

static weft_model *open_model(const char *path, settings *s, weft_model_info *info)
{
    weft_model *model;
    s->open.log = warn_line;
    must(weft_model_open(path, &s->open, &model, &err));
    must(weft_model_info_get(model, info, &err));
    return model;
}

static weft_sampler *make_sampler(const weft_model *model, const settings *s)
{
    weft_sampler_options o = WEFT_SAMPLER_OPTIONS_INIT;
    weft_sampler *sampler;

    o.kind = s->sampler;
    o.steps = s->steps;
    must(weft_sampler_options_from_model(model, &o, &err));
    o.eta = s->eta;
    if (s->flags & KARRAS) o.flags |= WEFT_SAMPLER_KARRAS;
    if (s->spacing != NOTHING_SAID) o.spacing = s->spacing;
    must(weft_sampler_create(&o, &sampler, &err));
    return sampler;
}

static weft_plan *make_plan(weft_model *model, settings *s, int32_t calls, meter *m)
{
    weft_plan *plan;

    s->plan.log = warn_line;
    s->plan.progress = show_progress;
    s->plan.progress_user = m;
    must(weft_plan_create(model, &s->plan, &plan, &err));
    for (size_t i = 0; i < s->adapter_count; i++) {
        adapter_use *use = &s->adapters[i];
        must(weft_adapter_open(use->file, NULL, &use->adapter, &err));
        must(weft_plan_add_with(plan, use->adapter, use->weight, &use->how, &err));
    }
    switch (s->method) {
    case SWITCH:    must(weft_plan_switch(plan, &s->taking_turns, &err)); break;
    case COMPOSITE: must(weft_plan_composite(plan, &s->composite, &err)); break;
    case KLORA:     must(weft_plan_klora(plan, &s->klora, &err)); break;
    default:        must(weft_plan_merge(plan, &err)); break;
    }
    must(weft_plan_seal(plan, calls, &err));
    clear_progress();
    return plan;
}

/* The picture's size in latent pixels goes into the run's options. */
static void set_size(settings *s, const weft_model_info *info)
{
    int32_t factor = info->image_factor;
    if (s->width % factor || s->height % factor)
        misuse("--size %dx%d: this model's pictures come in multiples of %d", (int)s->width, (int)s->height,
               (int)factor);
    s->run.width = s->width ? s->width / factor : info->latent_size;
    s->run.height = s->height ? s->height / factor : info->latent_size;
    s->width = s->run.width * factor;
    s->height = s->run.height * factor;
}

static void free_settings(settings *s)
{
    for (size_t i = 0; i < s->adapter_count; i++) {
        weft_adapter_free(s->adapters[i].adapter);
        free(s->adapters[i].file);
    }
    free(s->adapters);
    free(given);
}

/* ------------------------------------------------------------------ tensors in files */

/* Read tensor `name` as floats; its shape must end in the last `rank` of `shape`, where 0 takes any
 * number and stores it. NULL where the file has no such tensor. */
static float *read_tensor(const weft_tensors *file, const char *path, const char *name, int64_t *shape, size_t rank)
{
    weft_tensor_info info = WEFT_TENSOR_INFO_INIT;
    int64_t index = weft_tensors_find(file, name);
    int fits = 1;

    if (index < 0) return NULL;
    must(weft_tensors_info(file, (size_t)index, &info, &err));
    fits = info.rank >= rank && info.rank <= 8;
    for (size_t i = 0; fits && i < info.rank; i++) {
        int64_t found = info.shape[i];
        if (i < info.rank - rank) { fits = found == 1; continue; }
        int64_t *wanted = &shape[i - (info.rank - rank)];
        if (*wanted == 0 && found > 0) *wanted = found;
        fits = found == *wanted;
    }
    if (!fits) {
        char found[128] = "", wanted[128] = "";
        for (size_t i = 0; i < info.rank && i < 8; i++)
            snprintf(found + strlen(found), sizeof found - strlen(found), "%s%" PRId64, i ? ", " : "", info.shape[i]);
        for (size_t i = 0; i < rank; i++)
            snprintf(wanted + strlen(wanted), sizeof wanted - strlen(wanted), ", %" PRId64, shape[i]);
        fail("%s: %s is (%s), wanted (1%s)", path, name, found, wanted);
    }
    float *data = floats(info.count);
    must(weft_tensors_read(file, (size_t)index, data, info.count, &err));
    return data;
}

/* What the network is told besides the latents: encoded here, or read from a file. */
typedef struct conditioning {
    float  *text, *negative, *pooled, *negative_pooled;
    int64_t tokens;
    size_t  len, pooled_len;
} conditioning;

static void read_conditioning(conditioning *c, const settings *s, const weft_model_info *info)
{
    const char *path = s->conditioning;
    weft_tensors *file;
    int64_t shape[2] = { 0, info->text_dim }, pooled[1] = { info->pooled_dim };
    int guided = s->guidance > 1.0f;

    must(weft_tensors_open(path, NULL, &file, &err));
    if ((c->text = read_tensor(file, path, "text", shape, 2)) == NULL) fail("%s: it has no tensor `text`", path);
    if (guided && (c->negative = read_tensor(file, path, "negative", shape, 2)) == NULL)
        fail("%s: it has no tensor `negative`, and guidance %g needs one", path, (double)s->guidance);
    if (info->pooled_dim) {
        c->pooled = read_tensor(file, path, "pooled", pooled, 1);
        if (guided) c->negative_pooled = read_tensor(file, path, "negative_pooled", pooled, 1);
        if (c->pooled == NULL || (guided && c->negative_pooled == NULL))
            fail("%s: this model also wants `pooled`%s", path, guided ? " and `negative_pooled`" : "");
    }
    c->tokens = shape[0];
    weft_tensors_free(file);
}

/* How many tokens the conditioning of these prompts has; says so when a prompt is long. */
static int64_t measure_prompts(const weft_model *model, const settings *s, const weft_model_info *info)
{
    const char *prompts[2] = { s->prompt, s->guidance > 1.0f ? s->negative : NULL };
    int32_t most = 1;

    for (int i = 0; i < 2; i++) {
        int32_t tokens, chunks;
        if (prompts[i] == NULL) continue;
        must(weft_model_prompt_size(model, prompts[i], &tokens, &chunks, &err));
        if (chunks > 1 && !(s->flags & QUIET))
            fprintf(stderr, "weft: the %s has %d tokens: encoded whole, in %d chunks of %d\n",
                    i ? "negative prompt" : "prompt", (int)tokens, (int)chunks, (int)info->text_tokens - 2);
        if (chunks > most) most = chunks;
    }
    return (int64_t)most * info->text_tokens;
}

static float *encode_prompt(weft_run *run, const char *prompt, const conditioning *c, const weft_model_info *info,
                            float **pooled)
{
    weft_encode encode = WEFT_ENCODE_INIT;
    encode.prompt = prompt ? prompt : "";
    encode.chunks = (int32_t)(c->tokens / info->text_tokens);
    encode.text = floats(c->len);
    encode.text_len = c->len;
    if (c->pooled_len) encode.pooled = *pooled = floats(c->pooled_len);
    encode.pooled_len = c->pooled_len;
    must(weft_run_encode(run, &encode, &err));
    return encode.text;
}

static void free_conditioning(conditioning *c)
{
    free(c->text);
    free(c->negative);
    free(c->pooled);
    free(c->negative_pooled);
}

/* ------------------------------------------------------------------ generate */

typedef struct picture {
    conditioning  cond;
    int64_t       shape[4];                          /* (1, c, h, w) */
    size_t        len;
    float        *start, *latents;
    float       **predictions;                       /* [calls], each NULL unless saved */
    int32_t       calls;
} picture;

/* The noise as drawn or read, before the sampler scales it. */
static float *first_noise(picture *p, settings *s, const weft_model_info *info, weft_noise *noise)
{
    weft_tensors *file;
    int64_t shape[3] = { info->latent_channels, s->height / info->image_factor, s->width / info->image_factor };
    float *start = NULL;

    if (s->latents) {
        must(weft_tensors_open(s->latents, NULL, &file, &err));
        const char *name = weft_tensors_find(file, "start") >= 0 ? "start" : "latents";
        if ((start = read_tensor(file, s->latents, name, shape, 3)) == NULL)
            fail("%s: it has no tensor `start` or `latents`", s->latents);
        weft_tensors_free(file);
        s->height = (int32_t)shape[1] * info->image_factor;
        s->width = (int32_t)shape[2] * info->image_factor;
    }
    set_size(s, info);
    p->shape[0] = 1;
    p->shape[1] = info->latent_channels;
    p->shape[2] = s->run.height;
    p->shape[3] = s->run.width;
    p->len = (size_t)info->latent_channels * (size_t)s->run.height * (size_t)s->run.width;
    if (start) return start;
    start = floats(p->len);
    must(weft_noise_normal(noise, start, p->len, &err));
    return start;
}

static void denoise(picture *p, const settings *s, weft_run *run, weft_sampler *sampler, weft_noise *noise, meter *m)
{
    float *scaled = floats(p->len), *prediction = floats(p->len);
    weft_step step = WEFT_STEP_INIT;

    step.latent = scaled;                          step.latent_len = p->len;
    step.text = p->cond.text;                      step.text_len = p->cond.len;
    step.negative = p->cond.negative;              step.negative_len = p->cond.negative ? p->cond.len : 0;
    step.pooled = p->cond.pooled;                  step.pooled_len = p->cond.pooled ? p->cond.pooled_len : 0;
    step.negative_pooled = p->cond.negative_pooled;
    step.negative_pooled_len = p->cond.negative_pooled ? p->cond.pooled_len : 0;
    step.out = prediction;                         step.out_len = p->len;
    step.tokens = (int32_t)p->cond.tokens;
    step.guidance = s->guidance;
    step.guidance_rescale = s->rescale;

    p->latents = floats(p->len);
    for (size_t i = 0; i < p->len; i++) p->latents[i] = p->start[i] * weft_sampler_init_scale(sampler);
    for (int32_t n = 0; n < p->calls; n++) {
        m->step = n;
        must(weft_sampler_scale(sampler, n, p->latents, scaled, p->len, &err));
        step.call = n;
        step.timestep = weft_sampler_timestep(sampler, n);
        must(weft_run_step(run, &step, &err));
        must(weft_sampler_step(sampler, n, prediction, p->latents, p->len, noise, &err));
        if (s->save) p->predictions[n] = memcpy(floats(p->len), prediction, p->len * sizeof(float));
    }
    free(scaled);
    free(prediction);
}

/* Better to hear it before the first step than after the last. */
static void check_writable(const char *path)
{
    if (path == NULL) return;
    const char *slash = strrchr(path, '/');
    char *folder = room(strlen(path) + 2, 1);

    if (slash == NULL) strcpy(folder, ".");
    else memcpy(folder, path, slash == path ? 1 : (size_t)(slash - path));
    int why = access(folder, W_OK) != 0 ? errno : 0;
    free(folder);
    if (why != 0) fail("cannot write %s: %s", path, strerror(why));
}

/* The text other tools read: the prompt, the negative prompt, then one line of settings. */
static char *describe(const settings *s)
{
    char *text = NULL;
    size_t size = 0;
    FILE *f = open_memstream(&text, &size);
    if (f == NULL) fail("out of memory");

    fprintf(f, "%s\n", s->prompt ? s->prompt : "");
    if (s->negative && *s->negative) fprintf(f, "Negative prompt: %s\n", s->negative);
    fprintf(f, "Steps: %d, Sampler: %s%s, CFG scale: %g, Seed: %" PRIu64 ", Size: %dx%d, Model: %s", (int)s->steps,
            word_of(samplers, s->sampler), s->flags & KARRAS ? " karras" : "", (double)s->guidance, s->seed,
            (int)s->width, (int)s->height, s->target);
    if (s->rescale > 0.0f) fprintf(f, ", CFG rescale: %g", (double)s->rescale);
    if (s->eta > 0.0f) fprintf(f, ", Eta: %g", (double)s->eta);
    if (s->latents) fprintf(f, ", Start latents: %s", s->latents);
    if (s->conditioning) fprintf(f, ", Conditioning: %s", s->conditioning);
    if (s->adapter_count) {
        fprintf(f, ", Compose: %s, Adapters: \"", word_of(methods, s->method));
        for (size_t i = 0; i < s->adapter_count; i++)
            fprintf(f, "%s%s:%g", i ? ", " : "", s->adapters[i].file, (double)s->adapters[i].weight);
        fputc('"', f);
    }
    uint32_t v = weft_version();
    fprintf(f, ", Version: weft %u.%u.%u", (unsigned)(v >> 16), (unsigned)(v >> 8 & 255), (unsigned)(v & 255));
    if (fclose(f) != 0) fail("out of memory");
    return text;
}

static void save_tensors(const picture *p, const settings *s, const weft_model_info *info, const char *parameters)
{
    const conditioning *c = &p->cond;
    const char *metadata[2] = { "parameters", parameters };
    weft_tensor_out *out = room(6 + (size_t)p->calls, sizeof *out);
    char (*names)[24] = room((size_t)p->calls, sizeof *names);
    size_t count = 0;

    const struct { const char *name; const float *data; int64_t shape[4]; size_t rank; } fixed[] = {
        { "start", p->start, { 1, p->shape[1], p->shape[2], p->shape[3] }, 4 },
        { "latents", p->latents, { 1, p->shape[1], p->shape[2], p->shape[3] }, 4 },
        { "text", c->text, { 1, c->tokens, info->text_dim, 0 }, 3 },
        { "negative", c->negative, { 1, c->tokens, info->text_dim, 0 }, 3 },
        { "pooled", c->pooled, { 1, info->pooled_dim, 0, 0 }, 2 },
        { "negative_pooled", c->negative_pooled, { 1, info->pooled_dim, 0, 0 }, 2 },
    };
    for (size_t i = 0; i < sizeof fixed / sizeof fixed[0]; i++) {
        if (fixed[i].data == NULL) continue;
        out[count].name = fixed[i].name;
        out[count].data = fixed[i].data;
        out[count].rank = fixed[i].rank;
        memcpy(out[count++].shape, fixed[i].shape, sizeof fixed[i].shape);
    }
    for (int32_t n = 0; n < p->calls; n++) {
        snprintf(names[n], sizeof names[n], "prediction_%03d", (int)n);
        out[count].name = names[n];
        out[count].data = p->predictions[n];
        out[count].rank = 4;
        memcpy(out[count++].shape, p->shape, sizeof p->shape);
    }
    for (size_t i = 0; i < count; i++) out[i].struct_size = sizeof out[i];
    must(weft_tensors_write(s->save, out, count, metadata, 1, &err));
    free(names);
    free(out);
}

static void write_picture(const picture *p, const settings *s, weft_run *run, const char *parameters)
{
    const char *path = s->output ? s->output : "weft.png";
    const char *text[2] = { "parameters", parameters };
    size_t len = 3 * (size_t)s->width * (size_t)s->height;
    float *image = floats(len);
    uint8_t *rgb = room(len, 1);

    must(weft_run_decode(run, p->latents, p->len, image, len, &err));
    must(weft_image_bytes(image, len, s->width, s->height, rgb, len, &err));
    must(weft_png_write(path, rgb, len, s->width, s->height, text, s->flags & NO_PARAMETERS ? 0 : 1, &err));
    free(image);
    free(rgb);
}

static int generate(settings *s)
{
    weft_model_info info = WEFT_MODEL_INFO_INIT;
    picture p;
    weft_noise *noise;
    weft_run *run;
    meter m = { .shown = !(s->flags & QUIET) && isatty(STDERR_FILENO) };
    int guided = s->guidance > 1.0f;

    if (s->prompt == NULL && s->conditioning == NULL) misuse("what shall be drawn? --prompt TEXT");
    if (s->conditioning && (s->prompt || s->negative)) misuse("--conditioning stands in for --prompt and --negative");
    if (s->negative && !guided) misuse("--negative has no effect without guidance above 1");
    if (s->rescale > 0.0f && !guided) misuse("--guidance-rescale has no effect without guidance above 1");
    check_writable(s->output ? s->output : "weft.png");
    check_writable(s->save);
    memset(&p, 0, sizeof p);
    m.began = now();

    weft_model *model = open_model(s->target, s, &info);
    if (!info.has_vae) fail("%s: the model has no VAE to turn latents into a picture", s->target);
    weft_sampler *sampler = make_sampler(model, s);
    p.calls = weft_sampler_calls(sampler);
    p.predictions = room((size_t)p.calls, sizeof *p.predictions);
    must(weft_noise_create(s->seed, NULL, &noise, &err));
    p.start = first_noise(&p, s, &info, noise);
    if (s->conditioning) read_conditioning(&p.cond, s, &info);
    else p.cond.tokens = measure_prompts(model, s, &info);
    p.cond.len = (size_t)p.cond.tokens * (size_t)info.text_dim;
    p.cond.pooled_len = (size_t)info.pooled_dim;

    weft_plan *plan = make_plan(model, s, p.calls, &m);
    s->run.text_tokens = (int32_t)p.cond.tokens;
    s->run.log = warn_line;
    s->run.progress = show_progress;
    s->run.progress_user = &m;
    must(weft_run_create(plan, &s->run, &run, &err));
    watch_interrupt(run);
    if (!s->conditioning) {
        p.cond.text = encode_prompt(run, s->prompt, &p.cond, &info, &p.cond.pooled);
        if (guided) p.cond.negative = encode_prompt(run, s->negative, &p.cond, &info, &p.cond.negative_pooled);
    }

    double loop = now();
    m.steps = p.calls;
    denoise(&p, s, run, sampler, noise, &m);
    m.steps = 0;
    double looped = now() - loop;

    char *parameters = describe(s);
    write_picture(&p, s, run, parameters);
    if (s->save) save_tensors(&p, s, &info, parameters);
    watch_interrupt(NULL);
    clear_progress();
    if (!(s->flags & QUIET))
        fprintf(stderr, "weft: wrote %s: %dx%d, %d steps in %.2f s, %.2f s in all\n", s->output ? s->output : "weft.png",
                (int)s->width, (int)s->height, (int)p.calls, looped, now() - m.began);

    for (int32_t n = 0; n < p.calls; n++) free(p.predictions[n]);
    free(p.predictions);
    free(p.start);
    free(p.latents);
    free(parameters);
    free_conditioning(&p.cond);
    weft_noise_free(noise);
    weft_sampler_free(sampler);
    weft_run_free(run);
    weft_plan_free(plan);
    weft_model_free(model);
    return 0;
}

/* ------------------------------------------------------------------ explain */

static void print_bytes(double bytes)
{
    static const char *const units[] = { "bytes", "kB", "MB", "GB", "TB" };
    size_t unit = 0;
    while (bytes >= 1000.0 && unit < 4) { bytes /= 1000.0; unit++; }
    printf(unit && bytes < 100.0 ? "%.1f %s" : "%.0f %s", bytes, units[unit]);
}

static int explain(settings *s)
{
    weft_model_info info = WEFT_MODEL_INFO_INIT;
    weft_plan_info about = WEFT_PLAN_INFO_INIT;
    meter m = { .shown = !(s->flags & QUIET) && isatty(STDERR_FILENO) };
    uint64_t bytes;
    size_t needed;

    check_writable(s->output);
    weft_model *model = open_model(s->target, s, &info);
    weft_sampler *sampler = make_sampler(model, s);
    int32_t calls = weft_sampler_calls(sampler);
    set_size(s, &info);
    weft_plan *plan = make_plan(model, s, calls, &m);
    must(weft_plan_info_get(plan, &about, &err));
    must(weft_plan_text(plan, NULL, 0, &needed, &err));
    char *text = room(needed, 1);
    must(weft_plan_text(plan, text, needed, NULL, &err));
    must(weft_run_bytes(plan, &s->run, &bytes, &err));

    fputs(text, stdout);
    int halves = s->guidance > 1.0f ? 2 : 1;
    printf("\n%d steps of %s: %d calls, %d evaluations of the network%s\n", (int)s->steps, word_of(samplers, s->sampler),
           (int)calls, (int)(calls * about.branches) * halves, halves == 2 ? " with guidance" : "");
    printf("a run at %dx%d takes ", (int)s->width, (int)s->height);
    print_bytes((double)bytes);
    printf(" besides the model's ");
    print_bytes((double)info.bytes);
    putchar('\n');
    if (s->output) {
        must(weft_plan_draw(plan, s->output, &err));
        if (!(s->flags & QUIET)) fprintf(stderr, "weft: wrote %s\n", s->output);
    }
    free(text);
    weft_plan_free(plan);
    weft_sampler_free(sampler);
    weft_model_free(model);
    return 0;
}

/* ------------------------------------------------------------------ inspect */

typedef struct tag { char name[80]; double count; } tag;

/* The captions that a kohya file was trained on: {"folder": {"tag": count, ...}, ...}. Gathers the most
 * frequent ones; a scan for "name": number is all the JSON this needs, and rubbish yields no tags. */
static size_t frequent_tags(const char *json, tag *tags, size_t cap)
{
    size_t count = 0;
    for (const char *c = json; (c = strchr(c, '"')) != NULL; ) {
        tag t = { "", 0 };
        size_t n = 0;
        for (c++; *c && *c != '"'; c++) {
            if (*c == '\\' && c[1]) c++;
            if (n + 1 < sizeof t.name) t.name[n++] = *c;
        }
        if (*c == '\0') break;
        c++;
        const char *after = c + strspn(c, " \t");
        if (*after != ':') continue;
        char *end;
        t.count = strtod(after + 1, &end);
        if (end == after + 1 || !(t.count > 0)) continue;      /* a folder's name, before its brace */
        c = end;
        size_t at = count < cap ? count : cap;
        while (at > 0 && tags[at - 1].count < t.count) at--;
        if (at == cap) continue;
        size_t kept = count < cap ? count++ : cap - 1;
        memmove(tags + at + 1, tags + at, (kept - at) * sizeof *tags);
        tags[at] = t;
    }
    return count;
}

static void print_triggers(const weft_adapter *adapter)
{
    static const char *const keys[] = { "modelspec.trigger_phrase", "modelspec.usage_hint", "ss_trigger_words",
                                        "trigger_words", "trigger", "instance_prompt" };
    const char *frequency = weft_adapter_metadata(adapter, "ss_tag_frequency");
    tag tags[8];
    int found = 0;

    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        const char *value = weft_adapter_metadata(adapter, keys[i]);
        if (value && *value) printf("  trigger   %s  (%s)\n", value, keys[i]), found = 1;
    }
    size_t count = frequency ? frequent_tags(frequency, tags, sizeof tags / sizeof tags[0]) : 0;
    for (size_t i = 0; i < count; i++)
        printf("%s%s (%.0f)", i ? ", " : "  trained on  ", tags[i].name, tags[i].count);
    if (count) putchar('\n');
    if (!found && !count) printf("  trigger   the file does not say\n");
}

static void print_modules(const weft_adapter *adapter, int32_t modules)
{
    for (int32_t i = 0; i < modules; i++) {
        weft_module_info m = WEFT_MODULE_INFO_INIT;
        must(weft_adapter_module(adapter, (size_t)i, &m, &err));
        printf("  %s: rank %d, %s %g, (%" PRId64 ", %" PRId64, m.name, (int)m.rank,
               m.has_alpha ? "alpha" : "no alpha: scale", (double)(m.has_alpha ? m.alpha : m.scale), m.out, m.in);
        if (m.kernel > 1) printf(", %d, %d", (int)m.kernel, (int)m.kernel);
        printf(")\n");
    }
}

/* Whether everything in the adapter fits; what does not is listed with its reason. */
static int print_report(weft_adapter *adapter, settings *s)
{
    weft_model_info info = WEFT_MODEL_INFO_INIT;
    weft_model *model = open_model(s->against, s, &info);
    weft_report *report;

    must(weft_report_create(model, adapter, &report, &err));
    printf("  against %s (%s): %s\n", s->against, info.family_name, weft_report_line(report));
    for (size_t i = 0; i < weft_report_count(report); i++) {
        static const char *const states[] = { "?", "matched", "unmatched", "misshapen", "ignored" };
        weft_report_row row = WEFT_REPORT_ROW_INIT;
        must(weft_report_get(report, i, &row, &err));
        if (row.state == WEFT_KEY_MATCHED) continue;
        printf("    %s: %s: %s\n", states[row.state > 0 && row.state < 5 ? row.state : 0], row.key, row.reason);
    }
    int fits = weft_report_tally(report, WEFT_KEY_MATCHED) > 0 &&
               weft_report_tally(report, WEFT_KEY_UNMATCHED) + weft_report_tally(report, WEFT_KEY_MISSHAPEN) == 0;
    weft_report_free(report);
    weft_model_free(model);
    return fits;
}

static int inspect_adapter(settings *s)
{
    weft_adapter *adapter;
    weft_adapter_info info = WEFT_ADAPTER_INFO_INIT;

    must(weft_adapter_open(s->target, NULL, &adapter, &err));
    must(weft_adapter_info_get(adapter, &info, &err));
    printf("%s\n", s->target);
    printf("  adapter   %s, dialect %s\n", info.family, info.dialect);
    printf("  base      %s\n", info.base ? info.base_name : "unknown: its shapes are of no published model");
    printf("  modules   %d: %d in the UNet, %d in text encoders; %d are convolutions\n", (int)info.modules,
           (int)info.unet_modules, (int)info.text_modules, (int)info.conv_modules);
    if (info.rank_min == info.rank_max) printf("  rank      %d\n", (int)info.rank_min);
    else printf("  rank      %d to %d\n", (int)info.rank_min, (int)info.rank_max);
    printf("  size      ");
    print_bytes((double)info.bytes);
    printf(", %" PRId64 " parameters\n", info.parameters);
    print_triggers(adapter);
    if (s->flags & KEYS) print_modules(adapter, info.modules);
    int fits = s->against ? print_report(adapter, s) : 1;
    weft_adapter_free(adapter);
    return fits ? 0 : 1;
}

static int inspect_model(settings *s)
{
    static const char *const predictions[] = { "the noise", "v", "the picture" };
    weft_model_info info = WEFT_MODEL_INFO_INIT;

    if (s->against) misuse("--model is for looking at an adapter, and %s is a model", s->target);
    weft_model *model = open_model(s->target, s, &info);
    int32_t side = info.latent_size * info.image_factor;
    printf("%s\n  model     %s, diffusers folder\n  size      ", s->target, info.family_name);
    print_bytes((double)info.bytes);
    printf(", %" PRId64 " parameters\n", info.parameters);
    printf("  pictures  %dx%d, from %d latent channels of %dx%d\n", (int)side, (int)side, (int)info.latent_channels,
           (int)info.latent_size, (int)info.latent_size);
    printf("  text      %d encoder%s, chunks of %d tokens, width %d\n", (int)info.text_encoders,
           info.text_encoders == 1 ? "" : "s", (int)info.text_tokens, (int)info.text_dim);
    printf("  predicts  %s\n", info.prediction >= 0 && info.prediction < 3 ? predictions[info.prediction] : "?");
    printf("  parts     %s, %s\n", info.has_tokenizer ? "a tokenizer" : "no tokenizer", info.has_vae ? "a VAE" : "no VAE");
    printf("  layers    %" PRId64 " that adapters can address\n", info.layers);
    for (int64_t i = 0; (s->flags & KEYS) && i < info.layers; i++) {
        weft_layer_info layer = WEFT_LAYER_INFO_INIT;
        must(weft_model_layer(model, i, &layer, &err));
        printf("  %s: (%d, %d", layer.name, (int)layer.out, (int)layer.in);
        if (layer.kernel > 1) printf(", %d, %d", (int)layer.kernel, (int)layer.kernel);
        printf(")\n");
    }
    weft_model_free(model);
    return 0;
}

static int has_file(const char *folder, const char *name)
{
    size_t size = strlen(folder) + strlen(name) + 2;
    char *path = room(size, 1);
    snprintf(path, size, "%s/%s", folder, name);
    int found = access(path, F_OK) == 0;
    free(path);
    return found;
}

static int inspect(settings *s)
{
    int is_model = has_file(s->target, "model_index.json") || has_file(s->target, "unet/config.json");
    return is_model ? inspect_model(s) : inspect_adapter(s);
}

/* ------------------------------------------------------------------ main */

static const struct {
    const char *name, *usage, *help;
    int         used_by;
    int       (*run)(settings *s);
} subcommands[] = {
    { "generate", "weft generate MODEL --prompt TEXT [--adapter FILE[:WEIGHT]]... [OPTIONS]",
      "Draw a picture. MODEL is a folder in the diffusers layout.\n\n"
      "  weft generate sd15/ -p 'a lighthouse at dusk' -o plain.png\n"
      "  weft generate sd15/ -p 'a sbu cat in szn style' -o cat.png --compose klora \\\n"
      "      -a cat.safetensors --role content -a ink.safetensors --role style", GENERATE, generate },
    { "explain", "weft explain MODEL [--adapter FILE[:WEIGHT]]... [OPTIONS] [-o TABLE.png]",
      "Show what a plan will do, without drawing: which adapter acts in which layer at which\n"
      "call, how many times the network is evaluated, and the memory it takes. The options are\n"
      "those of generate that shape a plan.\n\n"
      "  weft explain sd15/ --compose klora -a cat.safetensors -a ink.safetensors -o table.png", EXPLAIN, explain },
    { "inspect", "weft inspect MODEL|ADAPTER [OPTIONS]",
      "Say what a model folder or an adapter (a file, or a folder that PEFT or diffusers wrote) holds.\n\n"
      "  weft inspect ink.safetensors --model sd15/", INSPECT, inspect },
};
enum { SUBCOMMANDS = sizeof subcommands / sizeof subcommands[0] };

static void print_help(void)
{
    printf("weft - compose LoRA adapters and draw pictures with diffusion models\n\n");
    for (int i = 0; i < SUBCOMMANDS; i++) printf("  %s\n", subcommands[i].usage);
    printf("  weft SUBCOMMAND --help\n  weft --version\n\n"
           "Methods of composition (--compose): merge sums the adapters; switch lets them take turns,\n"
           "one for each step; composite asks each for a prediction and averages; klora picks, for every\n"
           "layer and call, the content adapter or the style adapter.\n\n"
           "Exit status: 0 done, 1 failed, with one line that says why, 2 the command line is wrong.\n");
}

static int finish(int status)
{
    if (fflush(stdout) != 0 || ferror(stdout)) fail("cannot write the output: %s", strerror(errno));
    return status;
}

int main(int argc, char **argv)
{
    settings s;

    if (argc < 2) misuse("which subcommand: generate, explain or inspect?");
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0) {
        print_help();
        return finish(0);
    }
    if (strcmp(argv[1], "--version") == 0) {
        uint32_t v = weft_version();
        printf("weft %u.%u.%u\n", (unsigned)(v >> 16), (unsigned)(v >> 8 & 255), (unsigned)(v & 255));
        return finish(0);
    }
    for (int i = 0; i < SUBCOMMANDS; i++) {
        if (strcmp(argv[1], subcommands[i].name) != 0) continue;
        subcommand = subcommands[i].name;
        settings_init(&s, argc);
        parse_arguments(&s, subcommands[i].used_by, argc - 2, argv + 2);
        int status = 0;
        if (s.flags & HELP) {
            printf("usage: %s\n\n%s\n", subcommands[i].usage, subcommands[i].help);
            print_options(subcommands[i].used_by);
        } else {
            status = subcommands[i].run(&s);
        }
        free_settings(&s);
        return finish(status);
    }
    misuse("there is no subcommand '%s'", argv[1]);
}
