/* blora.c - content and style from different adapters, by the blocks that hold them.
 *
 * In SDXL one transformer of the way up decides what is shown and the next one how it looks.
 * Frenkel et al. (B-LoRA, 2024) train only these two, so that a file's content and its style come
 * apart afterwards. The same cut works on an ordinary LoRA: what it has elsewhere is left out.
 *
 * Nothing is published for other models. In them one transformer block stands where SDXL has ten,
 * and two of them hold next to nothing of a subject. We cut by resolution instead: the finer half
 * of the levels with attention, down and up, is style, and what is coarser is content. In SD1.x
 * style is down_blocks 0 and 1 and up_blocks 2 and 3, content down_blocks 2, the middle and
 * up_blocks 1. On the bundled model subject and style can both be recognised under this cut, and
 * the subject is lost in two single transformers. The caller may name other layers.
 *
 * The authors' program multiplies both factors with its alpha, which squares it. */
#include "base/structs.h"
#include "plan/method/method.h"

enum { PATTERN_MAX = WF_PLACES_MAX };

/* The caller's options, and the patterns that they point to. */
typedef struct kept_options {
    weft_blora_options o;
    char     content[PATTERN_MAX]; /* "": the model's own */
    char     style[PATTERN_MAX];
} kept_options;

/* Of each layer, the roles that act there. */
enum { CONTENT_HERE = 1, STYLE_HERE = 2 };
typedef struct state {
    char    content[PATTERN_MAX];
    char    style[PATTERN_MAX];
    uint8_t roles[]; /* [layers] */
} state;

static const kept_options *options_of(const wf_sheet *s)
{
    return s->options->data;
}

/* ---- where content and style are ------------------------------------------------------------- */

enum { LEVELS_MAX = 16 };

/* How many levels a UNet has, and which have attention on the way down; 0 for another network. */
static int32_t find_levels(const weft_model *m, bool attention[LEVELS_MAX])
{
    static const char down[] = "unet.down_blocks.";
    size_t          count;
    const wf_layer *layers = wf_model_layers(m, &count);
    int32_t         levels = 0;

    for (size_t l = 0; l < count; l++) {
        const char *at = layers[l].name + strlen(down);
        if (strncmp(layers[l].name, down, strlen(down)) != 0 || at[0] < '0' || at[0] > '9' ||
            at[1] != '.')
            continue;
        levels = WF_MAX(levels, at[0] - '0' + 1);
        if (layers[l].attention) attention[at[0] - '0'] = true;
    }
    return levels;
}

static void add_pattern(char to[PATTERN_MAX], const char *begins, int32_t i, const char *ends)
{
    size_t n = strlen(to);

    wf_format(to + n, PATTERN_MAX - n, "%s%s", n > 0 ? "," : "", begins);
    n = strlen(to);
    if (i >= 0) wf_format(to + n, PATTERN_MAX - n, "%d", (int)i);
    n = strlen(to);
    wf_format(to + n, PATTERN_MAX - n, "%s", ends);
}

/* The finer half of the levels with attention, the middle one too, is style. */
static bool cut_by_level(const weft_model *m, char content[PATTERN_MAX], char style[PATTERN_MAX])
{
    bool    attention[LEVELS_MAX] = { false };
    int32_t levels = find_levels(m, attention), with = 0, seen = 0;

    for (int32_t i = 0; i < levels; i++) with += attention[i];
    for (int32_t i = 0; i < levels; i++) {
        if (!attention[i]) continue;
        bool fine = seen++ < (with + 1) / 2;
        add_pattern(fine ? style : content, "unet.down_blocks.", i, ".*");
        add_pattern(fine ? style : content, "unet.up_blocks.", levels - 1 - i, ".*");
    }
    if (with > 0) add_pattern(content, "unet.mid_block", -1, ".*");
    return with > 0;
}

bool wf_blora_places(const weft_model *m, char content[WF_PLACES_MAX], char style[WF_PLACES_MAX])
{
    content[0] = style[0] = '\0';
    if (wf_model_base(m) != WEFT_BASE_SDXL) return cut_by_level(m, content, style);
    add_pattern(content, "unet.up_blocks.0.attentions.", 0, ".*");
    add_pattern(style, "unet.up_blocks.0.attentions.", 1, ".*");
    return true;
}

static weft_status pick_layers(state *f, const weft_plan *p, const kept_options *o, weft_error *err)
{
    size_t          count;
    const wf_layer *layers = wf_model_layers(p->model, &count);
    bool            found = wf_blora_places(p->model, f->content, f->style);

    if (!found && (o->content[0] == '\0' || o->style[0] == '\0'))
        return wf_fail(err, WEFT_E_UNSUPPORTED,
                       "blora: the model has no levels with attention; name the layers of content "
                       "and style");
    if (o->content[0] != '\0') memcpy(f->content, o->content, sizeof f->content);
    if (o->style[0] != '\0') memcpy(f->style, o->style, sizeof f->style);
    for (size_t l = 0; l < count; l++) {
        if (layers[l].component != WEFT_COMPONENT_DENOISER) continue;
        f->roles[l] = (uint8_t)((wf_glob_any(f->content, layers[l].name) ? CONTENT_HERE : 0) |
                                (wf_glob_any(f->style, layers[l].name) ? STYLE_HERE : 0));
    }
    return WEFT_OK;
}

/* A single adapter without a role is both: a file of two blocks as it was trained. */
static int32_t roles_of(const weft_plan *p, int32_t adapter)
{
    int32_t role = wf_plan_role(p, adapter);

    if (role == WEFT_ROLE_NONE) return CONTENT_HERE | STYLE_HERE;
    return role == WEFT_ROLE_CONTENT ? CONTENT_HERE : STYLE_HERE;
}

static bool acts(const weft_plan *p, const wf_sheet *s, int32_t layer, int32_t adapter)
{
    const state *f = s->state->data;
    return (f->roles[layer] & roles_of(p, adapter)) != 0;
}

static const char *part(const weft_plan *p, const wf_sheet *s, int32_t adapter)
{
    int32_t roles = roles_of(p, adapter);

    (void)s;
    return roles == CONTENT_HERE ? "content" : roles == STYLE_HERE ? "style" : "both";
}

static weft_status check_adapters(const weft_plan *p, const wf_sheet *s, weft_error *err)
{
    const state *f = s->state->data;
    size_t       count;

    (void)wf_model_layers(p->model, &count);
    if (p->adapters == 0)
        return wf_fail(err, WEFT_E_UNSUPPORTED,
                       "blora: needs an adapter of content, of style, or one of each");
    for (int32_t a = 0; a < p->adapters; a++) {
        const char *name = wf_plan_adapter_name(p, a);
        int32_t     n = 0;
        if (p->adapters > 2 && p->entry[a].role == WEFT_ROLE_NONE)
            return wf_fail(err, WEFT_E_UNSUPPORTED,
                           "blora: adapter %s of %d has no role: content or style", name,
                           (int)p->adapters);
        for (size_t l = 0; l < count; l++)
            n += acts(p, s, (int32_t)l, a) && wf_plan_module(p, a, (int32_t)l) != NULL;
        if (n == 0)
            return wf_fail(err, WEFT_E_MISMATCH, "blora: adapter %s has nothing in %s", name,
                           roles_of(p, a) == STYLE_HERE ? f->style : f->content);
    }
    return WEFT_OK;
}

static weft_status begin(const weft_plan *p, wf_table *t, wf_sheet *s, weft_error *err)
{
    size_t count, size;

    (void)t;
    (void)wf_model_layers(p->model, &count);
    size = sizeof(state) + count;
    s->state = wf_blob_create(&p->alloc, size);
    if (s->state == NULL) return wf_nomem(err, size, "a plan's blocks");
    WF_TRY(pick_layers(s->state->data, p, options_of(s), err));
    return check_adapters(p, s, err);
}

/* The user's weight is multiplied in once more by whoever makes the cell. */
static wf_cell choose(const weft_plan *p, const wf_sheet *s, int32_t call, int32_t branch,
                      int32_t layer, int32_t adapter)
{
    (void)call, (void)branch;
    if (!acts(p, s, layer, adapter)) return WF_NOTHING;
    if (options_of(s)->o.flags & WEFT_BLORA_SQUARED)
        return (wf_cell){ p->entry[adapter].weight, 0, 0 };
    return WF_ALL;
}

static void describe(const weft_plan *p, const wf_sheet *s, wf_text *out)
{
    const state *f = s->state->data;

    (void)p;
    wf_text_add(out, "  content    from %s\n  style      from %s\n", f->content, f->style);
    if (options_of(s)->o.flags & WEFT_BLORA_SQUARED)
        wf_text_add(out, "  weights    squared, as in the authors' program\n");
}

static void explain(const weft_plan *p, const wf_sheet *s, wf_text *out)
{
    for (int32_t a = 0; a < p->adapters; a++) {
        wf_letter_text letter;
        wf_number_text c;
        float          w = p->entry[a].weight;
        if (options_of(s)->o.flags & WEFT_BLORA_SQUARED) w *= w;
        wf_text_add(out, "  %s  %s at every call, %s, at %d layers of the UNet\n",
                    wf_letter(&letter, a), wf_number(&c, w), part(p, s, a),
                    (int)wf_sheet_reach(s, a));
    }
}

static weft_status copy_pattern(char to[PATTERN_MAX], const char *from, const char *what,
                                weft_error *err)
{
    if (from == NULL) return WEFT_OK;
    if (from[0] == '\0')
        return wf_fail(err, WEFT_E_ARG,
                       "weft_blora_options: %s is empty; NULL takes the model's own", what);
    if (!wf_format(to, PATTERN_MAX, "%s", from))
        return wf_fail(err, WEFT_E_ARG, "weft_blora_options: %s is %zu bytes long, at most %d are "
                       "taken", what, strlen(from), PATTERN_MAX - 1);
    return WEFT_OK;
}

weft_status weft_plan_blora(weft_plan *plan, const weft_blora_options *options, weft_error *err)
{
    weft_blora_options o;
    kept_options       kept = { 0 };

    WF_TRY(WF_OPTIONS(&o, options, weft_blora_options, WEFT_BLORA_SQUARED, err));
    kept.o = o;
    WF_TRY(copy_pattern(kept.content, o.content, "content", err));
    WF_TRY(copy_pattern(kept.style, o.style, "style", err));
    WF_TRY(wf_plan_use(plan, &wf_method_blora, &kept, sizeof kept, err));
    kept_options *x = wf_plan_kept_options(plan);
    x->o.content = o.content != NULL ? x->content : NULL;
    x->o.style = o.style != NULL ? x->style : NULL;
    return WEFT_OK;
}

static const wf_field field_list[] = {
    { WF_VALUE("content", TEXT, weft_blora_options, content) },
    { WF_VALUE("style", TEXT, weft_blora_options, style) },
    { WF_FLAG("squared", WEFT_BLORA_SQUARED) },
};
static const wf_fields fields = WF_FIELDS(field_list, weft_blora_options);
WF_METHOD_USE(weft_plan_blora, weft_blora_options)

const wf_method wf_method_blora = {
    .name = "blora",
    .title = "B-LoRA",
    .text = WEFT_TEXT_NONE,
    .use = use,
    .fields = &fields,
    .begin = begin,
    .choose = choose,
    .part = part,
    .describe = describe,
    .explain = explain,
};
