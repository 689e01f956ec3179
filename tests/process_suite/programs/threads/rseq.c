/* Restartable sequences: glibc's area is registered, and the kernel writes the CPU into it. */
#include "suite.h"

#include <sched.h>
#include <sys/rseq.h>

int main(void)
{
    about("rseq registration");
    struct rseq *area = (struct rseq *)((char *)__builtin_thread_pointer() + __rseq_offset);
    bool has_it = __rseq_size > 0;
    prepare_here();
    if (has_it) {
        cpu_set_t all;
        check(sched_getaffinity(0, sizeof all, &all) == 0);
        check((int)area->cpu_id >= 0 && CPU_ISSET(area->cpu_id, &all));
        /* Registered once more, by others, is refused. */
        check(syscall(SYS_rseq, area, sizeof *area, 0, RSEQ_SIG) == -1 &&
            (errno == EBUSY || errno == EINVAL));
    }
    check(sched_getcpu() >= 0);
    return carried();
}
