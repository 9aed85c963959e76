/* inspect.c - what a file or a folder holds, and what to do with it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tool.h"

typedef struct tag { char name[80]; double count; } tag;

/* The captions that a kohya file was trained on: {"folder": {"tag": count, ...}, ...}. Gathers the most
 * frequent ones; a scan for "name": number is all the JSON this needs, and rubbish yields no tags. */
static size_t frequent_tags(const char *json, tag *tags, size_t cap)
{
    size_t count = 0;
    for (const char *c = json; (c = strchr(c, '"')) != NULL; ) {
        tag t = { "", 0 };
        size_t n = 0;
        for (c++; *c && *c != '"'; c++) {
            if (*c == '\\' && c[1]) c++;
            if (n + 1 < sizeof t.name) t.name[n++] = *c;
        }
        if (*c == '\0') break;
        c++;
        const char *after = c + strspn(c, " \t");
        if (*after != ':') continue;
        char *end;
        t.count = strtod(after + 1, &end);
        if (end == after + 1 || !(t.count > 0)) continue;      /* a folder's name, before its brace */
        c = end;
        size_t at = count < cap ? count : cap;
        while (at > 0 && tags[at - 1].count < t.count) at--;
        if (at == cap) continue;
        size_t kept = count < cap ? count++ : cap - 1;
        memmove(tags + at + 1, tags + at, (kept - at) * sizeof *tags);
        tags[at] = t;
    }
    return count;
}

static void print_triggers(const weft_adapter *adapter)
{
    static const char *const keys[] = { "modelspec.trigger_phrase", "modelspec.usage_hint", "ss_trigger_words",
                                        "trigger_words", "trigger", "instance_prompt" };
    const char *frequency = weft_adapter_metadata(adapter, "ss_tag_frequency");
    tag tags[8];
    int found = 0;

    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        const char *value = weft_adapter_metadata(adapter, keys[i]);
        if (value && *value) printf("  trigger   %s  (%s)\n", value, keys[i]), found = 1;
    }
    size_t count = frequency ? frequent_tags(frequency, tags, sizeof tags / sizeof tags[0]) : 0;
    for (size_t i = 0; i < count; i++)
        printf("%s%s (%.0f)", i ? ", " : "  trained on  ", tags[i].name, tags[i].count);
    if (count) putchar('\n');
    if (!found && !count) printf("  trigger   the file does not say\n");
}

static void print_modules(const weft_adapter *adapter, int32_t modules)
{
    for (int32_t i = 0; i < modules; i++) {
        weft_module_info m = WEFT_MODULE_INFO_INIT;
        must(weft_adapter_module(adapter, (size_t)i, &m, &err));
        printf("  %s: rank %d, %s %g, (%" PRId64 ", %" PRId64, m.name, (int)m.rank,
               m.has_alpha ? "alpha" : "no alpha: scale", (double)(m.has_alpha ? m.alpha : m.scale), m.out, m.in);
        if (m.kernel > 1) printf(", %d, %d", (int)m.kernel, (int)m.kernel);
        printf(")\n");
    }
}

/* Whether everything in the adapter fits; what does not is listed with its reason. */
static int print_report(weft_adapter *adapter, settings *s)
{
    weft_model_info info = WEFT_MODEL_INFO_INIT;
    weft_model *model = open_model(s->against, s, &info);
    weft_report *report;

    must(weft_report_create(model, adapter, &report, &err));
    printf("  against %s (%s): %s\n", s->against, info.family_name, weft_report_line(report));
    for (size_t i = 0; i < weft_report_count(report); i++) {
        static const char *const states[] = { "?", "matched", "unmatched", "misshapen", "ignored" };
        weft_report_row row = WEFT_REPORT_ROW_INIT;
        must(weft_report_get(report, i, &row, &err));
        if (row.state == WEFT_KEY_MATCHED) continue;
        printf("    %s: %s: %s\n", states[row.state > 0 && row.state < 5 ? row.state : 0], row.key, row.reason);
    }
    int fits = weft_report_tally(report, WEFT_KEY_MATCHED) > 0 &&
               weft_report_tally(report, WEFT_KEY_UNMATCHED) + weft_report_tally(report, WEFT_KEY_MISSHAPEN) == 0;
    weft_report_free(report);
    weft_model_free(model);
    return fits;
}

static int inspect_adapter(settings *s)
{
    weft_adapter *adapter;
    weft_adapter_info info = WEFT_ADAPTER_INFO_INIT;

    must(weft_adapter_open(s->target, NULL, &adapter, &err));
    must(weft_adapter_info_get(adapter, &info, &err));
    printf("%s\n", s->target);
    printf("  adapter   %s, dialect %s\n", info.family, info.dialect);
    if (*info.kind) printf("  kind      %s\n", info.kind);
    printf("  base      %s\n", info.base ? info.base_name : "unknown: its shapes are of no published model");
    printf("  modules   %d: %d in the UNet, %d in text encoders; %d are convolutions\n", (int)info.modules,
           (int)info.unet_modules, (int)info.text_modules, (int)info.conv_modules);
    if (info.norm_modules) printf("  norms     %d of them\n", (int)info.norm_modules);
    if (info.words) printf("  words     %d embeddings beside them: give the file as a concept too\n", (int)info.words);
    if (info.rank_max == 0) printf("  rank      none\n");
    else if (info.rank_min == info.rank_max) printf("  rank      %d\n", (int)info.rank_min);
    else printf("  rank      %d to %d\n", (int)info.rank_min, (int)info.rank_max);
    printf("  size      ");
    print_bytes((double)info.bytes);
    printf(", %" PRId64 " parameters\n", info.parameters);
    print_triggers(adapter);
    if (s->flags & KEYS) print_modules(adapter, info.modules);
    int fits = s->against ? print_report(adapter, s) : 1;
    weft_adapter_free(adapter);
    return fits ? 0 : 1;
}

static int inspect_model(settings *s)
{
    static const char *const predictions[] = { "the noise", "v", "the picture" };
    weft_model_info info = WEFT_MODEL_INFO_INIT;

    if (s->against) misuse("--model is for looking at an adapter, and %s is a model", s->target);
    weft_model *model = open_model(s->target, s, &info);
    int32_t side = info.latent_size * info.image_factor;
    printf("%s\n  model     %s, diffusers folder\n  size      ", s->target, info.family_name);
    print_bytes((double)info.bytes);
    printf(", %" PRId64 " parameters\n", info.parameters);
    printf("  pictures  %dx%d, from %d latent channels of %dx%d\n", (int)side, (int)side, (int)info.latent_channels,
           (int)info.latent_size, (int)info.latent_size);
    printf("  text      %d encoder%s, chunks of %d tokens, width %d\n", (int)info.text_encoders,
           info.text_encoders == 1 ? "" : "s", (int)info.text_tokens, (int)info.text_dim);
    printf("  predicts  %s\n", info.prediction >= 0 && info.prediction < 3 ? predictions[info.prediction] : "?");
    printf("  parts     %s, %s\n", info.has_tokenizer ? "a tokenizer" : "no tokenizer", info.has_vae ? "a VAE" : "no VAE");
    printf("  layers    %" PRId64 " that adapters can address\n", info.layers);
    for (int64_t i = 0; (s->flags & KEYS) && i < info.layers; i++) {
        weft_layer_info layer = WEFT_LAYER_INFO_INIT;
        must(weft_model_layer(model, i, &layer, &err));
        printf("  %s: (%d, %d", layer.name, (int)layer.out, (int)layer.in);
        if (layer.kernel > 1) printf(", %d, %d", (int)layer.kernel, (int)layer.kernel);
        printf(")\n");
    }
    weft_model_free(model);
    return 0;
}

static int has_file(const char *folder, const char *name)
{
    size_t size = strlen(folder) + strlen(name) + 2;
    char *path = room(size, 1);
    snprintf(path, size, "%s/%s", folder, name);
    int found = access(path, F_OK) == 0;
    free(path);
    return found;
}

int inspect(settings *s)
{
    int is_model = has_file(s->target, "model_index.json") || has_file(s->target, "unet/config.json");
    return is_model ? inspect_model(s) : inspect_adapter(s);
}
