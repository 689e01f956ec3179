/*
 * A DCI's READs, stream by stream:
 *
 *   posted --carrier to its target there, and it is the stream's only one--> issued --> completed
 *
 * A stream has one target at a time, as a DCI has: READs of another target wait until those before
 * them are done. The first that fails, fails its stream: after the retry time where nobody answered, at
 * once otherwise; all that was posted behind it is flushed. As many streams in error as the DCI isolates
 * (2^log_num_errored, so 1 without isolation) put the DCI into ERR, and with it all streams.
 */
#include <errno.h>
#include <stdlib.h>

#include "dc.h"

/* (retry_cnt + 1) times the timer; a timer of 0 is none. */
static int64_t retry_time_ns(const struct dc_qp *dci)
{
	if (!dci->timeout)
		return DC_NEVER;
	return (int64_t)(dci->retry_cnt + 1) * (INT64_C(4096) << dci->timeout);
}

void dc_stream_fails(struct dc_qp *dci, struct dc_stream *stream, enum ibv_wc_status status)
{
	int64_t now = dc_now_ns(), patience = retry_time_ns(dci);

	if (!stream->first || stream->fails_at != DC_NEVER)
		return;
	stream->fails_with = status;
	stream->fails_at = now;
	if (status == IBV_WC_RETRY_EXC_ERR) {
		int64_t by = patience == DC_NEVER ? DC_NEVER - 1 : stream->tried_at + patience;

		stream->fails_at = by > now ? by : now;
	}
	dc_engine_wake();
}

static void flush(struct dc_qp *dci, struct dc_stream *stream)
{
	while (stream->first) {
		struct dc_read *read = stream->first;

		dc_deliver(dci, read, IBV_WC_WR_FLUSH_ERR);
		stream->first = read->next;
		free(read);
	}
	stream->end = &stream->first;
	stream->unissued = NULL;
	stream->issued = 0;
	stream->fails_at = DC_NEVER;
}

/* Nothing that was issued lands from now on. Only the stream's present carrier has any of it. */
static void end_carriers(struct dc_qp *dci, const struct dc_stream *of)
{
	struct dc_carrier *carrier = dci->carriers, *next;

	for (; carrier; carrier = next) {
		bool issued = carrier == of->carrier && of->issued;

		next = carrier->next;
		if (carrier->stream == of &&
		    (issued || carrier->lost || carrier->state != DC_READY))
			dc_carrier_end(carrier);
	}
}

/* All streams: what is there is flushed, and so is what comes. */
void dc_fail_now(struct dc_qp *dci)
{
	unsigned at;

	dci->state = IBV_QPS_ERR;
	for (at = 0; at < dci->stream_count; at++) {
		end_carriers(dci, &dci->streams[at]);
		flush(dci, &dci->streams[at]);
	}
}

/* The time of a stream's failure has come. */
static void fail_stream(struct dc_qp *dci, struct dc_stream *stream)
{
	struct dc_read *failed = stream->first;

	end_carriers(dci, stream);
	dc_deliver(dci, failed, stream->fails_with);
	stream->first = failed->next;
	free(failed);
	flush(dci, stream);
	stream->errored = true;
	dci->streams_errored++;
	if (dci->streams_errored >= 1u << dci->log_errored)
		dc_fail_now(dci);
}

/* Gives the stream's carrier all that it may have now. */
static int issue(struct dc_stream *stream, struct dc_carrier *carrier)
{
	struct dc_read *first = stream->unissued;
	unsigned count = 0;

	while (stream->unissued && stream->issued + count < DC_WINDOW &&
	       dc_carrier_leads_to(carrier, stream->unissued)) {
		stream->unissued = stream->unissued->next;
		count++;
	}
	stream->issued += count;
	return dc_carrier_post(carrier, first, count);
}

static void pump(struct dc_qp *dci, struct dc_stream *stream)
{
	while (stream->unissued && stream->fails_at == DC_NEVER) {
		struct dc_read *read = stream->unissued;
		struct dc_carrier *carrier = stream->carrier;

		if (stream->issued >= DC_WINDOW)
			return;
		if (!carrier || carrier->lost || !dc_carrier_leads_to(carrier, read)) {
			if (stream->issued)
				return;
			stream->tried_at = dc_now_ns();
			carrier = stream->carrier = dc_carrier_for(dci, stream, read);
			if (!carrier) {
				dc_stream_fails(dci, stream, IBV_WC_RETRY_EXC_ERR);
				return;
			}
		}
		if (carrier->state != DC_READY)
			return;
		if (!stream->issued)
			stream->tried_at = dc_now_ns();
		if (issue(stream, carrier)) {
			dc_stream_fails(dci, stream, IBV_WC_LOC_QP_OP_ERR);
			return;
		}
	}
}

void dc_pump_all(struct dc_qp *dci)
{
	unsigned at;

	for (at = 0; at < dci->stream_count; at++)
		pump(dci, &dci->streams[at]);
}

/* Takes a batch: one doorbell. */
void dc_accept_reads(struct dc_qp *dci, struct dc_read *batch)
{
	while (batch) {
		struct dc_read *read = batch;
		struct dc_stream *stream = &dci->streams[read->stream];

		batch = read->next;
		read->next = NULL;
		read->sequence = ++dci->sequence;
		if (dci->state == IBV_QPS_ERR || stream->errored) {
			dc_deliver(dci, read, IBV_WC_WR_FLUSH_ERR);
			free(read);
			continue;
		}
		*stream->end = read;
		stream->end = &read->next;
		if (!stream->unissued)
			stream->unissued = read;
	}
	dc_pump_all(dci);
	dc_tell(dci);
}

/* A carrier's completion: it is of the first READ of its stream. */
void dc_carrier_completed(struct dc_context *context, const struct ibv_wc *wc)
{
	struct dc_carrier *carrier = dc_carrier_of(context, wc->qp_num);
	struct dc_stream *stream;
	struct dc_read *read;

	/* One that has ended meanwhile, with what was posted on it. */
	if (!carrier)
		return;
	stream = carrier->stream;
	read = stream->first;
	if (!read || !stream->issued || read->sequence != wc->wr_id)
		return;
	if (wc->status != IBV_WC_SUCCESS) {
		/* What stood behind it at the carrier is flushed with the rest. */
		carrier->lost = true;
		dc_stream_fails(carrier->dci, stream, wc->status);
		return;
	}
	dc_deliver(carrier->dci, read, IBV_WC_SUCCESS);
	stream->first = read->next;
	if (!stream->first)
		stream->end = &stream->first;
	stream->issued--;
	stream->tried_at = dc_now_ns();
	free(read);
	pump(carrier->dci, stream);
}

/* RESET, or the end: nothing of what was posted completes. */
void dc_forget_reads(struct dc_qp *dci)
{
	unsigned at;

	for (at = 0; at < dci->stream_count; at++) {
		struct dc_stream *stream = &dci->streams[at];

		end_carriers(dci, stream);
		while (stream->first) {
			struct dc_read *read = stream->first;

			stream->first = read->next;
			free(read);
		}
		stream->end = &stream->first;
		stream->unissued = NULL;
		stream->carrier = NULL;
		stream->issued = 0;
		stream->fails_at = DC_NEVER;
		stream->errored = false;
	}
	dci->streams_errored = 0;
	__atomic_store_n(&dci->outstanding, 0, __ATOMIC_RELAXED);
}

/* What is due by now; when the next is. */
int64_t dc_timers(int64_t now)
{
	int64_t next = DC_NEVER;
	struct dc_qp *qp;

	for (qp = dc_first_qp(); qp; qp = qp->next) {
		struct dc_carrier *carrier, *after;
		unsigned at;

		if (qp->kind != DC_INITIATOR)
			continue;
		for (carrier = qp->carriers; carrier; carrier = after) {
			after = carrier->next;
			if (carrier->state == DC_READY)
				continue;
			if (carrier->join_by <= now) {
				dc_stream_fails(qp, carrier->stream, IBV_WC_RETRY_EXC_ERR);
				dc_carrier_end(carrier);
			} else if (carrier->join_by < next) {
				next = carrier->join_by;
			}
		}
		for (at = 0; at < qp->stream_count; at++) {
			struct dc_stream *stream = &qp->streams[at];

			if (stream->fails_at <= now)
				fail_stream(qp, stream);
			else if (stream->fails_at < next)
				next = stream->fails_at;
		}
		dc_tell(qp);
	}
	return next;
}

int dc_stream_reset(struct ibv_qp *qp, uint16_t number)
{
	struct dc_qp *dci;
	int error = 0;

	pthread_mutex_lock(&dc_lock);
	dci = dc_qp_of(qp);
	/* In libmlx5's order. */
	if (!dci || !dc_settings()->log_errored || dci->ex.qp_base.state != IBV_QPS_RTS)
		error = EOPNOTSUPP;
	else if (dci->kind != DC_INITIATOR)
		error = EINVAL;
	/* The card's part. */
	else if (dci->state != IBV_QPS_RTS || number >= dci->stream_count)
		error = EINVAL;
	else if (dci->streams[number].errored) {
		dci->streams[number].errored = false;
		dci->streams_errored--;
	}
	pthread_mutex_unlock(&dc_lock);
	return error;
}
