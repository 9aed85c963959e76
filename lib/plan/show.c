/* show.c - names and numbers for people: how texts and images of a plan call things. */
#include <math.h>

#include "plan/plan_internal.h"

const char *wf_letter(wf_letter_text *buf, int32_t adapter)
{
    if (adapter < 26) wf_format(buf->text, sizeof buf->text, "%c", 'A' + (int)adapter);
    else
        wf_format(buf->text, sizeof buf->text, "%c%d", 'A' + (int)(adapter % 26),
                  (int)(adapter / 26) % 100);
    return buf->text;
}

const char *wf_short_name(wf_short_text *buf, const char *layer)
{
    static const char *const words[][2] = {
        { "unet.", "" }, { "down_blocks.", "down." }, { "up_blocks.", "up." }, { "mid_block", "mid" },
        { "attentions.", "att." }, { "transformer_blocks.", "tf." }, { "resnets.", "res." },
    };
    size_t n = 0;

    for (const char *s = layer; *s != '\0' && n + 12 < sizeof buf->text; ) {
        size_t w = 0;
        while (w < WF_LEN(words) && strncmp(s, words[w][0], strlen(words[w][0])) != 0) w++;
        if (w == WF_LEN(words)) {
            buf->text[n++] = *s++;
        } else {
            memcpy(buf->text + n, words[w][1], strlen(words[w][1]));
            n += strlen(words[w][1]);
            s += strlen(words[w][0]);
        }
    }
    buf->text[n] = '\0';
    return buf->text;
}

const char *wf_block_name(wf_short_text *buf, const char *layer)
{
    wf_short_text name;
    const char   *s = wf_short_name(&name, layer);
    size_t        n = strcspn(s, ".");

    if (strncmp(s, "down.", 5) == 0 || strncmp(s, "up.", 3) == 0) n += 1 + strcspn(s + n + 1, ".");
    memcpy(buf->text, s, n);
    buf->text[n] = '\0';
    return buf->text;
}

const char *wf_fixed(wf_number_text *buf, double v, int32_t decimals)
{
    long long unit = 1, scaled;

    if (!isfinite(v) || fabs(v) > 1e11) {
        if (isinf(v)) wf_format(buf->text, sizeof buf->text, "%s", v > 0 ? "inf" : "-inf");
        else wf_number(buf, v);
        return buf->text;
    }
    for (int32_t i = 0; i < decimals; i++) unit *= 10;
    scaled = (long long)floor(fabs(v) * (double)unit + 0.5);
    if (decimals == 0) {
        wf_format(buf->text, sizeof buf->text, "%s%lld", v < 0 && scaled > 0 ? "-" : "", scaled);
    } else {
        wf_format(buf->text, sizeof buf->text, "%s%lld.%0*lld", v < 0 && scaled > 0 ? "-" : "",
                  scaled / unit, (int)decimals, scaled % unit);
    }
    return buf->text;
}

const char *wf_bytes_text(wf_number_text *buf, size_t bytes)
{
    static const char *const units[] = { "bytes", "kB", "MB", "GB" };
    wf_number_text number;
    double         v = (double)bytes;
    size_t         u = 0;

    while (v >= 1000 && u + 1 < WF_LEN(units)) {
        v /= 1000;
        u++;
    }
    wf_format(buf->text, sizeof buf->text, "%.16s %s", wf_fixed(&number, v, u == 0 ? 0 : 1),
              units[u]);
    return buf->text;
}
