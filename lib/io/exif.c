/* exif.c - which way up a photograph is.
 *
 * A camera stores what its sensor saw and notes in the file's EXIF block how it was held: tag
 * 0x0112 of the first directory of a TIFF that stands in a JPEG's APP1 segment. Only that number is
 * looked for. A block that cannot be followed says nothing, and the picture is taken as it lies, as
 * every program does. */
#include "io/io.h"

enum { APP1 = 0xe1, START_OF_SCAN = 0xda, ORIENTATION = 0x0112, SHORT = 3 };

typedef struct tiff {
    const uint8_t *data;
    size_t         size;
    bool           little;
} tiff;

/* A number of 2 or 4 bytes that is known to be there. */
static uint32_t number(const tiff *t, size_t at, size_t bytes)
{
    uint32_t v = 0;
    for (size_t i = 0; i < bytes; i++)
        v = v << 8 | t->data[at + (t->little ? bytes - 1 - i : i)];
    return v;
}

/* Header: "II" or "MM", 42, where the first directory is. Directory: a count, and entries of 12
 * bytes: tag, type, how many values, the value. */
static int32_t orientation_of(tiff t)
{
    if (t.size < 8 || (memcmp(t.data, "II", 2) != 0 && memcmp(t.data, "MM", 2) != 0)) return 1;
    t.little = t.data[0] == 'I';
    size_t at = number(&t, 4, 4);
    if (number(&t, 2, 2) != 42 || at > t.size || t.size - at < 2) return 1;
    size_t entries = number(&t, at, 2);
    at += 2;
    for (; entries > 0 && t.size - at >= 12; entries--, at += 12) {
        if (number(&t, at, 2) != ORIENTATION) continue;
        uint32_t v = number(&t, at + 8, 2);
        bool one_short = number(&t, at + 2, 2) == SHORT && number(&t, at + 4, 4) == 1;
        return one_short && v >= 1 && v <= 8 ? (int32_t)v : 1;
    }
    return 1;
}

int32_t wf_exif_orientation(const uint8_t *jpeg, size_t size)
{
    static const char exif[6] = "Exif\0";
    size_t at = 2; /* behind the start of the image */

    while (size >= 4 && at <= size - 4 && jpeg[at] == 0xff) {
        const uint8_t *segment = jpeg + at + 4;
        size_t length = (size_t)jpeg[at + 2] << 8 | jpeg[at + 3]; /* with its own two bytes */

        if (jpeg[at + 1] == 0xff) { /* filling */
            at++;
            continue;
        }
        if (jpeg[at + 1] == START_OF_SCAN || length < 2 || length > size - 2 - at) return 1;
        if (jpeg[at + 1] == APP1 && length >= 2 + sizeof exif &&
            memcmp(segment, exif, sizeof exif) == 0)
            return orientation_of((tiff){ .data = segment + sizeof exif,
                                          .size = length - 2 - sizeof exif });
        at += 2 + length;
    }
    return 1;
}
