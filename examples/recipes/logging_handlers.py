"""logging: files are opened again in the child, and listeners of queues get a thread again."""

import contextlib
import logging
import logging.handlers
import os
import queue
import sys
import tempfile

import mitosis

directory = tempfile.mkdtemp()
path = os.path.join(directory, "app.log")
log = logging.getLogger("app")
log.setLevel(logging.INFO)
to_file = logging.FileHandler(path)
waiting: queue.SimpleQueue[logging.LogRecord] = queue.SimpleQueue()
log.addHandler(logging.handlers.QueueHandler(waiting))
listener = logging.handlers.QueueListener(waiting, to_file)
listener.start()


@mitosis.before_prepare
def quiet() -> None:
    listener.stop()  # what is queued is written once, here


@mitosis.after_prepare
def go_on() -> None:
    listener.start()


@mitosis.after_resume
def go_on_in_child(resumed: mitosis.Resumed) -> None:
    # The file is not open here. A handler without a stream opens its file when it next writes; with
    # prepare(files="carried") nothing is to be done, and on another host the path must be there in either case.
    old, to_file.stream = to_file.stream, None
    with contextlib.suppress(OSError):
        old.close()
    listener.start()


log.info("before")
if (child := mitosis.fork(*sys.argv[1:])) is None:
    log.info("in the child, generation %s", os.environ["MITOSIS_GENERATION"])
    listener.stop()
    raise SystemExit(0)
assert child.wait() == 0
log.info("after")
listener.stop()
to_file.close()
with open(path) as file:
    lines = file.read().splitlines()
assert lines == ["before", "in the child, generation 1", "after"], lines
os.unlink(path)
os.rmdir(directory)
print("logging: each line once")
