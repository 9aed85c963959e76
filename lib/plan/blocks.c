/* blocks.c - an adapter's weight block by block.
 *
 * People share vectors of 12, 17, 20 or 26 numbers, made for extensions that number the blocks of a
 * UNet as LDM does: BASE (the text encoders), IN00 and on, MID, OUT00 and on. How many blocks there
 * are is the model's, so the lengths that fit are counted here and not listed. The full vector has
 * a number for each; the short one leaves out blocks without attention, whose factor is then 0, as
 * in sd-webui-lora-block-weight. Layers outside of all blocks (the time embedding, conv_out) keep
 * the weight.
 *
 * Whatever was written, the result is a factor for each layer of the model, and the user's weight
 * is multiplied with it (cell.c). */
#include <math.h>

#include "base/structs.h"
#include "plan/plan_internal.h"

enum { SIDE_MAX = 100, SLOTS_MAX = 2 * SIDE_MAX + 2, TEXT_MAX = 65536, NAME_MAX = 512 };
enum { NO_SLOT = -1, BASE = 0 };

/* The blocks of a model: BASE, ins of IN, MID, outs of OUT. */
typedef struct slots {
    int32_t ins, outs, count;
    bool    attention[SLOTS_MAX]; /* BASE counts as one that has it */
} slots;

/* What an entry keeps. */
typedef struct blocks {
    slots    slots;
    char    *text;     /* as it was given      */
    int32_t *slot;     /* [layers], or NO_SLOT */
    float    factor[]; /* [layers]             */
} blocks;

float wf_blocks_at(const wf_blob *blob, int32_t layer)
{
    return blob != NULL ? ((const blocks *)blob->data)->factor[layer] : 1;
}

const char *wf_blocks_text(const wf_blob *blob)
{
    return blob != NULL ? ((const blocks *)blob->data)->text : "";
}

/* ---- which block a layer is in --------------------------------------------------------------- */

static int32_t mid_of(const slots *s) { return 1 + s->ins; }
static int32_t out_of(const slots *s) { return 2 + s->ins; }

enum { OUTSIDE, IN_BASE, IN_IN, IN_MID, IN_OUT };

/* One or two digits, and *s behind them. */
static bool read_index(const char **s, const char *end, int32_t *n)
{
    const char *from = *s;

    for (*n = 0; *s < end && *s - from < 2 && **s >= '0' && **s <= '9'; (*s)++)
        *n = 10 * *n + (**s - '0');
    return *s > from;
}

static int32_t side_of(const weft_model *m, const wf_layer *l, int32_t *index)
{
    static const struct { const char *begins; int32_t side; } known[] = {
        { "lora_unet_input_blocks_", IN_IN },
        { "lora_unet_output_blocks_", IN_OUT },
        { "lora_unet_middle_block_", IN_MID },
    };
    char name[NAME_MAX];

    *index = 0;
    if (wf_component_encoder(l->component) >= 0) return IN_BASE;
    if (!wf_name_kohya_ldm(m, l, name, sizeof name)) return OUTSIDE;
    for (size_t i = 0; i < WF_LEN(known); i++) {
        size_t      n = strlen(known[i].begins);
        const char *rest = name + n;
        if (strncmp(name, known[i].begins, n) != 0) continue;
        if (known[i].side != IN_MID && !read_index(&rest, rest + strlen(rest), index))
            return OUTSIDE;
        return known[i].side;
    }
    return OUTSIDE;
}

static int32_t slot_of(const slots *s, const weft_model *m, const wf_layer *l)
{
    int32_t i;

    switch (side_of(m, l, &i)) {
    case IN_BASE: return BASE;
    case IN_IN:   return 1 + i;
    case IN_MID:  return mid_of(s);
    case IN_OUT:  return out_of(s) + i;
    default:      return NO_SLOT;
    }
}

static void find_slots(slots *s, const weft_model *m, const wf_layer *layers, size_t count,
                       int32_t *slot)
{
    *s = (slots){ .attention = { true } };
    for (size_t l = 0; l < count; l++) {
        int32_t i, side = side_of(m, &layers[l], &i);
        if (side == IN_IN) s->ins = WF_MAX(s->ins, i + 1);
        if (side == IN_OUT) s->outs = WF_MAX(s->outs, i + 1);
    }
    s->count = out_of(s) + s->outs;
    for (size_t l = 0; l < count; l++) {
        slot[l] = slot_of(s, m, &layers[l]);
        if (slot[l] != NO_SLOT && layers[l].attention) s->attention[slot[l]] = true;
    }
}

static int32_t short_length(const slots *s)
{
    int32_t n = 0;
    for (int32_t k = 0; k < s->count; k++) n += s->attention[k];
    return n;
}

typedef struct slot_text { char text[16]; } slot_text;

static const char *slot_name(slot_text *buf, const slots *s, int32_t k)
{
    if (k == BASE || k == mid_of(s))
        wf_format(buf->text, sizeof buf->text, "%s", k == BASE ? "BASE" : "MID");
    else
        wf_format(buf->text, sizeof buf->text, "%s%02d", k < mid_of(s) ? "IN" : "OUT",
                  (int)(k < mid_of(s) ? k - 1 : k - out_of(s)));
    return buf->text;
}

/* ---- presets --------------------------------------------------------------------------------- */

typedef struct preset {
    const char *name;
    bool        base, in_shallow, in_deep, mid, out_deep, out_shallow;
} preset;

/* As the extension has them for 17 numbers. */
static const preset presets[] = {
    { "NONE",   false, false, false, false, false, false },
    { "ALL",    true,  true,  true,  true,  true,  true  },
    { "INS",    true,  true,  false, false, false, false },
    { "IND",    true,  false, true,  false, false, false },
    { "INALL",  true,  true,  true,  false, false, false },
    { "MIDD",   true,  false, true,  true,  true,  false },
    { "OUTD",   true,  false, false, false, true,  false },
    { "OUTS",   true,  false, false, false, false, true  },
    { "OUTALL", true,  false, false, false, true,  true  },
};

/* Blocks next to the middle are deep, the others shallow. Of the n blocks with attention on a side
 * n / 2 are deep; one without attention belongs to its neighbours. */
static bool is_deep(const slots *s, int32_t k)
{
    bool    up = k > mid_of(s);
    int32_t first = up ? out_of(s) : 1, end = up ? s->count : mid_of(s), n = 0, at = 0;

    for (int32_t i = first; i < end; i++) n += s->attention[i];
    if (up) {
        for (int32_t i = first; i < k; i++) at += s->attention[i];
        return at + s->attention[k] <= n / 2;
    }
    for (int32_t i = first; i <= k; i++) at += s->attention[i];
    return at > n - n / 2;
}

static float preset_at(const preset *p, const slots *s, int32_t k)
{
    if (k == BASE) return p->base;
    if (k == mid_of(s)) return p->mid;
    if (k < mid_of(s)) return is_deep(s, k) ? p->in_deep : p->in_shallow;
    return is_deep(s, k) ? p->out_deep : p->out_shallow;
}

/* ---- reading the text ------------------------------------------------------------------------ */

typedef struct reader {
    const weft_plan *plan;
    const wf_layer  *layers;
    size_t           count;
    slots            slots;
    int32_t         *slot;   /* [count] */
    float           *factor; /* [count] */
} reader;

static reader reader_of(const weft_plan *p, blocks *b)
{
    reader r = { .plan = p, .slots = b->slots, .slot = b->slot, .factor = b->factor };
    r.layers = wf_model_layers(p->model, &r.count);
    return r;
}

/* What stands between two commas, without the blanks around it. */
typedef struct piece {
    const char *s, *end;
} piece;

static piece trimmed(const char *s, const char *end)
{
    while (s < end && (*s == ' ' || *s == '\n' || *s == '\t')) s++;
    while (end > s && (end[-1] == ' ' || end[-1] == '\n' || end[-1] == '\t')) end--;
    return (piece){ s, end };
}

static piece next_piece(const char **at)
{
    const char *s = *at, *end = s + strcspn(s, ",");

    *at = *end == ',' ? end + 1 : end;
    return trimmed(s, end);
}

static int shown(piece x) { return (int)WF_MIN(x.end - x.s, 60); }

static bool is_number(piece x, double *v)
{
    return wf_number_read(x.s, (size_t)(x.end - x.s), v) && fabs(*v) <= 1e6;
}

static bool is_word(piece x, const char *word)
{
    size_t n = strlen(word);
    return (size_t)(x.end - x.s) == n && memcmp(x.s, word, n) == 0;
}

/* A block's name: BASE, IN04 or IN4, MID or M00, OUT03; *s behind it. */
static int32_t read_slot(const slots *s, const char **at, const char *end)
{
    static const char *const mids[] = { "MID", "M00" };
    const char *from = *at;
    int32_t     i;

    for (size_t k = 0; k < WF_LEN(mids); k++)
        if (end - from >= 3 && memcmp(from, mids[k], 3) == 0) return *at = from + 3, mid_of(s);
    if (end - from >= 4 && memcmp(from, "BASE", 4) == 0) return *at = from + 4, BASE;
    bool out = end - from > 3 && memcmp(from, "OUT", 3) == 0;
    if (!out && !(end - from > 2 && memcmp(from, "IN", 2) == 0)) return NO_SLOT;
    *at = from + (out ? 3 : 2);
    if (!read_index(at, end, &i)) return NO_SLOT;
    if (i >= (out ? s->outs : s->ins)) return NO_SLOT;
    return out ? out_of(s) + i : 1 + i;
}

/* "IN04" or "IN05-OUT03". */
static bool read_range(const slots *s, piece x, int32_t *first, int32_t *last)
{
    const char *at = x.s;

    *first = *last = read_slot(s, &at, x.end);
    if (*first == NO_SLOT) return false;
    if (at < x.end && *at == '-') {
        at++;
        *last = read_slot(s, &at, x.end);
    }
    return at == x.end && *last >= *first;
}

static void set_slot(const reader *r, int32_t slot, float factor)
{
    for (size_t l = 0; l < r->count; l++)
        if (r->slot[l] == slot) r->factor[l] = factor;
}

/* "ALL0.5": ALL with a number. */
static bool read_preset(const reader *r, piece x)
{
    const slots *s = &r->slots;
    int32_t      first, last;
    double       v;

    for (size_t i = 0; i < WF_LEN(presets); i++) {
        if (!is_word(x, presets[i].name)) continue;
        for (int32_t k = 0; k < s->count; k++) set_slot(r, k, preset_at(&presets[i], s, k));
        return true;
    }
    if (x.end - x.s > 3 && memcmp(x.s, "ALL", 3) == 0 && is_number((piece){ x.s + 3, x.end }, &v)) {
        for (int32_t k = 0; k < s->count; k++) set_slot(r, k, (float)v);
        return true;
    }
    if (!read_range(s, x, &first, &last)) return false;
    for (int32_t k = 0; k < s->count; k++) set_slot(r, k, k >= first && k <= last);
    return true;
}

static weft_status take_vector(const reader *r, const float *v, int32_t n, weft_error *err)
{
    const slots *s = &r->slots;
    int32_t      brief = short_length(s), at = 0;

    if (n != s->count && n != brief)
        return wf_fail(err, WEFT_E_ARG,
                       "block weights: %d numbers; this model takes %d (all blocks) or %d (BASE "
                       "and those with attention)",
                       (int)n, (int)s->count, (int)brief);
    for (int32_t k = 0; k < s->count; k++)
        set_slot(r, k, n == s->count ? v[k] : s->attention[k] ? v[at++] : 0);
    return WEFT_OK;
}

/* Layers whose name, or path inside of their component, the pattern fits. */
static weft_status take_pattern(const reader *r, piece x, float factor, weft_error *err)
{
    char   pattern[NAME_MAX];
    size_t hits = 0;

    if (!wf_format(pattern, sizeof pattern, "%.*s", (int)(x.end - x.s), x.s))
        return wf_fail(err, WEFT_E_ARG, "block weights: the pattern %.*s... is too long", shown(x),
                       x.s);
    for (size_t l = 0; l < r->count; l++) {
        const char *name = r->layers[l].name, *path = strchr(name, '.');
        if (!wf_glob_any(pattern, name) && (path == NULL || !wf_glob_any(pattern, path + 1)))
            continue;
        r->factor[l] = factor;
        hits++;
    }
    return hits > 0 ? WEFT_OK
                    : wf_fail(err, WEFT_E_MISMATCH,
                              "block weights: %s is no block of this model, and fits none of its "
                              "layers",
                              pattern);
}

static weft_status take_setting(const reader *r, piece x, const char *equals, weft_error *err)
{
    piece   left = trimmed(x.s, equals), right = trimmed(equals + 1, x.end);
    int32_t first, last;
    double  v;

    if (left.s == left.end || !is_number(right, &v))
        return wf_fail(err, WEFT_E_ARG,
                       "block weights: \"%.*s\", wanted a block or a pattern = a number", shown(x),
                       x.s);
    if (!read_range(&r->slots, left, &first, &last)) return take_pattern(r, left, (float)v, err);
    for (int32_t k = first; k <= last; k++) set_slot(r, k, (float)v);
    return WEFT_OK;
}

/* Numbers for all blocks, or the name of a preset, or neither; then settings, each over what was
 * before it. */
static weft_status read_text(const reader *r, const char *text, weft_error *err)
{
    float       v[SLOTS_MAX];
    const char *at = text;
    int32_t     n = 0;
    double      number;

    for (size_t l = 0; l < r->count; l++) r->factor[l] = 1;
    for (bool first = true; *at != '\0' || first; first = false) {
        piece       x = next_piece(&at);
        const char *equals = memchr(x.s, '=', (size_t)(x.end - x.s));
        if (equals == NULL && n >= 0 && is_number(x, &number)) {
            if (n < SLOTS_MAX) v[n] = (float)number;
            n++;
            continue;
        }
        if (equals == NULL && (n != 0 || !read_preset(r, x)))
            return wf_fail(err, WEFT_E_ARG, "block weights: \"%.*s\", wanted %s", shown(x), x.s,
                           n > 0   ? "a number"
                           : n < 0 ? "a block or a pattern = a number"
                                   : "numbers, a preset, or a block or a pattern = a number");
        if (n > 0) WF_TRY(take_vector(r, v, n, err));
        if (equals != NULL) WF_TRY(take_setting(r, x, equals, err));
        n = -1;
    }
    return n > 0 ? take_vector(r, v, n, err) : WEFT_OK;
}

/* ---- in words -------------------------------------------------------------------------------- */

/* The factors of a block's layers: one number, or a range. */
static bool range_of(const reader *r, int32_t slot, float *low, float *high)
{
    bool any = false;

    for (size_t l = 0; l < r->count; l++) {
        if (r->slot[l] != slot) continue;
        *low = any ? WF_MIN(*low, r->factor[l]) : r->factor[l];
        *high = any ? WF_MAX(*high, r->factor[l]) : r->factor[l];
        any = true;
    }
    return any;
}

void wf_blocks_explain(const weft_plan *p, const wf_blob *blob, wf_text *out)
{
    reader  r = reader_of(p, blob->data);
    int32_t mid = mid_of(&r.slots), last_of[] = { BASE, mid - 1, mid, r.slots.count - 1 };

    wf_text_add(out, "      blocks");
    for (int32_t k = 0, end, side = 0; k < r.slots.count; k = end) {
        slot_text      from, to;
        wf_number_text a, c;
        float          low = 1, high = 1, l, h;
        end = k + 1;
        while (last_of[side] < k) side++;
        if (!range_of(&r, k, &low, &high)) continue;
        while (end <= last_of[side] && (!range_of(&r, end, &l, &h) || (l == low && h == high)))
            end++;
        wf_text_add(out, " %s", slot_name(&from, &r.slots, k));
        if (end > k + 1) wf_text_add(out, "-%s", slot_name(&to, &r.slots, end - 1));
        wf_text_add(out, "=%s", wf_number(&a, low));
        if (high != low) wf_text_add(out, "..%s", wf_number(&c, high));
    }
    wf_text_add(out, "\n");
}

weft_status wf_blocks_read(wf_blob **out, const weft_plan *plan, const char *text, weft_error *err)
{
    size_t      count, length = strlen(text), lists;
    wf_blob    *blob;
    weft_status st;

    *out = NULL;
    (void)wf_model_layers(plan->model, &count);
    lists = sizeof(blocks) + count * (sizeof(float) + sizeof(int32_t));
    if (length > TEXT_MAX)
        return wf_fail(err, WEFT_E_ARG,
                       "block weights: a text of %zu bytes, at most %d are taken", length,
                       TEXT_MAX);
    blob = wf_blob_create(&plan->alloc, lists + length + 1);
    if (blob == NULL) return wf_nomem(err, lists + length + 1, "block weights");
    blocks *b = blob->data;
    b->slot = (int32_t *)(void *)(b->factor + count);
    b->text = memcpy((char *)b + lists, text, length + 1);
    find_slots(&b->slots, plan->model, wf_model_layers(plan->model, &count), count, b->slot);
    reader r = reader_of(plan, b);
    if ((st = read_text(&r, text, err)) == WEFT_OK) *out = blob;
    else wf_blob_drop(blob);
    return st;
}

/* ---- public ---------------------------------------------------------------------------------- */

weft_status weft_plan_set_blocks(weft_plan *plan, int32_t index, const char *text, weft_error *err)
{
    wf_blob *blob = NULL;

    WF_TRY(wf_plan_check_index(plan, index, "weft_plan_set_blocks", err));
    if (text != NULL) WF_TRY(wf_blocks_read(&blob, plan, text, err));
    wf_blob_drop(plan->entry[index].blocks);
    plan->entry[index].blocks = blob;
    return WEFT_OK;
}
