/* suite.h - what the groups of the benchmark share: settings, clocks, rows of the table, a model at work, the peer.
 *
 * A group measures and adds rows. A row is one figure with what bounds it: a bar that the project has set itself, a
 * stretch beyond it, and the peer that ran in the same rounds. Rows go to a file of JSON lines at once, and to the
 * table and the picture at the end. */
#ifndef SUITE_H
#define SUITE_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>

#include "weft/weft.h"

enum { ROUNDS_MAX = 32, ROWS_MAX = 128, LORAS = 4 };

/* ---- clocks and statistics ---------------------------------------------------------------------- */

/* Seconds: by the clock; of the processor, all threads together. */
typedef struct span { double clock, busy; } span;
span   span_now(void);
span   span_since(span begin);

typedef struct samples { int n; double v[ROUNDS_MAX]; } samples;
void   sample(samples *s, double v);
double median_of(const samples *s);
double least_of(const samples *s);
double most_of(const samples *s);

/* ---- settings ------------------------------------------------------------------------------------ */

typedef struct peer peer;

typedef struct figure {
    const char *group;
    char   id[40], what[72];
    char   unit[12];          /* of measured, bar and stretch: "s", "x", "%", "MB", "GFLOP/s"        */
    double measured, low, high; /* the median over the rounds, the least and the most                */
    double bar, stretch;      /* NAN: none                                                           */
    bool   more;              /* more is better                                                      */
    double ours, theirs;      /* median seconds of both sides, NAN: none                             */
    char   versus[24];        /* the peer's name                                                     */
    int    rounds;
} figure;

typedef struct suite {
    const char *self, *beside;  /* this program, and the folder that it lies in                      */
    const char *model, *bundled;
    const char *dir;            /* where everything made goes                                        */
    const char *python;
    const char *single;         /* the model as a single file, for stable-diffusion.cpp              */
    const char *source;         /* tests/bench: the scripts                                          */
    const char *before;         /* rows of an earlier version, for the picture of time               */
    const char *only;
    const char *drawn;          /* results to draw again; NULL: measure                              */
    const char *lora[LORAS];
    int32_t     threads, size, small;
    int         rounds, steps;  /* steps of a measurement: the small model's are short               */
    bool        quick, sdxl, processor;
    bool        full;           /* the model has the shapes of SD1.5, for which the bars are         */
    bool        as_before;      /* time: with the products of 0.1, for that picture                      */
    bool        bf16;           /* the processor has it                                              */
    double      peak_f32, peak_bf16; /* measured, GFLOP/s of all threads at once; NAN: not measured */
    double      one_f32, one_bf16; /* and of one thread alone                                        */
    bool        drew_targets, wrote_time; /* the pictures that this run wrote                        */
    peer       *worker;         /* PyTorch; NULL: it is not there                                    */
    peer       *sdcpp;          /* stable-diffusion.cpp                                              */
    FILE       *json;
    figure      rows[ROWS_MAX];
    int         row_count;
    figure      rates[4];       /* rows whose bar is the ceiling: they wait for its last measurement */
    int         rate_count;
} suite;

/* What is judged: seconds by the clock, or of the processor where the machine is not at rest. */
static inline double judged(const suite *b, span s)
{
    return b->processor ? s.busy : s.clock;
}

void note(const char *format, ...) __attribute__((format(printf, 1, 2))); /* progress, on stderr */
void die(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));
void must(weft_status st, const weft_error *err);

/* ---- rows ---------------------------------------------------------------------------------------- */

figure figure_of(const char *group, const char *id, const char *unit);
void   set_figure(figure *r, const samples *s);
void   add_figure(suite *b, const figure *r);
/* A row of one number that was computed once. */
void   one_error(suite *b, const char *group, const char *id, const char *what, double v, double bar);
/* "pass", "miss", "stretch"; "-" where there is no bar; "noise" where a share of a step, which is a small difference
 * of two large figures, spread over its bar */
const char *verdict(const figure *r);
/* Rows of a file of JSON lines that was written before. */
void   read_figures(suite *b, FILE *f);
void   print_table(const suite *b, FILE *f);
/* A JSON text, quoted. */
void   put_text(FILE *f, const char *s);
/* A number, or null where it is none. */
void   put_number(FILE *f, const char *key, double v);

/* ---- a model at work ------------------------------------------------------------------------------ */

/* A run with the inputs of a guided step: the same numbers for every side that has the same shapes. */
typedef struct side {
    weft_model     *model;     /* the caller's                                                       */
    weft_plan      *plan;
    weft_run       *run;
    weft_run_info   info;
    weft_model_info about;
    weft_step       step;
    weft_text       text[2][4];
    int32_t         text_tokens;
    float          *latent, *out, *image;
} side;

weft_model *open_model(const char *path, bool bf16);
weft_plan  *plan_of(weft_model *model, weft_adapter *const *adapter, int count, int32_t path, int32_t calls);
/* Takes the plan. */
void side_open(side *s, weft_model *model, weft_plan *plan, int32_t size, int32_t threads, int32_t tile);
void side_close(side *s);
/* Mean of some steps. */
span side_steps(side *s, int steps);
span side_decode(side *s);
/* Both prompts. */
span side_encode(side *s);
/* The token ids that side_encode() takes where the model has no tokenizer. */
void token_ids(int32_t ids[77], int which);
float *noise_of(size_t n, uint64_t seed);
double apart(const float *a, const float *b, size_t n); /* max|a - b| / max|b| */

/* ---- other programs ------------------------------------------------------------------------------- */

typedef struct child { pid_t pid; FILE *to, *from; } child;
/* Start a program with its standard input and output at hand. */
bool child_start(child *c, const char *const argv[]);
/* Wait for its end; was it a good one? */
bool child_end(child *c);

/* ---- the peer: PyTorch, diffusers and PEFT in one process, driven by lines (peer.py) ------------------ */

peer *peer_start(const char *python, const char *script);
void  peer_stop(peer *p);
/* Send one line, its words parted by tabs; the answer's words come back. False: it could not, as it says. */
bool  peer_ask(peer *p, char *answer, size_t cap, const char *format, ...) __attribute__((format(printf, 4, 5)));
/* The same where the answer is two numbers. */
bool  peer_time(peer *p, span *s, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* Writes a side's inputs where the peer reads them, and says what it would ask for a step. */
void  peer_inputs(const suite *b, const side *s, char *words, size_t cap);
/* What it wrote, n floats, to be freed; NULL: it did not. */
float *peer_result(const char *path, size_t n);

/* ---- groups ---------------------------------------------------------------------------------------- */

void group_kernels(suite *b);
/* The ceilings of all threads, once more: the larger ones are kept. */
void measure_ceilings(suite *b);
/* Adds the rows whose bar they are. */
void add_rates(suite *b);
void group_steps(suite *b);
void group_adapters(suite *b);
void group_memory(suite *b);
void group_startup(suite *b);
void group_threads(suite *b);
void group_bundled(suite *b);
void group_time(suite *b);
void group_sdcpp(suite *b);
void group_train(suite *b);
/* The picture of time again, from files of JSON lines. */
void draw_time_of(suite *b, const char *path);
void group_sdxl(suite *b);
/* What a child of the suite does: "memory" or "startup". */
int  child_memory(int argc, char **argv);
int  child_startup(int argc, char **argv);
int  child_train(int argc, char **argv);
/* Numbers that a child prints. */
bool ask_child(const char *const argv[], double *v, int count);
/* Kilobytes of a line of /proc/self/status; NAN where there is none. */
double status_kb(const char *key);

/* Pictures, drawn with what the examples draw with. */
enum { TIME_BARS = 8, TIME_PARTS = 12 };
typedef struct time_bar {
    char   what[24], label[40];          /* "step", "OpenBLAS tier"                                  */
    double seconds[TIME_PARTS];          /* of each part                                             */
} time_bar;
extern const char *const time_parts[TIME_PARTS]; /* NULL after the last */
/* False, and nothing written, where no row has a bar or a peer. */
bool draw_targets(const suite *b, const char *path);
void draw_times(const time_bar *bars, int count, const char *title, const char *path);

#endif
