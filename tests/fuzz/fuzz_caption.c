/* A caption of any bytes is refused in one line, or is one line of UTF-8 inside them, without white space around it. */
#include "fuzz.h"
#include "train/dataset_internal.h"

static int is_space(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; }

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    weft_error  err = { 0, 0, "" };
    const char *text = NULL;
    size_t      n = 0;
    weft_status st = wf_data_caption(&text, &n, data, size, "fuzz", &err);

    if (st != WEFT_OK) {
        must(st == WEFT_E_FORMAT && err.code == st && one_line(err.text));
        return 0;
    }
    must((const uint8_t *)text >= data && (const uint8_t *)text + n <= data + size && wf_utf8_valid(text, n));
    must(n == 0 || (!is_space(text[0]) && !is_space(text[n - 1])));
    for (size_t i = 0; i < n; i++) must(text[i] != '\n' && text[i] != '\r' && text[i] != '\0');
    return 0;
}
