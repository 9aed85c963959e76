/* form_full.c - a layer's weight and bias themselves.
 *
 * They begin as the model's own, widened, and the network reads them in its place. What is written
 * is the difference, as LyCORIS has it (diff, diff_b): other programs have no form for a whole
 * layer. */
#include "adapter/view.h"
#include "train/form.h"

enum { WEIGHT, BIAS };

static bool shape(wf_site *s, const wf_form_choice *c)
{
    (void)c;
    if (s->layer->kind == WEFT_LAYER_NORM) return false;
    s->tensor[WEIGHT] = (wf_form_tensor){ "weight", s->out, s->K, false };
    s->tensor[BIAS] = (wf_form_tensor){ "bias", 1, s->out, true };
    s->tensors = s->layer->bias != NULL ? 2 : 1;
    s->scale = 1;
    return true;
}

static void begin(const wf_site *s, const wf_form_choice *c, wf_mersenne *g)
{
    (void)c, (void)g;
    wf_layer_rows(s->layer, 0, s->out, s->value[WEIGHT]);
    if (s->tensors > BIAS) memcpy(s->value[BIAS], s->layer->bias, s->out * sizeof(float));
}

static int32_t write(const wf_site *s, int32_t dialect, wf_bag *bag, wf_form_out *out)
{
    wf_outs o = { bag, out, 0 };
    float  *diff = wf_bag_take(bag, s->out * (s->K + 1), sizeof *diff);

    if (dialect != WEFT_DIALECT_KOHYA) return 0;
    if (diff == NULL) return -1;
    float *diff_b = diff + s->out * s->K;
    wf_layer_rows(s->layer, 0, s->out, diff);
    for (size_t i = 0; i < s->out * s->K; i++) diff[i] = s->value[WEIGHT][i] - diff[i];
    wf_out_inner(&o, s, "diff", diff, s->out, s->K / wf_site_taps(s));
    if (s->tensors == BIAS) return o.count;
    for (size_t i = 0; i < s->out; i++) diff_b[i] = s->value[BIAS][i] - s->layer->bias[i];
    wf_out_vector(&o, "diff_b", diff_b, s->out);
    return o.count;
}

const wf_form wf_form_full = {
    .name = "full",
    .reads = WF_READS_WEIGHT | WF_READS_BIAS,
    .in_place = true,
    .shape = shape,
    .begin = begin,
    .write = write,
};
