#include "suite.h"

#include <stdexcept>

/* Thrown after the fork, caught by a frame of before it. */
struct Counted {
    static int alive;
    Counted() { alive++; }
    ~Counted() { alive--; }
};
int Counted::alive = 0;

static void deeper(int levels)
{
    Counted counted;
    if (levels > 0)
        return deeper(levels - 1);
    prepare_here();
    throw std::runtime_error("from the child");
}

int main()
{
    about("C++ exceptions across the fork");
    bool caught = false;
    try {
        deeper(20);
    } catch (const std::runtime_error &error) {
        caught = strcmp(error.what(), "from the child") == 0;
    }
    check(caught && Counted::alive == 0 && suite.crossed);
    try {
        throw 5;
    } catch (int number) {
        check(number == 5);
    }
    return carried();
}
