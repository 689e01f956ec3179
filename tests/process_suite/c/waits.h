// Threads in every kind of wait, made before a fork and ended after it.
#ifndef MITOSIS_SUITE_WAITS_H
#define MITOSIS_SUITE_WAITS_H

// Starts `count` threads (at most 400), each kind in its turn, and returns once all of them stand in
// their waits: 0, or -1 with a line on standard error.
int waits_stand(int count);

// Ends every wait in the way of its kind, and joins the threads. How many have found what they waited for;
// each other one says on standard error what it found instead.
int waits_end(void);

#endif
