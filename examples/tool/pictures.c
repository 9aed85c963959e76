/* pictures.c - tensors and pictures that come from files. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tool.h"

/* Read tensor `name` as floats; its shape must end in the last `rank` of `shape`, where 0 takes any
 * number and stores it. NULL where the file has no such tensor. */
float *read_tensor(const weft_tensors *file, const char *path, const char *name, int64_t *shape, size_t rank)
{
    weft_tensor_info info = WEFT_TENSOR_INFO_INIT;
    int64_t index = weft_tensors_find(file, name);
    int fits = 1;

    if (index < 0) return NULL;
    must(weft_tensors_info(file, (size_t)index, &info, &err));
    fits = info.rank >= rank && info.rank <= 8;
    for (size_t i = 0; fits && i < info.rank; i++) {
        int64_t found = info.shape[i];
        if (i < info.rank - rank) { fits = found == 1; continue; }
        int64_t *wanted = &shape[i - (info.rank - rank)];
        if (*wanted == 0 && found > 0) *wanted = found;
        fits = found == *wanted;
    }
    if (!fits) {
        char found[128] = "", wanted[128] = "";
        for (size_t i = 0; i < info.rank && i < 8; i++)
            snprintf(found + strlen(found), sizeof found - strlen(found), "%s%" PRId64, i ? ", " : "", info.shape[i]);
        for (size_t i = 0; i < rank; i++)
            snprintf(wanted + strlen(wanted), sizeof wanted - strlen(wanted), ", %" PRId64, shape[i]);
        fail("%s: %s is (%s), wanted (1%s)", path, name, found, wanted);
    }
    float *data = floats(info.count);
    must(weft_tensors_read(file, (size_t)index, data, info.count, &err));
    return data;
}
