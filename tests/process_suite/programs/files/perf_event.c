#include "suite.h"

#include <linux/perf_event.h>

int main(void)
{
    struct perf_event_attr wanted = {
        .type = PERF_TYPE_SOFTWARE,
        .size = sizeof wanted,
        .config = PERF_COUNT_SW_PAGE_FAULTS,
    };
    about("a counter of perf_event_open(2)");
    int fd = (int)syscall(SYS_perf_event_open, &wanted, 0, -1, -1, PERF_FLAG_FD_CLOEXEC);
    if (fd < 0)
        return absent("nothing is counted for this process here");
    prepare_here_with_files();
    if (suite.way == PLAIN) {
        uint64_t faults;
        check(read(fd, &faults, sizeof faults) == sizeof faults);
        return carried();
    }
    mitosis_loss loss = {.size = sizeof loss};
    bool is_told = false;
    for (size_t at = 0; mitosis_lost(at, &loss) == MITOSIS_OK; at++)
        is_told |= loss.kind == MITOSIS_LOSS_DEVICES && loss.fd == fd;
    check(is_told && is_closed(fd));
    return is_new();
}
