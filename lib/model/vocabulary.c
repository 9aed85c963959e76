/* vocabulary.c - which tokenizers a model gets: those that the caller gives, else its own.
 *
 * All published models share CLIP's vocabulary, and differ in what they pad with: OpenAI's encoder
 * takes the end token, OpenCLIP's (SD2's, and the second of SDXL) id 0, the exclamation mark. A
 * folder says so itself; a bare list of merges does not, and then the encoder's place and kind
 * decide.
 *
 * A list of merges numbers its tokens by counting, so a list that is cut short gives other ids to
 * the tokens that begin and end a prompt, and nothing in it shows that. The text encoder's rows do:
 * there is one for each token. Only behind CLIP's own 49408 there may be more, of tokens that were
 * added later. */
#include "model/model_internal.h"
#include "model/tokenizer.h"

#define MAX_LIST ((size_t)16 << 20)

/* OpenAI's list goes on behind CLIP's merges, to the whole of its training: 49152 - 256 - 2 of them
 * count. */
enum { CLIP_MERGES = 48894, CLIP_TOKENS = 512 + CLIP_MERGES + 2 };

/* Rows are added to make a round number of them, 64 or 128 at a time. */
enum { PADDED = 128 };

/* The first line is a title if it names a version; OpenAI's has the name of the file before it. */
static size_t title_of(const char *text, size_t size)
{
    static const char mark[] = "#version";
    const char *end = memchr(text, '\n', size);
    for (const char *s = text; end != NULL && s + sizeof mark - 1 <= end; s++)
        if (memcmp(s, mark, sizeof mark - 1) == 0) return (size_t)(end + 1 - text);
    return 0;
}

/* Bytes of the first `lines` lines. */
static size_t size_of_lines(const char *text, size_t size, size_t lines)
{
    size_t seen = 0;
    for (size_t i = 0; i < size; i++)
        if (text[i] == '\n' && ++seen == lines) return i + 1;
    return size;
}

/* The text of a file, unpacked if it is gzip's. */
static weft_status read_text(weft_model *m, const char *path, wf_file *out, weft_error *err)
{
    wf_file packed;

    WF_TRY(wf_file_read(out, path, MAX_LIST, &m->alloc, err));
    if (out->size < 2 || out->data[0] != 0x1f || out->data[1] != 0x8b) return WEFT_OK;
    packed = *out;
    weft_status st = wf_gzip_unpack(out, packed.data, packed.size, path, MAX_LIST, &m->alloc, err);
    wf_file_close(&packed, &m->alloc);
    return st;
}

/* A file of merges: merges.txt, or OpenAI's, packed or not. */
static weft_status open_list(weft_model *m, const char *path, const char *pad, wf_tokenizer **out,
                             weft_error *err)
{
    wf_file f = WF_FILE_NONE;
    WF_TRY(read_text(m, path, &f, err));
    size_t title = title_of((const char *)f.data, f.size);
    const char *text = (const char *)f.data + title;
    wf_tokenizer_source from = { .where = path, .pad = pad, .merges = text,
                                 .merges_len = size_of_lines(text, f.size - title, CLIP_MERGES) };
    weft_status st = wf_tokenizer_make(&from, &m->alloc, out, err);
    wf_file_close(&f, &m->alloc);
    return st;
}

/* OpenCLIP's encoders (SD2's, and the second of SDXL) differ from OpenAI's in their activation. */
static bool pads_with_zero(const wf_clip *text)
{
    return wf_clip_get_config(text)->act == WF_ACT_GELU;
}

/* `path` is this encoder's own vocabulary, or `borrowed` from the other one. */
static weft_status open_one(weft_model *m, wf_text_encoder *e, const char *path, bool borrowed,
                            const weft_model_options *o, weft_error *err)
{
    wf_tokenizer **t = &e->tokenizer;
    bool folder = wf_path_is_dir(path);
    const char *pad = (borrowed || !folder) && pads_with_zero(e->net) ? "!" : NULL;

    WF_TRY(folder ? wf_tokenizer_open_padded(path, pad, &m->alloc, t, err)
                  : open_list(m, path, pad, t, err));
    int32_t size = wf_tokenizer_size(*t), vocab = wf_clip_get_config(e->net)->vocab;
    if (size > vocab)
        return wf_fail(err, WEFT_E_MISMATCH,
                       "%s: the tokenizer has ids up to %d, the text encoder only %d rows", path,
                       size - 1, vocab);
    if (!folder && size != WF_MIN(vocab, CLIP_TOKENS) && size != vocab)
        return wf_fail(err, WEFT_E_MISMATCH,
                       "%s: these merges make %d tokens, the text encoder has %d rows: the list is "
                       "cut short, or is another model's",
                       path, size, vocab);
    if (size < WF_MIN(vocab, CLIP_TOKENS) && vocab - size >= PADDED)
        wf_log(o->log, o->log_user, WEFT_LOG_WARN,
               "%s: the tokenizer has %d tokens, the text encoder %d rows: is it another model's?",
               path, size, vocab);
    return WEFT_OK;
}

weft_status wf_open_tokenizers(weft_model *m, const weft_model_options *o, const wf_gathered *s,
                               weft_error *err)
{
    const char *given[WF_ENCODERS_MAX] = { o->tokenizer, o->tokenizer_2 };

    for (int32_t i = 0; i < m->networks.encoders; i++) {
        wf_text_encoder *e = &m->networks.encoder[i];
        int32_t which = wf_component_encoder(e->component);
        const char *own = s->vocabulary[which];
        if (given[which] != NULL) WF_TRY(open_one(m, e, given[which], false, o, err));
        else if (*own != 0) WF_TRY(open_one(m, e, own, false, o, err));
        else if (e->component == WEFT_COMPONENT_TEXT_2 && given[0] != NULL)
            WF_TRY(open_one(m, e, given[0], true, o, err));
    }
    return WEFT_OK;
}
