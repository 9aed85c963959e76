/* form_norm.c - a normalisation's weight and bias themselves, as form_full.c has a layer's.
 *
 * Both are one number for each channel. Files have the differences w_norm and b_norm. */
#include "adapter/view.h"
#include "train/form.h"

enum { WEIGHT, BIAS };

static bool shape(wf_site *s, const wf_form_choice *c)
{
    (void)c;
    if (s->layer->kind != WEFT_LAYER_NORM) return false;
    s->tensor[WEIGHT] = (wf_form_tensor){ "weight", s->out, 1, true };
    s->tensor[BIAS] = (wf_form_tensor){ "bias", 1, s->out, true };
    s->tensors = 2;
    s->scale = 1;
    return true;
}

static void begin(const wf_site *s, const wf_form_choice *c, wf_mersenne *g)
{
    (void)c, (void)g;
    wf_layer_rows(s->layer, 0, s->out, s->value[WEIGHT]);
    memcpy(s->value[BIAS], s->layer->bias, s->out * sizeof(float));
}

static int32_t write(const wf_site *s, int32_t dialect, wf_bag *bag, wf_form_out *out)
{
    wf_outs o = { bag, out, 0 };
    float  *diff = wf_bag_take(bag, 2 * s->out, sizeof *diff);

    if (dialect != WEFT_DIALECT_KOHYA) return 0;
    if (diff == NULL) return -1;
    wf_layer_rows(s->layer, 0, s->out, diff);
    for (size_t i = 0; i < s->out; i++) {
        diff[i] = s->value[WEIGHT][i] - diff[i];
        diff[s->out + i] = s->value[BIAS][i] - s->layer->bias[i];
    }
    wf_out_vector(&o, "w_norm", diff, s->out);
    wf_out_vector(&o, "b_norm", diff + s->out, s->out);
    return o.count;
}

const wf_form wf_form_norm = {
    .name = "norm",
    .reads = WF_READS_WEIGHT | WF_READS_BIAS,
    .in_place = true,
    .shape = shape,
    .begin = begin,
    .write = write,
};
