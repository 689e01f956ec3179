#include "suite.h"

#include <langinfo.h>
#include <locale.h>
#include <wchar.h>

int main(void)
{
    wchar_t wide[8];
    about("locale, set before the fork");
    check(setlocale(LC_ALL, "C.UTF-8") != NULL);
    locale_t other = newlocale(LC_NUMERIC_MASK, "C", 0);
    uselocale(other);
    prepare_here();
    check(uselocale(0) == other);
    uselocale(LC_GLOBAL_LOCALE);
    check(strcmp(nl_langinfo(CODESET), "UTF-8") == 0);
    check(mbstowcs(wide, "\xc3\xa4\xe2\x82\xac", 8) == 2 && wide[0] == 0xe4 && wide[1] == 0x20ac);
    return carried();
}
