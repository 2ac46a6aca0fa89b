"""A function, and its arguments by name."""

from kapell_host import BadCall
from kapell_host.convert import MISSING, check_names, convert_each, converter, type_hints


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
