/* options.c - every option of the tool, in one table.
 *
 * A row says which subcommands take the option, the kind of its value, and where the value goes:
 * into the settings, or into those of the adapter or phase before it. The help and getopt_long's
 * list are made from the same rows: a HEADING with a topic begins a page of the help. */
#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tool.h"

static phase_use *begin_phase(settings *s)
{
    phase_use *p = &s->phases[s->phase_count++];
    weft_phase_options_init(&p->begin, sizeof p->begin);
    weft_switch_options_init(&p->taking_turns, sizeof p->taking_turns);
    weft_composite_options_init(&p->composite, sizeof p->composite);
    weft_klora_options_init(&p->klora, sizeof p->klora);
    weft_loratorio_options_init(&p->loratorio, sizeof p->loratorio);
    weft_subbands_options_init(&p->subbands, sizeof p->subbands);
    weft_blend_options_init(&p->blend, sizeof p->blend);
    weft_zip_options_init(&p->zip, sizeof p->zip);
    weft_blora_options_init(&p->blora, sizeof p->blora);
    p->method = MERGE;
    return p;
}

void settings_init(settings *s, int argc)
{
    memset(s, 0, sizeof *s);
    weft_model_options_init(&s->open, sizeof s->open);
    weft_adapter_options_init(&s->opening, sizeof s->opening);
    s->opening.log = warn_line;
    weft_plan_options_init(&s->plan, sizeof s->plan);
    weft_run_options_init(&s->run, sizeof s->run);
    weft_merge_options_init(&s->merge, sizeof s->merge);
    weft_fuse_options_init(&s->fuse, sizeof s->fuse);
    weft_train_options_init(&s->train.how, sizeof s->train.how);
    s->train.checkpoint_every = NOTHING_SAID;
    s->mix = NOTHING_SAID;
    weft_balance_options_init(&s->balance, sizeof s->balance);
    weft_align_options_init(&s->align, sizeof s->align);
    s->prompts = zeroed((size_t)argc, sizeof *s->prompts);
    s->changes = zeroed((size_t)argc, sizeof *s->changes);
    s->adapters = zeroed((size_t)argc, sizeof *s->adapters);
    s->regions = zeroed((size_t)argc, sizeof *s->regions);
    s->images = zeroed((size_t)argc, sizeof *s->images);
    begin_phase(s);
    weft_sampler_options_init(&s->sampling, sizeof s->sampling);
    s->sampling.kind = WEFT_SAMPLER_DDIM;
    s->steps = 20;
    s->spacing = NOTHING_SAID;
    s->guidance = 7.5f;
    s->strength = NOTHING_SAID;
}

enum { HEADING, BIT, INT32, INT64, FLOAT, DOUBLE, STRING, WORD, OTHER };
enum { OF_ALL, OF_ADAPTER, OF_CONCEPT, OF_PHASE, OF_NEW_ADAPTER, OF_IMAGE };   /* what an option is about */

typedef struct row {
    int         kind;
    int         used_by;                             /* GENERATE | EXPLAIN ...                            */
    char        letter;
    const char *name;
    const char *value;                               /* what the help calls it; NULL for a BIT. Of a      */
    const char *help;                                /* topic: it in one line. help: without the last '.' */
    size_t      field;                               /* in what `about` says                              */
    double      low, high;                           /* of numbers                                        */
    int         not_zero;
    int         none;                                /* 0 is none of it, which the library writes as -1   */
    uint32_t    bit;                                 /* of a BIT, and of a value that a flag must announce */
    size_t      flags;                               /* where that bit goes                               */
    int         about;                               /* OF_*                                              */
    int         method;                              /* 0: any                                            */
    const word *words;
    uint32_t    solvers;                             /* help ends with the solvers that have this trait   */
    void      (*parse)(settings *s, const char *name, const char *value);
    const char *topic;                               /* of a HEADING: `weft help TOPIC`; NULL: part of    */
    int         brief;                               /* the one above. brief: SUBCOMMAND --help shows it  */
} row;

const word methods[]  = { { "merge", MERGE }, { "switch", SWITCH }, { "composite", COMPOSITE },
                                 { "klora", KLORA }, { "loratorio", LORATORIO }, { "subbands", SUBBANDS },
                                 { "zip", ZIP }, { "blora", BLORA }, { "blend", BLEND }, { NULL, 0 } };
static const word roles[]    = { { "content", WEFT_ROLE_CONTENT }, { "style", WEFT_ROLE_STYLE }, { NULL, 0 } };
static const word paths[]    = { { "auto", WEFT_PATH_AUTO }, { "side", WEFT_PATH_SIDE },
                                 { "merged", WEFT_PATH_MERGED }, { NULL, 0 } };
const word mixes[]    = { { "delta", WEFT_MIXED_DELTA }, { "inside", WEFT_MIXED_INSIDE },
                          { "stack", WEFT_MIXED_STACK }, { "direction", WEFT_MIXED_DIRECTION }, { NULL, 0 } };
static const word texts[]    = { { "method", WEFT_TEXT_METHOD }, { "all", WEFT_TEXT_ALL },
                                 { "first", WEFT_TEXT_FIRST }, { "none", WEFT_TEXT_NONE }, { "each", TEXT_EACH },
                                 { NULL, 0 } };
static const word patterns[] = { { "s_star", WEFT_KLORA_S_STAR }, { "s", WEFT_KLORA_S },
                                 { "custom", WEFT_KLORA_CUSTOM }, { "fixed", WEFT_KLORA_FIXED }, { NULL, 0 } };
static const word scores[]   = { { "topk", WEFT_KLORA_TOP_K }, { "energy", WEFT_KLORA_ENERGY }, { NULL, 0 } };
static const word gammas[]   = { { "code", WEFT_KLORA_GAMMA_CODE }, { "paper", WEFT_KLORA_GAMMA_PAPER },
                                 { "none", WEFT_KLORA_GAMMA_NONE }, { NULL, 0 } };
static const word formulas[] = { { "code", WEFT_KLORA_GAMMA_CODE }, { "paper", WEFT_KLORA_GAMMA_PAPER }, { NULL, 0 } };
static const word grains[]   = { { "call", WEFT_KLORA_BY_CALL }, { "step", WEFT_KLORA_BY_STEP }, { NULL, 0 } };
static const word spacings[] = { { "default", WEFT_SPACING_DEFAULT }, { "leading", WEFT_SPACING_LEADING },
                                 { "linspace", WEFT_SPACING_LINSPACE }, { "trailing", WEFT_SPACING_TRAILING },
                                 { NULL, 0 } };

static const word shapes[] = { { "linear", WEFT_CURVE_LINEAR }, { "cosine", WEFT_CURVE_COSINE },
                               { "hold", WEFT_CURVE_HOLD }, { NULL, 0 } };
static const word weightings[] = { { "none", WEIGH_NONE }, { "a1111", WEIGH_A1111 }, { "plain", WEIGH_PLAIN },
                                   { "empty", WEIGH_EMPTY }, { NULL, 0 } };
static const word dialects[] = { { "kohya", WEFT_DIALECT_KOHYA }, { "diffusers", WEFT_DIALECT_DIFFUSERS },
                                { "peft", WEFT_DIALECT_PEFT }, { NULL, 0 } };

static const word targets[] = { { "model", INTO_MODEL }, { "adapter", INTO_ADAPTER }, { NULL, 0 } };
static const word merges[] = { { "sum", WEFT_MERGE_SUM }, { "concat", WEFT_MERGE_CONCAT }, { "ties", WEFT_MERGE_TIES },
                               { "dare", WEFT_MERGE_DARE }, { "dare-ties", WEFT_MERGE_DARE_TIES },
                               { "prune", WEFT_MERGE_PRUNE }, { "mixer", WEFT_MERGE_MIXER },
                               { "null-space", WEFT_MERGE_NULL_SPACE }, { NULL, 0 } };
static const word fusions[] = { { "gradient", WEFT_FUSE_GRADIENT }, { "constrained", WEFT_FUSE_CONSTRAINED },
                                 { "routed", WEFT_FUSE_ROUTED }, { NULL, 0 } };
static const word majorities[] = { { "total", WEFT_MAJORITY_TOTAL }, { "frequency", WEFT_MAJORITY_FREQUENCY }, { NULL, 0 } };

static const word optimisers[] = { { "adamw", WEFT_OPTIMISER_ADAMW }, { "sgd", WEFT_OPTIMISER_SGD }, { NULL, 0 } };
static const word courses[] = { { "constant", WEFT_RATES_CONSTANT }, { "cosine", WEFT_RATES_COSINE },
                                { "linear", WEFT_RATES_LINEAR }, { NULL, 0 } };
static const word arithmetics[] = { { "f32", WEFT_ARITHMETIC_F32 }, { "bf16", WEFT_ARITHMETIC_BF16 }, { NULL, 0 } };
static const word ways[] = { { "inversion", BY_INVERSION }, { "noise", BY_NOISE }, { NULL, 0 } };

static void parse_prompt(settings *s, const char *name, const char *value);
static void parse_change(settings *s, const char *name, const char *value);
static void parse_reference(settings *s, const char *name, const char *value);
static void parse_align_without(settings *s, const char *name, const char *value);
static void parse_adapter(settings *s, const char *name, const char *value);
static void parse_concept(settings *s, const char *name, const char *value);
static void parse_curve(settings *s, const char *name, const char *value);
static void parse_region(settings *s, const char *name, const char *value);
static void parse_ip_adapter(settings *s, const char *name, const char *value);
static void parse_picture(settings *s, const char *name, const char *value);
static void parse_image_curve(settings *s, const char *name, const char *value);
static int was_given(const char *name);
static void parse_sampler(settings *s, const char *name, const char *value);
static void parse_schedule(settings *s, const char *name, const char *value);
static void parse_sigmas(settings *s, const char *name, const char *value);
static const char *sampler_names(uint32_t trait);
#define ANY_SOLVER UINT32_MAX
static void parse_order(settings *s, const char *name, const char *value);
static void parse_last_to(settings *s, const char *name, const char *value);
static void parse_keep(settings *s, const char *name, const char *value);
static void parse_phase(settings *s, const char *name, const char *value);
static void parse_size(settings *s, const char *name, const char *value);
static void parse_seed(settings *s, const char *name, const char *value);
static void parse_fuse_sampler(settings *s, const char *name, const char *value);
static void parse_budget(settings *s, const char *name, const char *value);
static void parse_fuse_prompt(settings *s, const char *name, const char *value);
static void parse_ordinary(settings *s, const char *name, const char *value);
static void parse_sample_prompt(settings *s, const char *name, const char *value);

#define USED(member) .about = OF_ADAPTER, .field = offsetof(adapter_use, member)
#define IN(member) .field = offsetof(settings, member)
#define ADAPTERS(member) .about = OF_ADAPTER, .field = offsetof(adapter_use, how.member)
#define NEW_ADAPTER .about = OF_NEW_ADAPTER
#define TRAINS(member) .field = offsetof(settings, train.member)
#define LEARNS(member) .field = offsetof(settings, train.how.member)
#define TRAIN_SETS(mask) .flags = offsetof(settings, train.how.flags), .bit = (mask)
#define IMAGES(member) .about = OF_IMAGE, .field = offsetof(image_use, member)
#define CONCEPTS(member) .about = OF_CONCEPT, .field = offsetof(adapter_use, tokens.member)
#define PHASES(member) .about = OF_PHASE, .field = offsetof(phase_use, member)
#define SETS(where, mask) .flags = offsetof(settings, where), .bit = (mask)
#define PHASE_SETS(where, mask) \
    .about = OF_PHASE, .flags = offsetof(phase_use, where), .bit = (mask)
#define ANNOUNCED(mask) .flags = offsetof(adapter_use, how.flags), .bit = (mask)
#define PHASE_ANNOUNCED(where, mask) .flags = offsetof(phase_use, where), .bit = (mask)
#define ANY_FLOAT .low = -1e6, .high = 1e6
enum { AVERAGING = COMPOSITE | LORATORIO | SUBBANDS };
enum {
    DRAWING = GENERATE | EXPLAIN,
    COMBINED = DRAWING | MERGE_MODEL,
    PLANNED = COMBINED | CONFLICTS,
    TAKING = PLANNED | FUSE,                     /* adapters */
    RUNNING = GENERATE | EXPLAIN | FUSE,         /* runs the networks, or tells what they will do */
    ALL = GENERATE | EXPLAIN | INSPECT | CONVERT | MERGE_MODEL | CONFLICTS | FUSE | TRAIN
};

static const row rows[] = {
    { HEADING, DRAWING, .topic = "image", .name = "The image",
      .value = "what to draw, its size, its seed, its file" },
    { OTHER, GENERATE, 'p', "--prompt", "TEXT", "what to draw; each one more is a picture more, FILE-1.png and on",
      .parse = parse_prompt, .brief = 1 },
    { STRING, GENERATE, 'n', "--negative", "TEXT", "what guidance pushes away from (the empty text)", IN(negative), .brief = 1 },
    { OTHER, GENERATE, 0, "--seed", "N", "of the first noise, which equals torch's CPU generator (0)",
      .parse = parse_seed, .brief = 1 },
    { OTHER, DRAWING, 0, "--size", "WxH", "in pixels (the size the model was trained at)", .parse = parse_size, .brief = 1 },
    { STRING, GENERATE, 'o', "--output", "FILE", "the PNG to write (weft.png)", IN(output), .brief = 1 },
    { INT32, DRAWING, 0, "--batch", "N", "pictures that are drawn at once, of seed, seed + 1 and on (one for\n"
      "each --prompt)", IN(run.batch), 1, 256 },
    { BIT, GENERATE, 0, "--no-parameters", NULL, "leave the generation parameters out of the PNG",
      SETS(flags, NO_PARAMETERS) },

    { HEADING, GENERATE, .topic = "prompts", .name = "Prompts",
      .value = "weights in brackets, layers left out, texts that change" },
    { WORD, GENERATE, 0, "--weighting", "WAY", "read (word:1.3), (word) and [word]: a1111 restores the mean after\n"
      "weighting, plain does not, empty weighs the distance from the empty\nprompt; none takes brackets as text (none)",
      IN(weighting), .words = weightings },
    { INT32, GENERATE, 0, "--clip-skip", "N", "leave out the text encoder's last N layers (0)", IN(clip_skip), 0, 64 },
    { OTHER, GENERATE, 0, "--prompt-from", "WHEN:TEXT", "from this call on, as in 8, or this share of all calls, as in 0.4, the\n"
      "--prompt before it is this text; may be repeated", .parse = parse_change },
    { OTHER, GENERATE, 0, "--negative-from", "WHEN:TEXT", "the same of the negative prompt", .parse = parse_change },

    { HEADING, GENERATE, .topic = "start", .name = "Beginning with an image",
      .value = "image to image, inpainting" },
    { STRING, GENERATE, 'i', "--image", "PNG", "begin with this image, scaled to the size", IN(image), .brief = 1 },
    { FLOAT, GENERATE, 0, "--strength", "X", "how much to redraw: near 0 little .. 1 all (0.8; with --mask 1)", IN(strength), 0, 1 },
    { STRING, GENERATE, 0, "--mask", "PNG", "redraw where this image is white, keep where it is black", IN(mask) },

    { HEADING, DRAWING, .topic = "align", .name = "Pictures in one style",
      .value = "StyleAligned: a batch takes on the style of its first picture",
      .help = "For several --prompt, --batch, or a picture of yours. It goes with every method" },
    { BIT, DRAWING, 0, "--align", NULL, "the pictures share self-attention with the first", SETS(flags, ALIGN) },
    { OTHER, GENERATE, 0, "--reference", "PNG[:TEXT]", "or with this picture, which TEXT describes", .parse = parse_reference },
    { WORD, GENERATE, 0, "--reference-by", "WAY", "how it gets its noise: inversion, which takes a call more for each, or\n"
      "noise that is drawn (inversion)", IN(reference_by), .words = ways },
    { FLOAT, DRAWING, 0, "--shared-score-scale", "X", "what is scored on the first picture's keys, times X (1)",
      IN(align.shared_score_scale), 0, 1e6, SETS(align.flags, WEFT_ALIGN_SCALE) },
    { FLOAT, DRAWING, 0, "--shared-score-shift", "X", "plus X; 0.69 counts it twice (0)", IN(align.shared_score_shift), ANY_FLOAT },
    { DOUBLE, DRAWING, 0, "--only-self-level", "X", "share of the self-attentions that stay as they are (0)",
      IN(align.only_self_level), 0, 1 },
    { BIT, DRAWING, 0, "--adain-values", NULL, "values too take its mean and deviation", SETS(align.flags, WEFT_ALIGN_VALUES) },
    { BIT, DRAWING, 0, "--full-attention-share", NULL, "every picture sees all of them instead", SETS(align.flags, WEFT_ALIGN_FULL) },
    { OTHER, DRAWING, 0, "--align-without", "LIST", "leave out of it: group-norm, attention, queries or keys",
      .parse = parse_align_without },

    { HEADING, TAKING, .topic = "adapters", .name = "Adapters",
      .value = "files, their weights, roles and layers" },
    { OTHER, TAKING, 'a', "--adapter", "FILE[:WEIGHT]",
      "add an adapter, a file or folder (weight 1); may be repeated. A name that\n"
      "has a colon itself needs the weight", .parse = parse_adapter, .brief = 1 },
    { HEADING, TAKING, .name = "For the adapter or concept just named" },
    { WORD, PLANNED, 0, "--role", "ROLE", "content or style: what klora, zip and blora take it for (first\ncontent, second style)",
      ADAPTERS(role), .words = roles, .brief = 1 },
    { STRING, TAKING, 0, "--select", "PATTERNS",
      "act on these layers only: names with * and ?, separated by commas,\nas in 'unet.up_blocks.*,unet.mid_block.*'",
      ADAPTERS(select) },
    { STRING, TAKING, 0, "--exclude", "PATTERNS", "and not on these", ADAPTERS(exclude) },
    { STRING, TAKING, 0, "--blocks", "WEIGHTS", "its weight block by block: numbers (26 or 17 in SD 1.x, 20 or 12 in\n"
      "SDXL), a preset such as OUTALL or ALL0.5, settings such as\nMID=0.5,IN04-IN08=0,*attn2*=0", USED(blocks) },
    { FLOAT, TAKING, 0, "--text-weight", "W", "weight of its text-encoder part (as the rest)",
      .about = OF_ADAPTER, .field = offsetof(adapter_use, text_weight), ANY_FLOAT,
      .flags = offsetof(adapter_use, given), .bit = TEXT_WEIGHT },
    { FLOAT, DRAWING, 0, "--share", "W", "weight of its prediction under composite, loratorio and subbands,\n"
      "or its part of the calls under switch --by-share (1)",
      ADAPTERS(share), ANY_FLOAT, ANNOUNCED(WEFT_ADD_SHARE), .method = AVERAGING },
    { BIT, TAKING, 0, "--partial", NULL, "allow keys that the model has no layer for",
      .about = OF_ADAPTER, ANNOUNCED(WEFT_ADD_PARTIAL) },
    { BIT, COMBINED | FUSE, 0, "--peft-dora", NULL, "DoRA as PEFT weighs it: the weight inside the norm",
      .about = OF_ADAPTER, ANNOUNCED(WEFT_ADD_PEFT_DORA) },
    { FLOAT, TAKING, 0, "--adapter-alpha", "X", "its alpha, where nothing in its file says one",
      .about = OF_ADAPTER, .field = offsetof(adapter_use, opening.alpha), ANY_FLOAT, .not_zero = 1 },
    { FLOAT, TAKING, 0, "--adapter-scale", "X", "or its scale, which is alpha / rank",
      .about = OF_ADAPTER, .field = offsetof(adapter_use, opening.scale), ANY_FLOAT, .not_zero = 1 },

    { HEADING, DRAWING | FUSE, .topic = "concepts", .name = "Concepts",
      .value = "textual inversions, Custom Diffusion, ED-LoRA" },
    { OTHER, DRAWING | FUSE, 'c', "--concept", "FILE[:WEIGHT]",
      "add a file of tokens: a textual inversion, Custom Diffusion, ED-LoRA;\n"
      "WEIGHT is of the adapter in it (1)", .parse = parse_concept, .brief = 1 },
    { HEADING, DRAWING | FUSE, .name = "For the concept just named" },
    { STRING, DRAWING | FUSE, 0, "--tokens", "NAMES", "what prompts call its tokens, separated by commas (as the file says)",
      CONCEPTS(tokens) },
    { STRING, DRAWING | FUSE, 0, "--second", "FILE", "its other file: the second encoder's vectors, or the tokens of an\n"
      "adapter whose file has none", CONCEPTS(second) },
    { BIT, DRAWING | FUSE, 0, "--replace", NULL, "take over a token that is in the vocabulary already",
      .about = OF_CONCEPT, ANNOUNCED(WEFT_ADD_REPLACE) },

    { HEADING, DRAWING, .topic = "curves", .name = "Curves",
      .value = "weights that change over the calls",
      .help = "For the adapter just named. It goes with every method." },
    { OTHER, DRAWING, 0, "--curve", "AT=VALUE,...", "what its weight is multiplied with over the calls, as in 0=0,8=1; with a\n"
      "point AT is a share of all calls, as in 0.0=0,0.4=1", .about = OF_ADAPTER, .parse = parse_curve },
    { WORD, DRAWING, 0, "--curve-shape", "SHAPE", "from one point to the next: linear, cosine or hold (linear)",
      USED(curve_shape), .words = shapes },

    { HEADING, DRAWING, .topic = "regions", .name = "Regions",
      .value = "adapters and prompts with a place in the image",
      .help = "For the adapter just named. Masks are images of any size; soft edges stay soft, and where masks\n"
      "overlap they share. To mix predictions by the masks, see blend." },
    { OTHER, DRAWING, 0, "--region", "PNG[:TEXT]", "act where this image is white, of any size; with TEXT that part of the\n"
      "image has this prompt. Before the first adapter: a prompt alone", .parse = parse_region },
    { FLOAT, DRAWING, 0, "--region-text", "X", "with --region: what layers over the prompt's tokens take (1)",
      USED(region_text), 0, 1 },
    { STRING, GENERATE, 0, "--words", "TEXT", "with --find-masks: words of the prompt that this adapter is for", USED(words) },
    { INT32, GENERATE, 0, "--find-masks", "N", "FreeFuse: N calls (10 in the paper) with all adapters look where each\n"
      "one's words are; then the image begins anew, each adapter there", IN(find_masks), 1, 1000 },
    { STRING, GENERATE, 0, "--save-masks", "PREFIX", "write these masks as PREFIX-A.png, PREFIX-B.png ..", IN(save_masks) },
    { BIT, DRAWING, 0, "--isolate", NULL, "in self-attention no region sees another", SETS(flags, ISOLATE) },

    { HEADING, DRAWING, .topic = "pictures", .name = "Pictures as prompts",
      .value = "IP-Adapter, InstantStyle",
      .help = "They go with every method, with adapters and with regions." },
    { OTHER, DRAWING, 0, "--ip-adapter", "FILE[:WEIGHT]", "add an IP-Adapter, base, plus or full (weight 1); may be repeated",
      .parse = parse_ip_adapter },
    { STRING, GENERATE, 0, "--image-encoder", "DIR", "CLIP's image encoder that they need: config.json, model.safetensors",
      IN(image_encoder) },
    { HEADING, DRAWING, .name = "For the IP-Adapter just named" },
    { OTHER, DRAWING, 0, "--image-prompt", "PNG", "the picture; several are seen as one prompt",
      .about = OF_IMAGE, .parse = parse_picture },
    { STRING, DRAWING, 0, "--image-prompt-blocks", "WEIGHTS", "its weight block by block, as --blocks; InstantStyle for SDXL:\n"
      "'NONE,up_blocks.0.attentions.1*=1', and for the layout too\n',down_blocks.2.attentions.1*=1'", IMAGES(blocks) },
    { OTHER, DRAWING, 0, "--image-prompt-curve", "AT=VALUE,...", "its weight over the calls, as --curve",
      .about = OF_IMAGE, .parse = parse_image_curve },
    { STRING, DRAWING, 0, "--image-prompt-mask", "PNG", "act where this image is white, of any size", IMAGES(mask) },

    { HEADING, PLANNED, .topic = "combine", .name = "How adapters combine",
      .value = "methods, phases, how it is computed",
      .help = "weft help METHOD tells what a method is for, and its options." },
    { WORD, PLANNED, 0, "--compose", "METHOD", "merge, switch, composite, klora, loratorio, subbands, zip, blora\nor blend (merge)",
      PHASES(method), .words = methods, .brief = 1 },
    { OTHER, DRAWING, 0, "--phase", "WHEN", "begin another phase of the plan at this call, as in 8, or at\n"
      "this share of all calls, as in 0.4; --compose and the options of\n"
      "methods that follow are about it", .parse = parse_phase },
    { WORD, DRAWING, 0, "--text-plan", "WHICH",
      "whose text-encoder parts act on the prompt: all, first, none,\n"
      "each: a text for each adapter, read where it acts alone, or\n"
      "method: the method's own (switch first, klora and blora none,\nothers all)", IN(plan.text), .words = texts },
    { WORD, DRAWING, 0, "--path", "PATH", "side: factors beside the weights; merged: in copies of the\n"
      "weights; auto: the cheaper for each layer (auto)", IN(plan.path), .words = paths },
    { WORD, COMBINED, 0, "--mixed", "POLICY", "where adapters depend on the weights (DoRA, OFT ..): delta, inside,\n"
      "stack or direction (delta)", IN(plan.mixed), .words = mixes },

    { HEADING, PLANNED, .topic = "plans", .name = "Plans in files",
      .value = "all of the above in one JSON file, to be drawn again",
      .help = "The file says adapters by path and content, and a file that has changed is refused. It also keeps\n"
      "the options of generate that make the image, as its prompt and its seed; those that are given stand\n"
      "over them. Options about the model are not kept." },
    { STRING, PLANNED, 0, "--plan", "FILE", "the plan of this file, in place of adapters, methods and regions",
      IN(plan_file), .brief = 1 },
    { STRING, PLANNED, 0, "--save-plan", "FILE", "write the plan to this file", IN(save_plan), .brief = 1 },
    { BIT, PLANNED, 0, "--any-model", NULL, "with --plan: the model may be another than the plan was saved with",
      SETS(flags, ANY_MODEL) },

    { HEADING, PLANNED, .topic = "balance", .name = "Balance",
      .value = "adapters as strong as each other",
      .help = "Multiplies the weight of each adapter with K-LoRA's gamma to the first, under any method." },
    { BIT, PLANNED, 0, "--balance", NULL, "multiply weights so that all adapters are as strong as the first",
      SETS(flags, BALANCE) },
    { WORD, DRAWING | CONFLICTS, 0, "--balance-to", "ROLE", "as the first content or style", IN(balance.role), .words = roles },
    { WORD, PLANNED, 0, "--balance-by", "FORMULA", "code: mean ratio of the layers without far ones; paper: ratio of\n"
      "the sums over all layers (code)", IN(balance.gamma), .words = formulas },

    { HEADING, DRAWING, .topic = "switch", .name = "LoRA Switch",
      .value = "the adapters take turns over the calls",
      .help = "One adapter at each call, in turns. Each acts whole, and a call costs one evaluation however many\n"
      "there are. Fails with few steps: the calls of a turn must be few beside all calls.", .method = SWITCH },
    { INT32, DRAWING, 0, "--period", "N", "calls of one turn (5)",
      PHASES(taking_turns.period), 1, 100000, .method = SWITCH },
    { BIT, DRAWING, 0, "--official-offset", NULL, "the timing of the authors' program, one call late",
      PHASE_SETS(taking_turns.flags, WEFT_SWITCH_OFFICIAL_OFFSET), .method = SWITCH },
    { OTHER, DRAWING, 0, "--turns", "LIST", "whose turns, as in B,A,B; A is the first --adapter (all)",
      .about = OF_PHASE, .parse = parse_order, .method = SWITCH },
    { BIT, DRAWING, 0, "--by-share", NULL, "calls of a cycle in proportion to --share",
      PHASE_SETS(taking_turns.flags, WEFT_SWITCH_SHARES), .method = SWITCH },
    { INT32, DRAWING, 0, "--last", "N", "the last N calls go to one adapter (0)",
      PHASES(taking_turns.last_calls), 1, 100000, .method = SWITCH },
    { OTHER, DRAWING, 0, "--last-to", "WHO", "to whom: A, B .., or the role content or style (A)",
      .about = OF_PHASE, .parse = parse_last_to, .method = SWITCH },

    { HEADING, DRAWING, .topic = "composite", .name = "LoRA Composite",
      .value = "a prediction of each adapter, averaged",
      .help = "Every adapter speaks at every call, and none disturbs another inside the network. Costs an\n"
      "evaluation for each. Two subjects in one place are still averaged: regions keep them apart.", .method = COMPOSITE },
    { BIT, DRAWING, 0, "--divide-by-count", NULL, "divide by the number of adapters, not by the\n"
      "sum of shares", PHASE_SETS(composite.flags, WEFT_COMPOSITE_DIVIDE_BY_COUNT),
      .method = COMPOSITE },
    { BIT, DRAWING, 0, "--last-without-guidance", NULL, "without guidance keep only the last adapter's\n"
      "prediction, as the authors' program does",
      PHASE_SETS(composite.flags, WEFT_COMPOSITE_NOCFG_LAST), .method = COMPOSITE },
    { BIT, DRAWING, 0, "--cached", NULL, "adapters reuse deep features; one after the other is\n"
      "computed in full", PHASE_SETS(composite.flags, WEFT_COMPOSITE_CACHED), .method = COMPOSITE },
    { INT32, DRAWING, 0, "--c1", "N", "the others every N calls, in the first half (2)",
      PHASES(composite.c1), 1, 100000, .method = COMPOSITE },
    { INT32, DRAWING, 0, "--c2", "N", "the same in the second half (3)",
      PHASES(composite.c2), 1, 100000, .method = COMPOSITE },
    { BIT, GENERATE, 0, "--measure", NULL, "compute in full as well, and say what is lost",
      SETS(run.flags, WEFT_RUN_MEASURE) },

    { HEADING, DRAWING, .topic = "loratorio", .name = "LoRAtorio",
      .value = "predictions with a weight for each patch of the image",
      .help = "Each patch is mostly of the adapter that differs most from the base model there. For several\n"
      "subjects. Costs an evaluation for each adapter and one more. Fails for a style over a subject.", .method = LORATORIO },
    { INT32, DRAWING, 0, "--patch", "N", "side of a patch in latent pixels (8)",
      PHASES(loratorio.patch), 1, 4096, .method = LORATORIO },
    { FLOAT, DRAWING, 0, "--temperature", "X", "of the softmin; low: the least like the base alone (0.1)",
      PHASES(loratorio.temperature), 1e-6, 1e6, .method = LORATORIO },
    { FLOAT, DRAWING, 0, "--base-share", "X", "the base model's part of the unconditional half (0.5)",
      PHASES(loratorio.base), 0, 1, PHASE_ANNOUNCED(loratorio.flags, WEFT_LORATORIO_BASE), .method = LORATORIO },
    { OTHER, DRAWING, 0, "--keep", "N", "adapters that count in a patch or band (all)",
      .about = OF_PHASE, .parse = parse_keep, .method = LORATORIO | SUBBANDS },

    { HEADING, DRAWING, .topic = "subbands", .name = "Sub-band weights",
      .value = "predictions with a weight for each band of frequencies",
      .help = "Coarse structure from one adapter, fine texture from another. Costs an evaluation for each and one\n"
      "more. Fails where both work at the same scale: then it is composite.", .method = SUBBANDS },
    { INT32, DRAWING, 0, "--levels", "N", "levels of the wavelet transform (2)",
      PHASES(subbands.levels), 1, 8, .method = SUBBANDS },
    { FLOAT, DRAWING, 0, "--sharpness", "X", "0 the mean, 1 in proportion to what is changed, more:\n"
      "nearer to the largest alone (1)",
      PHASES(subbands.sharpness), 0, 100, PHASE_ANNOUNCED(subbands.flags, WEFT_SUBBANDS_SHARPNESS), .method = SUBBANDS },

    { HEADING, DRAWING, .topic = "blend", .name = "Blend",
      .value = "predictions mixed by the masks of regions",
      .help = "Each adapter with a --region acts in a prediction of its own. Nothing of one subject reaches the\n"
      "other's place. Costs an evaluation for each mask and one more. Fails where predictions draw\n"
      "different layouts: then seams show; --start gives the layout to the base.", .method = BLEND },
    { INT32, DRAWING, 0, "--start", "CALL", "call from which on the adapters have predictions of their own (0)",
      PHASES(blend.start), 0, 100000, .method = BLEND },

    { HEADING, DRAWING, .topic = "klora", .name = "K-LoRA",
      .value = "for each layer and call the subject or the style, never both",
      .help = "For a subject in a style. Scores of the weights and a curve over the calls decide; weft explain\n"
      "shows the choice before drawing. Costs one evaluation. Fails where one adapter is stronger in every\n"
      "layer: then it is one adapter for the whole image.", .method = KLORA },
    { WORD, DRAWING, 0, "--pattern", "CURVE", "s_star, s, custom, or fixed: all layers the content's first,\n"
      "then the style's (s_star)",
      PHASES(klora.pattern), .words = patterns, .method = KLORA },
    { DOUBLE, DRAWING, 0, "--alpha", "X", "S = (alpha tau + beta) mod modulus",
      PHASES(klora.alpha), ANY_FLOAT, .method = KLORA },
    { DOUBLE, DRAWING, 0, "--beta", "X", "in the same",
      PHASES(klora.beta), ANY_FLOAT, .method = KLORA },
    { DOUBLE, DRAWING, 0, "--modulus", "X", "in the same (0: no modulus)",
      PHASES(klora.modulus), 0, 1e6, .method = KLORA },
    { BIT, DRAWING, 0, "--paper-beta", NULL, "s_star with the paper's offset 1.3 for the program's 1.275",
      PHASE_SETS(klora.flags, WEFT_KLORA_PAPER_BETA), .method = KLORA },
    { WORD, DRAWING, 0, "--gamma", "BALANCE", "code, paper or none (code)",
      PHASES(klora.gamma), .words = gammas, .method = KLORA },
    { WORD, DRAWING, 0, "--granularity", "UNIT", "time passes with every layer call, or by step (call)",
      PHASES(klora.granularity), .words = grains, .method = KLORA },
    { DOUBLE, DRAWING, 0, "--fixed-share", "X", "share of the calls that are the content's (1/3)",
      PHASES(klora.share), 0, 1, .method = KLORA },
    { WORD, DRAWING, 0, "--score", "RULE", "topk, or energy: Frobenius norms (topk)",
      PHASES(klora.score), .words = scores, .method = KLORA },
    { INT64, DRAWING, 0, "--top-k", "N", "entries that make a score of topk (product of the two ranks)",
      PHASES(klora.top_k), 1, 1e12, .method = KLORA },
    { BIT, DRAWING, 0, "--attention-only", NULL, "act only on q, k, v and out of the attentions",
      PHASE_SETS(klora.flags, WEFT_KLORA_ATTENTION_ONLY), .method = KLORA },
    { BIT, DRAWING, 0, "--ignore-alpha", NULL, "leave the files' alpha out, as the authors' program does",
      PHASE_SETS(klora.flags, WEFT_KLORA_IGNORE_ALPHA), .method = KLORA },
    { BIT, DRAWING, 0, "--wrap", NULL, "let the last layer fall back to time 0, as the authors' counter does",
      PHASE_SETS(klora.flags, WEFT_KLORA_WRAP), .method = KLORA },

    { HEADING, PLANNED, .topic = "zip", .name = "ZipLoRA",
      .value = "each column of a layer to the adapter that needs it more",
      .help = "For a subject in a style: two adapters act in every layer, through inputs of their own. Costs one\n"
      "evaluation. Fails where both need the same inputs: --lambda moves the loss.", .method = ZIP },
    { DOUBLE, PLANNED, 0, "--lambda", "X", "0 sums, 1 leaves no column of a layer to both adapters (1)",
      .about = OF_PHASE, .field = offsetof(phase_use, zip.lambda), .low = 0, .high = 1e6,
      .flags = offsetof(phase_use, zip.flags), .bit = WEFT_ZIP_LAMBDA, .method = ZIP },
    { DOUBLE, PLANNED, 0, "--style-weight", "W", "multiplies the style's part (1)",
      .about = OF_PHASE, .field = offsetof(phase_use, zip.style), ANY_FLOAT,
      .flags = offsetof(phase_use, zip.flags), .bit = WEFT_ZIP_STYLE, .method = ZIP },
    { STRING, PLANNED, 0, "--coefficients", "FILE", "of training, in place of the closed form",
      PHASES(coefficients), .method = ZIP },
    { STRING, PLANNED, 0, "--zip-network", "FILE", "a network of LoRA.rar, in place of the closed form",
      PHASES(zip_network), .method = ZIP },
    { STRING, MERGE_MODEL, 0, "--save-coefficients", "FILE", "write the columns' coefficients too", IN(save_coefficients) },

    { HEADING, PLANNED, .topic = "blora", .name = "B-LoRA",
      .value = "the subject and the style from the blocks that hold them",
      .help = "What is shown from one adapter, how it looks from another. Costs one evaluation. Fails with a\n"
      "subject that is spread over the whole network: what lies outside of the blocks is left out.", .method = BLORA },
    { STRING, PLANNED, 0, "--content-blocks", "PATTERNS", "layers of content (SDXL up_blocks.0.attentions.0; others: the\ncoarser half)",
      PHASES(blora.content), .method = BLORA },
    { STRING, PLANNED, 0, "--style-blocks", "PATTERNS", "layers of style (SDXL up_blocks.0.attentions.1; others: the\nfiner half)",
      PHASES(blora.style), .method = BLORA },
    { BIT, PLANNED, 0, "--squared", NULL, "square the weights, as the authors' program does",
      PHASE_SETS(blora.flags, WEFT_BLORA_SQUARED), .method = BLORA },

    { HEADING, DRAWING, .topic = "denoising", .name = "Denoising",
      .value = "steps, samplers, noise levels, guidance" },
    { INT32, DRAWING, 's', "--steps", "N", "denoising steps (20)", IN(steps), 1, 1000, .brief = 1 },
    { OTHER, DRAWING, 0, "--sampler", "SOLVER", "the solver (ddim):\n", .solvers = ANY_SOLVER,
      .parse = parse_sampler, .brief = 1 },
    { BIT, DRAWING, 0, "--karras", NULL, "noise levels of Karras et al., for ", .solvers = WEFT_TRAIT_SIGMAS,
      SETS(flags, KARRAS) },
    { OTHER, DRAWING, 0, "--schedule", "NAME", "other noise levels for the same: karras, exponential, beta, beta_sigmas,\n"
      "simple, normal, sgm_uniform, ddim_uniform, kl_optimal, align_your_steps or lu", .parse = parse_schedule },
    { FLOAT, DRAWING, 0, "--sigma-min", "X", "the lowest of karras, exponential, beta_sigmas or kl_optimal (the model's)",
      IN(sampling.sigma_min), 1e-4, 1e4 },
    { FLOAT, DRAWING, 0, "--sigma-max", "X", "the highest (the model's)", IN(sampling.sigma_max), 1e-4, 1e4 },
    { OTHER, DRAWING, 0, "--sigmas", "LIST", "noise levels of your own, falling, separated by commas, for the same",
      .parse = parse_sigmas },
    { INT32, DRAWING, 0, "--order", "N", "of dpmpp_2m, dpmpp_2s, unipc and deis 1 to 3, of lms 1 to 4 (the model's)",
      IN(sampling.order), 1, 4 },
    { FLOAT, DRAWING, 0, "--eta", "X", "ddim: 0 deterministic, 1 draws as much noise as DDPM (0); tcd: gamma",
      IN(eta), 0, 1 },
    { WORD, DRAWING, 0, "--spacing", "WAY", "timesteps: default, leading, linspace or trailing (the model's)",
      IN(spacing), .words = spacings },
    { FLOAT, DRAWING, 'g', "--guidance", "W", "how strongly the prompt counts; at most 1: no guidance (7.5)",
      IN(guidance), 0, 1000, .brief = 1 },
    { FLOAT, GENERATE, 0, "--guidance-rescale", "X", "0 none .. 1 full (0)", IN(rescale), 0, 1 },

    { HEADING, DRAWING, .topic = "running", .name = "Running",
      .value = "threads, memory, numbers that are none" },
    { INT32, DRAWING, 0, "--tile", "N", "code images in tiles of N latent pixels, so that memory stays\n"
      "bounded (whole images)", IN(run.tile), 16, 8192 },
    { INT32, DRAWING, 't', "--threads", "N", "(one for each core); the image is the same for any number",
      IN(run.threads), 1, 128 },
    { STRING, GENERATE, 0, "--trace", "FILE", "write what acted in each call: a picture, or with a name that ends in\n"
      ".json all numbers", IN(trace) },
    { BIT, GENERATE, 0, "--unchecked", NULL, "go on with numbers that are infinite or none",
      SETS(run.flags, WEFT_RUN_UNCHECKED) },

    { HEADING, GENERATE, .topic = "exchange", .name = "Comparing with other programs",
      .value = "noise, conditioning and predictions in safetensors files" },
    { STRING, GENERATE, 0, "--latents", "FILE",
      "begin with its tensor `start`, else `latents`, (1,c,h,w), noise as\n"
      "drawn, not scaled; a drawing solver then draws from a fresh seed", IN(latents) },
    { STRING, GENERATE, 0, "--conditioning", "FILE",
      "take `text` (1,t,d) and where needed `negative`, `pooled` and\n"
      "`negative_pooled` instead of encoding prompts", IN(conditioning) },
    { STRING, GENERATE, 0, "--save", "FILE",
      "write `start`, the conditioning, `prediction_000` ... of each step,\n"
      "and the last `latents`", IN(save) },

    { HEADING, EXPLAIN, .topic = "table", .name = "The table",
      .value = "as a picture, as JSON" },
    { STRING, EXPLAIN, 'o', "--output", "FILE", "draw it as a PNG: the table with layers down and calls across, and\n"
      "under it strengths, costs, weights of blocks and masks", IN(output), .brief = 1 },
    { BIT, EXPLAIN, 0, "--json", NULL, "everything as JSON", SETS(flags, JSON), .brief = 1 },

    { HEADING, CONFLICTS, .topic = "report", .name = "The report",
      .value = "as JSON, as a picture" },
    { BIT, CONFLICTS, 0, "--json", NULL, "numbers of every block and layer, as JSON", SETS(flags, JSON), .brief = 1 },
    { STRING, CONFLICTS, 'o', "--output", "FILE", "draw it as a PNG: layers down, four columns for each pair", IN(output), .brief = 1 },

    { HEADING, CONVERT, .topic = "dialects", .name = "Converting",
      .value = "the model, the dialect, the file" },
    { STRING, CONVERT, 'm', "--model", "MODEL", "the model that the adapter is for", IN(against), .brief = 1 },
    { STRING, CONVERT, 'o', "--output", "FILE", "the file to write; a folder for peft", IN(output), .brief = 1 },
    { WORD, CONVERT, 0, "--dialect", "NAME", "kohya, diffusers or peft (kohya)", IN(dialect), .words = dialects, .brief = 1 },
    { BIT, CONVERT, 0, "--half", NULL, "write the factors as 16-bit floats (as they are)", SETS(flags, HALF), .brief = 1 },

    { HEADING, MERGE_MODEL, .topic = "written", .name = "What is written",
      .value = "a checkpoint, or one new adapter" },
    { STRING, MERGE_MODEL, 'o', "--output", "PATH", "the file or folder to write: a checkpoint in the layout of MODEL, or\n"
      "an adapter", IN(output), .brief = 1 },
    { WORD, MERGE_MODEL, 0, "--into", "WHAT", "model: the adapters go into the model's weights; adapter: they become\n"
      "one new adapter for it (model)", IN(into), .words = targets, .brief = 1 },

    { HEADING, MERGE_MODEL, .topic = "new-adapter", .name = "One new adapter of several",
      .value = "sum, TIES, DARE, SVD to a rank",
      .help = "With --into adapter. sum and concat do what the adapters do together, ties and dare make them\n"
      "smaller first; --rank makes the result small, and --report says what that loses." },
    { WORD, MERGE_MODEL, 0, "--by", "METHOD", "sum, concat, ties, dare, dare-ties, prune, mixer or null-space\n"
      "(sum)",
      NEW_ADAPTER, .field = offsetof(settings, merge.kind), .words = merges },
    { INT32, MERGE_MODEL, 0, "--rank", "N", "factor each layer by SVD, with this rank at most (whole differences)",
      NEW_ADAPTER, .field = offsetof(settings, merge.rank), 1, 65536 },
    { INT32, MERGE_MODEL, 0, "--conv-rank", "N", "the same for 3x3 convolutions (as --rank)",
      NEW_ADAPTER, .field = offsetof(settings, merge.conv_rank), 1, 65536 },
    { DOUBLE, MERGE_MODEL, 0, "--error", "X", "factor each layer with the least rank whose relative error is at\n"
      "most X, above 0, below 1", NEW_ADAPTER, .field = offsetof(settings, merge.error), 0, 1 },
    { DOUBLE, MERGE_MODEL, 0, "--clamp", "Q", "then clamp the factors to this quantile of their entries, as kohya\n"
      "does with 0.99", NEW_ADAPTER, .field = offsetof(settings, merge.clamp), 0, 1 },
    { DOUBLE, MERGE_MODEL, 0, "--density", "X", "ties, dare, dare-ties, prune: the share of entries that is kept",
      NEW_ADAPTER, .field = offsetof(settings, merge.density), 0, 1 },
    { WORD, MERGE_MODEL, 0, "--majority", "WAY", "ties, dare-ties: signs are elected by total or frequency (total)",
      NEW_ADAPTER, .field = offsetof(settings, merge.majority), .words = majorities },
    { OTHER, MERGE_MODEL, 0, "--seed", "N", "dare, dare-ties: of the entries that are drawn (0)",
      NEW_ADAPTER, .parse = parse_seed, .brief = 1 },
    { FLOAT, MERGE_MODEL, 0, "--mix", "X", "mixer: how much the factors of one adapter meet those of another: 0 is\n"
      "the sum, 1 the product of sums (1)", NEW_ADAPTER, .field = offsetof(settings, mix), ANY_FLOAT },
    { DOUBLE, MERGE_MODEL, 0, "--mu", "X", "null-space: how far the others give way to the adapter with --role\n"
      "style, else the last: X / (1 + X) of what they do where it reads (0.5)", NEW_ADAPTER,
      .field = offsetof(settings, merge.strength), 1e-9, 1e30 },
    { BIT, MERGE_MODEL, 0, "--factors", NULL, "merge both factors apart, as PEFT does without SVD",
      NEW_ADAPTER, SETS(merge.flags, WEFT_MERGE_FACTORS) },
    { BIT, MERGE_MODEL, 0, "--double-scale", NULL, "count the files' alpha twice, as PEFT's SVD once did",
      NEW_ADAPTER, SETS(merge.flags, WEFT_MERGE_DOUBLE_SCALE) },
    { BIT, MERGE_MODEL, 0, "--kohya", NULL, "sum, concat: weigh both factors, as kohya's merge_lora does",
      NEW_ADAPTER, SETS(merge.flags, WEFT_MERGE_KOHYA) },
    { WORD, MERGE_MODEL, 0, "--dialect", "NAME", "kohya, diffusers or peft, which is a folder (kohya)",
      NEW_ADAPTER, .field = offsetof(settings, dialect), .words = dialects, .brief = 1 },
    { BIT, MERGE_MODEL, 0, "--half", NULL, "write 16-bit floats (32-bit floats)", NEW_ADAPTER, SETS(flags, HALF), .brief = 1 },
    { BIT, MERGE_MODEL, 0, "--report", NULL, "list every layer with its rank, norm and error", NEW_ADAPTER, SETS(flags, REPORT) },

    { HEADING, FUSE, .topic = "fusion", .name = "Concepts fused",
      .value = "how several concepts become one adapter",
      .help = "Least squares on what the layers read where each concept is meant, in place of a sum of differences.\n"
      "Tokens stay in the concepts' files. --report says for each layer how much of the concepts is left out;\n"
      "where much is, give more --prompt and --images." },
    { HEADING, FUSE, .name = "For the concept or adapter just named" },
    { STRING, FUSE, 0, "--called", "TEXT", "what prompts call it, as in '<new1> cat' (its tokens)", USED(called), .brief = 1 },
    { OTHER, FUSE, 'p', "--prompt", "TEXT", "a prompt that speaks of it; may be repeated (made of what it is called)",
      .about = OF_ADAPTER, .parse = parse_fuse_prompt, .brief = 1 },
    { INT32, FUSE, 0, "--images", "N", "gradient, routed: how many it draws, from its prompts in turn (1)", USED(images), 1, 100000 },
    { HEADING, FUSE, .name = "For all of them" },
    { WORD, FUSE, 0, "--by", "METHOD", "gradient: all layers, the text encoders first, on images that each concept\n"
      "draws; constrained: keys and values of cross-attentions, exact on the\n"
      "concepts' words and least away from captions; routed: LoRAs stay side by\n"
      "side, and each layer learns in one call of each which one is meant\n(gradient)", IN(fuse.kind), .words = fusions, .brief = 1 },
    { OTHER, FUSE, 0, "--ordinary", "TEXT", "gradient: a prompt of none of them, where the model is to stay as it is; may\n"
      "be repeated", .parse = parse_ordinary },
    { STRING, FUSE, 0, "--captions", "FILE", "constrained: descriptions of ordinary pictures, a line each, some 200", IN(captions) },
    { BIT, FUSE, 0, "--skip-photo", NULL, "constrained: do not count the words \"photo of a\" at the beginning, as the\n"
      "authors' program does", SETS(fuse.flags, WEFT_FUSE_SKIP_PHOTO) },
    { DOUBLE, FUSE, 0, "--ridge", "X", "gradient: how strongly weights are held where the model has them (1e-3);\n"
      "routed: how strongly the adapters are muted where little tells them\napart (1e-4)",
      IN(fuse.ridge), .low = 1e-12, .high = 1e6 },
    { INT32, FUSE, 's', "--steps", "N", "gradient: denoising steps of an image (20); routed: how many of an image's\n"
      "first calls are recorded (1)", IN(fuse.steps), 1, 1000 },
    { OTHER, FUSE, 0, "--sampler", "SOLVER", "gradient, routed: the solver (dpmpp_2m):\n", .solvers = ANY_SOLVER, .parse = parse_fuse_sampler },
    { OTHER, FUSE, 0, "--seed", "N", "gradient, routed: of the first image, the next has N + 1 (0)", .parse = parse_seed },
    { OTHER, FUSE, 0, "--size", "WxH", "gradient, routed: of the images, in pixels (the size the model was\ntrained at)", .parse = parse_size },
    { OTHER, FUSE, 0, "--budget", "MB", "gradient: fuse so many layers at a time that their sums fit; each group\n"
      "draws the images again (all at once)", .parse = parse_budget },
    { INT32, FUSE, 't', "--threads", "N", "(one for each core); the result is the same for any number", IN(fuse.threads), 1, 128 },
    { HEADING, FUSE, .name = "What is written" },
    { STRING, FUSE, 'o', "--output", "FILE", "the adapter's file; a folder for peft", IN(output), .brief = 1 },
    { INT32, FUSE, 0, "--rank", "N", "factor each layer by SVD, with this rank at most (whole differences)", IN(merge.rank), 1, 65536 },
    { DOUBLE, FUSE, 0, "--error", "X", "factor each layer with the least rank whose relative error is at\n"
      "most X, above 0, below 1", IN(merge.error), 0, 1 },
    { WORD, FUSE, 0, "--dialect", "NAME", "kohya, diffusers or peft (kohya)", IN(dialect), .words = dialects },
    { BIT, FUSE, 0, "--half", NULL, "write 16-bit floats (32-bit floats)", SETS(flags, HALF) },
    { BIT, FUSE, 0, "--report", NULL, "list every layer with its errors", SETS(flags, REPORT), .brief = 1 },

    { HEADING, TRAIN, .topic = "training", .name = "Training",
      .value = "pictures, what is written, checkpoints, samples",
      .help = "weft train --list names the recipes; where nothing is said each has numbers of its own, which are\n"
      "shown before the first step. Files beside PATH.safetensors: PATH.checkpoint.safetensors until it is\n"
      "done, PATH.loss.png and PATH.loss.csv, PATH-samples/, PATH-class/." },
    { BIT, TRAIN, 0, "--list", NULL, "name the recipes", SETS(flags, LIST), .brief = 1 },
    { STRING, TRAIN, 'm', "--model", "MODEL", "the model that learns: a folder or a single file, which stays as it is",
      IN(against), .brief = 1 },
    { STRING, TRAIN, 'd', "--data", "FOLDER", "pictures to learn from, PNG and JPEG; the caption of cat.png is in cat.txt",
      TRAINS(data), .brief = 1 },
    { STRING, TRAIN, 'p', "--prompt", "TEXT", "the caption of pictures without a .txt; {} is the words that are learned,\n"
      "{object} or {style} one of many sentences with them ('a photo of {}' where\nwords are learned, {object} of textual-inversion)", TRAINS(prompt), .brief = 1 },
    { STRING, TRAIN, 'o', "--output", "PATH", "what is written: a .safetensors file, or a folder (--dialect peft; of full,\n"
      "the whole model)", IN(output), .brief = 1 },
    { WORD, TRAIN, 0, "--dialect", "NAME", "of an adapter: kohya, diffusers or peft, which is a folder (diffusers; kohya\nof loha, lokr and full)",
      IN(dialect), .words = dialects, .brief = 1 },
    { BIT, TRAIN, 0, "--half", NULL, "write 16-bit floats (32-bit floats)", SETS(flags, HALF), .brief = 1 },
    { STRING, TRAIN, 0, "--title", "TEXT", "of what is written, in its metadata (the recipe's)", LEARNS(name) },
    { HEADING, TRAIN, .name = "What must stay as it is: class pictures (prior preservation)" },
    { STRING, TRAIN, 0, "--class-data", "FOLDER", "pictures of the class, with captions or --class-prompt (PATH-class/)",
      TRAINS(class_data), .brief = 1 },
    { STRING, TRAIN, 0, "--class-prompt", "TEXT", "what they show, as in 'a cat'; those that are missing the model draws",
      TRAINS(class_prompt), .brief = 1 },
    { INT32, TRAIN, 0, "--class-count", "N", "draw so many before training, less those that are there (100; with\n"
      "--class-data none)", TRAINS(class_count), 1, 100000, .brief = 1 },
    { DOUBLE, TRAIN, 0, "--prior-weight", "X", "what their loss counts (1)", LEARNS(prior_weight), 0, 1e3, .none = 1 },
    { HEADING, TRAIN, .name = "How a picture is cut" },
    { OTHER, TRAIN, 0, "--size", "WxH", "to train at, in pixels (the size the model was trained at)", .parse = parse_size, .brief = 1 },
    { BIT, TRAIN, 0, "--flip", NULL, "mirror half of the pictures", TRAIN_SETS(WEFT_TRAIN_FLIP) },
    { BIT, TRAIN, 0, "--random-crop", NULL, "crop anywhere (in the centre)", TRAIN_SETS(WEFT_TRAIN_RANDOM_CROP) },
    { BIT, TRAIN, 0, "--small", NULL, "enlarge pictures that are smaller than that, which are refused else",
      TRAIN_SETS(WEFT_TRAIN_SMALL) },
    { HEADING, TRAIN, .name = "Checkpoints" },
    { BIT, TRAIN, 0, "--resume", NULL, "go on from the checkpoint, with the same command line", SETS(flags, RESUME), .brief = 1 },
    { STRING, TRAIN, 0, "--checkpoint", "FILE", "where it is (PATH.checkpoint.safetensors)", TRAINS(checkpoint) },
    { INT32, TRAIN, 0, "--checkpoint-every", "N", "write it every N steps; 0: when stopped only (every minute, or more seldom\n"
      "where writing it takes long)", TRAINS(checkpoint_every), 0, 1e9 },
    { BIT, TRAIN, 0, "--keep", NULL, "keep the checkpoint when training is done (it goes)", SETS(flags, KEEP) },
    { INT32, TRAIN, 0, "--stop-after", "N", "stop after N steps of this time, with a checkpoint", TRAINS(stop_after), 1, 1e9 },
    { HEADING, TRAIN, .name = "Seeing how it goes" },
    { INT32, TRAIN, 0, "--sample-every", "N", "draw every N steps, and at the end, into PATH-samples/", TRAINS(sample_every), 1, 1e9, .brief = 1 },
    { OTHER, TRAIN, 0, "--sample-prompt", "TEXT", "what is drawn, always from the same noise; may be repeated",
      .parse = parse_sample_prompt, .brief = 1 },
    { STRING, TRAIN, 0, "--curve", "PNG", "where the loss is drawn at the end (PATH.loss.png)", TRAINS(curve) },

    { HEADING, TRAIN, .topic = "recipe", .name = "What is trained",
      .value = "layers, ranks, words, and what recipes have of their own" },
    { INT32, TRAIN, 0, "--rank", "N", "of pairs (the recipe's)", LEARNS(rank), 1, 4096, .brief = 1 },
    { DOUBLE, TRAIN, 0, "--alpha", "X", "of pairs; they act times alpha / rank (the rank)", LEARNS(alpha), 1e-6, 1e6, .brief = 1 },
    { BIT, TRAIN, 0, "--text", NULL, "the text encoders' layers too", TRAIN_SETS(WEFT_TRAIN_TEXT), .brief = 1 },
    { BIT, TRAIN, 0, "--feed", NULL, "feed-forward layers and projections too", TRAIN_SETS(WEFT_TRAIN_FEED), .brief = 1 },
    { BIT, TRAIN, 0, "--conv", NULL, "convolutions of the resnets too", TRAIN_SETS(WEFT_TRAIN_CONV), .brief = 1 },
    { STRING, TRAIN, 0, "--modules", "PATTERNS", "these layers in place of that: names with * and ?, separated by commas,\n"
      "as in 'unet.*.attn2.to_?,unet.*.ff.*'", LEARNS(modules) },
    { INT32, TRAIN, 0, "--factor", "N", "lokr: of the Kronecker product (as even as it can be)", LEARNS(factor), 1, 4096 },
    { BIT, TRAIN, 0, "--both", NULL, "lokr: the first factor is a product of two matrices too", TRAIN_SETS(WEFT_TRAIN_BOTH) },
    { BIT, TRAIN, 0, "--exact-norm", NULL, "dora: the gradient of the row lengths too", TRAIN_SETS(WEFT_TRAIN_EXACT_NORM) },
    { DOUBLE, TRAIN, 0, "--ema", "X", "full: write the mean of the weights, with this decay; 0: none", LEARNS(ema), 0, 0.999999, .none = 1 },
    { STRING, TRAIN, 0, "--tokens", "LIST", "words to learn, separated by commas, as in '<cup>'", LEARNS(tokens), .brief = 1 },
    { STRING, TRAIN, 0, "--initial", "LIST", "a word of the vocabulary that each begins as", LEARNS(initial), .brief = 1 },
    { INT32, TRAIN, 0, "--vectors", "N", "of each word (the recipe's)", LEARNS(vectors), 1, 64 },
    { BIT, TRAIN, 0, "--cross", NULL, "custom-diffusion: queries and outputs too", TRAIN_SETS(WEFT_TRAIN_CROSS) },
    { BIT, TRAIN, 0, "--resize", NULL, "custom-diffusion: its changes of size", TRAIN_SETS(WEFT_TRAIN_RESIZE) },
    { STRING, TRAIN, 0, "--content", "FILE", "ziplora: the adapter of the subject; --data has its pictures", TRAINS(content) },
    { STRING, TRAIN, 0, "--style", "FILE", "ziplora: the adapter of the style", TRAINS(style) },
    { STRING, TRAIN, 0, "--style-data", "FOLDER", "ziplora: pictures of the style", TRAINS(class_data) },
    { STRING, TRAIN, 0, "--style-prompt", "TEXT", "ziplora: the caption of those without a .txt", TRAINS(class_prompt) },
    { DOUBLE, TRAIN, 0, "--similarity", "X", "ziplora: weight of the third term (0.01)", LEARNS(similarity), 0, 1e6, .none = 1 },
    { BIT, TRAIN, 0, "--zip-code", NULL, "ziplora: losses as the known program has them", TRAIN_SETS(WEFT_TRAIN_ZIP_CODE) },

    { HEADING, TRAIN, .topic = "learning", .name = "How it learns",
      .value = "steps, rates, the optimiser, the loss, memory",
      .help = "Numbers that are not given are the recipe's." },
    { INT32, TRAIN, 's', "--steps", "N", "steps of the training", LEARNS(steps), 1, 1e9, .brief = 1 },
    { INT32, TRAIN, 'b', "--batch", "N", "pictures at once; with class pictures as many of them besides", LEARNS(batch), 1, 512, .brief = 1 },
    { INT32, TRAIN, 0, "--accumulate", "N", "batches of a step", LEARNS(accumulate), 1, 65536 },
    { DOUBLE, TRAIN, 'r', "--rate", "X", "learning rate", LEARNS(rate), 1e-12, 1e3, .brief = 1 },
    { DOUBLE, TRAIN, 0, "--text-rate", "X", "of the text encoders' layers (the recipe's, or as --rate); 0: none", LEARNS(text_rate), 0, 1e3, .none = 1 },
    { DOUBLE, TRAIN, 0, "--token-rate", "X", "of words (the recipe's, or as --rate); 0: none", LEARNS(token_rate), 0, 1e3, .none = 1 },
    { WORD, TRAIN, 0, "--rates", "COURSE", "constant; cosine or linear, down to 0 at the last step", LEARNS(rates), .words = courses },
    { INT32, TRAIN, 0, "--warmup", "N", "steps in which the rate rises", LEARNS(warmup), 0, 1e9, .none = 1 },
    { WORD, TRAIN, 0, "--optimiser", "NAME", "adamw or sgd", LEARNS(optimiser), .words = optimisers },
    { DOUBLE, TRAIN, 0, "--beta1", "X", "of adamw; the momentum of sgd", LEARNS(beta1), 0, 0.999999, .none = 1 },
    { DOUBLE, TRAIN, 0, "--beta2", "X", "of adamw", LEARNS(beta2), 0, 0.999999, .none = 1 },
    { DOUBLE, TRAIN, 0, "--adam-epsilon", "X", "of adamw", LEARNS(epsilon), 1e-30, 1 },
    { DOUBLE, TRAIN, 0, "--weight-decay", "X", "0: none", LEARNS(weight_decay), 0, 1e3, .none = 1 },
    { DOUBLE, TRAIN, 0, "--clip", "X", "largest norm of all gradients; 0: no limit (1)", LEARNS(clip), 0, 1e9, .none = 1 },
    { DOUBLE, TRAIN, 0, "--noise-offset", "X", "shift of each channel's noise; 0: none", LEARNS(noise_offset), 0, 1, .none = 1 },
    { DOUBLE, TRAIN, 0, "--min-snr", "X", "gamma of Min-SNR weighting, as in 5; 0: none", LEARNS(min_snr), 0, 1e6, .none = 1 },
    { DOUBLE, TRAIN, 0, "--dropout", "X", "share of captions that are left empty; 0: none", LEARNS(dropout), 0, 1, .none = 1 },
    { OTHER, TRAIN, 0, "--seed", "N", "of all that is drawn by lot (0)", .parse = parse_seed, .brief = 1 },
    { BIT, TRAIN, 0, "--recompute", NULL, "keep less and compute it twice: gradient checkpointing, with the same bits",
      TRAIN_SETS(WEFT_TRAIN_RECOMPUTE), .brief = 1 },
    { INT32, TRAIN, 't', "--threads", "N", "(one for each core); the result is the same for any number", LEARNS(threads), 1, 128 },

    { HEADING, INSPECT | CONVERT, .topic = "file", .name = "Looking at a file",
      .value = "against a model, key by key" },
    { STRING, INSPECT, 'm', "--model", "MODEL", "check the adapter against this model, key by key; the exit\n"
      "status is 1 when something does not fit", IN(against), .brief = 1 },
    { BIT, INSPECT, 'k', "--keys", NULL, "list every module with rank, alpha and shape", SETS(flags, KEYS), .brief = 1 },
    { FLOAT, INSPECT | CONVERT, 0, "--adapter-alpha", "X", "the adapter's alpha, where nothing in its file says one",
      IN(opening.alpha), ANY_FLOAT, .not_zero = 1 },
    { FLOAT, INSPECT | CONVERT, 0, "--adapter-scale", "X", "or its scale, which is alpha / rank",
      IN(opening.scale), ANY_FLOAT, .not_zero = 1 },

    { HEADING, ALL, .topic = "model", .name = "The model",
      .value = "variants, tokenizers, a VAE, a configuration, how files are read" },
    { STRING, ALL, 0, "--variant", "NAME", "of the model's weight files, as in fp16 (the plain file)",
      IN(open.variant) },
    { STRING, ALL, 0, "--tokenizer", "PATH", "instead of the model's own, which single files do not have: a folder,\n"
      "a merges.txt or OpenAI's bpe_simple_vocab_16e6.txt.gz", IN(open.tokenizer) },
    { STRING, ALL, 0, "--tokenizer-2", "PATH", "the same for its second text encoder", IN(open.tokenizer_2) },
    { STRING, ALL, 0, "--vae", "PATH", "a VAE instead of the model's own, a file or a folder", IN(open.vae) },
    { STRING, ALL, 0, "--config", "DIR", "for a single file: a diffusers folder whose config.json files describe it\n"
      "(the published model that its shapes point to)", IN(open.config) },
    { BIT, ALL, 0, "--v-prediction", NULL, "it predicts v, whatever its files say", SETS(open.flags, WEFT_OPEN_V) },
    { BIT, ALL, 0, "--epsilon", NULL, "it predicts the noise, whatever its files say", SETS(open.flags, WEFT_OPEN_EPSILON) },
    { WORD, RUNNING, 0, "--arithmetic", "NAME", "f32, or bf16: the large products of denoiser and VAE round their factors\n"
      "to bfloat16, which is faster where the CPU has AVX512-BF16 (f32)", IN(open.arithmetic), .words = arithmetics },
    { BIT, RUNNING, 0, "--emulate", NULL, "compute bf16 where the CPU does not have it, slowly",
      SETS(open.flags, WEFT_OPEN_EMULATE) },
    { BIT, ALL, 0, "--copy", NULL, "copy the files into memory, so that they may change or vanish; as it is\n"
      "where they lie on a network or removable file system", SETS(flags, COPY) },
    { BIT, ALL, 0, "--map", NULL, "map the files there too, which saves the memory", SETS(flags, MAP) },

    { HEADING, ALL, .topic = "other", .name = "Other",
      .value = "help, and silence" },
    { BIT, TAKING | CONVERT | TRAIN, 'q', "--quiet", NULL, "no progress, and no word on success", SETS(flags, QUIET), .brief = 1 },
    { BIT, ALL, 'h', "--help", NULL, "this text", SETS(flags, HELP), .brief = 1 },
};
enum { ROWS = sizeof rows / sizeof rows[0] };

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

/* The file of "FILE[:WEIGHT]", to be freed, and its weight. */
static char *parse_weighted(const char *name, const char *value, float *weight)
{
    const char *colon = strrchr(value, ':');
    size_t length = colon ? (size_t)(colon - value) : strlen(value);
    char *file;

    if (length == 0) misuse("%s: '%s' names no file", name, value);
    file = zeroed(length + 1, 1);
    memcpy(file, value, length);
    *weight = 1.0f;
    if (colon) {
        char *end;
        double w = strtod(colon + 1, &end);
        if (end == colon + 1 || *end || !isfinite(w) || fabs(w) > 1e6)
            misuse("%s %s: '%s' is not a weight", name, value, colon + 1);
        *weight = (float)w;
    }
    return file;
}

static void parse_prompt(settings *s, const char *name, const char *value)
{
    (void)name;
    s->prompts[s->prompt_count++] = value;
    s->prompt = s->prompts[0];
}

/* WHEN:TEXT, where TEXT may have colons itself. */
static void parse_change(settings *s, const char *name, const char *value)
{
    change_use *c = &s->changes[s->change_count];
    const char *colon = strchr(value, ':');
    size_t digits = strspn(value, "0123456789."), length = colon ? (size_t)(colon - value) : 0;
    int negative = strcmp(name, "--negative-from") == 0;

    if (length == 0 || digits != length) misuse("%s: '%s' is not like 8:TEXT or 0.4:TEXT", name, value);
    if (!negative && s->prompt_count == 0) misuse("%s is for the --prompt before it, and there is none", name);
    char *when = zeroed(length + 1, 1);
    memcpy(when, value, length);
    if (strchr(when, '.')) number(name, when, 0, 1);
    else whole_number(name, when, 1, 1e6);
    *c = (change_use){ negative ? -1 : (int32_t)s->prompt_count - 1, when, colon + 1 };
    s->change_count++;
}

/* A path of that length, and behind a colon what describes the picture. */
static void set_reference(settings *s, const char *value, size_t path)
{
    free(s->reference);
    s->reference = memcpy(zeroed(path + 1, 1), value, path);
    s->reference_text = value[path] == ':' ? value + path + 1 : "";
}

static void parse_reference(settings *s, const char *name, const char *value)
{
    size_t path = strcspn(value, ":");

    if (path == 0) misuse("%s: '%s' names no file", name, value);
    set_reference(s, value, path);
    s->flags |= ALIGN;
}

static void parse_align_without(settings *s, const char *name, const char *value)
{
    static const word parts[] = { { "group-norm", WEFT_ALIGN_NO_GROUP_NORM }, { "attention", WEFT_ALIGN_NO_ATTENTION },
                                  { "queries", WEFT_ALIGN_NO_QUERIES }, { "keys", WEFT_ALIGN_NO_KEYS }, { NULL, 0 } };

    for (const char *c = value;; c++) {
        size_t length = strcspn(c, ",");
        const word *w = parts;
        while (w->name && (strlen(w->name) != length || strncmp(w->name, c, length) != 0)) w++;
        if (w->name == NULL) misuse("%s: '%s' is not a list of group-norm, attention, queries and keys", name, value);
        s->align.flags |= (uint32_t)w->value;
        c += length;
        if (*c == '\0') break;
    }
}

static void parse_adapter(settings *s, const char *name, const char *value)
{
    adapter_use *use = &s->adapters[s->adapter_count++];

    weft_add_options_init(&use->how, sizeof use->how);
    weft_adapter_options_init(&use->opening, sizeof use->opening);
    use->opening.log = warn_line;
    use->region_text = 1.0f;
    use->curve_shape = WEFT_CURVE_LINEAR;
    use->file = parse_weighted(name, value, &use->weight);
}

static void parse_ip_adapter(settings *s, const char *name, const char *value)
{
    image_use *use = &s->images[s->image_count++];
    use->file = parse_weighted(name, value, &use->weight);
}

static void parse_picture(settings *s, const char *name, const char *value)
{
    image_use *use = &s->images[s->image_count - 1];
    const char **more = realloc(use->pictures, (use->count + 1) * sizeof *more);

    (void)name;
    if (more == NULL) fail("out of memory");
    use->pictures = more;
    use->pictures[use->count++] = value;
}

static void parse_concept(settings *s, const char *name, const char *value)
{
    parse_adapter(s, name, value);
    s->adapters[s->adapter_count - 1].is_concept = 1;
    weft_concept_options_init(&s->adapters[s->adapter_count - 1].tokens, sizeof s->adapters[s->adapter_count - 1].tokens);
}

/* A region of the adapter just named, or of none. What follows the first colon is its prompt. */
static void parse_region(settings *s, const char *name, const char *value)
{
    region_use *r = &s->regions[s->region_count++];
    size_t length = strcspn(value, ":");

    if (length == 0) misuse("%s: '%s' names no file", name, value);
    r->file = zeroed(length + 1, 1);
    memcpy(r->file, value, length);
    if (value[length] == ':') r->prompt = value + length + 1;
    r->use = (int)s->adapter_count - 1;
    if (r->use < 0) {
        if (r->prompt == NULL)
            misuse("%s %s: before it stands no --adapter that could act there, and it has no prompt: %s %s:TEXT", name,
                   value, name, value);
        return;
    }
    if (s->adapters[r->use].region != NULL)
        misuse("%s %s: the adapter before it has %s already; a region of no adapter comes before the first one", name,
               value, s->adapters[r->use].region);
    s->adapters[r->use].region = r->file;
}

/* Places with a point in them are shares. */
static weft_curve_point *parse_points(const char *name, const char *value, size_t *count, uint32_t *flags)
{
    weft_curve_point *points = zeroed(strlen(value) + 1, sizeof *points);
    char *end;

    *count = 0;
    for (const char *c = value;; c = end + 1) {
        weft_curve_point *p = &points[*count];
        size_t place = strcspn(c, "=,");
        uint32_t share = memchr(c, '.', place) ? WEFT_CURVE_AT_SHARE : 0;
        weft_curve_point_init(p, sizeof *p);
        p->at = strtod(c, &end);
        if (end != c + place || *end != '=') misuse("%s: '%s' is not like 0=0,8=1 or 0.0=0,0.4=1", name, value);
        p->value = strtod(c = end + 1, &end);
        if (end == c || (*end && *end != ',')) misuse("%s: '%s' is not like 0=0,8=1 or 0.0=0,0.4=1", name, value);
        if ((*count)++ > 0 && share != *flags)
            misuse("%s: '%s' has calls and shares of all calls: one or the other", name, value);
        *flags = share;
        if (*end == '\0') break;
    }
    return points;
}

static void parse_curve(settings *s, const char *name, const char *value)
{
    adapter_use *use = &s->adapters[s->adapter_count - 1];

    free(use->curve);
    use->curve = parse_points(name, value, &use->curve_points, &use->curve_flags);
}

static void parse_image_curve(settings *s, const char *name, const char *value)
{
    image_use *use = &s->images[s->image_count - 1];

    free(use->curve);
    use->curve = parse_points(name, value, &use->curve_points, &use->curve_flags);
    for (size_t i = 0; i < use->curve_points; i++) use->curve[i].shape = WEFT_CURVE_LINEAR;
}

/* A number with a point in it is a share. */
static void parse_phase(settings *s, const char *name, const char *value)
{
    if (s->phase_count == PHASES_MAX)
        misuse("%s: a command line has at most %d phases", name, PHASES_MAX);
    int share = strchr(value, '.') != NULL;
    double when = share ? number(name, value, 0, 1) : whole_number(name, value, 1, 1e6);
    phase_use *p = begin_phase(s);
    if (share) {
        p->begin.flags |= WEFT_PHASE_AT;
        p->begin.at = when;
    } else {
        p->begin.first = (int32_t)when;
    }
}

/* "A", "B" .., as explain calls adapters; -1 if it is no such name. *end is what follows. */
static int32_t adapter_named(const char *value, const char **end)
{
    long round = 0;

    *end = value;
    if (*value < 'A' || *value > 'Z') return -1;
    *end = value + 1;
    if (value[1] >= '1' && value[1] <= '9') {
        char *after;
        round = strtol(value + 1, &after, 10);
        *end = after;
    }
    return round > 1000 ? -1 : (int32_t)(26 * round + (*value - 'A'));
}

static void parse_order(settings *s, const char *name, const char *value)
{
    phase_use *p = &s->phases[s->phase_count - 1];
    const char *end;

    free(p->order);
    p->order = zeroed(strlen(value) + 1, sizeof *p->order);
    p->taking_turns.order = p->order;
    p->taking_turns.order_len = 0;
    for (const char *c = value;; c = end + 1) {
        int32_t a = adapter_named(c, &end);
        if (a < 0 || (*end && *end != ',')) misuse("%s: '%s' is not a list of turns like B,A,B", name, value);
        p->order[p->taking_turns.order_len++] = a;
        if (*end == '\0') break;
    }
}

static void parse_last_to(settings *s, const char *name, const char *value)
{
    weft_switch_options *o = &s->phases[s->phase_count - 1].taking_turns;
    const char *end;

    o->last_adapter = 0;
    o->last_role = strcmp(value, "content") == 0 ? WEFT_ROLE_CONTENT : strcmp(value, "style") == 0 ? WEFT_ROLE_STYLE : 0;
    if (o->last_role) return;
    o->last_adapter = adapter_named(value, &end);
    if (o->last_adapter < 0 || *end) misuse("%s: '%s' is not an adapter like A or B, nor content or style", name, value);
}

static void parse_keep(settings *s, const char *name, const char *value)
{
    phase_use *p = &s->phases[s->phase_count - 1];
    p->loratorio.keep = p->subbands.keep = (int32_t)whole_number(name, value, 1, 1024);
}

/* The solvers of the library that have a trait, or ANY_SOLVER, as in "ddim, euler or heun". */
static const char *sampler_names(uint32_t trait)
{
    static char text[512];
    const char *names[32];
    size_t count = 0, used = 0;
    int32_t kind;

    for (size_t i = 0; count < 32 && (kind = weft_sampler_kind_at(i)) != 0; i++)
        if (trait == ANY_SOLVER || (weft_sampler_traits(kind) & trait))
            names[count++] = weft_sampler_name(kind);
    for (size_t i = 0; i < count && used < sizeof text; i++) {
        const char *before = i == 0 ? "" : i + 1 == count ? " or " : ", ";
        used += (size_t)snprintf(text + used, sizeof text - used, "%s%s", before, names[i]);
    }
    return text;
}

static void parse_sampler(settings *s, const char *name, const char *value)
{
    weft_sampler_options named = WEFT_SAMPLER_OPTIONS_INIT;

    if (weft_sampler_options_named(value, &named, &err) != WEFT_OK) {
        if (strstr(err.text, "nearest")) misuse("%s: %s", name, err.text);
        misuse("%s: there is no '%s', only %s", name, value, sampler_names(ANY_SOLVER));
    }
    if (named.kind == 0) misuse("%s: '%s' is a schedule: give it to --schedule", name, value);
    s->sampling.kind = named.kind;
    s->sampling.solver_type = named.solver_type;
    if (named.sigma_schedule != WEFT_SCHEDULE_DEFAULT && !was_given("--schedule")) /* which says more */
        s->sampling.sigma_schedule = named.sigma_schedule;
}

static void parse_fuse_sampler(settings *s, const char *name, const char *value)
{
    s->fuse.sampler = weft_sampler_find(value);
    if (s->fuse.sampler == 0) misuse("%s: there is no '%s', only %s", name, value, sampler_names(ANY_SOLVER));
}

/* One more text in a list. */
static void append_text(const char ***list, size_t *count, const char *text)
{
    const char **more = zeroed(*count + 1, sizeof *more);

    for (size_t i = 0; i < *count; i++) more[i] = (*list)[i];
    more[(*count)++] = text;
    free(*list);
    *list = more;
}

static void parse_fuse_prompt(settings *s, const char *name, const char *value)
{
    adapter_use *use = &s->adapters[s->adapter_count - 1];

    (void)name;
    append_text(&use->prompts, &use->prompt_count, value);
}

static void parse_ordinary(settings *s, const char *name, const char *value)
{
    (void)name;
    append_text(&s->ordinary, &s->ordinary_count, value);
}

static void parse_sample_prompt(settings *s, const char *name, const char *value)
{
    (void)name;
    append_text(&s->train.sample_prompts, &s->train.sample_count, value);
}

static void parse_budget(settings *s, const char *name, const char *value)
{
    s->fuse.budget = (uint64_t)(1e6 * whole_number(name, value, 1, 1e9));
}

static void parse_schedule(settings *s, const char *name, const char *value)
{
    weft_sampler_options named = WEFT_SAMPLER_OPTIONS_INIT;

    if (weft_sampler_options_named(value, &named, &err) != WEFT_OK || named.kind != 0) {
        char text[512] = "";
        const char *known;
        for (int32_t i = 0; (known = weft_sampler_schedule_name(i)) != NULL; i++)
            snprintf(text + strlen(text), sizeof text - strlen(text), "%s%s", i ? ", " : "", known);
        misuse("%s: there is no '%s', only %s", name, value, text);
    }
    s->sampling.sigma_schedule = named.sigma_schedule;
}

static void parse_sigmas(settings *s, const char *name, const char *value)
{
    free(s->sigmas);
    s->sigmas = floats(strlen(value) + 1);
    s->sigma_count = 0;
    for (const char *c = value;; c++) {
        char *end;
        double v = strtod(c, &end);
        if (end == c || (*end && *end != ',') || !(v > 0) || v > 1e6)
            misuse("%s: '%s' is not a list of noise levels like 14.6,5,2,0.7", name, value);
        s->sigmas[s->sigma_count++] = (float)v;
        if (*end == '\0') break;
        c = end;
    }
    s->steps = (int32_t)s->sigma_count;
}

static void parse_word(int32_t *out, const row *o, const char *value)
{
    char wanted[128] = "";
    for (const word *w = o->words; w->name; w++) {
        if (strcmp(w->name, value) == 0) { *out = w->value; return; }
        if (w != o->words) strcat(wanted, w[1].name ? ", " : " or ");
        strcat(wanted, w->name);
    }
    misuse("%s: there is no '%s', only %s", o->name, value, wanted);
}

static void set(settings *s, const row *o, const char *value)
{
    char *base = (char *)s;

    if (o->about == OF_ADAPTER || o->about == OF_CONCEPT) {
        if (s->adapter_count == 0)
            misuse("%s is for the --%s before it, and there is none", o->name,
                   o->about == OF_CONCEPT ? "concept" : "adapter");
        if (o->about == OF_CONCEPT && !s->adapters[s->adapter_count - 1].is_concept)
            misuse("%s is for a --concept, and before it stands an --adapter", o->name);
        base = (char *)&s->adapters[s->adapter_count - 1];
    }
    if (o->about == OF_PHASE) base = (char *)&s->phases[s->phase_count - 1];
    if (o->about == OF_IMAGE) {
        if (s->image_count == 0) misuse("%s is for the --ip-adapter before it, and there is none", o->name);
        base = (char *)&s->images[s->image_count - 1];
    }
    char *field = base + o->field;
    if (o->bit) *(uint32_t *)(void *)(base + o->flags) |= o->bit;
    switch (o->kind) {
    case INT32:
        *(int32_t *)(void *)field = (int32_t)whole_number(o->name, value, o->low, o->high);
        if (o->none && *(int32_t *)(void *)field == 0) *(int32_t *)(void *)field = -1;
        break;
    case INT64:  *(int64_t *)(void *)field = (int64_t)whole_number(o->name, value, o->low, o->high); break;
    case FLOAT:
        *(float *)(void *)field = (float)number(o->name, value, o->low, o->high);
        if (o->not_zero && *(float *)(void *)field == 0) misuse("%s: 0 leaves nothing of the adapter", o->name);
        break;
    case DOUBLE:
        *(double *)(void *)field = number(o->name, value, o->low, o->high);
        if (o->none && *(double *)(void *)field == 0) *(double *)(void *)field = -1;
        break;
    case STRING: *(const char **)(void *)field = value; break;
    case WORD:   parse_word((int32_t *)(void *)field, o, value); break;
    case OTHER:  o->parse(s, o->name, value); break;
    default:     break;
    }
}

int is_option_of_train(const char *name, size_t length)
{
    for (const row *o = rows; o < rows + ROWS; o++)
        if (o->kind != HEADING && (o->used_by & TRAIN) && strlen(o->name + 2) == length &&
            strncmp(o->name + 2, name, length) == 0)
            return 1;
    return 0;
}

const char *word_of(const word *words, int32_t value)
{
    while (words->name && words->value != value) words++;
    return words->name ? words->name : "?";
}

/* What was said, to see at the end whether it can have an effect: for each option the phases in
 * which it was, a bit each. */
static uint32_t given[ROWS];

static int was_given_in(const char *name, size_t phase)
{
    for (size_t i = 0; i < ROWS; i++)
        if ((given[i] >> phase & 1) && strcmp(rows[i].name, name) == 0) return 1;
    return 0;
}

static int was_given(const char *name)
{
    for (size_t i = 0; i < PHASES_MAX; i++)
        if (was_given_in(name, i)) return 1;
    return 0;
}

/* "composite, loratorio or subbands". */
static const char *names_of_methods(int bits)
{
    static char text[128];
    text[0] = '\0';
    for (const word *w = methods; w->name; w++) {
        if (!(bits & w->value)) continue;
        bits &= ~w->value;
        snprintf(text + strlen(text), sizeof text - strlen(text), "%s%s", *text == '\0' ? "" : bits ? ", " : " or ",
                 w->name);
    }
    return text;
}

static void refuse_idle_options_of(const phase_use *p, size_t phase)
{
    static const char *const of_scores[] = { "--gamma", "--granularity", "--score", "--top-k", "--wrap" };

    for (const row *o = rows; o < rows + ROWS; o++)
        if (o->about == OF_PHASE && o->method && !(o->method & p->method) &&
            (given[o - rows] >> phase & 1))
            misuse("%s is of %s, and the method is %s", o->name, names_of_methods(o->method),
                   word_of(methods, p->method));
    if ((was_given_in("--c1", phase) || was_given_in("--c2", phase)) && !was_given_in("--cached", phase))
        misuse("--c1 and --c2 are of --cached");
    if (was_given_in("--last-to", phase) && !was_given_in("--last", phase))
        misuse("--last-to is about the calls of --last");
    int custom = p->method == KLORA && p->klora.pattern == WEFT_KLORA_CUSTOM;
    int curve = was_given_in("--alpha", phase) || was_given_in("--beta", phase) ||
                was_given_in("--modulus", phase);
    if (curve && !custom) misuse("--alpha, --beta and --modulus are of --pattern custom");
    if (custom && !(was_given_in("--alpha", phase) && was_given_in("--beta", phase)))
        misuse("--pattern custom needs --alpha and --beta");
    if (was_given_in("--fixed-share", phase) && p->klora.pattern != WEFT_KLORA_FIXED)
        misuse("--fixed-share is of --pattern fixed");
    if (p->klora.pattern == WEFT_KLORA_FIXED)
        for (size_t i = 0; i < sizeof of_scores / sizeof of_scores[0]; i++)
            if (was_given_in(of_scores[i], phase)) misuse("--pattern fixed scores nothing: not with %s", of_scores[i]);
    if (was_given_in("--top-k", phase) && p->klora.score == WEFT_KLORA_ENERGY)
        misuse("--top-k is of --score topk");
    if (was_given_in("--paper-beta", phase) && p->klora.pattern != WEFT_KLORA_S_STAR)
        misuse("--paper-beta is of --pattern s_star");
}

/* Options of several pictures, where there is one; and what they leave no room for. */
static void refuse_idle_pictures(const settings *s)
{
    static const char *const of_align[] = { "--shared-score-scale", "--shared-score-shift", "--only-self-level",
                                            "--adain-values", "--full-attention-share", "--align-without" };
    size_t pictures = s->prompt_count > (size_t)s->run.batch ? s->prompt_count : (size_t)s->run.batch;

    for (size_t i = 0; i < sizeof of_align / sizeof of_align[0]; i++)
        if (was_given(of_align[i]) && !(s->flags & ALIGN)) misuse("%s is of --align", of_align[i]);
    if (was_given("--reference-by") && s->reference == NULL) misuse("--reference-by is of --reference");
    if (s->prompt_count > 1 && s->run.batch > 0)
        misuse("--batch %d: there are %zu --prompt, and each makes a picture", (int)s->run.batch, s->prompt_count);
    if (s->prompt_count > 0 && (s->flags & ALIGN) && s->reference == NULL && pictures < 2)
        misuse("--align needs two pictures: several --prompt, --batch, or a --reference");
    if (pictures > 1 && s->latents) misuse("--latents is the start of one picture, and there are %zu", pictures);
    if (s->reference && (s->latents || s->mask))
        misuse("--reference is not for %s", s->latents ? "--latents" : "--mask");
    if (s->conditioning && (s->reference || s->change_count || pictures > 1))
        misuse("%s is of prompts, and --conditioning stands in for them",
               s->reference ? "--reference" : s->change_count ? "--prompt-from" : "--batch");
    if ((s->flags & ISOLATE) && (pictures > 1 || s->reference || s->change_count))
        for (size_t i = 0; i < s->region_count; i++)
            if (s->regions[i].prompt == NULL)
                misuse("--region %s: with several texts of the whole image it needs one of its own: %s:TEXT",
                       s->regions[i].file, s->regions[i].file);
}

static void refuse_idle_options(const settings *s)
{
    int used = 0;
    for (size_t i = 0; i < s->phase_count; i++) {
        refuse_idle_options_of(&s->phases[i], i);
        used |= s->phases[i].method;
        if (s->phases[i].taking_turns.flags & WEFT_SWITCH_SHARES) used |= AVERAGING; /* they use --share too */
    }
    for (const row *o = rows; o < rows + ROWS; o++)
        if (o->about == OF_ADAPTER && o->method && !(o->method & used) && given[o - rows])
            misuse("%s is of %s, and the method is %s", o->name, names_of_methods(o->method),
                   word_of(methods, s->phases[0].method));
    for (size_t i = 0; i < s->adapter_count; i++)
        if (s->adapters[i].is_concept && (s->adapters[i].opening.alpha != 0 || s->adapters[i].opening.scale != 0))
            misuse("%s is for an --adapter, and before it stands a --concept",
                   s->adapters[i].opening.alpha != 0 ? "--adapter-alpha" : "--adapter-scale");
    if (s->open.flags & WEFT_OPEN_EMULATE && s->open.arithmetic == WEFT_ARITHMETIC_F32)
        misuse("--emulate is of --arithmetic bf16");
    if (s->open.flags & WEFT_OPEN_EPSILON && s->open.flags & WEFT_OPEN_V)
        misuse("--epsilon and --v-prediction: a model predicts one or the other");
    if (was_given("--measure") && !was_given("--cached") && s->plan_file == NULL) misuse("--measure is of --cached");
    refuse_idle_pictures(s);
    if (s->image_encoder && s->image_count == 0 && s->plan_file == NULL)
        misuse("--image-encoder is of --ip-adapter, and there is none");
    if ((s->flags & ISOLATE) && s->region_count < 2) misuse("--isolate needs two regions, and there are %zu", s->region_count);
    uint32_t traits = weft_sampler_traits(s->sampling.kind);
    int scheduled = s->sampling.sigma_schedule != WEFT_SCHEDULE_DEFAULT;
    const char *levels = s->flags & KARRAS ? "--karras" : scheduled ? "--schedule" : s->sigma_count ? "--sigmas"
                         : was_given("--sigma-min") ? "--sigma-min" : was_given("--sigma-max") ? "--sigma-max" : NULL;
    if (was_given("--eta") && !(traits & WEFT_TRAIT_ETA))
        misuse("--eta is of --sampler %s", sampler_names(WEFT_TRAIT_ETA));
    if (levels && !(traits & WEFT_TRAIT_SIGMAS))
        misuse("%s is not for --sampler %s", levels, weft_sampler_name(s->sampling.kind));
    if (s->sigma_count && (was_given("--steps") || strcmp(levels, "--sigmas") != 0))
        misuse("--sigmas says how many steps there are, and which: not with %s",
               strcmp(levels, "--sigmas") != 0 ? levels : "--steps");
    if ((s->flags & KARRAS) && scheduled && s->sampling.sigma_schedule != WEFT_SCHEDULE_KARRAS)
        misuse("--karras is not for --schedule %s", weft_sampler_schedule_name(s->sampling.sigma_schedule));
    if ((was_given("--strength") || s->mask) && s->image == NULL)
        misuse("%s is about the image of --image", s->mask ? "--mask" : "--strength");
    for (size_t i = 0; i < s->phase_count; i++)
        if (s->phases[i].coefficients && s->phases[i].zip_network)
            misuse("--coefficients and --zip-network are given: wanted one of them");
    if (s->save_coefficients && s->phases[0].method != ZIP && s->plan_file == NULL)
        misuse("--save-coefficients is of --compose zip");
    if ((was_given("--compose") || was_given("--phase")) && s->adapter_count == 0)
        misuse("%s needs an --adapter", was_given("--compose") ? "--compose" : "--phase");
}

/* Options of a new adapter, and those of a checkpoint that no adapter has. */
int merges_a_plan(const settings *s)
{
    int any = s->phases[0].method != MERGE || s->plan_file != NULL;
    for (size_t i = 0; i < s->adapter_count; i++) any = any || s->adapters[i].blocks;
    return any;
}

static void refuse_idle_merge_options(const settings *s)
{
    for (const row *o = rows; o < rows + ROWS; o++) {
        if (o->about != OF_NEW_ADAPTER || !given[o - rows]) continue;
        if (s->into != INTO_ADAPTER) misuse("%s is of --into adapter", o->name);
        if (merges_a_plan(s) && strcmp(o->name, "--dialect") != 0 && strcmp(o->name, "--half") != 0)
            misuse("%s is not for %s, which is folded exactly", o->name,
                   s->plan_file ? "--plan" : s->phases[0].method != MERGE ? "--compose" : "--blocks");
    }
    if (s->into != INTO_ADAPTER || merges_a_plan(s)) return;
    int32_t by = s->merge.kind;
    int prunes = by == WEFT_MERGE_TIES || by == WEFT_MERGE_DARE || by == WEFT_MERGE_DARE_TIES || by == WEFT_MERGE_PRUNE;
    if (prunes && !was_given("--density")) misuse("--by %s needs a --density", word_of(merges, by));
    if (was_given("--mix") && by != WEFT_MERGE_MIXER) misuse("--mix is of --by mixer");
    if (was_given("--mu") && by != WEFT_MERGE_NULL_SPACE) misuse("--mu is of --by null-space");
    if (was_given("--peft-dora")) misuse("--peft-dora is of --into model");
    if (s->plan.mixed != WEFT_MIXED_DELTA && s->plan.mixed != WEFT_MIXED_DIRECTION)
        misuse("--mixed %s is of --into model", word_of(mixes, s->plan.mixed));
}

static void refuse_idle_fuse_options(const settings *s)
{
    static const char *const of_images[] = { "--ridge", "--steps", "--sampler", "--seed", "--size", "--images" };
    static const char *const of_gradient[] = { "--budget", "--ordinary" };
    int constrained = s->fuse.kind == WEFT_FUSE_CONSTRAINED, routed = s->fuse.kind == WEFT_FUSE_ROUTED;

    for (size_t i = 0; i < sizeof of_images / sizeof of_images[0] && constrained; i++)
        if (was_given(of_images[i])) misuse("%s is of --by gradient and --by routed", of_images[i]);
    for (size_t i = 0; i < sizeof of_gradient / sizeof of_gradient[0] && (constrained || routed); i++)
        if (was_given(of_gradient[i])) misuse("%s is of --by gradient", of_gradient[i]);
    if (!constrained && was_given("--captions")) misuse("--captions is of --by constrained");
    if (!constrained && was_given("--skip-photo")) misuse("--skip-photo is of --by constrained");
    if (constrained && !was_given("--captions")) misuse("--by constrained needs --captions");
}

int ends_in_safetensors(const char *path)
{
    size_t n = strlen(path);
    return n > 12 && strcmp(path + n - 12, ".safetensors") == 0;
}

/* What is written must be known before the first step: a file or a folder, and in which dialect. */
static void refuse_form(const settings *s, const recipe_use *r)
{
    int file = ends_in_safetensors(s->output), model = !file && r->recipe == WEFT_RECIPE_FULL;
    int folder = model || s->dialect == WEFT_DIALECT_PEFT;

    if (*s->output == '\0') misuse("--output is empty: where to?");
    if (s->dialect != 0 && r->dialects == 0) misuse("--dialect: what %s writes has a form of its own", s->target);
    if (s->dialect != 0 && model) misuse("--dialect: a whole model has none; -o PATH.safetensors writes differences");
    if (s->dialect != 0 && !(r->dialects & 1u << s->dialect))
        misuse("--dialect: %s is written as kohya%s only", s->target, r->dialects & 1u << WEFT_DIALECT_PEFT ? " or peft" : "");
    if (model && s->flags & HALF) misuse("--half: a whole model keeps the types of its weights");
    if (folder && file) misuse("--output %s: --dialect peft is a folder: name it so", s->output);
    if (!folder && !file) misuse("--output '%s': what is written is a .safetensors file: name it so", s->output);
}

static void refuse_idle_train_options(const settings *s)
{
    static const char *const of_zip[] = { "--content", "--style", "--style-data", "--style-prompt", "--similarity", "--zip-code" };
    static const char *const of_class[] = { "--class-data", "--class-prompt", "--class-count", "--prior-weight" };
    const train_use  *t = &s->train;
    const recipe_use *r = find_recipe(s->target);

    if (r == NULL) misuse("there is no recipe '%s'; weft train --list names them", s->target);
    int zip = r->recipe == WEFT_RECIPE_ZIPLORA;
    for (size_t i = 0; i < sizeof of_zip / sizeof of_zip[0] && !zip; i++)
        if (was_given(of_zip[i])) misuse("%s is of ziplora, and the recipe is %s", of_zip[i], s->target);
    for (size_t i = 0; i < sizeof of_class / sizeof of_class[0] && zip; i++)
        if (was_given(of_class[i])) misuse("%s is not for ziplora, which has --style-data", of_class[i]);
    if (zip && (t->content == NULL || t->style == NULL)) misuse("ziplora needs --content FILE and --style FILE");
    if (zip && t->class_data == NULL) misuse("ziplora needs --style-data FOLDER");
    if (s->against == NULL) misuse("which model? --model MODEL");
    if (t->data == NULL) misuse("from which pictures? --data FOLDER");
    if (s->output == NULL) misuse("where to? --output PATH");
    if (r->words && t->how.tokens == NULL) misuse("%s learns words: which? --tokens LIST", s->target);
    refuse_form(s, r);
    if (was_given("--class-count") && t->class_prompt == NULL) misuse("--class-count: what do they show? --class-prompt TEXT");
    if (was_given("--prior-weight") && !t->class_data && !t->class_prompt)
        misuse("--prior-weight is of class pictures: --class-data or --class-prompt");
    if (r->with_class && !t->class_data && !t->class_prompt)
        misuse("%s keeps the class as it is: which? --class-prompt TEXT or --class-data FOLDER", s->target);
    if (t->sample_every && t->sample_count == 0) misuse("--sample-every: what shall be drawn? --sample-prompt TEXT");
    if (t->sample_count && t->sample_every == 0) misuse("--sample-prompt: how often? --sample-every N");
}

/* ------------------------------------------------------------------ plans in files */

/* Options of generate that a plan keeps as notes: those that make the image. */
static int is_kept(const row *o)
{
    static const char *const names[] = {
        "--prompt", "--negative", "--prompt-from", "--negative-from", "--seed", "--size", "--batch", "--weighting",
        "--clip-skip", "--image", "--strength", "--mask", "--reference", "--reference-by", "--steps", "--sampler",
        "--karras", "--schedule", "--sigma-min", "--sigma-max", "--sigmas", "--order", "--eta", "--spacing",
        "--guidance", "--guidance-rescale", "--tile", "--latents", "--conditioning", "--image-encoder",
    };
    if (!(o->used_by & GENERATE) || o->kind == HEADING) return 0;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strcmp(names[i], o->name) == 0) return 1;
    return 0;
}

/* Those whose value is a file that is read: the note keeps its content too. */
static int is_file(const row *o)
{
    static const char *const names[] = { "--image", "--mask", "--reference", "--latents", "--conditioning" };

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strcmp(names[i], o->name) == 0) return 1;
    return 0;
}

/* What describes the picture of --reference is a note of its own. */
#define REFERENCE_TEXT "reference-text"

/* Options that say what a plan is. */
static int is_of_plan(const row *o)
{
    static const char *const names[] = {
        "--adapter", "--concept", "--region", "--isolate", "--phase", "--text-plan", "--path", "--mixed", "--balance",
        "--balance-to", "--balance-by", "--align", "--shared-score-scale", "--shared-score-shift", "--only-self-level",
        "--adain-values", "--full-attention-share", "--align-without", "--ip-adapter",
    };
    if (o->about == OF_ADAPTER || o->about == OF_CONCEPT || o->about == OF_PHASE || o->about == OF_IMAGE) return 1;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strcmp(names[i], o->name) == 0) return 1;
    return 0;
}

/* What was said of the options that are kept, in its order; of a file, how long its path is. */
static struct { const row *option; char *value; size_t path; } said[4096];
static size_t said_count;

static void keep_option(const row *o, const char *value)
{
    if (!is_kept(o)) return;
    if (said_count == sizeof said / sizeof said[0]) fail("more than %zu options of an image", said_count);
    const char *text = value ? value : "true";
    said[said_count].option = o;
    said[said_count].path = o->parse == parse_reference ? strcspn(text, ":") : strlen(text);
    said[said_count++].value = strcpy(zeroed(strlen(text) + 1, 1), text);
}

/* The option of a note, "prompt", or "prompt#2" for the second of them. */
static const row *option_of_note(const char *note)
{
    size_t n = strcspn(note, "#");

    for (const row *o = rows; o < rows + ROWS; o++)
        if (is_kept(o) && strlen(o->name + 2) == n && strncmp(o->name + 2, note, n) == 0) return o;
    return NULL;
}

/* A note that is a file, and behind it what describes it. */
static void write_file(weft_plan *plan, const char *note, const char *value, size_t path)
{
    char *file = memcpy(zeroed(path + 1, 1), value, path);

    must(weft_plan_set_note_file(plan, note, file, &err));
    if (value[path] == ':' && value[path + 1]) must(weft_plan_set_note(plan, REFERENCE_TEXT, value + path + 1, &err));
    free(file);
}

static int repeats(const row *o)
{
    return o->parse == parse_prompt || o->parse == parse_change;
}

/* Is it said again, so that this does not count? */
static int said_again(size_t i)
{
    for (size_t k = i + 1; k < said_count && !repeats(said[i].option); k++)
        if (said[k].option == said[i].option) return 1;
    return 0;
}

void write_notes(const settings *s, weft_plan *plan)
{
    for (size_t i = 0; weft_plan_note_name(plan, i) != NULL; ) { /* what is no option stays */
        const char *name = weft_plan_note_name(plan, i);
        if (option_of_note(name) == NULL && strcmp(name, "text-plan") != 0 && strcmp(name, REFERENCE_TEXT) != 0) i++;
        else must(weft_plan_set_note(plan, name, NULL, &err));
    }
    for (size_t i = 0; i < said_count; i++) {
        char note[64];
        int n = 1;
        if (said_again(i)) continue;
        for (size_t k = 0; k < i; k++) n += said[k].option == said[i].option;
        if (n == 1 || !repeats(said[i].option)) snprintf(note, sizeof note, "%s", said[i].option->name + 2);
        else snprintf(note, sizeof note, "%s#%d", said[i].option->name + 2, n);
        if (is_file(said[i].option)) write_file(plan, note, said[i].value, said[i].path);
        else must(weft_plan_set_note(plan, note, said[i].value, &err));
    }
    if (s->plan.text == TEXT_EACH) must(weft_plan_set_note(plan, "text-plan", "each", &err));
}

/* What is given stands over what is kept, and over what belongs to that: a prompt over what the kept
 * one changes to, a solver over the settings of the kept one. */
static int stands_over(const row *o)
{
    static const struct { const char *given, *kept; } over[] = {
        { "--prompt", "--prompt-from" }, { "--conditioning", "--prompt" }, { "--conditioning", "--prompt-from" },
        { "--conditioning", "--negative" }, { "--conditioning", "--negative-from" }, { "--steps", "--sigmas" },
        { "--sigmas", "--steps" }, { "--sampler", "--eta" }, { "--sampler", "--karras" }, { "--sampler", "--schedule" },
        { "--sampler", "--sigma-min" }, { "--sampler", "--sigma-max" }, { "--sampler", "--sigmas" },
        { "--sampler", "--order" }, { "--karras", "--schedule" }, { "--schedule", "--karras" },
    };
    for (size_t i = 0; i < sizeof over / sizeof over[0]; i++)
        if (strcmp(over[i].kept, o->name) == 0 && was_given(over[i].given)) return 1;
    return was_given(o->name);
}

/* A file's path from a note, and behind it what describes it. */
static void keep_file(const row *o, const weft_plan *plan, const char *path)
{
    const char *about = o->parse == parse_reference ? weft_plan_note(plan, REFERENCE_TEXT) : NULL;
    char *value = zeroed(strlen(path) + (about ? strlen(about) : 0) + 2, 1);

    sprintf(value, "%s%s%s", path, about ? ":" : "", about ? about : "");
    keep_option(o, value);
    said[said_count - 1].path = strlen(path);
    free(value);
}

void read_notes(settings *s, const weft_plan *plan)
{
    const char *note;
    int over[ROWS];
    size_t count = 0;

    while (weft_plan_note_name(plan, count) != NULL) count++;
    const char **prompts = zeroed(s->prompt_count + count + 1, sizeof *prompts);
    change_use *changes = zeroed(s->change_count + count + 1, sizeof *changes);
    memcpy(prompts, s->prompts, s->prompt_count * sizeof *prompts);
    memcpy(changes, s->changes, s->change_count * sizeof *changes);
    free(s->prompts);
    free(s->changes);
    s->prompts = prompts;
    s->changes = changes;
    for (const row *o = rows; o < rows + ROWS; o++) over[o - rows] = o->kind != HEADING && stands_over(o);
    for (size_t i = 0; (note = weft_plan_note_name(plan, i)) != NULL; i++) {
        const row *o = option_of_note(note);
        const char *value = weft_plan_note(plan, note);
        int file = weft_plan_note_is_file(plan, note);
        if (file && (o == NULL || !is_file(o)) && strncmp(note, "picture-", 8) != 0)
            fail("%s: notes.%s is a file, weft generate expects a text", s->plan_file, note);
        if (strncmp(note, "region-", 7) == 0 || strncmp(note, "picture-", 8) == 0 || strcmp(note, REFERENCE_TEXT) == 0)
            continue;
        if (strcmp(note, "text-plan") == 0 && strcmp(value, "each") == 0) {
            s->plan.text = TEXT_EACH;
            continue;
        }
        if (o == NULL) fail("%s: notes.%s: weft generate has no such option", s->plan_file, note);
        if (over[o - rows]) continue;
        if (file) keep_file(o, plan, value);
        else keep_option(o, value);
        if (!(o->used_by & s->used_by)) continue; /* kept for --save-plan */
        if (file && o->parse == parse_reference) set_reference(s, said[said_count - 1].value, said[said_count - 1].path);
        else set(s, o, said[said_count - 1].value);
        given[o - rows] |= 1;
    }
    refuse_idle_options(s);
}

static void refuse_beside_plan(const settings *s)
{
    if (s->plan_file == NULL && (s->flags & ANY_MODEL)) misuse("--any-model is of --plan");
    for (const row *o = rows; o < rows + ROWS; o++)
        if (s->plan_file && o->kind != HEADING && given[o - rows] && is_of_plan(o))
            misuse("%s: the plan of --plan says that already", o->name);
}

static void free_notes(void)
{
    while (said_count > 0) free(said[--said_count].value);
}

/* Two results in one file would leave one of them, and a result in the place of what it is made of
 * nothing of that. */
static void refuse_shared_files(const settings *s)
{
    const struct { const char *name, *path; } out[] = {
        { "--output", s->output }, { "--trace", s->trace }, { "--save", s->save }, { "--save-plan", s->save_plan },
        { "--save-coefficients", s->save_coefficients }, { "--checkpoint", s->train.checkpoint },
        { "--curve", s->train.curve },
    };
    const char *const in[] = { s->train.content, s->train.style };
    enum { COUNT = sizeof out / sizeof out[0] };

    for (size_t i = 0; i < COUNT; i++) {
        for (size_t k = 0; k < i; k++)
            if (out[i].path && out[k].path && strcmp(out[i].path, out[k].path) == 0)
                misuse("%s and %s are both %s: wanted two files", out[k].name, out[i].name, out[i].path);
        for (size_t k = 0; k < s->adapter_count; k++)
            if (out[i].path && strcmp(out[i].path, s->adapters[k].file) == 0)
                misuse("%s is %s, which is read: wanted another file", out[i].name, out[i].path);
        for (size_t k = 0; k < sizeof in / sizeof in[0]; k++)
            if (out[i].path && in[k] && strcmp(out[i].path, in[k]) == 0)
                misuse("%s is %s, which is read: wanted another file", out[i].name, out[i].path);
    }
}

/* getopt_long's arguments: the letters, and the names with the index of their row behind all
 * letters. */
enum { LETTERS = 256 };

typedef struct accepted {
    char          letters[2 * ROWS + 3];
    struct option names[ROWS + 1];
} accepted;

static void list_options(accepted *a, int used_by)
{
    char          *letter = a->letters;
    struct option *name = a->names;

    *letter++ = '-';                             /* names of files come in their place     */
    *letter++ = ':';                             /* it tells us what is wrong, and not the user */
    for (const row *o = rows; o < rows + ROWS; o++) {
        if (o->kind == HEADING || !(o->used_by & used_by)) continue;
        *name++ = (struct option){ o->name + 2, o->kind == BIT ? no_argument : required_argument, NULL,
                                   LETTERS + (int)(o - rows) };
        if (o->letter) *letter++ = o->letter;
        if (o->letter && o->kind != BIT) *letter++ = ':';
    }
    *letter = '\0';
    *name = (struct option){ 0 };
}

static const row *find_row(int option, int used_by)
{
    if (option >= LETTERS) return &rows[option - LETTERS];
    for (const row *o = rows; o < rows + ROWS; o++)
        if (o->letter == option && (o->used_by & used_by) && o->kind != HEADING) return o;
    return NULL;
}

/* getopt_long takes a name that was cut short, if no other begins like it. */
static _Noreturn void refuse_option(const accepted *a, const char *arg, int used_by)
{
    const row *o = optopt != 0 ? find_row(optopt, used_by) : NULL;
    size_t     length = strcspn(arg, "=");

    if (o != NULL) misuse("%s takes no value", o->name);
    if (optopt != 0) misuse("there is no option -%c", optopt);
    for (const struct option *n = a->names; n->name; n++)
        if (length > 2 && strncmp(n->name, arg + 2, length - 2) == 0)
            misuse("%.*s could be --%s, and others", (int)length, arg, n->name);
    misuse("there is no option %.*s", (int)length, arg);
}

static void take_target(settings *s, const char *name)
{
    if (s->target) misuse("'%s' is one name too many: there is '%s' already", name, s->target);
    s->target = name;
}

void parse_arguments(settings *s, int used_by, int argc, char **argv)
{
    accepted a;
    int      option;

    s->used_by = used_by;
    s->word_count = argc;
    s->words = argv;
    list_options(&a, used_by);
    while ((option = getopt_long(argc, argv, a.letters, a.names, NULL)) != -1) {
        if (option == 1) { take_target(s, optarg); continue; }
        if (option == '?') refuse_option(&a, argv[optind - 1], used_by);
        const row *o = find_row(option == ':' ? optopt : option, used_by);
        if (option == ':') misuse("%s wants a value: %s %s", o->name, o->name, o->value);
        set(s, o, optarg);
        keep_option(o, optarg);
        uint32_t here = UINT32_C(1) << (s->phase_count - 1);
        if ((given[o - rows] & here) && strcmp(o->name, "--compose") == 0)
            misuse("--compose %s: these calls have a method already; --phase begins others", optarg);
        given[o - rows] |= here;
    }
    while (optind < argc) take_target(s, argv[optind++]); /* behind -- */
    if (s->flags & (HELP | LIST)) return;
    if (s->target == NULL && used_by == TRAIN) misuse("which recipe? weft train --list names them");
    if (s->target == NULL)
        misuse(used_by == INSPECT ? "which file or folder?" : used_by == CONVERT ? "which adapter?" : "which model?");
    if ((s->flags & COPY) && (s->flags & MAP)) misuse("--copy and --map: which of the two?");
    if ((used_by & PLANNED) && !(s->flags & BALANCE) && (was_given("--balance-to") || was_given("--balance-by")))
        misuse("%s is of --balance", was_given("--balance-to") ? "--balance-to" : "--balance-by");
    if ((used_by & PLANNED) && (s->flags & BALANCE) && s->adapter_count < 2)
        misuse("--balance needs two adapters");
    refuse_shared_files(s);
    if (used_by & PLANNED) refuse_beside_plan(s);
    if (used_by & PLANNED) refuse_idle_options(s);
    if (used_by & MERGE_MODEL) refuse_idle_merge_options(s);
    if (used_by & FUSE) refuse_idle_fuse_options(s);
    if (used_by & TRAIN) refuse_idle_train_options(s);
}

/* ------------------------------------------------------------------ help, made from the same rows
 *
 * A HEADING with a topic is a page of its own. What is under it, and what is of its method wherever
 * it stands, is on that page. The help of a subcommand has the brief rows, and names the pages. */

static const struct { int bit; const char *name; } users[] = {
    { GENERATE, "generate" }, { EXPLAIN, "explain" }, { INSPECT, "inspect" }, { CONVERT, "convert" },
    { MERGE_MODEL, "merge" }, { CONFLICTS, "conflicts" }, { FUSE, "fuse" },
    { TRAIN, "train" },
};

static void print_users(int used_by)
{
    const char *between = "";
    for (size_t i = 0; i < sizeof users / sizeof users[0]; i++) {
        if (!(used_by & users[i].bit)) continue;
        printf("%s%s", between, users[i].name);
        between = ", ";
    }
}

/* A list that may be long, in lines of at most 60 characters. */
static void print_names(const char *names)
{
    while (strlen(names) > 60) {
        int n = 60;
        while (names[n - 1] != ' ') n--;
        printf("%.*s\n%32s", n - 1, names, "");
        names += n;
    }
    fputs(names, stdout);
}

/* page: the subcommands that the page is about. An option that some of them lack names those it has. */
static void print_row(const row *o, int page)
{
    char left[64];
    snprintf(left, sizeof left, "%c%c%c %s %s", o->letter ? '-' : ' ', o->letter ? o->letter : ' ',
             o->letter ? ',' : ' ', o->name, o->value ? o->value : "");
    printf("  %-30s", left);
    if (strlen(left) > 29) printf("\n%32s", "");
    for (const char *c = o->help; *c; c++) {
        putchar(*c);
        if (*c == '\n') printf("%32s", "");
    }
    if (o->solvers) print_names(sampler_names(o->solvers));
    if (page & ~o->used_by) {
        printf(" [");
        print_users(o->used_by);
        putchar(']');
    }
    putchar('\n');
}

static int is_page(const row *o) { return o->kind == HEADING && o->topic != NULL; }

static const row *end_of_page(const row *page)
{
    const row *o = page + 1;
    while (o < rows + ROWS && !is_page(o)) o++;
    return o;
}

static int belongs(const row *o, const row *page)
{
    return o->kind != HEADING && ((o > page && o < end_of_page(page)) || (o->method & page->method) != 0);
}

/* Which subcommands take something of this page, and whether anything is on it that is not brief. */
static int users_of(const row *page, int *not_brief)
{
    int used_by = 0;
    for (const row *o = rows; o < rows + ROWS; o++)
        if (belongs(o, page)) {
            used_by |= o->used_by;
            if (!o->brief && not_brief) *not_brief |= o->used_by;
        }
    return used_by;
}

static void print_pages(int used_by, int methods_too)
{
    for (const row *page = rows; page < rows + ROWS; page++) {
        int not_brief = 0;
        if (!is_page(page) || (page->method != 0) != methods_too) continue;
        if (users_of(page, &not_brief) & used_by && not_brief & used_by)
            printf("  %-12s %s\n", page->topic, page->value);
    }
}

void print_options(int used_by)
{
    printf("\nMost used:\n");
    for (const row *o = rows; o < rows + ROWS; o++)
        if (o->kind != HEADING && o->brief && (o->used_by & used_by)) print_row(o, 0);
    printf("\nAll options of a topic: weft help TOPIC\n");
    print_pages(used_by, 0);
    if (!(used_by & PLANNED)) return;
    printf("\nThe options of a method: weft help METHOD\n");
    print_pages(used_by, 1);
}

void print_topics(void)
{
    printf("\nMethods of composition (--compose METHOD; without one adapters are summed, which is merge):\n");
    print_pages(~0, 1);
    printf("\nTopics:\n");
    print_pages(~0, 0);
}

int print_topic(const char *topic)
{
    int all = strcmp(topic, "all") == 0, found = 0;

    for (const row *page = rows; page < rows + ROWS; page++) {
        if (!is_page(page) || (!all && strcmp(page->topic, topic) != 0)) continue;
        int used_by = users_of(page, NULL);
        printf("%s%s: %s\nfor weft ", found++ ? "\n" : "", page->name, page->value);
        print_users(used_by);
        putchar('\n');
        if (page->help) printf("\n%s\n", page->help);
        putchar('\n');
        for (const row *o = rows; o < rows + ROWS; o++)
            if (o->kind == HEADING && o > page && o < end_of_page(page)) printf("\n%s:\n", o->name);
            else if (belongs(o, page)) print_row(o, used_by);
    }
    return found;
}

void settings_free(settings *s)
{
    for (size_t i = 0; i < s->adapter_count; i++) {
        weft_adapter_free(s->adapters[i].adapter);
        weft_concept_free(s->adapters[i].concept);
        free(s->adapters[i].file);
        free(s->adapters[i].curve);
        free(s->adapters[i].prompts);
    }
    for (size_t i = 0; i < s->phase_count; i++) free(s->phases[i].order);
    for (size_t i = 0; i < s->region_count; i++) free(s->regions[i].file);
    for (size_t i = 0; i < s->image_count; i++) {
        free(s->images[i].file);
        free(s->images[i].pictures);
        free(s->images[i].curve);
    }
    free(s->images);
    for (size_t i = 0; i < s->change_count; i++) free((char *)(uintptr_t)s->changes[i].when);
    free(s->changes);
    free(s->prompts);
    free(s->reference);
    free_notes();
    free(s->ordinary);
    free(s->train.sample_prompts);
    free(s->regions);
    free(s->adapters);
    free(s->sigmas);
}
