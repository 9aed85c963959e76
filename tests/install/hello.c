/* hello.c - the least that a program can do with an installed weft: be the version it was built for, and be
 * refused politely. */
#include <stdio.h>
#include <string.h>
#include <weft/weft.h>

int main(void)
{
    weft_model *model = NULL;
    weft_error err = {0, 0, ""};

    if (weft_version() != WEFT_VERSION) return puts("hello: header and library differ in version"), 1;
    if (weft_model_open("/nowhere/at/all", NULL, &model, &err) != WEFT_E_IO || model != NULL)
        return printf("hello: a missing folder opened: %s\n", err.text), 1;
    if (strstr(err.text, "/nowhere/at/all") == NULL) return printf("hello: which folder? %s\n", err.text), 1;
    return 0;
}
