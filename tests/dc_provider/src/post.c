/*
 * ibv_wr_start .. ibv_wr_complete on a DCI: a batch is taken whole or not at all.
 *
 * libmlx5 counts two setters per READ and does not notice a READ that has fewer; here that is EINVAL at
 * wr_complete, as is a post to a DCI that is neither in RTS nor in ERR, which a card would ignore.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "dc.h"

enum setter { SETTER_SGE = 1, SETTER_ADDRESS = 2, SETTER_BOTH = 3 };

static struct dc_qp *of_ex(struct ibv_qp_ex *ex)
{
	return (struct dc_qp *)ex;
}

static struct dc_qp *of_dv(struct mlx5dv_qp_ex *dv)
{
	return (struct dc_qp *)((char *)dv - offsetof(struct dc_qp, dv));
}

static void fails(struct dc_qp *dci, int error)
{
	if (!dci->batch_error)
		dci->batch_error = error;
}

static struct dc_read *last(struct dc_qp *dci)
{
	if (dci->batch_end == &dci->batch) {
		fails(dci, EINVAL);
		return NULL;
	}
	return (struct dc_read *)((char *)dci->batch_end - offsetof(struct dc_read, next));
}

static void drop_batch(struct dc_qp *dci)
{
	while (dci->batch) {
		struct dc_read *read = dci->batch;

		dci->batch = read->next;
		free(read);
	}
	dci->batch_end = &dci->batch;
}

static void wr_start(struct ibv_qp_ex *ex)
{
	struct dc_qp *dci = of_ex(ex);

	pthread_mutex_lock(&dci->post_lock);
	dci->batch = NULL;
	dci->batch_end = &dci->batch;
	dci->batch_count = 0;
	dci->batch_error = 0;
}

static void check_last(struct dc_qp *dci)
{
	if (dci->batch && last(dci)->setters != SETTER_BOTH)
		fails(dci, EINVAL);
}

static void wr_rdma_read(struct ibv_qp_ex *ex, uint32_t rkey, uint64_t remote)
{
	struct dc_qp *dci = of_ex(ex);
	struct dc_read *read;

	check_last(dci);
	if (__atomic_load_n(&dci->outstanding, __ATOMIC_RELAXED) + dci->batch_count >=
	    dci->cap.max_send_wr) {
		fails(dci, ENOMEM);
		return;
	}
	read = calloc(1, sizeof(*read));
	if (!read) {
		fails(dci, ENOMEM);
		return;
	}
	read->wr_id = ex->wr_id;
	read->signaled = dci->sq_sig_all || ex->wr_flags & IBV_SEND_SIGNALED;
	read->rkey = rkey;
	read->remote = remote;
	*dci->batch_end = read;
	dci->batch_end = &read->next;
	dci->batch_count++;
}

static void set_once(struct dc_qp *dci, struct dc_read *read, enum setter setter)
{
	if (read->setters & setter)
		fails(dci, EINVAL);
	read->setters |= setter;
}

static void wr_set_sge_list(struct ibv_qp_ex *ex, size_t count, const struct ibv_sge *list)
{
	struct dc_qp *dci = of_ex(ex);
	struct dc_read *read = dci->batch_error ? NULL : last(dci);

	if (!read)
		return;
	set_once(dci, read, SETTER_SGE);
	if (count > dci->cap.max_send_sge) {
		fails(dci, ENOMEM);
		return;
	}
	memcpy(read->sge, list, count * sizeof(*list));
	read->sges = count;
}

static void wr_set_sge(struct ibv_qp_ex *ex, uint32_t lkey, uint64_t address, uint32_t length)
{
	const struct ibv_sge sge = { .addr = address, .length = length, .lkey = lkey };

	wr_set_sge_list(ex, 1, &sge);
}

static void wr_set_dc_addr_stream(struct mlx5dv_qp_ex *dv, struct ibv_ah *ah, uint32_t dctn,
				  uint64_t key, uint16_t stream)
{
	struct dc_qp *dci = of_dv(dv);
	struct dc_read *read = dci->batch_error ? NULL : last(dci);

	if (!read)
		return;
	set_once(dci, read, SETTER_ADDRESS);
	if (!dc_ah_attr(ah, &read->way) || dctn >> 24 || stream >= dci->stream_count)
		fails(dci, EINVAL);
	read->dctn = dctn;
	read->key = key;
	read->stream = stream;
}

static void wr_set_dc_addr(struct mlx5dv_qp_ex *dv, struct ibv_ah *ah, uint32_t dctn, uint64_t key)
{
	wr_set_dc_addr_stream(dv, ah, dctn, key, 0);
}

static int wr_complete(struct ibv_qp_ex *ex)
{
	struct dc_qp *dci = of_ex(ex);
	int error;

	check_last(dci);
	pthread_mutex_lock(&dc_lock);
	if (dci->state != IBV_QPS_RTS && dci->state != IBV_QPS_ERR)
		fails(dci, EINVAL);
	error = dci->batch_error;
	if (!error) {
		__atomic_fetch_add(&dci->outstanding, dci->batch_count, __ATOMIC_RELAXED);
		dc_accept_reads(dci, dci->batch);
		dci->batch = NULL;
	}
	pthread_mutex_unlock(&dc_lock);
	drop_batch(dci);
	pthread_mutex_unlock(&dci->post_lock);
	return error;
}

static void wr_abort(struct ibv_qp_ex *ex)
{
	struct dc_qp *dci = of_ex(ex);

	drop_batch(dci);
	pthread_mutex_unlock(&dci->post_lock);
}

void dc_fill_setters(struct dc_qp *dci)
{
	dci->ex.wr_start = wr_start;
	dci->ex.wr_complete = wr_complete;
	dci->ex.wr_abort = wr_abort;
	dci->ex.wr_rdma_read = wr_rdma_read;
	dci->ex.wr_set_sge = wr_set_sge;
	dci->ex.wr_set_sge_list = wr_set_sge_list;
	dci->dv.wr_set_dc_addr = wr_set_dc_addr;
	dci->dv.wr_set_dc_addr_stream = wr_set_dc_addr_stream;
}
