/* sheet.c - pictures side by side, magnified, each with a label below.
 *
 * Pictures of the bundled model have 64 x 64 pixels, and a page that enlarges them blurs them. Here
 * a pixel becomes a square of ZOOM x ZOOM. A cell is as large as the largest picture.
 *
 *   cc sheet.c draw/font.c $(pkg-config --cflags --libs weft) -o sheet
 *   ./sheet pair.png 3 2 merge.png "merge" klora.png "K-LoRA" */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <weft/weft.h>

#include "draw/draw.h"

enum { GAP = 12, FOOT = 22, INK = 0x222222, WIDEST = 16384 };

static weft_error err;

static void must(weft_status st)
{
    if (st == WEFT_OK) return;
    fprintf(stderr, "sheet: %s: %s\n", weft_status_name(st), err.text);
    exit(1);
}

static void *zeroed(size_t count, size_t size)
{
    void *p = calloc(count, size);
    if (p == NULL) { fprintf(stderr, "sheet: out of memory\n"); exit(1); }
    return p;
}

/* A number from 1 to `most`; 0 if it is none. */
static int32_t number(const char *text, long most)
{
    char *end;
    long n = strtol(text, &end, 10);
    return *end != '\0' || n < 1 || n > most ? 0 : (int32_t)n;
}

typedef struct tile { uint8_t *rgb; int32_t width, height; } tile;
typedef struct sheet { uint8_t *rgb; size_t bytes; int32_t width, height, zoom; } sheet;

static tile read_tile(const char *path)
{
    tile p;
    must(weft_png_size(path, &p.width, &p.height, &err));
    size_t len = 3 * (size_t)p.width * (size_t)p.height;
    p.rgb = zeroed(len, 1);
    must(weft_png_read(path, p.rgb, len, p.width, p.height, &err));
    return p;
}

static void place(sheet *s, const tile *p, int32_t x0, int32_t y0, const char *label, int32_t below, int32_t room)
{
    for (int32_t y = 0; y < p->height * s->zoom; y++)
        for (int32_t x = 0; x < p->width * s->zoom; x++)
            memcpy(s->rgb + 3 * ((size_t)(y0 + y) * (size_t)s->width + (size_t)(x0 + x)),
                   p->rgb + 3 * ((size_t)(y / s->zoom) * (size_t)p->width + (size_t)(x / s->zoom)), 3);
    int32_t size = draw_text(NULL, 0, 0, 0, 0, 0, 2, INK, label) > room ? 1 : 2;
    char fits[64];                           /* a character takes 6 pixels of each size */
    snprintf(fits, sizeof fits, "%.*s", (int)(room / (6 * size)), label);
    draw_text(s->rgb, s->bytes, s->width, s->height, x0, below + 5, size, INK, fits);
}

int main(int argc, char **argv)
{
    int32_t zoom = argc > 2 ? number(argv[2], 16) : 0, columns = argc > 3 ? number(argv[3], 64) : 0;
    int count = (argc - 4) / 2;
    if (argc < 6 || argc % 2 != 0 || zoom == 0 || columns == 0) {
        fprintf(stderr, "usage: sheet OUT.png ZOOM COLUMNS PNG LABEL [PNG LABEL]...\n");
        return 2;
    }

    tile *pictures = zeroed((size_t)count, sizeof *pictures);
    int64_t wide = 0, high = 0, rows = (count + columns - 1) / columns;
    for (int i = 0; i < count; i++) {
        pictures[i] = read_tile(argv[4 + 2 * i]);
        if (pictures[i].width > wide) wide = pictures[i].width;
        if (pictures[i].height > high) high = pictures[i].height;
    }
    wide = wide * zoom + GAP;
    high = high * zoom + FOOT + GAP;
    if (columns * wide + GAP > WIDEST || rows * high + GAP > WIDEST) {
        fprintf(stderr, "sheet: that is wider or higher than %d pixels\n", WIDEST);
        return 1;
    }
    sheet s = { NULL, 0, (int32_t)(columns * wide + GAP), (int32_t)(rows * high + GAP), zoom };
    s.bytes = 3 * (size_t)s.width * (size_t)s.height;
    s.rgb = zeroed(s.bytes, 1);
    memset(s.rgb, 0xfa, s.bytes);
    for (int i = 0; i < count; i++) {
        int32_t x0 = GAP + i % columns * (int32_t)wide, y0 = GAP + i / columns * (int32_t)high;
        place(&s, &pictures[i], x0, y0, argv[5 + 2 * i], y0 + (int32_t)high - FOOT - GAP, (int32_t)wide - GAP / 2);
        free(pictures[i].rgb);
    }
    must(weft_png_write(argv[1], s.rgb, s.bytes, s.width, s.height, NULL, 0, &err));
    free(pictures);
    free(s.rgb);
    return 0;
}
