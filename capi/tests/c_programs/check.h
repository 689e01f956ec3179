/* How these programs check themselves: the first check that fails ends the program. */
#ifndef CHECK_H
#define CHECK_H

#include <mitosis.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: %s; last error: %s\n", __FILE__, __LINE__, #condition,         \
                    mitosis_last_error_message());                                                 \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

/* Calls that must fail with a code and a message that holds a text. */
#define FAILS(call, code, text)                                                                    \
    do {                                                                                           \
        int returned = (call);                                                                     \
        if (returned != (code))                                                                    \
            fprintf(stderr, "%s returned %d\n", #call, returned);                                  \
        CHECK(returned == (code));                                                                 \
        CHECK(strstr(mitosis_last_error_message(), (text)) != NULL);                               \
    } while (0)

#endif
