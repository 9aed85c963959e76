/* A JPEG of any bytes is refused in one line, or all of its pixels are there. */
#include "fuzz.h"
#include "io/io.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const weft_allocator alloc = wf_allocator(NULL);
    weft_error           err   = { 0, 0, "" };
    int32_t              width = 0, height = 0, turned = wf_exif_orientation(data, size);
    weft_status          st = wf_jpeg_size(data, size, "fuzz", &width, &height, &err);

    must(turned >= 1 && turned <= 8);
    if (st != WEFT_OK) {
        must((st == WEFT_E_FORMAT || st == WEFT_E_UNSUPPORTED) && err.code == st && one_line(err.text));
        return 0;
    }
    must(width > 0 && height > 0);
    if ((int64_t)width * height > 1 << 14) return 0;  /* allowed, and slow */
    size_t   bytes = (size_t)width * (size_t)height * 3;
    uint8_t *rgb   = wf_zalloc(&alloc, bytes, 1);
    if (rgb == NULL) return 0;
    st = wf_jpeg_read(data, size, "fuzz", rgb, width, height, &alloc, &err);
    must(st == WEFT_OK || (st == WEFT_E_FORMAT && err.code == st && one_line(err.text)));
    must(wf_jpeg_read(data, size, "fuzz", rgb, width, height + 1, &alloc, &err) == WEFT_E_ARG);
    wf_free(&alloc, rgb);
    return 0;
}
