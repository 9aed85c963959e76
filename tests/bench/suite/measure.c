/* measure.c - clocks, statistics, rows and the table. */
#include "suite.h"

#include <stdarg.h>
#include <time.h>

static double seconds_of(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

span span_now(void)
{
    return (span){ seconds_of(CLOCK_MONOTONIC), seconds_of(CLOCK_PROCESS_CPUTIME_ID) };
}

span span_since(span begin)
{
    span end = span_now();
    return (span){ end.clock - begin.clock, end.busy - begin.busy };
}

void sample(samples *s, double v)
{
    if (s->n < ROUNDS_MAX) s->v[s->n++] = v;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double median_of(const samples *s)
{
    samples sorted = *s;
    if (s->n == 0) return NAN;
    qsort(sorted.v, (size_t)sorted.n, sizeof *sorted.v, by_value);
    return (sorted.v[(s->n - 1) / 2] + sorted.v[s->n / 2]) / 2;
}

double least_of(const samples *s)
{
    double v = s->n > 0 ? s->v[0] : NAN;
    for (int i = 1; i < s->n; i++) v = fmin(v, s->v[i]);
    return v;
}

double most_of(const samples *s)
{
    double v = s->n > 0 ? s->v[0] : NAN;
    for (int i = 1; i < s->n; i++) v = fmax(v, s->v[i]);
    return v;
}

void note(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fputs("  ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
}

void die(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fputs("bench: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    exit(1);
}

void must(weft_status st, const weft_error *err)
{
    if (st != WEFT_OK) die("%s: %s", weft_status_name(st), err->text);
}

/* ---- rows ----------------------------------------------------------------------------------------- */

figure figure_of(const char *group, const char *id, const char *unit)
{
    figure r = { .group = group, .measured = NAN, .low = NAN, .high = NAN, .bar = NAN, .stretch = NAN, .ours = NAN,
              .theirs = NAN };
    snprintf(r.id, sizeof r.id, "%s", id);
    snprintf(r.unit, sizeof r.unit, "%s", unit);
    return r;
}

void set_figure(figure *r, const samples *s)
{
    r->measured = median_of(s);
    r->low = least_of(s);
    r->high = most_of(s);
    r->rounds = s->n;
}

const char *verdict(const figure *r)
{
    double sign = r->more ? 1 : -1;

    if (isnan(r->measured) || isnan(r->bar)) return "-";
    if (r->rounds > 1 && strcmp(r->unit, "%") == 0 && r->low < r->bar && r->bar < r->high) return "noise";
    bool pass = sign * r->measured >= sign * r->bar; /* a stretch takes both: the bar may be the peer's own figure */
    if (pass && !isnan(r->stretch) && sign * r->measured >= sign * r->stretch) return "stretch";
    return pass ? "pass" : "miss";
}

void put_text(FILE *f, const char *s)
{
    fputc('"', f);
    for (; *s != '\0'; s++) {
        if (*s == '"' || *s == '\\') fprintf(f, "\\%c", *s);
        else if ((unsigned char)*s < 0x20) fprintf(f, "\\u%04x", (unsigned)(unsigned char)*s);
        else fputc(*s, f);
    }
    fputc('"', f);
}

void put_number(FILE *f, const char *key, double v)
{
    if (isfinite(v)) fprintf(f, ", \"%s\": %.6g", key, v);
    else fprintf(f, ", \"%s\": null", key);
}

static void write_figure(FILE *f, const figure *r)
{
    fprintf(f, "{\"group\": \"%s\", \"id\": \"%s\", \"what\": ", r->group, r->id);
    put_text(f, r->what);
    fprintf(f, ", \"unit\": \"%s\"", r->unit);
    put_number(f, "measured", r->measured);
    put_number(f, "least", r->low);
    put_number(f, "most", r->high);
    put_number(f, "bar", r->bar);
    put_number(f, "stretch", r->stretch);
    fprintf(f, ", \"better\": \"%s\", \"verdict\": \"%s\", \"rounds\": %d", r->more ? "more" : "less", verdict(r), r->rounds);
    put_number(f, "weft", r->ours);
    put_number(f, "peer", r->theirs);
    fputs(", \"peer_name\": ", f);
    put_text(f, r->versus);
    fputs("}\n", f);
    fflush(f);
}

void add_figure(suite *b, const figure *r)
{
    if (b->row_count == ROWS_MAX) die("more than %d rows", ROWS_MAX);
    figure *kept = &b->rows[b->row_count++];
    *kept = *r;
    if (!b->full) kept->bar = kept->stretch = NAN; /* bars are for true shapes */
    write_figure(b->json, kept);
    if (isnan(r->measured)) note("%s: %.4g s", r->what, r->ours);
    else note("%s: %.4g %s (%.4g to %.4g)%s%s", r->what, r->measured, r->unit, r->low, r->high,
         verdict(kept)[0] == '-' ? "" : ", ", verdict(kept)[0] == '-' ? "" : verdict(kept));
}

void one_error(suite *b, const char *group, const char *id, const char *what, double v, double bar)
{
    samples s = { 0 };
    figure  r = figure_of(group, id, "");

    sample(&s, v);
    snprintf(r.what, sizeof r.what, "%s", what);
    set_figure(&r, &s);
    r.bar = bar;
    add_figure(b, &r);
}

/* The same lines read back: ours only, so a key is found as it was written. */
static const char *value_of(const char *line, const char *key)
{
    char quoted[40];
    snprintf(quoted, sizeof quoted, "\"%s\": ", key);
    const char *at = strstr(line, quoted);
    return at != NULL ? at + strlen(quoted) : NULL;
}

static void read_text(const char *line, const char *key, char *text, size_t cap)
{
    const char *at = value_of(line, key);
    if (at != NULL && *at == '"') snprintf(text, cap, "%.*s", (int)strcspn(at + 1, "\""), at + 1);
}

static double read_number(const char *line, const char *key)
{
    const char *at = value_of(line, key);
    return at == NULL || strncmp(at, "null", 4) == 0 ? NAN : strtod(at, NULL);
}

void read_figures(suite *b, FILE *f)
{
    char line[1024], text[16] = "";

    while (fgets(line, sizeof line, f) != NULL && b->row_count < ROWS_MAX) {
        if (strncmp(line, "{\"group\": \"machine\"", 19) == 0) b->processor = strstr(line, "\"processor time\"") != NULL;
        if (value_of(line, "id") == NULL) continue;
        figure *r = &b->rows[b->row_count++];
        *r = figure_of("", "", "");
        read_text(line, "id", r->id, sizeof r->id);
        read_text(line, "what", r->what, sizeof r->what);
        read_text(line, "unit", r->unit, sizeof r->unit);
        read_text(line, "peer_name", r->versus, sizeof r->versus);
        read_text(line, "better", text, sizeof text);
        r->more = strcmp(text, "more") == 0;
        r->measured = read_number(line, "measured");
        r->low = read_number(line, "least");
        r->high = read_number(line, "most");
        r->bar = read_number(line, "bar");
        r->stretch = read_number(line, "stretch");
        r->rounds = (int)read_number(line, "rounds");
        r->ours = read_number(line, "weft");
        r->theirs = read_number(line, "peer");
    }
}

static void cell(FILE *f, int width, double v, const char *unit)
{
    char text[32] = "";
    if (!isnan(v)) snprintf(text, sizeof text, "%.3g%s", v, unit);
    if (!isnan(v) && fabs(v) >= 1000) snprintf(text, sizeof text, "%.0f%s", v, unit);
    fprintf(f, " %*s |", width, text);
}

/* The same lines are a table in Markdown. */
void print_table(const suite *b, FILE *f)
{
    static const char words[] = "| %-56s | %8s | %-22s | %8s | %9s | %-15s | %8s | %8s | %11s | %-7s |\n";

    fprintf(f, words, "", "weft", "peer", "peer's", "measured", "spread", "bar", "stretch", "bar reached", "verdict");
    fprintf(f, words, "---", "---:", "---", "---:", "---:", "---",
            "---:", "---:", "---:", "---");
    for (int i = 0; i < b->row_count; i++) {
        const figure *r = &b->rows[i];
        const char   *unit = strcmp(r->unit, "GFLOP/s") == 0 ? "" : r->unit;
        char          spread[32] = "";
        double        of = r->more ? r->measured / r->bar : r->bar / r->measured;

        if (!isnan(r->low) && r->rounds > 1) snprintf(spread, sizeof spread, "%.3g to %.3g", r->low, r->high);
        fprintf(f, "| %-56s |", r->what);
        cell(f, 8, r->ours, "s");
        fprintf(f, " %-22s |", r->versus);
        cell(f, 8, r->theirs, "s");
        cell(f, 9, r->measured, unit);
        fprintf(f, " %-15s |", spread);
        cell(f, 8, r->bar, unit);
        cell(f, 8, r->stretch, unit);
        cell(f, 11, r->measured > 0 && !isnan(r->bar) ? of : NAN, "");
        fprintf(f, " %-7s |\n", verdict(r));
    }
}
