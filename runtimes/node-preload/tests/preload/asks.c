/* Prepares itself where the library is there, and goes on where it is not. */
#include <mitosis_preload.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int main(void)
{
	char handle[256];
	size_t size;
	if (!mitosis_preload_loaded()) {
		puts("alone");
		return 0;
	}
	if (mitosis_preload_handle(handle, sizeof handle) != -3 || mitosis_preload_child_index() != -1)
		return 10;
	switch (mitosis_preload_prepare()) {
	case 1:
		if (mitosis_preload_handle(handle, 3) != -2 || !strstr(mitosis_preload_error(), "bytes"))
			return 11;
		if (mitosis_preload_handle(handle, sizeof handle))
			return 12;
		puts(handle);
		return mitosis_preload_generation() == 0 ? 0 : 13;
	case 0: {
		const unsigned char *payload = mitosis_preload_payload(&size);
		printf("child %d of generation %d with %.*s\n", mitosis_preload_child_index(),
		       (int)mitosis_preload_generation(), (int)size, (const char *)payload);
		return 21;
	}
	default:
		fprintf(stderr, "%s\n", mitosis_preload_error());
		return 14;
	}
}
