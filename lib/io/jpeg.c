/* jpeg.c - JPEG files, read as they are to be looked at.
 *
 * libjpeg reports errors with longjmp, which must not cross a library that Python calls; TurboJPEG,
 * libjpeg-turbo's own interface, keeps the jump inside. What it warns of (a file that ends early, a
 * scan that makes no sense) is refused: half a picture with grey below is no picture to train on.
 *
 * Grey becomes three equal values. CMYK is laid on white without its colour profile, and is taken
 * for inverted, as Photoshop writes it and every other program reads it. The rotation that EXIF
 * asks for is done here, so that sizes and pixels are those that people see. */
#include <turbojpeg.h>

#include "io/io.h"

#define MAX_PIXELS ((size_t)1 << 30) /* bytes of RGB, as for PNG; a side has 16 bits */

typedef struct jpeg {
    tjhandle handle;
    int      width, height;  /* as stored */
    bool     cmyk;
    int32_t  orientation;
} jpeg;

static bool is_jpeg(const uint8_t *data, size_t size)
{
    return size >= 3 && data[0] == 0xff && data[1] == 0xd8 && data[2] == 0xff;
}

/* The library's word on what is wrong. */
static weft_status refuse(tjhandle handle, const char *what, weft_error *err)
{
    const char *said = tjGetErrorStr2(handle);

    if (strstr(said, "nsufficient memory") != NULL || strstr(said, "allocation failure") != NULL)
        return wf_nomem(err, 0, what);
    return wf_fail(err, WEFT_E_FORMAT, "%s: not a JPEG that can be read: %s", what, said);
}

/* Everything up to the pixels; on success the handle is to be destroyed. */
static weft_status begin(jpeg *j, const uint8_t *data, size_t size, const char *what,
                         weft_error *err)
{
    int         sampling = -1, colours = -1;
    weft_status st = WEFT_OK;

    if (!is_jpeg(data, size)) {
        st = wf_fail(err, WEFT_E_FORMAT, "%s: not a JPEG%s", what,
                     size == 0 ? ": the file is empty" : "");
        return wf_say_foreign(st, data, size, "a JPEG", what, err);
    }
    if ((unsigned long)size != size)
        return wf_fail(err, WEFT_E_UNSUPPORTED, "%s: %zu bytes are too many for a JPEG", what,
                       size);
    *j = (jpeg){ .handle = tjInitDecompress() };
    if (j->handle == NULL) return wf_nomem(err, 0, what);
    if (tjDecompressHeader3(j->handle, data, (unsigned long)size, &j->width, &j->height, &sampling,
                            &colours) != 0)
        st = refuse(j->handle, what, err);
    else if (j->width < 1 || j->height < 1) /* which TurboJPEG finds no fault with */
        st = wf_fail(err, WEFT_E_FORMAT, "%s: not a JPEG that can be read: tables, and no picture",
                     what);
    else if ((size_t)j->width > MAX_PIXELS / 3 / (size_t)j->height)
        st = wf_fail(err, WEFT_E_UNSUPPORTED, "%s: an image of %d x %d pixels is too large", what,
                     j->width, j->height);
    j->cmyk = colours == TJCS_CMYK || colours == TJCS_YCCK;
    j->orientation = wf_exif_orientation(data, size);
    if (st != WEFT_OK) (void)tjDestroy(j->handle);
    return st;
}

/* Orientations 5 to 8 lie on their side. */
static int32_t seen_width(const jpeg *j) { return j->orientation < 5 ? j->width : j->height; }
static int32_t seen_height(const jpeg *j) { return j->orientation < 5 ? j->height : j->width; }

weft_status wf_jpeg_size(const uint8_t *data, size_t size, const char *what, int32_t *width,
                         int32_t *height, weft_error *err)
{
    jpeg j;

    WF_TRY(begin(&j, data, size, what, err));
    *width = seen_width(&j);
    *height = seen_height(&j);
    (void)tjDestroy(j.handle);
    return WEFT_OK;
}

/* Ink that is stored inverted, c, m and y under k, in place: light. */
static void to_rgb(uint8_t *cmyk, size_t pixels)
{
    for (size_t i = 0; i < pixels; i++)
        for (size_t c = 0; c < 3; c++)
            cmyk[3 * i + c] = (uint8_t)((cmyk[4 * i + c] * cmyk[4 * i + 3] + 127) / 255);
}

/* rgb, as it is to be seen, of what was stored. */
static void turn(uint8_t *rgb, const uint8_t *stored, const jpeg *j)
{
    size_t width = (size_t)seen_width(j), height = (size_t)seen_height(j);
    size_t w = (size_t)j->width, right = width - 1, bottom = height - 1;

    for (size_t y = 0; y < height; y++)
        for (size_t x = 0; x < width; x++, rgb += 3) {
            size_t row = y, col = x; /* of the stored pixel that is seen at x, y */
            switch (j->orientation) {
            case 2: col = right - x; break;
            case 3: col = right - x, row = bottom - y; break;
            case 4: row = bottom - y; break;
            case 5: col = y, row = x; break;
            case 6: col = y, row = right - x; break;
            case 7: col = bottom - y, row = right - x; break;
            case 8: col = bottom - y, row = x; break;
            default: break;
            }
            memcpy(rgb, stored + 3 * (row * w + col), 3);
        }
}

static weft_status decode(const jpeg *j, const uint8_t *data, size_t size, const char *what,
                          uint8_t *out, weft_error *err)
{
    int bytes = j->cmyk ? 4 : 3;

    if (tjDecompress2(j->handle, data, (unsigned long)size, out, j->width, bytes * j->width,
                      j->height, j->cmyk ? TJPF_CMYK : TJPF_RGB,
                      TJFLAG_STOPONWARNING | TJFLAG_LIMITSCANS) != 0)
        return refuse(j->handle, what, err);
    if (j->cmyk) to_rgb(out, (size_t)j->width * (size_t)j->height);
    return WEFT_OK;
}

weft_status wf_jpeg_read(const uint8_t *data, size_t size, const char *what, uint8_t *rgb,
                         int32_t width, int32_t height, const weft_allocator *alloc,
                         weft_error *err)
{
    jpeg        j;
    uint8_t    *stored = NULL;
    weft_status st = WEFT_OK;

    WF_TRY(begin(&j, data, size, what, err));
    size_t bytes = (size_t)j.width * (size_t)j.height * (j.cmyk ? 4 : 3);
    bool   plain = j.orientation == 1 && !j.cmyk;
    if (seen_width(&j) != width || seen_height(&j) != height)
        st = wf_fail(err, WEFT_E_ARG, "%s has %d x %d pixels, not %d x %d", what, seen_width(&j),
                     seen_height(&j), width, height);
    if (st == WEFT_OK && !plain && (stored = wf_alloc(alloc, bytes)) == NULL)
        st = wf_nomem(err, bytes, what);
    if (st == WEFT_OK) st = decode(&j, data, size, what, plain ? rgb : stored, err);
    if (st == WEFT_OK && !plain) turn(rgb, stored, &j);
    wf_free(alloc, stored);
    (void)tjDestroy(j.handle);
    return st;
}
