/* How far apart, and how many. */
#include <stddef.h>

#define PAGE 4096ul
#define TOUCHES 512
#define STRIDE_PAGES 8
#define TOUCH_BYTES ((TOUCHES + 1) * STRIDE_PAGES * PAGE)

long touch_at(volatile char *start);
