/* conflicts.c - pairs of a plan's adapters, held beside each other at each layer.
 *
 * All that a layer has is loaded once, compared, and let go of. What is kept are sums: those of a
 * layer, and for each block and the whole network the same sums over their layers, so that the
 * cosine of a block is that of its layers laid end to end. The verdict is the first fault that
 * holds, from loud to subtle: who is drowned has no use for angles. */
#include <math.h>

#include "adapter/difference.h"
#include "base/structs.h"
#include "plan/plan_internal.h"
#include "weft/conflicts.h"

static const double DROWNS = 3, AGAINST = -0.2, SAME = 0.5, SHARED = 0.5, OVER_CHANCE = 2;

enum { ADAPTERS_MAX = 32 }; /* 496 pairs */

/* What is known of a pair at a layer, in a block, in the network. */
typedef struct sums {
    int32_t layers, known; /* with something of both; with an overlap */
    int32_t alone[2];
    double  dot, square[2];
    double  bare[2];         /* the squares without the user's weights */
    double  compared, clashes;
    double  overlap, chance; /* sums over `known` */
} sums;

typedef struct at_layer { int32_t first, second; int64_t layer; sums s; } at_layer;
typedef struct at_block {
    int32_t       first, second, verdict;
    sums          s;
    wf_short_text name;
    char          words[400];
} at_block;

struct weft_conflicts {
    weft_allocator alloc;
    at_layer      *layer;
    size_t         layers;
    at_block      *block;
    size_t         blocks;
    wf_text        text;
};

/* ---- measuring ------------------------------------------------------------------------------- */

/* An adapter at the layer that is being looked at. */
typedef struct seen {
    bool          there;
    double        weight; /* and balance */
    double        square; /* |D|^2 */
    double        bare;   /* without the user's weight */
    wf_difference d;
    double       *basis;
    size_t        rank;
} seen;

static void forget(seen *s, const weft_allocator *alloc)
{
    wf_difference_free(&s->d, alloc);
    wf_free(alloc, s->basis);
    *s = (seen){ 0 };
}

static weft_status look(seen *s, const weft_plan *p, int32_t adapter, const wf_layer *layer,
                        weft_error *err)
{
    int32_t         count;
    const wf_slice *slice = wf_plan_slices(p, adapter, layer->id, &count);
    double          user = wf_plan_weight(p, adapter, layer->id), balance = 1;

    if (layer->component == WEFT_COMPONENT_DENOISER)
        balance = wf_balance_at(p->table.balanced, adapter);
    *s = (seen){ .weight = user * balance };
    if (count == 0 || s->weight == 0) return WEFT_OK;
    s->there = true;
    WF_TRY(wf_difference_load(&s->d, p->entry[adapter].bound->adapter, slice, count, layer, false,
                              &p->alloc, err));
    WF_TRY(wf_difference_dot(&s->square, &s->d, &s->d, &p->alloc, err));
    s->bare = WF_MAX(s->square, 0.0) * balance * balance;
    s->square = s->bare * user * user;
    return wf_difference_basis(&s->basis, &s->rank, &s->d, &p->alloc, err);
}

static weft_status measure(sums *to, const seen *a, const seen *b, const weft_allocator *alloc,
                           weft_error *err)
{
    *to = (sums){ .layers = 1, .square = { a->square, b->square },
                  .bare = { a->bare, b->bare } };
    WF_TRY(wf_difference_dot(&to->dot, &a->d, &b->d, alloc, err));
    WF_TRY(wf_difference_clash(&to->compared, &to->clashes, &a->d, &b->d, alloc, err));
    to->dot *= a->weight * b->weight;
    if (a->weight * b->weight < 0) to->clashes = to->compared - to->clashes;
    if (a->rank == 0 || b->rank == 0) return WEFT_OK;
    to->known = 1;
    to->overlap = wf_basis_overlap(a->basis, a->rank, b->basis, b->rank, a->d.out);
    to->chance = (double)WF_MAX(a->rank, b->rank) / (double)a->d.out;
    return WEFT_OK;
}

static void add(sums *to, const sums *s)
{
    to->layers += s->layers;
    to->known += s->known;
    for (int i = 0; i < 2; i++) {
        to->alone[i] += s->alone[i];
        to->square[i] += s->square[i];
        to->bare[i] += s->bare[i];
    }
    to->dot += s->dot;
    to->compared += s->compared;
    to->clashes += s->clashes;
    to->overlap += s->overlap;
    to->chance += s->chance;
}

static double cosine(const sums *s)
{
    double norms = sqrt(s->square[0]) * sqrt(s->square[1]);
    return norms > 0 ? WF_MIN(WF_MAX(s->dot / norms, -1.0), 1.0) : 0;
}

static double clash(const sums *s) { return s->compared > 0 ? s->clashes / s->compared : 0; }
static double overlap(const sums *s) { return s->known > 0 ? s->overlap / s->known : -1; }
static double chance(const sums *s) { return s->known > 0 ? s->chance / s->known : 0; }

/* ---- all layers ------------------------------------------------------------------------------ */

/* Rows and blocks while they are made: [pairs][layers of the model] and [pairs][names + 1], the
 * whole of a pair first. Those that stay empty are dropped at the end. */
typedef struct making {
    size_t         layers, names;
    wf_short_text *name; /* of the model's blocks */
    seen          *of;   /* [adapters]            */
} making;

/* The place of a block's name, which is new if it stands past the others. */
static size_t find_name(const making *m, const char *layer, wf_short_text *name)
{
    size_t i = 0;

    wf_block_name(name, layer);
    while (i < m->names && strcmp(m->name[i].text, name->text) != 0) i++;
    return i;
}

static weft_status compare_layer(weft_conflicts *c, const weft_plan *p, const wf_layer *layer,
                                 const making *m, weft_error *err)
{
    wf_short_text name;
    const seen   *of = m->of;
    size_t        pair = 0, at = find_name(m, layer->name, &name);

    for (int32_t a = 0; a < p->adapters; a++) WF_TRY(look(&m->of[a], p, a, layer, err));
    for (int32_t a = 0; a < p->adapters; a++)
        for (int32_t b = a + 1; b < p->adapters; b++, pair++) {
            at_block *whole = &c->block[pair * (m->names + 1)];
            sums      s = { .alone = { of[a].there && !of[b].there, of[b].there && !of[a].there } };
            if (of[a].there && of[b].there) {
                WF_TRY(measure(&s, &of[a], &of[b], &p->alloc, err));
                c->layer[pair * m->layers + (size_t)layer->id] = (at_layer){ a, b, layer->id, s };
            }
            add(&whole->s, &s);
            add(&whole[1 + at].s, &s);
        }
    return WEFT_OK;
}

static weft_status tell(const weft_plan *p, size_t done, size_t total, weft_error *err)
{
    if (p->progress != NULL &&
        p->progress(p->progress_user, "comparing layers", (int64_t)done, (int64_t)total) != 0)
        return wf_fail(err, WEFT_E_CANCELLED, "stopped after %zu of %zu layers were compared", done,
                       total);
    return WEFT_OK;
}

static weft_status make_room(weft_conflicts *c, const weft_plan *p, making *m, weft_error *err)
{
    const wf_layer *layers = wf_model_layers(p->model, &m->layers);
    size_t          n = (size_t)p->adapters, pairs = n * (n - 1) / 2, rows, pair = 0;
    wf_short_text   name;

    m->name = wf_zalloc(&c->alloc, m->layers, sizeof *m->name);
    m->of = wf_zalloc(&c->alloc, n, sizeof *m->of);
    if (m->name == NULL || m->of == NULL)
        return wf_nomem(err, m->layers * sizeof *m->name, "a report of conflicts");
    for (size_t l = 0; l < m->layers; l++) {
        size_t at = find_name(m, layers[l].name, &name);
        if (at == m->names) m->name[m->names++] = name;
    }
    if (!wf_mul(pairs, m->layers, &rows)) rows = SIZE_MAX;
    c->layer = wf_zalloc(&c->alloc, rows, sizeof *c->layer);
    c->block = wf_zalloc(&c->alloc, pairs * (m->names + 1), sizeof *c->block);
    if (c->layer == NULL || c->block == NULL)
        return wf_nomem(err, rows, "a report of conflicts");
    for (int32_t a = 0; a < p->adapters; a++)
        for (int32_t b = a + 1; b < p->adapters; b++, pair++)
            for (size_t i = 0; i <= m->names; i++) {
                at_block *at = &c->block[pair * (m->names + 1) + i];
                at->first = a;
                at->second = b;
                if (i > 0) at->name = m->name[i - 1];
            }
    c->layers = rows;
    c->blocks = pairs * (m->names + 1);
    return WEFT_OK;
}

/* Keep what says something, and of each pair the whole. */
static void drop_empty(weft_conflicts *c)
{
    size_t layers = 0, blocks = 0;

    for (size_t i = 0; i < c->layers; i++)
        if (c->layer[i].s.layers > 0) c->layer[layers++] = c->layer[i];
    for (size_t i = 0; i < c->blocks; i++) {
        const sums *s = &c->block[i].s;
        if (s->layers + s->alone[0] + s->alone[1] > 0 || c->block[i].name.text[0] == '\0')
            c->block[blocks++] = c->block[i];
    }
    c->layers = layers;
    c->blocks = blocks;
}

static weft_status compare(weft_conflicts *c, const weft_plan *p, weft_error *err)
{
    const wf_layer *layers = wf_model_layers(p->model, &(size_t){ 0 });
    making          m = { 0 };
    weft_status     st = make_room(c, p, &m, err);

    for (size_t l = 0; l < m.layers && st == WEFT_OK; l++) {
        if (layers[l].kind == WEFT_LAYER_NORM) continue;
        if ((st = tell(p, l, m.layers, err)) == WEFT_OK)
            st = compare_layer(c, p, &layers[l], &m, err);
        for (int32_t a = 0; a < p->adapters; a++) forget(&m.of[a], &p->alloc);
    }
    if (st == WEFT_OK) st = tell(p, m.layers, m.layers, err);
    wf_free(&c->alloc, m.name);
    wf_free(&c->alloc, m.of);
    if (st == WEFT_OK) drop_empty(c);
    return st;
}

/* ---- in words -------------------------------------------------------------------------------- */

typedef struct who_text { char text[100]; } who_text;

/* "the style B (ink)", "B (ink)". */
static const char *who(who_text *buf, const weft_plan *p, int32_t adapter)
{
    const char    *role = wf_plan_role_name(p, adapter);
    wf_letter_text letter;

    wf_format(buf->text, sizeof buf->text, "%s%s%s%s (%.50s)", role[0] ? "the " : "", role,
              role[0] ? " " : "", wf_letter(&letter, adapter),
              wf_adapter_name(p->entry[adapter].bound->adapter));
    return buf->text;
}

static int32_t verdict_of(const sums *s)
{
    double a = sqrt(s->square[0]), b = sqrt(s->square[1]), c = cosine(s), o = overlap(s);

    if (s->layers == 0 || a == 0 || b == 0) return WEFT_VERDICT_NONE;
    if (a >= DROWNS * b) return WEFT_VERDICT_FIRST_DROWNS;
    if (b >= DROWNS * a) return WEFT_VERDICT_SECOND_DROWNS;
    if (c <= AGAINST) return WEFT_VERDICT_AGAINST;
    if (c >= SAME) return WEFT_VERDICT_SAME;
    return o >= SHARED && o >= OVER_CHANCE * chance(s) ? WEFT_VERDICT_SHARED : WEFT_VERDICT_NONE;
}

/* What helps against being drowned: if weights make the larger part of it, other weights. */
static const char *remedy(const sums *s, const weft_plan *p, int larger)
{
    double ratio = sqrt(s->square[larger] / s->square[1 - larger]);
    double bare = sqrt(s->bare[larger] / s->bare[1 - larger]);

    if (ratio > bare * bare) return "lower its weight";
    if (p->table.balanced != NULL) return "give each layer to one with weft_plan_klora()";
    return "balance them with weft_plan_balance(), or give each layer to one with "
           "weft_plan_klora()";
}

static void judge(at_block *b, const weft_plan *p)
{
    const sums    *s = &b->s;
    double         ratio;
    who_text       one, two;
    wf_number_text x;
    bool           all = b->name.text[0] == '\0', turned;
    char           where[80];

    wf_format(where, sizeof where, "%s%s", all ? "" : " in ", b->name.text);
    b->verdict = verdict_of(s);
    turned = b->verdict == WEFT_VERDICT_SECOND_DROWNS;
    who(&one, p, turned ? b->second : b->first);
    who(&two, p, turned ? b->first : b->second);
    switch (b->verdict) {
    case WEFT_VERDICT_FIRST_DROWNS:
    case WEFT_VERDICT_SECOND_DROWNS:
        ratio = sqrt(s->square[turned] / s->square[!turned]);
        wf_format(b->words, sizeof b->words, "%s drowns %s%s: %s times its norm; %s", one.text,
                  two.text, where, wf_fixed(&x, ratio, 1), remedy(s, p, turned));
        break;
    case WEFT_VERDICT_AGAINST:
        wf_format(b->words, sizeof b->words,
                  "%s and %s work against each other%s: cosine %s, a sum takes away from both; let "
                  "them take turns with weft_plan_switch(), or use weft_plan_klora()",
                  one.text, two.text, where, wf_fixed(&x, cosine(s), 2));
        break;
    case WEFT_VERDICT_SAME:
        wf_format(b->words, sizeof b->words,
                  "%s and %s do much the same%s: cosine %s, a sum is too strong; lower their "
                  "weights, or leave one out",
                  one.text, two.text, where, wf_fixed(&x, cosine(s), 2));
        break;
    case WEFT_VERDICT_SHARED:
        wf_format(b->words, sizeof b->words,
                  "%s and %s write into the same directions%s: %s of their columns, a sum mixes "
                  "them; give each layer to one with weft_plan_klora(), or keep their predictions apart "
                  "with weft_plan_composite()",
                  one.text, two.text, where, wf_fixed(&x, overlap(s), 2));
        break;
    default:
        wf_format(b->words, sizeof b->words, "%s and %s %s%s", one.text, two.text,
                  s->layers > 0 ? "can be summed" : "have no layer in common", where);
    }
}

static void write_row(wf_text *out, const at_block *b)
{
    const sums    *s = &b->s;
    wf_number_text n[6];

    bool           any = s->layers > 0;

    wf_text_add(out, "  %-18s %6d %5d %5d  %9s %9s  %6s  %5s",
                b->name.text[0] ? b->name.text : "all", (int)s->layers, (int)s->alone[0], (int)s->alone[1],
                any ? wf_fixed(&n[0], sqrt(s->square[0]), 3) : "-",
                any ? wf_fixed(&n[1], sqrt(s->square[1]), 3) : "-",
                any ? wf_fixed(&n[2], cosine(s), 3) : "-",
                any ? wf_fixed(&n[3], clash(s), 3) : "-");
    if (s->known > 0)
        wf_text_add(out, "  %7s %6s\n", wf_fixed(&n[4], overlap(s), 3),
                    wf_fixed(&n[5], chance(s), 3));
    else wf_text_add(out, "  %7s %6s\n", "-", "-");
}

static void write_pair(wf_text *out, const weft_conflicts *c, const weft_plan *p, size_t from,
                       size_t end)
{
    const at_block *whole = &c->block[from];
    wf_letter_text  a, b;
    who_text        one, two;

    wf_text_add(out, "%s%s and %s\n", from > 0 ? "\n" : "", who(&one, p, whole->first),
                who(&two, p, whole->second));
    wf_letter(&a, whole->first);
    wf_letter(&b, whole->second);
    wf_text_add(out, "  %-18s %6s %5s %5s  %8s%s| %7s%s|  %6s  %5s  %7s %6s\n", "block", "both",
                a.text, b.text, "|", a.text, "|", b.text, "cosine", "clash", "overlap", "chance");
    for (size_t i = from; i < end; i++) write_row(out, &c->block[i]);
    for (size_t i = from; i < end; i++)
        if (i == from || c->block[i].verdict != WEFT_VERDICT_NONE)
            wf_text_add(out, "  %s\n", c->block[i].words);
}

static void write_text(weft_conflicts *c, const weft_plan *p)
{
    for (size_t i = 0, end; i < c->blocks; i = end) {
        for (end = i + 1; end < c->blocks && c->block[end].name.text[0] != '\0'; end++) {}
        write_pair(&c->text, c, p, i, end);
    }
}

/* ---- public ---------------------------------------------------------------------------------- */

weft_status weft_conflicts_create(const weft_plan *plan, weft_conflicts **out, weft_error *err)
{
    weft_conflicts *c;
    weft_status     st;

    if (out == NULL) return wf_fail(err, WEFT_E_ARG, "weft_conflicts_create: out is NULL");
    *out = NULL;
    WF_TRY(wf_plan_must_be_sealed(plan, "weft_conflicts_create", err));
    if (plan->adapters < 2)
        return wf_fail(err, WEFT_E_UNSUPPORTED, "conflicts: need two adapters, the plan has %d",
                       (int)plan->adapters);
    if (plan->adapters > ADAPTERS_MAX)
        return wf_fail(err, WEFT_E_UNSUPPORTED, "conflicts: at most %d adapters, the plan has %d",
                       ADAPTERS_MAX, (int)plan->adapters);
    c = wf_zalloc(&plan->alloc, 1, sizeof *c);
    if (c == NULL) return wf_nomem(err, sizeof *c, "a report of conflicts");
    c->alloc = plan->alloc;
    wf_text_init(&c->text, &c->alloc);
    if ((st = compare(c, plan, err)) == WEFT_OK) {
        for (size_t i = 0; i < c->blocks; i++) judge(&c->block[i], plan);
        write_text(c, plan);
        if (c->text.failed) st = wf_nomem(err, c->text.len, "a report of conflicts");
    }
    if (st == WEFT_OK) *out = c;
    else weft_conflicts_free(c);
    return st;
}

void weft_conflicts_free(weft_conflicts *conflicts)
{
    if (conflicts == NULL) return;
    weft_allocator alloc = conflicts->alloc;
    wf_free(&alloc, conflicts->layer);
    wf_free(&alloc, conflicts->block);
    wf_text_free(&conflicts->text);
    wf_free(&alloc, conflicts);
}

size_t weft_conflicts_count(const weft_conflicts *conflicts)
{
    return conflicts != NULL ? conflicts->layers : 0;
}

size_t weft_conflicts_blocks(const weft_conflicts *conflicts)
{
    return conflicts != NULL ? conflicts->blocks : 0;
}

weft_status weft_conflicts_get(const weft_conflicts *conflicts, size_t index, weft_conflict *out,
                               weft_error *err)
{
    weft_conflict r = WEFT_CONFLICT_INIT;

    if (conflicts == NULL || out == NULL)
        return wf_fail(err, WEFT_E_ARG, "weft_conflicts_get: %s is NULL",
                       out == NULL ? "out" : "conflicts");
    if (index >= conflicts->layers)
        return wf_fail(err, WEFT_E_ARG, "weft_conflicts_get: row %zu of %zu", index,
                       conflicts->layers);
    const at_layer *at = &conflicts->layer[index];
    r.first = at->first;
    r.second = at->second;
    r.layer = at->layer;
    r.first_norm = sqrt(at->s.square[0]);
    r.second_norm = sqrt(at->s.square[1]);
    r.cosine = cosine(&at->s);
    r.clash = clash(&at->s);
    r.overlap = overlap(&at->s);
    r.chance = chance(&at->s);
    return WF_RESULT(out, &r, weft_conflict, err);
}

weft_status weft_conflicts_block(const weft_conflicts *conflicts, size_t index,
                                 weft_conflict_block *out, weft_error *err)
{
    weft_conflict_block r = WEFT_CONFLICT_BLOCK_INIT;

    if (conflicts == NULL || out == NULL)
        return wf_fail(err, WEFT_E_ARG, "weft_conflicts_block: %s is NULL",
                       out == NULL ? "out" : "conflicts");
    if (index >= conflicts->blocks)
        return wf_fail(err, WEFT_E_ARG, "weft_conflicts_block: block %zu of %zu", index,
                       conflicts->blocks);
    const at_block *at = &conflicts->block[index];
    r.first = at->first;
    r.second = at->second;
    r.layers = at->s.layers;
    r.first_alone = at->s.alone[0];
    r.second_alone = at->s.alone[1];
    r.verdict = at->verdict;
    r.name = at->name.text;
    r.words = at->words;
    r.first_norm = sqrt(at->s.square[0]);
    r.second_norm = sqrt(at->s.square[1]);
    r.cosine = cosine(&at->s);
    r.clash = clash(&at->s);
    r.overlap = overlap(&at->s);
    r.chance = chance(&at->s);
    return WF_RESULT(out, &r, weft_conflict_block, err);
}

weft_status weft_conflicts_text(const weft_conflicts *conflicts, char *buf, size_t cap,
                                size_t *needed, weft_error *err)
{
    if (needed != NULL) *needed = 0;
    if (conflicts == NULL)
        return wf_fail(err, WEFT_E_ARG, "weft_conflicts_text: conflicts is NULL");
    if (buf == NULL && cap != 0)
        return wf_fail(err, WEFT_E_ARG, "weft_conflicts_text: buf is NULL but cap is %zu", cap);
    wf_copy_out(conflicts->text.s, conflicts->text.len, buf, cap, needed);
    return WEFT_OK;
}
