/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * check-json PATH [VALUE] <FILE: one JSON object on standard input, in which PATH
 * ("domains.0.name") is VALUE; prints what is there without VALUE. The status is 0 when it is so.
 */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static json_t *step(json_t *from, const char *key)
{
    return json_is_array(from) ? json_array_get(from, strtoul(key, NULL, 10))
                               : json_object_get(from, key);
}

int main(int argc, char **argv)
{
    json_error_t error;
    char text[64];
    if (argc < 2) {
        return 2;
    }
    json_t *at = json_loadf(stdin, JSON_REJECT_DUPLICATES, &error);
    if (at == NULL) {
        printf("line %d: %s\n", error.line, error.text);
        return 1;
    }
    for (char *key = strtok(argv[1], "."); key != NULL && at != NULL; key = strtok(NULL, ".")) {
        at = step(at, key);
    }
    const char *found = json_string_value(at);
    if (json_is_integer(at)) {
        snprintf(text, sizeof(text), "%" JSON_INTEGER_FORMAT, json_integer_value(at));
        found = text;
    } else if (json_is_real(at)) {
        snprintf(text, sizeof(text), "%f", json_real_value(at));
        found = text;
    } else if (found == NULL) {
        found = at == NULL          ? "missing"
                : json_is_true(at)  ? "true"
                : json_is_false(at) ? "false"
                                    : "";
    }
    if (argc < 3) {
        puts(found);
        return at == NULL;
    }
    if (at == NULL || strcmp(found, argv[2]) != 0) {
        printf("found \"%s\", not \"%s\"\n", found, argv[2]);
        return 1;
    }
    return 0;
}
