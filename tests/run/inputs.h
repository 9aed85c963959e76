/* inputs.h - a model with what the adapters' goldens feed it: latents, timesteps, conditioning, token ids. */
#ifndef INPUTS_H
#define INPUTS_H

#include <stdbool.h>

#include "golden.h"
#include "plain.h"

typedef struct inputs {
    weft_tensors *t;
    weft_model   *model;
    golden        x, ts, text, ids, ids2, pooled, time_ids;
    size_t        rows; /* of the text encoders' output that the goldens hold; 0: all */
    bool          xl;
} inputs;

/* model under tests/data, file under tests/data/golden. */
static inline inputs read_inputs(const char *model, const char *file)
{
    inputs in = { .xl = strstr(model, "sdxl") != NULL };
    in.t = golden_open(file);
    must(weft_model_open(data_path("%s", model), NULL, &in.model, &golden_err));
    in.x = golden_read(in.t, "in/sample");
    in.ts = golden_read(in.t, "in/timestep");
    in.text = golden_read(in.t, "in/context");
    in.ids = golden_read(in.t, "in/ids");
    if (in.xl) {
        in.ids2 = golden_read(in.t, "in/ids_2");
        in.pooled = golden_read(in.t, "in/text_embeds");
        in.time_ids = golden_read(in.t, "in/time_ids");
    }
    return in;
}

static inline void free_inputs(inputs *in)
{
    weft_tensors_free(in->t);
    weft_model_free(in->model);
    free(in->x.v), free(in->ts.v), free(in->text.v), free(in->ids.v), free(in->ids2.v), free(in->pooled.v);
    free(in->time_ids.v);
}

#endif
