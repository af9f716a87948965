"""What can still be had of a Python file that cannot be loaded: its statements one by one, past those that fail."""

from __future__ import annotations
import __future__

import ast
import sys
from pathlib import Path
from types import ModuleType


def salvage(name: str, file: Path) -> tuple[ModuleType, list[Exception]]:
    """The module `name` as far as its statements can be run, and why the others cannot.

    A statement that only lacks what a failed one would have given is passed over without a word. Nothing of a file that is no
    Python. For who looks for mistakes: what a statement does beside defining names it does again.
    """
    module, errors = ModuleType(name), list[Exception]()
    module.__file__, module.__package__ = str(file), name.rpartition(".")[0]
    try:
        body = ast.parse(file.read_bytes()).body
    except (OSError, SyntaxError, ValueError):
        return module, errors
    sys.modules[name] = module
    lacking, flags = set[str](), 0
    for statement in body:
        if isinstance(statement, ast.ImportFrom) and statement.module == "__future__":
            flags |= sum(getattr(__future__, one.name).compiler_flag for one in statement.names)
        try:
            code = compile(ast.Module([statement], []), str(file), "exec", flags=flags, dont_inherit=True)
            exec(code, vars(module))
        except Exception as error:  # noqa: BLE001  (a user's own code)
            if not (isinstance(error, NameError) and error.name in lacking):
                errors.append(error)
            lacking |= _given(statement)
    return module, errors


def _given(statement: ast.stmt) -> set[str]:
    """Names that the statement would have given the module."""
    found = set[str]()
    for node in ast.walk(statement):
        match node:
            case ast.Import(names=names) | ast.ImportFrom(names=names):
                found |= {(one.asname or one.name).partition(".")[0] for one in names}
            case ast.Name(id=name, ctx=ast.Store()):
                found.add(name)
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                found.add(name)
    return found
