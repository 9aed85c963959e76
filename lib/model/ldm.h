/* ldm.h (internal) - names of tensors in LDM's and SGM's single files, from and to diffusers'. */
#ifndef WF_LDM_H
#define WF_LDM_H

#include "model/model.h"

/* What is done to a tensor on its way to its other name. */
typedef int32_t wf_ldm_op;
enum {
    WF_LDM_COPY,
    WF_LDM_TRANSPOSE, /* text_projection is stored for x @ P */
    WF_LDM_ROWS_OF_3  /* q, k, v by rows; the name has '*' where it says q, k or v */
};

/* diffusers' names of the tensors of each component, its prefix in the file taken off; false if it has none. */
bool wf_ldm_unet(const char *name, int32_t layers_per_block, char *buf, size_t cap);
bool wf_ldm_vae(const char *name, int32_t levels, char *buf, size_t cap);
bool wf_ldm_openclip(const char *name, char *buf, size_t cap, wf_ldm_op *op);
/* N of "transformer.resblocks.N.", or -1. */
int32_t wf_ldm_openclip_layer(const char *name);

#endif
