/* tensors.h - named tensors in files and in memory: a caller's own latents, comparisons, adapters
 * made in memory. */
#ifndef WEFT_TENSORS_H
#define WEFT_TENSORS_H

#include "base.h"

#ifdef __cplusplus
extern "C" {
#endif

/** Named tensors, of a file or in memory: immutable, usable from any thread. */
typedef struct weft_tensors weft_tensors;

/** One of the tensors. Strings belong to the weft_tensors. */
typedef struct weft_tensor_info {
    uint32_t    struct_size;
    uint32_t    flags;     /* zero                                           */
    const char *name;
    const char *dtype;     /* as the file says: "F32", "F16", "BF16", ...    */
    int64_t     shape[8];
    size_t      rank;      /* 0 is a scalar                                  */
    size_t      count;     /* number of elements                             */
} weft_tensor_info;
#define WEFT_TENSOR_INFO_INIT { sizeof(weft_tensor_info), 0, 0, 0, { 0 }, 0, 0 }
/** The function twin of WEFT_TENSOR_INFO_INIT. @since 0.1 */
WEFT_API void weft_tensor_info_init(weft_tensor_info *info, size_t size);

typedef struct weft_tensors_options {
    uint32_t              struct_size;
    uint32_t              flags;     /* WEFT_OPEN_COPY to open, WEFT_TENSORS_BORROW to create */
    const weft_allocator *allocator; /* NULL: malloc; copied */
    const char           *name;      /* what messages call tensors in memory; NULL: "tensors" */
} weft_tensors_options;
#define WEFT_TENSORS_OPTIONS_INIT { sizeof(weft_tensors_options), 0, 0, 0 }
/** The function twin of WEFT_TENSORS_OPTIONS_INIT. @since 0.2 */
WEFT_API void weft_tensors_options_init(weft_tensors_options *options, size_t size);

/**
 * Open a safetensors file or one of torch.save (.pt, .bin, .ckpt, ...). The content decides which
 * it is.
 *
 * A safetensors header is checked completely: no hole, no overlap, no overflow. A pickle is read as
 * data, and nothing in it is called. Dicts are flattened with dots between the keys: {"state_dict":
 * {"a.b": T}} is "state_dict.a.b". Positions in lists are keys "0", "1", ... Numbers, strings,
 * "true" and "false" become metadata under such names. Objects of other classes are left out. If
 * the outermost value is a list, the metadata "weft.root" is "list"; if it is a single tensor,
 * "weft.root" is "tensor", and the tensor is named "0". Tensors that do not lie in one piece are
 * copied.
 *
 * @param options  NULL: the file is mapped; its name is the path
 * @return WEFT_E_IO, WEFT_E_FORMAT, WEFT_E_UNSUPPORTED (compressed, encrypted, big-endian, no
 *         tensors), WEFT_E_NOMEM, or WEFT_OK
 * @since 0.1
 */
WEFT_API weft_status weft_tensors_open(const char *path, const weft_tensors_options *options,
                                       weft_tensors **out, weft_error *err);
/** Let go of them; an adapter made from them keeps them. @since 0.1 */
WEFT_API void weft_tensors_free(weft_tensors *tensors);

/** Number of tensors. @since 0.1 */
WEFT_API size_t weft_tensors_count(const weft_tensors *tensors);
/**
 * Describe tensor `index`, in the order of the data, or of a pickle's entries. WEFT_E_ARG past the
 * end. @since 0.1
 */
WEFT_API weft_status weft_tensors_info(const weft_tensors *tensors, size_t index,
                                       weft_tensor_info *info, weft_error *err);
/** Index of the tensor with this name, or -1. @since 0.1 */
WEFT_API int64_t weft_tensors_find(const weft_tensors *tensors, const char *name);
/**
 * Read tensor `index` widened to float32. `len` must be its element count.
 * Integer and boolean tensors are converted; WEFT_E_UNSUPPORTED for complex and sub-byte types.
 * @since 0.1
 */
WEFT_API weft_status weft_tensors_read(const weft_tensors *tensors, size_t index, float *out,
                                       size_t len, weft_error *err);
/** Value of a metadata key, or NULL. @since 0.1 */
WEFT_API const char *weft_tensors_metadata(const weft_tensors *tensors, const char *key);

/** A tensor that the caller gives: to be written, or to make a weft_tensors of. */
typedef struct weft_tensor_out {
    uint32_t    struct_size;
    uint32_t    flags;   /* zero                                                                  */
    const char *name;
    const void *data;    /* shape[0] * .. * shape[rank - 1] values, dense, row-major, of any
                            alignment                                                       */
    int64_t     shape[8];
    size_t      rank;
    const char *dtype;   /* of the values: "F16", ... as weft_tensor_info.dtype; NULL: "F32" */
} weft_tensor_out;
#define WEFT_TENSOR_OUT_INIT { sizeof(weft_tensor_out), 0, 0, 0, { 0 }, 0, 0 }
/** The function twin of WEFT_TENSOR_OUT_INIT. @since 0.2 */
WEFT_API void weft_tensor_out_init(weft_tensor_out *out, size_t size);

/** Flags of weft_tensors_create(). */
enum weft_tensors_flag {
    /**
     * Do not copy the data. It must stay in place and unchanged until everything made of the
     * tensors is freed.
     */
    WEFT_TENSORS_BORROW = 1u << 1
};

/**
 * Make tensors from memory, as a file would hold them, for weft_adapter_create().
 *
 * Names and metadata are copied. Data is copied too, unless WEFT_TENSORS_BORROW is set: then it
 * stays the caller's.
 *
 * @param tensors   `count` structs, `struct_size` set in each
 * @param metadata  2 * pairs strings: key, value, key, value, ...; may be NULL with pairs 0
 * @param options   may be NULL
 * @return WEFT_E_ARG (an impossible shape, name or type), WEFT_E_FORMAT (two of one name),
 *         WEFT_E_NOMEM, or WEFT_OK
 * @since 0.2
 */
WEFT_API weft_status weft_tensors_create(const weft_tensor_out *tensors, size_t count,
                                         const char *const *metadata, size_t pairs,
                                         const weft_tensors_options *options, weft_tensors **out,
                                         weft_error *err);

/**
 * Write tensors into a new safetensors file; the file appears whole or not at all.
 *
 * @param tensors   `count` structs, `struct_size` set in each
 * @param metadata  2 * pairs strings: key, value, key, value, ...; may be NULL with pairs 0
 * @since 0.1
 */
WEFT_API weft_status weft_tensors_write(const char *path, const weft_tensor_out *tensors,
                                        size_t count, const char *const *metadata, size_t pairs,
                                        weft_error *err);

#ifdef __cplusplus
}
#endif
#endif
