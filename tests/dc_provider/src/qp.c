/*
 * DCTs and DCIs as objects: how they are made, and which state may follow which.
 *
 *   DCT   RESET -> INIT -> RTR                 the number is valid from RTR on
 *   DCI   RESET -> INIT -> RTR -> RTS          any -> RESET, any but RESET -> ERR
 *
 * What is asked at creation is what libmlx5's create_qp and create_dct ask (providers/mlx5/verbs.c), and
 * of the kernel what mlx5_ib_create_qp does; attribute masks are those of mlx5_ib_modify_dct and
 * modify_dci_qp_is_ok (drivers/infiniband/hw/mlx5/qp.c), each bit.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "dc.h"

pthread_mutex_t dc_lock = PTHREAD_MUTEX_INITIALIZER;

static struct dc_qp *qps;

struct dc_qp *dc_qp_of(const struct ibv_qp *qp)
{
	struct dc_qp *ours = qps;

	while (ours && &ours->ex.qp_base != qp)
		ours = ours->next;
	return ours;
}

struct dc_qp *dc_first_qp(void)
{
	return qps;
}

struct mlx5dv_qp_ex *dc_qp_ex(struct ibv_qp_ex *qp)
{
	struct dc_qp *ours;

	pthread_mutex_lock(&dc_lock);
	ours = dc_qp_of(&qp->qp_base);
	pthread_mutex_unlock(&dc_lock);
	return ours ? &ours->dv : NULL;
}

struct ibv_qp *dc_rc_qp(struct ibv_pd *pd, struct ibv_cq *cq, struct ibv_srq *srq,
			const struct ibv_qp_cap *cap)
{
	struct ibv_qp_init_attr attr = {
		.send_cq = cq,
		.recv_cq = cq,
		.srq = srq,
		.cap = *cap,
		.qp_type = IBV_QPT_RC,
	};

	return ibv_create_qp(pd, &attr);
}

/* --- making --- */

static int check_dct(const struct ibv_qp_init_attr_ex *attr, const struct mlx5dv_qp_init_attr *dv)
{
	const struct ibv_qp_cap none = {};

	/* libmlx5: create_qp, create_dct. */
	if (attr->comp_mask & IBV_QP_INIT_ATTR_SEND_OPS_FLAGS)
		return EINVAL;
	if (attr->comp_mask & ~(uint32_t)IBV_QP_INIT_ATTR_PD)
		return EINVAL;
	if (dv->comp_mask & ~(uint64_t)(MLX5DV_QP_INIT_ATTR_MASK_DC |
					MLX5DV_QP_INIT_ATTR_MASK_QP_CREATE_FLAGS))
		return EINVAL;
	if (dv->comp_mask & MLX5DV_QP_INIT_ATTR_MASK_QP_CREATE_FLAGS &&
	    dv->create_flags & ~(uint32_t)(MLX5DV_QP_CREATE_DISABLE_SCATTER_TO_CQE |
					   MLX5DV_QP_CREATE_ALLOW_SCATTER_TO_CQE))
		return EINVAL;
	/* The kernel: a DCT receives by an SRQ, into a CQ. */
	if (!attr->srq || !attr->recv_cq)
		return EINVAL;
	/* It sends nothing and receives by the SRQ. What is refused here a card may take. */
	if (memcmp(&attr->cap, &none, sizeof(none)))
		return EINVAL;
	return 0;
}

static int check_dci(const struct ibv_qp_init_attr_ex *attr, const struct mlx5dv_qp_init_attr *dv)
{
	const struct dc_settings *settings = dc_settings();
	const struct mlx5dv_dci_streams *streams = &dv->dc_init_attr.dci_streams;

	if (attr->comp_mask &
	    ~(uint32_t)(IBV_QP_INIT_ATTR_PD | IBV_QP_INIT_ATTR_SEND_OPS_FLAGS))
		return EINVAL;
	if (dv->comp_mask & ~(uint64_t)(MLX5DV_QP_INIT_ATTR_MASK_DC |
					MLX5DV_QP_INIT_ATTR_MASK_QP_CREATE_FLAGS |
					MLX5DV_QP_INIT_ATTR_MASK_DCI_STREAMS))
		return EINVAL;
	if (dv->comp_mask & MLX5DV_QP_INIT_ATTR_MASK_DCI_STREAMS &&
	    (streams->log_num_concurent > settings->log_streams ||
	     streams->log_num_errored > settings->log_errored))
		return EINVAL;
	/* The kernel: a DCI has no receive queue. */
	if (attr->cap.max_recv_wr || attr->cap.max_recv_sge)
		return EINVAL;
	if (!attr->send_cq)
		return EINVAL;
	/* What this provider has; a card does more. */
	if (!(attr->comp_mask & IBV_QP_INIT_ATTR_SEND_OPS_FLAGS) ||
	    attr->send_ops_flags & ~(uint64_t)IBV_QP_EX_WITH_RDMA_READ)
		return EOPNOTSUPP;
	if (!attr->cap.max_send_wr || attr->cap.max_send_sge > DC_SGE_MAX ||
	    attr->cap.max_inline_data)
		return EINVAL;
	return settings->initiators ? 0 : ENOMEM;
}

static int check_creation(const struct ibv_qp_init_attr_ex *attr,
			  const struct mlx5dv_qp_init_attr *dv)
{
	if (attr->qp_type != IBV_QPT_DRIVER)
		return EOPNOTSUPP;
	if (!dv || !(dv->comp_mask & MLX5DV_QP_INIT_ATTR_MASK_DC))
		return EINVAL;
	if (!(attr->comp_mask & IBV_QP_INIT_ATTR_PD) || !attr->pd)
		return EINVAL;
	switch (dv->dc_init_attr.dc_type) {
	case MLX5DV_DCTYPE_DCT:
		return check_dct(attr, dv);
	case MLX5DV_DCTYPE_DCI:
		return check_dci(attr, dv);
	default:
		return EINVAL;
	}
}

/* The carriers' CQ of a device, with the engine looking at it. */
static int carriers_cq(struct dc_context *context)
{
	/* As many as Soft-RoCE has; the engine empties it as it fills. */
	const int entries = 16383;

	if (context->cq)
		return 0;
	if (dc_engine_start())
		return errno;
	context->channel = ibv_create_comp_channel(context->verbs);
	if (!context->channel)
		return errno;
	context->cq = ibv_create_cq(context->verbs, entries, NULL, context->channel, 0);
	if (!context->cq)
		goto no_cq;
	context->watch = dc_watch(context->channel->fd, 1, DC_WATCH_CQ, context);
	if (context->watch && !ibv_req_notify_cq(context->cq, 0))
		return 0;
	dc_unwatch(context->watch);
	dc_real()->destroy_cq(context->cq);
	context->cq = NULL;
no_cq:
	ibv_destroy_comp_channel(context->channel);
	return errno ? errno : EIO;
}

/* A QP in ERR: what is posted on it completes at once, with a status that nobody sees. */
static int make_herald(struct ibv_qp *qp)
{
	struct ibv_qp_attr attr = { .qp_state = IBV_QPS_INIT, .port_num = 1 };
	int result;

	result = dc_real()->modify_qp(qp, &attr,
				      IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT |
					      IBV_QP_ACCESS_FLAGS);
	if (result)
		return result;
	attr.qp_state = IBV_QPS_ERR;
	return dc_real()->modify_qp(qp, &attr, IBV_QP_STATE);
}

static int make_initiator(struct dc_qp *qp, const struct ibv_qp_init_attr_ex *attr,
			  const struct mlx5dv_qp_init_attr *dv)
{
	const struct ibv_qp_cap herald = { .max_send_wr = attr->cap.max_send_wr, .max_send_sge = 1 };
	unsigned at;

	qp->kind = DC_INITIATOR;
	qp->stream_count = 1;
	if (dv->comp_mask & MLX5DV_QP_INIT_ATTR_MASK_DCI_STREAMS) {
		qp->stream_count = 1u << dv->dc_init_attr.dci_streams.log_num_concurent;
		qp->log_errored = dv->dc_init_attr.dci_streams.log_num_errored;
	}
	qp->streams = calloc(qp->stream_count, sizeof(*qp->streams));
	if (!qp->streams)
		return ENOMEM;
	for (at = 0; at < qp->stream_count; at++) {
		qp->streams[at].end = &qp->streams[at].first;
		qp->streams[at].fails_at = DC_NEVER;
	}
	pthread_mutex_init(&qp->post_lock, NULL);
	qp->news_end = &qp->news;
	qp->sq_sig_all = attr->sq_sig_all;
	dc_fill_setters(qp);
	qp->anchor = dc_rc_qp(attr->pd, attr->send_cq, NULL, &herald);
	if (!qp->anchor)
		return errno;
	qp->ex.qp_base.qp_num = qp->anchor->qp_num;
	return make_herald(qp->anchor);
}

static int make_target(struct dc_qp *qp, const struct ibv_qp_init_attr_ex *attr,
		       const struct mlx5dv_qp_init_attr *dv)
{
	const struct ibv_qp_cap anchor = { .max_send_wr = 1, .max_send_sge = 1 };

	qp->kind = DC_TARGET;
	qp->key = dv->dc_init_attr.dct_access_key;
	qp->anchor = dc_rc_qp(attr->pd, attr->recv_cq, attr->srq, &anchor);
	return qp->anchor ? 0 : errno;
}

struct ibv_qp *dc_create_qp(struct ibv_context *verbs, struct ibv_qp_init_attr_ex *attr,
			    struct mlx5dv_qp_init_attr *dv)
{
	struct dc_qp *qp = NULL;
	struct dc_context *context;
	int error = check_creation(attr, dv);

	if (error)
		goto refused;
	pthread_mutex_lock(&dc_lock);
	context = dc_context_of(verbs);
	error = context ? carriers_cq(context) : ENODEV;
	qp = error ? NULL : calloc(1, sizeof(*qp));
	if (!qp) {
		error = error ? error : ENOMEM;
		goto unlock;
	}
	qp->context = context;
	qp->cap = attr->cap;
	qp->ex.qp_base.context = verbs;
	qp->ex.qp_base.qp_context = attr->qp_context;
	qp->ex.qp_base.pd = attr->pd;
	qp->ex.qp_base.send_cq = attr->send_cq;
	qp->ex.qp_base.recv_cq = attr->recv_cq;
	qp->ex.qp_base.srq = attr->srq;
	qp->ex.qp_base.qp_type = IBV_QPT_DRIVER;
	error = dv->dc_init_attr.dc_type == MLX5DV_DCTYPE_DCT ? make_target(qp, attr, dv) :
								make_initiator(qp, attr, dv);
	if (!error) {
		qp->next = qps;
		qps = qp;
	} else {
		if (qp->anchor)
			dc_real()->destroy_qp(qp->anchor);
		free(qp->streams);
		free(qp);
	}
unlock:
	pthread_mutex_unlock(&dc_lock);
	if (!error)
		return &qp->ex.qp_base;
refused:
	errno = error;
	return NULL;
}

int dc_destroy_qp(struct dc_qp *qp)
{
	struct dc_qp **at = &qps;

	if (qp->kind == DC_TARGET) {
		dc_target_end(qp);
	} else {
		dc_forget_reads(qp);
		while (qp->carriers)
			dc_carrier_end(qp->carriers);
	}
	dc_real()->destroy_qp(qp->anchor);
	if (qp->kind == DC_INITIATOR)
		dc_tokens_dead(qp);
	while (*at != qp)
		at = &(*at)->next;
	*at = qp->next;
	free(qp->streams);
	free(qp);
	return 0;
}

/* --- states --- */

struct way {
	enum dc_kind kind;
	enum ibv_qp_state from, to;
	int needs, may;
};

#define ANY_STATE IBV_QPS_UNKNOWN
static const struct way ways[] = {
	{ DC_TARGET, IBV_QPS_RESET, IBV_QPS_INIT,
	  IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS, 0 },
	{ DC_TARGET, IBV_QPS_INIT, IBV_QPS_RTR,
	  IBV_QP_STATE | IBV_QP_MIN_RNR_TIMER | IBV_QP_AV | IBV_QP_PATH_MTU, 0 },

	{ DC_INITIATOR, IBV_QPS_RESET, IBV_QPS_INIT,
	  IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT, 0 },
	{ DC_INITIATOR, IBV_QPS_INIT, IBV_QPS_INIT, IBV_QP_STATE,
	  IBV_QP_PKEY_INDEX | IBV_QP_PORT },
	{ DC_INITIATOR, IBV_QPS_INIT, IBV_QPS_RTR, IBV_QP_STATE | IBV_QP_PATH_MTU,
	  IBV_QP_PKEY_INDEX | IBV_QP_AV },
	{ DC_INITIATOR, IBV_QPS_RTR, IBV_QPS_RTS,
	  IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY |
		  IBV_QP_MAX_QP_RD_ATOMIC | IBV_QP_SQ_PSN,
	  IBV_QP_MIN_RNR_TIMER },
	{ DC_INITIATOR, IBV_QPS_RTS, IBV_QPS_RTS, IBV_QP_STATE, IBV_QP_MIN_RNR_TIMER },
	{ DC_INITIATOR, ANY_STATE, IBV_QPS_RESET, IBV_QP_STATE, 0 },
	/* Before it, none: a DCI in RESET cannot fail. */
	{ DC_INITIATOR, ANY_STATE, IBV_QPS_ERR, IBV_QP_STATE, 0 },
};

static bool is_a_way(const struct dc_qp *qp, const struct ibv_qp_attr *attr, int mask)
{
	size_t at;

	if (!(mask & IBV_QP_STATE))
		return false;
	for (at = 0; at < DC_COUNT(ways); at++) {
		const struct way *way = &ways[at];

		if (way->kind != qp->kind || way->to != attr->qp_state ||
		    (way->from != ANY_STATE && way->from != qp->state))
			continue;
		if (way->to == IBV_QPS_ERR && qp->state == IBV_QPS_RESET)
			return false;
		return (mask & way->needs) == way->needs && !(mask & ~(way->needs | way->may));
	}
	return false;
}

static int check_values(const struct dc_qp *qp, const struct ibv_qp_attr *attr, int mask)
{
	struct ibv_port_attr port;

	if (mask & IBV_QP_PORT && (ibv_query_port(qp->context->verbs, attr->port_num, &port) ||
				   attr->port_num == 0))
		return EINVAL;
	if (mask & IBV_QP_PKEY_INDEX && attr->pkey_index != 0)
		return EINVAL;
	if (mask & IBV_QP_PATH_MTU &&
	    (attr->path_mtu < IBV_MTU_256 || attr->path_mtu > IBV_MTU_4096))
		return EINVAL;
	if (mask & IBV_QP_AV) {
		uint8_t gid[16];
		unsigned interface;

		/* Always on RoCE: there is no other address. */
		if (!attr->ah_attr.is_global || attr->ah_attr.port_num != qp->port)
			return EINVAL;
		if (dc_own_gid(qp->context->verbs, qp->port, attr->ah_attr.grh.sgid_index, gid,
			       &interface))
			return EINVAL;
	}
	if (mask & IBV_QP_TIMEOUT && attr->timeout > 31)
		return EINVAL;
	if (mask & (IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY) &&
	    (attr->retry_cnt > 7 || attr->rnr_retry > 7))
		return EINVAL;
	if (mask & IBV_QP_MAX_QP_RD_ATOMIC && attr->max_rd_atomic > dc_settings()->rd_atomic)
		return EINVAL;
	return 0;
}

static bool same_values(const struct dc_qp *qp, const struct ibv_qp_attr *attr, int mask)
{
	return (!(mask & IBV_QP_PATH_MTU) || qp->path_mtu == attr->path_mtu) &&
	       (!(mask & IBV_QP_TIMEOUT) || qp->timeout == attr->timeout) &&
	       (!(mask & IBV_QP_RETRY_CNT) || qp->retry_cnt == attr->retry_cnt) &&
	       (!(mask & IBV_QP_MAX_QP_RD_ATOMIC) || qp->max_rd_atomic == attr->max_rd_atomic);
}

static void take_values(struct dc_qp *qp, const struct ibv_qp_attr *attr, int mask)
{
	if (mask & IBV_QP_PORT)
		qp->port = attr->port_num;
	if (mask & IBV_QP_ACCESS_FLAGS)
		qp->access = attr->qp_access_flags;
	if (mask & IBV_QP_PATH_MTU)
		qp->path_mtu = attr->path_mtu;
	if (mask & IBV_QP_AV) {
		qp->sgid_index = attr->ah_attr.grh.sgid_index;
		qp->hop_limit = attr->ah_attr.grh.hop_limit;
	}
	if (mask & IBV_QP_TIMEOUT)
		qp->timeout = attr->timeout;
	if (mask & IBV_QP_RETRY_CNT)
		qp->retry_cnt = attr->retry_cnt;
	if (mask & IBV_QP_MAX_QP_RD_ATOMIC)
		qp->max_rd_atomic = attr->max_rd_atomic;
	if (mask & IBV_QP_SQ_PSN)
		qp->sq_psn = attr->sq_psn;
}

int dc_modify_qp(struct dc_qp *qp, struct ibv_qp_attr *attr, int mask)
{
	int error = is_a_way(qp, attr, mask) ? check_values(qp, attr, mask) : EINVAL;

	if (error)
		return error;
	/* Carriers were made with what held then. */
	if (qp->kind == DC_INITIATOR && !same_values(qp, attr, mask))
		while (qp->carriers)
			dc_carrier_end(qp->carriers);
	take_values(qp, attr, mask);
	if (qp->kind == DC_TARGET && attr->qp_state == IBV_QPS_RTR) {
		error = dc_target_listen(qp);
		if (error)
			return error;
		qp->ex.qp_base.qp_num = qp->anchor->qp_num;
	}
	qp->state = attr->qp_state;
	if (qp->kind == DC_INITIATOR && qp->state == IBV_QPS_RESET) {
		dc_forget_reads(qp);
		dc_tokens_dead(qp);
		dc_tokens_purge(qp->ex.qp_base.send_cq);
	}
	if (qp->kind == DC_INITIATOR && qp->state == IBV_QPS_ERR) {
		dc_fail_now(qp);
		dc_tell(qp);
	}
	qp->ex.qp_base.state = qp->state;
	return 0;
}

int dc_query_qp(struct dc_qp *qp, struct ibv_qp_attr *attr, int mask,
		struct ibv_qp_init_attr *init)
{
	const int of_a_dct = IBV_QP_STATE | IBV_QP_ACCESS_FLAGS | IBV_QP_MIN_RNR_TIMER | IBV_QP_AV |
			     IBV_QP_PATH_MTU;

	/* The kernel's mlx5_ib_dct_query_qp: there is nothing to ask before RTR. */
	if (qp->kind == DC_TARGET && (mask & ~of_a_dct || qp->state != IBV_QPS_RTR))
		return EINVAL;
	memset(attr, 0, sizeof(*attr));
	memset(init, 0, sizeof(*init));
	attr->qp_state = attr->cur_qp_state = qp->ex.qp_base.state = qp->state;
	attr->path_mtu = qp->path_mtu;
	attr->port_num = attr->ah_attr.port_num = qp->port;
	attr->ah_attr.is_global = 1;
	attr->ah_attr.grh.sgid_index = qp->sgid_index;
	attr->qp_access_flags = qp->access;
	attr->timeout = qp->timeout;
	attr->retry_cnt = qp->retry_cnt;
	attr->max_rd_atomic = qp->max_rd_atomic;
	attr->cap = init->cap = qp->cap;
	init->qp_context = qp->ex.qp_base.qp_context;
	init->send_cq = qp->ex.qp_base.send_cq;
	init->recv_cq = qp->ex.qp_base.recv_cq;
	init->srq = qp->ex.qp_base.srq;
	init->qp_type = IBV_QPT_DRIVER;
	return 0;
}
