/* zip.h - what ZipLoRA's form and recipe know of a layer: the factors of the two adapters. */
#ifndef WF_TRAIN_ZIP_H
#define WF_TRAIN_ZIP_H

#include "train/form.h"

enum { WF_ZIP_CONTENT, WF_ZIP_STYLE, WF_ZIP_PARTS };

/* wf_site.given. The scale of the adapter's file is in `up`. */
typedef struct wf_zip_layer {
    int32_t rank[WF_ZIP_PARTS]; /* 0: that adapter leaves the layer alone */
    float  *down[WF_ZIP_PARTS]; /* (rank, K)                              */
    float  *up[WF_ZIP_PARTS];   /* (rank, out)                            */
} wf_zip_layer;

/* The tensor of a site with that adapter's coefficients, or -1. */
int32_t wf_zip_tensor(const wf_site *s, int part);

#endif
