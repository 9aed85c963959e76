/* fuzz_pattern.c - any bytes as a pattern of PEFT's configurations, and as the path it is held against.
 *
 * The pattern ends at the first NUL or new line, the path at the next. Laws that hold whatever they say: what matches as a whole
 * matches loosely too, and behind a dot; two alternatives match what either does; whatever may be left out matches nothing. */
#include "adapter/adapter_internal.h"
#include "fuzz.h"

static bool hits(const char *format, const char *pattern, const char *path, bool loose, bool *known)
{
    char text[2100];
    must(wf_format(text, sizeof text, format, pattern, pattern));
    return wf_pattern_matches(text, path, loose, known);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char   pattern[1000], path[512], behind[520];
    size_t n = 0, m = 0;
    bool   known, again;

    for (; n < size && n + 1 < sizeof pattern && data[n] != 0 && data[n] != '\n'; n++) pattern[n] = (char)data[n];
    pattern[n] = '\0';
    for (size_t i = n + 1; i < size && m + 1 < sizeof path && data[i] != 0; i++) path[m++] = (char)data[i];
    path[m] = '\0';

    bool whole = wf_pattern_matches(pattern, path, false, &known), loose = wf_pattern_matches(pattern, path, true, &again);
    must(known == again && (known || !(whole || loose)) && (!whole || loose));
    must(wf_pattern_cost(pattern) >= 1);
    if (!known) return 0;
    must(wf_format(behind, sizeof behind, "x.%s", path));
    if (whole && strpbrk(pattern, "^\\") == NULL) must(wf_pattern_matches(pattern, behind, true, &known));
    bool both = hits("(?:%s)|(?:%s)", pattern, path, false, &known);
    must(!known || both == whole);
    bool none = hits("(%s){0}", pattern, "", false, &known);
    must(!known || none);
    return 0;
}
