/* C.UTF-8 is built into glibc: no file of the other host is needed. */
#include "suite.h"

#include <locale.h>
#include <wchar.h>

int main(void)
{
    about("a locale that is set after the fork");
    prepare_here();
    check(setlocale(LC_CTYPE, "C.UTF-8") != NULL || setlocale(LC_CTYPE, "C") != NULL);
    return carried();
}
