/* put.h - for recipes with files of their own: trained numbers as named tensors, and the file. */
#ifndef WF_TRAIN_PUT_H
#define WF_TRAIN_PUT_H

#include "train/trainer_internal.h"

/* Add a copy of v to tensors that are being built, in float32 or, `half`, float16:
 * WEFT_E_UNSUPPORTED if a number is too large for that. */
weft_status wf_trainer_put(weft_tensors *to, const char *name, const float *v, int32_t rank,
                           const int64_t *shape, bool half, weft_error *err);
/* Seal the tensors, and write them with the trainer's metadata and the list's own. */
weft_status wf_trainer_write(const weft_trainer *t, weft_tensors *list, const char *path,
                             weft_error *err);

#endif
