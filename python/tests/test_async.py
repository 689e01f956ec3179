"""Children in an event loop of asyncio: started, waited for and forked while other tasks run."""

SEED = """
    import asyncio, os, mitosis
    me = mitosis.prepare()
    if isinstance(me, mitosis.Resumed):
        if me.payload:
            os._exit(int(me.payload))
        os.read(0, 1)
        os._exit(9)
    handle = me.handle
"""


def test_children_are_started_and_waited_for_while_others_run(agent):
    agent.run(
        SEED
        + """
    async def main():
        ticks = 0
        async def tick():
            nonlocal ticks
            while True:
                await asyncio.sleep(0)
                ticks += 1
        ticking = asyncio.create_task(tick())
        resumes = [mitosis.resume_async(handle, payload=b"%d" % n) for n in range(5)]
        children = await asyncio.gather(*resumes)
        assert [await child.wait_async() for child in children] == [0, 1, 2, 3, 4]
        assert [child.poll() for child in children] == [0, 1, 2, 3, 4]
        assert ticks > 0
        several = await mitosis.resume_async(handle, n=2, payload=b"7")
        assert await asyncio.gather(*(child.wait_async() for child in several)) == [7, 7]
        ticking.cancel()
    asyncio.run(main())
    me.drop()
        """
    )


def test_several_wait_for_one_and_one_may_give_up(agent):
    agent.run(
        SEED
        + """
    async def main():
        child = await mitosis.resume_async(handle, stdin=mitosis.PIPE)
        open_before = len(os.listdir("/proc/self/fd"))
        waits = [asyncio.create_task(child.wait_async()) for _ in range(3)]
        await asyncio.sleep(0)
        assert len(os.listdir("/proc/self/fd")) == open_before + 3
        waits[0].cancel()
        try:
            await asyncio.wait_for(child.wait_async(), 0.05)
        except asyncio.TimeoutError:
            pass
        else:
            raise AssertionError("it reads still")
        child.stdin.write(b"!")
        child.stdin.close()
        assert await asyncio.gather(*waits[1:]) == [9, 9]
        assert waits[0].cancelled()
        assert await child.wait_async() == 9
        assert len(os.listdir("/proc/self/fd")) == open_before - 1
    asyncio.run(main())
    me.drop()
        """
    )


def test_errors_of_a_resume_are_raised_where_it_is_awaited(agent):
    agent.run(
        SEED
        + """
    async def main():
        me.drop()
        before = set(os.listdir("/proc/self/fd"))
        for error, arguments in [
            (mitosis.SeedGone, dict(stdout=mitosis.PIPE)),
            (mitosis.ArgumentError, dict(n=0)),
        ]:
            try:
                await mitosis.resume_async(handle, **arguments)
            except error:
                assert set(os.listdir("/proc/self/fd")) == before
            else:
                raise AssertionError(error)
    asyncio.run(main())
        """
    )


def test_a_resume_that_is_cancelled_is_given_up(agent):
    agent.run(
        """
    import asyncio, os, socket, mitosis
    # An agent that takes requests and answers none.
    silent = socket.socket(socket.AF_UNIX)
    path = os.environ["MITOSIS_AGENT"] + ".silent"
    silent.bind(path)
    silent.listen(1)
    os.environ["MITOSIS_AGENT"] = path
    handle = mitosis.Handle("mitosis://host-a:7370/00000000deadbeef#" + "0" * 64)
    async def main():
        try:
            await asyncio.wait_for(mitosis.resume_async(handle, stdout=mitosis.PIPE), 0.05)
        except asyncio.TimeoutError:
            pass
        else:
            raise AssertionError
    before = len(os.listdir("/proc/self/fd"))
    asyncio.run(main())
    assert len(os.listdir("/proc/self/fd")) == before
    asked, _ = silent.accept()
    while asked.recv(4096):
        pass
        """
    )


def test_any_event_loop_can_wait_by_the_descriptor(agent):
    agent.run(
        SEED
        + """
    import selectors
    children = mitosis.resume(handle, n=3, payload=b"1") + [mitosis.resume(handle, stdin=mitosis.PIPE)]
    with selectors.DefaultSelector() as selector:
        for child in children:
            selector.register(child, selectors.EVENT_READ)
        left = set(children[:3])
        while left:
            ready = {key.fileobj for key, _ in selector.select(30)}
            assert ready and children[3] not in ready
            left -= {child for child in ready if child.poll() is not None}
        children[3].kill()
        for child in children[:3]:
            selector.unregister(child)
        assert [key.fileobj for key, _ in selector.select(30)] == [children[3]]
        assert children[3].poll() == -9
    me.drop()
        """
    )


def test_a_running_loop_forks_and_goes_on_on_both_sides(agent):
    out = agent.run(
        """
    import asyncio, os, mitosis
    async def main():
        ticks = 0
        async def tick():
            nonlocal ticks
            while True:
                await asyncio.sleep(0.001)
                ticks += 1
        ticking = asyncio.create_task(tick())
        await asyncio.sleep(0.01)
        child = await mitosis.fork_async(stdout=mitosis.PIPE)
        before = ticks
        while ticks == before:
            await asyncio.sleep(0.001)
        if child is None:
            os.write(1, b"of the child")
            os._exit(8)
        assert await asyncio.to_thread(child.communicate) == (b"of the child", None)
        assert await child.wait_async() == 8
        again = await mitosis.fork_async()
        if again is None:
            os._exit(0)
        assert await again.wait_async() == 0
        try:
            await mitosis.fork_async("no/host")
        except mitosis.ArgumentError:
            print("once")
        ticking.cancel()
    asyncio.run(main())
        """
    )
    assert out == "once\n"


def test_an_agent_that_says_nothing_is_told_by_a_deadline(agent):
    agent.run(
        SEED
        + """
    import mitosis._loop
    async def main():
        mitosis._loop.readable = lambda descriptor: asyncio.sleep(60)
        mitosis._resume._REPLY_S = 0.2
        open_before = len(os.listdir("/proc/self/fd"))
        try:
            await mitosis.resume_async(handle, payload=b"7", stdout=mitosis.PIPE)
        except mitosis.Unreachable as error:
            assert "has not answered for 60 s" in str(error)
        else:
            raise AssertionError("nobody was heard")
        assert len(os.listdir("/proc/self/fd")) == open_before
    asyncio.run(main())
    me.drop()
        """
    )
