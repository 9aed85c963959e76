/* form_lora.c - a pair as it is: y += s B (A x), s = alpha / rank.
 *
 *   A (rank, K)   uniform in +-1 / sqrt(K), which is PEFT's Kaiming with a = sqrt(5);
 *                 or normal with deviation 1 / rank, as the first programs had it
 *   B (out, rank) zero, kept transposed: (rank, out), as the network reads it */
#include <math.h>

#include "train/form.h"
#include "weft/adapter.h"

static bool shape(wf_site *s, const wf_form_choice *c)
{
    s->rank = (int32_t)WF_MIN((size_t)c->rank, WF_MIN(s->out, s->K));
    s->alpha = c->alpha > 0 ? c->alpha : (float)s->rank;
    s->scale = s->alpha / (float)s->rank;
    s->tensors = 2;
    s->tensor[0] = (wf_form_tensor){ "lora_A", (size_t)s->rank, s->K, false };
    s->tensor[1] = (wf_form_tensor){ "lora_B", (size_t)s->rank, s->out, false };
    return true;
}

static void begin(const wf_site *s, const wf_form_choice *c, wf_mersenne *g)
{
    size_t n = (size_t)s->rank * s->K;
    float bound = (float)(1.0 / sqrt((double)s->K)), deviation = 1.0f / (float)s->rank;

    for (size_t i = 0; i < n; i++)
        s->value[0][i] = c->gaussian ? wf_draw_normal(g) * deviation : wf_draw_uniform(g, bound);
    memset(s->value[1], 0, (size_t)s->rank * s->out * sizeof(float));
}

static int32_t write(const wf_site *s, int32_t dialect, wf_bag *bag, wf_form_out *out)
{
    bool kohya = dialect == WEFT_DIALECT_KOHYA;
    size_t r = (size_t)s->rank, k = (size_t)s->layer->kernel;
    float *down = wf_bag_take(bag, r * s->K, sizeof *down);
    float *up = wf_bag_take(bag, s->out * r, sizeof *up);
    int32_t rank = s->layer->kind == WEFT_LAYER_CONV ? 4 : 2;

    if (down == NULL || up == NULL) return -1;
    wf_unorder(down, s->value[0], r, k * k, (size_t)s->layer->in);
    for (size_t o = 0; o < s->out; o++)
        for (size_t i = 0; i < r; i++) up[o * r + i] = s->value[1][i * s->out + o];
    out[0] = (wf_form_out){ kohya ? "lora_down.weight" : "lora_A.weight", down,
                            { s->rank, s->layer->in, (int64_t)k, (int64_t)k }, rank };
    out[1] = (wf_form_out){ kohya ? "lora_up.weight" : "lora_B.weight", up,
                            { s->layer->out, s->rank, 1, 1 }, rank };
    return 2;
}

const wf_form wf_form_lora = { .name = "lora", .reads = WF_READS_PAIR, .in_place = true,
                               .shape = shape, .begin = begin, .write = write };
