// A program that knows nothing of Mitosis: threads in every kind of wait, until a file appears. Then every
// wait is ended in the way of its kind, and the program says how many threads have found what they waited for.
//
//   suite-waits FILE [COUNT]
//
// Says `standing` once all threads (200) stand in their waits, then `N of COUNT threads went on`.
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "waits.h"

enum { COUNT = 200, TRY_NS = 2000000, TRIES = 60 * 500 };

int main(int argc, char **argv) {
  const struct timespec a_while = {.tv_nsec = TRY_NS};
  if (argc < 2) {
    fprintf(stderr, "usage: %s FILE [COUNT]\n", argv[0]);
    return 2;
  }
  const int count = argc > 2 ? atoi(argv[2]) : COUNT;
  if (waits_stand(count) != 0)
    return 3;
  puts("standing");
  fflush(stdout);
  for (int tries = 0; access(argv[1], F_OK) != 0; tries++) {
    if (tries > TRIES) {
      fprintf(stderr, "%s did not come\n", argv[1]);
      return 4;
    }
    nanosleep(&a_while, NULL);
  }
  const int found = waits_end();
  printf("%d of %d threads went on\n", found, count);
  return found == count ? 0 : 5;
}
