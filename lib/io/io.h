/* io.h (internal) - bytes in, named tensors out; images and tensors back to disk. */
#ifndef WF_IO_H
#define WF_IO_H

#include <jansson.h>

#include "base/base.h"
#include "tensor/dtype.h"
#include "weft/image.h"
#include "weft/tensors.h"

/* ---- file.c ---------------------------------------------------------------------------------- */

typedef struct wf_file {
    const uint8_t *data;
    size_t         size;
    bool           mapped; /* else data came from the allocator */
} wf_file;
#define WF_FILE_NONE { NULL, 0, false }
/* Map a regular file read-only, or with `copy` read it into memory. */
weft_status wf_file_open(wf_file *f, const char *path, bool copy, const weft_allocator *alloc,
                         weft_error *err);
/* Read a whole small file (config, vocabulary) of at most `limit` bytes into memory, NUL-terminated
 * after its size. */
weft_status wf_file_read(wf_file *f, const char *path, size_t limit, const weft_allocator *alloc,
                         weft_error *err);
/* What gzip packed, unpacked into memory in the same way (gzip.c): at most `limit` bytes; `what` is
 * for errors. */
weft_status wf_gzip_unpack(wf_file *f, const uint8_t *data, size_t size, const char *what,
                           size_t limit, const weft_allocator *alloc, weft_error *err);
void        wf_file_close(wf_file *f, const weft_allocator *alloc);
bool        wf_path_is_dir(const char *path);
bool        wf_path_exists(const char *path);
/* dir + "/" + name in allocated memory, NULL without memory. */
char       *wf_path_join(const weft_allocator *alloc, const char *dir, const char *name);
/* Write a file through a temporary beside it and rename: whole or not at all. */
weft_status wf_file_write(const char *path, const void *data, size_t size, weft_error *err);
/* The same from pieces, for what should not be gathered in memory first. */
typedef struct wf_part {
    const void *data;
    size_t      size;
} wf_part;
weft_status wf_file_write_parts(const char *path, const wf_part *parts, size_t count,
                                weft_error *err);
/* And from pieces that are made one by one: each must stay until the next is asked for. */
typedef weft_status (*wf_part_maker)(void *user, size_t i, wf_part *out, weft_error *err);
weft_status wf_file_write_from(const char *path, size_t count, wf_part_maker make, void *user,
                               weft_error *err);

/* ---- origin.c -------------------------------------------------------------------------------- */

/* The file that something was read from. */
typedef struct wf_origin {
    char    *path;    /* absolute; NULL: none, or none that can be named */
    uint64_t size, number;
    int64_t  seconds, nanoseconds;
} wf_origin;
/* Fails without memory only. */
weft_status wf_origin_of(wf_origin *o, const char *path, const weft_allocator *alloc,
                         weft_error *err);
void        wf_origin_free(wf_origin *o, const weft_allocator *alloc);
/* SHA-256 of the file, which must be as it was: WEFT_E_STATE, WEFT_E_IO. */
weft_status wf_origin_hash(const wf_origin *o, wf_sha256_text *out, const weft_allocator *alloc,
                           weft_error *err);
/* The path from the root, in new memory; its folder, without links and dots, must be there. */
weft_status wf_path_absolute(char **out, const char *path, const weft_allocator *alloc,
                             weft_error *err);

/* ---- png.c ----------------------------------------------------------------------------------- */

/* Of a PNG in memory; `what` names it in errors. rgb has 3 * width * height bytes. */
weft_status wf_png_size(const uint8_t *data, size_t size, const char *what, int32_t *width,
                        int32_t *height, weft_error *err);
weft_status wf_png_read(const uint8_t *data, size_t size, const char *what, uint8_t *rgb,
                        int32_t width, int32_t height, const weft_allocator *alloc,
                        weft_error *err);

/* WEFT_E_ARG unless `what` of len values is (height, width, 3); WEFT_E_UNSUPPORTED if that is past
 * what is read or written. */
weft_status wf_image_check(int32_t width, int32_t height, size_t len, const char *what,
                           weft_error *err);

/* ---- jpeg.c, exif.c, picture.c --------------------------------------------------------------- */

/* As of a PNG: sizes and pixels are those that are seen, after the rotation that EXIF asks for. */
weft_status wf_jpeg_size(const uint8_t *data, size_t size, const char *what, int32_t *width,
                         int32_t *height, weft_error *err);
weft_status wf_jpeg_read(const uint8_t *data, size_t size, const char *what, uint8_t *rgb,
                         int32_t width, int32_t height, const weft_allocator *alloc,
                         weft_error *err);
/* 1 to 8: EXIF's orientation of a JPEG; 1 where it says nothing that can be followed. */
int32_t     wf_exif_orientation(const uint8_t *jpeg, size_t size);
/* PNG or JPEG, by the first bytes. */
weft_status wf_image_size(const uint8_t *data, size_t size, const char *what, int32_t *width,
                          int32_t *height, weft_error *err);
weft_status wf_image_read(const uint8_t *data, size_t size, const char *what, uint8_t *rgb,
                          int32_t width, int32_t height, const weft_allocator *alloc,
                          weft_error *err);

/* ---- bag.c ----------------------------------------------------------------------------------- */

/* Memory for many small things that end together. Nothing in it moves. */
typedef struct wf_bag_block wf_bag_block;
typedef struct wf_bag {
    const weft_allocator *alloc;
    wf_bag_block *newest;
} wf_bag;
void  wf_bag_init(wf_bag *b, const weft_allocator *alloc);
/* Zeroed, aligned to 16; NULL without memory. */
void *wf_bag_take(wf_bag *b, size_t count, size_t size);
/* A copy of n bytes with a NUL behind them. */
char *wf_bag_string(wf_bag *b, const char *s, size_t n);
void  wf_bag_free(wf_bag *b);

/* ---- foreign.c ------------------------------------------------------------------------------- */

/* Returns st. If it says that a reader could not make sense of the file, and the file is known to
 * be something else, the message says what it is. `wanted`: what the file is not. */
weft_status wf_say_foreign(weft_status st, const uint8_t *data, size_t size, const char *wanted,
                           const char *what, weft_error *err);

/* ---- json.c ---------------------------------------------------------------------------------- */

/* Parse with duplicates rejected; depth and size are bounded. `what` names the source in the error.
 * The root must be an object. A byte order mark in front is skipped. A whole number of more than 64
 * bits is read as a real, a number past the doubles as 1e308 or -1e308, and U+0000 in a string as
 * U+FFFD, so that C's strings hold it all. Free with json_decref. */
weft_status wf_json_parse(json_t **out, const char *text, size_t size, const char *what,
                          weft_error *err);
/* The same with bounds of the caller's own: nesting, and values in all arrays and objects. */
weft_status wf_json_parse_bounded(json_t **out, const char *text, size_t size, size_t depth,
                                  size_t values, const char *what, weft_error *err);
/* A configuration, in which Python's Infinity and -Infinity may stand: they are 1e308 and
 * -1e308. */
weft_status wf_json_load(json_t **out, const char *path, const weft_allocator *alloc,
                         weft_error *err);
weft_status wf_json_load_text(json_t **out, const char *text, const char *what, weft_error *err);

/* ---- json_write.c ---------------------------------------------------------------------------- */

/* A part of a document; it lives as long as that. */
typedef struct wf_node wf_node;

/* A document while it is built: an object, to which parts are added. `in` is an object, where the
 * key must be a new one, or a list, where it is not read; NULL, which a part is without memory, is
 * taken, and notes it. Texts are copied. Numbers are the shortest that read back as the same, null
 * if they are not finite. It must not be moved. */
typedef struct wf_doc {
    weft_allocator alloc;
    wf_bag   bag;
    wf_node *root;
    bool     failed;         /* no memory: what was added is not all there              */
    const wf_node *not_utf8; /* the first part that is not, so this is no JSON; or NULL */
} wf_doc;
void     wf_doc_init(wf_doc *d, const weft_allocator *alloc);
void     wf_doc_free(wf_doc *d);
wf_node *wf_node_object(wf_doc *d, wf_node *in, const char *key);
wf_node *wf_node_list(wf_doc *d, wf_node *in, const char *key);
void     wf_node_text(wf_doc *d, wf_node *in, const char *key, const char *value);
void     wf_node_bool(wf_doc *d, wf_node *in, const char *key, bool value);
void     wf_node_int(wf_doc *d, wf_node *in, const char *key, int64_t value);
void     wf_node_float(wf_doc *d, wf_node *in, const char *key, float value);
void     wf_node_double(wf_doc *d, wf_node *in, const char *key, double value);
/* Where a part stands, as "adapters[0].name". */
void     wf_node_place(const wf_node *n, wf_text *out);
/* Indented, what is short on one line, with a newline at the end; out->failed tells of memory that
 * ran out, here or before. */
void     wf_doc_write(const wf_doc *d, wf_text *out);
/* Without white space, keys in the order of their bytes. */
void     wf_doc_canonical(const wf_doc *d, wf_text *out);

/* ---- tensors.c ------------------------------------------------------------------------------- */

enum { WF_MAX_RANK = 8 };

typedef struct wf_tensor {
    const char    *name;
    const uint8_t *data; /* unaligned */
    size_t         bytes;
    size_t         count;
    int64_t        shape[WF_MAX_RANK];
    int32_t        rank;
    wf_dtype       dtype;
} wf_tensor;

/* weft_tensors is this room's own type; it is reference counted. */
void             wf_tensors_ref(weft_tensors *t);
size_t           wf_tensors_count(const weft_tensors *t);
/* Of a file in order of the data, else in order of addition; they stand in one array. */
const wf_tensor *wf_tensors_at(const weft_tensors *t, size_t i);
const wf_tensor *wf_tensors_find(const weft_tensors *t, const char *name); /* NULL: absent */
size_t           wf_tensors_file_size(const weft_tensors *t); /* of all files behind it */
const char      *wf_tensors_what(const weft_tensors *t);      /* the file, for messages */
/* The one file that weft_tensors_open() read; without a path: made otherwise. */
const wf_origin *wf_tensors_origin(const weft_tensors *t);
weft_status      wf_tensors_set_origin(weft_tensors *t, const char *path, weft_error *err);
size_t           wf_tensors_meta_count(const weft_tensors *t);
const char      *wf_tensors_meta_key(const weft_tensors *t, size_t i);
const char      *wf_tensors_meta_value(const weft_tensors *t, size_t i);

/* Building: new, add as often as needed, seal; then it is as immutable as an opened file. Names and
 * metadata are copied. The data stays in place: in a file that was taken over, in memory that is
 * owned, or in other tensors that are kept. After a failure only weft_tensors_free may follow.
 * `what` names the source in messages.
 *
 *     wf_tensors_new(&alloc, path, &t, err);
 *     wf_tensors_keep(t, file, err);                               a view keeps what it shows
 *     wf_tensors_add_as(t, "unet.conv_in.weight", wf_tensors_find(file, "..."), err);
 *     float *sum = wf_tensors_own(t, bytes, err);                  or has memory of its own
 *     wf_tensors_add(t, "sum", WF_F32, 2, shape, sum, err);
 *     wf_tensors_seal(t, err); */
weft_status wf_tensors_new(const weft_allocator *alloc, const char *what, weft_tensors **out,
                           weft_error *err);
/* Shape and name are checked (WEFT_E_FORMAT); the caller makes sure that `data` is that long. */
weft_status wf_tensors_add(weft_tensors *t, const char *name, wf_dtype dtype, int32_t rank,
                           const int64_t *shape, const void *data, weft_error *err);
/* The same type, shape and data under another name. */
weft_status wf_tensors_add_as(weft_tensors *t, const char *name, const wf_tensor *source,
                              weft_error *err);
weft_status wf_tensors_add_meta(weft_tensors *t, const char *key, const char *value,
                                weft_error *err);
/* Memory, aligned to 64, that lives as long as t; NULL without it, and err says so
 * (WEFT_E_NOMEM). */
void       *wf_tensors_own(weft_tensors *t, size_t size, weft_error *err);
/* Keep a reference to `other` as long as t lives. */
weft_status wf_tensors_keep(weft_tensors *t, weft_tensors *other, weft_error *err);
/* Take a file over, to be closed with t: on success *file is none. */
weft_status wf_tensors_take_file(weft_tensors *t, wf_file *file, weft_error *err);
/* Index the names; WEFT_E_FORMAT if a name or a metadata key occurs twice. */
weft_status wf_tensors_seal(weft_tensors *t, weft_error *err);

/* Write tensors into a safetensors file in the types that they have: weft_tensors_write() without
 * its copy into F32. Of each its name, data, bytes, shape, rank and dtype are read, and must
 * agree. */
weft_status wf_tensors_write_as_stored(const char *path, const wf_tensor *tensors, size_t count,
                                       const char *const *metadata, size_t pairs,
                                       const weft_allocator *alloc, weft_error *err);
/* The same with data that is made tensor by tensor: *data comes in as t->data, and what it is set
 * to must stay until the next is asked for. */
typedef weft_status (*wf_tensor_maker)(void *user, const wf_tensor *t, const void **data, weft_error *err);
weft_status wf_tensors_write_made(const char *path, const wf_tensor *tensors, size_t count,
                                  const char *const *metadata, size_t pairs, wf_tensor_maker make,
                                  void *user, const weft_allocator *alloc, weft_error *err);
/* ---- given.c: tensors and metadata that a caller gives --------------------------------------- */

/* WEFT_E_ARG if the arrays are missing or too long. */
weft_status wf_given_count(const weft_tensor_out *tensors, size_t count,
                           const char *const *metadata, size_t pairs, weft_error *err);
/* Each checked, as a view of the caller's memory: out [count]. */
weft_status wf_given_tensors(const weft_tensor_out *tensors, size_t count, wf_tensor *out,
                             weft_error *err);
weft_status wf_given_name(const char *name, size_t index, weft_error *err);
weft_status wf_given_pairs(const char *const *metadata, size_t pairs, weft_error *err);

/* "(320, 8)" for messages, cut to fit. */
typedef struct wf_shape_text { char text[128]; } wf_shape_text;
const char *wf_shape(wf_shape_text *buf, const int64_t *shape, int32_t rank);

/* ---- open.c, safetensors.c, torch_file.c, shards.c ------------------------------------------- */

weft_status wf_tensors_open(const char *path, bool copy, const weft_allocator *alloc,
                            weft_tensors **out, weft_error *err);
/* All files of a sharded checkpoint, given the path of its *.index.json, as one. What the index
 * lists comes from the file that it names there; what it does not list is there too. The metadata
 * is that of the first file. */
weft_status wf_tensors_open_index(const char *path, bool copy, const weft_allocator *alloc,
                                  weft_tensors **out, weft_error *err);
/* Parse from memory that the caller keeps alive: what the fuzz targets drive. */
weft_status wf_tensors_parse(const uint8_t *data, size_t size, const char *what,
                             const weft_allocator *alloc, weft_tensors **out, weft_error *err);
weft_status wf_safetensors_parse(const uint8_t *data, size_t size, const char *what,
                                 const weft_allocator *alloc, weft_tensors **out, weft_error *err);

/* What torch.save wrote, in either of its forms. Dicts are flattened with dots, so that
 * {"state_dict": {"a.b": T}} is "state_dict.a.b"; positions in lists and tuples are keys "0", "1",
 * ...; numbers, strings and booleans ("true", "false") are metadata under such names. If the root
 * is a list, the metadata "weft.root" is "list"; if it is one tensor, "tensor", and the tensor is
 * named "0". Objects of other classes are left out. */
typedef enum wf_torch_form { WF_TORCH_NOT, WF_TORCH_ZIP, WF_TORCH_LEGACY, WF_TORCH_BARE } wf_torch_form;
wf_torch_form wf_torch_form_of(const uint8_t *data, size_t size);
weft_status wf_torch_parse(const uint8_t *data, size_t size, const char *what,
                           const weft_allocator *alloc, weft_tensors **out, weft_error *err);

/* ---- png.c ----------------------------------------------------------------------------------- */
/* The public functions of image.h live here. */

#endif
