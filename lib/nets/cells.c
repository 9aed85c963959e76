/* cells.c - a coefficient as one sample and one grid of rows have it, and what is taken down of
 * those that acted.
 *
 * A cell is a number, and may name a vector and a mask (layer.h); which cell counts depends on the
 * sample's branch. Notes keep of each coefficient the largest that a call had, and the way by which
 * each layer was computed. */
#include <math.h>

#include "nets/exec.h"

const wf_cell *wf_cell_of(const wf_exec *e, const wf_delta *d, size_t sample, int32_t part)
{
    size_t branch = e->branch != NULL ? (size_t)e->branch[sample] : 0;
    if (e->lines != NULL)
        return &e->cells[e->lines[branch * e->patches + d->patch] + (size_t)part];
    return &e->cells[branch * e->slots + d->slot + (size_t)part];
}

const float *wf_mask_rows(const wf_mask *m, int32_t h, int32_t w)
{
    for (int32_t i = 0; i < m->levels; i++)
        if (m->level[i].h == h && m->level[i].w == w) return m->level[i].rows;
    return NULL;
}

wf_coefficient wf_coefficient_of(const wf_exec *e, const wf_delta *d, size_t sample, int32_t part,
                                 wf_grid g)
{
    const wf_cell *cell = wf_cell_of(e, d, sample, part);
    wf_coefficient c = { .number = cell->number };
    if (c.number == 0.0f) return c;
    if (cell->vector != 0) c.columns = e->vectors[cell->vector - 1];
    if (cell->mask == 0) return c;
    const wf_mask *m = &e->masks[cell->mask - 1];
    if (g.domain == WF_DOMAIN_IMAGE) c.rows = wf_mask_rows(m, g.h, g.w);
    else c.number *= m->elsewhere;
    return c;
}

bool wf_masks_fit(wf_exec *e, const wf_delta *d, wf_grid g)
{
    for (size_t n = 0; n < (size_t)g.n && g.domain == WF_DOMAIN_IMAGE; n++)
        for (int32_t p = 0; p < d->stack->parts; p++) {
            const wf_cell *c = wf_cell_of(e, d, n, p);
            if (c->number == 0.0f || c->mask == 0 ||
                wf_mask_rows(&e->masks[c->mask - 1], g.h, g.w) != NULL)
                continue;
            e->stopped = e->arena.overflow = true; /* whoever made the mask counted other sizes */
            return false;
        }
    return true;
}

bool wf_part_masked(const wf_exec *e, const wf_delta *d, int32_t part, wf_grid g)
{
    bool any = false;
    for (size_t n = 0; n < (size_t)g.n && e->masks != NULL && !any; n++)
        any = wf_coefficient_of(e, d, n, part, g).rows != NULL;
    return any;
}

float wf_cell_number(const wf_exec *e, const wf_cell *cell, wf_grid g)
{
    bool elsewhere = cell->mask != 0 && g.domain != WF_DOMAIN_IMAGE;
    return elsewhere ? cell->number * e->masks[cell->mask - 1].elsewhere : cell->number;
}

/* ---- notes ---- */

/* The cells under which a sample of the layer was computed. */
static const wf_cell *noted_cells(const wf_exec *e, const wf_delta *d, size_t sample,
                                  int32_t *parts)
{
    *parts = d->merged != NULL ? d->copied_parts : d->stack != NULL ? d->stack->parts : 0;
    if (*parts == 0) return NULL;
    return d->merged != NULL ? d->copied : wf_cell_of(e, d, sample, 0);
}

/* Where nothing can hang beside a layer, it is none of the model's, and nobody asks. */
static void note(wf_exec *e, const wf_layer *l, wf_grid out, uint8_t way)
{
    wf_notes *n = e->notes;
    int32_t parts, last = -1;

    if (n == NULL || e->deltas == NULL || e->dry || e->stopped) return;
    const wf_delta *d = &e->deltas[l->id];
    for (size_t s = 0; s < (size_t)out.n; s++) {
        int32_t branch = e->branch != NULL ? e->branch[s] : 0;
        const wf_cell *cells = noted_cells(e, d, s, &parts);
        bool any = false;
        if (branch == last) continue; /* samples of a branch are one behind the other */
        last = branch;
        for (int32_t p = 0; p < parts; p++) {
            size_t at = (size_t)branch * n->slots + d->slot + (size_t)p;
            float c = wf_cell_number(e, &cells[p], out);
            any = any || c != 0.0f;
            if (fabsf(c) <= fabsf(n->cells[at])) continue;
            n->cells[at] = c;
            n->kinds[at] = (uint8_t)((cells[p].vector != 0 ? WF_NOTE_VECTOR : 0) |
                                     (cells[p].mask != 0 ? WF_NOTE_MASK : 0));
        }
        n->ways[(size_t)branch * n->layers + (size_t)l->id] |=
            way | (!any ? WF_NOTE_BASE : d->merged != NULL ? WF_NOTE_MERGED
                                                              : WF_NOTE_SIDE);
    }
}

void wf_note_layer(wf_exec *e, const wf_layer *l, wf_grid out)
{
    if (l != NULL) note(e, l, out, 0);
}

void wf_layer_skip(wf_exec *e)
{
    if (!e->stopped) e->stopped = e->stop != NULL && e->stop(e->stop_user);
}

void wf_layer_kept(wf_exec *e, const wf_layer *l, wf_grid g)
{
    wf_layer_skip(e);
    note(e, l, wf_layer_grid(l, g), WF_NOTE_KEPT);
}
