/* weft.h - weave LoRA adapters through a diffusion model: the one header to include.
 *
 * Four nouns and one verb. A weft_model and a weft_adapter are opened from files and never
 * change. A weft_plan binds adapters to the model's layers and says how they combine; sealed,
 * it is a table of coefficients. A weft_run walks that table: it encodes prompts, predicts the
 * noise of one denoising step, decodes latents. The loop over the steps is the caller's. */
#ifndef WEFT_H
#define WEFT_H

#include "base.h"
#include "tensors.h"
#include "model.h"
#include "adapter.h"
#include "concept.h"
#include "merge.h"
#include "plan.h"
#include "plan_file.h"
#include "conflicts.h"
#include "fuse.h"
#include "text.h"
#include "run.h"
#include "image_prompt.h"
#include "sampler.h"
#include "image.h"
#include "train.h"

#endif
