/* conflicts.c - how adapters get in each other's way, before anything is drawn: as text, as numbers,
 * as an image. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../draw/draw.h"
#include "tool.h"

static void print_string(const char *s)
{
    putchar('"');
    for (; *s; s++) {
        if (*s == '"' || *s == '\\') printf("\\%c", *s);
        else if ((unsigned char)*s < 32) printf("\\u%04x", (unsigned)(unsigned char)*s);
        else putchar(*s);
    }
    putchar('"');
}

static void print_numbers(double first, double second, double cosine, double clash, double overlap, double chance)
{
    printf("\"norms\": [%.9g, %.9g], \"cosine\": %.9g, \"clash\": %.9g", first, second, cosine, clash);
    if (overlap < 0) printf(", \"overlap\": null");
    else printf(", \"overlap\": %.9g, \"chance\": %.9g", overlap, chance);
}

static void print_blocks(const weft_conflicts *c)
{
    static const char *const verdicts[] = { "none", "first drowns", "second drowns", "against", "same", "shared" };

    printf(" \"blocks\": [");
    for (size_t i = 0; i < weft_conflicts_blocks(c); i++) {
        weft_conflict_block b = WEFT_CONFLICT_BLOCK_INIT;
        must(weft_conflicts_block(c, i, &b, &err));
        char *words = zeroed(strlen(b.words) + 1, 1);
        printf("%s\n  {\"pair\": [%d, %d], \"block\": ", i ? "," : "", (int)b.first, (int)b.second);
        print_string(b.name);
        printf(", \"layers\": %d, \"alone\": [%d, %d], ", (int)b.layers, (int)b.first_alone, (int)b.second_alone);
        print_numbers(b.first_norm, b.second_norm, b.cosine, b.clash, b.overlap, b.chance);
        printf(", \"verdict\": \"%s\", \"words\": ", verdicts[b.verdict]);
        print_string(in_tool_words(strcpy(words, b.words)));
        putchar('}');
        free(words);
    }
    printf("],\n");
}

static void print_json(const weft_conflicts *c, const weft_model *model, const weft_plan *plan)
{
    weft_plan_info info = WEFT_PLAN_INFO_INIT;

    must(weft_plan_info_get(plan, &info, &err));
    printf("{\"adapters\": [");
    for (int32_t a = 0; a < info.adapters; a++) {
        weft_plan_adapter_info one = WEFT_PLAN_ADAPTER_INFO_INIT;
        must(weft_plan_adapter(plan, a, &one, &err));
        printf("%s{\"name\": ", a ? ", " : "");
        print_string(one.name);
        printf(", \"role\": ");
        print_string(one.part);
        printf(", \"weight\": %.9g, \"balance\": %.9g}", (double)one.weight, one.balance);
    }
    printf("],\n");
    print_blocks(c);
    printf(" \"layers\": [");
    for (size_t i = 0; i < weft_conflicts_count(c); i++) {
        weft_conflict one = WEFT_CONFLICT_INIT;
        weft_layer_info layer = WEFT_LAYER_INFO_INIT;
        must(weft_conflicts_get(c, i, &one, &err));
        must(weft_model_layer(model, one.layer, &layer, &err));
        printf("%s\n  {\"pair\": [%d, %d], \"layer\": ", i ? "," : "", (int)one.first, (int)one.second);
        print_string(layer.name);
        printf(", ");
        print_numbers(one.first_norm, one.second_norm, one.cosine, one.clash, one.overlap, one.chance);
        putchar('}');
    }
    printf("]}\n");
}

static void print_text(const weft_conflicts *c)
{
    size_t needed;

    must(weft_conflicts_text(c, NULL, 0, &needed, &err));
    char *text = zeroed(needed, 1);
    must(weft_conflicts_text(c, text, needed, NULL, &err));
    fputs(in_tool_words(text), stdout);
    free(text);
}

int conflicts(settings *s)
{
    weft_model_info info = WEFT_MODEL_INFO_INIT;
    meter m = { .shown = !(s->flags & QUIET) && isatty(STDERR_FILENO) };
    weft_conflicts *c;

    if (s->adapter_count < 2 && s->plan_file == NULL) misuse("between which? two --adapter FILE[:WEIGHT] at least");
    check_writable(s->output, ".png");
    check_writable(s->save_plan, ".json");
    weft_model *model = open_model(s->target, s, &info);
    weft_plan *plan = make_plan(model, s, 1, &m);
    must(weft_conflicts_create(plan, &c, &err));
    clear_progress();
    if (s->flags & JSON) print_json(c, model, plan);
    else print_text(c);
    if (s->output) {
        must(draw_conflicts(c, plan, model, s->output, &err));
        if (!(s->flags & QUIET)) fprintf(stderr, "weft: wrote %s\n", s->output);
    }
    weft_conflicts_free(c);
    weft_plan_free(plan);
    weft_model_free(model);
    return 0;
}
