/* inspect.c - what a file or a folder holds, and what to do with it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tool.h"

typedef struct tag { char name[80]; double count; } tag;

/* The captions that a kohya file was trained on: {"folder": {"tag": count, ...}, ...}. Gathers the
 * most frequent ones; a scan for "name": number is all the JSON this needs, and rubbish yields no
 * tags. */
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
                                        "trigger_words", "trigger", "instance_prompt", "weft.trigger" };
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

/* "trained   by weft 0.2.0: lora, 400 steps of 8, rate 0.002, 64x64, seed 0, for SD1.x" */
static void print_training(const weft_adapter *adapter)
{
    static const struct { const char *before, *key; } parts[] = {
        { ": ", "weft.recipe" }, { ", ", "weft.steps" }, { " steps of ", "weft.batch" }, { ", rate ", "weft.rate" },
        { ", ", "weft.resolution" }, { ", seed ", "weft.seed" }, { ", for ", "weft.base" },
    };
    const char *version = weft_adapter_metadata(adapter, "weft.version");

    if (version == NULL || weft_adapter_metadata(adapter, "weft.recipe") == NULL) return;
    printf("  trained   by weft %s", version);
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        const char *value = weft_adapter_metadata(adapter, parts[i].key);
        if (value != NULL) printf("%s%s", parts[i].before, value);
    }
    putchar('\n');
}

/* ", rank 4, alpha 16 (metadata: lora_alpha), scale 4" */
static void print_scale(const weft_module_info *m)
{
    int own = m->alpha_source == WEFT_ALPHA_TENSOR || *m->alpha_key == '\0';   /* a tensor's name says no more */

    if (m->rank > 0) printf(", rank %d", (int)m->rank);
    if (m->alpha_source == WEFT_ALPHA_UNUSED) {
        printf(", scale %g (%s)", (double)m->scale, m->scale != 1 ? "the family's own"
               : m->has_alpha ? "its alpha is no part of it" : "the file has no alpha");
        return;
    }
    if (m->alpha_source == WEFT_ALPHA_UNSAID) printf(", alpha not said");
    else printf(", alpha %g (%s%s%s)%s", m->zero_alpha ? 0 : (double)m->alpha, weft_alpha_source_name(m->alpha_source),
                own ? "" : ": ", own ? "" : m->alpha_key, m->zero_alpha ? ", which is the rank" : "");
    printf(", scale %g", (double)m->scale);
}

/* Modules that are scaled alike, a line for each kind. */
static void print_groups(const weft_adapter *adapter)
{
    enum { MOST = 12 };
    size_t count = weft_adapter_group_count(adapter);

    for (size_t i = 0; i < count && i < MOST; i++) {
        weft_module_info m = WEFT_MODULE_INFO_INIT;
        size_t modules;
        must(weft_adapter_group(adapter, i, &m, &modules, &err));
        printf("  %-9s %zu module%s of %s", i ? "" : "scales", modules, modules == 1 ? "" : "s", m.family);
        print_scale(&m);
        putchar('\n');
    }
    if (count > MOST) printf("            and %zu groups more: --keys shows every module\n", count - MOST);
}

static void print_modules(const weft_adapter *adapter, int32_t modules)
{
    for (int32_t i = 0; i < modules; i++) {
        weft_module_info m = WEFT_MODULE_INFO_INIT;
        must(weft_adapter_module(adapter, (size_t)i, &m, &err));
        printf("  %s: %s", m.name, m.family);
        print_scale(&m);
        if (m.out > 0 && m.in > 0) printf(", (%" PRId64 ", %" PRId64, m.out, m.in);
        if (m.out > 0 && m.in > 0 && m.kernel > 1) printf(", %d, %d", (int)m.kernel, (int)m.kernel);
        printf("%s\n", m.out > 0 && m.in > 0 ? ")" : "");
    }
}

/* Whether everything in the adapter fits; what does not is listed with its reason. */
static int print_report(weft_adapter *adapter, settings *s)
{
    weft_model_info info = WEFT_MODEL_INFO_INIT;
    weft_model *model = open_model(s->against, s, &info);
    weft_report *report;

    must(weft_report_create(model, adapter, &report, &err));
    printf("  against %s (%s): %s\n", s->against, info.base_name, weft_report_line(report));
    for (size_t i = 0; i < weft_report_count(report); i++) {
        static const char *const states[] = { "?", "matched", "unmatched", "shape mismatch", "ignored" };
        weft_report_row row = WEFT_REPORT_ROW_INIT;
        must(weft_report_get(report, i, &row, &err));
        if (row.state == WEFT_KEY_MATCHED) continue;
        printf("    %s: %s: %s\n", states[row.state > 0 && row.state < 5 ? row.state : 0], row.key, row.reason);
    }
    int fits = weft_report_tally(report, WEFT_KEY_MATCHED) > 0 &&
               weft_report_tally(report, WEFT_KEY_UNMATCHED) + weft_report_tally(report, WEFT_KEY_SHAPE_MISMATCH) == 0;
    weft_report_free(report);
    weft_model_free(model);
    return fits;
}

/* What is warned of while the file is opened is part of what is said of it. */
static char   warnings[4][sizeof err.text];
static size_t warning_count;

static void keep_warning(void *user, int32_t level, const char *line)
{
    (void)user;
    if (level >= WEFT_LOG_WARN && warning_count < sizeof warnings / sizeof warnings[0])
        snprintf(warnings[warning_count++], sizeof warnings[0], "%s", line);
}

static int inspect_adapter(settings *s, weft_adapter *adapter)
{
    weft_adapter_info info = WEFT_ADAPTER_INFO_INIT;

    must(weft_adapter_info_get(adapter, &info, &err));
    printf("  adapter   %s, dialect %s%s%s\n", info.family, info.dialect, *info.kind ? ": " : "", info.kind);
    printf("  base      %s\n", info.base ? info.base_name : "unknown: its shapes are of no published model");
    printf("  modules   %d: %d in the UNet, %d in text encoders; %d are convolutions\n", (int)info.modules,
           (int)info.denoiser_modules, (int)info.text_modules, (int)info.conv_modules);
    if (info.norm_modules) printf("  norms     %d of the modules\n", (int)info.norm_modules);
    if (info.tokens)
        printf("  tokens    %d embedding%s beside them: give the file as a --concept\n", (int)info.tokens,
               info.tokens == 1 ? "" : "s");
    if (info.rank_max == 0) printf("  rank      none: it holds whole differences or factors of the weights\n");
    else if (info.rank_min == info.rank_max) printf("  rank      %d\n", (int)info.rank_min);
    else printf("  rank      %d to %d\n", (int)info.rank_min, (int)info.rank_max);
    print_groups(adapter);
    for (size_t i = 0; i < warning_count; i++) printf("  warning   %s\n", in_tool_words(warnings[i]));
    printf("  size      ");
    print_bytes((double)info.bytes);
    printf(", %" PRId64 " parameters\n", info.parameters);
    print_triggers(adapter);
    print_training(adapter);
    if (s->flags & KEYS) print_modules(adapter, info.modules);
    return s->against && !print_report(adapter, s);
}

static void print_tokens(const weft_concept *concept, const weft_concept_info *info)
{
    printf("  tokens    %s\n", info->format);
    for (int32_t i = 0; i < info->tokens; i++) {
        weft_token_info w = WEFT_TOKEN_INFO_INIT;
        must(weft_concept_token(concept, (size_t)i, &w, &err));
        printf("    %s%s%s: %d vector%s of width %d", w.token, w.also ? ", also written " : "", w.also ? w.also : "",
               (int)w.vectors, w.vectors == 1 ? "" : "s", (int)(w.width ? w.width : w.width_2));
        if (w.width && w.width_2) printf(" and %d", (int)w.width_2);
        if (w.layers) printf(", for each of %d cross-attention layers", (int)w.layers);
        printf("\n");
    }
    printf("  use       weft generate MODEL --concept %s\n", info->adapter ? "FILE[:WEIGHT]" : "FILE, and the token in the prompt");
}

static int inspect_model(settings *s)
{
    static const char *const predictions[] = { "the noise", "v", "the image" };
    weft_model_info info = WEFT_MODEL_INFO_INIT;
    weft_text_info text = WEFT_TEXT_INFO_INIT;

    if (s->against) misuse("--model is for looking at an adapter, and %s is a model", s->target);
    weft_model *model = open_model(s->target, s, &info);
    printf("%s\n", s->target);
    int32_t side = info.latent_size * info.image_factor;
    printf("  model     %s, %s\n  size      ", info.base_name, info.layout);
    print_bytes((double)info.bytes);
    printf(", %" PRId64 " parameters\n", info.parameters);
    printf("  images    %dx%d, from %d latent channels of %dx%d\n", (int)side, (int)side, (int)info.latent_channels,
           (int)info.latent_size, (int)info.latent_size);
    must(weft_model_text(model, 0, &text, &err));
    printf("  text      %d encoder%s, chunks of %d tokens, width %d\n", (int)info.text_encoders,
           info.text_encoders == 1 ? "" : "s", (int)text.tokens, (int)text.width);
    if (info.input_channels != info.latent_channels)
        printf("  reads     %d channels: %s\n", (int)info.input_channels,
               info.input_channels == 2 * info.latent_channels + 1 ? "latents, a mask and the image around it: inpainting"
                                                                  : "latents and another image's");
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
    char *path = zeroed(size, 1);
    snprintf(path, size, "%s/%s", folder, name);
    int found = access(path, F_OK) == 0;
    free(path);
    return found;
}

/* Is it an IP-Adapter? One that cannot be used ends the program with the reason. */
static int inspect_ip_adapter(const settings *s)
{
    static const char *const kinds[] = { "?", "base", "plus", "full" };
    weft_image_options how = WEFT_IMAGE_OPTIONS_INIT;
    weft_image_adapter_info i = WEFT_IMAGE_ADAPTER_INFO_INIT;
    weft_image_adapter *adapter;

    how.flags = how_to_open(s, s->target);
    weft_status st = weft_image_adapter_open(s->target, &how, &adapter, &err);
    if (st != WEFT_OK && strstr(err.text, "is not an IP-Adapter")) return 0;
    must(st);
    must(weft_image_adapter_info_get(adapter, &i, &err));
    printf("%s\n  kind      IP-Adapter, %s: give it with --ip-adapter\n", s->target, kinds[i.kind & 3]);
    printf("  reads     %s of %d from CLIP's image encoder\n", i.kind == WEFT_IMAGE_BASE ? "a vector" : "hidden states",
           (int)i.features);
    printf("  gives     %s%d rows of %d for each picture\n", i.kind == WEFT_IMAGE_FULL ? "at most " : "", (int)i.tokens,
           (int)i.width);
    printf("  model     with %d cross-attentions\n", (int)i.cross_layers);
    weft_image_adapter_free(adapter);
    return 1;
}

/* A file that is none of what weft knows: why not, and what is in it. */
static int inspect_tensors(const settings *s, char *no_adapter, char *no_tokens, char *no_model)
{
    weft_tensors_options how = WEFT_TENSORS_OPTIONS_INIT;
    const char *path = s->target;
    weft_tensors *file;

    how.flags = how_to_open(s, path);
    must(weft_tensors_open(path, &how, &file, &err));
    size_t count = weft_tensors_count(file);
    printf("%s\n  tensors   %zu, which weft has no use for:\n", path, count);
    if (strcmp(no_tokens, no_adapter) != 0) printf("    no tokens: %s\n", in_tool_words(no_tokens));
    printf("    not an adapter: %s\n", in_tool_words(no_adapter));
    printf("    not a model: %s\n", in_tool_words(no_model));
    for (size_t i = 0; i < count && i < 8; i++) {
        weft_tensor_info t = WEFT_TENSOR_INFO_INIT;
        must(weft_tensors_info(file, i, &t, &err));
        printf("  %s: %s (", t.name, t.dtype);
        for (size_t d = 0; d < t.rank; d++) printf("%s%" PRId64, d ? ", " : "", t.shape[d]);
        printf(")\n");
    }
    if (count > 8) printf("  ... and %zu more\n", count - 8);
    weft_tensors_free(file);
    return 1;
}

/* What a file is, the library knows that opens it: an adapter, tokens, both in one, or a model. */
int inspect(settings *s)
{
    weft_adapter *adapter = NULL;
    weft_concept *concept = NULL;
    weft_concept_info tokens = WEFT_CONCEPT_INFO_INIT;
    weft_model *model = NULL;
    weft_error why[3];
    int status = 0;

    if (has_file(s->target, "model_index.json") || has_file(s->target, "unet/config.json")) return inspect_model(s);
    weft_concept_options words = WEFT_CONCEPT_OPTIONS_INIT;
    s->opening.flags |= words.flags = how_to_open(s, s->target);
    s->open.flags |= words.flags;
    s->opening.log = keep_warning;
    weft_status no_adapter = weft_adapter_open(s->target, &s->opening, &adapter, &why[0]);
    if (no_adapter == WEFT_E_IO || is_folder(s->target)) {
        err = why[0];
        must(no_adapter);
    }
    weft_status no_tokens = weft_concept_open(s->target, &words, &concept, &why[1]);
    if (no_tokens == WEFT_OK) must(weft_concept_info_get(concept, &tokens, &err));
    if (adapter == NULL && concept == NULL) {
        if (strstr(why[0].text, "IP-Adapter") && inspect_ip_adapter(s)) return 0;
        if (strstr(why[0].text, "nothing says its")) fail("%s", in_tool_words(why[0].text));
        if (weft_model_open(s->target, &s->open, &model, &why[2]) != WEFT_OK)
            return inspect_tensors(s, why[0].text, why[1].text, why[2].text);
        weft_model_free(model);
        return inspect_model(s);
    }
    printf("%s\n", s->target);
    if (concept != NULL) print_tokens(concept, &tokens);
    if (adapter == NULL) adapter = weft_concept_adapter(concept);
    if (adapter != NULL) status = inspect_adapter(s, adapter);
    weft_adapter_free(adapter);
    weft_concept_free(concept);
    return status;
}
