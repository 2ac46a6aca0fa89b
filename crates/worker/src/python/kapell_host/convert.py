"""Makes values of annotated types from plain JSON.

`converter` is where to start: it gives a function for a type, which raises `BadCall` for a value that
does not fit.
"""

import json
import sys

from kapell_host import BadCall

MISSING = object()


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
