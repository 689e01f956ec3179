"""Pipes, files and nothing as children's standard streams."""

# What `resume` is given, and the child that it starts.
SEED = """
    import os, sys, mitosis
    me = mitosis.prepare()
    if isinstance(me, mitosis.Resumed):
        said = sys.stdin.buffer.read()
        sys.stdout.buffer.write(b"out:" + said)
        sys.stderr.buffer.write(b"err:" + said[:3])
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(3)
    P, N = mitosis.PIPE, mitosis.DEVNULL
    def resumed(**streams):
        return mitosis.resume(me.handle, **streams)
"""


def test_pipes_are_written_and_read(agent):
    agent.run(
        SEED
        + """
    child = resumed(stdin=P, stdout=P, stderr=P)
    child.stdin.write(b"written")
    child.stdin.close()
    assert child.stdout.read() == b"out:written"
    assert child.stderr.read() == b"err:wri"
    assert child.wait() == 3
    only = resumed(stdin=N, stdout=P, stderr=mitosis.STDOUT)
    assert (only.stdin, only.stderr) == (None, None)
    assert only.stdout.read() == b"out:err:"
    assert only.wait() == 3
    with resumed(stdin=P, stdout=P, stderr=N) as last:
        pass
    assert last.stdin.closed and last.stdout.closed and last.returncode is not None
    me.drop()
        """
    )


def test_communicate_moves_more_than_pipes_hold(agent):
    agent.run(
        SEED
        + """
    mail = bytes(range(256)) * 20_000
    child = resumed(stdin=P, stdout=P, stderr=P)
    assert child.communicate(mail) == (b"out:" + mail, b"err:" + mail[:3])
    assert child.returncode == 3
    assert resumed(stdin=N, stderr=P, stdout=N).communicate() == (None, b"err:")
    assert resumed(stdin=N, stderr=N, stdout=N).communicate() == (None, None)
    try:
        resumed(stdin=N, stdout=N, stderr=N).communicate(b"to nobody")
    except mitosis.ArgumentError as error:
        assert "stdin=mitosis.PIPE" in str(error), error
    else:
        raise AssertionError
    me.drop()
        """
    )


def test_communicate_that_was_too_early_loses_nothing(agent):
    agent.run(
        """
    import os, mitosis
    me = mitosis.prepare()
    if isinstance(me, mitosis.Resumed):
        os.write(1, b"first ")
        assert os.read(0, 9) == b"go"
        os.write(1, b"second")
        os._exit(0)
    child = mitosis.resume(me.handle, stdin=mitosis.PIPE, stdout=mitosis.PIPE)
    seen = child.stdin
    child.stdin = None  # it is not to be closed yet
    try:
        child.communicate(timeout=0.2)
    except TimeoutError as error:
        assert child.id in str(error) and "0.2 s" in str(error), error
    else:
        raise AssertionError
    seen.write(b"go")
    seen.flush()
    assert child.communicate() == (b"first second", None)
    me.drop()
        """
    )


def test_a_child_that_reads_nothing_breaks_no_pipe(agent):
    agent.run(
        """
    import os, mitosis
    me = mitosis.prepare()
    if isinstance(me, mitosis.Resumed):
        os._exit(4)
    child = mitosis.resume(me.handle, stdin=mitosis.PIPE)
    assert child.communicate(bytes(1 << 20)) == (None, None)
    assert child.returncode == 4
    me.drop()
        """
    )


def test_files_and_numbers_of_files(agent, tmp_path):
    agent.run(
        SEED
        + f"""
    with open("{tmp_path}/out", "w+b") as out, open("{tmp_path}/in", "w+b") as given:
        given.write(b"of a file")
        given.seek(0)
        assert resumed(stdin=given, stdout=out, stderr=out.fileno()).wait() == 3
        out.seek(0)
        assert out.read() == b"out:of a fileerr:of "
    me.drop()
        """
    )


def test_streams_that_cannot_be_are_named_and_leave_nothing_open(agent):
    agent.run(
        SEED
        + """
    handle = me.handle
    before = set(os.listdir("/proc/self/fd"))
    for error, words, arguments in [
        (mitosis.ArgumentError, "stdout cannot be a pipe of 2 children", dict(stdout=P, n=2)),
        (mitosis.ArgumentError, "stdin is for children of this host", dict(stdin=P, host="host-b")),
        (mitosis.ArgumentError, "stdout is -2", dict(stdin=P, stdout=mitosis.STDOUT)),
        (mitosis.ArgumentError, "descriptor 9999 cannot be a child's", dict(stdin=P, stdout=9999)),
        (TypeError, "stderr is 'log'", dict(stdout=P, stderr="log")),
        (mitosis.KeyRefused, "key", dict(stdout=P, handle=handle.reveal().split("#")[0] + "#" + "0" * 64)),
    ]:
        try:
            mitosis.resume(**{"handle": handle} | arguments)
        except error as raised:
            assert words in str(raised), raised
        else:
            raise AssertionError(words)
        assert set(os.listdir("/proc/self/fd")) == before, words
    me.drop()
        """
    )


def test_a_fork_has_pipes_too(agent):
    agent.run(
        """
    import os, sys, mitosis
    if (child := mitosis.fork(stdin=mitosis.PIPE, stdout=mitosis.PIPE)) is None:
        line = sys.stdin.readline()
        print(line.upper(), end="", flush=True)
        # Of the pipes it has its own ends alone, or its reader would never see the end of them.
        pipes = [n for n in os.listdir("/proc/self/fd") if n not in "012"]
        os._exit(any("pipe:" in os.readlink(f"/proc/self/fd/{n}") for n in pipes if os.path.exists(f"/proc/self/fd/{n}")))
    assert child.communicate(b"hello\\n") == (b"HELLO\\n", None)
    assert child.returncode == 0
        """
    )
