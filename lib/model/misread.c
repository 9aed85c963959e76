/* misread.c - what a prompt has that other programs act on, and that is read as words here.
 *
 * Such a prompt draws a picture, and nothing in it says that a part was not understood. So what is
 * written with signs that no sentence has is looked for, and the caller told. Reading stays as it
 * is: nothing is taken out of a prompt. */
#include "model/prompt.h"
#include "model/tokenizer.h"

enum { LONGEST = 200 }; /* bytes of what stands in pointed brackets */

static const char *const says[] = {
    [WF_MISREAD_NETWORK] = "adapters are added with weft_plan_add(), and a prompt does not name "
                           "them",
    [WF_MISREAD_EMBEDDING] = "a file of tokens is added with weft_plan_add_concept(), and a prompt "
                             "has its token alone",
    [WF_MISREAD_TOKEN] = "no concept of the plan has this token; one is added with "
                         "weft_plan_add_concept()",
    [WF_MISREAD_WEIGHT] = "weights are read with WEFT_ENCODE_WEIGHTS",
    [WF_MISREAD_BREAK] = "it begins a chunk with WEFT_ENCODE_WEIGHTS",
    [WF_MISREAD_CHANGE] = "a prompt stays as it is; calls may be given others in weft_step.text",
    [WF_MISREAD_AND] = "a prompt is one text; parts of the image have others with "
                       "weft_plan_add_region()",
    [WF_MISREAD_CHOICE] = "nothing is drawn from a list",
};

const char *wf_misread_says(wf_misread_kind kind) { return says[kind]; }

/* Bytes up to the closing sign behind s[0], with it; 0 if it is not there, or s[0] stands again
 * before it. */
static size_t enclosed(const char *s, size_t n, char close, size_t most)
{
    for (size_t i = 1; i < n && i < most && s[i] != s[0]; i++)
        if (s[i] == close) return i + 1;
    return 0;
}

/* <lora:name:0.8>; or <cat-toy>, which may be a token. */
static bool pointed(const char *s, size_t n, wf_misread *out)
{
    static const char *const networks[] = { "lora:", "lyco:", "hypernet:" };
    bool letters = false;

    if ((out->len = enclosed(s, n, '>', LONGEST)) < 3) return false;
    out->kind = WF_MISREAD_NETWORK;
    for (size_t i = 0; i < WF_LEN(networks); i++) {
        size_t len = strlen(networks[i]);
        if (out->len > len + 2 && memcmp(s + 1, networks[i], len) == 0) return true;
    }
    out->kind = WF_MISREAD_TOKEN;
    for (size_t i = 1; i + 1 < out->len; i++) {
        bool other = s[i] == '_' || s[i] == '-' || (s[i] >= '0' && s[i] <= '9');
        if (!other && !wf_token_wordy(s, n, i) && ((uint8_t)s[i] & 0xc0) != 0x80) return false;
        letters = letters || !other;
    }
    return letters;
}

/* ComfyUI's embedding:name. */
static bool embedding(const char *s, size_t n, size_t at, wf_misread *out)
{
    static const char word[] = "embedding:";
    size_t            end = at + sizeof word - 1;

    if (end >= n || memcmp(s + at, word, sizeof word - 1) != 0) return false;
    if (at > 0 && (s[at - 1] == '_' || wf_token_wordy_before(s, at))) return false;
    while (end < n && s[end] != '\0' && strchr(" \t\r\n,:()[]", s[end]) == NULL) end++;
    out->kind = WF_MISREAD_EMBEDDING;
    out->len = end - at;
    return end > at + sizeof word - 1;
}

/* Automatic1111's [cat:dog:0.5], [dog:10], [cat|dog]. */
static bool changes(const char *s, size_t n, wf_misread *out)
{
    size_t len = enclosed(s, n, ']', n), i = len > 0 ? len - 1 : 0;

    out->kind = WF_MISREAD_CHANGE;
    out->len = len;
    if (len == 0) return false;
    if (memchr(s, '|', len) != NULL) return true;
    while (i > 1 && (s[i - 1] == '.' || (s[i - 1] >= '0' && s[i - 1] <= '9'))) i--;
    return i > 1 && i + 1 < len && s[i - 1] == ':';
}

/* Dynamic prompts' {cat|dog}. */
static bool chooses(const char *s, size_t n, wf_misread *out)
{
    out->kind = WF_MISREAD_CHOICE;
    out->len = enclosed(s, n, '}', n);
    return out->len > 0 && memchr(s, '|', out->len) != NULL;
}

/* BREAK, or AND, as a word. */
static bool word_at(const char *s, size_t n, size_t at, const char *word, wf_misread_kind kind,
                    wf_misread *out)
{
    size_t end = at + strlen(word);

    out->kind = kind;
    out->len = end - at;
    return end <= n && memcmp(s + at, word, end - at) == 0 &&
           (at == 0 || (s[at - 1] != '_' && !wf_token_wordy_before(s, at))) &&
           (end == n || (s[end] != '_' && !wf_token_wordy(s, n, end)));
}

/* (words:1.3), where s[at] is the colon. */
static bool weighs(const char *s, size_t n, size_t at, wf_misread *out)
{
    size_t number, number_len, len = wf_prompt_weight_at(s, n, at, &number, &number_len);

    if (out->open == 0 || len == 0) return false;
    out->kind = WF_MISREAD_WEIGHT;
    out->at = out->open - 1;
    out->len = at + len - out->at;
    out->open = 0;
    return true;
}

bool wf_prompt_misread(const char *s, size_t n, bool weights, wf_misread *out)
{
    for (size_t at = out->from; at < n; at++) {
        bool found = false;

        out->at = at;
        if (s[at] == '\\') at++;
        else if (s[at] == '<') found = pointed(s + at, n - at, out);
        else if (s[at] == '[') found = changes(s + at, n - at, out);
        else if (s[at] == 'e') found = embedding(s, n, at, out);
        else if (s[at] == '{') found = chooses(s + at, n - at, out);
        else if (s[at] == 'A') found = word_at(s, n, at, "AND", WF_MISREAD_AND, out);
        else if (s[at] == 'B' && !weights)
            found = word_at(s, n, at, "BREAK", WF_MISREAD_BREAK, out);
        else if (s[at] == ':') found = !weights && weighs(s, n, at, out);
        else if (s[at] == '(') out->open = at + 1;
        else if (s[at] == ')') out->open = 0;
        if (!found) continue;
        out->from = out->at + out->len;
        return true;
    }
    return false;
}
