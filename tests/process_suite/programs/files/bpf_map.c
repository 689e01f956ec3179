#include "suite.h"

#include <linux/bpf.h>

int main(void)
{
    union bpf_attr wanted = {
        .map_type = BPF_MAP_TYPE_ARRAY,
        .key_size = 4,
        .value_size = 8,
        .max_entries = 1,
    };
    about("a map of bpf(2)");
    int fd = (int)syscall(SYS_bpf, BPF_MAP_CREATE, &wanted, sizeof wanted);
    if (fd < 0)
        return absent("this process may make none");
    prepare_here_with_files();
    if (suite.way == PLAIN) {
        check(fcntl(fd, F_GETFD) != -1);
        return carried();
    }
    mitosis_loss loss = {.size = sizeof loss};
    bool is_told = false;
    for (size_t at = 0; mitosis_lost(at, &loss) == MITOSIS_OK; at++)
        is_told |= loss.kind == MITOSIS_LOSS_DEVICES && loss.fd == fd;
    check(is_told && is_closed(fd));
    return is_new();
}
