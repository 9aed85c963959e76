/* structs.c - weft_x_init() of every struct that crosses the ABI.
 *
 * The caller says how large its struct is, because only the caller knows: it may be older than this
 * library, and then writing our size would overrun its stack. */
#include "base/structs.h"

static void init(void *theirs, size_t size)
{
    uint32_t head = (uint32_t)size;

    if (theirs == NULL || size < sizeof head || size > UINT32_MAX) return;
    memset(theirs, 0, size);
    memcpy(theirs, &head, sizeof head);
}

#define INIT_FUNCTION(type, macro, last) \
    void type##_init(type *theirs, size_t size) { init(theirs, size); }
WF_STRUCTS(INIT_FUNCTION)
