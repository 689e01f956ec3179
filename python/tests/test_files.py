"""Open files in children, and where these listen."""


def test_files_are_carried(agent, tmp_path):
    code = """
        import os, socket, mitosis
        a, b = socket.socketpair()
        a.send(b"there")
        read, write = os.pipe()
        os.write(write, b"piped")
        file = open(os.environ["LINES"])
        file.readline()
        server = socket.create_server(("127.0.0.1", 0))
        port = server.getsockname()[1]
        me = mitosis.prepare(files="carried")
        if isinstance(me, mitosis.Resumed):
            if me.payload:
                peer, _ = server.accept()
                peer.send(peer.recv(5))
                os._exit(0)
            said = b.recv(9), os.read(read, 9), file.readline()
            os._exit(0 if said == (b"there", b"piped", "second\\n") else 1)
        assert mitosis.resume(me.handle).wait() == 0
        child = mitosis.resume(me.handle, payload=b"serve", listen=[f"{port}=0"])
        child.kill(9)
        server.close()
        child = mitosis.resume(me.handle, payload=b"serve", listen=[port])
        peer = socket.create_connection(("127.0.0.1", port))
        peer.send(b"hello")
        assert peer.recv(5) == b"hello"
        assert child.wait() == 0
        bad = mitosis.ArgumentError
        for listen, error in [([1], bad), (["x"], bad), ("all", TypeError)]:
            try:
                mitosis.resume(me.handle, listen=listen)
            except error:
                continue
            raise SystemExit(f"{listen} was taken")
        print("done")
    """
    path = tmp_path / "lines"
    path.write_text("first\nsecond\n")
    assert agent.run(code, LINES=str(path)) == "done\n"


def test_what_files_can_be(agent):
    code = """
        import mitosis
        for wrong in [dict(files="open"), dict(files="closed", threads="all")]:
            try:
                mitosis.prepare(**wrong)
            except mitosis.ArgumentError as error:
                print(error)
    """
    said = agent.run(code).splitlines()
    assert said[0] == "files is 'open': give 'closed' or 'carried'"
    assert said[1].startswith("threads='all' carries files")
