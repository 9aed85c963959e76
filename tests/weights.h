/* weights.h - text weights for tests: the same in every text encoder. */
#ifndef WF_TEST_WEIGHTS_H
#define WF_TEST_WEIGHTS_H

#include "weft/plan.h"

/* Good until the sixteenth call after this one. */
static inline const weft_text_weights *text_weight(float w)
{
    static weft_text_weights kept[16];
    static int               turn;
    weft_text_weights       *t = &kept[turn++ % 16];

    *t = (weft_text_weights)WEFT_TEXT_WEIGHTS_INIT;
    t->text_1 = t->text_2 = t->text_3 = w;
    return t;
}

#endif
