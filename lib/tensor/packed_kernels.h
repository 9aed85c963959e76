/* packed_kernels.h - the loops of packed.h in float32, for whatever vector the including file has
 * defined: those of packed_tiles.h and packed_winograd.h, and packing. */
#include "tensor/packed_tiles.h"
#include "tensor/packed_winograd.h"

/* LANES rows of LANES elements, turned and widened. */
INLINE void turn_rows(vec *t, const uint8_t *from, size_t bytes, const wf_dtype type)
{
#ifdef LOAD_TURNED
    if (type != WF_F32) {
        LOAD_TURNED(t, from, bytes, type);
        return;
    }
#endif
    UNROLL for (size_t r = 0; r < LANES; r++)
        t[r] = v_load_type(from + r * bytes, type, LANES);
    transpose(t);
}

/* LANES rows or fewer into LANES columns of the panel. */
INLINE void pack_columns(float *panel, size_t width, const uint8_t *from, size_t bytes, size_t rows,
                         size_t k, size_t taps, const wf_dtype type)
{
    const size_t size = type == WF_F32 ? 4 : 2;
    size_t channels = k / taps, tap = 0, channel = 0, i = 0;
    vec t[LANES];
    for (; i + LANES <= k && rows == LANES; i += LANES) {
        /* taps come a strip of channels at a time: what follows in the row is next */
        size_t ahead = taps == 1 ? pack_ahead(bytes, i * size, k * size) : i * size + 256;
        UNROLL for (size_t r = 0; r < LANES; r++) __builtin_prefetch(from + r * bytes + ahead);
        turn_rows(t, from + i * size, bytes, type);
        if (taps == 1) {
            UNROLL for (int r = 0; r < LANES; r++) v_store(panel + (i + (size_t)r) * width, t[r]);
            continue;
        }
        UNROLL for (int r = 0; r < LANES; r++) {
            v_store(panel + (tap * channels + channel) * width, t[r]);
            if (++tap == taps) tap = 0, channel++;
        }
    }
    if (taps == 1) channel = i;
    for (; i < k; i += LANES) { /* what is left at the edges */
        size_t some = WF_MIN((size_t)LANES, k - i);
        for (size_t r = 0; r < LANES; r++)
            t[r] = r < rows ? v_load_type(from + r * bytes + i * size, type, some) : v_zero();
        transpose(t);
        for (size_t r = 0; r < some; r++) {
            v_store(panel + (tap * channels + channel) * width, t[r]);
            if (++tap == taps) tap = 0, channel++;
        }
    }
}

static void pack(float *panel, size_t width, const void *from, wf_dtype type, size_t stride,
                 size_t n, size_t k, size_t taps)
{
    size_t bytes = stride * (type == WF_F32 ? 4 : 2);
    for (size_t col = 0; col < width; col += LANES) {
        size_t rows = col < n ? WF_MIN((size_t)LANES, n - col) : 0;
        const uint8_t *at = from;
        at += WF_MIN(col, n) * bytes;
        if (type == WF_F32) pack_columns(panel + col, width, at, bytes, rows, k, taps, WF_F32);
        else if (type == WF_F16) pack_columns(panel + col, width, at, bytes, rows, k, taps, WF_F16);
        else pack_columns(panel + col, width, at, bytes, rows, k, taps, WF_BF16);
    }
}
