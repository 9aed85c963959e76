/* pattern.c - the regular expressions of PEFT's configurations.
 *
 * They are Python's, held against the path of a module to its end, from its start or after a dot. A
 * pattern is compiled into a small program, and all ways through it are walked at once, a character
 * at a time, so that none can take long: the time is the program's length times the path's,
 * whatever stars stand inside stars. The C library's regcomp() was turned down: it reads another
 * language (no \d, no (?:)), depends on the locale, takes memory that is not the allocator's, and
 * what a hostile pattern costs it is not ours to bound.
 *
 * Read are literals, . [] () (?:) | ^ $, * + ? {m,n} also lazy, and of the escapes \d \w \s \b \A
 * \Z with their opposites. What says more (looking around, references, flags) is not known, and
 * neither is a program of more than MOST_CODE steps, groups too deep, or too many classes. */
#include "adapter/adapter_internal.h"

enum { MOST_CODE = 1500, MOST_SETS = 24, MOST_DEPTH = 24, MOST_TIMES = 1000 };

enum { CHAR, ANY, SET, SPLIT, JUMP, START, END, EDGE, NO_EDGE };

/* One step. Targets are relative, so that a piece of program may be moved and copied. */
typedef struct step {
    uint8_t op;
    uint8_t c;        /* of CHAR; of SET which               */
    int16_t to, or_to; /* of JUMP and SPLIT, from this step  */
} step;

typedef struct set { uint32_t bits[8]; } set;

typedef struct program {
    step    code[MOST_CODE + 1];
    set     sets[MOST_SETS];
    int32_t n, set_count, depth;
    bool    failed;   /* the pattern says more than is read */
} program;

/* ---- compiling ------------------------------------------------------------------------------- */

static void emit(program *p, step s)
{
    if (p->n >= MOST_CODE) p->failed = true;
    else p->code[p->n++] = s;
}

/* Room for a step at `at`, before the piece [at, n). */
static void insert(program *p, int32_t at, step s)
{
    emit(p, s);
    if (p->failed) return;
    memmove(&p->code[at + 1], &p->code[at], (size_t)(p->n - 1 - at) * sizeof(step));
    p->code[at] = s;
}

static void put_bit(set *s, unsigned char c)
{
    s->bits[c / 32] |= (uint32_t)1 << c % 32;
}

static bool is_word(unsigned char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

/* The class of \d, \w or \s, or of their opposites, added to the set; false if it is no class. */
static bool add_class(set *s, char letter)
{
    char kind = (char)(letter | 0x20);

    if (letter == '\0' || strchr("dws", kind) == NULL) return false;
    for (int32_t c = 1; c < 256; c++) {
        unsigned char u = (unsigned char)c;
        bool in = kind == 'd' ? u >= '0' && u <= '9' : kind == 'w' ? is_word(u)
                  : strchr(" \t\n\r\f\v", u) != NULL;
        if (in == (kind == letter)) put_bit(s, u);
    }
    return true;
}

static void emit_set(program *p, const set *s, bool negated)
{
    if (p->set_count == MOST_SETS) {
        p->failed = true;
        return;
    }
    for (size_t i = 0; i < WF_LEN(s->bits); i++)
        p->sets[p->set_count].bits[i] = negated ? ~s->bits[i] : s->bits[i];
    emit(p, (step){ .op = SET, .c = (uint8_t)p->set_count++ });
}

/* An escaped sign that stands for itself. */
static bool is_sign(char c)
{
    return c > ' ' && c < 0x7f && (c == '_' || !is_word((unsigned char)c));
}

/* One end of a range inside brackets; 0 if it is none. */
static unsigned char range_end(program *p, const char **at)
{
    unsigned char c = (unsigned char)*(*at)++;

    if (c == '\\') {
        c = (unsigned char)**at;
        if (!is_sign((char)c)) p->failed = true;
        else (*at)++;
    }
    if (c == '\0' || c >= 0x80) p->failed = true; /* a character of several bytes is no member */
    return p->failed ? 0 : c;
}

/* Behind "[". */
static const char *read_brackets(program *p, const char *at)
{
    set  s = { { 0 } };
    bool negated = *at == '^', first = true;

    for (at += negated; !p->failed && (*at != ']' || first); first = false) {
        if (*at == '\\' && add_class(&s, at[1])) {
            at += 2;
            continue;
        }
        unsigned char low = range_end(p, &at), high = low;
        if (!p->failed && *at == '-' && at[1] != ']') {
            at++;
            high = range_end(p, &at);
            if (high < low) p->failed = true;
        }
        for (unsigned c = low; !p->failed && c <= high; c++) put_bit(&s, (unsigned char)c);
    }
    if (p->failed) return at;
    emit_set(p, &s, negated);
    return at + 1;
}

static const char *read_alternatives(program *p, const char *at);

/* Behind "(". */
static const char *read_group(program *p, const char *at)
{
    if (*at == '?') {
        if (at[1] != ':') p->failed = true;
        at += 2;
    }
    if (p->depth == MOST_DEPTH) p->failed = true;
    if (p->failed) return at;
    p->depth++;
    at = read_alternatives(p, at);
    p->depth--;
    if (p->failed || *at != ')') p->failed = true;
    else at++;
    return at;
}

/* Behind a backslash. *repeats is false for a place, which nothing may repeat. */
static const char *read_escape(program *p, const char *at, bool *repeats)
{
    static const struct { char letter; uint8_t op; } places[] = {
        { 'A', START }, { 'Z', END }, { 'b', EDGE }, { 'B', NO_EDGE },
    };
    set s = { { 0 } };

    for (size_t i = 0; i < WF_LEN(places); i++)
        if (*at == places[i].letter) {
            *repeats = false;
            emit(p, (step){ .op = places[i].op });
            return at + 1;
        }
    if (add_class(&s, *at)) emit_set(p, &s, false);
    else if (is_sign(*at)) emit(p, (step){ .op = CHAR, .c = (uint8_t)*at });
    else p->failed = true;
    return at + 1;
}

/* One thing that can be repeated, or a place. */
static const char *read_atom(program *p, const char *at, bool *repeats)
{
    char c = *at++;

    *repeats = c != '^' && c != '$';
    switch (c) {
    case '.':  emit(p, (step){ .op = ANY }); return at;
    case '^':  emit(p, (step){ .op = START }); return at;
    case '$':  emit(p, (step){ .op = END }); return at;
    case '[':  return read_brackets(p, at);
    case '(':  return read_group(p, at);
    case '\\': return read_escape(p, at, repeats);
    case '*': case '+': case '?': p->failed = true; return at;
    default:   break;
    }
    emit(p, (step){ .op = CHAR, .c = (uint8_t)c });
    while (((unsigned char)*at & 0xC0) == 0x80) /* the rest of a character of several bytes */
        emit(p, (step){ .op = CHAR, .c = (uint8_t)*at++ });
    return at;
}

static const char *read_times(const char *at, int32_t *out)
{
    *out = 0;
    while (*at >= '0' && *at <= '9') {
        *out = WF_MIN(10 * *out + (*at - '0'), MOST_TIMES + 1);
        at++;
    }
    return at;
}

/* How often: least to most, -1 for no bound. NULL if what stands here is no such thing: a brace
 * that holds no numbers is a brace. */
static const char *read_repeat(const char *at, int32_t *least, int32_t *most)
{
    char        c = *at++;
    const char *low = at;

    *least = c == '+';
    *most = c == '?' ? 1 : -1;
    if (c == '*' || c == '+' || c == '?') return at;
    if (c != '{') return NULL;
    at = read_times(at, least);
    *most = *least;
    if (*at == ',') {
        const char *high = ++at;
        at = read_times(at, most);
        if (at == high) *most = -1;
    } else if (at == low) {
        return NULL;
    }
    return *at == '}' ? at + 1 : NULL;
}

static void copy_piece(program *p, int32_t from, int32_t len)
{
    for (int32_t i = 0; i < len && !p->failed; i++) emit(p, p->code[from + i]);
}

/* The piece from `at` to the end, so many times. */
static void repeat(program *p, int32_t at, int32_t least, int32_t most)
{
    int32_t len = p->n - at;

    if (least > MOST_TIMES || most > MOST_TIMES || (most >= 0 && most < least)) {
        p->failed = true;
        return;
    }
    if (len == 0) return; /* nothing, many times */
    int32_t all = most < 0 ? WF_MAX(least, 1) : most;
    for (int32_t i = 1; i < all && !p->failed; i++) copy_piece(p, at, len);
    if (p->failed) return;
    if (most < 0 && least > 0) { /* the last one again and again */
        emit(p, (step){ .op = SPLIT, .to = (int16_t)-len, .or_to = 1 });
    } else if (most < 0) {
        insert(p, at, (step){ .op = SPLIT, .to = 1, .or_to = (int16_t)(len + 2) });
        emit(p, (step){ .op = JUMP, .to = (int16_t)-(len + 1) });
    } else if (most == 0) {
        p->n = at;
    } else {
        for (int32_t i = most - 1; i >= least && !p->failed; i--) /* the last ones may be absent */
            insert(p, at + i * len,
                   (step){ .op = SPLIT, .to = 1, .or_to = (int16_t)(p->n - (at + i * len) + 1) });
    }
}

static const char *read_sequence(program *p, const char *at)
{
    while (!p->failed && *at != '\0' && *at != '|' && *at != ')') {
        int32_t start = p->n, least, most;
        bool    repeats;
        at = read_atom(p, at, &repeats);
        if (p->failed) return at;
        const char *behind = read_repeat(at, &least, &most);
        if (behind == NULL) continue;
        if (!repeats) p->failed = true;
        else repeat(p, start, least, most);
        at = *behind == '?' ? behind + 1 : behind; /* lazy: the same paths match */
        int32_t again;
        if (*behind == '+' || read_repeat(at, &again, &again) != NULL) p->failed = true;
    }
    return at;
}

static const char *read_alternatives(program *p, const char *at)
{
    int32_t last = -1; /* the jump behind the alternative before, whose `or_to` leads further back */

    for (;;) {
        int32_t start = p->n;
        at = read_sequence(p, at);
        if (p->failed || *at != '|') break;
        insert(p, start, (step){ .op = SPLIT, .to = 1, .or_to = (int16_t)(p->n - start + 2) });
        emit(p, (step){ .op = JUMP, .or_to = (int16_t)(last < 0 ? 0 : p->n - last) });
        last = p->n - 1;
        at++;
    }
    while (last >= 0 && !p->failed) {
        int16_t before = p->code[last].or_to;
        p->code[last].to = (int16_t)(p->n - last);
        last = before > 0 ? last - before : -1;
    }
    return at;
}

static bool compile(program *p, const char *pattern)
{
    p->n = p->set_count = p->depth = 0;
    p->failed = false;
    const char *end = read_alternatives(p, pattern);
    return !p->failed && *end == '\0';
}

/* ---- matching -------------------------------------------------------------------------------- */

/* The steps that a walk has reached, in the order in which it came to them: step n of the program
 * is its end. */
typedef struct walk {
    bool    at[MOST_CODE + 1];
    int16_t list[MOST_CODE + 1];
    int32_t count;
} walk;

static void come_to(walk *w, int32_t i)
{
    if (w->at[i]) return;
    w->at[i] = true;
    w->list[w->count++] = (int16_t)i;
}

static bool place_holds(const step *x, const char *s, size_t k, size_t len)
{
    bool edge = (k > 0 && is_word((unsigned char)s[k - 1])) !=
                (k < len && is_word((unsigned char)s[k]));

    switch (x->op) {
    case START: return k == 0;
    case END:   return k == len;
    case EDGE:  return edge;
    default:    return !edge;
    }
}

/* Come to step i, and from there to all that takes no character. */
static void reach(const program *p, walk *w, int32_t i, const char *s, size_t k, size_t len)
{
    int32_t from = w->count;

    for (come_to(w, i); from < w->count; from++) {
        int32_t     at = w->list[from];
        const step *x = &p->code[at];
        if (at == p->n) continue;
        if (x->op == SPLIT || x->op == JUMP) come_to(w, at + x->to);
        if (x->op == SPLIT) come_to(w, at + x->or_to);
        if (x->op >= START && place_holds(x, s, k, len)) come_to(w, at + 1);
    }
}

static bool takes(const program *p, const step *x, unsigned char c)
{
    switch (x->op) {
    case CHAR: return x->c == c;
    case ANY:  return c != '\n';
    case SET:  return (p->sets[x->c].bits[c / 32] >> c % 32 & 1) != 0;
    default:   return false;
    }
}

static bool run(const program *p, const char *s, bool loose)
{
    walk   walks[2], *now = &walks[0], *next = &walks[1];
    size_t len = strlen(s);

    memset(now->at, 0, (size_t)p->n + 1);
    memset(next->at, 0, (size_t)p->n + 1);
    now->count = next->count = 0;
    for (size_t k = 0;; k++) {
        if (k == 0 || (loose && s[k - 1] == '.')) reach(p, now, 0, s, k, len);
        if (k == len) return now->at[p->n];
        for (int32_t i = 0; i < now->count; i++) {
            int32_t at = now->list[i];
            now->at[at] = false;
            if (at < p->n && takes(p, &p->code[at], (unsigned char)s[k]))
                reach(p, next, at + 1, s, k + 1, len);
        }
        now->count = 0;
        walk *t = now;
        now = next;
        next = t;
    }
}

/* Most patterns are names: no sign in them but the dot, which is any character. */
static bool is_name(const char *pattern)
{
    return strpbrk(pattern, "\\*+?()[]{}|^$") == NULL;
}

static bool matches_name(const char *pattern, const char *path, bool loose)
{
    size_t n = strlen(pattern), len = strlen(path);

    if (n > len || (n < len && !(loose && path[len - n - 1] == '.'))) return false;
    for (size_t i = 0; i < n; i++)
        if (pattern[i] != '.' && pattern[i] != path[len - n + i]) return false;
    return true;
}

bool wf_pattern_matches(const char *pattern, const char *path, bool loose, bool *known)
{
    program p;

    *known = true;
    if (is_name(pattern)) return matches_name(pattern, path, loose);
    *known = compile(&p, pattern);
    return *known && run(&p, path, loose);
}

double wf_pattern_cost(const char *pattern)
{
    program p;
    double  usual = 128; /* characters of a path */

    if (is_name(pattern)) return 1 + (double)strlen(pattern);
    (void)compile(&p, pattern);
    return usual * (1 + (double)p.n);
}
