#include "suite.h"

__attribute__((noinline)) static int descend(int frames)
{
    volatile char frame[8192];
    for (int at = 0; at < 8192; at += 512)
        frame[at] = (char)frames;
    int sum = frames > 0 ? descend(frames - 1) : 0;
    return sum + frame[512];
}

int main(void)
{
    about("growth of the main stack");
    int shallow = descend(5);
    prepare_here();
    check(descend(5) == shallow);
    int wanted = 0;
    for (int frames = 0; frames <= 400; frames++)
        wanted += (char)frames;
    check(descend(400) == wanted);
    return carried();
}
