"""What a function returned, as JSON."""

import json
import os
import sys

from kapell_host import BadCall


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
