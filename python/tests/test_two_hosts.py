"""fork() onto another host (needs root): sealed hosts, B without Python and with other clocks."""

import json


def test_an_array_goes_on_where_there_is_no_python(hosts):
    a, b = hosts
    assert not list((b.root / "usr/bin").glob("python*"))
    out = a.run(
        """
        import json, os, numpy, mitosis
        array = numpy.random.default_rng(1).integers(0, 2**63, 2_000_000, dtype=numpy.uint64)
        nonce = int.from_bytes(os.urandom(7), "little")
        array[1234567] = nonce
        expected = int(array.sum())
        def told():
            return {"host": os.uname().nodename, "pidns": os.readlink("/proc/self/ns/pid")}
        if (child := mitosis.fork("host-b")) is None:
            order = numpy.random.permutation(len(array))
            print(json.dumps(told() | {"right": int(array[order].sum()) == expected}), flush=True)
            os._exit(9)
        assert child.host.startswith("host-b"), child.host
        assert child.wait() == 9
        print(json.dumps(told()))
        """
    )
    child, parent = (json.loads(line) for line in out.splitlines())
    assert child["right"]
    assert (child["host"], parent["host"]) == ("host-b", "host-a")
    assert child["pidns"] != parent["pidns"]


def test_clocks_go_on_as_on_a(hosts):
    a, _ = hosts
    a.run(
        """
        import time, mitosis
        before = time.monotonic()
        if (child := mitosis.fork("host-b")) is None:
            raise SystemExit(0 if 0 <= time.monotonic() - before < 30 else 1)
        assert child.wait() == 0
        """
    )


def test_output_signals_and_errors_cross(hosts):
    a, _ = hosts
    out = a.run(
        """
        import sys, time, mitosis
        if (child := mitosis.fork("host-b")) is None:
            for i in range(100):
                print(i)
            sys.stdout.flush()
            time.sleep(60)
        time.sleep(0.5)
        assert child.poll() is None
        child.kill()
        assert child.wait(timeout=20) == -9
        try:
            mitosis.fork("host-c")
        except mitosis.Unreachable as error:
            assert "host-c" in str(error)
        else:
            raise AssertionError
        """
    )
    assert out.splitlines() == [str(i) for i in range(100)]


def test_many_children_of_one_seed(hosts):
    a, _ = hosts
    out = a.run(
        """
        import os, random, mitosis
        with mitosis.prepare() as me:
            if isinstance(me, mitosis.Resumed):
                os.write(1, f"{me.index} {random.random()}\\n".encode())
                os._exit(0)
            children = mitosis.resume(me.handle, "host-b", n=20)
            assert all(child.wait() == 0 for child in children)
        """
    )
    lines = [line.split() for line in out.splitlines()]
    assert sorted(int(index) for index, _ in lines) == list(range(20))
    assert len({drawn for _, drawn in lines}) == 20


def test_pipes_of_a_child_on_another_host(hosts):
    a, _ = hosts
    a.run(
        """
        import asyncio, os, sys, mitosis
        streams = dict(stdin=mitosis.DEVNULL, stdout=mitosis.PIPE, stderr=mitosis.PIPE)
        if (child := mitosis.fork("host-b", **streams)) is None:
            assert sys.stdin.read() == ""
            os.write(1, b"x" * 1_000_000)
            os.write(2, os.uname().nodename.encode())
            os._exit(5)
        assert child.communicate() == (b"x" * 1_000_000, b"host-b")
        assert child.returncode == 5

        async def main():
            with mitosis.prepare(threads="all") as me:
                if isinstance(me, mitosis.Resumed):
                    os._exit(6)
                handle = await asyncio.to_thread(lambda: me.handle)
                children = await mitosis.resume_async(handle, "host-b", n=3)
                ends = await asyncio.gather(*(child.wait_async() for child in children))
                assert ends == [6, 6, 6], ends
                try:
                    await mitosis.resume_async(handle, "host-c")
                except mitosis.Unreachable as error:
                    assert "host-c" in str(error)
                else:
                    raise AssertionError

        asyncio.run(main())
        """
    )
