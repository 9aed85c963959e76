/* train.c - learn from pictures: the loop over the steps, and what stands around it.
 *
 * A step is one call of the library. Around it: what it costs is said before the first one, the loss
 * is shown and kept in a file of numbers, checkpoints are written by the clock, pictures are drawn
 * now and then. Ctrl-C stops the step that runs, which changes nothing, and leaves a checkpoint; the
 * same command line with --resume goes on from it. A checkpoint that cannot be written (a full disk)
 * is a warning: the one before it is whole, and the next may succeed.
 *
 * A checkpoint goes when what was learned is written: one that is there belongs to a training that
 * was stopped, and is never written over by another one. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../draw/draw.h"
#include "tool.h"

static const double CHECKPOINT_SECONDS = 60, CHECKPOINT_SHARE = 0.05, LINE_SECONDS = 10;
enum { CLASS_COUNT = 100 };

typedef struct training {
    settings           *s;
    weft_trainer       *trainer;
    weft_train_options  how;                         /* with all that was not said */
    easel_use           easel;
    char               *checkpoint, *curve, *numbers, *samples;
    double             *loss;                        /* [done - before]: of the steps behind `before`    */
    int64_t             done, before, begun, room;   /* begun: steps that were done before this time     */
    double              mean, weight;                /* of the loss                                      */
    double              started, said, kept;         /* when: first step, last line, last checkpoint     */
    double              keeping;                     /* seconds that the last checkpoint took            */
    meter               meter;
    int                 looping;                     /* steps are shown, and not pictures being encoded  */
    int                 has_checkpoint;
    char                doing[DOING];                /* beside steps: "drawing picture 3 of 100 of the class" */
} training;

/* ------------------------------------------------------------------ stopping */

static volatile sig_atomic_t stopping;

static void on_stop(int signal_number)
{
    (void)signal_number;
    stopping = 1;
}

/* A second one ends the program. */
static void watch_stop(void)
{
    static const int signals[] = { SIGINT, SIGTERM };

    for (size_t i = 0; i < sizeof signals / sizeof signals[0]; i++) {
        struct sigaction action;
        sigaction(signals[i], NULL, &action);
        if (action.sa_handler == SIG_IGN) continue;
        memset(&action, 0, sizeof action);
        action.sa_handler = on_stop;
        action.sa_flags = (int)SA_RESETHAND;
        sigaction(signals[i], &action, NULL);
    }
}

/* ------------------------------------------------------------------ progress */

static void print_time(char *text, size_t size, double seconds)
{
    if (seconds < 90) snprintf(text, size, "%.0f s", seconds);
    else if (seconds < 5400) snprintf(text, size, "%.0f min", seconds / 60);
    else snprintf(text, size, "%.1f h", seconds / 3600);
}

/* "step 120 of 800, loss 0.0931 (0.1042), 4.2 steps/s, 3 min to go"; part of a step is on its way. */
static void describe_progress(const training *t, double part, char *text, size_t size)
{
    double spent = now() - t->started, steps = (double)(t->done - t->begun) + part, left = (double)t->how.steps - (double)t->done - part;
    size_t n = (size_t)snprintf(text, size, "step %" PRId64 " of %d", t->done, (int)t->how.steps);
    char   time[32];

    if (t->done > t->before && n < size)
        n += (size_t)snprintf(text + n, size - n, ", loss %.4f (mean %.4f)", t->loss[t->done - t->before - 1], t->mean);
    if (!(spent > 0.5) || !(steps > 0)) return;
    double each = spent / steps;
    if (n < size)
        n += (size_t)snprintf(text + n, size - n, each > 1 ? ", %.1f s a step" : ", %.1f steps/s", each > 1 ? each : 1 / each);
    print_time(time, sizeof time, left * each);
    if (n < size && left > 0) snprintf(text + n, size - n, ", %s to go", time);
}

/* A line that takes the place of the last one, where there is a terminal; else one now and then. */
static void show_line(training *t, double part)
{
    char   text[256];
    double at = now();

    if (t->s->flags & QUIET) return;
    if (t->meter.shown ? at - t->meter.last < 0.1 : at - t->said < LINE_SECONDS || part > 0) return;
    if (t->doing[0] != '\0') snprintf(text, sizeof text, "%s", t->doing);
    else describe_progress(t, part, text, sizeof text);
    if (t->meter.shown) {
        t->meter.last = at;
        put_progress(text);
    } else {
        t->said = at;
        fprintf(stderr, "weft: %s\n", text);
    }
}

static int32_t report(void *user, const char *what, int64_t done, int64_t total)
{
    training *t = user;

    if (stopping) return 1;
    if (t->doing[0] != '\0') show_line(t, 0);
    else if (t->looping) show_line(t, total > 0 && done < total ? (double)done / (double)total : 0);
    else show_progress(&t->meter, what, done, total);
    return 0;
}

/* ------------------------------------------------------------------ names */

/* "cat.safetensors", ".loss.png": "cat.loss.png". To be freed. */
static char *beside(const char *path, const char *ending)
{
    size_t n = strlen(path), room;
    static const char format[] = ".safetensors";

    while (n > 1 && path[n - 1] == '/') n--;
    if (n > sizeof format && strncmp(path + n - (sizeof format - 1), format, sizeof format - 1) == 0) n -= sizeof format - 1;
    room = n + strlen(ending) + 1;
    char *name = zeroed(room, 1);
    snprintf(name, room, "%.*s%s", (int)n, path, ending);
    return name;
}

static char *copy_of(const char *text)
{
    return strcpy(zeroed(strlen(text) + 1, 1), text);
}

static void print_word(FILE *f, const char *word)
{
    if (*word != '\0' && word[strspn(word, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-+=./,:%@")] == '\0') {
        fputs(word, f);
        return;
    }
    fputc('\'', f);
    for (const char *c = word; *c; c++)
        if (*c == '\'') fputs("'\\''", f);
        else fputc(*c, f);
    fputc('\'', f);
}

/* The command line that goes on. */
static void print_resume(FILE *f, const settings *s)
{
    fputs("weft", f);
    for (int i = 0; i < s->word_count; i++) {
        fputc(' ', f);
        print_word(f, s->words[i]);
    }
    if (!(s->flags & RESUME)) fputs(" --resume", f);
}

/* ------------------------------------------------------------------ the numbers of all steps */

static void keep_loss(training *t, double loss)
{
    if (t->done - t->before == t->room) {
        t->room = t->room ? 2 * t->room : 1024;
        double *more = realloc(t->loss, (size_t)t->room * sizeof *more);
        if (more == NULL) fail("out of memory");
        t->loss = more;
    }
    t->mean = draw_smooth(t->mean, &t->weight, loss);
    t->loss[t->done++ - t->before] = loss;
}

/* Those up to a checkpoint. Where they are not all there, the curve begins at the checkpoint. */
static void read_numbers(training *t, int64_t steps)
{
    FILE   *f = fopen(t->numbers, "r");
    char    line[128];
    int64_t step;
    double  loss;

    while (f != NULL && t->done < steps && fgets(line, sizeof line, f) != NULL)
        if (sscanf(line, "%" SCNd64 ",%lf", &step, &loss) == 2 && step == t->done + 1) keep_loss(t, loss);
    if (f != NULL) fclose(f);
    if (t->done == steps) return;
    t->done = t->before = steps;
    t->mean = t->weight = 0;
}

/* They appear whole, or not at all. */
static int write_numbers(const training *t)
{
    char *part = beside(t->numbers, ".part");
    FILE *f = fopen(part, "w");
    int   ok = f != NULL && fputs("step,loss\n", f) >= 0;

    for (int64_t i = t->before; i < t->done && ok; i++)
        ok = fprintf(f, "%" PRId64 ",%.9g\n", i + 1, t->loss[i - t->before]) > 0;
    if (f != NULL && fclose(f) != 0) ok = 0;
    if (ok && rename(part, t->numbers) != 0) ok = 0;
    if (!ok) unlink(part);
    free(part);
    return ok;
}

/* ------------------------------------------------------------------ checkpoints */

static int write_checkpoint(training *t)
{
    double begun = now();

    if (!write_numbers(t)) warn_line(NULL, WEFT_LOG_WARN, "the losses so far could not be written: the curve will begin later");
    weft_status st = weft_trainer_checkpoint(t->trainer, t->checkpoint, &err);
    t->kept = now();
    t->keeping = t->kept - begun;
    if (st == WEFT_OK) t->has_checkpoint = 1;
    else warn_line(NULL, WEFT_LOG_WARN, err.text);
    return st == WEFT_OK;
}

/* By the clock it is never more than a small share of the time. */
static int is_checkpoint_due(const training *t)
{
    int32_t every = t->s->train.checkpoint_every;

    if (t->done >= t->how.steps) return 0;
    if (every != NOTHING_SAID) return every > 0 && t->done % every == 0;
    double pause = t->keeping / CHECKPOINT_SHARE;
    return now() - t->kept >= (pause > CHECKPOINT_SECONDS ? pause : CHECKPOINT_SECONDS);
}

/* Says how to go on, and ends the program: as it was asked to by --stop-after, or in its middle. */
static _Noreturn void stop(training *t, int status)
{
    if (t->done > t->begun && !write_checkpoint(t)) fail("stopped at step %" PRId64 ", and there is no checkpoint of it", t->done);
    clear_progress();
    fprintf(stderr, "weft: stopped at step %" PRId64 " of %d", t->done, (int)t->how.steps);
    if (t->has_checkpoint) {
        fputs("; to go on: ", stderr);
        print_resume(stderr, t->s);
    }
    fputc('\n', stderr);
    exit(status);
}

/* ------------------------------------------------------------------ pictures on the way */

/* A recipe learns an adapter, words, or both. */
static weft_status take_learned(const training *t, weft_adapter **adapter, weft_concept **concept)
{
    weft_status st = weft_trainer_adapter(t->trainer, adapter, &err);

    if (st != WEFT_OK) *adapter = NULL;
    if (st != WEFT_OK && st != WEFT_E_UNSUPPORTED) return st;
    st = weft_trainer_concept(t->trainer, concept, &err);
    if (st != WEFT_OK) *concept = NULL;
    return st == WEFT_E_UNSUPPORTED && *adapter != NULL ? WEFT_OK : st;
}

/* Of the step that was done last: 000100-1.png of the first prompt. */
static void draw_samples(training *t)
{
    const train_use *u = &t->s->train;
    size_t           room = strlen(t->samples) + 64;
    char            *path = zeroed(room, 1);
    weft_adapter    *adapter = NULL;
    weft_concept    *concept = NULL;
    int              looping = t->looping;

    t->looping = 0;
    weft_status st = take_learned(t, &adapter, &concept);
    for (size_t i = 0; i < u->sample_count && st == WEFT_OK; i++) {
        snprintf(path, room, "%s/%06" PRId64 "-%zu.png", t->samples, t->done, i + 1);
        snprintf(t->doing, sizeof t->doing, "step %" PRId64 " of %d, drawing sample %zu", t->done, (int)t->how.steps, i + 1);
        st = draw_learned(&t->easel, adapter, concept, u->sample_prompts[i], path);
    }
    if (st != WEFT_OK && st != WEFT_E_CANCELLED) {
        char line[sizeof err.text + 64];
        snprintf(line, sizeof line, "no sample of step %" PRId64 ": %s", t->done, err.text);
        warn_line(NULL, WEFT_LOG_WARN, line);
    }
    weft_adapter_free(adapter);
    weft_concept_free(concept);
    free(path);
    t->doing[0] = '\0';
    t->looping = looping;
}

/* ------------------------------------------------------------------ before the first step */

static void prepare_easel(training *t, weft_model *model, const weft_model_info *info)
{
    settings *s = t->s;
    int32_t   f = info->image_factor;

    if (s->width % f || s->height % f)
        misuse("--size %dx%d: this model's images come in multiples of %d", (int)s->width, (int)s->height, (int)f);
    s->train.how.width = s->width;
    s->train.how.height = s->height;
    t->easel = (easel_use){ model, s->width, s->height, f, s->seed, t->doing, report, t };
}

/* A picture without a caption is told by the option that would give it one. */
static void add_folder(training *t, const char *folder, const char *prompt, int32_t kind, const char *option)
{
    static const char nothing[] = "no prompt was given for all";
    weft_status st = weft_trainer_add_folder(t->trainer, folder, prompt, kind, &err);
    char       *at = st == WEFT_OK ? NULL : strstr(err.text, nothing);

    if (at != NULL && at[sizeof nothing - 1] == '\0') fail("%.*sno %s was given", (int)(at - err.text), err.text, option);
    must(st);
}

/* The class's pictures: those of the folder, and what the model draws where they are too few. */
static void add_class(training *t)
{
    train_use *u = &t->s->train;
    char      *own = u->class_data == NULL ? beside(t->s->output, "-class") : NULL;
    int32_t    wanted = u->class_count ? u->class_count : u->class_data ? 0 : CLASS_COUNT;

    if (u->class_data == NULL && u->class_prompt == NULL) {
        free(own);
        return;
    }
    if (own != NULL) u->class_data = own;
    if (wanted > 0) {
        int32_t drawn = draw_class(&t->easel, u->class_data, u->class_prompt, wanted);
        clear_progress();
        if (drawn > 0 && !(t->s->flags & QUIET)) fprintf(stderr, "weft: drew %d pictures of the class into %s\n", (int)drawn, u->class_data);
    }
    add_folder(t, u->class_data, u->class_prompt, WEFT_PICTURE_CLASS,
               find_recipe(t->s->target)->recipe == WEFT_RECIPE_ZIPLORA ? "--style-prompt" : "--class-prompt");
    if (own != NULL) u->class_data = NULL;
    free(own);
}

static void open_sources(train_use *u, const settings *s)
{
    const struct { const char *path; weft_adapter **out; } sources[] = {
        { u->content, &u->how.content }, { u->style, &u->how.style },
    };
    for (size_t i = 0; i < sizeof sources / sizeof sources[0]; i++) {
        weft_adapter_options how = s->opening;
        if (sources[i].path == NULL) continue;
        how.flags |= how_to_open(s, sources[i].path);
        must(weft_adapter_open(sources[i].path, &how, sources[i].out, &err));
    }
}

static void print_start(const training *t)
{
    static const word courses[] = { { "constant", WEFT_RATES_CONSTANT }, { "cosine", WEFT_RATES_COSINE },
                                    { "linear", WEFT_RATES_LINEAR }, { NULL, 0 } };
    const weft_train_options *o = &t->how;
    weft_trainer_info         about = WEFT_TRAINER_INFO_INIT;

    must(weft_trainer_get_info(t->trainer, &about, &err));
    printf("%s: %" PRId64 " numbers", weft_recipe_name(about.recipe), about.parameters);
    if (about.layers > 0) printf(" of %d layer%s", (int)about.layers, about.layers == 1 ? "" : "s");
    if (o->rank > 0) printf(", rank %d, alpha %g", (int)o->rank, o->alpha);
    printf("\n%d picture%s", (int)about.pictures, about.pictures == 1 ? "" : "s");
    if (about.class_pictures > 0) printf(" and %d of the %s", (int)about.class_pictures, about.recipe == WEFT_RECIPE_ZIPLORA ? "style" : "class");
    printf(" at %dx%d; %d step%s of %d", (int)o->width, (int)o->height, (int)o->steps, o->steps == 1 ? "" : "s", (int)o->batch);
    if (o->accumulate > 1) printf(" x %d", (int)o->accumulate);
    printf(", %s, rate %g", o->optimiser == WEFT_OPTIMISER_SGD ? "sgd" : "adamw", o->rate);
    if (o->text_rate > 0 && o->text_rate != o->rate && o->flags & WEFT_TRAIN_TEXT) printf(" (text %g)", o->text_rate);
    if (o->token_rate > 0 && o->tokens != NULL) printf(" (words %g)", o->token_rate);
    printf(" %s, seed %" PRIu64 "\nmemory: ", word_of(courses, o->rates), o->seed);
    print_bytes((double)about.step_bytes);
    printf(" for a step, ");
    print_bytes((double)about.state_bytes);
    printf(" of state, ");
    print_bytes((double)about.weight_bytes);
    printf(" of weights, ");
    print_bytes((double)about.cache_bytes);
    printf(" of latents and texts, beside the model\n");
    fflush(stdout);
}

static int exists(const char *path)
{
    struct stat about;
    return stat(path, &about) == 0;
}

/* Pictures are opened and checked before the model draws any, and long before the first step. */
static void begin(training *t, weft_model *model)
{
    settings  *s = t->s;
    train_use *u = &s->train;
    const recipe_use *r = find_recipe(s->target);

    t->said = now();
    u->how.recipe = r->recipe;
    u->how.seed = s->seed;
    u->how.log = warn_line;
    u->how.progress = report;
    u->how.progress_user = t;
    if (u->prompt == NULL && u->how.tokens != NULL) u->prompt = r->recipe == WEFT_RECIPE_TEXTUAL_INVERSION ? "{object}" : "a photo of {}";
    open_sources(u, s);
    must(weft_trainer_create(model, &u->how, &t->trainer, &err));
    weft_adapter_free(u->how.content);
    weft_adapter_free(u->how.style);
    add_folder(t, u->data, u->prompt, WEFT_PICTURE_INSTANCE, "--prompt");
    watch_stop();
    add_class(t);
    must(weft_trainer_prepare(t->trainer, &err));
    clear_progress();
    must(weft_trainer_get_options(t->trainer, &t->how, &err));
    if (s->flags & RESUME) {
        weft_trainer_info about = WEFT_TRAINER_INFO_INIT;
        must(weft_trainer_resume(t->trainer, t->checkpoint, &err));
        must(weft_trainer_get_info(t->trainer, &about, &err));
        if (about.step > t->how.steps)
            fail("--steps is %d, and %s is of step %" PRId64 " already", (int)t->how.steps, t->checkpoint, about.step);
        read_numbers(t, about.step);
        t->has_checkpoint = 1;
    }
    t->begun = t->done;
    if (s->flags & QUIET) return;
    print_start(t);
    if (s->flags & RESUME) printf("going on from step %" PRId64 "\n", t->done), fflush(stdout);
}

/* ------------------------------------------------------------------ the loop */

static void run_steps(training *t)
{
    const train_use *u = &t->s->train;
    weft_train_step  step = WEFT_TRAIN_STEP_INIT;

    if (u->sample_every && mkdir(t->samples, 0777) != 0 && errno != EEXIST)
        fail("cannot make %s: %s", t->samples, strerror(errno));
    t->started = t->said = t->kept = now();
    t->looping = 1;
    while (t->done < t->how.steps) {
        weft_status st = stopping ? WEFT_E_CANCELLED : weft_trainer_step(t->trainer, &step, &err);
        if (st == WEFT_E_CANCELLED) stop(t, 1);
        must(st);
        keep_loss(t, step.loss);
        show_line(t, 0);
        if (u->sample_every && (t->done % u->sample_every == 0 || t->done == t->how.steps)) draw_samples(t);
        if (stopping) stop(t, 1);
        if (u->stop_after && t->done - t->begun >= u->stop_after && t->done < t->how.steps) stop(t, 0);
        if (is_checkpoint_due(t)) write_checkpoint(t);
    }
    t->looping = 0;
}

/* What was learned is written first: until it is, the checkpoint stays. */
static void finish(training *t)
{
    settings   *s = t->s;
    const char *title = s->target;
    char        line[256], time[32];

    clear_progress();
    if (weft_trainer_save(t->trainer, s->output, s->dialect, (s->flags & HALF) != 0, &err) != WEFT_OK) {
        char why[sizeof err.text];
        snprintf(why, sizeof why, "%s", err.text);
        if (!write_checkpoint(t)) fail("%s", in_tool_words(why));
        fprintf(stderr, "weft: %s; the training is in the checkpoint: ", in_tool_words(why));
        print_resume(stderr, s);
        fputc('\n', stderr);
        exit(1);
    }
    if (!write_numbers(t)) fail("cannot write %s: %s", t->numbers, strerror(errno));
    snprintf(line, sizeof line, "loss of %s, mean %.4g at the end", title, t->mean);
    if (t->done > t->before)
        must(draw_loss(t->loss, (size_t)(t->done - t->before), t->before + 1, line, t->curve, &err));
    if (!(s->flags & KEEP)) unlink(t->checkpoint);
    else if (!write_checkpoint(t)) exit(1);
    if (s->flags & QUIET) return;
    double spent = now() - t->started;
    print_time(time, sizeof time, spent);
    fprintf(stderr, "weft: wrote %s: %d step%s, mean loss %.4f, %s", s->output, (int)t->how.steps, t->how.steps == 1 ? "" : "s",
            t->mean, time);
    if (t->done > t->begun && spent > 0) fprintf(stderr, ", %.2f steps/s", (double)(t->done - t->begun) / spent);
    fprintf(stderr, "; the loss: %s\n", t->curve);
}

/* Better to hear it before the first step than after the last. */
static void check_place(const char *path, int folder, int must_be_new)
{
    struct stat about;

    check_writable(path, NULL);
    if (stat(path, &about) != 0) return;
    if (must_be_new) fail("%s is there already: a whole model is written to a new folder", path);
    if (folder && !S_ISDIR(about.st_mode)) fail("cannot write %s: it is no folder", path);
    if (!folder && !S_ISREG(about.st_mode)) fail("cannot write %s: it is %s", path, S_ISDIR(about.st_mode) ? "a folder" : "no regular file");
}

static void check_places(const training *t)
{
    const settings *s = t->s;
    int             file = ends_in_safetensors(s->output);

    check_place(s->output, !file, !file && s->dialect != WEFT_DIALECT_PEFT);
    check_writable(t->checkpoint, ".safetensors");
    check_place(t->checkpoint, 0, 0);
    check_writable(t->curve, ".png");
    check_place(t->curve, 0, 0);
    check_place(t->numbers, 0, 0);
    if (s->train.sample_every) check_place(t->samples, 1, 0);
    if (!(s->flags & RESUME) && exists(t->checkpoint))
        fail("%s is of a training that was stopped: go on with --resume, or remove it to begin anew", t->checkpoint);
}

int train(settings *s)
{
    weft_model_info info = WEFT_MODEL_INFO_INIT;
    train_use      *u = &s->train;
    training        t = { .s = s, .how = WEFT_TRAIN_OPTIONS_INIT,
                          .meter.shown = !(s->flags & QUIET) && isatty(STDERR_FILENO) };

    if (s->flags & LIST) {
        print_recipes();
        return 0;
    }
    char *output = copy_of(s->output);
    for (size_t n = strlen(output); n > 1 && output[n - 1] == '/';) output[--n] = '\0';
    s->output = output;
    t.checkpoint = u->checkpoint ? copy_of(u->checkpoint) : beside(s->output, ".checkpoint.safetensors");
    t.curve = u->curve ? copy_of(u->curve) : beside(s->output, ".loss.png");
    t.numbers = beside(s->output, ".loss.csv");
    t.samples = beside(s->output, "-samples");
    check_places(&t);
    weft_model *model = open_model(s->against, s, &info);
    prepare_easel(&t, model, &info);
    begin(&t, model);
    run_steps(&t);
    finish(&t);
    weft_trainer_free(t.trainer);
    weft_model_free(model);
    free(t.loss);
    free(t.checkpoint);
    free(t.curve);
    free(t.numbers);
    free(t.samples);
    free(output);
    return 0;
}
