/* A sequence with a seed of the program's own is its state, as after fork(2). */
#include "suite.h"

int main(void)
{
    char state[64];
    struct drand48_data drawn;
    double next, wanted;
    about("rand(3), random(3), drand48(3): sequences with the program's seed");
    srand(42);
    int first = rand(), second = rand();
    srand(42);
    check(rand() == first);
    initstate(7, state, sizeof state);
    long of_random = random();
    initstate(7, state, sizeof state);
    srand48_r(9, &drawn);
    drand48_r(&drawn, &wanted);
    srand48_r(9, &drawn);
    prepare_here();
    check(drand48_r(&drawn, &next) == 0 && next == wanted);
    check(random() == of_random);
    /* rand() is random()'s: by its first state again. */
    srand(42);
    check(rand() == random() || second != first);
    return carried();
}
