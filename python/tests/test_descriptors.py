"""Descriptors of the parent in its child: not open there, and their numbers not free for others."""

import tempfile
from pathlib import Path

import pytest
from conftest import Agent, built, running


def test_what_holds_a_descriptor_of_the_parent_touches_no_file_of_the_child(agent, tmp_path):
    agent.run(
        f"""
        import errno, os, mitosis
        parents = [open("{tmp_path}/parent", "w") for _ in range(3)]
        buffered = open("{tmp_path}/buffered", "w")
        buffered.write("of the parent")
        numbers = [file.fileno() for file in parents]
        if (child := mitosis.fork()) is None:
            own = open("{tmp_path}/child", "w+")
            assert own.fileno() not in numbers
            for call in (lambda fd: os.write(fd, b"x"), lambda fd: os.read(fd, 1), os.fsync):
                try:
                    call(numbers[0])
                except OSError as error:
                    assert error.errno == errno.EBADF, error
                else:
                    raise SystemExit(2)
            # Ended by the collector, they close their own numbers and no other.
            del parents
            own.write("of the child")
            own.flush()
            own.seek(0)
            assert own.read() == "of the child"
            # A number that was given back is the child's.
            again = open("{tmp_path}/child")
            assert again.fileno() in numbers and again.read() == "of the child"
            try:
                buffered.flush()
            except OSError as error:
                assert error.errno == errno.EBADF
                os._exit(0)
            os._exit(3)
        assert child.wait() == 0
        """
    )
    assert (tmp_path / "child").read_text() == "of the child"


def test_a_log_of_the_parent_is_not_written_into_a_file_of_the_child(agent, tmp_path):
    agent.run(
        f"""
        import logging, os, mitosis
        logging.basicConfig(filename="{tmp_path}/log", level=logging.INFO)
        logging.raiseExceptions = False
        if (child := mitosis.fork()) is None:
            with open("{tmp_path}/data", "wb") as data:
                logging.info("a line of the log")
                data.write(b"data")
            os._exit(0)
        assert child.wait() == 0
        """
    )
    assert (tmp_path / "data").read_bytes() == b"data"


def test_programs_that_a_child_starts_see_none_of_it(agent, tmp_path):
    out = agent.run(
        f"""
        import os, subprocess, mitosis
        kept = open("{tmp_path}/parent", "w")
        if (child := mitosis.fork()) is None:
            listing = ["ls", "/proc/self/fd"]
            print(subprocess.run(listing, capture_output=True, text=True, close_fds=False).stdout)
            raise SystemExit(0)
        assert child.wait() == 0
        """
    )
    assert out.split() == ["0", "1", "2", "3"]  # 3 is that of ls


def test_children_of_children_and_the_second_of_a_template_have_it_too(agent, tmp_path):
    agent.run(
        f"""
        import os, mitosis
        numbers = [os.open("/dev/zero", os.O_RDONLY) for _ in range(5)]
        os.close(numbers[1])
        with mitosis.prepare() as me:
            if isinstance(me, mitosis.Resumed):
                if (child := mitosis.fork()) is not None:
                    raise SystemExit(child.wait())
                free = os.open("/dev/zero", os.O_RDONLY)
                assert free == numbers[1], (free, numbers)
                for number in numbers[2:]:
                    try:
                        os.read(number, 1)
                    except OSError:
                        continue
                    raise SystemExit(2)
                raise SystemExit(0)
            for _ in range(3):
                assert [child.wait() for child in mitosis.resume(me.handle, n=2)] == [0, 0]
        """
    )


def test_numbers_beyond_the_limit_of_the_childs_host_are_passed_over(tmp_path):
    binary = built("mitosis", "MITOSIS_AGENT_BIN")
    limit = 100
    with tempfile.TemporaryDirectory(prefix="mitosis-test-") as directory:
        socket = Path(directory) / "agent.sock"
        limited = ["/bin/sh", "-c", f'ulimit -n {limit}; exec "$@"', "-"]
        command = [*limited, binary, "agent", "--socket", socket]
        with running(command, Path(directory) / "log"):
            Agent(socket, binary).run(
                f"""
                import os, mitosis
                zero = os.open("/dev/zero", os.O_RDONLY)
                for number in ({limit} - 1, {limit}, 3 * {limit}):
                    os.dup2(zero, number)
                if (child := mitosis.fork()) is None:
                    held = [int(name) for name in os.listdir("/proc/self/fd")]
                    assert {limit} - 1 in held and max(held) < {limit}, held
                    raise SystemExit(0)
                assert child.wait() == 0
                """
            )


def test_shared_memory_of_a_child_has_a_tracker_of_its_own(agent):
    out = agent.run(
        """
        import os, sys, mitosis
        from multiprocessing import shared_memory
        mine = shared_memory.SharedMemory(create=True, size=4096)
        if (child := mitosis.fork()) is None:
            own = shared_memory.SharedMemory(create=True, size=4096)
            own.buf[0] = 7
            path = "/dev/shm/" + own.name
            assert os.path.exists(path)
            own.close()
            own.unlink()
            assert not os.path.exists(path)
            sys.stderr = sys.stdout
            from multiprocessing import resource_tracker
            assert resource_tracker._resource_tracker._check_alive()
            os._exit(0)
        assert child.wait() == 0
        assert os.path.exists("/dev/shm/" + mine.name)
        mine.close()
        mine.unlink()
        """
    )
    assert out == ""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_pool_of_the_parent_leaves_pools_of_the_child_alone(agent, tmp_path, method):
    script = tmp_path / "pools.py"
    script.write_text(
        f"""
import gc, multiprocessing, os, mitosis
if __name__ == "__main__":
    context = multiprocessing.get_context("{method}")
    pool = context.Pool(2)
    assert pool.map(abs, [-1, -2]) == [1, 2]
    if (child := mitosis.fork()) is None:
        own = context.Pool(2)
        del pool
        gc.collect()
        assert own.map(abs, [-3, -4]) == [3, 4]
        own.close()
        own.join()
        os._exit(0)
    assert child.wait(timeout=30) == 0
    assert pool.map(abs, [-1, -2]) == [1, 2]
    pool.terminate()
"""
    )
    agent.run(
        f"""
        import subprocess, sys
        raise SystemExit(subprocess.run([sys.executable, "{script}"], timeout=50).returncode)
        """
    )


def test_a_running_event_loop_is_refused_before_anything_stops(agent):
    agent.run(
        """
        import asyncio, mitosis
        calls = []
        mitosis.before_prepare(lambda: calls.append("before"))

        async def main():
            for call in (mitosis.fork, mitosis.prepare):
                try:
                    call()
                except mitosis.NotForkable as error:
                    assert "event loop" in str(error) and "asyncio.run" in str(error), error
                else:
                    raise SystemExit(2)
            assert not calls

        asyncio.run(main())
        if (child := mitosis.fork()) is None:
            raise SystemExit(asyncio.run(asyncio.sleep(0.01, 5)))
        assert child.wait() == 5
        """
    )


def test_a_thread_beside_an_event_loop_may_fork(agent):
    agent.run(
        """
        import asyncio, os, mitosis

        def work():
            if (child := mitosis.fork()) is None:
                os._exit(asyncio.run(asyncio.sleep(0.01, 5)))
            return child.wait()

        async def main():
            assert await asyncio.to_thread(work) == 5

        asyncio.run(main())
        """
    )
