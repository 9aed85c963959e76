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

static void read_lines(suite *b, table *t, const char *only)
{
    char   path[1024], rounds[16], text[512], what[96], tier[24], unit[16];
    double seconds, rate;
    child  c;

    snprintf(path, sizeof path, "%s/bench_kernels", b->beside);
    snprintf(rounds, sizeof rounds, "%d", b->quick ? 1 : 3);
    const char *const argv[] = { path, "--json", "--rounds", rounds,
                     only != NULL ? "--only" : NULL, only, NULL };
    if (!child_start(&c, argv)) die("cannot start %s", path);
    while (fgets(text, sizeof text, c.from) != NULL) {
        if (sscanf(text, "{\"what\": \"%95[^\"]\", \"tier\": \"%23[^\"]\", \"seconds\": %lf, \"rate\": %lf, \"unit\": \"%15[^\"]\"",
                   what, tier, &seconds, &rate, unit) != 5)
            continue;
        double *at = is_ceiling(tier) ? NULL : place(t, what, tier);
        if (at != NULL) *at = rate;
        if (strncmp(what, "f32 multiply-add", 16) == 0) b->peak_f32 = fmax(b->peak_f32, rate * b->threads); /* not of NAN */
        if (strncmp(what, "bf16 dot", 8) == 0) b->peak_bf16 = rate * b->threads;
        fprintf(b->json, "{\"group\": \"kernels\", \"what\": \"%s\", \"tier\": \"%s\"", what, tier);
        fprintf(b->json, ", \"seconds\": %.6g, \"rate\": %.5g, \"unit\": \"%s\"}\n", seconds, rate, unit);
        if (is_ceiling(tier)) note("%s, one thread: %.4g %s", what, rate, unit);
        else if (t->tiers > 0 && strcmp(tier, t->tier[0]) == 0) note("%s", what);
    }
    if (!child_end(&c)) die("%s failed", path);
}

static void print_rates(const suite *b, const table *t, FILE *f)
{
    double peak[2] = { b->peak_f32 / b->threads, b->peak_bf16 / b->threads };

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

void group_kernels(suite *b)
{
    static table t;
    bool all = b->only == NULL || strstr(b->only, "kernels") != NULL;

    t.count = t.tiers = 0;
    read_lines(b, &t, all && !b->quick ? NULL : "ceilings");
    if (t.count > 0) print_rates(b, &t, stdout);
}
