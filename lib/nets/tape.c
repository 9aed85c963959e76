/* tape.c - the list of what was done, the set of buffers that matter, and the walk back. */
#include "nets/tape.h"

enum { FIRST_ENTRIES = 256, FIRST_ROOM = 1 << 16, FIRST_WANTED = 1024, PIECE = 1 << 15,
       COLUMNS = 64 };

void wf_tape_init(wf_tape *t, const weft_allocator *alloc)
{
    *t = (wf_tape){ .alloc = alloc };
}

void wf_tape_free(wf_tape *t)
{
    wf_free(t->alloc, t->entries);
    wf_free(t->alloc, t->room);
    wf_free(t->alloc, (void *)t->wanted);
    *t = (wf_tape){ .alloc = t->alloc };
}

static void set_mode(wf_exec *e, wf_tape_mode mode)
{
    e->tape->mode = mode;
    e->arena.held = mode == WF_TAPE_RECORD;
}

void wf_tape_begin(wf_exec *e)
{
    wf_tape *t = e->tape;

    t->count = t->used = t->wanted_count = 0;
    t->back_need = t->segment_need = 0;
    t->failed = t->unsupported = false;
    if (t->wanted != NULL) memset((void *)t->wanted, 0, t->wanted_cap * sizeof *t->wanted);
    set_mode(e, WF_TAPE_RECORD);
}

size_t wf_tape_bytes(const wf_exec *e)
{
    const wf_tape *t = e->tape;
    return WF_MAX(e->arena.peak, e->arena.used + t->segment_need + t->back_need);
}

/* ---- the set of buffers ---------------------------------------------------------------------- */

static size_t slot_of(const wf_tape *t, const float *x)
{
    size_t mask = t->wanted_cap - 1;
    size_t i = (size_t)(((uint64_t)(uintptr_t)x / 64 * 0x9E3779B97F4A7C15u) >> 20) & mask;

    while (t->wanted[i] != NULL && t->wanted[i] != x) i = (i + 1) & mask;
    return i;
}

static bool holds(const wf_tape *t, const float *x)
{
    return t->wanted_cap > 0 && x != NULL && t->wanted[slot_of(t, x)] == x;
}

static bool grow_wanted(wf_tape *t)
{
    const float **old = t->wanted;
    size_t n = t->wanted_cap, cap = n > 0 ? 2 * n : FIRST_WANTED;
    const float **more = wf_zalloc(t->alloc, cap, sizeof *more);

    if (more == NULL) return false;
    t->wanted = more;
    t->wanted_cap = cap;
    for (size_t i = 0; i < n; i++)
        if (old[i] != NULL) t->wanted[slot_of(t, old[i])] = old[i];
    wf_free(t->alloc, (void *)old);
    return true;
}

static void insert(wf_exec *e, const float *x)
{
    wf_tape *t = e->tape;

    if (holds(t, x)) return;
    if (2 * (t->wanted_count + 1) > t->wanted_cap && !grow_wanted(t)) {
        t->failed = e->stopped = true;
        return;
    }
    t->wanted[slot_of(t, x)] = x;
    t->wanted_count++;
}

/* Take x out, and put what was behind it where a search finds it again. */
static void remove_buffer(wf_tape *t, const float *x)
{
    if (!holds(t, x)) return;
    size_t i = slot_of(t, x), mask = t->wanted_cap - 1;
    t->wanted[i] = NULL;
    t->wanted_count--;
    for (i = (i + 1) & mask; t->wanted[i] != NULL; i = (i + 1) & mask) {
        const float *moved = t->wanted[i];
        t->wanted[i] = NULL;
        t->wanted[slot_of(t, moved)] = moved;
    }
}

bool wf_wanted(const wf_exec *e, const float *x)
{
    if (e->tape == NULL || e->tape->mode == WF_TAPE_OFF) return false;
    return e->dry || holds(e->tape, x);
}

bool wf_track(wf_exec *e, const float *y, bool add, bool wanted)
{
    wf_tape *t = e->tape;

    if (t == NULL || t->mode == WF_TAPE_OFF || e->stopped) return false;
    if (e->dry) return t->mode == WF_TAPE_RECORD;
    if (wanted) insert(e, y);
    else if (!add) remove_buffer(t, y);
    return wanted && t->mode == WF_TAPE_RECORD && !e->stopped;
}

bool wf_recording(const wf_exec *e)
{
    return e->tape != NULL && e->tape->mode == WF_TAPE_RECORD && !e->stopped;
}

void wf_no_way_back(wf_exec *e)
{
    if (e->tape == NULL || e->tape->mode == WF_TAPE_OFF) return;
    e->tape->unsupported = e->stopped = true;
}

/* ---- entries --------------------------------------------------------------------------------- */

void *wf_record(wf_exec *e, wf_back back, size_t size)
{
    wf_tape *t = e->tape;
    size_t bytes = (size + 15) / 16 * 16;

    if (e->dry || e->stopped) return NULL;
    if (t->count == t->cap) {
        size_t cap = t->cap > 0 ? 2 * t->cap : FIRST_ENTRIES;
        wf_tape_entry *more = wf_zalloc(t->alloc, cap, sizeof *more);
        if (more == NULL) goto failed;
        if (t->count > 0) memcpy(more, t->entries, t->count * sizeof *more);
        wf_free(t->alloc, t->entries);
        t->entries = more;
        t->cap = cap;
    }
    if (t->used + bytes > t->size) {
        size_t room = WF_MAX(t->size > 0 ? 2 * t->size : FIRST_ROOM, t->used + bytes);
        uint8_t *more = wf_zalloc(t->alloc, room, 1);
        if (more == NULL) goto failed;
        if (t->used > 0) memcpy(more, t->room, t->used);
        wf_free(t->alloc, t->room);
        t->room = more;
        t->size = room;
    }
    t->entries[t->count++] = (wf_tape_entry){ back, t->used };
    void *entry = t->room + t->used;
    memset(entry, 0, bytes);
    t->used += bytes;
    return entry;
failed:
    t->failed = e->stopped = true;
    return NULL;
}

float *wf_grad(const wf_exec *e, const float *x)
{
    const wf_tape *t = e->tape;

    if (e->dry || x == NULL || !wf_wanted(e, x)) return NULL;
    return t->grads + (x - (const float *)(const void *)e->arena.base);
}

typedef struct piece { float *y; const float *x; size_t n; const wf_kernels *k; } piece;

static void zero_task(void *user, size_t task, int32_t worker)
{
    const piece *p = user;
    size_t at = task * PIECE;
    (void)worker;
    memset(p->y + at, 0, WF_MIN((size_t)PIECE, p->n - at) * sizeof *p->y);
}

static void add_task(void *user, size_t task, int32_t worker)
{
    const piece *p = user;
    size_t at = task * PIECE;
    (void)worker;
    p->k->add(p->y + at, p->x + at, WF_MIN((size_t)PIECE, p->n - at));
}

static void run(wf_exec *e, piece *p, wf_task task)
{
    p->k = e->k;
    if (!e->dry && !e->stopped) wf_pool_run(e->pool, (p->n + PIECE - 1) / PIECE, task, p);
}

void wf_grad_done(wf_exec *e, float *gy, size_t n)
{
    run(e, &(piece){ .y = gy, .n = n }, zero_task);
}

void wf_grad_add(wf_exec *e, float *gx, const float *gy, size_t n)
{
    run(e, &(piece){ .y = gx, .x = gy, .n = n }, add_task);
}

typedef struct columns { float *to; const float *g; size_t rows, c, tiles; } columns;

static void columns_task(void *user, size_t task, int32_t worker)
{
    const columns *s = user;
    double sum[COLUMNS] = { 0 };
    size_t group = task / s->tiles, at = task % s->tiles * COLUMNS;
    size_t n = WF_MIN((size_t)COLUMNS, s->c - at);
    const float *g = s->g + group * s->rows * s->c + at;
    (void)worker;
    for (size_t r = 0; r < s->rows; r++, g += s->c)
        for (size_t i = 0; i < n; i++) sum[i] += (double)g[i];
    for (size_t i = 0; i < n; i++) s->to[group * s->c + at + i] += (float)sum[i];
}

void wf_add_columns(wf_exec *e, float *to, const float *g, size_t groups, size_t rows, size_t c)
{
    columns s = { to, g, rows, c, (c + COLUMNS - 1) / COLUMNS };
    if (!e->dry && !e->stopped) wf_pool_run(e->pool, groups * s.tiles, columns_task, &s);
}

float *wf_keep(wf_exec *e, const float *x, size_t n)
{
    float *kept = wf_take(e, 1, n);
    wf_copy_floats(e, kept, x, n);
    return kept;
}

void wf_need_back(wf_exec *e, size_t floats)
{
    if (e->tape != NULL && e->dry)
        e->tape->back_need = WF_MAX(e->tape->back_need, floats * sizeof(float));
}

const wf_layer_grads *wf_trained(const wf_exec *e, const wf_layer *l)
{
    const wf_tape *t = e->tape;
    if (t == NULL || t->mode == WF_TAPE_OFF || t->layers == NULL || l == NULL) return NULL;
    const wf_layer_grads *g = &t->layers[l->id];
    return g->down != NULL || g->up != NULL || g->weight != NULL || g->bias != NULL ? g : NULL;
}

/* The entries from `from` on, last first; then they are forgotten. */
static void walk(wf_exec *e, size_t from)
{
    wf_tape *t = e->tape;

    while (t->count > from && !e->stopped) {
        wf_tape_entry entry = t->entries[--t->count];
        entry.back(e, t->room + entry.at);
    }
}

void wf_tape_back(wf_exec *e)
{
    set_mode(e, WF_TAPE_OFF);
    walk(e, 0);
}

/* ---- segments -------------------------------------------------------------------------------- */

typedef struct segment {
    void  (*run)(wf_exec *e, const void *args);
    size_t  args; /* where they lie in `room` */
    size_t  size;
    size_t  count;
    struct { float *x, *kept; size_t n; bool wanted; } in[WF_SEGMENT_INPUTS];
} segment;

/* The arguments in a place that does not move while the tape grows. */
enum { ARGS_MAX = 256 };

static void back_segment(wf_exec *e, const void *entry)
{
    wf_tape *t = e->tape;
    segment s = *(const segment *)entry;
    _Alignas(16) uint8_t args[ARGS_MAX];
    size_t mark = wf_arena_mark(&e->arena), from = t->count;

    memcpy(args, t->room + s.args, s.size);
    for (size_t i = 0; i < s.count; i++) {
        wf_copy_floats(e, s.in[i].x, s.in[i].kept, s.in[i].n);
        if (s.in[i].wanted) insert(e, s.in[i].x);
        else remove_buffer(t, s.in[i].x);
    }
    set_mode(e, WF_TAPE_RECORD);
    s.run(e, args);
    set_mode(e, WF_TAPE_OFF);
    walk(e, from);
    wf_arena_release(&e->arena, mark);
}

/* A dry run: what the segment takes when it is recorded, and what it takes now. */
static void measure_segment(wf_exec *e, void (*run)(wf_exec *, const void *), const void *args)
{
    wf_tape *t = e->tape;
    size_t mark = wf_arena_mark(&e->arena), peak = e->arena.peak;
    double flops = e->flops, side = e->side_flops;
    double weights = e->weight_bytes, moved = e->moved_bytes;

    run(e, args);
    t->segment_need = WF_MAX(t->segment_need, wf_arena_mark(&e->arena) - mark);
    e->arena.held = false;
    wf_arena_release(&e->arena, mark);
    e->arena.peak = peak;
    e->flops = flops, e->side_flops = side; /* a forward pass is counted once */
    e->weight_bytes = weights, e->moved_bytes = moved;
    set_mode(e, WF_TAPE_FOLLOW);
    run(e, args);
    set_mode(e, WF_TAPE_RECORD);
}

void wf_segment(wf_exec *e, void (*run)(wf_exec *e, const void *args), const void *args,
                size_t size, const float *y, const wf_segment_input *inputs, size_t count)
{
    wf_tape *t = e->tape;
    segment s = { .run = run, .size = size, .count = count };

    if (t == NULL || t->mode != WF_TAPE_RECORD || !t->segments || size > ARGS_MAX) {
        run(e, args);
        return;
    }
    for (size_t i = 0; i < count; i++) {
        s.in[i].x = inputs[i].x;
        s.in[i].n = inputs[i].n;
        s.in[i].wanted = wf_wanted(e, inputs[i].x);
        s.in[i].kept = wf_keep(e, inputs[i].x, inputs[i].n);
    }
    if (e->dry) {
        measure_segment(e, run, args);
        return;
    }
    set_mode(e, WF_TAPE_FOLLOW);
    run(e, args);
    set_mode(e, WF_TAPE_RECORD);
    if (!wf_wanted(e, y) || e->stopped) return; /* nothing in it, or before it, is trained */
    segment *entry = wf_record(e, back_segment, sizeof *entry + ARGS_MAX);
    if (entry == NULL) return;
    s.args = t->entries[t->count - 1].at + sizeof *entry;
    *entry = s;
    memcpy((uint8_t *)entry + sizeof *entry, args, size);
}
