"""Finds functions: in the workflow's files, in modules, in the text of a step."""

import _thread
import os
import sys

from kapell_host import BadCall
from kapell_host.arguments import Function


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
