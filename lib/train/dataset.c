/* dataset.c - pictures with captions, each checked before the first step.
 *
 * Pictures in files stay there: ten thousand photographs would not fit, and what training reads is
 * their latents. The price: a file is read again when it is encoded, and must still be the picture
 * that was checked. */
#include "io/io.h"
#include "image/resize.h"
#include "train/dataset_internal.h"

enum { CAPTION_MAX = 16384 };

weft_status wf_dataset_create(wf_dataset **out, const wf_dataset_options *options,
                              const weft_allocator *alloc, weft_error *err)
{
    const wf_dataset_options *o = options;

    *out = NULL;
    if (o->width < 1 || o->height < 1 || o->width > WF_PICTURE_MAX || o->height > WF_PICTURE_MAX ||
        o->factor < 1 || o->width % o->factor != 0 || o->height % o->factor != 0)
        return wf_fail(err, WEFT_E_ARG,
                       "training at %d x %d pixels, wanted multiples of %d up to %d", o->width,
                       o->height, o->factor, WF_PICTURE_MAX);
    wf_dataset *set = wf_zalloc(alloc, 1, sizeof *set);
    if (set == NULL) return wf_nomem(err, sizeof *set, "a set of pictures");
    set->alloc = *alloc;
    set->o = *o;
    int32_t facts[] = { o->width, o->height, o->factor, o->random_crop, o->flip, o->augment };
    set->stamp = wf_hash(0, facts, sizeof facts);
    *out = set;
    return WEFT_OK;
}

static void free_picture(const weft_allocator *alloc, wf_data_picture *p)
{
    wf_free(alloc, p->name);
    wf_free(alloc, p->caption);
    wf_free(alloc, p->rgb);
}

void wf_data_shorten(wf_dataset *set, wf_data_list list, size_t count)
{
    while (set->count[list] > count)
        free_picture(&set->alloc, &set->picture[list][--set->count[list]]);
}

void wf_dataset_free(wf_dataset *set)
{
    if (set == NULL) return;
    weft_allocator alloc = set->alloc;
    for (wf_data_list list = 0; list < WF_DATA_LISTS; list++) {
        wf_data_shorten(set, list, 0);
        wf_free(&alloc, set->picture[list]);
        wf_free(&alloc, set->order[list].of);
    }
    wf_dataset_cache_free(set);
    wf_free(&alloc, set);
}

/* ---- one picture ----------------------------------------------------------------------------- */

static weft_status check_size(const wf_dataset *set, const wf_data_picture *p, weft_error *err)
{
    if (p->width > WF_PICTURE_MAX || p->height > WF_PICTURE_MAX)
        return wf_fail(err, WEFT_E_UNSUPPORTED, "%s: %d x %d pixels, wanted at most %d a side",
                       p->name, p->width, p->height, WF_PICTURE_MAX);
    if (set->o.allow_small || (p->width >= set->o.width && p->height >= set->o.height))
        return WEFT_OK;
    return wf_fail(err, WEFT_E_ARG,
                   "%s: %d x %d pixels, wanted at least %d x %d, unless small pictures are allowed",
                   p->name, p->width, p->height, set->o.width, set->o.height);
}

static weft_status check_caption(const char *caption, const char *name, weft_error *err)
{
    size_t n = strlen(caption);

    if (n > CAPTION_MAX)
        return wf_fail(err, WEFT_E_ARG, "%s: its caption has %zu bytes, wanted at most %d", name, n,
                       CAPTION_MAX);
    if (!wf_utf8_valid(caption, n))
        return wf_fail(err, WEFT_E_FORMAT, "%s: its caption is not UTF-8", name);
    return WEFT_OK;
}

/* Room for one more. */
static weft_status grow(wf_dataset *set, wf_data_list list, weft_error *err)
{
    size_t count = set->count[list], room = count == 0 ? 16 : 2 * count, bytes;

    if (count < set->room[list]) return WEFT_OK;
    if (!wf_mul(room, sizeof(wf_data_picture), &bytes))
        return wf_nomem(err, SIZE_MAX, "a list of pictures");
    wf_data_picture *more = wf_alloc(&set->alloc, bytes);
    if (more == NULL) return wf_nomem(err, bytes, "a list of pictures");
    if (count > 0) memcpy(more, set->picture[list], count * sizeof *more);
    wf_free(&set->alloc, set->picture[list]);
    set->picture[list] = more;
    set->room[list] = room;
    return WEFT_OK;
}

static const char *last_part(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash != NULL ? slash + 1 : path;
}

/* The picture is the set's now, or is let go. */
static weft_status take(wf_dataset *set, wf_data_list list, wf_data_picture *p, const uint8_t *rgb,
                        weft_error *err)
{
    weft_status st = check_size(set, p, err);

    if (st == WEFT_OK) st = check_caption(p->caption, p->name, err);
    if (st == WEFT_OK) st = grow(set, list, err);
    if (st != WEFT_OK) {
        free_picture(&set->alloc, p);
        return st;
    }
    const char *name = last_part(p->name);
    int32_t facts[] = { (int32_t)list, p->width, p->height };
    set->stamp = wf_hash(set->stamp, facts, sizeof facts);
    set->stamp = wf_hash(set->stamp, name, strlen(name));
    set->stamp = wf_hash(set->stamp, p->caption, strlen(p->caption));
    set->stamp = wf_hash(set->stamp, rgb, 3 * (size_t)p->width * (size_t)p->height);
    set->picture[list][set->count[list]++] = *p;
    return WEFT_OK;
}

weft_status wf_data_open(const wf_dataset *set, weft_error *err)
{
    if (set->latent == 0) return WEFT_OK;
    return wf_fail(err, WEFT_E_STATE,
                   "pictures were encoded already: all are to be added before the first step");
}

/* ---- from files ------------------------------------------------------------------------------ */

/* Decode what is in the file; the size is p's, or becomes p's where that is 0. */
static weft_status decode(const wf_dataset *set, wf_data_picture *p, uint8_t **rgb, weft_error *err)
{
    wf_file     file = WF_FILE_NONE;
    int32_t     width = 0, height = 0;
    size_t      bytes = 0;
    weft_status st = wf_file_open(&file, p->name, true, &set->alloc, err);

    *rgb = NULL;
    if (st == WEFT_OK) st = wf_image_size(file.data, file.size, p->name, &width, &height, err);
    if (st == WEFT_OK && p->width == 0) {
        p->width = width;
        p->height = height;
        st = check_size(set, p, err); /* before memory is taken for it */
    }
    if (st == WEFT_OK && (p->width != width || p->height != height))
        st = wf_fail(err, WEFT_E_STATE, "%s: %d x %d pixels, and it had %d x %d when it was added",
                     p->name, width, height, p->width, p->height);
    if (st == WEFT_OK) {
        bytes = 3 * (size_t)width * (size_t)height;
        if ((*rgb = wf_alloc(&set->alloc, bytes)) == NULL) st = wf_nomem(err, bytes, p->name);
    }
    if (st == WEFT_OK)
        st = wf_image_read(file.data, file.size, p->name, *rgb, width, height, &set->alloc, err);
    wf_file_close(&file, &set->alloc);
    if (st == WEFT_OK) return st;
    wf_free(&set->alloc, *rgb);
    *rgb = NULL;
    return st;
}

weft_status wf_data_pixels(const wf_dataset *set, const wf_data_picture *p, const uint8_t **rgb,
                           uint8_t **held, weft_error *err)
{
    wf_data_picture same = *p;

    *held = NULL;
    *rgb = p->rgb;
    if (p->rgb != NULL) return WEFT_OK;
    WF_TRY(decode(set, &same, held, err));
    *rgb = *held;
    return WEFT_OK;
}

weft_status wf_data_add(wf_dataset *set, wf_data_list list, const char *path, const char *caption,
                        weft_error *err)
{
    uint8_t        *rgb = NULL;
    weft_status     st = WEFT_OK;
    wf_data_picture p = { .name = wf_strdup(&set->alloc, path),
                          .caption = wf_strdup(&set->alloc, caption) };

    if (p.name == NULL || p.caption == NULL) st = wf_nomem(err, strlen(path), path);
    if (st == WEFT_OK) st = decode(set, &p, &rgb, err);
    if (st == WEFT_OK) st = take(set, list, &p, rgb, err);
    else free_picture(&set->alloc, &p);
    wf_free(&set->alloc, rgb);
    return st;
}

/* ---- from memory ----------------------------------------------------------------------------- */

weft_status wf_dataset_add_pixels(wf_dataset *set, wf_data_list list, const uint8_t *rgb,
                                  size_t rgb_len, int32_t width, int32_t height,
                                  const char *caption, weft_error *err)
{
    char name[32];

    WF_TRY(wf_data_open(set, err));
    wf_format(name, sizeof name, "picture %zu", set->count[list]);
    if (rgb == NULL || caption == NULL)
        return wf_fail(err, WEFT_E_ARG, "%s: %s is NULL", name, rgb == NULL ? "rgb" : "caption");
    WF_TRY(wf_image_check(width, height, rgb_len, name, err));
    wf_data_picture p = { .name = wf_strdup(&set->alloc, name),
                          .caption = wf_strdup(&set->alloc, caption),
                          .rgb = wf_alloc(&set->alloc, rgb_len),
                          .width = width, .height = height };
    if (p.name == NULL || p.caption == NULL || p.rgb == NULL) {
        free_picture(&set->alloc, &p);
        return wf_nomem(err, rgb_len, name);
    }
    memcpy(p.rgb, rgb, rgb_len);
    return take(set, list, &p, rgb, err);
}

/* ---- looking --------------------------------------------------------------------------------- */

size_t wf_dataset_count(const wf_dataset *set, wf_data_list list) { return set->count[list]; }

const char *wf_dataset_name(const wf_dataset *set, wf_data_list list, size_t i)
{
    return set->picture[list][i].name;
}

const char *wf_dataset_caption(const wf_dataset *set, wf_data_list list, size_t i)
{
    return set->picture[list][i].caption;
}

uint64_t wf_dataset_stamp(const wf_dataset *set) { return set->stamp; }
