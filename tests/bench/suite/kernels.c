/* kernels.c - the ceilings, and single products, convolutions and attentions under each tier: bench_kernels, in a table.
 *
 * It goes by the processor time of one thread. */
#include "suite.h"

enum { LINES_MAX = 64, TIERS_MAX = 8 };

typedef struct line { char what[96]; double rate[TIERS_MAX]; } line;

typedef struct table { line lines[LINES_MAX]; int count; char tier[TIERS_MAX][24]; int tiers; } table;

static double *place(table *t, const char *what, const char *tier)
{
    int i = 0, k = 0;

    while (i < t->count && strcmp(t->lines[i].what, what) != 0) i++;
    while (k < t->tiers && strcmp(t->tier[k], tier) != 0) k++;
    if (i == LINES_MAX || k == TIERS_MAX) return NULL;
    if (i == t->count) {
        snprintf(t->lines[i].what, sizeof t->lines[i].what, "%s", what);
        for (int j = 0; j < TIERS_MAX; j++) t->lines[i].rate[j] = NAN;
        t->count++;
    }
    if (k == t->tiers) snprintf(t->tier[t->tiers++], sizeof t->tier[0], "%s", tier);
    return &t->lines[i].rate[k];
}

static bool is_ceiling(const char *tier)
{
    return strcmp(tier, "registers") == 0 || strcmp(tier, "memcpy") == 0 || strcmp(tier, "memory") == 0;
}

/* The table may be NULL. A ceiling that was measured before is kept where it is the larger one. */
static void read_lines(suite *b, table *t, const char *only, int32_t threads)
{
    char   path[1024], rounds[16], count[16], text[512], what[96], tier[24], unit[16];
    double seconds, rate;
    child  c;

    snprintf(path, sizeof path, "%s/bench_kernels", b->beside);
    snprintf(rounds, sizeof rounds, "%d", b->quick ? 1 : 3);
    snprintf(count, sizeof count, "%d", (int)threads);
    const char *const argv[] = { path, "--json", "--rounds", rounds, "--threads", count,
                                 only != NULL ? "--only" : NULL, only, NULL };
    if (!child_start(&c, argv)) die("cannot start %s", path);
    while (fgets(text, sizeof text, c.from) != NULL) {
        if (sscanf(text, "{\"what\": \"%95[^\"]\", \"tier\": \"%23[^\"]\", \"seconds\": %lf, \"rate\": %lf, \"unit\": \"%15[^\"]\"",
                   what, tier, &seconds, &rate, unit) != 5)
            continue;
        double *at = t == NULL || is_ceiling(tier) ? NULL : place(t, what, tier);
        bool    f32 = strncmp(what, "f32 multiply-add", 16) == 0, bf16 = strncmp(what, "bf16 dot", 8) == 0;
        double *one = f32 ? &b->one_f32 : &b->one_bf16, *all = f32 ? &b->peak_f32 : &b->peak_bf16;
        if (at != NULL) *at = rate;
        if ((f32 || bf16) && threads == 1) *one = fmax(*one, rate); /* not of NAN */
        if ((f32 || bf16) && threads == b->threads) *all = fmax(*all, rate * threads);
        fprintf(b->json, "{\"group\": \"kernels\", \"what\": \"%s\", \"tier\": \"%s\", \"threads\": %d", what, tier,
                (int)threads);
        fprintf(b->json, ", \"seconds\": %.6g, \"rate\": %.5g, \"unit\": \"%s\"}\n", seconds, rate, unit);
        if (is_ceiling(tier)) note("%s, each of %d threads: %.4g %s", what, (int)threads, rate, unit);
        else if (t != NULL && t->tiers > 0 && strcmp(tier, t->tier[0]) == 0) note("%s", what);
    }
    if (!child_end(&c)) die("%s failed", path);
}

static void print_rates(const suite *b, const table *t, FILE *f)
{
    double peak[2] = { b->one_f32, b->one_bf16 };

    fprintf(f, "\nGFLOP/s of one thread, and how much of its ceiling that is\n\n| %-40s |", "");
    for (int k = 0; k < t->tiers; k++) fprintf(f, " %19s |", t->tier[k]);
    fprintf(f, "\n| %-40s |", "---");
    for (int k = 0; k < t->tiers; k++) fprintf(f, " %19s |", "---:");
    for (int i = 0; i < t->count; i++) {
        fprintf(f, "\n| %-40s |", t->lines[i].what);
        for (int k = 0; k < t->tiers; k++) {
            double rate = t->lines[i].rate[k];
            if (isnan(rate)) fprintf(f, " %19s |", "");
            else fprintf(f, " %7.1f, %7.0f %% |", rate, 100 * rate / peak[strstr(t->tier[k], "bf16") != NULL]);
        }
    }
    fprintf(f, "\n");
}

void measure_ceilings(suite *b)
{
    read_lines(b, NULL, "registers", b->threads);
}

void group_kernels(suite *b)
{
    static table t;

    t.count = t.tiers = 0;
    read_lines(b, &t, b->quick ? "ceilings" : NULL, 1);
    if (t.count == 0) return;
    read_lines(b, NULL, "registers", 1); /* again: a moment when the machine did something else halves them */
    print_rates(b, &t, stdout);
}
