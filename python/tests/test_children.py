"""prepare() and resume(): what children of one seed are given, and in which they differ."""

import json


def test_payload_index_generation_and_environment(agent):
    out = agent.run(
        """
        import json, os, mitosis
        os.environ["GONE"] = "here"
        with mitosis.prepare() as me:
            if isinstance(me, mitosis.Resumed):
                variables = [os.environ.get("NEW"), os.environ.get("GONE"), os.getenv("KEPT")]
                told = [me.index, me.generation, me.payload.decode(), me.seed, me.child, variables]
                told.append(os.popen("echo $NEW$GONE").read())
                os.write(1, json.dumps(told).encode() + b"\\n")
                os._exit(me.index)
            handle = me.handle
            env = {"NEW": "a=b", "GONE": None}
            children = mitosis.resume(handle, n=3, payload=b"mail", env=env)
            assert [child.wait() for child in children] == [0, 1, 2]
            print(json.dumps([child.id for child in children]))
            print(json.dumps(handle.seed))
            one = mitosis.resume(handle.reveal())
            assert isinstance(one, mitosis.Child) and one.wait() == 0
        """,
        KEPT="kept",
    )
    lines = [json.loads(line) for line in out.splitlines()]
    told = sorted(line for line in lines if isinstance(line, list) and len(line) == 7)
    ids = next(line for line in lines if isinstance(line, list) and len(line) == 3)
    seed = next(line for line in lines if isinstance(line, str))
    several = [line for line in told if line[2] == "mail"]
    assert [line[:4] for line in several] == [[index, 1, "mail", seed] for index in range(3)]
    assert [line[4] for line in several] == ids
    assert all(line[5:] == [["a=b", None, "kept"], "a=b\n"] for line in several)
    (alone,) = (line for line in told if line[2] == "")
    assert alone[5] == [None, "here", "kept"]


def test_three_children_agree_on_nothing_random(agent):
    out = agent.run(
        """
        import json, multiprocessing, os, random, secrets, ssl, tempfile, uuid
        import numpy, mitosis
        random.random(), random.gauss(0, 1), uuid.uuid1(), ssl.RAND_bytes(8)
        numpy.random.standard_normal()
        tempfile.mktemp()
        with mitosis.prepare() as me:
            if isinstance(me, mitosis.Resumed):
                drawn = [
                    random.random(), random.gauss(0, 1), numpy.random.random(),
                    numpy.random.standard_normal(), numpy.random.default_rng().random(),
                    str(uuid.uuid4()), str(uuid.uuid1()), secrets.token_hex(),
                    ssl.RAND_bytes(16).hex(), tempfile.mktemp(),
                    bytes(multiprocessing.current_process().authkey).hex(),
                ]
                os.write(1, json.dumps(drawn).encode() + b"\\n")
                os._exit(0)
            for child in mitosis.resume(me.handle, n=3):
                assert child.wait() == 0
        """
    )
    drawn = [json.loads(line) for line in out.splitlines()]
    assert len(drawn) == 3
    for same_thing in zip(*drawn, strict=True):
        assert len(set(same_thing)) == 3, same_thing


def test_a_generator_set_by_the_user_differs_too(agent):
    out = agent.run(
        """
        import os, numpy, mitosis
        numpy.random.set_bit_generator(numpy.random.PCG64(1))
        numpy.random.standard_normal()
        with mitosis.prepare() as me:
            if isinstance(me, mitosis.Resumed):
                os.write(1, f"{numpy.random.standard_normal()}\\n".encode())
                os._exit(0)
            for child in mitosis.resume(me.handle, n=3):
                assert child.wait() == 0
        """
    )
    assert len(set(out.splitlines())) == 3


def test_the_order_in_a_child(agent):
    out = agent.run(
        """
        import os, random, mitosis
        random.seed(1)
        copied = random.getstate()
        def say(*words):
            os.write(1, (" ".join(map(str, words)) + "\\n").encode())
        for name in "12":
            os.register_at_fork(after_in_child=lambda name=name: say("after fork", name))
            mitosis.after_resume(lambda me, name=name: say("after_resume", name, me.index))
        os.register_at_fork(after_in_child=lambda: say("new state", random.getstate() != copied))
        with mitosis.prepare() as me:
            if isinstance(me, mitosis.Resumed):
                say("user")
                os._exit(0)
            handle = me.handle  # what a rehearsal child says is behind us
            say("resume")
            mitosis.resume(handle).wait()
        """
    )
    rehearsed, resumed = out.split("resume\n", 1)
    assert resumed.splitlines() == [
        "after fork 1",
        "after fork 2",
        "new state True",
        "after_resume 1 0",
        "after_resume 2 0",
        "user",
    ]
    assert "after_resume" not in rehearsed
    assert "user" not in rehearsed


def test_a_hook_that_raises_ends_its_child_and_no_other_code_runs(agent):
    agent.run(
        """
        import mitosis
        @mitosis.after_resume
        def fail(me):
            raise RuntimeError("of the hook")
        try:
            child = mitosis.fork()
        except RuntimeError:
            raise SystemExit("the child went on as a second caller")
        assert child.wait() == 70
        """
    )


def test_a_hook_after_prepare_that_raises_drops_the_seed(agent):
    agent.run(
        """
        import time, mitosis
        @mitosis.after_prepare
        def fail():
            raise RuntimeError("of the hook")
        try:
            mitosis.prepare()
        except RuntimeError:
            pass
        else:
            raise AssertionError
        deadline = time.monotonic() + 10
        while mitosis.list().seeds:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        """
    )


def test_a_hook_after_prepare_that_raises_ends_the_seed_where_no_agent_answers(agent):
    agent.run(
        """
        import os, time, mitosis
        socket = os.environ["MITOSIS_AGENT"]
        deadline = time.monotonic() + 10
        @mitosis.after_prepare
        def fail():
            while [line.state for line in mitosis.list().seeds] != ["published"]:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            os.rename(socket, socket + ".away")
            raise RuntimeError("of the hook")
        try:
            mitosis.prepare()
        except RuntimeError:
            pass
        else:
            raise AssertionError
        os.rename(socket + ".away", socket)
        while mitosis.list().seeds:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        """
    )


def test_a_dropped_seed_is_gone(agent):
    agent.run(
        """
        import mitosis
        seed = mitosis.prepare()
        handle = seed.handle
        assert [line.seed for line in mitosis.list().seeds] == [handle.seed]
        seed.drop(); seed.drop()
        for again in (lambda: mitosis.resume(handle), lambda: mitosis.Seed(seed._native).handle):
            try:
                again()
            except mitosis.SeedGone:
                continue
            raise AssertionError
        """
    )


def test_a_seed_whose_agent_is_away_can_be_dropped_later(agent):
    agent.run(
        """
        import os, mitosis
        seed = mitosis.prepare()
        handle = seed.handle
        socket = os.environ["MITOSIS_AGENT"]
        os.rename(socket, socket + ".away")
        for _ in range(2):
            try:
                seed.drop()
            except mitosis.MissingError:
                continue
            raise AssertionError
        os.rename(socket + ".away", socket)
        assert [line.seed for line in mitosis.list().seeds] == [handle.seed]
        seed.drop()
        try:
            mitosis.resume(handle)
        except mitosis.SeedGone:
            raise SystemExit(0)
        raise AssertionError
        """
    )


def test_a_wrong_key_is_refused(agent):
    agent.run(
        """
        import mitosis
        with mitosis.prepare() as seed:
            wrong = seed.handle.reveal().split("#")[0] + "#" + "0" * 64
            try:
                mitosis.resume(wrong)
            except mitosis.KeyRefused as error:
                assert "0" * 64 not in str(error)
            else:
                raise AssertionError
        """
    )


def test_limits_are_refused_before_anything_starts(agent):
    agent.run(
        """
        import mitosis
        with mitosis.prepare() as seed:
            for bad in ({"payload": bytes(2**20 + 1)}, {"env": {"A=B": "c"}}, {"n": 10_001}):
                try:
                    mitosis.resume(seed.handle, **bad)
                except mitosis.ArgumentError:
                    continue
                raise AssertionError(bad)
            assert not mitosis.list().children
        """
    )


def test_a_with_block_in_a_child_leaves_the_parents_seed_alone(agent):
    agent.run(
        """
        import mitosis
        with mitosis.prepare() as seed:
            if isinstance(seed, mitosis.Resumed):
                raise SystemExit(0)
            if (child := mitosis.fork()) is None:
                raise SystemExit(0)  # leaves the block
            assert child.wait() == 0
            assert mitosis.resume(seed.handle).wait() == 0
        """
    )


def test_a_childs_copy_of_a_child_is_of_no_use_and_does_no_harm(agent):
    agent.run(
        """
        import os, time, mitosis
        if (first := mitosis.fork()) is None:
            time.sleep(60)
        if (second := mitosis.fork()) is None:
            files = [open("/dev/null") for _ in range(30)]
            try:
                first.kill()
            except mitosis.ArgumentError:
                pass
            else:
                raise SystemExit("it is another's")
            del first
            assert all(os.fstat(file.fileno()) for file in files)
            raise SystemExit(0)
        assert second.wait() == 0
        assert first.poll() is None
        first.kill()
        assert first.wait() == -9
        """
    )


def test_stats_count(agent):
    agent.run(
        """
        import mitosis
        before = mitosis.stats()
        if (child := mitosis.fork()) is None:
            raise SystemExit(0)
        child.wait()
        after = mitosis.stats()
        assert after["children_started"] == before["children_started"] + 1
        assert after["seeds_published"] == before["seeds_published"] + 1
        """
    )


def test_counters_do_not_shrink_when_an_image_goes(agent):
    agent.run(
        """
        import time, mitosis
        names = {"misses", "pages_pulled", "pages_rdma", "reads", "fabric_fallbacks", "images"}
        assert names <= set(mitosis.stats())
        with mitosis.prepare() as me:
            if isinstance(me, mitosis.Resumed):
                raise SystemExit(0)
            mitosis.resume(me.handle).wait()
            before = mitosis.stats()
            assert before["images"] == 1 and before["misses"] > 0, before
        limit = time.monotonic() + 10
        while (after := mitosis.stats())["images"]:
            assert time.monotonic() < limit, after
            time.sleep(0.01)
        now = {"images", "children", "seeds", "leases_given", "leases_held", "miss_p50_ns", "miss_p99_ns"}
        now |= {"bytes_shared", "bytes_private", "bytes_remote"}
        assert all(after[name] >= before[name] for name in before.keys() - now), after
        """
    )


def test_arguments_that_cannot_be_right_are_named(agent):
    agent.run(
        """
        import mitosis
        from mitosis import ArgumentError
        with mitosis.prepare() as me:
            if isinstance(me, mitosis.Resumed):
                raise SystemExit(len(me.payload))
            for error, words, arguments in [
                (TypeError, "payload is of type str", dict(payload="text")),
                (TypeError, "n is '3'", dict(n="3")),
                (TypeError, "env holds 'A': 1", dict(env={"A": 1})),
                (TypeError, "env holds 2: 'a'", dict(env={2: "a"})),
                (ArgumentError, "'host-b:99999' names no host", dict(host="host-b:99999")),
            ]:
                try:
                    mitosis.resume(me.handle, **arguments)
                except error as raised:
                    assert words in str(raised), raised
                else:
                    raise SystemExit(1)
            assert mitosis.resume(me.handle, payload=bytearray(3)).wait() == 3
        """
    )


def test_what_names_no_host_is_refused_before_anything_stops(agent):
    agent.run(
        """
        import mitosis
        calls = []
        mitosis.before_prepare(lambda: calls.append("before"))
        for host in ("", "http://host-b", "host-b:abc", "host-b:0"):
            try:
                mitosis.fork(host)
            except mitosis.ArgumentError as error:
                assert repr(host) in str(error) and "NAME:PORT" in str(error), error
            else:
                raise SystemExit(1)
        assert not calls
        """
    )


def test_the_end_of_a_block_does_not_hide_what_ended_it(agent):
    agent.run(
        f"""
        import os, subprocess, time, mitosis
        try:
            with mitosis.prepare() as me:
                assert isinstance(me, mitosis.Seed)
                me.handle
                subprocess.run(["{agent.binary}", "--socket", "{agent.socket}", "shutdown"], check=True)
                while os.path.exists("{agent.socket}"):
                    time.sleep(0.01)
                raise LookupError("of the body")
        except LookupError:
            raise SystemExit(7)
        """,
        status=7,
    )
