/* canvas.h - what the drawings share: pixels, colours, names of blocks. */
#ifndef CANVAS_H
#define CANVAS_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "draw.h"

#define LESS(a, b) ((a) < (b) ? (a) : (b))
#define MORE(a, b) ((a) > (b) ? (a) : (b))
#define LENGTH(a) (sizeof(a) / sizeof *(a))

static const uint32_t INK = 0x222222, FAINT = 0x777777, PAPER = 0xffffff, EMPTY = 0xf1f1ee;
/* Distinct also to eyes that do not tell red from green. */
static const uint32_t hues[] = { 0x0072b2, 0xd55e00, 0x009e73, 0xcc79a7, 0xe69f00, 0x56b4e9, 0x7a5230, 0x7f3fbf };

typedef struct canvas {
    uint8_t *rgb;
    size_t   bytes;
    int32_t  width;
    int32_t  height;
} canvas;

static inline void fill(canvas *c, int32_t x, int32_t y, int32_t w, int32_t h, uint32_t colour)
{
    for (int32_t j = MORE(y, 0); j < LESS(y + h, c->height); j++)
        for (int32_t i = MORE(x, 0); i < LESS(x + w, c->width); i++) {
            uint8_t *px = c->rgb + ((size_t)j * (size_t)c->width + (size_t)i) * 3;
            px[0] = (uint8_t)(colour >> 16);
            px[1] = (uint8_t)(colour >> 8);
            px[2] = (uint8_t)colour;
        }
}

static inline int32_t write_text(canvas *c, int32_t x, int32_t y, int32_t scale, uint32_t colour, const char *s)
{
    return draw_text(c->rgb, c->bytes, c->width, c->height, x, y, scale, colour, s);
}

static inline int32_t text_width(int32_t scale, const char *s)
{
    return draw_text(NULL, 0, 0, 0, 0, 0, scale, 0, s);
}

static inline uint32_t mix(const double rgb[3])
{
    uint32_t v = 0;
    for (int i = 0; i < 3; i++) v = v << 8 | (uint32_t)(fmin(fmax(rgb[i], 0), 255) + 0.5);
    return v;
}

static inline double channel(uint32_t colour, int i)
{
    return (double)(colour >> (16 - 8 * i) & 255);
}

static inline uint32_t hue_of(int32_t adapter)
{
    return hues[(size_t)adapter % LENGTH(hues)];
}

/* A hue on paper: none at 0, full at 1. */
static inline uint32_t blend(uint32_t colour, double s)
{
    double rgb[3];

    for (int i = 0; i < 3; i++) rgb[i] = s * channel(colour, i) + (1 - s) * channel(EMPTY, i);
    return mix(rgb);
}

/* The same, but the faintest is still seen. */
static inline uint32_t tint(uint32_t colour, double strength)
{
    return blend(colour, strength > 0 ? 0.15 + 0.85 * strength : 0);
}

/* "unet.down_blocks.0.attentions.1..." is in the block "down.0", "unet.mid_block..." in "mid",
 * "unet.conv_in" its own. */
static inline void name_block(char *block, size_t size, const char *layer)
{
    const char *name = strchr(layer, '.') != NULL ? strchr(layer, '.') + 1 : layer;
    int         number;
    char        word[16];

    if (sscanf(name, "%15[a-z]_blocks.%d.", word, &number) == 2)
        snprintf(block, size, "%s.%d", word, number);
    else if (sscanf(name, "%15[a-z]_block.", word) == 1 && strncmp(name + strlen(word), "_block", 6) == 0)
        snprintf(block, size, "%s", word);
    else
        snprintf(block, size, "%.*s", (int)strcspn(name, "."), name);
}

static inline weft_status fail(weft_error *err, weft_status code, const char *text)
{
    if (err != NULL) {
        *err = (weft_error){ .code = code };
        snprintf(err->text, sizeof err->text, "%s", text);
    }
    return code;
}

#endif
