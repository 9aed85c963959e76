/* base.h - what every other header needs: version, status, error, allocator, callbacks.
 *
 * Conventions that hold for the whole interface:
 * - A function that can fail returns weft_status: 0 is success, negatives are failures. On
 *   failure nothing has changed and every `out` is NULL; `err`, when given, says why in one line.
 * - Structs begin with struct_size, options and arguments also with flags. Zero means default in
 *   every field, so `weft_x_options o = WEFT_X_OPTIONS_INIT;` or, without the macro,
 *   weft_x_options_init(&o, sizeof o) is a complete start. Later releases append fields: a program
 *   built before keeps working, and one built after gets an error for a field that is set and that
 *   an older library does not know.
 * - Strings are UTF-8 and NUL-terminated. A returned `const char *` belongs to the handle it
 *   came from. Buffers travel with their element count. Tensors are dense, row-major float32.
 * - Handles may be freed in any order; freeing NULL is fine. */
#ifndef WEFT_BASE_H
#define WEFT_BASE_H

#ifndef WEFT_FFI
#include <stddef.h>
#include <stdint.h>
#endif

#ifdef __cplusplus
extern "C" {
#endif

#ifndef WEFT_API
#if defined(WEFT_FFI)
#define WEFT_API
#elif defined(__GNUC__)
#define WEFT_API __attribute__((visibility("default")))
#else
#define WEFT_API
#endif
#endif

#define WEFT_VERSION_MAJOR 0
#define WEFT_VERSION_MINOR 2
#define WEFT_VERSION_PATCH 0
#define WEFT_VERSION ((WEFT_VERSION_MAJOR << 16) | (WEFT_VERSION_MINOR << 8) | WEFT_VERSION_PATCH)

/** Version of the library that was loaded, as major<<16 | minor<<8 | patch. @since 0.1 */
WEFT_API uint32_t weft_version(void);

/**
 * Whether this library has a feature: a method ("klora"), a sampler ("heun"), an adapter family or
 * a file dialect by the name that weft_adapter_info gives it ("loha", "kohya"), a kind of concept
 * ("textual-inversion"), or something that a run can do ("prompt-weights", "clip-skip", "img2img",
 * "inpainting", "refiner", "guidance-embed", "text-layers", "vae-tiles"), or an arithmetic besides
 * float32 ("bf16").
 *
 * @return 1 if it has, 0 if not or if name is NULL
 * @since 0.1
 */
WEFT_API int32_t weft_has(const char *name);

/** Outcome of a call. Unknown negative values are failures too. */
typedef int32_t weft_status;
enum weft_status_code {
    WEFT_OK            = 0,
    WEFT_E_ARG         = -1, /* the call itself is wrong: a NULL, a length, an index            */
    WEFT_E_NOMEM       = -2, /* an allocation failed                                            */
    WEFT_E_IO          = -3, /* the system refused; weft_error.sys is errno                     */
    WEFT_E_FORMAT      = -4, /* a file is broken                                                */
    WEFT_E_MISMATCH    = -5, /* the files are fine, but not for each other                      */
    WEFT_E_UNSUPPORTED = -6, /* understood, but this library does not do it                     */
    WEFT_E_STATE       = -7, /* the handle is not in the state that this call needs             */
    WEFT_E_CANCELLED   = -8, /* a callback or weft_run_cancel() asked to stop                   */
    WEFT_E_INTERNAL    = -9, /* a defect of the library                                         */
    WEFT_E_NOT_FINITE  = -10 /* what was computed is infinite or no number (since 0.2)          */
};

/**
 * Name of a status, "WEFT_E_FORMAT"; "WEFT_E_UNKNOWN" for a value this library never returns.
 * @since 0.1
 */
WEFT_API const char *weft_status_name(weft_status status);

/**
 * Why a call failed. The caller owns it; it is written only on failure, and may be NULL in every
 * call.
 */
typedef struct weft_error {
    int32_t code;      /* the status that was returned                              */
    int32_t sys;       /* errno for WEFT_E_IO, else 0                               */
    char    text[504]; /* one line: the thing, what was found, what was wanted      */
} weft_error;

/**
 * Where a handle's memory comes from.
 *
 * `alloc` returns memory of `size` bytes at a multiple of `align`, or NULL on failure. `align` is a
 * power of two up to 64. `free` gets the size that `alloc` was given, and never NULL.
 *
 * Threads: both are called only on a thread that called weft, during that call; never on a worker,
 * and never while the library holds a lock. They must not call weft with the handle that asks. A
 * handle that others keep is freed by the last of them, on whatever thread that happens. If handles
 * that share an allocator are used by several threads, the allocator must take calls from them all.
 */
typedef struct weft_allocator {
    void *(*alloc)(void *user, size_t size, size_t align);
    void  (*free)(void *user, void *ptr, size_t size); /* with the size that alloc was given */
    void  *user;
} weft_allocator;

/** Flags of everything that is opened from files. */
enum weft_open_flag {
    /**
     * Read the files into memory instead of mapping them: for files that may change, or that are on
     * a network file system. If the data behind a mapping is gone, the process ends.
     */
    WEFT_OPEN_COPY = 1u << 0
};

/** Levels of a log line. */
enum weft_log_level {
    WEFT_LOG_INFO = 1,
    WEFT_LOG_WARN = 2
};

/** Receives one finished line, without a newline, on the thread that called weft. */
typedef void (*weft_log_fn)(void *user, int32_t level, const char *line);

/**
 * Gets progress on the thread that called weft: `done` of `total` parts of `what`.
 * Return 0 to go on; anything else stops the call with WEFT_E_CANCELLED.
 */
typedef int32_t (*weft_progress_fn)(void *user, const char *what, int64_t done, int64_t total);

#ifdef __cplusplus
}
#endif
#endif
