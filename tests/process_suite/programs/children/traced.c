/* The child traces its own child: stops, registers, memory that is not there yet. */
#include "suite.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/user.h>

int main(void)
{
    int status = 0;
    struct user_regs_struct registers;
    about("ptrace(2) of own children");
    long *area = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    area[7] = 0x1234;
    prepare_here();
    pid_t pid = fork();
    if (pid == 0) {
        ptrace(PTRACE_TRACEME, 0, NULL, NULL);
        raise(SIGSTOP);
        _exit(area[7] == 0x4321 ? 0 : 9);
    }
    check(waitpid(pid, &status, 0) == pid && WIFSTOPPED(status));
    check(ptrace(PTRACE_GETREGS, pid, NULL, &registers) == 0 && registers.rip != 0);
    check(ptrace(PTRACE_PEEKDATA, pid, &area[7], NULL) == 0x1234);
    check(ptrace(PTRACE_POKEDATA, pid, &area[7], (void *)0x4321) == 0);
    check(ptrace(PTRACE_CONT, pid, NULL, NULL) == 0);
    check(waitpid(pid, &status, 0) == pid && status == 0);
    return carried();
}
