"""Serves several tasks at a time, a thread each."""

import contextvars
import json
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import kapell
from kapell_host import OWN_PID
from kapell_host.serve import peak_memory, run


class Routed:
    """Standard output or error where several tasks run: text goes to the log of its own task."""

    def __init__(self, stream, name, send, current):
        self._stream, self._name, self._send, self._current = stream, name, send, current

    def write(self, text):
        number = self._current.get()
        if number is None:
            return self._stream.write(text)
        if text:
            self._send('{"i":%d,"%s":%s}' % (number, self._name, json.dumps(str(text))))
        return len(text)

    def writelines(self, lines):
        for line in lines:
            self.write(line)

    def __getattr__(self, name):
        return getattr(self._stream, name)


def serve_many(frames, code, most):
    lock, current = threading.Lock(), contextvars.ContextVar("call", default=None)

    def send(text):
        with lock:
            frames.write(text)

    sys.stdout = Routed(sys.stdout, "out", send, current)
    sys.stderr = Routed(sys.stderr, "err", send, current)

    def one(call):
        current.set(call["i"])
        kapell._directory.set(call.pop("d"))
        call["d"] = "."
        answer = run(code, call)
        if os.getpid() != OWN_PID:
            os._exit(0)
        send('{%s,"cpu":0,"mem":%d}' % (answer, peak_memory()))

    with ThreadPoolExecutor(most) as pool:
        while True:
            call = frames.read()
            if call is None:
                os._exit(0)
            if "c" in call:
                # Code comes once, and the next call that needs it may be quicker than this one.
                code.texts[call["s"][1]] = call["c"]
            pool.submit(contextvars.copy_context().run, one, call)
