#include "suite.h"

#include <string>
#include <thread>

static int ended;

struct Own {
    std::string text = "thread's own";
    ~Own() { ended++; }
};

static thread_local Own own;

int main()
{
    about("C++ thread_local objects");
    own.text += ", changed";
    prepare_here();
    check(own.text == "thread's own, changed");
    bool fresh = false;
    std::thread thread([&] { fresh = own.text == "thread's own"; });
    thread.join();
    check(fresh && ended == 1);
    return carried();
}
