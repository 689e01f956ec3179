#include "suite.h"

#include <iostream>
#include <sstream>

int main()
{
    about("C++ streams and their formats");
    std::ostringstream text;
    text << std::hex << std::showbase;
    std::cout << std::unitbuf << std::hex;
    prepare_here();
    text << 255;
    check(text.str() == "0xff");
    std::cout << 16 << "\n";
    check(std::cout.good() && (std::cout.flags() & std::ios::hex));
    return carried();
}
