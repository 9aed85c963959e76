/* prediction.c - whether a model predicts noise or v.
 *
 * The answer goes into the scheduler's configuration, where samplers look. A folder has one. For a
 * single file it is made, from the first of these that exists: a .yaml beside the file, as the
 * original programs want one; the scheduler_config.json of the folder that describes it; marks that
 * merging tools leave among the tensors. SD2 files say nothing: most models made from SD2 predict
 * v, but its base at 512 and models made from that predict noise. Running the network once would
 * tell, but reads all of its weights: so v is presumed, and a warning is logged. The caller's flags
 * override all of this. */
#include "model/model_internal.h"

enum { MAX_YAML = 1 << 20 };

static bool begins(const char *s, const char *word) { return strncmp(s, word, strlen(word)) == 0; }

/* The value of "parameterization:" in a text, cut out of quotes: "v", "eps", or nothing. */
static void find_parameterization(const char *text, char *word, size_t cap)
{
    static const char key[] = "parameterization:";
    const char *line = text;
    size_t n = 0;

    while (line != NULL) {
        const char *s = line + strspn(line, " \t");
        if (begins(s, key)) {
            s += strlen(key);
            s += strspn(s, " \t\"'");
            while (n + 1 < cap && s[n] != 0 && strchr(" \t\"'\r\n#", s[n]) == NULL) n++;
            memcpy(word, s, n);
            break;
        }
        line = strchr(line, '\n');
        if (line != NULL) line++;
    }
    word[n] = 0;
}

/* The .yaml beside the file, as the original programs want one. */
static weft_status read_yaml(const weft_model *m, char *word, size_t cap, weft_error *err)
{
    char path[WF_PATH];
    wf_file text = WF_FILE_NONE;
    const char *dot = strrchr(m->path, '.'), *slash = strrchr(m->path, '/');
    size_t stem =
        dot != NULL && (slash == NULL || dot > slash) ? (size_t)(dot - m->path) : strlen(m->path);

    word[0] = 0;
    if (!wf_format(path, sizeof path, "%.*s.yaml", (int)WF_MIN(stem, (size_t)WF_PATH), m->path) ||
        !wf_path_exists(path))
        return WEFT_OK;
    WF_TRY(wf_file_read(&text, path, MAX_YAML, &m->alloc, err));
    if (text.data != NULL) find_parameterization((const char *)text.data, word, cap);
    wf_file_close(&text, &m->alloc);
    return WEFT_OK;
}

static weft_status set(json_t *scheduler, const char *key, json_t *value, weft_error *err)
{
    return json_object_set_new(scheduler, key, value) == 0
               ? WEFT_OK
               : wf_nomem(err, strlen(key), "the scheduler's configuration");
}

weft_status wf_find_prediction(const weft_model *m, const weft_model_options *o,
                               const wf_hints *hints, wf_gathered *s, weft_error *err)
{
    char word[16];
    bool given = (o->flags & (WEFT_OPEN_EPSILON | WEFT_OPEN_V)) != 0,
         described = o->config != NULL && s->scheduler != NULL;
    const char *says = NULL;

    WF_TRY(read_yaml(m, word, sizeof word, err));
    if (strcmp(word, "v") == 0) says = "v_prediction";
    else if (strcmp(word, "eps") == 0) says = "epsilon";
    else if (!described && hints->v_pred) says = "v_prediction";
    else if (!described && hints->base == WEFT_BASE_SD2) {
        bool plain = hints->channels == 4; /* the published inpainting model came of the base */
        says = plain ? "v_prediction" : "epsilon";
        if (!given)
            wf_log(o->log, o->log_user, WEFT_LOG_WARN,
                   "%s: a single file of SD2 does not say what it predicts: taken for "
                   "%s; open it with WEFT_OPEN_EPSILON or WEFT_OPEN_V, or put its .yaml beside it",
                   m->path,
                   plain ? "v, as the models at 768 do" : "noise, as inpainting models do");
    }
    bool noise =
        given ? (o->flags & WEFT_OPEN_EPSILON) != 0 : says != NULL && strcmp(says, "epsilon") == 0;
    if (o->config == NULL && hints->base == WEFT_BASE_SD2 &&
        noise) /* the base and its kin were trained at 512 */
        WF_TRY(set(s->component[WEFT_COMPONENT_DENOISER].config, "sample_size", json_integer(64),
                   err));
    if (s->scheduler == NULL) s->scheduler = json_object();
    if (says != NULL) WF_TRY(set(s->scheduler, "prediction_type", json_string(says), err));
    return hints->ztsnr && !described
               ? set(s->scheduler, "rescale_betas_zero_snr", json_true(), err)
               : WEFT_OK;
}

/* What the caller says that the model predicts stands in the scheduler's configuration, for
 * everyone who asks. */
weft_status wf_settle_prediction(weft_model *m, const weft_model_options *o, weft_error *err)
{
    uint32_t said = o->flags & (WEFT_OPEN_EPSILON | WEFT_OPEN_V);
    if (said == 0) return WEFT_OK;
    if (m->scheduler == NULL) m->scheduler = json_object();
    json_t *word = json_string(said == WEFT_OPEN_V ? "v_prediction" : "epsilon");
    return json_object_set_new(m->scheduler, "prediction_type", word) == 0
               ? WEFT_OK : wf_nomem(err, sizeof *word, "the scheduler's configuration");
}
