"""Runs a script as `python SCRIPT` does, but by an import, so that its functions can be mutants.

Python reads the file of a script past its import system, where `sitecustomize` changes the code.
What differs for the script: this file is at the bottom of its tracebacks.
"""

import importlib.machinery
import os
import sys
import types


def main() -> None:
    """Makes the first argument the module `__main__`, with the arguments after it as its own."""
    del sys.argv[0]
    script = sys.argv[0]
    path = os.path.realpath(script)
    if not sys.flags.safe_path:
        sys.path[0] = os.path.dirname(path)
    start_up = sys.modules.get("sitecustomize")
    plan = getattr(start_up, "PLAN", {})
    if start_up is not None and "watch" in plan and start_up.is_below(path, plan["watch"]):
        start_up.note_main(plan, path)
    file = os.path.join(os.getcwd(), script)
    loader = importlib.machinery.SourceFileLoader("__main__", file)
    module = types.ModuleType("__main__")
    module.__dict__.update(__file__=file, __loader__=loader, __builtins__=__builtins__)
    sys.modules["__main__"] = module
    loader.exec_module(module)


if __name__ == "__main__":
    main()
