// Threads that are cancelled: forced unwinding is C's business.
#ifndef MITOSIS_SUITE_CANCEL_H
#define MITOSIS_SUITE_CANCEL_H

// Starts one thread for each kind of cancellation, and returns once each is where it can be cancelled: 0,
// or -1.
int cancel_stand(void);

// Cancels them. NULL if each ended as cancelled, with its handlers run; what is wrong if not.
const char *cancel_end(void);

#endif
