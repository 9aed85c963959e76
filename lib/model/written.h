/* written.h - a model as files again, in the layout that it was opened from; the weights come from elsewhere. */
#ifndef WF_WRITTEN_H
#define WF_WRITTEN_H

#include "model/model.h"

/* Write one weight file: these tensors, from `file` but under the names given here. */
typedef weft_status (*wf_weights_writer)(void *user, const char *path, const weft_tensors *file,
                                         const wf_tensor *tensors, size_t count, weft_error *err);

/* Make `path`, which must not exist: a file, or a folder with all that the model's folder has for it (configurations,
 * tokenizers, scheduler). A folder's weights are then one file for each component, whatever they were cut into; a VAE
 * that was given to weft_model_open() is not part of it, the model's own is. On failure nothing is left behind. */
weft_status wf_model_write(const weft_model *m, const char *path, wf_weights_writer write, void *user, weft_error *err);

/* The tensor of a layer's weight or bias as its component shows it; NULL if the layer has none. Its data lies in a
 * tensor of the file, perhaps as some rows of a larger one, or is a copy: then *source is what it was turned from. */
const wf_tensor *wf_model_tensor(const weft_model *m, const wf_layer *layer, bool bias, const wf_tensor **source);

#endif
