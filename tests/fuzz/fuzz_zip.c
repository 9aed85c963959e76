/* An archive of any bytes is refused in one line, or its members lie inside it, apart from each other. */
#include "fuzz.h"
#include "io/zip.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const weft_allocator alloc = wf_allocator(NULL);
    weft_error           err   = { 0, 0, "" };
    wf_bag               bag;
    wf_zip               zip;
    weft_status          st;

    wf_bag_init(&bag, &alloc);
    st = wf_zip_read(&bag, data, size, "fuzz", &zip, &err);
    if (st != WEFT_OK) must(err.code == st && one_line(err.text));
    for (size_t i = 0; st == WEFT_OK && i < zip.count; i++) {
        const wf_zip_member *m = &zip.members[i];

        must(wf_zip_find(&zip, m->name) == m);
        must(m->data >= data && m->size <= size && (size_t)(m->data - data) <= size - m->size);
        for (size_t k = 0; k < zip.count && zip.count < 100; k++)
            must(k == i || zip.members[k].begin >= (size_t)(m->data - data) + m->size || zip.members[k].begin < m->begin);
    }
    wf_bag_free(&bag);
    return 0;
}
