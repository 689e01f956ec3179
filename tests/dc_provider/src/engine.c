/*
 * The provider's thread: waits for sockets, for the carriers' completions and for timers, and acts
 * under the lock. What it waits for is named by numbers that are used once, so that an event which was
 * under way when its owner ended finds nobody.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "dc.h"

#define COMPLETIONS_AT_A_TIME 32

struct watched {
	struct watched *next;
	uint64_t number;
	int fd;
	enum dc_watched what;
	void *owner;
};

static struct watched *all;
static uint64_t numbers;
static int epoll_fd = -1, wake_fd = -1;

int64_t dc_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

static struct watched *find(uint64_t number)
{
	struct watched *one = all;

	while (one && one->number != number)
		one = one->next;
	return one;
}

uint64_t dc_watch(int fd, unsigned events, enum dc_watched what, void *owner)
{
	struct watched *one = calloc(1, sizeof(*one));
	struct epoll_event event = { .events = events };

	if (!one)
		return 0;
	if (what == DC_WATCH_CQ)
		fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
	one->number = event.data.u64 = ++numbers;
	one->fd = fd;
	one->what = what;
	one->owner = owner;
	if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event)) {
		free(one);
		return 0;
	}
	one->next = all;
	all = one;
	return one->number;
}

void dc_rewatch(uint64_t number, unsigned events)
{
	struct watched *one = find(number);
	struct epoll_event event = { .events = events, .data.u64 = number };

	if (!one)
		return;
	/* The end of a stream is told unasked, again and again: so nothing is not waited for. */
	if (events)
		epoll_ctl(epoll_fd, EPOLL_CTL_MOD, one->fd, &event);
	else
		epoll_ctl(epoll_fd, EPOLL_CTL_DEL, one->fd, NULL);
}

int dc_watch_fd(uint64_t number)
{
	struct watched *one = find(number);

	return one ? one->fd : -1;
}

void dc_unwatch(uint64_t number)
{
	struct watched **at = &all, *one;

	while (*at && (*at)->number != number)
		at = &(*at)->next;
	one = *at;
	if (!one)
		return;
	*at = one->next;
	epoll_ctl(epoll_fd, EPOLL_CTL_DEL, one->fd, NULL);
	if (one->what != DC_WATCH_CQ)
		close(one->fd);
	free(one);
}

void dc_engine_wake(void)
{
	const uint64_t one = 1;

	if (write(wake_fd, &one, sizeof(one)) < 0 && errno != EAGAIN)
		abort();
}

static void take_completions(struct dc_context *context)
{
	struct ibv_wc wc[COMPLETIONS_AT_A_TIME];
	struct ibv_cq *cq;
	void *unused;
	int count, at;

	while (!ibv_get_cq_event(context->channel, &cq, &unused))
		ibv_ack_cq_events(cq, 1);
	if (ibv_req_notify_cq(context->cq, 0))
		abort();
	while ((count = context->poll_cq(context->cq, COMPLETIONS_AT_A_TIME, wc)) > 0)
		for (at = 0; at < count; at++)
			dc_carrier_completed(context, &wc[at]);
}

static void act(const struct epoll_event *event)
{
	struct watched *one = find(event->data.u64);

	if (!one)
		return;
	switch (one->what) {
	case DC_WATCH_CQ:
		take_completions(one->owner);
		break;
	case DC_WATCH_LISTENER:
		dc_listener_ready(one->owner, one->fd);
		break;
	case DC_WATCH_SESSION:
		dc_session_ready(one->owner, event->events);
		break;
	case DC_WATCH_CARRIER:
		dc_carrier_ready(one->owner, event->events);
		break;
	}
}

/* Rounded up: nothing fails before its time. */
static int until_ms(int64_t next)
{
	const int64_t per_ms = 1000000, longest_ms = 60000;
	int64_t left;

	if (next == DC_NEVER)
		return -1;
	left = next - dc_now_ns();
	if (left <= 0)
		return 0;
	return left / per_ms >= longest_ms ? (int)longest_ms : (int)(left / per_ms + 1);
}

static void *run(void *unused)
{
	int64_t next = DC_NEVER;

	(void)unused;
	for (;;) {
		struct epoll_event event;
		int count = epoll_wait(epoll_fd, &event, 1, until_ms(next));

		pthread_mutex_lock(&dc_lock);
		if (count == 1 && event.data.u64 == 0) {
			uint64_t times;

			if (read(wake_fd, &times, sizeof(times)) < 0 && errno != EAGAIN)
				abort();
		} else if (count == 1) {
			act(&event);
		}
		next = dc_timers(dc_now_ns());
		pthread_mutex_unlock(&dc_lock);
	}
	return NULL;
}

int dc_engine_start(void)
{
	struct epoll_event event = { .events = EPOLLIN };
	sigset_t everything, callers;
	pthread_t thread;
	int error;

	if (epoll_fd >= 0)
		return 0;
	wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (wake_fd < 0 || epoll_fd < 0 ||
	    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, wake_fd, &event))
		return -1;
	/* Signals are the program's: none is for this thread. */
	sigfillset(&everything);
	pthread_sigmask(SIG_BLOCK, &everything, &callers);
	error = pthread_create(&thread, NULL, run, NULL);
	pthread_sigmask(SIG_SETMASK, &callers, NULL);
	if (error) {
		close(epoll_fd);
		epoll_fd = -1;
		errno = error;
		return -1;
	}
	pthread_setname_np(thread, "dc-provider");
	pthread_detach(thread);
	return 0;
}
