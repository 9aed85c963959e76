/* A safetensors file of any bytes, read as a file is whose kind its first bytes tell. */
#include "tensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    return read_all(data, size, wf_tensors_parse);
}
