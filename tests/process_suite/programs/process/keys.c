#include "suite.h"

#include <linux/keyctl.h>

int main(void)
{
    about("keys of the process and its session (keyrings(7))");
    if (syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL) == -1)
        return absent("this process may have no keys");
    long key = syscall(SYS_add_key, "user", "suite", "text", 4, KEY_SPEC_SESSION_KEYRING);
    check(key > 0);
    prepare_here();
    char text[8] = {0};
    if (suite.way == PLAIN) {
        check(syscall(SYS_keyctl, KEYCTL_READ, key, text, 8) == 4 && strcmp(text, "text") == 0);
        return carried();
    }
    check(syscall(SYS_keyctl, KEYCTL_SEARCH, KEY_SPEC_SESSION_KEYRING, "user", "suite", 0) == -1);
    return is_new();
}
