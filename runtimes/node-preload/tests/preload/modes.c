/* A program with a way of its own to treat signal 59, or of being busy; it says that it is ready. */
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

static volatile sig_atomic_t own;

static void on_signal(int signal)
{
	(void)signal;
	own = 1;
}

/* A filter that lets everything pass: that there is one is what counts. */
static void filter(void)
{
	struct sock_filter allow[] = { BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW) };
	struct sock_fprog program = { 1, allow };
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
		abort();
}

static void *churn(void *unused)
{
	void *kept[64] = { 0 };
	for (unsigned i = 0;; i++) {
		free(kept[i % 64]);
		kept[i % 64] = malloc(i % 3000 + 1);
		if (!kept[i % 64])
			abort();
	}
	return unused;
}

int main(int count, char **args)
{
	const char *mode = count > 1 ? args[1] : "";
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, 59);
	if (!strcmp(mode, "handler"))
		signal(59, on_signal);
	else if (!strcmp(mode, "default"))
		signal(59, SIG_DFL);
	else if (!strcmp(mode, "ignore"))
		signal(59, SIG_IGN);
	else if (!strcmp(mode, "block"))
		sigprocmask(SIG_BLOCK, &set, 0);
	else if (!strcmp(mode, "seccomp"))
		filter();
	else if (!strcmp(mode, "exec-under-seccomp")) {
		filter();
		execvp(args[2], args + 2);
		abort();
	}
	puts("ready");
	fflush(stdout);
	if (!strcmp(mode, "malloc")) {
		pthread_t thread;
		pthread_create(&thread, 0, churn, 0);
		/* Of the time: that both threads are alive and make progress, here and in children. */
		for (int i = 0;; i++) {
			void *block = malloc(i % 3000 + 1);
			if (!block)
				abort();
			free(block);
			if (i % 5000000 == 0)
				printf("still %d\n", i), fflush(stdout);
		}
	}
	for (int left = 60; left > 0; left--) {
		sleep(1);
		if (own)
			puts("own handler ran"), fflush(stdout), own = 0;
	}
	return 0;
}
