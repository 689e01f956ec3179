/*
 * libibverbs.so.1 as programs find it: what is defined here is looked at, and what does not concern DC
 * goes to the real library, as does all that is not defined here.
 */
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "dc.h"

#define REAL_LIBRARY "libibverbs.so.R"

static struct dc_context *contexts;

struct dc_ah {
	struct dc_ah *next;
	const struct ibv_ah *ah;
	struct ibv_ah_attr attr;
};
static struct dc_ah *handles;

static void *look_up(void *library, const char *name)
{
	void *symbol = dlsym(library, name);

	if (!symbol) {
		fprintf(stderr, "dc_provider: no %s in %s\n", name, REAL_LIBRARY);
		abort();
	}
	return symbol;
}

static struct dc_real real;

static void find_real(void)
{
	void *library = dlopen(REAL_LIBRARY, RTLD_NOW | RTLD_NOLOAD);

	if (!library) {
		fprintf(stderr, "dc_provider: %s\n", dlerror());
		abort();
	}
	real.modify_qp = look_up(library, "ibv_modify_qp");
	real.query_qp = look_up(library, "ibv_query_qp");
	real.destroy_qp = look_up(library, "ibv_destroy_qp");
	real.destroy_cq = look_up(library, "ibv_destroy_cq");
	real.open_device = look_up(library, "ibv_open_device");
	real.close_device = look_up(library, "ibv_close_device");
	real.create_ah = look_up(library, "ibv_create_ah");
	real.destroy_ah = look_up(library, "ibv_destroy_ah");
	real.qp_to_qp_ex = look_up(library, "ibv_qp_to_qp_ex");
}

const struct dc_real *dc_real(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, find_real);
	return &real;
}

struct dc_context *dc_context_of(struct ibv_context *verbs)
{
	struct dc_context *context = __atomic_load_n(&contexts, __ATOMIC_ACQUIRE);

	while (context && __atomic_load_n(&context->verbs, __ATOMIC_ACQUIRE) != verbs)
		context = context->next;
	return context;
}

DC_EXPORT struct ibv_context *ibv_open_device(struct ibv_device *device)
{
	struct ibv_context *verbs = dc_real()->open_device(device);
	struct dc_context *context;

	if (!verbs)
		return NULL;
	pthread_mutex_lock(&dc_lock);
	for (context = contexts; context && context->verbs; context = context->next)
		;
	if (!context) {
		context = calloc(1, sizeof(*context));
		if (!context)
			abort();
		context->next = contexts;
		__atomic_store_n(&contexts, context, __ATOMIC_RELEASE);
	}
	context->poll_cq = verbs->ops.poll_cq;
	verbs->ops.poll_cq = dc_poll_cq;
	__atomic_store_n(&context->verbs, verbs, __ATOMIC_RELEASE);
	pthread_mutex_unlock(&dc_lock);
	return verbs;
}

DC_EXPORT int ibv_close_device(struct ibv_context *verbs)
{
	struct dc_context *context;

	pthread_mutex_lock(&dc_lock);
	context = dc_context_of(verbs);
	if (context) {
		if (context->cq) {
			dc_unwatch(context->watch);
			dc_real()->destroy_cq(context->cq);
			ibv_destroy_comp_channel(context->channel);
		}
		context->cq = NULL;
		context->channel = NULL;
		__atomic_store_n(&context->verbs, NULL, __ATOMIC_RELEASE);
	}
	pthread_mutex_unlock(&dc_lock);
	return dc_real()->close_device(verbs);
}

DC_EXPORT struct ibv_ah *ibv_create_ah(struct ibv_pd *pd, struct ibv_ah_attr *attr)
{
	struct dc_ah *handle = calloc(1, sizeof(*handle));
	struct ibv_ah *ah;

	if (!handle) {
		errno = ENOMEM;
		return NULL;
	}
	ah = dc_real()->create_ah(pd, attr);
	if (!ah) {
		free(handle);
		return NULL;
	}
	handle->ah = ah;
	handle->attr = *attr;
	pthread_mutex_lock(&dc_lock);
	handle->next = handles;
	handles = handle;
	pthread_mutex_unlock(&dc_lock);
	return ah;
}

DC_EXPORT int ibv_destroy_ah(struct ibv_ah *ah)
{
	struct dc_ah **at = &handles, *handle;

	pthread_mutex_lock(&dc_lock);
	while (*at && (*at)->ah != ah)
		at = &(*at)->next;
	handle = *at;
	if (handle)
		*at = handle->next;
	pthread_mutex_unlock(&dc_lock);
	free(handle);
	return dc_real()->destroy_ah(ah);
}

/* Where a handle leads; false for one that was not made by ibv_create_ah. */
bool dc_ah_attr(const struct ibv_ah *ah, struct ibv_ah_attr *attr)
{
	struct dc_ah *handle;

	pthread_mutex_lock(&dc_lock);
	for (handle = handles; handle && handle->ah != ah; handle = handle->next)
		;
	if (handle)
		*attr = handle->attr;
	pthread_mutex_unlock(&dc_lock);
	return handle;
}

DC_EXPORT int ibv_destroy_cq(struct ibv_cq *cq)
{
	int result = dc_real()->destroy_cq(cq);

	if (!result)
		dc_tokens_gone(cq);
	return result;
}

DC_EXPORT int ibv_modify_qp(struct ibv_qp *qp, struct ibv_qp_attr *attr, int mask)
{
	struct dc_qp *ours;
	int result;

	pthread_mutex_lock(&dc_lock);
	ours = dc_qp_of(qp);
	result = ours ? dc_modify_qp(ours, attr, mask) : 0;
	pthread_mutex_unlock(&dc_lock);
	return ours ? result : dc_real()->modify_qp(qp, attr, mask);
}

DC_EXPORT int ibv_query_qp(struct ibv_qp *qp, struct ibv_qp_attr *attr, int mask,
			   struct ibv_qp_init_attr *init)
{
	struct dc_qp *ours;
	int result;

	pthread_mutex_lock(&dc_lock);
	ours = dc_qp_of(qp);
	result = ours ? dc_query_qp(ours, attr, mask, init) : 0;
	pthread_mutex_unlock(&dc_lock);
	return ours ? result : dc_real()->query_qp(qp, attr, mask, init);
}

DC_EXPORT int ibv_destroy_qp(struct ibv_qp *qp)
{
	struct dc_qp *ours;
	int result;

	pthread_mutex_lock(&dc_lock);
	ours = dc_qp_of(qp);
	result = ours ? dc_destroy_qp(ours) : 0;
	pthread_mutex_unlock(&dc_lock);
	return ours ? result : dc_real()->destroy_qp(qp);
}

DC_EXPORT struct ibv_qp_ex *ibv_qp_to_qp_ex(struct ibv_qp *qp)
{
	struct dc_qp *ours;

	pthread_mutex_lock(&dc_lock);
	ours = dc_qp_of(qp);
	pthread_mutex_unlock(&dc_lock);
	if (!ours)
		return dc_real()->qp_to_qp_ex(qp);
	/* A target has no send operations. */
	return ours->kind == DC_INITIATOR ? &ours->ex : NULL;
}
