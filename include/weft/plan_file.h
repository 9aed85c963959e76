/* plan_file.h - a plan as text: saved as JSON, loaded again, known by its hash.
 *
 * The text says all that a plan was built from: adapters and concepts by path and content, weights,
 * curves, blocks, masks, regions, the methods of the phases with their options. What is made from
 * it has the same bits. Notes, texts and files, are of the program that saves it. docs/formats.md
 * has an example and the fields.
 *
 * A text is read strictly: an unknown field, a wrong type, a number out of its range, a file that
 * is missing or has another content is refused with one line that says where, as in
 * "cat.json: phases[1].period is "five", expected a whole number". A field that is left out has its
 * default; a file without a hash is not checked. */
#ifndef WEFT_PLAN_FILE_H
#define WEFT_PLAN_FILE_H

#include "base.h"
#include "plan.h"

#ifdef __cplusplus
extern "C" {
#endif

/**
 * Keep a text with a plan: what a program needs besides to make the same image, as its prompt or
 * its seed. The plan does not read it. Saved with the plan, kept by copies; not part of its hash.
 *
 * @param name   1 to 64 bytes of UTF-8
 * @param value  UTF-8, copied; NULL takes the note away
 * @return WEFT_E_STATE (sealed), WEFT_E_ARG, WEFT_E_UNSUPPORTED (more than 1 MiB of notes),
 *         WEFT_E_NOMEM
 * @since 0.2
 */
WEFT_API weft_status weft_plan_set_note(weft_plan *plan, const char *name, const char *value,
                                        weft_error *err);
/**
 * The same of a file that the program reads to make the image, as a picture to begin with. It is
 * saved as an adapter is, by path and content, and checked when the plan is loaded.
 *
 * @param path  of a regular file, which is there; no handle is kept
 * @return as weft_plan_set_note(), and WEFT_E_IO
 * @since 0.2
 */
WEFT_API weft_status weft_plan_set_note_file(weft_plan *plan, const char *name, const char *path,
                                             weft_error *err);
/**
 * The text of a note, of a file its path from the root; or NULL. It holds until the plan changes.
 * @since 0.2
 */
WEFT_API const char *weft_plan_note(const weft_plan *plan, const char *name);
/** 1: the note is a file, 0: a text, or there is none. @since 0.2 */
WEFT_API int32_t weft_plan_note_is_file(const weft_plan *plan, const char *name);
/** The name of note `index`, in the order of setting, or NULL past the end. @since 0.2 */
WEFT_API const char *weft_plan_note_name(const weft_plan *plan, size_t index);

/**
 * Write a plan as JSON into a file, whole or not at all. Files at or below the folder of `path` are
 * named from there, so that the folder can be moved; all others from the root. Their contents are
 * hashed (SHA-256), which reads each once. Of a sealed plan the number of calls is said too. The
 * same plan gives the same text.
 *
 * The plan may be sealed or not. Adapters, concepts and coefficients must come from files:
 * what was made in memory is saved first (weft_adapter_save(), weft_plan_zip_save()), and opened.
 *
 * @return WEFT_E_UNSUPPORTED (something was made in memory; a path or a text that is not UTF-8,
 *         which the line names; masks of more than 2^27 pixels, all together), WEFT_E_STATE (a file
 *         has changed since it was opened or noted), WEFT_E_IO, WEFT_E_NOMEM, WEFT_E_ARG
 * @since 0.2
 */
WEFT_API weft_status weft_plan_save(const weft_plan *plan, const char *path, weft_error *err);
/**
 * The same text in memory.
 *
 * @param folder  that files are named from if they are at or below it; NULL: all from the root
 * @param buf     may be NULL when cap is 0
 * @param needed  bytes of the whole text with its NUL; may be NULL
 * @return as weft_plan_save(); WEFT_OK also when the text was cut at cap
 * @since 0.2
 */
WEFT_API weft_status weft_plan_to_json(const weft_plan *plan, const char *folder, char *buf,
                                       size_t cap, size_t *needed, weft_error *err);
/**
 * SHA-256 of what a plan is, 64 hexadecimal digits and a NUL: of its canonical text (keys in order,
 * no white space) without notes, names and paths. Files count by their contents, so that a plan
 * whose folder was moved, or that was loaded again, has the same. Sealed plans count their calls.
 *
 * @param hash  65 bytes
 * @return as weft_plan_save()
 * @since 0.2
 */
WEFT_API weft_status weft_plan_hash(const weft_plan *plan, char *hash, size_t cap,
                                    weft_error *err);

/** Bits of weft_plan_load_options.flags; WEFT_OPEN_COPY, which is for all its files, is another. */
enum weft_plan_load_flag {
    /** The model may be another than the one that the plan was saved with. */
    WEFT_LOAD_ANY_MODEL = 1u << 8,
    /** Files may have other contents than those that the plan was saved with. */
    WEFT_LOAD_ANY_FILES = 1u << 9,
    /** Seal the plan for the calls that the text says; WEFT_E_FORMAT if it says none. */
    WEFT_LOAD_SEAL      = 1u << 10
};
typedef struct weft_plan_load_options {
    uint32_t              struct_size;
    uint32_t              flags;         /* WEFT_LOAD_*, WEFT_OPEN_COPY                     */
    const weft_allocator *allocator;     /* of the plan and its adapters; NULL: malloc      */
    weft_log_fn           log;           /* of the plan and its adapters; may be NULL       */
    void                 *log_user;
    weft_progress_fn      progress;      /* of the plan; may be NULL                        */
    void                 *progress_user;
    const char           *folder;        /* of weft_plan_from_json(): where relative paths
                                            begin; NULL: the current directory              */
} weft_plan_load_options;
#define WEFT_PLAN_LOAD_OPTIONS_INIT { sizeof(weft_plan_load_options), 0, 0, 0, 0, 0, 0, 0 }
/** The function twin of WEFT_PLAN_LOAD_OPTIONS_INIT. @since 0.2 */
WEFT_API void weft_plan_load_options_init(weft_plan_load_options *options, size_t size);

/**
 * Make the plan that a file says, for a model. It opens the adapters and concepts, which the plan
 * alone keeps. It is not sealed, and can be changed, unless WEFT_LOAD_SEAL is given. Relative paths
 * begin at the file's folder.
 *
 * @param options  NULL for defaults
 * @return WEFT_E_IO, WEFT_E_FORMAT (no plan, another version of the format, an unknown field, a
 *         wrong type), WEFT_E_MISMATCH (another model; a file with another content; as
 *         weft_plan_add()), and what the functions return that the plan would be built with. The
 *         line names the field. WEFT_E_NOMEM, WEFT_E_ARG
 * @since 0.2
 */
WEFT_API weft_status weft_plan_load(weft_model *model, const char *path,
                                    const weft_plan_load_options *options, weft_plan **out,
                                    weft_error *err);
/**
 * The same of a text in memory.
 *
 * @param text  UTF-8, size bytes; no NUL is needed
 * @return as weft_plan_load()
 * @since 0.2
 */
WEFT_API weft_status weft_plan_from_json(weft_model *model, const char *text, size_t size,
                                         const weft_plan_load_options *options, weft_plan **out,
                                         weft_error *err);

/**
 * Concept number `index` of a plan, 0 the first that gave tokens: a new reference, which the caller
 * frees with weft_concept_free(); NULL past the end.
 * @since 0.2
 */
WEFT_API weft_concept *weft_plan_concept(const weft_plan *plan, size_t index);

#ifdef __cplusplus
}
#endif
#endif
