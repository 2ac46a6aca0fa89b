"""What an exception says, as the fields of an answer."""

import os

from kapell_host import BadCall

HERE = os.path.join(os.path.dirname(__file__), "")


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
    while frames is not None and frames.tb_frame.f_code.co_filename.startswith(HERE):
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
