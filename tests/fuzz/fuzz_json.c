/* JSON of any bytes is refused in one line, or it is an object that survives being written and read again. */
#include "fuzz.h"
#include "io/io.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    weft_error  err = { 0, 0, "" };
    json_t     *root, *again;
    char       *text;
    weft_status st = wf_json_parse(&root, (const char *)data, size, "fuzz", &err);

    if (st != WEFT_OK) {
        must(root == NULL && err.code == st && one_line(err.text));
        return 0;
    }
    must(json_is_object(root));
    text = json_dumps(root, JSON_COMPACT);
    must(text != NULL);
    must(wf_json_parse(&again, text, strlen(text), "again", &err) == WEFT_OK);
    must(json_equal(root, again));
    free(text);
    json_decref(again);
    json_decref(root);
    return 0;
}
