/*
 * A software stand-in for mlx5's dynamically connected transport, over Soft-RoCE.
 *
 *   program --dlopen--> libibverbs.so.1 (ours) --needs--> libibverbs.so.R (the real one, renamed)
 *           --dlopen--> libmlx5.so.1 (ours)    --needs--> libmlx5.so.R (the real one, renamed)
 *
 *   initiator's process                        target's process
 *   DCI: queue of READs, one a stream          DCT: a key, a listener
 *    carrier (RC QP) --- RDMA READ ----------- session (RC QP, the DCT's PD and rights)
 *    its TCP stream  --- hello, answer ------- its TCP stream
 *    herald: an RC QP in ERR on the user's CQ; what is posted on it wakes whoever waits there
 *
 * One lock (dc_lock) guards everything but the table of completions on their way (tokens.c). The
 * engine is one thread of the process: sockets, the carriers' completions, timers.
 */
#ifndef DC_H
#define DC_H

#include <infiniband/mlx5dv.h>
#include <infiniband/verbs.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#define DC_EXPORT __attribute__((visibility("default")))
#define DC_COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* READs of a stream that its carrier has at a time: what a send queue is made for. */
#define DC_WINDOW 64
/* Entries of a READ's list; libmlx5 takes more, and nobody here needs them. */
#define DC_SGE_MAX 4
/* Streams that a DCI can have: the number is 16 bits in the API, and memory is taken for each. */
#define DC_LOG_STREAMS_MAX 8
#define DC_NEVER INT64_MAX

/* What the provider is told by its environment; see README.md. */
struct dc_settings {
	bool mlx5;		/* the devices are mlx5's */
	bool dc;		/* ... and have DC */
	enum ibv_wc_status wrong_key;
	uint8_t log_streams, log_errored;
	uint8_t rd_atomic;
	bool initiators;	/* none: the card has no room for a DCI */
};
DC_EXPORT const struct dc_settings *dc_settings(void);

/* --- the real libraries (forward.c) --- */

/* An open device. Never freed, so that who looks for one needs no lock; used again. */
struct dc_context {
	struct dc_context *next;
	struct ibv_context *verbs; /* none: closed */
	int (*poll_cq)(struct ibv_cq *, int, struct ibv_wc *);
	/* Where the carriers' completions come; made with the first DC object. */
	struct ibv_comp_channel *channel;
	struct ibv_cq *cq;
	uint64_t watch;
};
struct dc_real {
	int (*modify_qp)(struct ibv_qp *, struct ibv_qp_attr *, int);
	int (*query_qp)(struct ibv_qp *, struct ibv_qp_attr *, int, struct ibv_qp_init_attr *);
	int (*destroy_qp)(struct ibv_qp *);
	int (*destroy_cq)(struct ibv_cq *);
	struct ibv_context *(*open_device)(struct ibv_device *);
	int (*close_device)(struct ibv_context *);
	struct ibv_ah *(*create_ah)(struct ibv_pd *, struct ibv_ah_attr *);
	int (*destroy_ah)(struct ibv_ah *);
	struct ibv_qp_ex *(*qp_to_qp_ex)(struct ibv_qp *);
};
const struct dc_real *dc_real(void);
struct dc_context *dc_context_of(struct ibv_context *verbs);
bool dc_ah_attr(const struct ibv_ah *ah, struct ibv_ah_attr *attr);

/* --- objects (qp.c) --- */

enum dc_kind { DC_TARGET, DC_INITIATOR };

/* A READ from its post to its completion. */
struct dc_read {
	struct dc_read *next;
	uint64_t wr_id;
	uint64_t sequence;
	uint64_t remote;
	uint64_t key;
	struct ibv_ah_attr way;
	struct ibv_sge sge[DC_SGE_MAX];
	uint32_t rkey;
	uint32_t dctn;
	uint32_t sges;
	uint16_t stream;
	uint8_t setters;
	bool signaled;
};

/* READs of one stream, in the order in which they were posted: `issued` of them are at the carrier. */
struct dc_stream {
	struct dc_read *first, **end;
	struct dc_read *unissued;
	unsigned issued;
	struct dc_carrier *carrier;
	/* The first READ is to fail: when, and how. */
	int64_t fails_at;
	enum ibv_wc_status fails_with;
	/* When the first READ was first tried. */
	int64_t tried_at;
	bool errored;
};

struct dc_qp {
	struct ibv_qp_ex ex; /* first: a struct ibv_qp is the beginning of it */
	struct mlx5dv_qp_ex dv;
	struct dc_qp *next;
	struct dc_context *context;
	enum dc_kind kind;
	enum ibv_qp_state state;
	/* An RC QP that holds PD, CQ and SRQ, gives the number, and is the herald of a DCI. */
	struct ibv_qp *anchor;
	struct ibv_qp_cap cap;
	uint8_t port, sgid_index, path_mtu, hop_limit;

	/* DCT */
	uint64_t key;
	unsigned access;
	uint64_t listener; /* its watch */
	struct dc_session *sessions;

	/* DCI */
	bool sq_sig_all;
	uint8_t timeout, retry_cnt, max_rd_atomic, log_errored;
	uint32_t sq_psn;
	uint64_t sequence;
	unsigned outstanding; /* posted, and not yet polled; atomic */
	unsigned streams_errored, stream_count;
	struct dc_stream *streams;
	struct dc_carrier *carriers;
	struct dc_token *news, **news_end; /* not yet posted on the herald */
	/* A batch between wr_start and wr_complete; the poster's. */
	pthread_mutex_t post_lock;
	struct dc_read *batch, **batch_end;
	unsigned batch_count;
	int batch_error;
};

extern pthread_mutex_t dc_lock;

struct dc_qp *dc_qp_of(const struct ibv_qp *qp);
/* All of this process, by their `next`. */
struct dc_qp *dc_first_qp(void);
DC_EXPORT struct ibv_qp *dc_create_qp(struct ibv_context *verbs, struct ibv_qp_init_attr_ex *attr,
				      struct mlx5dv_qp_init_attr *dv);
int dc_modify_qp(struct dc_qp *qp, struct ibv_qp_attr *attr, int mask);
int dc_query_qp(struct dc_qp *qp, struct ibv_qp_attr *attr, int mask,
		struct ibv_qp_init_attr *init);
int dc_destroy_qp(struct dc_qp *qp);
DC_EXPORT struct mlx5dv_qp_ex *dc_qp_ex(struct ibv_qp_ex *qp);
DC_EXPORT int dc_stream_reset(struct ibv_qp *qp, uint16_t stream);
/* Makes an RC QP with the real library. */
struct ibv_qp *dc_rc_qp(struct ibv_pd *pd, struct ibv_cq *cq, struct ibv_srq *srq,
			const struct ibv_qp_cap *cap);

/* --- posting (post.c) --- */

void dc_fill_setters(struct dc_qp *dci);

/* --- initiators (initiator.c) --- */

void dc_accept_reads(struct dc_qp *dci, struct dc_read *batch);
void dc_pump_all(struct dc_qp *dci);
void dc_fail_now(struct dc_qp *dci);
void dc_forget_reads(struct dc_qp *dci);
int64_t dc_timers(int64_t now);
void dc_stream_fails(struct dc_qp *dci, struct dc_stream *stream, enum ibv_wc_status status);
void dc_carrier_completed(struct dc_context *context, const struct ibv_wc *wc);

/* --- carriers (carrier.c) --- */

enum dc_join { DC_CONNECTING, DC_ASKING, DC_READY };
struct dc_carrier {
	struct dc_carrier *next;
	struct dc_qp *dci;
	struct dc_stream *stream;
	struct ibv_ah_attr way;
	uint32_t dctn;
	uint64_t key;
	enum dc_join state;
	bool lost; /* the target's side has closed: not for further READs */
	struct ibv_qp *qp;
	uint32_t psn;
	int64_t join_by;
	uint64_t used; /* the sequence number of the last READ */
	uint64_t watch;
	unsigned heard;
	char answer[16];
};
/* The carrier for a READ, joined or on its way; none, and errno, where it cannot be made. */
struct dc_carrier *dc_carrier_for(struct dc_qp *dci, struct dc_stream *stream,
				  const struct dc_read *read);
/* By its RC QP's number. */
struct dc_carrier *dc_carrier_of(const struct dc_context *context, uint32_t qp_num);
bool dc_carrier_leads_to(const struct dc_carrier *carrier, const struct dc_read *read);
/* The first `count` READs from `first` on, with one doorbell. */
int dc_carrier_post(struct dc_carrier *carrier, const struct dc_read *first, unsigned count);
void dc_carrier_ready(struct dc_carrier *carrier, unsigned events);
void dc_carrier_end(struct dc_carrier *carrier);

/* --- targets (target.c) --- */

struct dc_session {
	struct dc_session *next;
	struct dc_qp *dct;
	struct ibv_qp *qp;
	uint64_t watch;
	unsigned heard;
	char hello[64];
};
int dc_target_listen(struct dc_qp *dct);
void dc_target_end(struct dc_qp *dct);
void dc_listener_ready(struct dc_qp *dct, int fd);
void dc_session_ready(struct dc_session *session, unsigned events);
void dc_session_end(struct dc_session *session);

/* What the two sides say to each other, once; both are of one architecture. */
#define DC_MAGIC 0x6d644331u
struct dc_hello {
	uint32_t magic, dctn;
	uint64_t key;
	uint8_t gid[16];
	uint32_t qp_num, psn;
	uint8_t path_mtu, rd_atomic, unused[6];
};
enum dc_verdict { DC_JOINED, DC_NO_TARGET, DC_WRONG_KEY, DC_NO_QP };
struct dc_answer {
	uint32_t magic, verdict, qp_num, psn;
};

/* --- the side channel's addresses (address.c) --- */

struct sockaddr_storage;
/* Where a DCT's listener is: its GID as an address, and a port that its number gives. */
unsigned dc_address(const uint8_t gid[16], uint32_t dctn, unsigned interface,
		    struct sockaddr_storage *address);
/* The GID at a place of a port's table, and its interface. */
int dc_own_gid(struct ibv_context *verbs, uint8_t port, uint8_t index, uint8_t gid[16],
	       unsigned *interface);

/* --- completions on their way (tokens.c) --- */

void dc_deliver(struct dc_qp *dci, const struct dc_read *read, enum ibv_wc_status status);
/* What was delivered is on its way from here on; called before dc_lock is given back. */
void dc_tell(struct dc_qp *dci);
void dc_tokens_dead(struct dc_qp *dci);
void dc_tokens_purge(struct ibv_cq *cq);
void dc_tokens_gone(struct ibv_cq *cq);
int dc_poll_cq(struct ibv_cq *cq, int room, struct ibv_wc *wc);

/* --- the thread (engine.c) --- */

enum dc_watched { DC_WATCH_CQ, DC_WATCH_LISTENER, DC_WATCH_SESSION, DC_WATCH_CARRIER };
int dc_engine_start(void);
/* Watches a descriptor; 0 and errno on failure. Unwatching closes it, but for a CQ's. */
uint64_t dc_watch(int fd, unsigned events, enum dc_watched what, void *owner);
void dc_rewatch(uint64_t watch, unsigned events);
int dc_watch_fd(uint64_t watch);
void dc_unwatch(uint64_t watch);
void dc_engine_wake(void);
int64_t dc_now_ns(void);

#endif
