/* form_zip.c - a coefficient for each column of two adapters' pairs: ZipLoRA (Shah et al., 2023).
 *
 *     Delta W = B_c A_c diag(m_c) + B_s A_s diag(m_s)
 *
 * The diagonals act on the layer's input, so they belong to the down factors, and the network reads
 * a plain pair of rank r_c + r_s:
 *
 *     down = [A_c diag(m_c); A_s diag(m_s)]        up = [B_c, B_s]
 *
 * With G the gradient of down, that of m is the column sums of G A: no matrix of the layer's size
 * is formed. All coefficients begin as 1, the plain sum. A layer that only one adapter acts on has
 * that one's coefficients alone. */
#include "train/zip.h"

int32_t wf_zip_tensor(const wf_site *s, int part)
{
    const wf_zip_layer *z = s->given;

    if (z->rank[part] == 0) return -1;
    return part == WF_ZIP_STYLE && z->rank[WF_ZIP_CONTENT] > 0;
}

static bool shape(wf_site *s, const wf_form_choice *c)
{
    static const char *const names[WF_ZIP_PARTS] = { "m_c", "m_s" };
    const wf_zip_layer      *z = s->given;

    (void)c;
    if (z == NULL) return false;
    s->rank = z->rank[WF_ZIP_CONTENT] + z->rank[WF_ZIP_STYLE];
    s->alpha = (float)s->rank;
    s->scale = 1;
    for (int part = 0; part < WF_ZIP_PARTS; part++)
        if (z->rank[part] > 0)
            s->tensor[s->tensors++] = (wf_form_tensor){ .name = names[part], .rows = 1,
                                                        .columns = s->K };
    return s->rank > 0;
}

static void begin(const wf_site *s, const wf_form_choice *c, wf_mersenne *g)
{
    (void)c, (void)g;
    for (int32_t i = 0; i < s->tensors; i++)
        for (size_t k = 0; k < s->K; k++) s->value[i][k] = 1;
}

/* down (rank, K), up (rank, out) */
static void merge(const wf_site *s, float *down, float *up)
{
    const wf_zip_layer *z = s->given;

    for (int part = 0; part < WF_ZIP_PARTS; part++) {
        if (z->rank[part] == 0) continue;
        const float *m = s->value[wf_zip_tensor(s, part)], *A = z->down[part];
        size_t       r = (size_t)z->rank[part];
        for (size_t i = 0; i < r; i++, A += s->K, down += s->K)
            for (size_t k = 0; k < s->K; k++) down[k] = m[k] * A[k];
        memcpy(up, z->up[part], r * s->out * sizeof *up);
        up += r * s->out;
    }
}

static void make(const wf_site *s, const wf_form_choice *c)
{
    (void)c;
    merge(s, s->down, s->up);
}

static void pull(const wf_site *s, const wf_form_choice *c)
{
    const wf_zip_layer *z = s->given;
    const float        *g_down = s->g_down;

    (void)c;
    for (int part = 0; part < WF_ZIP_PARTS; part++) {
        if (z->rank[part] == 0) continue;
        float       *g = s->grad[wf_zip_tensor(s, part)];
        const float *A = z->down[part];
        for (int32_t i = 0; i < z->rank[part]; i++, A += s->K, g_down += s->K)
            for (size_t k = 0; k < s->K; k++) g[k] += g_down[k] * A[k];
    }
}

/* The merged pair is a pair as LoRA's. */
static int32_t write(const wf_site *s, int32_t dialect, wf_bag *bag, wf_form_out *out)
{
    wf_outs o = { bag, out, 0 };
    size_t  R = (size_t)s->rank;
    float  *down = wf_bag_take(bag, R * (s->K + s->out), sizeof *down);

    if (down == NULL) return -1;
    merge(s, down, down + R * s->K);
    wf_pair_write(s, dialect == WEFT_DIALECT_KOHYA, down, down + R * s->K, &o);
    return o.count;
}

const wf_form wf_form_zip = {
    .name = "zip",
    .reads = WF_READS_PAIR,
    .shape = shape,
    .begin = begin,
    .make = make,
    .pull = pull,
    .write = write,
};
