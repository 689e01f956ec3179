/*
 * A DCT that is in RTR listens; each initiator's DCI that READs of it has a session: a TCP stream, and
 * an RC QP in the DCT's protection domain with the DCT's rights. So what is registered elsewhere, or not
 * for it, is refused by Soft-RoCE itself; and a DCT that is destroyed takes its sessions with it, after
 * which nobody answers.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "dc.h"

/* DCIs that may ask at one time. */
#define BACKLOG 128

int dc_target_listen(struct dc_qp *dct)
{
	struct sockaddr_storage address;
	unsigned interface, bytes;
	const int on = 1;
	uint8_t gid[16];
	int fd, error;

	if (dc_own_gid(dct->context->verbs, dct->port, dct->sgid_index, gid, &interface))
		return EINVAL;
	bytes = dc_address(gid, dct->anchor->qp_num, interface, &address);
	fd = socket(address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return errno;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (!bind(fd, (struct sockaddr *)&address, bytes) && !listen(fd, BACKLOG)) {
		dct->listener = dc_watch(fd, EPOLLIN, DC_WATCH_LISTENER, dct);
		if (dct->listener)
			return 0;
	}
	error = errno;
	close(fd);
	return error;
}

void dc_target_end(struct dc_qp *dct)
{
	dc_unwatch(dct->listener);
	dct->listener = 0;
	while (dct->sessions)
		dc_session_end(dct->sessions);
}

void dc_session_end(struct dc_session *session)
{
	struct dc_session **at = &session->dct->sessions;

	while (*at != session)
		at = &(*at)->next;
	*at = session->next;
	if (session->qp)
		dc_real()->destroy_qp(session->qp);
	dc_unwatch(session->watch);
	free(session);
}

void dc_listener_ready(struct dc_qp *dct, int listener)
{
	int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	struct dc_session *session;

	if (fd < 0)
		return;
	session = calloc(1, sizeof(*session));
	if (session) {
		session->dct = dct;
		session->watch = dc_watch(fd, EPOLLIN, DC_WATCH_SESSION, session);
	}
	if (!session || !session->watch) {
		free(session);
		close(fd);
		return;
	}
	session->next = dct->sessions;
	dct->sessions = session;
}

/* RESET to RTR, towards the initiator's carrier. */
static int connect_qp(struct dc_session *session, const struct dc_hello *hello)
{
	const struct dc_qp *dct = session->dct;
	int (*modify)(struct ibv_qp *, struct ibv_qp_attr *, int) = dc_real()->modify_qp;
	struct ibv_qp_attr attr = {
		.qp_state = IBV_QPS_INIT,
		.port_num = dct->port,
		.qp_access_flags = dct->access,
	};

	if (modify(session->qp, &attr,
		   IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS))
		return -1;
	attr.qp_state = IBV_QPS_RTR;
	attr.path_mtu = hello->path_mtu < dct->path_mtu ? hello->path_mtu : dct->path_mtu;
	attr.dest_qp_num = hello->qp_num;
	attr.rq_psn = hello->psn;
	attr.max_dest_rd_atomic = hello->rd_atomic ? hello->rd_atomic : 1;
	attr.min_rnr_timer = 12;
	attr.ah_attr.is_global = 1;
	attr.ah_attr.port_num = dct->port;
	memcpy(&attr.ah_attr.grh.dgid, hello->gid, 16);
	attr.ah_attr.grh.sgid_index = dct->sgid_index;
	attr.ah_attr.grh.hop_limit = dct->hop_limit ? dct->hop_limit : 64;
	return modify(session->qp, &attr,
		      IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
			      IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER);
}

static enum dc_verdict join(struct dc_session *session, const struct dc_hello *hello)
{
	const struct ibv_qp_cap cap = { .max_send_wr = 1, .max_send_sge = 1 };
	struct dc_qp *dct = session->dct;

	if (hello->dctn != dct->anchor->qp_num)
		return DC_NO_TARGET;
	if (hello->key != dct->key)
		return DC_WRONG_KEY;
	session->qp = dc_rc_qp(dct->ex.qp_base.pd, dct->context->cq, NULL, &cap);
	if (!session->qp || connect_qp(session, hello))
		return DC_NO_QP;
	return DC_JOINED;
}

void dc_session_ready(struct dc_session *session, unsigned events)
{
	struct dc_hello hello;
	struct dc_answer answer = { .magic = DC_MAGIC };
	ssize_t bytes;

	(void)events;
	bytes = recv(dc_watch_fd(session->watch), session->hello + session->heard,
		     sizeof(hello) - session->heard, 0);
	if (bytes < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (bytes <= 0 || session->qp) {
		dc_session_end(session);
		return;
	}
	session->heard += (unsigned)bytes;
	if (session->heard < sizeof(hello))
		return;
	memcpy(&hello, session->hello, sizeof(hello));
	session->heard = 0;
	answer.verdict = hello.magic == DC_MAGIC ? join(session, &hello) : DC_NO_TARGET;
	if (answer.verdict == DC_JOINED) {
		answer.qp_num = session->qp->qp_num;
		answer.psn = hello.psn;
	}
	if (send(dc_watch_fd(session->watch), &answer, sizeof(answer), MSG_NOSIGNAL) !=
		    sizeof(answer) ||
	    answer.verdict != DC_JOINED)
		dc_session_end(session);
}
