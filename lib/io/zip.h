/* zip.h (internal to io) - the members of a zip archive that stores them as they are. */
#ifndef WF_ZIP_H
#define WF_ZIP_H

#include "io/io.h"

typedef struct wf_zip_member {
    const char    *name;
    const uint8_t *data;  /* in the archive            */
    size_t         size;
    size_t         begin; /* of its header in the file */
} wf_zip_member;

typedef struct wf_zip {
    wf_zip_member *members; /* sorted by name */
    size_t         count;
} wf_zip;

/* Read the directory and check every member against it; names and list lie in `bag`, and also after
 * a failure are freed with it. Refuses what is compressed or encrypted (WEFT_E_UNSUPPORTED), and
 * whatever does not agree. */
weft_status wf_zip_read(wf_bag *bag, const uint8_t *data, size_t size, const char *what,
                        wf_zip *zip, weft_error *err);
const wf_zip_member *wf_zip_find(const wf_zip *zip, const char *name); /* NULL where absent */

#endif
