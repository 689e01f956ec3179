"""A function as the FDK wants it: a model that takes long to load, and a handler that uses it."""

import io
import json
import os
import time

import numpy
from fdk import response

# What each cold container waits for, and what children of a warm one find: the generator is renewed in
# each of them, the model is shared.
LOADED_AT_NS = time.monotonic_ns()
MODEL = numpy.random.default_rng(7).random((512, 512))
calls = 0


def handler(ctx, data: io.BytesIO | None = None):
    """Says what it was asked, what its model says of it, and who it is."""
    global calls
    calls += 1
    asked = json.loads(data.getvalue() or b"{}")
    row = int(asked.get("row", 0))
    if asked.get("fail"):
        raise RuntimeError("asked to fail")
    time.sleep(float(asked.get("sleep_s", 0)))
    told = {
        "row": row,
        "sum": float(MODEL[row].sum()),
        "pid": os.getpid(),
        "host": os.uname().nodename,
        "calls": calls,
        "loaded_at_ns": LOADED_AT_NS,
        "random": float(numpy.random.random()),
        "call_id": ctx.CallID(),
        "deadline": ctx.Deadline(),
        "app": ctx.AppID(),
        "function": ctx.FnID(),
        "method": ctx.Method(),
        "url": ctx.RequestURL(),
        "config": dict(ctx.Config()).get("GREETING"),
    }
    return response.Response(
        ctx, response_data=json.dumps(told), headers={"Content-Type": "application/json"}
    )
