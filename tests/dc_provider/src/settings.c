/* What the environment tells the provider. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dc.h"

static struct dc_settings settings = {
	.mlx5 = true,
	.dc = true,
	.wrong_key = IBV_WC_RETRY_EXC_ERR,
	/* As firmware was seen to report it: streams, and no isolation of errors. */
	.log_streams = 6,
	.log_errored = 0,
	.rd_atomic = 16,
	.initiators = true,
};

static void refuse(const char *name, const char *value)
{
	fprintf(stderr, "dc_provider: %s=%s is not known; see tests/dc_provider/README.md\n", name,
		value);
	abort();
}

static void read_environment(void)
{
	const char *value;
	unsigned one, two;

	if ((value = getenv("DC_PROVIDER_OFFERS"))) {
		settings.mlx5 = strcmp(value, "nothing") != 0;
		settings.dc = strcmp(value, "dc") == 0;
		if (settings.mlx5 && !settings.dc && strcmp(value, "mlx5"))
			refuse("DC_PROVIDER_OFFERS", value);
	}
	if ((value = getenv("DC_PROVIDER_WRONG_KEY"))) {
		if (sscanf(value, "%u", &one) != 1 ||
		    (one != IBV_WC_RETRY_EXC_ERR && one != IBV_WC_REM_ACCESS_ERR))
			refuse("DC_PROVIDER_WRONG_KEY", value);
		settings.wrong_key = one;
	}
	if ((value = getenv("DC_PROVIDER_STREAMS"))) {
		if (sscanf(value, "%u,%u", &one, &two) != 2 || one > DC_LOG_STREAMS_MAX ||
		    two > one)
			refuse("DC_PROVIDER_STREAMS", value);
		settings.log_streams = one;
		settings.log_errored = two;
	}
	if ((value = getenv("DC_PROVIDER_INITIATORS"))) {
		settings.initiators = strcmp(value, "no") != 0;
		if (settings.initiators && strcmp(value, "yes"))
			refuse("DC_PROVIDER_INITIATORS", value);
	}
	if ((value = getenv("DC_PROVIDER_RD_ATOMIC"))) {
		if (sscanf(value, "%u", &one) != 1 || one < 1 || one > DC_WINDOW)
			refuse("DC_PROVIDER_RD_ATOMIC", value);
		settings.rd_atomic = one;
	}
}

const struct dc_settings *dc_settings(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, read_environment);
	return &settings;
}
