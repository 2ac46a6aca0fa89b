"""Takes calls one after another and answers them."""

import json
import os
import sys
from time import process_time

from kapell_host import OWN_PID
from kapell_host.errors import failure
from kapell_host.values import encode


def enter(call):
    """Makes the process look as the task expects it."""
    variables = call.get("e")
    if variables:
        os.environ.update(variables)
        tempfile = sys.modules.get("tempfile")
        if tempfile is not None:
            tempfile.tempdir = None
    os.chdir(call["d"])


def children_cpu():
    times = os.times()
    return times.children_user + times.children_system


def peak_memory():
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def run(code, call):
    """The answer to one call, as JSON text."""
    number = call["i"]
    stage = "load"
    try:
        enter(call)
        kind, where = call["s"]
        function = code.function(kind, where, call.get("c"), call["f"])
        arguments = function.arguments(call["w"])
        stage = "call"
        value = function.call(**arguments)
        if hasattr(value, "__await__"):
            import asyncio

            value = asyncio.run(awaited(value))
        return '"i":%d,"v":%s' % (number, "null" if value is None else encode(value))
    except BaseException as error:
        if os.getpid() != OWN_PID:
            raise
        return '"i":%d,"x":%s' % (number, json.dumps(failure(error, stage)))


async def awaited(value):
    return await value


def flush():
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:
            pass


def serve_one_by_one(frames, code):
    while True:
        call = frames.read()
        if call is None:
            return
        cpu, below = process_time(), children_cpu()
        answer = run(code, call)
        if os.getpid() != OWN_PID:
            os._exit(0)
        flush()
        used = process_time() - cpu + children_cpu() - below
        frames.write('{%s,"cpu":%d,"mem":%d}' % (answer, used * 1000, peak_memory()))
