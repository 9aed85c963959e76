/* base.h (internal) - errors, memory, text, threads, processor: what every room stands on.
 *
 * Nothing here knows tensors or models. Every function that can fail returns weft_status and writes
 * one line into the caller's weft_error, once, at the place that knows the fact. */
#ifndef WF_BASE_H
#define WF_BASE_H

#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "weft/base.h"

#define WF_LEN(a) (sizeof(a) / sizeof *(a))
#define WF_MIN(a, b) ((a) < (b) ? (a) : (b))
#define WF_MAX(a, b) ((a) > (b) ? (a) : (b))
/* Leave a function that holds nothing yet to release with the status of a call that failed. */
#define WF_TRY(call) do { weft_status st_ = (call); if (st_ != WEFT_OK) return st_; } while (0)

#if defined(__GNUC__)
#define WF_PRINTF(f, a) __attribute__((format(printf, f, a)))
#else
#define WF_PRINTF(f, a)
#endif

/* ---- status.c: errors ------------------------------------------------------------------------ */

/* Write code and text into err (which may be NULL) and return code. Formats: %s %d %u %zu %lld %llu
 * %.*s only; numbers with a fraction go through wf_number(). */
weft_status wf_fail(weft_error *err, weft_status code, const char *format, ...) WF_PRINTF(3, 4);
/* The same for a failed system call: WEFT_E_IO, err->sys = sys, text ends in the system's
 * message. */
weft_status wf_fail_sys(weft_error *err, int sys, const char *format, ...) WF_PRINTF(3, 4);

/* Copy src into dst, at most cap > 0 bytes with the NUL, as one clean line: control characters
 * become spaces, bytes that are not UTF-8 question marks, and a cut never splits a character. Never
 * longer than src. */
void wf_wash(char *dst, size_t cap, const char *src);

/* Format one line and hand it to log, unless it is NULL. */
void wf_log(weft_log_fn log, void *user, int32_t level, const char *format, ...) WF_PRINTF(4, 5);

/* ---- number.c: floats in texts --------------------------------------------------------------- */

/* Shortest plain decimal of v that reads back as the same float, without regard to the locale. */
typedef struct wf_number_text { char text[32]; } wf_number_text;
const char *wf_number(wf_number_text *buf, double v);
/* The same that reads back as the same double. */
const char *wf_number_double(wf_number_text *buf, double v);
/* The decimal that n characters are: a sign, digits, a point; false for anything else, and for one
 * past the doubles. */
bool wf_number_read(const char *s, size_t n, double *out);

/* ---- mersenne.c: torch's CPU generator ------------------------------------------------------- */

enum { WF_MERSENNE_WORDS = 624 };
typedef struct wf_mersenne {
    uint32_t state[WF_MERSENNE_WORDS];
    int32_t  used; /* words of state already given out */
} wf_mersenne;
void     wf_mersenne_seed(wf_mersenne *g, uint64_t seed);
uint32_t wf_mersenne_next(wf_mersenne *g);
/* 24 random bits, as a float32 in [0, 1). */
float    wf_mersenne_uniform(wf_mersenne *g);

/* ---- memory.c: allocator, checked sizes ------------------------------------------------------ */

/* The caller's allocator, or malloc's when src is NULL. */
weft_allocator wf_allocator(const weft_allocator *src);
/* WEFT_E_ARG for a caller's allocator with one of its two functions missing; NULL is fine. */
weft_status wf_check_allocator(const weft_allocator *src, weft_error *err);
/* Memory of `size` bytes aligned to 64, or NULL; zeroed by wf_zalloc. size 0 gives a valid pointer.
 * The size is kept in front of the block, so freeing needs only the allocator. */
void *wf_alloc(const weft_allocator *a, size_t size);
void *wf_zalloc(const weft_allocator *a, size_t count, size_t size);
void  wf_free(const weft_allocator *a, void *ptr);
/* Asks the system for the pages of memory that is about to be written whole. */
void  wf_touch(void *ptr, size_t bytes);
char *wf_strdup(const weft_allocator *a, const char *s);
char *wf_strndup(const weft_allocator *a, const char *s, size_t n);
/* `err` gets "out of memory: <size> bytes for <what>". */
weft_status wf_nomem(weft_error *err, size_t size, const char *what);

/* *out = a*b or a+b; false, with *out untouched, if it does not fit. */
bool wf_mul(size_t a, size_t b, size_t *out);
bool wf_add(size_t a, size_t b, size_t *out);

/* Reference counts: wf_ref_drop returns true to the one that must destroy. */
typedef atomic_int wf_refs;
void wf_ref_init(wf_refs *refs);
void wf_ref_take(wf_refs *refs);
bool wf_ref_drop(wf_refs *refs);

/* ---- text.c: a string that grows ------------------------------------------------------------- */

typedef struct wf_text {
    const weft_allocator *alloc;
    char  *s;      /* always terminated once something was added; NULL before */
    size_t len;
    size_t cap;
    bool   failed; /* an allocation failed: later additions do nothing          */
} wf_text;
void wf_text_init(wf_text *t, const weft_allocator *alloc);
void wf_text_add(wf_text *t, const char *format, ...) WF_PRINTF(2, 3);
void wf_text_bytes(wf_text *t, const char *s, size_t n);
void wf_text_free(wf_text *t);
/* Copy out for the (buf, cap, needed) convention; cut at a character boundary. */
void wf_copy_out(const char *s, size_t len, char *buf, size_t cap, size_t *needed);
/* Glob over the whole name: * any run, ? any one character. `patterns` are separated by commas. */
bool wf_glob_any(const char *patterns, const char *name);
/* The same patterns with each run of stars as one: matching then takes time by the name alone. */
void wf_glob_tidy(char *patterns);
/* A tidy copy of a caller's patterns, NULL of NULL. WEFT_E_ARG if it is too long: `whose` adapter's
 * `what` it is. */
weft_status wf_glob_copy(char **to, const char *patterns, const char *whose, const char *what,
                         const weft_allocator *alloc, weft_error *err);
/* Is s valid UTF-8 (n bytes, no NUL inside)? */
bool wf_utf8_valid(const char *s, size_t n);
/* Decode the first character of n bytes: its length 1..4, or 0 if it is not valid. */
size_t wf_utf8_next(const char *s, size_t n, uint32_t *code);

/* Format into a fixed buffer (formats as wf_fail); false if the text was cut. */
bool wf_format(char *buf, size_t cap, const char *format, ...) WF_PRINTF(3, 4);

/* ---- hash.c: one hash for all ---------------------------------------------------------------- */

/* Of n bytes, under a key: without the key nobody can find bytes that collide. The hash of one
 * piece may be the key of the next. */
uint64_t wf_hash(uint64_t key, const void *data, size_t n);

/* ---- sha256.c: what files are known by -------------------------------------------------------- */

typedef struct wf_sha256 {
    uint32_t h[8];
    uint64_t bytes;
    uint8_t  rest[64];
} wf_sha256;
typedef struct wf_sha256_text { char text[65]; } wf_sha256_text; /* in hexadecimal */
void wf_sha256_init(wf_sha256 *s);
void wf_sha256_add(wf_sha256 *s, const void *data, size_t n);
void wf_sha256_end(wf_sha256 *s, wf_sha256_text *out);

/* ---- sort.c ---------------------------------------------------------------------------------- */

/* As qsort, which takes memory of its own in some C libraries. In place; equal elements end in any
 * order. */
void wf_sort(void *base, size_t count, size_t size, int (*compare)(const void *, const void *));

/* ---- map.c: from strings to numbers ---------------------------------------------------------- */

/* Keys are borrowed and must outlive the map. */
typedef struct wf_map {
    const weft_allocator *alloc;
    const char **keys;
    int64_t     *values;
    size_t       cap; /* power of two */
    size_t       count;
} wf_map;
weft_status wf_map_init(wf_map *m, const weft_allocator *alloc, size_t expected, weft_error *err);
/* Adds or fails; *added tells whether the key was new (an old value stays). */
weft_status wf_map_put(wf_map *m, const char *key, int64_t value, bool *added, weft_error *err);
int64_t     wf_map_get(const wf_map *m, const char *key); /* -1: absent */
void        wf_map_free(wf_map *m);

/* ---- arena.c: scratch memory, sized in a dry run --------------------------------------------- */

/* A stack of blocks aligned to 64 bytes. A dry arena has no memory: it hands out NULL and remembers
 * the high-water mark, so that running a network once over a dry arena tells how much the real one
 * needs. */
typedef struct wf_arena {
    uint8_t *base;
    size_t   size;
    size_t   used;
    size_t   peak;
    bool     dry;
    bool     held;     /* nothing is given back: a tape needs it (nets/tape.h) */
    bool     overflow; /* more was asked for than there is: a defect of ours, reported as INTERNAL */
} wf_arena;
void  *wf_arena_take(wf_arena *a, size_t count, size_t size);
size_t wf_arena_mark(const wf_arena *a);
void   wf_arena_release(wf_arena *a, size_t mark);

/* ---- pool.c: worker threads ------------------------------------------------------------------ */

typedef struct wf_pool wf_pool;
/* A task of a parallel loop; worker is 0..threads-1 and picks its scratch. */
typedef void (*wf_task)(void *user, size_t task, int32_t worker);
/* threads 0: one for each core. The caller's thread is worker 0; the others count towards
 * WF_MAX_WORKERS, and WEFT_E_STATE says that there are too many. */
weft_status wf_pool_create(const weft_allocator *alloc, int32_t threads, wf_pool **out,
                           weft_error *err);
void        wf_pool_free(wf_pool *pool);
int32_t     wf_pool_threads(const wf_pool *pool);
/* Run tasks 0..count-1, each exactly once, in any order, and wait. Uses atomics and condition
 * variables only. */
void        wf_pool_run(wf_pool *pool, size_t count, wf_task task, void *user);
/* Is this the process that created the pool (false in a child after fork)? */
bool        wf_pool_own_process(const wf_pool *pool);
enum {
    WF_MAX_THREADS = 128, /* of a pool                      */
    WF_MAX_WORKERS = 384  /* of all pools of the process    */
};
int32_t     wf_cores(void); /* that this process may use, 1 to WF_MAX_THREADS */

/* ---- cpu.c ----------------------------------------------------------------------------------- */

typedef struct wf_cpu {
    bool avx2_fma_f16c; /* all three, and the system saves the registers */
    bool avx512;        /* F, BW, DQ, VL, and the system saves those     */
    bool avx512_bf16;
    bool neon;          /* Advanced SIMD, with the double precision of 64-bit ARM */
} wf_cpu;
wf_cpu wf_cpu_detect(void);

#endif
