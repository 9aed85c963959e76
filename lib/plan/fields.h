/* fields.h - option structs as data: what each field is called, of which kind, and where it is.
 *
 * Each method's file has a table of its public options struct (wf_method.fields), and plan.c and
 * its neighbours have those of the other structs that a plan is made of. Whatever writes options
 * as text or reads them goes by these tables and knows no field by name: the plan as text
 * (save.c, load.c) and reports.
 *
 * A field that is left out of a text has its default. What a method keeps (wf_phase.options)
 * begins with its public struct, defaults filled in and pointers valid, so that it can be written
 * by its table, and given to its setter again. */
#ifndef WF_FIELDS_H
#define WF_FIELDS_H

#include "io/io.h"
#include "weft/plan.h"

typedef enum wf_field_kind {
    WF_FIELD_FLAG,   /* `bit` of the struct's flags: true or false                    */
    WF_FIELD_INT32,
    WF_FIELD_INT64,
    WF_FIELD_FLOAT,
    WF_FIELD_DOUBLE,
    WF_FIELD_WORD,   /* int32_t, one of `words`                                       */
    WF_FIELD_TEXT,   /* const char *, NULL: none                                      */
    WF_FIELD_LIST,   /* const int32_t *, and a size_t at `count`; 0: none             */
    WF_FIELD_FILE    /* weft_tensors *, NULL: none                                    */
} wf_field_kind;

/* A value and the word for it; a list ends with NULL. */
typedef struct wf_word {
    const char *word;
    int32_t     value;
} wf_word;

typedef struct wf_field {
    const char    *name;
    wf_field_kind  kind;
    size_t         at;        /* offset in the struct                                      */
    size_t         count;     /* of LIST: offset of its length                             */
    uint32_t       bit;       /* of FLAG; of others the flag that says that it is set, or 0 */
    double         otherwise; /* of numbers and words: the value of one that is left out   */
    const wf_word *words;
} wf_field;

/* { WF_VALUE("period", INT32, weft_switch_options, period), .otherwise = 5 }, or
 * { WF_FLAG("wrap", WEFT_KLORA_WRAP) }. */
#define WF_VALUE(called, of_kind, type, member) \
    .name = called, .kind = WF_FIELD_##of_kind, .at = offsetof(type, member)
#define WF_FLAG(called, flag) .name = called, .kind = WF_FIELD_FLAG, .bit = flag

/* The table of a struct, which begins with struct_size and flags. */
typedef struct wf_fields {
    const wf_field *field;
    size_t          count;
    size_t          size; /* of the struct */
} wf_fields;

#define WF_FIELDS(array, type) { array, WF_LEN(array), sizeof(type) }

/* What is written of a struct: the fields that are not as they would be if left out, or all. */
enum { WF_CHANGED = 0, WF_EVERY = 1 };

/* Add the fields of a struct to an object. A FILE is written by `file`, or if that is NULL as the
 * name that its tensors have. */
typedef weft_status (*wf_file_writer)(void *user, wf_doc *d, wf_node *to, const char *key,
                                      const weft_tensors *t, weft_error *err);
weft_status wf_fields_write(wf_doc *d, wf_node *to, const wf_fields *f, const void *from, int what,
                            wf_file_writer file, void *user, weft_error *err);

/* ---- reading --------------------------------------------------------------------------------- */

/* Where a value stands in a text, "phases[1].period"; cut if it is long. */
typedef struct wf_place { char text[200]; } wf_place;
void wf_place_in(wf_place *to, const wf_place *of, const char *key);   /* of->text.key  */
void wf_place_at(wf_place *to, const wf_place *of, size_t index);      /* of->text[index] */

typedef struct wf_fields_reader {
    const char *what;  /* the text, for messages                  */
    wf_bag     *bag;   /* lists and texts live there              */
    weft_status (*file)(void *user, json_t *value, const wf_place *place, weft_tensors **out,
                        weft_error *err);
    void       *user;
} wf_fields_reader;

/* Set the fields that an object has, and take them out of it: what is left in the end is unknown.
 * Whether a number is in its range is for the setter to check. */
weft_status wf_fields_read(const wf_fields_reader *r, json_t *object, const wf_place *place,
                           const wf_fields *f, void *to, weft_error *err);
/* "cat.json: phases[1].period is "five", expected a whole number". */
weft_status wf_expected(const wf_fields_reader *r, const json_t *found, const wf_place *place,
                        const char *expected, weft_error *err);
/* Refuse an object that has anything left. */
weft_status wf_none_left(const wf_fields_reader *r, json_t *object, const wf_place *place,
                         weft_error *err);

const char *wf_word_of(const wf_word *words, int32_t value); /* NULL: none */

/* ---- tables that several files use ----------------------------------------------------------- */

extern const wf_word   wf_role_words[];   /* none, content, style        */
extern const wf_word   wf_gamma_words[];  /* WEFT_KLORA_GAMMA_*          */
extern const wf_fields wf_plan_fields;    /* weft_plan_options           */
extern const wf_fields wf_add_fields;     /* weft_add_options, but its text weights      */
extern const wf_fields wf_opening_fields; /* weft_adapter_options, but how it is read    */
extern const wf_fields wf_text_fields;    /* weft_text_weights           */
extern const wf_fields wf_phase_fields;   /* weft_phase_options          */
extern const wf_fields wf_curve_fields;   /* weft_curve_point            */
extern const wf_fields wf_mask_fields;    /* weft_mask, but its values   */
extern const wf_fields wf_region_fields;  /* weft_region, but its mask   */
extern const wf_fields wf_balance_fields; /* weft_balance_options        */
extern const wf_fields wf_align_fields;   /* weft_align_options (align.c) */

#endif
