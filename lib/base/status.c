/* status.c - the one line that says why.
 *
 * An error's text often carries bytes from a file that somebody else made: a tensor's name, a path,
 * a parser's quotation. So every line is washed on its way out: control characters become spaces,
 * bytes that are not UTF-8 become question marks, and the cut at the end never splits a character.
 * A binding may hand the text to a strict decoder or a log as it is. */
#include <errno.h>
#include <stdio.h>

#include "base/base.h"

#define LINE_BYTES 2048  /* more than any text keeps: what is cut is cut after washing */

/* ---- lines ----------------------------------------------------------------------------------- */

static bool breaks_line(uint32_t code)
{
    return code < 0x20 || (code >= 0x7f && code < 0xa0) || code == 0x2028 || code == 0x2029;
}

void wf_wash(char *dst, size_t cap, const char *src)
{
    size_t n = strlen(src), used = 0;

    while (n > 0) {
        uint32_t code = 0;
        size_t   step = wf_utf8_next(src, n, &code);
        bool     bad  = step == 0;

        if (bad) step = 1;
        if (used + step >= cap) break;
        if (bad)                    dst[used++] = '?';
        else if (breaks_line(code)) dst[used++] = ' ';
        else                        { memcpy(dst + used, src, step); used += step; }
        src += step;
        n   -= step;
    }
    dst[used] = '\0';
}

static void fill_error(weft_error *err, weft_status code, int sys, const char *line)
{
    err->code = code;
    err->sys  = sys;
    wf_wash(err->text, sizeof err->text, line);
}

weft_status wf_fail(weft_error *err, weft_status code, const char *format, ...)
{
    char    line[LINE_BYTES];
    va_list args;

    if (err == NULL) return code;
    va_start(args, format);
    if (vsnprintf(line, sizeof line, format, args) < 0) line[0] = '\0';
    va_end(args);
    fill_error(err, code, 0, line);
    return code;
}

weft_status wf_fail_sys(weft_error *err, int sys, const char *format, ...)
{
    char    line[LINE_BYTES], reason[128];
    va_list args;
    size_t  n;

    if (err == NULL) return WEFT_E_IO;
    va_start(args, format);
    if (vsnprintf(line, sizeof line - sizeof reason - 2, format, args) < 0) line[0] = '\0';
    va_end(args);

    if (strerror_r(sys, reason, sizeof reason) != 0)
        if (!wf_format(reason, sizeof reason, "error %d", sys)) reason[0] = '\0';
    n = strlen(line);
    memcpy(line + n, ": ", 2);
    memcpy(line + n + 2, reason, strlen(reason) + 1);
    fill_error(err, WEFT_E_IO, sys, line);
    return WEFT_E_IO;
}

void wf_log(weft_log_fn log, void *user, int32_t level, const char *format, ...)
{
    char    line[LINE_BYTES], clean[LINE_BYTES];
    va_list args;

    if (log == NULL) return;
    va_start(args, format);
    if (vsnprintf(line, sizeof line, format, args) < 0) line[0] = '\0';
    va_end(args);
    wf_wash(clean, sizeof clean, line);
    log(user, level, clean);
}

const char *weft_status_name(weft_status status)
{
    switch (status) {
    case WEFT_OK:            return "WEFT_OK";
    case WEFT_E_ARG:         return "WEFT_E_ARG";
    case WEFT_E_NOMEM:       return "WEFT_E_NOMEM";
    case WEFT_E_IO:          return "WEFT_E_IO";
    case WEFT_E_FORMAT:      return "WEFT_E_FORMAT";
    case WEFT_E_MISMATCH:    return "WEFT_E_MISMATCH";
    case WEFT_E_UNSUPPORTED: return "WEFT_E_UNSUPPORTED";
    case WEFT_E_STATE:       return "WEFT_E_STATE";
    case WEFT_E_CANCELLED:   return "WEFT_E_CANCELLED";
    case WEFT_E_INTERNAL:    return "WEFT_E_INTERNAL";
    case WEFT_E_NOT_FINITE:  return "WEFT_E_NOT_FINITE";
    default:                 return "WEFT_E_UNKNOWN";
    }
}
