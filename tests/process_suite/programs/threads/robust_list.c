#include "suite.h"

#include <linux/futex.h>

int main(void)
{
    struct robust_list_head *before = NULL, *now = NULL;
    size_t size = 0;
    about("the robust list's head (set_robust_list(2))");
    check(syscall(SYS_get_robust_list, 0, &before, &size) == 0 && before != NULL);
    prepare_here();
    check(syscall(SYS_get_robust_list, 0, &now, &size) == 0 && now == before &&
        size == sizeof *now);
    return carried();
}
