"""Serves Python functions to a Kapell worker: one process, many calls.

Speaks frames on descriptor 3: four bytes of length (little endian), then JSON. A call in, one answer
out. Standard output and error belong to the user's code. Only the standard library is imported before
that code, and of it as little as can be.
"""

import _thread
import gc
import json
import os
import sys
from time import process_time

FRAMES = 3
OWN_PID = os.getpid()
MISSING = object()


class BadCall(Exception):
    """The call cannot be made as it is; trying again is useless."""


# Frames ---------------------------------------------------------------------------------------------


class Frames:
    def __init__(self):
        os.set_inheritable(FRAMES, False)
        self.buffer = b""

    def read(self):
        """The next call; None at the end."""
        while True:
            have = len(self.buffer)
            if have >= 4:
                size = int.from_bytes(self.buffer[:4], "little")
                if have >= 4 + size:
                    frame = self.buffer[4 : 4 + size]
                    self.buffer = self.buffer[4 + size :]
                    return json.loads(frame)
                if size > 1 << 16:
                    self.buffer = self.read_large(size)
                    continue
            part = os.read(FRAMES, 1 << 16)
            if not part:
                return None
            self.buffer = self.buffer + part if have else part

    def read_large(self, size):
        parts = bytearray(self.buffer)
        while len(parts) < 4 + size:
            part = os.read(FRAMES, 1 << 20)
            if not part:
                os._exit(0)
            parts += part
        return bytes(parts)

    @staticmethod
    def write(text):
        try:
            data = text.encode()
        except UnicodeEncodeError:
            data = text.encode("utf-8", "replace")
        data = len(data).to_bytes(4, "little") + data
        sent = os.write(FRAMES, data)
        while sent < len(data):
            sent += os.write(FRAMES, memoryview(data)[sent:])


# Values ---------------------------------------------------------------------------------------------


def to_plain(value):
    """What JSON has no form for by itself."""
    kind = type(value)
    if hasattr(kind, "__dataclass_fields__"):
        return {name: getattr(value, name) for name in kind.__dataclass_fields__}
    if isinstance(value, (set, frozenset)):
        return sorted(value, key=repr)
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if hasattr(value, "total_seconds"):
        return "PT%sS" % format(value.total_seconds(), ".6f").rstrip("0").rstrip(".")
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    enum = sys.modules.get("enum")
    if enum is not None and isinstance(value, enum.Enum):
        return value.value
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    if hasattr(value, "tolist"):
        return value.tolist()
    if hasattr(value, "item"):
        return value.item()
    if kind.__name__ in ("Decimal", "UUID"):
        return str(value)
    if hasattr(value, "__iter__") and not isinstance(value, (str, bytes, bytearray)):
        return list(value)
    raise BadCall(
        "the return value holds a %s, which cannot be an output; return numbers, text, lists, dicts, "
        "dates, dataclasses, or write a file and keep it as an artifact" % kind.__name__
    )


ENCODER = json.JSONEncoder(allow_nan=False, default=to_plain, separators=(",", ":"), ensure_ascii=False)


def plain_keys(value):
    """The value with keys that JSON can hold."""
    if isinstance(value, dict):
        return {key if isinstance(key, str) else str(getattr(key, "value", key)): plain_keys(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_keys(item) for item in value]
    return value


def encode(value):
    try:
        return ENCODER.encode(value)
    except TypeError:
        return ENCODER.encode(plain_keys(value))
    except ValueError as error:
        if "Circular" in str(error):
            raise BadCall("the return value holds itself") from None
        raise BadCall(
            "the return value holds NaN or an infinite number, for which JSON has no form; "
            "replace it, for instance by None"
        ) from None


# Arguments ------------------------------------------------------------------------------------------


def bad_value(value, wanted):
    shown = json.dumps(value, default=repr)
    raise BadCall("expected %s, got %s" % (wanted, shown if len(shown) <= 80 else shown[:80] + "…"))


def to_int(value):
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str):
        try:
            return int(value)
        except ValueError:
            pass
    bad_value(value, "an int")


def to_float(value):
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            pass
    bad_value(value, "a float")


def to_bool(value):
    if isinstance(value, bool):
        return value
    if value in ("true", "false"):
        return value == "true"
    bad_value(value, "a bool")


def to_str(value):
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return str(value)
    bad_value(value, "text")


BASIC = {int: to_int, float: to_float, bool: to_bool, str: to_str}


def converter(kind):
    """A function that makes a value of `kind` from plain JSON; None where nothing is to do."""
    if kind in BASIC:
        return BASIC[kind]
    import typing

    if kind is None or kind is type(None):
        return lambda value: None if value is None else bad_value(value, "null")
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        return converter(args[0])
    if origin is typing.Union or type(kind).__name__ == "UnionType":
        return union(args)
    if origin is typing.Literal:
        return lambda value: value if value in args else bad_value(value, "one of %s" % (list(args),))
    if isinstance(origin or kind, type):
        return class_converter(origin or kind, args)
    return None


def union(kinds):
    makers = [(kind, converter(kind)) for kind in kinds]
    exact = {type(None): type(None), bool: bool, int: int, float: float, str: str, list: list, dict: dict}

    def make(value):
        for kind, maker in makers:
            if exact.get(kind) is type(value):
                return maker(value) if maker else value
        problem = None
        for _, maker in makers:
            try:
                return maker(value) if maker else value
            except BadCall as error:
                problem = problem or error
        raise problem

    return make


def class_converter(kind, args):
    import collections.abc
    import datetime
    import pathlib

    if issubclass(kind, (list, tuple, set, frozenset)) or kind in (collections.abc.Sequence, collections.abc.Iterable):
        return sequence(kind, args)
    if issubclass(kind, dict) or kind in (collections.abc.Mapping, collections.abc.MutableMapping):
        return mapping(args)
    if issubclass(kind, datetime.datetime):
        return parsed(lambda text: datetime.datetime.fromisoformat(utc(text)), kind, "a timestamp like 2026-01-31T07:00:00Z")
    if issubclass(kind, datetime.date):
        return parsed(lambda text: datetime.date.fromisoformat(text[:10]), kind, "a date like 2026-01-31")
    if issubclass(kind, datetime.timedelta):
        return duration
    if issubclass(kind, pathlib.PurePath):
        return parsed(kind, kind, "a path")
    if hasattr(kind, "__dataclass_fields__"):
        return dataclass(kind)
    enum = sys.modules.get("enum")
    if enum is not None and issubclass(kind, enum.Enum):
        return enumeration(kind)
    if hasattr(kind, "model_validate"):
        return lambda value: kind.model_validate(value)
    if kind.__name__ in ("Decimal", "UUID"):
        return lambda value: kind(str(value))
    return None


def utc(text):
    return text[:-1] + "+00:00" if text.endswith("Z") else text


def parsed(parse, kind, wanted):
    def make(value):
        if isinstance(value, kind):
            return value
        if not isinstance(value, str):
            bad_value(value, wanted)
        try:
            return parse(value)
        except ValueError:
            bad_value(value, wanted)

    return make


def sequence(kind, args):
    made = kind if isinstance(kind, type) and kind in (tuple, set, frozenset) else list
    item = converter(args[0]) if args and (len(args) == 1 or args[-1] is Ellipsis) else None

    def make(value):
        if not isinstance(value, list):
            bad_value(value, "a list")
        return made(value if item is None else [item(part) for part in value])

    return make


def mapping(args):
    key, item = (converter(args[0]), converter(args[1])) if len(args) == 2 else (None, None)

    def make(value):
        if not isinstance(value, dict):
            bad_value(value, "a map")
        return {(key(name) if key else name): (item(part) if item else part) for name, part in value.items()}

    return make


def duration(value):
    import datetime
    import re

    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return datetime.timedelta(seconds=value)
    units = {"d": "days", "h": "hours", "m": "minutes", "s": "seconds"}
    if isinstance(value, str):
        text = value.strip().lower()
        sign, text = (-1, text[1:]) if text.startswith("-") else (1, text)
        match = re.fullmatch(r"p?(?:(\d+)d)?t?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s)?", text)
        if match and any(match.groups()):
            parts = zip(units.values(), match.groups())
            return sign * datetime.timedelta(**{unit: float(part) for unit, part in parts if part})
    bad_value(value, "a duration like PT1H30M or 1h30m")


def dataclass(kind):
    import dataclasses

    hints = type_hints(kind)
    fields = {field.name: converter(hints.get(field.name, MISSING)) for field in dataclasses.fields(kind) if field.init}
    needed = {
        field.name
        for field in dataclasses.fields(kind)
        if field.init and field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    }

    def make(value):
        if isinstance(value, kind):
            return value
        if not isinstance(value, dict):
            bad_value(value, "a map with the fields of %s" % kind.__name__)
        check_names(value, fields, needed, "field", kind.__name__)
        return kind(**convert_each(value, fields))

    return make


def enumeration(kind):
    def make(value):
        try:
            return kind(value)
        except ValueError:
            if isinstance(value, str) and value in kind.__members__:
                return kind[value]
            bad_value(value, "one of %s" % [member.value for member in kind])

    return make


def type_hints(what):
    import typing

    try:
        return typing.get_type_hints(what, include_extras=True)
    except Exception:
        return dict(getattr(what, "__annotations__", {}))


def convert_each(value, converters):
    made = {}
    for name, item in value.items():
        make = converters.get(name)
        if make is not None:
            try:
                item = make(item)
            except BadCall as error:
                raise BadCall("`%s`: %s" % (name, error)) from None
        made[name] = item
    return made


def check_names(value, known, needed, what, where):
    missing = sorted(needed - value.keys())
    if missing:
        raise BadCall("`%s` needs the %s `%s`" % (where, what, "`, `".join(missing)))
    extra = sorted(value.keys() - known.keys())
    if extra:
        import difflib

        near = difflib.get_close_matches(extra[0], list(known), 1)
        hint = "; did you mean `%s`?" % near[0] if near else ""
        raise BadCall("`%s` has no %s `%s`%s" % (where, what, extra[0], hint))


class Function:
    """A function with what its arguments are made by."""

    def __init__(self, name, function):
        import inspect

        self.call, self.name, self.takes_any = function, name, False
        self.known, self.needed = {}, set()
        try:
            parameters = inspect.signature(function).parameters.values()
        except (TypeError, ValueError):
            self.takes_any, parameters = True, ()
        hints = type_hints(function) if parameters else {}
        for parameter in parameters:
            if parameter.kind is parameter.VAR_KEYWORD:
                self.takes_any = True
            elif parameter.kind is parameter.POSITIONAL_ONLY:
                raise BadCall("`%s` takes `%s` by position only; arguments are passed by name" % (name, parameter.name))
            elif parameter.kind is not parameter.VAR_POSITIONAL:
                hint = hints.get(parameter.name, MISSING)
                self.known[parameter.name] = None if hint is MISSING else converter(hint)
                if parameter.default is parameter.empty:
                    self.needed.add(parameter.name)

    def arguments(self, given):
        if not given and not self.needed:
            return given
        if self.needed - given.keys() or (not self.takes_any and given.keys() - self.known.keys()):
            check_names(given, self.known, self.needed, "parameter", self.name)
        return convert_each(given, self.known)


# Code -----------------------------------------------------------------------------------------------


class Code:
    """What was loaded so far."""

    def __init__(self, bundle):
        self.bundle = bundle
        self.modules = {}
        self.functions = {}
        self.texts = {}
        self.loading = _thread.allocate_lock()

    def function(self, kind, where, code, name):
        found = self.functions.get((kind, where, name))
        if found is None:
            # Of several tasks at once one loads, and the others find it loaded.
            with self.loading:
                found = self.load(kind, where, code, name)
        return found

    def load(self, kind, where, code, name):
        key = (kind, where, name)
        found = self.functions.get(key)
        if found is None:
            module = self.module(kind, where, code)
            function = module
            for part in name.split("."):
                function = getattr(function, part, None)
            if not callable(function):
                shown = "the workflow's code" if kind == "code" else "`%s`" % where
                raise BadCall("%s has no function `%s`" % (shown, name))
            found = Function(name, function)
            if kind != "file" or self.bundled(where):
                self.functions[key] = found
        return found

    def bundled(self, where):
        return self.bundle is not None and os.path.isfile(os.path.join(self.bundle, where))

    def module(self, kind, where, code):
        if kind == "module":
            import importlib

            return importlib.import_module(where)
        if kind == "file":
            return self.file(where)
        module = self.modules.get(where)
        if module is None:
            import linecache
            import types

            # Kept until it is loaded: it is sent only once.
            code = self.texts.setdefault(where, code)
            module = types.ModuleType("workflow_code_%s" % where)
            sys.modules[module.__name__] = module
            shown = "<code of the step>"
            linecache.cache[shown] = (len(code), None, code.splitlines(True), shown)
            exec(compile(code, shown, "exec"), module.__dict__)
            self.modules[where] = module
            del self.texts[where]
        return module

    def file(self, where):
        path = os.path.join(self.bundle, where) if self.bundled(where) else os.path.abspath(where)
        module = self.modules.get(path)
        if module is not None:
            return module
        if not os.path.isfile(path):
            raise BadCall("the file `%s` is not among the workflow's files" % where)
        import importlib.util

        folder = os.path.dirname(path)
        if folder not in sys.path:
            sys.path.insert(1, folder)
        name = os.path.splitext(where)[0].replace("/", ".")
        if name in getattr(sys, "stdlib_module_names", ()):
            name = "workflow_" + name
        spec = importlib.util.spec_from_file_location(name, path)
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
        except BaseException:
            sys.modules.pop(name, None)
            raise
        if self.bundled(where):
            self.modules[path] = module
        return module


# Calls ----------------------------------------------------------------------------------------------


def enter(call):
    """Makes the process look as the task expects it."""
    variables = call.get("e")
    if variables:
        os.environ.update(variables)
        tempfile = sys.modules.get("tempfile")
        if tempfile is not None:
            tempfile.tempdir = None
    os.chdir(call["d"])


def failure(error, stage):
    """What an exception says, as the answer's fields."""
    if isinstance(error, BadCall):
        return {"type": "", "message": str(error), "permanent": True}
    if isinstance(error, SystemExit):
        code = error.code if isinstance(error.code, int) else 0 if error.code is None else 1
        message = "sys.exit(%r)" % (error.code,)
        return {"type": "SystemExit", "message": message, "exit": code, "permanent": code == 78}
    answer = {"type": type(error).__name__, "message": safe_text(error)}
    if isinstance(error, MemoryError):
        answer["oom"] = True
    retry = getattr(error, "kapell_retry", None)
    if retry is not None:
        answer.update(type="", permanent=not retry)
        return answer
    import traceback

    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename == __file__:
        frames = frames.tb_next
    answer["traceback"] = "".join(traceback.format_exception(type(error), error, frames))[-16000:]
    if stage == "load" and isinstance(error, (ImportError, SyntaxError)):
        answer["permanent"] = True
    return answer


def safe_text(error):
    try:
        return str(error)
    except Exception:
        return "(its message cannot be shown)"


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
    import contextvars
    import threading
    from concurrent.futures import ThreadPoolExecutor

    import kapell

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


def main():
    own, bundle, cache, most = sys.argv[1:5]
    sys.argv = [""]
    sys.pycache_prefix = cache
    # The script's own folder would shadow nothing of the user's: it comes last.
    sys.path[:] = ([bundle] if bundle else []) + [""] + sys.path[1:] + [own]
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)
    frames, code = Frames(), Code(bundle or None)
    gc.collect()
    gc.freeze()
    if int(most) > 1:
        serve_many(frames, code, int(most))
    else:
        serve_one_by_one(frames, code)


main()
