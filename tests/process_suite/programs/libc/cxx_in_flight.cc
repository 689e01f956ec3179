#include "suite.h"

#include <exception>
#include <stdexcept>

/* The fork is made while an exception is being handled. */
int main()
{
    about("a C++ exception that is being handled at the fork");
    try {
        try {
            throw std::runtime_error("before");
        } catch (const std::exception &) {
            prepare_here();
            check(std::current_exception() != nullptr);
            throw;
        }
    } catch (const std::runtime_error &error) {
        check(strcmp(error.what(), "before") == 0);
        return carried();
    }
    return 1;
}
