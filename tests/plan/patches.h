/* patches.h - the patches of a sealed plan of one phase in one list, for tests. */
#ifndef WF_TEST_PATCHES_H
#define WF_TEST_PATCHES_H

#include <check.h>

#include "plan/plan_internal.h"

/* Every patch of a plan of one phase: those of the phase, then those of the text encoders, whose slots
 * go on where the phase's end. */
typedef struct patched {
    int32_t              layer, slot, parts;
    bool                 merged;
    const wf_patch_part *part;
    wf_stack             stack;
    const wf_patch      *patch;
} patched;

static inline size_t all_slots(const weft_plan *p)
{
    return wf_plan_phase(p, 0)->slots + wf_plan_text_sheet(p)->slots;
}

static inline const wf_cell *row_of(const weft_plan *p, int32_t call)
{
    const wf_sheet *s = wf_plan_phase(p, call);
    return wf_sheet_cells(s, wf_sheet_row(s, call));
}

static inline const patched *patches_of(const weft_plan *p, size_t *count)
{
    static patched  all[16][4096]; /* several at a time may be looked at */
    static int      turn;
    const wf_sheet *sheet[] = { wf_plan_phase(p, 0), wf_plan_text_sheet(p) };
    patched        *to = all[turn++ % 16];

    *count = 0;
    for (int k = 0; k < 2; k++)
        for (size_t i = 0; i < sheet[k]->patched_count; i++) {
            const wf_patch *x = sheet[k]->patched[i].patch;
            ck_assert_uint_lt(*count, 4096);
            to[(*count)++] = (patched){ x->layer, sheet[k]->patched[i].slot + (k ? (int32_t)sheet[0]->slots : 0),
                                        x->parts, x->merged, x->part, x->stack, x };
        }
    return to;
}

/* Cells of a patch at call 0. */
static inline const wf_cell *cells_of(const weft_plan *p, const patched *at)
{
    const wf_sheet *phase = wf_plan_phase(p, 0), *text = wf_plan_text_sheet(p);
    size_t          slot = (size_t)at->slot;
    return slot < phase->slots ? row_of(p, 0) + slot
                               : wf_sheet_cells(text, &text->row[0]) + (slot - phase->slots);
}

#endif
