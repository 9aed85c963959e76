/* help.h - for the tests of this room and of the tokenizer: stored data, and an allocator that fails on demand. */
#ifndef TESTS_SAMPLER_HELP_H
#define TESTS_SAMPLER_HELP_H

#include <check.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "weft/base.h"

#define COUNT_OF(a) (sizeof(a) / sizeof *(a))

static inline const char *data_path(const char *name)
{
    static char path[1024];
    const char *tests = getenv("WEFT_TESTS");

    snprintf(path, sizeof path, "%s/data/%s", tests != NULL ? tests : "tests", name);
    return path;
}

static inline json_t *data_json(const char *name)
{
    json_error_t why;
    json_t      *j = json_load_file(data_path(name), 0, &why);

    ck_assert_msg(j != NULL, "%s: %s", data_path(name), why.text);
    return j;
}

static inline const char *text_of(const json_t *j, const char *key)
{
    return json_string_value(json_object_get(j, key));
}

static inline double number_of(const json_t *j, const char *key)
{
    return json_number_value(json_object_get(j, key));
}

/* Counts what is out, and fails from allocation `fail_at` on (0 is the first); -1 never fails. */
typedef struct counting {
    long fail_at;
    long made;
    long out;
} counting;

static inline void *counting_alloc(void *user, size_t size, size_t align)
{
    counting *c = user;
    void     *p = NULL;

    if (c->fail_at >= 0 && c->made >= c->fail_at) return NULL;
    c->made++;
    c->out++;
    return posix_memalign(&p, align < sizeof(void *) ? sizeof(void *) : align, size ? size : 1) == 0 ? p : NULL;
}

static inline void counting_free(void *user, void *p, size_t size)
{
    (void)size;
    if (p == NULL) return;
    ((counting *)user)->out--;
    free(p);
}

static inline weft_allocator counting_allocator(counting *c)
{
    return (weft_allocator){ counting_alloc, counting_free, c };
}

static inline int run_suite(Suite *suite)
{
    SRunner *sr = srunner_create(suite);
    int      failed;

    srunner_run_all(sr, CK_ENV);
    failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

#endif
