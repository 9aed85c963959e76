/* replay.c - a fuzz target without a fuzzer: feed it a folder of inputs, and what lies next to them.
 *
 * The stored corpus holds what was once worth finding. Around each small input stand its truncations
 * and a few thousand changes of a single byte, the same on every run: a cheap walk through the
 * neighbourhood where parsers usually fall. Each input lies in a block of exactly its size, so that
 * a sanitizer sees the first byte too far. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define SMALL     4096
#define MUTATIONS 3000

static unsigned long fed;

static void feed(const uint8_t *data, size_t size)
{
    uint8_t *exact = malloc(size + (size == 0));

    if (exact == NULL) exit(2);
    if (size > 0) memcpy(exact, data, size);
    LLVMFuzzerTestOneInput(exact, size);
    free(exact);
    fed++;
}

static void feed_neighbours(uint8_t *data, size_t size)
{
    uint32_t state = 12345;

    for (size_t n = 0; n < size; n++) feed(data, n);
    for (int i = 0; i < MUTATIONS && size > 0; i++) {
        size_t  at  = (size_t)i % size;
        uint8_t old = data[at];

        state = state * 1664525 + 1013904223;
        data[at] = (uint8_t)(i % 3 == 0 ? old ^ (1u << (state >> 29)) : state >> 24);
        feed(data, size);
        data[at] = old;
    }
}

static int feed_file(const char *path)
{
    FILE    *file = fopen(path, "rb");
    uint8_t *data = NULL;
    size_t   size = 0, cap = 0, got = 1;

    if (file == NULL) { perror(path); return 1; }
    while (got > 0) {
        if (size == cap) {
            cap  = cap * 2 + SMALL;
            data = realloc(data, cap);
            if (data == NULL) exit(2);
        }
        got   = fread(data + size, 1, cap - size, file);
        size += got;
    }
    fclose(file);
    feed(data, size);
    if (size < SMALL) feed_neighbours(data, size);
    free(data);
    return 0;
}

static int visible(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

int main(int argc, char **argv)
{
    struct dirent **entries;
    int             n, bad = 0;

    if (argc != 2) {
        fprintf(stderr, "usage: %s FOLDER\n", argv[0]);
        return 2;
    }
    n = scandir(argv[1], &entries, visible, alphasort);
    if (n < 0) { perror(argv[1]); return 2; }
    for (int i = 0; i < n; i++) {
        char path[4096];

        snprintf(path, sizeof path, "%s/%s", argv[1], entries[i]->d_name);
        bad |= feed_file(path);
        free(entries[i]);
    }
    free(entries);
    if (n == 0) fprintf(stderr, "%s is empty\n", argv[1]);
    printf("%lu inputs from %d files\n", fed, n);
    return bad || n == 0;
}
