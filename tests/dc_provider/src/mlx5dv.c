/* libmlx5.so.1 as programs find it. Devices that are not ours go to the real one. */
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dc.h"

#define REAL_LIBRARY "libmlx5.so.R"

/* Later members and bits than the header's: rdma-core 50 put them right behind it. */
struct context_with_depth {
	struct mlx5dv_context known;
	uint64_t max_dc_rd_atom, max_dc_init_rd_atom;
};
#define MASK_MAX_DC_RD_ATOM (1 << 14)

static void *real(const char *name)
{
	void *library = dlopen(REAL_LIBRARY, RTLD_NOW | RTLD_NOLOAD);
	void *symbol = library ? dlsym(library, name) : NULL;

	if (!symbol) {
		fprintf(stderr, "dc_provider: no %s in %s\n", name, REAL_LIBRARY);
		abort();
	}
	dlclose(library);
	return symbol;
}

static bool is_soft_roce(struct ibv_device *device)
{
	return !strncmp(device->name, "rxe", 3);
}

DC_EXPORT bool mlx5dv_is_supported(struct ibv_device *device)
{
	bool (*is_supported)(struct ibv_device *) = real("mlx5dv_is_supported");

	if (is_soft_roce(device))
		return dc_settings()->mlx5;
	return is_supported(device);
}

DC_EXPORT int mlx5dv_query_device(struct ibv_context *verbs, struct mlx5dv_context *attr)
{
	const struct dc_settings *settings = dc_settings();
	uint64_t asked = attr->comp_mask, filled = 0;

	if (!is_soft_roce(verbs->device) || !settings->mlx5) {
		int (*query)(struct ibv_context *, struct mlx5dv_context *) =
			real("mlx5dv_query_device");

		return query(verbs, attr);
	}
	attr->version = 0;
	attr->flags = MLX5DV_CONTEXT_FLAGS_CQE_V1;
	if (asked & MLX5DV_CONTEXT_MASK_DC_ODP_CAPS) {
		/* No memory here is anything but pinned. */
		attr->dc_odp_caps = 0;
		filled |= MLX5DV_CONTEXT_MASK_DC_ODP_CAPS;
	}
	if (asked & MLX5DV_CONTEXT_MASK_DCI_STREAMS) {
		attr->dci_streams_caps.max_log_num_concurent = settings->dc ? settings->log_streams : 0;
		attr->dci_streams_caps.max_log_num_errored = settings->dc ? settings->log_errored : 0;
		filled |= MLX5DV_CONTEXT_MASK_DCI_STREAMS;
	}
	if (asked & MASK_MAX_DC_RD_ATOM && settings->dc) {
		struct context_with_depth *longer = (struct context_with_depth *)attr;

		longer->max_dc_rd_atom = settings->rd_atomic;
		longer->max_dc_init_rd_atom = settings->rd_atomic;
		filled |= MASK_MAX_DC_RD_ATOM;
	}
	attr->comp_mask = filled;
	return 0;
}

DC_EXPORT struct ibv_qp *mlx5dv_create_qp(struct ibv_context *verbs,
					  struct ibv_qp_init_attr_ex *attr,
					  struct mlx5dv_qp_init_attr *dv)
{
	const struct dc_settings *settings = dc_settings();

	if (!is_soft_roce(verbs->device) || !settings->mlx5) {
		struct ibv_qp *(*create)(struct ibv_context *, struct ibv_qp_init_attr_ex *,
					 struct mlx5dv_qp_init_attr *) = real("mlx5dv_create_qp");

		return create(verbs, attr, dv);
	}
	if (!settings->dc) {
		errno = EOPNOTSUPP;
		return NULL;
	}
	return dc_create_qp(verbs, attr, dv);
}

DC_EXPORT struct mlx5dv_qp_ex *mlx5dv_qp_ex_from_ibv_qp_ex(struct ibv_qp_ex *qp)
{
	struct mlx5dv_qp_ex *(*from)(struct ibv_qp_ex *);
	struct mlx5dv_qp_ex *ours = dc_qp_ex(qp);

	if (ours)
		return ours;
	from = real("mlx5dv_qp_ex_from_ibv_qp_ex");
	return from(qp);
}

DC_EXPORT int mlx5dv_dci_stream_id_reset(struct ibv_qp *qp, uint16_t stream)
{
	int (*reset)(struct ibv_qp *, uint16_t);

	if (is_soft_roce(qp->context->device) && dc_settings()->mlx5)
		return dc_stream_reset(qp, stream);
	reset = real("mlx5dv_dci_stream_id_reset");
	return reset(qp, stream);
}
