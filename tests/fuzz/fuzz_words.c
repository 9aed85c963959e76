/* A caption of any bytes is filled with the words that are learnt: no {} is left of it or of a
 * template, what stands around it stays, and without any it is the caption itself. */
#include "fuzz.h"
#include "train/words.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char    a[] = "<a>", b[] = "b c";
    weft_allocator alloc = wf_allocator(NULL);
    wf_new_words   w = { .alloc = alloc, .count = 2, .word = { { .name = a }, { .name = b } } };
    char          *caption = wf_strndup(&alloc, (const char *)data, size); /* up to a NUL */
    wf_text        out;

    must(caption != NULL);
    size_t n = strlen(caption);
    wf_text_init(&out, &alloc);
    wf_new_words_fill(&w, caption, size, &out);
    must(!out.failed);
    const char *text = out.s != NULL ? out.s : "";
    bool plain = strstr(caption, "{}") == NULL && strstr(caption, "{object}") == NULL &&
                 strstr(caption, "{style}") == NULL;
    must(strlen(text) == out.len && plain == (out.len == n && memcmp(text, caption, n) == 0));
    if (!plain) must(strstr(text, "<a> b c") != NULL);
    wf_text_free(&out);
    wf_free(&alloc, caption);
    return 0;
}
