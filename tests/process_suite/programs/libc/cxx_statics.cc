#include "suite.h"

#include <string>

/* Static objects: made before the fork, ended by the child; a function's own is made once. */
struct Told {
    std::string text = "a text that is longer than what fits into the object itself";
    ~Told()
    {
        check(suite.crossed && text.size() == 59);
        carried();
    }
};

static Told told;

static std::string &later()
{
    static std::string made = "made";
    return made;
}

int main()
{
    about("C++ static objects and their destructors");
    std::string *before = &later();
    prepare_here();
    check(&later() == before && later() == "made" && told.text.size() == 59);
    return 0;
}
