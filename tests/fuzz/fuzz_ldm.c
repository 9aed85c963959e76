/* fuzz_ldm.c - any bytes as the name of a tensor in a single file, and as the name of a module that is asked for.
 *
 * The first byte says how many layers a block has, and how many levels there are. */
#include "fuzz.h"
#include "model/ldm.h"

enum { MAX = 1200 };

/* Written within its bounds, whatever they are. */
static void check_bounds(const char *name, int32_t n)
{
    for (size_t cap = 1; cap < 40; cap++) {
        char buf[48];
        wf_ldm_op op;
        memset(buf, 'x', sizeof buf);
        (void)wf_ldm_unet(name, n, buf, cap);
        (void)wf_ldm_vae(name, n, buf, cap);
        (void)wf_ldm_openclip(name, buf, cap, &op);
        must(buf[cap] == 'x');
    }
}

/* The module that a name stands for has one name of its own, which stands for it too. */
static void check_unet(const char *name, int32_t n)
{
    static const char tail[] = ".weight";
    const wf_blocks shape = { .layers_per_block = n, .count = 16 };
    char ours[512], again[512 + sizeof tail], back[512];
    size_t len;

    if (!wf_ldm_unet(name, n, ours, sizeof ours)) return;
    len = strlen(ours);
    if (len < sizeof tail || strcmp(ours + len - (sizeof tail - 1), tail) != 0) return;
    ours[len - (sizeof tail - 1)] = 0;
    if (!wf_name_ldm(ours, &shape, again, 512)) return; /* a level that no UNet has */
    memcpy(again + strlen(again), tail, sizeof tail);
    must(wf_ldm_unet(again, n, back, sizeof back));
    must(strncmp(back, ours, strlen(ours)) == 0 && strcmp(back + strlen(ours), tail) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char name[MAX + 1], ours[512];
    wf_ldm_op op;

    if (size < 1 || size > MAX) return 0;
    int32_t n = 1 + data[0] % 16;
    memcpy(name, data + 1, size - 1);
    name[size - 1] = 0;
    check_bounds(name, n);
    check_unet(name, n);
    if (wf_ldm_openclip(name, ours, sizeof ours, &op) && op == WF_LDM_ROWS_OF_3) must(strchr(ours, '*') != NULL);
    must(wf_ldm_openclip_layer(name) >= -1);
    return 0;
}
