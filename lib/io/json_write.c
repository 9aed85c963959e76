/* json_write.c - JSON to be read by people, and the one form of it that is hashed.
 *
 * A document is a tree, built from the root and written at the end: indented in the order in which
 * it was built, or canonical, which is without white space and with the keys of each object in the
 * order of their bytes. jansson could write too, but how it writes numbers depends on its version;
 * ours are the shortest that read back as the same.
 *
 * Memory that runs out and texts that are not UTF-8 are noted in the document, so that building
 * needs no checks: whoever writes it looks once. */
#include <math.h>

#include "io/io.h"

enum { WIDTH = 96 }; /* of a line that an object or a list may stand on as a whole */

typedef enum kind { OBJECT, LIST, TEXT, PLAIN } kind;

struct wf_node {
    kind        kind;
    const char *key;    /* in an object                          */
    const char *text;   /* of TEXT; of PLAIN as it is written    */
    wf_node    *in;     /* what it is part of; NULL: the root    */
    wf_node    *first, *last;
    wf_node    *next;   /* behind it                             */
    size_t      count;
};

void wf_doc_init(wf_doc *d, const weft_allocator *alloc)
{
    *d = (wf_doc){ .alloc = *alloc };
    wf_bag_init(&d->bag, &d->alloc);
    d->root = wf_bag_take(&d->bag, 1, sizeof *d->root);
    d->failed = d->root == NULL;
}

void wf_doc_free(wf_doc *d)
{
    wf_bag_free(&d->bag);
}

/* ---- building -------------------------------------------------------------------------------- */

/* A text of a part. */
static const char *keep(wf_doc *d, const wf_node *of, const char *s)
{
    const char *copy = wf_bag_string(&d->bag, s, strlen(s));

    if (copy == NULL) d->failed = true;
    if (d->not_utf8 == NULL && !wf_utf8_valid(s, strlen(s))) d->not_utf8 = of;
    return copy;
}

static wf_node *add(wf_doc *d, wf_node *in, const char *key, kind kind)
{
    wf_node *n = in != NULL ? wf_bag_take(&d->bag, 1, sizeof *n) : NULL;

    if (n == NULL) {
        d->failed = true;
        return NULL;
    }
    n->kind = kind;
    n->in = in;
    if (in->kind == OBJECT) n->key = keep(d, n, key);
    if (in->first == NULL) in->first = n;
    else in->last->next = n;
    in->last = n;
    in->count++;
    return n;
}

wf_node *wf_node_object(wf_doc *d, wf_node *in, const char *key) { return add(d, in, key, OBJECT); }
wf_node *wf_node_list(wf_doc *d, wf_node *in, const char *key) { return add(d, in, key, LIST); }

static void add_leaf(wf_doc *d, wf_node *in, const char *key, kind kind, const char *text)
{
    wf_node *n = add(d, in, key, kind);
    if (n != NULL) n->text = keep(d, n, text);
}

void wf_node_text(wf_doc *d, wf_node *in, const char *key, const char *value)
{
    add_leaf(d, in, key, TEXT, value);
}

void wf_node_bool(wf_doc *d, wf_node *in, const char *key, bool value)
{
    add_leaf(d, in, key, PLAIN, value ? "true" : "false");
}

void wf_node_int(wf_doc *d, wf_node *in, const char *key, int64_t value)
{
    char buf[32];

    wf_format(buf, sizeof buf, "%lld", (long long)value);
    add_leaf(d, in, key, PLAIN, buf);
}

/* JSON's -0 is read as a whole number, which has no sign. */
static void add_number(wf_doc *d, wf_node *in, const char *key, double value, const char *text)
{
    if (!isfinite(value)) text = "null";
    else if (value == 0) text = signbit(value) ? "-0.0" : "0";
    add_leaf(d, in, key, PLAIN, text);
}

void wf_node_float(wf_doc *d, wf_node *in, const char *key, float value)
{
    wf_number_text buf;
    add_number(d, in, key, (double)value, wf_number(&buf, (double)value));
}

void wf_node_double(wf_doc *d, wf_node *in, const char *key, double value)
{
    wf_number_text buf;
    add_number(d, in, key, value, wf_number_double(&buf, value));
}

void wf_node_place(const wf_node *n, wf_text *out)
{
    size_t index = 0;

    if (n->in == NULL) return;
    wf_node_place(n->in, out);
    for (const wf_node *c = n->in->first; c != n; c = c->next) index++;
    if (n->in->kind == LIST) wf_text_add(out, "[%zu]", index);
    else wf_text_add(out, "%s%s", n->in->in != NULL ? "." : "", n->key != NULL ? n->key : "");
}

/* ---- writing --------------------------------------------------------------------------------- */

static void write_string(wf_text *out, const char *s)
{
    wf_text_bytes(out, "\"", 1);
    for (size_t n; *s != '\0'; s += n) {
        n = 0;
        while ((unsigned char)s[n] >= 0x20 && s[n] != '"' && s[n] != '\\') n++;
        if (n > 0) {
            wf_text_bytes(out, s, n);
            continue;
        }
        n = 1;
        if (*s == '"' || *s == '\\') wf_text_add(out, "\\%c", *s);
        else if (*s == '\n') wf_text_bytes(out, "\\n", 2);
        else wf_text_add(out, "\\u00%c%c", "01"[(unsigned char)*s >> 4],
                         "0123456789abcdef"[(unsigned char)*s & 15]);
    }
    wf_text_bytes(out, "\"", 1);
}

/* Characters that a node takes on one line, or more than WIDTH. */
static size_t width_of(const wf_node *n)
{
    size_t w = (n->key != NULL ? strlen(n->key) + 4 : 0) + 2;

    if (n->text != NULL) w += strlen(n->text);
    for (const wf_node *c = n->first; c != NULL && w <= WIDTH; c = c->next) w += width_of(c) + 2;
    return w;
}

static void write_node(wf_text *out, const wf_node *n, size_t indent)
{
    const char *marks = n->kind == OBJECT ? "{}" : "[]";
    size_t      begun = 0; /* where the line began: numbers fill it */

    if (n->key != NULL) {
        write_string(out, n->key);
        wf_text_bytes(out, ": ", 2);
    }
    if (n->kind == TEXT) write_string(out, n->text);
    else if (n->kind == PLAIN) wf_text_bytes(out, n->text, strlen(n->text));
    if (n->kind == TEXT || n->kind == PLAIN) return;
    bool lines = n->count > 0 && (indent == 0 || indent + width_of(n) > WIDTH);
    wf_text_bytes(out, &marks[0], 1);
    for (const wf_node *c = n->first; c != NULL; c = c->next) {
        size_t wide = c->kind == PLAIN ? width_of(c) : WIDTH;
        if (lines && (n->kind == OBJECT || c == n->first || out->len - begun + wide > WIDTH)) {
            wf_text_add(out, "\n%*s", (int)indent + 2, "");
            begun = out->len - indent;
        } else if (c != n->first) {
            wf_text_bytes(out, " ", 1);
        }
        write_node(out, c, indent + 2);
        if (c->next != NULL) wf_text_bytes(out, ",", 1);
    }
    if (lines) wf_text_add(out, "\n%*s", (int)indent, "");
    wf_text_bytes(out, &marks[1], 1);
}

void wf_doc_write(const wf_doc *d, wf_text *out)
{
    if (d->failed) {
        out->failed = true;
        return;
    }
    write_node(out, d->root, 0);
    wf_text_bytes(out, "\n", 1);
}

/* The child whose key is next after `before`, NULL the least. Objects have few keys. */
static const wf_node *next_key(const wf_node *n, const char *before)
{
    const wf_node *best = NULL;

    for (const wf_node *c = n->first; c != NULL; c = c->next)
        if ((before == NULL || strcmp(c->key, before) > 0) &&
            (best == NULL || strcmp(c->key, best->key) < 0)) best = c;
    return best;
}

static void write_canonical(wf_text *out, const wf_node *n)
{
    const wf_node *c = n->kind == OBJECT ? next_key(n, NULL) : n->first;

    if (n->key != NULL) {
        write_string(out, n->key);
        wf_text_bytes(out, ":", 1);
    }
    if (n->kind == TEXT) write_string(out, n->text);
    else if (n->kind == PLAIN) wf_text_bytes(out, n->text, strlen(n->text));
    if (n->kind == TEXT || n->kind == PLAIN) return;
    wf_text_bytes(out, n->kind == OBJECT ? "{" : "[", 1);
    while (c != NULL) {
        write_canonical(out, c);
        c = n->kind == OBJECT ? next_key(n, c->key) : c->next;
        if (c != NULL) wf_text_bytes(out, ",", 1);
    }
    wf_text_bytes(out, n->kind == OBJECT ? "}" : "]", 1);
}

void wf_doc_canonical(const wf_doc *d, wf_text *out)
{
    if (d->failed) out->failed = true;
    else write_canonical(out, d->root);
}
