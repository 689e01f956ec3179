/*
 * A carrier: the RC QP of an initiator that READs of one DCT go by.
 *
 *   CONNECTING --TCP stream is there, hello sent--> ASKING --answer--> READY
 *
 * It is kept for the next READ of the same target and key until the target's side closes.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "dc.h"

/* A kernel that lives takes or refuses a connection at once, however busy its processes are: this is
 * how long a dead host takes to be noticed at the first contact, where the retry time is shorter. */
#define CONNECT_LIMIT_NS INT64_C(1000000000)
/* A process that has taken one may have to wait for its CPU, in an emulator for long. */
#define ANSWER_LIMIT_NS INT64_C(10000000000)
/* Of one DCI. A card has one connection; here a connection costs a round trip of processes. */
#define CARRIERS_MAX 256
/* Soft-RoCE takes 7 for infinite; the time is the provider's own all the same. */
#define RETRIES_MAX 6

struct dc_carrier *dc_carrier_of(const struct dc_context *context, uint32_t qp_num)
{
	struct dc_qp *qp;

	for (qp = dc_first_qp(); qp; qp = qp->next) {
		struct dc_carrier *carrier;

		if (qp->context != context)
			continue;
		for (carrier = qp->carriers; carrier; carrier = carrier->next)
			if (carrier->qp->qp_num == qp_num)
				return carrier;
	}
	return NULL;
}

bool dc_carrier_leads_to(const struct dc_carrier *carrier, const struct dc_read *read)
{
	return !memcmp(&carrier->way.grh.dgid, &read->way.grh.dgid, 16) &&
	       carrier->way.grh.sgid_index == read->way.grh.sgid_index &&
	       carrier->dctn == read->dctn && carrier->key == read->key;
}

static void end_longest_unused(struct dc_qp *dci)
{
	struct dc_carrier *carrier, *oldest = NULL;
	unsigned count = 0;

	for (carrier = dci->carriers; carrier; carrier = carrier->next, count++)
		if (carrier != carrier->stream->carrier &&
		    (!oldest || carrier->used < oldest->used))
			oldest = carrier;
	if (count >= CARRIERS_MAX && oldest)
		dc_carrier_end(oldest);
}

static int begin_join(struct dc_carrier *carrier)
{
	struct sockaddr_storage address;
	uint8_t own[16];
	unsigned interface, bytes;
	int fd;

	if (dc_own_gid(carrier->dci->context->verbs, carrier->dci->port,
		       carrier->way.grh.sgid_index, own, &interface))
		return -1;
	bytes = dc_address(carrier->way.grh.dgid.raw, carrier->dctn, interface, &address);
	fd = socket(address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -1;
	if (connect(fd, (struct sockaddr *)&address, bytes) && errno != EINPROGRESS) {
		close(fd);
		return -1;
	}
	carrier->watch = dc_watch(fd, EPOLLOUT, DC_WATCH_CARRIER, carrier);
	if (!carrier->watch) {
		close(fd);
		return -1;
	}
	carrier->join_by = dc_now_ns() + CONNECT_LIMIT_NS;
	dc_engine_wake();
	return 0;
}

static struct dc_carrier *new_carrier(struct dc_qp *dci, struct dc_stream *stream,
				      const struct dc_read *read)
{
	const struct ibv_qp_cap cap = {
		.max_send_wr = DC_WINDOW,
		.max_send_sge = dci->cap.max_send_sge ? dci->cap.max_send_sge : 1,
	};
	struct dc_carrier *carrier;

	end_longest_unused(dci);
	carrier = calloc(1, sizeof(*carrier));
	if (!carrier)
		return NULL;
	carrier->dci = dci;
	carrier->stream = stream;
	carrier->way = read->way;
	carrier->dctn = read->dctn;
	carrier->key = read->key;
	carrier->state = DC_CONNECTING;
	carrier->psn = (dci->sq_psn + (uint32_t)read->sequence * 4096) & 0xffffff;
	carrier->qp = dc_rc_qp(dci->ex.qp_base.pd, dci->context->cq, NULL, &cap);
	if (carrier->qp && !begin_join(carrier)) {
		carrier->next = dci->carriers;
		dci->carriers = carrier;
		return carrier;
	}
	if (carrier->qp)
		dc_real()->destroy_qp(carrier->qp);
	free(carrier);
	return NULL;
}

struct dc_carrier *dc_carrier_for(struct dc_qp *dci, struct dc_stream *stream,
				  const struct dc_read *read)
{
	struct dc_carrier *carrier = dci->carriers, *next;

	for (; carrier; carrier = next) {
		next = carrier->next;
		if (carrier->stream != stream || !dc_carrier_leads_to(carrier, read))
			continue;
		if (!carrier->lost)
			return carrier;
		dc_carrier_end(carrier);
	}
	return new_carrier(dci, stream, read);
}

void dc_carrier_end(struct dc_carrier *carrier)
{
	struct dc_carrier **at = &carrier->dci->carriers;

	while (*at != carrier)
		at = &(*at)->next;
	*at = carrier->next;
	if (carrier->stream->carrier == carrier)
		carrier->stream->carrier = NULL;
	dc_unwatch(carrier->watch);
	dc_real()->destroy_qp(carrier->qp);
	free(carrier);
}

int dc_carrier_post(struct dc_carrier *carrier, const struct dc_read *first, unsigned count)
{
	struct ibv_send_wr wr[DC_WINDOW], *bad;
	const struct dc_read *read = first;
	unsigned at;

	for (at = 0; at < count; at++, read = read->next) {
		wr[at] = (struct ibv_send_wr){
			.wr_id = read->sequence,
			.next = at + 1 < count ? &wr[at + 1] : NULL,
			.sg_list = (struct ibv_sge *)read->sge,
			.num_sge = (int)read->sges,
			.opcode = IBV_WR_RDMA_READ,
			.send_flags = IBV_SEND_SIGNALED,
			.wr.rdma = { .remote_addr = read->remote, .rkey = read->rkey },
		};
		carrier->used = read->sequence;
	}
	return ibv_post_send(carrier->qp, wr, &bad);
}

static int say_hello(struct dc_carrier *carrier)
{
	struct dc_qp *dci = carrier->dci;
	struct dc_hello hello = {
		.magic = DC_MAGIC,
		.dctn = carrier->dctn,
		.key = carrier->key,
		.qp_num = carrier->qp->qp_num,
		.psn = carrier->psn,
		.path_mtu = dci->path_mtu,
		.rd_atomic = dci->max_rd_atomic,
	};
	unsigned interface;

	if (dc_own_gid(dci->context->verbs, dci->port, carrier->way.grh.sgid_index, hello.gid,
		       &interface))
		return -1;
	return send(dc_watch_fd(carrier->watch), &hello, sizeof(hello), MSG_NOSIGNAL) ==
			       sizeof(hello) ?
		       0 :
		       -1;
}

/* RESET to RTS, towards the QP that the target's side has made. */
static int connect_qp(struct dc_carrier *carrier, const struct dc_answer *answer)
{
	const struct dc_qp *dci = carrier->dci;
	struct ibv_qp_attr attr = { .qp_state = IBV_QPS_INIT, .port_num = dci->port };
	int (*modify)(struct ibv_qp *, struct ibv_qp_attr *, int) = dc_real()->modify_qp;

	if (modify(carrier->qp, &attr,
		   IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS))
		return -1;
	attr.qp_state = IBV_QPS_RTR;
	attr.path_mtu = dci->path_mtu;
	attr.dest_qp_num = answer->qp_num;
	attr.rq_psn = answer->psn;
	attr.max_dest_rd_atomic = 0;
	attr.min_rnr_timer = 12;
	attr.ah_attr = carrier->way;
	attr.ah_attr.is_global = 1;
	attr.ah_attr.port_num = dci->port;
	if (modify(carrier->qp, &attr,
		   IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
			   IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER))
		return -1;
	attr.qp_state = IBV_QPS_RTS;
	attr.timeout = dci->timeout;
	attr.retry_cnt = dci->retry_cnt < RETRIES_MAX ? dci->retry_cnt : RETRIES_MAX;
	attr.rnr_retry = 0;
	attr.sq_psn = carrier->psn;
	attr.max_rd_atomic = dci->max_rd_atomic ? dci->max_rd_atomic : 1;
	return modify(carrier->qp, &attr,
		      IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY |
			      IBV_QP_SQ_PSN | IBV_QP_MAX_QP_RD_ATOMIC);
}

static void join_fails(struct dc_carrier *carrier, enum ibv_wc_status status)
{
	dc_stream_fails(carrier->dci, carrier->stream, status);
	dc_carrier_end(carrier);
}

static void connected(struct dc_carrier *carrier)
{
	int error = 0;
	socklen_t bytes = sizeof(error);

	getsockopt(dc_watch_fd(carrier->watch), SOL_SOCKET, SO_ERROR, &error, &bytes);
	if (error || say_hello(carrier)) {
		join_fails(carrier, IBV_WC_RETRY_EXC_ERR);
		return;
	}
	carrier->state = DC_ASKING;
	carrier->join_by = dc_now_ns() + ANSWER_LIMIT_NS;
	dc_rewatch(carrier->watch, EPOLLIN);
}

static void answered(struct dc_carrier *carrier)
{
	struct dc_answer answer;

	memcpy(&answer, carrier->answer, sizeof(answer));
	if (answer.magic != DC_MAGIC || answer.verdict == DC_NO_TARGET ||
	    answer.verdict == DC_NO_QP) {
		join_fails(carrier, IBV_WC_RETRY_EXC_ERR);
	} else if (answer.verdict == DC_WRONG_KEY) {
		join_fails(carrier, dc_settings()->wrong_key);
	} else if (connect_qp(carrier, &answer)) {
		join_fails(carrier, IBV_WC_LOC_QP_OP_ERR);
	} else {
		carrier->state = DC_READY;
		dc_pump_all(carrier->dci);
	}
}

void dc_carrier_ready(struct dc_carrier *carrier, unsigned events)
{
	ssize_t bytes;

	if (carrier->state == DC_CONNECTING) {
		connected(carrier);
		return;
	}
	(void)events;
	if (carrier->state == DC_READY) {
		/* The target's side says nothing more: this is its end. */
		carrier->lost = true;
		dc_rewatch(carrier->watch, 0);
		if (!carrier->stream->issued || carrier->stream->carrier != carrier)
			dc_carrier_end(carrier);
		return;
	}
	bytes = recv(dc_watch_fd(carrier->watch), carrier->answer + carrier->heard,
		     sizeof(carrier->answer) - carrier->heard, 0);
	if (bytes < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (bytes <= 0) {
		join_fails(carrier, IBV_WC_RETRY_EXC_ERR);
		return;
	}
	carrier->heard += (unsigned)bytes;
	if (carrier->heard == sizeof(carrier->answer))
		answered(carrier);
}
