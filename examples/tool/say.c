/* say.c - lines on stderr, progress while something takes long, and stopping in good order. */
#include <math.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tool.h"

weft_error err;
const char *subcommand = "";
static int progress_shown;                       /* the terminal's last line is ours to overwrite */

void clear_progress(void)
{
    if (progress_shown) fputs("\r\033[K", stderr);
    progress_shown = 0;
}

_Noreturn void fail(const char *format, ...)
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

_Noreturn void misuse(const char *format, ...)
{
    va_list args;
    fputs("weft: ", stderr);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fprintf(stderr, "; see weft %s%s--help\n", subcommand, *subcommand ? " " : "");
    exit(2);
}

/* The library speaks of its options' fields; here they are options of the command line, with nearly
 * the same names. */
const char *in_tool_words(char *text)
{
    static const struct { const char *theirs, *ours; } words[] = {
        { "weft_model_options.", "--" }, { "weft_concept_options.", "--" }, { "WEFT_ADD_REPLACE", "--replace" },
        { "train: epsilon", "--adam-epsilon" }, { "train: name", "--title" }, { "train: WEFT_TRAIN_", "--" }, { "WEFT_TRAIN_", "--" },
        { "unless small pictures are allowed", "or --small" },
        { "WEFT_ADD_PARTIAL", "--partial" }, { "WEFT_SAVE_HALF", "--half" },
        { "weft_adapter_options.", "--adapter-" }, { "weft_plan_add_concept()", "--concept" },
        { "weft_plan_add()", "--adapter" }, { "WEFT_ENCODE_WEIGHTS", "--weighting" },
        { "weft_plan_balance()", "--balance" }, { "weft_plan_klora()", "--compose klora" },
        { "weft_plan_switch()", "--compose switch" }, { "weft_plan_composite()", "--compose composite" },
        { "WEFT_ALIGN_FULL", "--full-attention-share" }, { "WEFT_ALIGN_NO_ATTENTION", "--align-without attention" },
        { "weft_plan_add_region()", "--region" },
        { "calls may be given others in weft_step.text", "--prompt-from says another from a call on" },
        { "fuse by GRADIENT", "fuse --by gradient" },
        { "with weft_adapter_merge()", "with weft merge --into adapter --rank" }, { "and ROUTED", "and --by routed" }, { "weft_add_options.", "--" }, { "weft_fuse_options: ", "--" },
        { "encode.", "--" }, { "to be opened as one,", "give it with --adapter," },
        { "step.latent", "the latents" }, { "step.text", "the text" },
        { "step.negative", "the negative" },
        { "weft_phase_options: first", "--phase" },
        { "open it as an adapter", "give it with --adapter" },
        { "open it as a concept", "give it with --concept" },
        { "open it as a model", "give it as MODEL" },
        { "open it as an image prompt", "give it with --ip-adapter" },
        { "WEFT_OPEN_EMULATE computes it slowly", "--emulate computes it slowly" },
        { "with WEFT_OPEN_EPSILON or WEFT_OPEN_V", "with --epsilon or --v-prediction" },
    };
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        for (char *at; (at = strstr(text, words[i].theirs)) != NULL;) {
            size_t theirs = strlen(words[i].theirs), ours = strlen(words[i].ours);
            memmove(at + ours, at + theirs, strlen(at + theirs) + 1);
            memcpy(at, words[i].ours, ours);
            for (char *c = at + ours; *c == '_' || (*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z'); c++)
                *c = *c == '_' ? '-' : *c <= 'Z' ? (char)(*c + ('a' - 'A')) : *c;
        }
    if (strncmp(text, "train: ", 7) == 0) { /* "train: min_snr is ..", and "train: no pictures were added" */
        size_t n = strspn(text + 7, "abcdefghijklmnopqrstuvwxyz_0123456789");
        for (size_t i = 0; i < n; i++)
            if (text[7 + i] == '_') text[7 + i] = '-';
        if (!is_option_of_train(text + 7, n)) memmove(text, text + 7, strlen(text + 7) + 1);
        else memmove(text, "--", 2), memmove(text + 2, text + 7, strlen(text + 7) + 1);
    }
    for (char *at = text; (at = strstr(at, "weft_")) != NULL;) { /* "weft_sampler_start: strength ..." */
        size_t n = strspn(at, "abcdefghijklmnopqrstuvwxyz_0123456789");
        if (strncmp(at + n, ": ", 2) == 0) memmove(at, at + n + 2, strlen(at + n + 2) + 1);
        else at += n;
    }
    return text;
}

void must(weft_status st)
{
    if (st != WEFT_OK) fail("%s", st == WEFT_E_CANCELLED ? "stopped" : in_tool_words(err.text));
}

void must_of(const char *option, const char *of, weft_status st)
{
    if (st != WEFT_OK) fail("%s %s: %s", option, of, in_tool_words(err.text));
}

void *zeroed(size_t count, size_t size)
{
    void *p = calloc(count ? count : 1, size);
    if (p == NULL) fail("out of memory");
    return p;
}

float *floats(size_t count) { return zeroed(count, sizeof(float)); }

/* ------------------------------------------------------------------ progress, and stopping in good order */

void put_progress(const char *line)
{
    clear_progress();
    fputs(line, stderr);
    progress_shown = 1;
}

double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

int32_t show_progress(void *user, const char *what, int64_t done, int64_t total)
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

void watch_interrupt(weft_run *run)
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

void warn_line(void *user, int32_t level, const char *line)
{
    char text[sizeof err.text];
    (void)user;
    if (level < WEFT_LOG_WARN) return;
    clear_progress();
    snprintf(text, sizeof text, "%s", line);
    fprintf(stderr, "weft: warning: %s\n", in_tool_words(text));
}

void print_bytes(double bytes)
{
    static const char *const units[] = { "bytes", "kB", "MB", "GB", "TB" };
    size_t unit = 0;
    while (bytes >= 1000.0 && unit < 4) { bytes /= 1000.0; unit++; }
    printf(unit && bytes < 100.0 ? "%.1f %s" : "%.0f %s", bytes, units[unit]);
}
