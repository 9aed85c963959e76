/* merge.c - several adapters become one file of rank 32.
 *
 * Each adapter adds a matrix of low rank to each layer. Their weighted sum has a higher rank, and
 * its largest singular values hold most of it: the report says how much is lost, layer by layer.
 *
 *   cc merge.c $(pkg-config --cflags --libs weft) -o merge
 *   ./merge examples/model three.safetensors monster.safetensors 1 hatching.safetensors 0.7 */
#include <stdio.h>
#include <stdlib.h>
#include <weft/weft.h>

enum { RANK = 32, MOST = 16 };

static weft_error err;

static void must(weft_status st)
{
    if (st == WEFT_OK) return;
    fprintf(stderr, "merge: %s: %s\n", weft_status_name(st), err.text);
    exit(1);
}

int main(int argc, char **argv)
{
    int count = (argc - 3) / 2;
    if (argc < 5 || argc % 2 == 0 || count > MOST) {
        fprintf(stderr, "usage: merge MODEL OUT.safetensors ADAPTER WEIGHT [ADAPTER WEIGHT]...\n");
        return 2;
    }

    weft_model *model;
    must(weft_model_open(argv[1], NULL, &model, &err));
    weft_merge_source source[MOST];
    for (int i = 0; i < count; i++) {
        weft_merge_source_init(&source[i], sizeof source[i]);
        must(weft_adapter_open(argv[3 + 2 * i], NULL, &source[i].adapter, &err));
        source[i].weight = strtof(argv[4 + 2 * i], NULL);
    }

    weft_merge_options o = WEFT_MERGE_OPTIONS_INIT;
    o.kind = WEFT_MERGE_SUM;                 /* or _TIES with a density, _DARE with a seed, ... */
    o.rank = RANK;
    weft_adapter *merged;
    weft_merge_report *report;
    must(weft_adapter_merge(model, source, (size_t)count, &o, &merged, &report, &err));
    for (size_t i = 0; i < weft_merge_report_count(report); i++) {
        weft_merge_row row = WEFT_MERGE_ROW_INIT;
        must(weft_merge_report_get(report, i, &row, &err));
        printf("rank %2d, error %.4f  %s\n", (int)row.rank, row.error, row.layer);
    }
    must(weft_adapter_save(merged, model, argv[2], NULL, &err));

    for (int i = 0; i < count; i++) weft_adapter_free(source[i].adapter);
    weft_merge_report_free(report);
    weft_adapter_free(merged);
    weft_model_free(model);
    return 0;
}
