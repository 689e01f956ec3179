/*
 * How a completion that the provider decides on reaches the CQ of the program, and whoever sleeps on
 * its channel: a work request is posted on the DCI's herald, a QP in ERR on that CQ. Soft-RoCE completes
 * it at once as flushed, which is an event like any other; ibv_poll_cq, replaced, puts in its place what
 * the token says. So order, events and the CQ's capacity are the device's own.
 *
 * A token that is dead (its DCI was reset or destroyed) is dropped when it comes out. The table has a lock
 * of its own: polling does not wait for the engine. Taken inside dc_lock, never around it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "dc.h"

/* The upper bits of a token's number: no program's wr_id. */
#define TOKEN_BITS (UINT64_C(0x6d64) << 48)
/* How long a herald may have no place: it is empty in the time of a system call, in an emulator in
 * milliseconds. Beyond it the device is gone. */
#define HERALD_TRIES 10000
#define HERALD_PAUSE_US 100
/* Entries that are taken out of a CQ at a time while it is purged. */
#define PURGE_ROOM 16

struct dc_token {
	struct dc_token *next, *next_news;
	struct ibv_send_wr wr;
	struct dc_qp *dci; /* none: dead */
	struct ibv_cq *cq;
	struct ibv_wc wc;
	unsigned frees; /* READs whose places are free again with it */
	bool silent; /* of a READ that is not signaled: no entry for the program */
};

/* An entry that was taken out of its CQ and not yet given to the program. */
struct stashed {
	struct stashed *next;
	struct ibv_cq *cq;
	struct ibv_wc wc;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct dc_token *tokens;
static struct stashed *stash, **stash_end = &stash;
static uint64_t numbers;

/* As a card of mlx5 says it beside the status; see README.md for where they are from. */
static uint32_t vendor_error(enum ibv_wc_status status)
{
	switch (status) {
	case IBV_WC_SUCCESS:
		return 0;
	case IBV_WC_WR_FLUSH_ERR:
		return 0xf9;
	case IBV_WC_REM_ACCESS_ERR:
		return 0x88;
	case IBV_WC_REM_INV_REQ_ERR:
		return 0x8a;
	case IBV_WC_RETRY_EXC_ERR:
		return 0x81;
	default:
		return 0xff;
	}
}

static uint32_t length_of(const struct dc_read *read)
{
	uint32_t at, length = 0;

	for (at = 0; at < read->sges; at++)
		length += read->sge[at].length;
	return length;
}

void dc_deliver(struct dc_qp *dci, const struct dc_read *read, enum ibv_wc_status status)
{
	struct dc_token *token = calloc(1, sizeof(*token));

	if (!token)
		abort();
	token->wr.opcode = IBV_WR_RDMA_WRITE;
	token->wr.send_flags = IBV_SEND_SIGNALED;
	token->dci = dci;
	token->cq = dci->ex.qp_base.send_cq;
	token->frees = 1;
	token->silent = status == IBV_WC_SUCCESS && !read->signaled;
	token->wc.wr_id = read->wr_id;
	token->wc.status = status;
	token->wc.vendor_err = vendor_error(status);
	token->wc.qp_num = dci->ex.qp_base.qp_num;
	if (status == IBV_WC_SUCCESS) {
		token->wc.opcode = IBV_WC_RDMA_READ;
		token->wc.byte_len = length_of(read);
	}
	pthread_mutex_lock(&lock);
	token->wr.wr_id = TOKEN_BITS | ++numbers;
	token->next = tokens;
	tokens = token;
	pthread_mutex_unlock(&lock);
	*dci->news_end = token;
	dci->news_end = &token->next_news;
}

void dc_tell(struct dc_qp *dci)
{
	struct ibv_send_wr *wr, *bad = NULL;
	struct dc_token *token;
	unsigned tries = 0;

	if (dci->kind != DC_INITIATOR || !dci->news)
		return;
	/* Until all are posted nobody may take out, and free, the first of them. */
	pthread_mutex_lock(&lock);
	for (token = dci->news; token; token = token->next_news)
		token->wr.next = token->next_news ? &token->next_news->wr : NULL;
	wr = &dci->news->wr;
	while (ibv_post_send(dci->anchor, wr, &bad) && bad && ++tries < HERALD_TRIES) {
		wr = bad;
		bad = NULL;
		usleep(HERALD_PAUSE_US);
	}
	dci->news = NULL;
	dci->news_end = &dci->news;
	pthread_mutex_unlock(&lock);
}

/* Takes an entry of a CQ for what it stands for; false if it is nothing that the program is told. */
static bool resolve(struct ibv_wc *wc)
{
	struct dc_token **at, *token;
	bool told;

	if ((wc->wr_id & TOKEN_BITS) != TOKEN_BITS)
		return true;
	for (at = &tokens; *at && (*at)->wr.wr_id != wc->wr_id; at = &(*at)->next)
		;
	token = *at;
	if (!token)
		return true;
	*at = token->next;
	told = token->dci && !token->silent;
	if (token->dci)
		__atomic_fetch_sub(&token->dci->outstanding, token->frees, __ATOMIC_RELAXED);
	*wc = token->wc;
	free(token);
	return told;
}

static int from_stash(struct ibv_cq *cq, int room, struct ibv_wc *wc)
{
	struct stashed **at = &stash;
	int count = 0;

	while (*at && count < room) {
		struct stashed *one = *at;

		if (one->cq != cq) {
			at = &one->next;
			continue;
		}
		wc[count++] = one->wc;
		*at = one->next;
		free(one);
	}
	stash_end = &stash;
	while (*stash_end)
		stash_end = &(*stash_end)->next;
	return count;
}

static int (*real_poll(struct ibv_cq *cq))(struct ibv_cq *, int, struct ibv_wc *)
{
	/* Contexts are listed when they are opened, and a CQ's is open. */
	return dc_context_of(cq->context)->poll_cq;
}

int dc_poll_cq(struct ibv_cq *cq, int room, struct ibv_wc *wc)
{
	int (*poll)(struct ibv_cq *, int, struct ibv_wc *) = real_poll(cq);
	int count, got = 0;

	pthread_mutex_lock(&lock);
	count = from_stash(cq, room, wc);
	while (count < room) {
		int at;

		got = poll(cq, room - count, wc + count);
		if (got <= 0)
			break;
		for (at = count, got += count; at < got; at++) {
			struct ibv_wc one = wc[at];

			if (resolve(&one))
				wc[count++] = one;
		}
	}
	pthread_mutex_unlock(&lock);
	return got < 0 && !count ? got : count;
}

void dc_tokens_dead(struct dc_qp *dci)
{
	struct dc_token *token;

	pthread_mutex_lock(&lock);
	for (token = tokens; token; token = token->next)
		if (token->dci == dci)
			token->dci = NULL;
	pthread_mutex_unlock(&lock);
}

/* Takes dead tokens out of a CQ; the rest stays for the program, in its order. */
void dc_tokens_purge(struct ibv_cq *cq)
{
	struct ibv_wc wc[PURGE_ROOM];
	int got, at;

	pthread_mutex_lock(&lock);
	while ((got = real_poll(cq)(cq, PURGE_ROOM, wc)) > 0) {
		for (at = 0; at < got; at++) {
			struct stashed *one;

			if (!resolve(&wc[at]))
				continue;
			one = calloc(1, sizeof(*one));
			if (!one)
				abort();
			one->cq = cq;
			one->wc = wc[at];
			*stash_end = one;
			stash_end = &one->next;
				}
	}
	pthread_mutex_unlock(&lock);
}

/* A CQ that has ended. */
void dc_tokens_gone(struct ibv_cq *cq)
{
	struct dc_token **at = &tokens;
	struct ibv_wc wc;

	pthread_mutex_lock(&lock);
	while (*at) {
		struct dc_token *token = *at;

		if (token->cq == cq) {
			*at = token->next;
			free(token);
		} else {
			at = &token->next;
		}
	}
	while (from_stash(cq, 1, &wc))
		;
	pthread_mutex_unlock(&lock);
}
