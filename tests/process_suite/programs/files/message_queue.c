#include "suite.h"

#include <mqueue.h>
#include <sys/stat.h>

int main(void)
{
    struct mq_attr attributes = {.mq_maxmsg = 4, .mq_msgsize = 16};
    about("a POSIX message queue");
    const char *name = name_of_its_own();
    mqd_t queue = mq_open(name, O_RDWR | O_CREAT, 0600, &attributes);
    check(queue != (mqd_t)-1 && mq_unlink(name) == 0 &&
        mq_send(queue, "hello", 5, 1) == 0);
    prepare_here_with_files();
    char text[16];
    if (suite.way != PLAIN) {
        check(mq_receive(queue, text, 16, NULL) == -1 && errno == EBADF);
        return is_new();
    }
    check(mq_receive(queue, text, 16, NULL) == 5);
    return carried();
}
