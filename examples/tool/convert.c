/* convert.c - write files for other tools: an adapter in another dialect, a merged model. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "tool.h"

int convert(settings *s)
{
    weft_save_options o = WEFT_SAVE_OPTIONS_INIT;
    weft_model_info info = WEFT_MODEL_INFO_INIT;
    weft_adapter *adapter;

    if (s->against == NULL) misuse("for which model? --model MODEL");
    if (s->output == NULL) misuse("where to? --output FILE");
    check_writable(s->output, s->dialect == WEFT_DIALECT_PEFT ? NULL : ".safetensors");
    weft_model *model = open_model(s->against, s, &info);
    s->opening.flags |= how_to_open(s, s->target);
    must(weft_adapter_open(s->target, &s->opening, &adapter, &err));
    o.dialect = s->dialect;
    o.flags = (s->flags & HALF) != 0 ? WEFT_SAVE_HALF : 0;
    must(weft_adapter_save(adapter, model, s->output, &o, &err));
    if (!(s->flags & QUIET)) fprintf(stderr, "weft: wrote %s\n", s->output);
    weft_adapter_free(adapter);
    weft_model_free(model);
    return 0;
}

int merge_model(settings *s)
{
    weft_model_info info = WEFT_MODEL_INFO_INIT;
    meter m = { .shown = !(s->flags & QUIET) && isatty(STDERR_FILENO) };

    if (s->adapter_count == 0) misuse("merge what? --adapter FILE[:WEIGHT]");
    if (s->output == NULL) misuse("where to? --output PATH");
    check_writable(s->output, is_folder(s->target) ? NULL : ".safetensors");
    s->plan.text = WEFT_TEXT_ALL;
    weft_model *model = open_model(s->target, s, &info);
    weft_plan *plan = make_plan(model, s, 1, &m);
    must(weft_plan_save_model(plan, s->output, &err));
    if (!(s->flags & QUIET)) fprintf(stderr, "weft: wrote %s\n", s->output);
    weft_plan_free(plan);
    weft_model_free(model);
    return 0;
}
