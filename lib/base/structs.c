/* structs.c - the structs that cross the ABI: begun, read and filled.
 *
 * A caller may have been compiled against an older or a newer header than ours. struct_size, the
 * first field of each of these structs, tells; flags is the second field of options.
 *
 * To weft_x_init() the caller says how large its struct is, because only the caller knows: it may
 * be older than this library, and then writing our size would overrun its stack. */
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

#define STRUCT_LIMIT 4096  /* no struct of ours comes near: a size above it was never set */

static weft_status check_size(const void *theirs, size_t first, uint32_t *size, const char *what,
                              weft_error *err)
{
    memcpy(size, theirs, sizeof *size);
    if (*size >= first && *size <= STRUCT_LIMIT) return WEFT_OK;
    return wf_fail(err, WEFT_E_ARG,
                   "%s: struct_size is %u, expected at least %zu; start from its INIT value", what,
                   *size, first);
}

weft_status wf_options(void *dst, size_t size, size_t first, const void *src, uint32_t flags,
                       const char *what, weft_error *err)
{
    const uint8_t *theirs = src;
    uint32_t       their_size = (uint32_t)size, head[2];
    weft_status    st;

    memset(dst, 0, size);
    if (src != NULL) {
        if ((st = check_size(src, first, &their_size, what, err)) != WEFT_OK) return st;
        for (size_t i = size; i < their_size; i++)
            if (theirs[i] != 0)
                return wf_fail(
                    err, WEFT_E_UNSUPPORTED,
                    "%s: byte %zu is set, but this library (version %d.%d.%d) knows only %zu", what,
                    i, WEFT_VERSION_MAJOR, WEFT_VERSION_MINOR, WEFT_VERSION_PATCH, size);
        memcpy(dst, src, WF_MIN(size, their_size));
    }
    memcpy(head, dst, sizeof head);
    if ((head[1] & ~flags) != 0)
        return wf_fail(err, WEFT_E_UNSUPPORTED,
                       "%s: flags %u has bits that this library does not know (%u)", what, head[1],
                       head[1] & ~flags);
    head[0] = (uint32_t)size;
    memcpy(dst, head, sizeof head);
    return WEFT_OK;
}

weft_status wf_result(void *dst, const void *src, size_t size, size_t first, const char *what,
                      weft_error *err)
{
    uint32_t    their_size;
    weft_status st;

    if (dst == NULL) return wf_fail(err, WEFT_E_ARG, "%s is NULL", what);
    if ((st = check_size(dst, first, &their_size, what, err)) != WEFT_OK) return st;
    memcpy(dst, src, WF_MIN(size, their_size));
    memcpy(dst, &their_size, sizeof their_size);
    return WEFT_OK;
}
