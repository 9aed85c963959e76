/* tool.h - what the files of the command-line tool share.
 *
 * The tool is also the longest example, and uses only the public headers. All options are in one
 * table (options.c), which writes straight into the library's option structs. Each subcommand has a
 * file of its own: generate has the denoising loop, explain never runs the network, inspect never
 * makes a plan, convert and merge write files for other tools.
 *
 * An option that could have no effect is refused: --period under merge is a question, not a
 * setting.
 *
 * Exit status: 0 done, 1 failed with one line "weft: ...", 2 the command line itself is wrong. */
#ifndef TOOL_H
#define TOOL_H

#include <inttypes.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <weft/weft.h>

extern weft_error err; /* of the last call */

/* ------------------------------------------------------------------ say.c: lines, progress, stopping */

extern const char *subcommand;

_Noreturn void fail(const char *format, ...);      /* exit 1: "weft: ..." */
_Noreturn void misuse(const char *format, ...);    /* exit 2, with a word on --help */
void           must(weft_status st);
void           must_of(const char *option, const char *of, weft_status st); /* and say what it is of */
const char    *in_tool_words(char *text);          /* an error's text, with the names of this program's options */
void          *zeroed(size_t count, size_t size);    /* zeroed; never NULL */
float         *floats(size_t count);
void           warn_line(void *user, int32_t level, const char *line);
void           print_bytes(double bytes);

typedef struct meter {
    int     shown;                                   /* stderr is a terminal, and may be used */
    int32_t step, steps;                             /* 0 before the loop                     */
    double  began, last;
} meter;

double  now(void);
int32_t show_progress(void *user, const char *what, int64_t done, int64_t total);
void    clear_progress(void);
void    put_progress(const char *line);              /* on the terminal's last line */
void    watch_interrupt(weft_run *run);              /* Ctrl-C stops it; NULL: no longer */

/* ------------------------------------------------------------------ options.c: what was asked for */

/* bits, so that an option can belong to several */
enum { MERGE = 1, SWITCH = 2, COMPOSITE = 4, KLORA = 8, ZIP = 16, BLORA = 32, BLEND = 64, LORATORIO = 128,
       SUBBANDS = 256 };
enum { TEXT_EACH = 1000 };                                       /* settings.plan.text: a text for each adapter */
enum { NOTHING_SAID = -1 };
enum { TEXT_WEIGHT = 1 };                                        /* adapter_use.given */
enum { WEIGH_NONE, WEIGH_A1111, WEIGH_PLAIN, WEIGH_EMPTY };       /* how brackets in prompts are read */
enum { QUIET = 1, KARRAS = 2, KEYS = 4, NO_PARAMETERS = 8, HELP = 16, HALF = 32, COPY = 64, MAP = 128, REPORT = 256,
       BALANCE = 512, JSON = 1024, ISOLATE = 2048, ALIGN = 4096, ANY_MODEL = 8192, RESUME = 16384, LIST = 32768,
       KEEP = 65536 };
enum { BY_INVERSION, BY_NOISE };                                 /* how a picture becomes a reference */
enum { INTO_MODEL = 0, INTO_ADAPTER = 1 };

typedef struct adapter_use {
    char                *file;
    float                weight;
    int                  is_concept;
    weft_add_options     how;
    float                text_weight;              /* where given & TEXT_WEIGHT */
    uint32_t             given;
    weft_adapter_options opening;                    /* of an adapter */
    weft_concept_options tokens;                     /* of a concept */
    weft_curve_point    *curve;                      /* of its weight over the calls */
    size_t               curve_points;
    uint32_t             curve_flags;
    int32_t              curve_shape;
    const char          *region;                     /* the PNG of its mask: where in the image it acts */
    float                region_text;
    const char          *words;                      /* of the prompt: where they are in the image, it acts */
    int32_t              index;                      /* among the adapters of the plan */
    const char          *blocks;                     /* its weight block by block */
    const char          *called;                     /* of a concept that is fused: what prompts call it */
    const char         **prompts;
    size_t               prompt_count;
    int32_t              images;
    weft_adapter        *adapter;
    weft_concept        *concept;
} adapter_use;

/* A part of the image: where an adapter acts, or has a prompt of its own, or both. */
typedef struct region_use {
    char       *file;                                /* of its mask                             */
    const char *prompt;                              /* NULL: that of the whole image           */
    int         use;                                 /* of settings.adapters; -1: of no adapter */
    int         planned;                             /* of a plan that was loaded               */
} region_use;

/* A picture as a prompt, or several, by one IP-Adapter. */
typedef struct image_use {
    char               *file;                        /* of the IP-Adapter                       */
    float               weight;
    const char        **pictures;                    /* PNGs                                    */
    size_t              count;
    const char         *blocks;
    const char         *mask;                        /* a PNG                                   */
    weft_curve_point   *curve;
    size_t              curve_points;
    uint32_t            curve_flags;
} image_use;

/* Another text from a call on, in the place of a prompt, or of the negative prompt. */
typedef struct change_use {
    int32_t     of;                                  /* of settings.prompts; -1: the negative       */
    const char *when;                                /* "8", or with a point a share of all calls   */
    const char *text;
} change_use;

/* A phase of the plan: where it begins, and what it does. */
typedef struct phase_use {
    weft_phase_options      begin;               /* not of the first */
    int32_t                 method;
    weft_switch_options     taking_turns;
    weft_composite_options  composite;
    weft_klora_options      klora;
    weft_loratorio_options  loratorio;
    weft_subbands_options   subbands;
    int32_t                *order;               /* of switch, which taking_turns points to */
    weft_blend_options      blend;
    weft_zip_options        zip;
    const char             *coefficients;        /* of zip: a file */
    const char             *zip_network;         /* of zip: another */
    weft_blora_options      blora;
} phase_use;
enum { PHASES_MAX = 32 };

/* What train asks for beside the library's options. */
typedef struct train_use {
    weft_train_options how;
    const char        *data, *prompt;                /* pictures, and what is said of those without a text */
    const char        *class_data, *class_prompt;    /* what must stay as it is; of ziplora the style      */
    int32_t            class_count;
    const char        *content, *style;              /* of ziplora: two adapters                           */
    const char        *checkpoint, *curve;           /* NULL: beside what is written                       */
    int32_t            checkpoint_every;             /* steps; NOTHING_SAID: by the clock; 0: never        */
    int32_t            stop_after;                   /* steps of this time; 0: all                         */
    int32_t            sample_every;
    const char       **sample_prompts;
    size_t             sample_count;
} train_use;

typedef struct settings {
    const char             *target;              /* the model, the recipe, or the file to look at */
    adapter_use            *adapters;
    size_t                  adapter_count;
    region_use             *regions;
    size_t                  region_count;
    image_use              *images;              /* as prompts */
    size_t                  image_count;
    const char             *image_encoder;
    uint32_t                flags;               /* QUIET ... */
    phase_use               phases[PHASES_MAX];
    size_t                  phase_count;         /* at least 1 */
    int32_t                 steps, spacing;
    weft_sampler_options    sampling;                 /* kind, schedule and what else of it was asked for */
    int32_t                 width, height;       /* of the image; 0: the model's */
    float                   eta, guidance, rescale;
    uint64_t                seed;
    const char            **prompts;             /* of the pictures of a batch */
    size_t                  prompt_count;
    change_use             *changes;             /* of each prompt in the order of the calls */
    size_t                  change_count;
    const char             *prompt, *negative;   /* the first of them */
    const char             *latents, *conditioning, *save, *trace, *output;
    const char             *image, *mask;        /* where the image starts, and what of it is redrawn */
    float                   strength;
    int32_t                 find_masks;          /* calls that look where the adapters' words are; 0: none */
    const char             *save_masks;          /* what they find, as PREFIX-A.png .. */
    char                   *reference;           /* a picture that the others take their style from */
    const char             *reference_text;      /* what is on it */
    int32_t                 reference_by;        /* BY_* */
    weft_align_options      align;               /* where flags & ALIGN */
    int32_t                 clip_skip;
    int32_t                 weighting;           /* WEIGH_* */
    float                  *sigmas;
    size_t                  sigma_count;
    const char             *against;             /* the model that an adapter is looked at, or converted, for */
    int32_t                 dialect;
    int32_t                 into;                /* what a merge writes: INTO_* */
    float                   mix;
    weft_merge_options      merge;
    weft_fuse_options       fuse;
    const char             *captions;            /* a file of them, a line each */
    const char            **ordinary;            /* prompts where a fusion leaves the model as it is */
    size_t                  ordinary_count;
    weft_adapter_options    opening;             /* of the file to look at or convert, if it is an adapter */
    const char             *save_coefficients;
    weft_model_options      open;
    weft_plan_options       plan;
    const char             *plan_file, *save_plan; /* in place of adapters and methods; where they go */
    weft_plan              *loaded;              /* of plan_file, until it is sealed */
    int                     used_by;             /* the subcommand */
    weft_balance_options    balance;             /* where flags & BALANCE */
    weft_run_options        run;
    train_use               train;
    int                     word_count;          /* of the command line, behind the program's name */
    char                  **words;
} settings;

typedef struct word { const char *name; int32_t value; } word;
extern const word methods[], mixes[];

enum { GENERATE = 1, EXPLAIN = 2, INSPECT = 4, CONVERT = 8, MERGE_MODEL = 16, CONFLICTS = 32, FUSE = 64,
       TRAIN = 128 };

void        settings_init(settings *s, int argc);
void        settings_free(settings *s);
void        parse_arguments(settings *s, int used_by, int argc, char **argv);
void        print_options(int used_by);            /* of a subcommand: the most used, and the topics */
void        print_topics(void);
int         print_topic(const char *topic);        /* "all": all of them; 0: there is none such      */
const char *word_of(const word *words, int32_t value);
int         is_option_of_train(const char *name, size_t length); /* as the library calls it, with hyphens */
void        read_notes(settings *s, const weft_plan *plan); /* options that a plan keeps, unless they are given */
void        write_notes(const settings *s, weft_plan *plan);
int         merges_a_plan(const settings *s);  /* and not adapters as they are: --compose, --blocks */

/* ------------------------------------------------------------------ copies.c: mapped, or in memory */

uint32_t how_to_open(const settings *s, const char *path); /* WEFT_OPEN_COPY, or 0 */
int      may_vanish(uint32_t type);                        /* a file system's type */

/* ------------------------------------------------------------------ handles.c: from settings to handles */

weft_model   *open_model(const char *path, settings *s, weft_model_info *info);
int           is_guided(const settings *s, const weft_model_info *info); /* two halves, or one if guidance-distilled */
weft_sampler *make_sampler(const weft_model *model, const settings *s);
void          print_sampler(FILE *f, const settings *s);  /* "euler karras" */
void          open_adapter(const settings *s, adapter_use *use);
weft_plan    *make_plan(weft_model *model, settings *s, int32_t calls, meter *m);
int32_t       call_of(const char *when, int32_t calls); /* the first call at or after it; at least 1 */
int           is_region_of_plan(const settings *s, const region_use *region); /* or a mask alone */
void          set_size(settings *s, const weft_model_info *info); /* the run's, in latent pixels */
void          check_writable(const char *path, const char *format); /* before the first step; ".png", NULL: not one file */
int           is_folder(const char *path);

/* ------------------------------------------------------------------ planfile.c: plans in files */

void       load_plan(weft_model *model, settings *s, meter *m); /* if there is a plan_file; once */
void       note_settings(weft_plan *plan, const settings *s);
void        save_plan(const weft_plan *plan, const settings *s);          /* to --save-plan */
weft_plan *seal_plan(weft_plan *plan, settings *s, int32_t calls);
void       describe_hash(FILE *f, const settings *s, const weft_plan *plan);
void       describe_phase(FILE *f, const phase_use *p);

/* ------------------------------------------------------------------ images.c: tensors and images in files */

float *read_tensor(const weft_tensors *file, const char *path, const char *name, int64_t *shape,
                   size_t rank);
float *read_image(const char *path, int32_t width, int32_t height);         /* (3, h, w) in 0..1, resized */
float *read_picture(const char *path, int32_t *width, int32_t *height);         /* (3, h, w) in 0..1, as it is */
float *read_gray(const char *path, int32_t *width, int32_t *height);           /* (h, w) in 0..1, as it is   */
float *read_mask(const char *path, int32_t width, int32_t height);            /* (h, w), 0 or 1             */
void   image_size(const char *path, int32_t *width, int32_t *height);

/* ------------------------------------------------------------------ the subcommands, a file each */

int generate(settings *s);
int explain(settings *s);
int inspect(settings *s);
int convert(settings *s);
int merge_model(settings *s);
int conflicts(settings *s);
int fuse(settings *s);
int train(settings *s);

/* ------------------------------------------------------------------ recipes.c: what train can train */

typedef struct recipe_use {
    const char *name;
    int32_t     recipe;                              /* WEFT_RECIPE_* */
    int         with_class;                          /* it is that only with class pictures */
    int         words;                               /* it learns words */
    uint32_t    dialects;                            /* 1 << WEFT_DIALECT_*; 0: a form of its own */
    const char *line;
} recipe_use;
int               ends_in_safetensors(const char *path); /* options.c; what does not is a folder */
const recipe_use *find_recipe(const char *name);     /* NULL: there is none such */
void              print_recipes(void);

/* ------------------------------------------------------------------ learned.c: pictures that train draws */

typedef struct easel_use {                           /* what all of them have in common */
    weft_model      *model;
    int32_t          width, height;                  /* in pixels; 0: the model's */
    int32_t          factor;                         /* pixels of a latent one */
    uint64_t         seed;
    char            *doing;                          /* [DOING] says what is drawn, while it is */
    weft_progress_fn progress;
    void            *user;
} easel_use;
enum { DOING = 80 };
/* Draw those that a folder of class pictures lacks, by the model as it is; answers how many were drawn. */
int32_t     draw_class(const easel_use *e, const char *folder, const char *prompt, int32_t count);
/* One picture with what was learned so far; either may be NULL. */
weft_status draw_learned(const easel_use *e, weft_adapter *adapter, weft_concept *concept, const char *prompt,
                         const char *path);

#endif
