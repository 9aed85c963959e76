/* form_lora.c - LoRA: the pair itself, s B A.
 *
 * Hu et al., LoRA: Low-Rank Adaptation of Large Language Models, 2022. */
#include "train/form.h"

static int32_t write(const wf_site *s, int32_t dialect, wf_bag *bag, wf_form_out *out)
{
    wf_outs o = { bag, out, 0 };

    wf_pair_write(s, dialect == WEFT_DIALECT_KOHYA, s->value[0], s->value[1], &o);
    return o.count;
}

const wf_form wf_form_lora = {
    .name = "lora",
    .reads = WF_READS_PAIR,
    .in_place = true,
    .shape = wf_pair_shape,
    .begin = wf_pair_begin,
    .write = write,
};
