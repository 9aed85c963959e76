/* table.h - a table as it is laid out, for the drawings that stand around one. */
#ifndef TABLE_H
#define TABLE_H

#include "canvas.h"

enum {
    PAD         = 24,   /* around everything                       */
    GAP         = 3,    /* between blocks                          */
    BETWEEN     = 20,   /* between panels                          */
    TABLE_WIDE  = 1000, /* pixels that the panels share out        */
    TABLE_HIGH  = 640,
    LEAST_PANEL = 560,  /* pixels of all panels, however few calls */
    CELL_WIDE   = 40,   /* at most                                 */
    CELL_HIGH   = 28,
    LINE        = 22    /* height of a line of text at scale 2     */
};

/* A layer with something to show. */
typedef struct row {
    int64_t layer;
    int32_t top;       /* pixels from the table's top            */
    char    block[60]; /* "down.0"                               */
} row;

typedef struct layout {
    const weft_plan         *p;
    const weft_model        *model;
    const weft_run          *run;     /* NULL: the plan's table; else what it did */
    weft_plan_info           info;
    weft_plan_adapter_info  *adapter; /* [info.adapters]         */
    row      *row;     /* [rows]                                 */
    int32_t   rows;
    char      title[256];
    int32_t   cell_h;
    int32_t   panel_w;
    int32_t   left;    /* of the first panel                     */
    int32_t   above;   /* of the panels                          */
    int32_t   high;    /* of the panels                          */
    float     strongest;
    int       skipped; /* some layer was not computed in some call */
} layout;

/* Read what the plan means to do, or with a run what it did; table_end() after that, whatever comes. */
weft_status table_begin(layout *lay, weft_error *err);
void        table_end(layout *lay);
/* The whole: title, panels, legend; and the size of it. */
void        table_paint(canvas *c, const layout *lay);
int32_t     table_width(const layout *lay);
int32_t     table_height(const layout *lay);
/* The pixels from the first panel's left to the last one's right. */
int32_t     table_across(const layout *lay);
/* "A" .. "Z", then "A1" ..: the plan's names for its adapters. */
typedef struct letter_text { char text[16]; } letter_text;
const char *letter_of(letter_text *buf, int32_t adapter);
/* Numbers under something `across` pixels wide from x on, at round calls. */
void        draw_calls(canvas *c, int32_t calls, int32_t x, int32_t y, int32_t across);
/* Fill a canvas of a size, write it, and let go of it; paint is told `user`. */
weft_status write_canvas(int32_t width, int32_t height, void (*paint)(canvas *c, void *user), void *user,
                         const char *path, weft_error *err);

#endif
