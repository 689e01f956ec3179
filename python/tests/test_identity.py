"""Where children are, and what their clocks tell."""


def test_a_child_is_where_its_resumer_says(agent):
    code = """
        import os, socket, time, mitosis
        here, began, real = socket.gethostname(), time.monotonic(), time.time()
        me = mitosis.prepare()
        if isinstance(me, mitosis.Resumed):
            assert me.clock_delta_ns == 0
            stood = (time.time() - real) - (time.monotonic() - began)
            if me.payload == b"frozen":
                os._exit(0 if 1.5 < stood else 1)
            if me.payload == b"live":
                os._exit(0 if -0.5 < stood < 0.5 else 2)
            if me.payload == b"argv":
                os._exit(0 if open("/proc/self/cmdline").read() == "worker\\0--blue\\0" else 4)
            if me.payload == b"ids":
                ids = open("/proc/self/uid_map").read().split()
                os._exit(0 if (os.getuid(), ids) == (0, ["0", "100000", "65536"]) else 5)
            os._exit(0 if (os.getcwd(), socket.gethostname()) == ("/usr", "elsewhere") else 3)
        handle = me.handle
        assert mitosis.resume(handle, cwd="/usr", hostname="elsewhere").wait() == 0
        assert mitosis.resume(handle, payload=b"argv", argv=["worker", "--blue"]).wait() == 0
        assert mitosis.resume(handle, payload=b"ids", id_map=["0:100000:65536"]).wait() == 0
        assert socket.gethostname() == here
        time.sleep(2)
        for clock in ["live", "frozen"]:
            children = mitosis.resume(handle, n=2, payload=clock.encode(), clock=clock)
            assert [child.wait() for child in children] == [0, 0], clock
        own = {kind: f"/proc/self/ns/{kind}" for kind in ["net", "mnt"]}
        assert mitosis.resume(handle, cwd="/usr", hostname="elsewhere", namespaces=own).wait() == 0
        for wrong in [
            {"clock": "broken"},
            {"cwd": "usr"},
            {"cwd": "/not/there"},
            {"hostname": ""},
            {"argv": "worker"},
            {"argv": b"worker"},
            {"argv": [b"a"]},
            {"id_map": "0:100000:65536"},
            {"id_map": ["0:1"]},
            {"argv": ["a\\0b"]},
            {"cgroup": "x"},
            {"cgroup": "/proc/self"},
            {"namespaces": {"pid": "/proc/1/ns/pid"}},
            {"namespaces": {"net": "/proc/self/ns/ipc"}},
        ]:
            try:
                mitosis.resume(handle, **wrong)
            except mitosis.ArgumentError:
                continue
            raise SystemExit(f"{wrong} was taken")
        print("done")
    """
    assert agent.run(code) == "done\n"
