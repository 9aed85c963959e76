/* format.c - names into fixed buffers, by the one formatting function that the library uses. */
#include <stdio.h>

#include "base/base.h"

bool wf_format(char *buf, size_t cap, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int n = vsnprintf(buf, cap, format, args);
    va_end(args);
    return n >= 0 && (size_t)n < cap;
}
