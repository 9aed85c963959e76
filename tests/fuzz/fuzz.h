/* fuzz.h - what every target holds against the library: a claim, and an error that is one clean line. */
#ifndef WF_FUZZ_H
#define WF_FUZZ_H

#include <stdlib.h>

#include "base/base.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static inline void must(bool holds)
{
    if (!holds) abort();
}

static inline bool one_line(const char *s)
{
    if (*s == '\0' || !wf_utf8_valid(s, strlen(s))) return false;
    for (; *s != '\0'; s++)
        if ((unsigned char)*s < 0x20) return false;
    return true;
}

#endif
