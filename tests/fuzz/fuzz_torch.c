/* A file of torch.save of any bytes, zip or legacy. */
#include "tensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    return read_all(data, size, wf_torch_parse);
}
