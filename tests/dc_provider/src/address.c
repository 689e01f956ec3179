/* Where the side channel is: a GID of RoCE v2 is an IP address, and a DCT's number gives a port. */
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

#include "dc.h"

/* Below the range that kernels take ports from by themselves. Numbers of live DCTs lie closer together
 * than this range: Soft-RoCE gives them in turn. */
#define PORT_FIRST 12000
#define PORT_COUNT 16384

unsigned dc_address(const uint8_t gid[16], uint32_t dctn, unsigned interface,
		    struct sockaddr_storage *address)
{
	const in_port_t port = htons(PORT_FIRST + dctn % PORT_COUNT);
	struct sockaddr_in *four = (struct sockaddr_in *)address;
	struct sockaddr_in6 *six = (struct sockaddr_in6 *)address;

	memset(address, 0, sizeof(*address));
	if (IN6_IS_ADDR_V4MAPPED((const struct in6_addr *)gid)) {
		four->sin_family = AF_INET;
		four->sin_port = port;
		memcpy(&four->sin_addr, gid + 12, 4);
		return sizeof(*four);
	}
	six->sin6_family = AF_INET6;
	six->sin6_port = port;
	memcpy(&six->sin6_addr, gid, 16);
	if (IN6_IS_ADDR_LINKLOCAL(&six->sin6_addr))
		six->sin6_scope_id = interface;
	return sizeof(*six);
}

int dc_own_gid(struct ibv_context *verbs, uint8_t port, uint8_t index, uint8_t gid[16],
	       unsigned *interface)
{
	struct ibv_gid_entry entry;

	if (ibv_query_gid_ex(verbs, port, index, &entry, 0))
		return -1;
	memcpy(gid, entry.gid.raw, 16);
	*interface = entry.ndev_ifindex;
	return 0;
}
