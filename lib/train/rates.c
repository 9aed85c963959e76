/* rates.c - how fast a step goes: a factor for the rates of all groups, by the steps done before.
 *
 * As get_scheduler() of diffusers has it, so that recipes of its scripts can be followed: the first
 * step of a warm-up has the rate 0. Past `steps` a falling rate stays at 0. */
#include <math.h>

#include "train/trainer_internal.h"

double wf_train_rate(const weft_train_options *o, int64_t done)
{
    double warmup = WF_MAX(o->warmup, 0), s = (double)done;
    double rest = WF_MAX((double)o->steps - warmup, 1.0);

    if (s < warmup) return s / warmup;
    if (o->rates == WEFT_RATES_CONSTANT) return 1;
    double part = WF_MIN((s - warmup) / rest, 1.0);
    if (o->rates == WEFT_RATES_LINEAR) return 1 - part;
    return 0.5 * (1 + cos(3.14159265358979323846 * part));
}
