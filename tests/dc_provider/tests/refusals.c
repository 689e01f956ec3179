/*
 * What is refused: called as programs call rdma-core, by its own headers, so that it also runs against
 * the real libraries on a card. One machine; nothing is READ. Each case prints `ok NAME`.
 */
#include <errno.h>
#include <infiniband/mlx5dv.h>
#include <infiniband/verbs.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REQUIRE(condition)                                                                     \
	do {                                                                                   \
		if (!(condition)) {                                                            \
			fprintf(stderr, "%s:%d: not so: %s (errno %d)\n", __FILE__, __LINE__,  \
				#condition, errno);                                            \
			exit(1);                                                               \
		}                                                                              \
	} while (0)

static struct ibv_context *context;
static struct ibv_pd *pd;
static struct ibv_cq *cq;
static struct ibv_srq *srq;
static uint8_t sgid_index;
static union ibv_gid own;
static unsigned passed;

static void ok(const char *name)
{
	printf("ok %s\n", name);
	passed++;
}

/* --- what is right; each case changes one thing of it --- */

static struct ibv_qp_init_attr_ex dct_attr(void)
{
	return (struct ibv_qp_init_attr_ex){
		.qp_type = IBV_QPT_DRIVER,
		.pd = pd,
		.send_cq = cq,
		.recv_cq = cq,
		.srq = srq,
		.comp_mask = IBV_QP_INIT_ATTR_PD,
	};
}

static struct mlx5dv_qp_init_attr dct_dv(void)
{
	return (struct mlx5dv_qp_init_attr){
		.comp_mask = MLX5DV_QP_INIT_ATTR_MASK_DC,
		.dc_init_attr = { .dc_type = MLX5DV_DCTYPE_DCT,
				  .dct_access_key = UINT64_C(0x0123456789abcdef) },
	};
}

static struct ibv_qp_init_attr_ex dci_attr(void)
{
	return (struct ibv_qp_init_attr_ex){
		.qp_type = IBV_QPT_DRIVER,
		.pd = pd,
		.send_cq = cq,
		.recv_cq = cq,
		.cap = { .max_send_wr = 8, .max_send_sge = 1 },
		.comp_mask = IBV_QP_INIT_ATTR_PD | IBV_QP_INIT_ATTR_SEND_OPS_FLAGS,
		.send_ops_flags = IBV_QP_EX_WITH_RDMA_READ,
	};
}

static struct mlx5dv_qp_init_attr dci_dv(void)
{
	return (struct mlx5dv_qp_init_attr){
		.comp_mask = MLX5DV_QP_INIT_ATTR_MASK_DC,
		.dc_init_attr = { .dc_type = MLX5DV_DCTYPE_DCI },
	};
}

static struct ibv_qp *create(struct ibv_qp_init_attr_ex attr, struct mlx5dv_qp_init_attr dv)
{
	struct ibv_qp *qp;

	errno = 0;
	qp = mlx5dv_create_qp(context, &attr, &dv);
	return qp;
}

static void refused(struct ibv_qp_init_attr_ex attr, struct mlx5dv_qp_init_attr dv, int error)
{
	REQUIRE(create(attr, dv) == NULL);
	REQUIRE(errno == error);
}

static struct ibv_qp_attr values(enum ibv_qp_state state)
{
	return (struct ibv_qp_attr){
		.qp_state = state,
		.port_num = 1,
		.qp_access_flags = IBV_ACCESS_REMOTE_READ,
		.path_mtu = IBV_MTU_1024,
		.min_rnr_timer = 12,
		.timeout = 12,
		.retry_cnt = 3,
		.rnr_retry = 6,
		.max_rd_atomic = 4,
		.ah_attr = { .is_global = 1,
			     .port_num = 1,
			     .grh = { .sgid_index = sgid_index, .hop_limit = 64 } },
	};
}

static int modify(struct ibv_qp *qp, enum ibv_qp_state state, int mask)
{
	struct ibv_qp_attr attr = values(state);

	return ibv_modify_qp(qp, &attr, mask);
}

enum {
	DCT_INIT = IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS,
	DCT_RTR = IBV_QP_STATE | IBV_QP_MIN_RNR_TIMER | IBV_QP_AV | IBV_QP_PATH_MTU,
	DCI_INIT = IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT,
	DCI_RTR = IBV_QP_STATE | IBV_QP_PATH_MTU | IBV_QP_AV,
	DCI_RTS = IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY |
		  IBV_QP_MAX_QP_RD_ATOMIC | IBV_QP_SQ_PSN,
	/* What a DCI's INIT->RTR and RTR->RTS may have beside. */
	DCI_RTR_MAY = IBV_QP_PKEY_INDEX | IBV_QP_AV,
	DCI_RTS_MAY = IBV_QP_MIN_RNR_TIMER,
};

/* Each bit that is missing and each that is too much is EINVAL; the QP stays where it was. */
static void exactly(struct ibv_qp *qp, enum ibv_qp_state state, int mask, int may)
{
	int bit;

	for (bit = 0; bit <= 20; bit++) {
		if (may & 1 << bit)
			continue;
		REQUIRE(modify(qp, state, mask ^ 1 << bit) == EINVAL);
	}
	REQUIRE(modify(qp, state, mask) == 0);
}

/* --- cases --- */

static void a_target_is_made_of_what_it_needs(void)
{
	struct ibv_qp_init_attr_ex attr = dct_attr();
	struct mlx5dv_qp_init_attr dv = dct_dv();

	attr.srq = NULL;
	refused(attr, dv, EINVAL);
	attr = dct_attr();
	attr.recv_cq = NULL;
	refused(attr, dv, EINVAL);
	attr = dct_attr();
	attr.comp_mask |= IBV_QP_INIT_ATTR_SEND_OPS_FLAGS;
	attr.send_ops_flags = IBV_QP_EX_WITH_RDMA_READ;
	refused(attr, dv, EINVAL);
	attr = dct_attr();
	dv.comp_mask |= MLX5DV_QP_INIT_ATTR_MASK_DCI_STREAMS;
	refused(attr, dv, EINVAL);
	dv = dct_dv();
	dv.comp_mask = 0;
	refused(attr, dv, EINVAL);
	dv = dct_dv();
	dv.dc_init_attr.dc_type = 0;
	refused(attr, dv, EINVAL);
	ok("a_target_is_made_of_what_it_needs");
}

static void a_targets_number_is_valid_from_rtr_on(void)
{
	struct ibv_qp *qp = create(dct_attr(), dct_dv());
	struct ibv_qp_init_attr init;
	struct ibv_qp_attr attr;

	REQUIRE(qp && qp->qp_type == IBV_QPT_DRIVER);
	REQUIRE(ibv_query_qp(qp, &attr, IBV_QP_STATE, &init) == EINVAL);
	exactly(qp, IBV_QPS_INIT, DCT_INIT, 0);
	REQUIRE(qp->qp_num == 0);
	exactly(qp, IBV_QPS_RTR, DCT_RTR, 0);
	REQUIRE(qp->qp_num != 0 && qp->qp_num >> 24 == 0);
	REQUIRE(ibv_query_qp(qp, &attr, IBV_QP_STATE, &init) == 0);
	REQUIRE(attr.qp_state == IBV_QPS_RTR);
	REQUIRE(ibv_qp_to_qp_ex(qp) == NULL);
	/* It is never anything else again. */
	REQUIRE(modify(qp, IBV_QPS_RTS, DCI_RTS) == EINVAL);
	REQUIRE(modify(qp, IBV_QPS_RESET, IBV_QP_STATE) == EINVAL);
	REQUIRE(modify(qp, IBV_QPS_ERR, IBV_QP_STATE) == EINVAL);
	/* What it stands on cannot go before it. */
	REQUIRE(ibv_destroy_srq(srq) == EBUSY);
	REQUIRE(ibv_destroy_qp(qp) == 0);
	ok("a_targets_number_is_valid_from_rtr_on");
}

static void a_target_has_a_global_route(void)
{
	struct ibv_qp *qp = create(dct_attr(), dct_dv());
	struct ibv_qp_attr attr = values(IBV_QPS_RTR);

	REQUIRE(qp && modify(qp, IBV_QPS_INIT, DCT_INIT) == 0);
	attr.ah_attr.is_global = 0;
	REQUIRE(ibv_modify_qp(qp, &attr, DCT_RTR) == EINVAL);
	attr.ah_attr.is_global = 1;
	attr.ah_attr.grh.sgid_index = 200;
	REQUIRE(ibv_modify_qp(qp, &attr, DCT_RTR) == EINVAL);
	attr.ah_attr.grh.sgid_index = sgid_index;
	REQUIRE(ibv_modify_qp(qp, &attr, DCT_RTR) == 0);
	REQUIRE(ibv_destroy_qp(qp) == 0);
	ok("a_target_has_a_global_route");
}

static void an_initiator_is_made_of_what_it_needs(void)
{
	struct ibv_qp_init_attr_ex attr = dci_attr();
	struct mlx5dv_qp_init_attr dv = dci_dv();

	attr.cap.max_recv_wr = 1;
	refused(attr, dv, EINVAL);
	attr = dci_attr();
	attr.qp_type = IBV_QPT_RC;
	REQUIRE(create(attr, dv) == NULL);
	attr = dci_attr();
	dv.comp_mask |= MLX5DV_QP_INIT_ATTR_MASK_DCI_STREAMS;
	dv.dc_init_attr.dci_streams.log_num_concurent = 30;
	refused(attr, dv, EINVAL);
	ok("an_initiator_is_made_of_what_it_needs");
}

static struct ibv_qp *initiator(void)
{
	struct ibv_qp *qp = create(dci_attr(), dci_dv());

	REQUIRE(qp);
	return qp;
}

static void an_initiators_states_take_exactly_their_bits(void)
{
	struct ibv_qp *qp = initiator();
	struct ibv_qp_init_attr init;
	struct ibv_qp_attr attr;

	REQUIRE(modify(qp, IBV_QPS_ERR, IBV_QP_STATE) == EINVAL);
	REQUIRE(modify(qp, IBV_QPS_RTR, DCI_RTR) == EINVAL);
	exactly(qp, IBV_QPS_INIT, DCI_INIT, 0);
	REQUIRE(modify(qp, IBV_QPS_RTS, DCI_RTS) == EINVAL);
	exactly(qp, IBV_QPS_RTR, DCI_RTR, DCI_RTR_MAY);
	exactly(qp, IBV_QPS_RTS, DCI_RTS, DCI_RTS_MAY);
	REQUIRE(modify(qp, IBV_QPS_RTR, DCI_RTR) == EINVAL);
	REQUIRE(modify(qp, IBV_QPS_ERR, IBV_QP_STATE | IBV_QP_PORT) == EINVAL);
	REQUIRE(modify(qp, IBV_QPS_ERR, IBV_QP_STATE) == 0);
	REQUIRE(ibv_query_qp(qp, &attr, IBV_QP_STATE, &init) == 0 && attr.qp_state == IBV_QPS_ERR);
	REQUIRE(modify(qp, IBV_QPS_RESET, IBV_QP_STATE | IBV_QP_PORT) == EINVAL);
	REQUIRE(modify(qp, IBV_QPS_RESET, IBV_QP_STATE) == 0);
	REQUIRE(modify(qp, IBV_QPS_INIT, DCI_INIT) == 0);
	REQUIRE(ibv_destroy_qp(qp) == 0);
	ok("an_initiators_states_take_exactly_their_bits");
}

static void ready(struct ibv_qp *qp)
{
	REQUIRE(modify(qp, IBV_QPS_INIT, DCI_INIT) == 0);
	REQUIRE(modify(qp, IBV_QPS_RTR, DCI_RTR) == 0);
	REQUIRE(modify(qp, IBV_QPS_RTS, DCI_RTS) == 0);
}

static struct ibv_ah *handle_to_self(void)
{
	struct ibv_ah_attr attr = values(IBV_QPS_RTR).ah_attr;

	attr.grh.dgid = own;
	return ibv_create_ah(pd, &attr);
}

/* What a READ is given between start and complete; the result of complete. */
static int post(struct ibv_qp *qp, struct ibv_ah *ah, bool sge, bool address, bool sge_first)
{
	struct ibv_qp_ex *ex = ibv_qp_to_qp_ex(qp);
	struct mlx5dv_qp_ex *dv = mlx5dv_qp_ex_from_ibv_qp_ex(ex);

	ibv_wr_start(ex);
	ex->wr_id = 7;
	ex->wr_flags = IBV_SEND_SIGNALED;
	ibv_wr_rdma_read(ex, 1, 0);
	if (sge && sge_first)
		ibv_wr_set_sge(ex, 1, 0, 8);
	if (address)
		mlx5dv_wr_set_dc_addr(dv, ah, 0xfffff0, 1);
	if (sge && !sge_first)
		ibv_wr_set_sge(ex, 1, 0, 8);
	return ibv_wr_complete(ex);
}

static void drain(unsigned count)
{
	struct ibv_wc wc;

	while (count) {
		int got = ibv_poll_cq(cq, 1, &wc);

		REQUIRE(got >= 0);
		if (got)
			REQUIRE(wc.wr_id == 7 && wc.status != IBV_WC_SUCCESS);
		count -= got;
	}
}

static void a_read_has_both_setters_in_either_order(void)
{
	struct ibv_qp *qp = initiator();
	struct ibv_ah *ah = handle_to_self();

	REQUIRE(ah);
	/* Before RTS nothing is taken. */
	REQUIRE(post(qp, ah, true, true, true) == EINVAL);
	ready(qp);
	REQUIRE(post(qp, ah, true, false, true) == EINVAL);
	REQUIRE(post(qp, ah, false, true, true) == EINVAL);
	REQUIRE(post(qp, ah, false, false, true) == EINVAL);
	REQUIRE(post(qp, ah, true, true, true) == 0);
	REQUIRE(post(qp, ah, true, true, false) == 0);
	drain(2);
	REQUIRE(ibv_destroy_qp(qp) == 0);
	REQUIRE(ibv_destroy_ah(ah) == 0);
	ok("a_read_has_both_setters_in_either_order");
}

/* Places are free again when completions are polled, as with libmlx5. */
static void a_full_queue_is_enomem(void)
{
	struct ibv_qp *qp = initiator();
	struct ibv_ah *ah = handle_to_self();
	unsigned at;

	ready(qp);
	for (at = 0; at < 8; at++)
		REQUIRE(post(qp, ah, true, true, true) == 0);
	REQUIRE(post(qp, ah, true, true, true) == ENOMEM);
	drain(8);
	REQUIRE(post(qp, ah, true, true, true) == 0);
	drain(1);
	/* A reset frees them, too, and takes the completions along. */
	for (at = 0; at < 8; at++)
		REQUIRE(post(qp, ah, true, true, true) == 0);
	REQUIRE(modify(qp, IBV_QPS_RESET, IBV_QP_STATE) == 0);
	ready(qp);
	REQUIRE(post(qp, ah, true, true, true) == 0);
	drain(1);
	REQUIRE(ibv_destroy_qp(qp) == 0);
	REQUIRE(ibv_destroy_ah(ah) == 0);
	ok("a_full_queue_is_enomem");
}

static void a_query_leaves_set_what_it_filled(void)
{
	struct mlx5dv_context attr = { .comp_mask = MLX5DV_CONTEXT_MASK_DC_ODP_CAPS |
						    MLX5DV_CONTEXT_MASK_DCI_STREAMS |
						    UINT64_C(1) << 40 };

	REQUIRE(mlx5dv_query_device(context, &attr) == 0);
	REQUIRE(attr.comp_mask ==
		(MLX5DV_CONTEXT_MASK_DC_ODP_CAPS | MLX5DV_CONTEXT_MASK_DCI_STREAMS));
	ok("a_query_leaves_set_what_it_filled");
}

static void open_device(void)
{
	struct ibv_srq_init_attr srq_attr = { .attr = { .max_wr = 1, .max_sge = 1 } };
	struct ibv_device **list = ibv_get_device_list(NULL);
	struct ibv_gid_entry entry;

	REQUIRE(list && list[0]);
	context = ibv_open_device(list[0]);
	REQUIRE(context);
	while (!ibv_query_gid_ex(context, 1, sgid_index, &entry, 0) &&
	       (entry.gid_type != IBV_GID_TYPE_ROCE_V2 || entry.gid.raw[0] == 0xfe))
		sgid_index++;
	own = entry.gid;
	pd = ibv_alloc_pd(context);
	cq = ibv_create_cq(context, 64, NULL, NULL, 0);
	srq = ibv_create_srq(pd, &srq_attr);
	REQUIRE(pd && cq && srq);
}

/* A device without DC, or one that is not mlx5's. */
static void nothing_is_offered(bool mlx5)
{
	REQUIRE(mlx5dv_is_supported(context->device) == mlx5);
	refused(dct_attr(), dct_dv(), EOPNOTSUPP);
	refused(dci_attr(), dci_dv(), EOPNOTSUPP);
	ok(mlx5 ? "a_device_without_dc" : "a_device_that_is_not_mlx5s");
}

int main(void)
{
	const char *offers = getenv("DC_PROVIDER_OFFERS");

	open_device();
	if (offers && strcmp(offers, "dc")) {
		nothing_is_offered(!strcmp(offers, "mlx5"));
	} else {
		REQUIRE(mlx5dv_is_supported(context->device));
		a_query_leaves_set_what_it_filled();
		a_target_is_made_of_what_it_needs();
		a_targets_number_is_valid_from_rtr_on();
		a_target_has_a_global_route();
		an_initiator_is_made_of_what_it_needs();
		an_initiators_states_take_exactly_their_bits();
		a_read_has_both_setters_in_either_order();
		a_full_queue_is_enomem();
	}
	REQUIRE(ibv_destroy_srq(srq) == 0);
	REQUIRE(ibv_destroy_cq(cq) == 0);
	REQUIRE(ibv_dealloc_pd(pd) == 0);
	REQUIRE(ibv_close_device(context) == 0);
	printf("%u passed\n", passed);
	return 0;
}
