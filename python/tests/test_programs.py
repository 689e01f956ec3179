"""Real programs, forked when they are warm and then used for real in the child."""

import subprocess
import sys

import pytest
from conftest import environment

BOTH = pytest.mark.parametrize("threads", ["caller", "all"])


@BOTH
def test_pandas_on_a_data_frame(agent, threads):
    agent.run(
        f"""
        import io, mitosis, numpy, pandas
        rng = numpy.random.default_rng(1)
        rows = 200_000
        frame = pandas.DataFrame({{
            "day": pandas.date_range("2026-01-01", periods=rows, freq="min"),
            "shop": pandas.Categorical(rng.choice(["north", "south", "east"], rows)),
            "name": [f"customer {{number % 977}}" for number in range(rows)],
            "spent": rng.gamma(2.0, 30.0, rows),
        }})
        by_shop = frame.groupby("shop", observed=True)["spent"].sum()
        child = mitosis.fork(threads="{threads}")
        if child is None:
            again = frame.groupby("shop", observed=True)["spent"].sum()
            pandas.testing.assert_series_equal(again, by_shop)
            frame["taxed"] = frame["spent"] * 1.2
            best = frame.groupby("name")["taxed"].sum().nlargest(3)
            joined = frame.merge(best.rename("all").reset_index(), on="name", how="inner")
            assert sorted(joined["name"].unique()) == sorted(best.index)
            monthly = frame.set_index("day")["spent"].resample("MS").mean()
            assert len(monthly) == 5 and monthly.notna().all()
            text = frame.head(1000).to_csv(index=False)
            back = pandas.read_csv(io.StringIO(text), parse_dates=["day"])
            assert numpy.allclose(back["taxed"], frame["taxed"].head(1000))
            raise SystemExit(3)
        assert child.wait() == 3
        assert "taxed" not in frame
        """
    )


@BOTH
def test_scikit_learn_answers(agent, threads):
    agent.run(
        f"""
        import mitosis, numpy
        from sklearn.datasets import make_classification
        from sklearn.ensemble import RandomForestClassifier
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
        data, labels = make_classification(600, 20, random_state=1)
        models = [
            make_pipeline(StandardScaler(), LogisticRegression()).fit(data, labels),
            RandomForestClassifier(10, random_state=1).fit(data, labels),
        ]
        expected = [model.predict_proba(data[:300]) for model in models]
        child = mitosis.fork(threads="{threads}")
        if child is None:
            for model, answers in zip(models, expected):
                assert numpy.allclose(model.predict_proba(data[:300]), answers)
            again = LogisticRegression().fit(data, labels)
            assert again.score(data, labels) > 0.8
            big = numpy.ones((700, 700))  # more than one thread of BLAS
            assert (big @ big == 700).all()
            raise SystemExit(3)
        assert child.wait() == 3
        """
    )


@BOTH
def test_pytorch_infers_and_trains(agent, threads):
    pytest.importorskip("torch", reason="PyTorch's wheel for Linux takes 540 MB, and 3 GB of CUDA libraries: install it to run this")
    out = agent.run(
        f"""
        import mitosis, torch
        torch.manual_seed(1)
        model = torch.nn.Sequential(
            torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(8 * 30 * 30, 10)
        )
        pictures = torch.rand(16, 3, 32, 32)
        with torch.no_grad():
            expected = model(pictures)
        child = mitosis.fork(threads="{threads}")
        if child is None:
            with torch.no_grad():
                assert torch.equal(model(pictures), expected)
            optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
            losses = []
            for _ in range(5):
                optimizer.zero_grad()
                loss = torch.nn.functional.cross_entropy(model(pictures), torch.arange(16) % 10)
                loss.backward()  # on a thread of autograd's
                optimizer.step()
                losses.append(loss.item())
            assert losses[-1] < losses[0], losses
            print("drawn", torch.rand(1).item(), flush=True)
            raise SystemExit(3)
        assert child.wait() == 3
        with torch.no_grad():
            assert torch.equal(model(pictures), expected), "the parent's model is as it was"
        print("drawn", torch.rand(1).item(), flush=True)
        """
    )
    assert len(set(out.split())) == 3, "each draws its own"


def test_a_flask_app_behind_a_socket_that_the_child_binds(agent):
    agent.run(
        """
        import json, socket, threading, time, urllib.request
        import flask, mitosis
        from werkzeug.serving import make_server

        app = flask.Flask("app")
        prices = {f"item {number}": number for number in range(10_000)}  # what is warm
        served = 0

        @app.get("/price/<item>")
        def price(item):
            global served
            served += 1
            return flask.jsonify(price=prices[item], served=served, generation=mitosis.generation())

        assert app.test_client().get("/price/item 7").json["price"] == 7

        def ask(port, item):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/price/item%20{item}", timeout=10) as answer:
                return json.load(answer)

        def free_port():
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                return probe.getsockname()[1]

        with mitosis.prepare() as me:
            if isinstance(me, mitosis.Resumed):
                make_server("127.0.0.1", int(me.payload), app, threaded=True).serve_forever()
            ports = [free_port() for _ in range(2)]
            children = [mitosis.resume(me.handle, payload=str(port).encode()) for port in ports]
            for port in ports:
                until = time.monotonic() + 20
                while True:
                    try:
                        first = ask(port, 1)
                        break
                    except OSError:
                        assert time.monotonic() < until and all(child.poll() is None for child in children)
                        time.sleep(0.02)
                assert first == {"price": 1, "served": 2, "generation": 1}, first
                assert [ask(port, number)["served"] for number in range(2, 22)] == list(range(3, 23))
            for child in children:
                child.kill()
                assert child.wait() == -9
        assert served == 1
        """
    )


def test_a_flask_server_that_serves_already_and_its_children_elsewhere(agent):
    agent.run(
        """
        import json, threading, urllib.request
        import flask, mitosis
        from werkzeug.serving import make_server

        app = flask.Flask("app")
        served = 0

        @app.get("/")
        def count():
            global served
            served += 1
            return flask.jsonify(served=served, generation=mitosis.generation())

        server = make_server("127.0.0.1", 0, app, threaded=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        def ask(port):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10) as answer:
                return json.load(answer)
        assert [ask(server.port)["served"] for _ in range(5)] == [1, 2, 3, 4, 5]
        import socket
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            other = probe.getsockname()[1]
        with mitosis.prepare(threads="all") as me:
            if isinstance(me, mitosis.Resumed):
                threading.Event().wait()  # its server's threads do the work
            child = mitosis.resume(me.handle, listen=[f"{server.port}={other}"])
            assert ask(other) == {"served": 6, "generation": 1}
            assert ask(server.port) == {"served": 6, "generation": 0}
            assert ask(other)["served"] == 7
            child.kill()
            assert child.wait() == -9
        server.shutdown()
        """
    )


@BOTH
def test_sqlite_on_disk(agent, threads, tmp_path):
    agent.run(
        f"""
        import sqlite3, mitosis
        path = "{tmp_path}/shop.db"
        def connect():
            connection = sqlite3.connect(path, timeout=20)
            connection.execute("PRAGMA journal_mode=WAL")
            return connection
        connection = connect()
        with connection:
            connection.execute("CREATE TABLE orders (number INTEGER PRIMARY KEY, what TEXT)")
            connection.executemany("INSERT INTO orders VALUES (?, ?)", ((n, f"thing {{n}}") for n in range(10_000)))
        connection.close()
        with mitosis.prepare(threads="{threads}") as me:
            connection = connect()
            if isinstance(me, mitosis.Resumed):
                with connection:
                    for number in range(200):
                        connection.execute("INSERT INTO orders (what) VALUES (?)", (f"of {{me.index}}",))
                        connection.execute("UPDATE orders SET what = what || '!' WHERE number = ?", (number,))
                connection.close()
                raise SystemExit(3)
            children = mitosis.resume(me.handle, n=3)
            assert [child.wait() for child in children] == [3, 3, 3]
        found = connection.execute("SELECT count(*), count(DISTINCT number) FROM orders").fetchone()
        assert found == (10_600, 10_600), found
        assert connection.execute("SELECT what FROM orders WHERE number = 7").fetchone() == ("thing 7!!!",)
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        """
    )


def test_an_asyncio_server_with_timers_running(agent):
    agent.run(
        """
        import asyncio, json, socket, mitosis

        ticks = 0
        rung = []

        async def tick():
            global ticks
            while True:
                await asyncio.sleep(0.005)
                ticks += 1

        async def answer(reader, writer):
            while question := await reader.readline():
                await asyncio.sleep(0.001)
                told = {"ticks": ticks, "rung": rung, "generation": mitosis.generation()}
                writer.write(json.dumps(told).encode() + question)
                await writer.drain()
            writer.close()

        async def ask(connection):
            reader, writer = connection
            writer.write(b"\\n")
            return json.loads(await asyncio.wait_for(reader.readline(), 20))

        async def ticks_on(connection):
            before = (await ask(connection))["ticks"]
            until = asyncio.get_running_loop().time() + 20
            while (await ask(connection))["ticks"] < before + 5:
                assert asyncio.get_running_loop().time() < until

        def free_port():
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                return probe.getsockname()[1]

        async def main():
            loop = asyncio.get_running_loop()
            ticking = asyncio.create_task(tick())
            server = await asyncio.start_server(answer, "127.0.0.1", 0)
            port, other = server.sockets[0].getsockname()[1], free_port()
            of_parent = await asyncio.open_connection("127.0.0.1", port)
            await ticks_on(of_parent)
            loop.call_later(0.4, rung.append, "set before the fork")
            me = await asyncio.to_thread(mitosis.prepare, threads="all")
            if isinstance(me, mitosis.Resumed):
                # A connection has ended here, whoever had its other end.
                assert await of_parent[0].readline() == b""
                await asyncio.Event().wait()
            with me:
                child = await asyncio.to_thread(mitosis.resume, me.handle, listen=[f"{port}={other}"])
                to_child = await asyncio.open_connection("127.0.0.1", other)
                assert (await ask(to_child))["generation"] == 1
                await ticks_on(to_child)
                await ticks_on(of_parent)
                until = loop.time() + 20
                while not (await ask(to_child))["rung"]:
                    assert loop.time() < until, "the child's timer does not ring"
                while not rung:
                    await asyncio.sleep(0.01)
                child.kill()
                assert await asyncio.to_thread(child.wait) == -9
            ticking.cancel()

        asyncio.run(main())
        """
    )


def test_grpc_goes_on_by_its_own_fork_handlers(agent):
    """Those of pthread_atfork(3), which end and start its threads, and those of os.register_at_fork."""
    out = agent.run(
        """
import os, subprocess, sys
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "1"
import mitosis, grpc
SERVER = '''
import grpc, sys
from concurrent import futures
shout = grpc.unary_unary_rpc_method_handler(lambda request, context: request.upper())
server = grpc.server(futures.ThreadPoolExecutor(2))
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("Example", dict(Shout=shout)),))
print(server.add_insecure_port("127.0.0.1:0"), flush=True)
server.start()
sys.stdin.read()
'''
server = subprocess.Popen([sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
address = f"127.0.0.1:{int(server.stdout.readline())}"

def shout(what, channel):
    return channel.unary_unary("/Example/Shout")(what, timeout=40, wait_for_ready=True)

channel = grpc.insecure_channel(address)
assert shout(b"parent", channel) == b"PARENT"
with mitosis.prepare() as me:
    if isinstance(me, mitosis.Resumed):
        # A connection of its own: that of the parent's channel may fail its first call, as after any fork.
        own = grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)])
        print(shout(b"child", own), flush=True)
        os._exit(0)
    for child in mitosis.resume(me.handle, n=2):
        assert child.wait() == 0
print(shout(b"parent", channel), flush=True)
server.stdin.close()
assert server.wait() == 0
"""
    )
    assert out.splitlines() == ["b'CHILD'", "b'CHILD'", "b'PARENT'"]


def test_a_process_that_computes_on_a_gpu_is_refused(agent):
    """The driver's own device cannot be had where no driver is: a file of its name must do."""
    binds = "mount --make-rprivate / && mount -t tmpfs none /mnt && touch /mnt/nvidia-uvm"
    devices = "for device in null urandom fuse; do touch /mnt/$device && mount --bind /dev/$device /mnt/$device; done"
    script = """
import mitosis, os
device = open("/dev/nvidia-uvm")
for threads in ("caller", "all"):
    try:
        mitosis.prepare(threads=threads).handle
    except mitosis.NotForkable as error:
        assert "/dev/nvidia-uvm" in str(error) and "GPU" in str(error), error
    else:
        raise SystemExit("it was prepared")
device.close()
mitosis.prepare().handle
"""
    command = f"{binds} && {devices} && mount --move /mnt /dev && exec \"$0\" -c \"$1\""
    ran = subprocess.run(
        ["unshare", "--mount", "/bin/sh", "-c", command, sys.executable, script],
        env=environment(MITOSIS_AGENT=str(agent.socket)),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ran.returncode == 0, ran.stderr
