/* fuzz_checkpoint.c - any bytes as the checkpoint of a training of 24 numbers: it is refused in one line, or all of
 * it is there. */
#include "fuzz.h"
#include "train/trainer_internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const pairs[] = { "weft.checkpoint", "1", "recipe", "lora", "rate", "0.01" };
    const wf_checkpoint_want want = { 24, { true, true, true, false }, pairs, 3 };
    const weft_allocator heap = wf_allocator(NULL);
    const wf_tensor     *vector[WF_CHECKPOINT_VECTORS];
    weft_tensors        *t = NULL;
    int64_t              step = -1;
    weft_error           err;

    weft_status st = wf_tensors_parse(data, size, "fuzz", &heap, &t, &err);
    if (st == WEFT_OK) {
        st = wf_checkpoint_read(t, &want, vector, &step, &err);
        for (int i = 0; st == WEFT_OK && i < WF_CHECKPOINT_VECTORS; i++) {
            must((vector[i] != NULL) == want.has[i]);
            for (size_t k = 0; vector[i] != NULL && k < want.floats; k++) {
                float x;
                memcpy(&x, vector[i]->data + k * sizeof x, sizeof x);
                must(x - x == 0);
            }
        }
        must(st != WEFT_OK || step >= 0);
    }
    must(st == WEFT_OK || one_line(err.text));
    weft_tensors_free(t);
    return 0;
}
