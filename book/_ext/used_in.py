"""A Sphinx extension: each entry of the library says which chapter uses it, and for which claims.

Read off the chapters' code: a claim uses a function if the function is called in its arguments, or in what was computed
for them, however many cells before.
"""

from __future__ import annotations

import ast
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeGuard

from sphinx.application import Sphinx

SHOWN = 6  # claims of one function that are named; a tool of the whole chapter would name nearly all
_CLAIMS = {"claim", "bound", "ordering", "identity"}


class Uses:
    """What each name of a notebook was made from, statement by statement, in the order of the cells."""

    def __init__(self) -> None:
        self.functions: dict[str, str] = {}  # full name by the name in the notebook; modules too
        self.made_from: dict[str, set[str]] = {}
        self.called: set[str] = set()
        self.claims: dict[str, list[str]] = defaultdict(list)  # by full name, first those that call it themselves
        self._indirect: dict[str, list[str]] = defaultdict(list)

    def read(self, statements: Iterable[ast.stmt], *, surely: bool = True) -> None:
        """Follow statements in their order, a loop's body twice; what runs perhaps forgets nothing of before."""
        for statement in statements:
            if isinstance(statement, (ast.Import, ast.ImportFrom)):
                self._import(statement)
            elif isinstance(statement, (ast.For, ast.While, ast.If, ast.With, ast.Try)):
                parts = list(ast.iter_child_nodes(statement))
                self._make([part for part in parts if not isinstance(part, ast.stmt)], surely=surely)
                body = [part for part in parts if isinstance(part, ast.stmt)]
                for _ in range(2 if isinstance(statement, (ast.For, ast.While)) else 1):
                    self.read(body, surely=surely and not isinstance(statement, ast.If))
            else:
                self._make([statement], surely=surely)

    def result(self) -> dict[str, list[str]]:
        """The claims of each function that is called, those that call it in their own arguments first."""
        return {name: list(dict.fromkeys([*self.claims[name], *self._indirect[name]])) for name in sorted(self.called)}

    def _import(self, statement: ast.Import | ast.ImportFrom) -> None:
        module = getattr(statement, "module", None)
        for name in statement.names:
            full = f"{module}.{name.name}" if module else name.name
            if full.startswith("lib."):
                self.functions[name.asname or name.name] = full

    def _direct(self, tree: ast.AST) -> set[str]:
        """Functions of the library that are named here: `f`, or `room.f` with an imported room."""
        found = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                if node.value.id in self.functions:
                    found.add(f"{self.functions[node.value.id]}.{node.attr}")
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in self.functions:
                found.add(self.functions[node.id])
        return found

    def _through(self, tree: ast.AST) -> set[str]:
        """Functions that went into the names used here."""
        return set().union(*(self.made_from.get(name, set()) for name in _free(tree)))

    def _make(self, parts: Sequence[ast.AST], *, surely: bool) -> None:
        """Note what a statement calls, claims and makes."""
        direct = set().union(*map(self._direct, parts))
        through = set().union(*map(self._through, parts))
        self.called |= direct
        for part in parts:
            for name, call in _claims(part):
                for function in sorted(self._direct(call)):
                    self.claims[function].append(name)
                for function in sorted(self._through(call)):
                    self._indirect[function].append(name)
        made, changed = _targets(parts)
        for target in made | changed:
            before = set() if surely and target in made else self.made_from.get(target, set())
            self.made_from[target] = before | direct | through


def _free(tree: ast.AST) -> set[str]:
    """Names that are read here and not bound here, as arguments or within a function or a comprehension."""
    if isinstance(tree, ast.Name):
        return {tree.id} if isinstance(tree.ctx, ast.Load) else set()
    found = set().union(*map(_free, ast.iter_child_nodes(tree)))
    if isinstance(tree, (ast.FunctionDef, ast.Lambda)):
        own = {node.arg for node in ast.walk(tree.args) if isinstance(node, ast.arg)}
        return found - own - {node.id for node in ast.walk(tree) if _is_stored(node)}
    if isinstance(tree, (ast.ListComp, ast.SetComp, ast.GeneratorExp, ast.DictComp)):
        return found - {node.id for part in tree.generators for node in ast.walk(part.target) if _is_stored(node)}
    return found


def _stored(tree: ast.AST) -> set[str]:
    """Names that are given a value here; those of a comprehension end with it."""
    if isinstance(tree, ast.comprehension):
        return _stored(tree.iter).union(*map(_stored, tree.ifs))
    return {tree.id} if _is_stored(tree) else set().union(*map(_stored, ast.iter_child_nodes(tree)))


def _is_stored(node: ast.AST) -> TypeGuard[ast.Name]:
    return isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)


def _targets(parts: Iterable[ast.AST]) -> tuple[set[str], set[str]]:
    """Names that a statement makes, and those that it changes: `x[0] = y`, `x += y`, `found.append(y)`."""
    made: set[str] = set()
    changed: set[str] = set()
    for part in parts:
        if isinstance(part, (ast.FunctionDef, ast.ClassDef)):
            made.add(part.name)
            continue
        names = _stored(part)
        (changed if isinstance(part, ast.AugAssign) else made).update(names)
        for node in ast.walk(part):
            if isinstance(node, (ast.Attribute, ast.Subscript)):
                held: ast.AST = node
                while isinstance(held, (ast.Attribute, ast.Subscript)):
                    held = held.value
                called = isinstance(part, ast.Expr) and isinstance(part.value, ast.Call) and part.value.func is node
                if isinstance(held, ast.Name) and (called or isinstance(node.ctx, ast.Store)):
                    changed.add(held.id)
    return made, changed


def _claims(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    """The calls that make a claim, with its name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _CLAIMS and node.args:
            first = node.args[0]
            if isinstance(first, ast.Constant) and isinstance(first.value, str):
                yield first.value, node


def uses(notebook: dict[str, Any]) -> dict[str, list[str]]:
    """The functions of the library that a notebook calls, with the claims that rest on each."""
    found = Uses()
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            found.read(ast.parse("".join(cell["source"])).body)
    return found.result()


def find_uses(app: Sphinx) -> None:
    """Read all chapters."""
    app.env.lib_uses = {  # type: ignore[attr-defined]
        path.stem: uses(json.loads(path.read_text(encoding="utf-8")))
        for path in sorted(Path(app.srcdir).glob("chapters/*.ipynb"))
    }


def used_in(name: str, chapters: dict[str, dict[str, list[str]]]) -> str:
    """The sentence for one entry, in reStructuredText; empty where no chapter uses it.

    >>> used_in("lib.a.f", {"a": {"lib.a.f": ["x", "y"]}, "b": {"lib.a.f": []}})
    'Used in :doc:`/chapters/a` (claims :claim:`x`, :claim:`y`); :doc:`/chapters/b`.'
    """
    places = []
    for chapter, functions in chapters.items():
        if name not in functions:
            continue
        claims = functions[name] if name.startswith(f"lib.{chapter}.") else []
        named = ", ".join(f":claim:`{claim}`" for claim in claims[:SHOWN])
        more = f" and {len(claims) - SHOWN} more" if len(claims) > SHOWN else ""
        noun = "claim" if len(claims) == 1 else "claims"
        places.append(f":doc:`/chapters/{chapter}`" + (f" ({noun} {named}{more})" if claims else ""))
    return f"Used in {'; '.join(places)}." if places else ""


def append_use(app: Sphinx, what: str, name: str, _object: object, _options: object, lines: list[str]) -> None:
    """Say it at the end of a docstring; autodoc calls it."""
    sentence = used_in(name, app.env.lib_uses)  # type: ignore[attr-defined]
    if what in {"function", "class"} and sentence:
        lines += ["", sentence, ""]


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect both steps, the second after docstrings are translated."""
    app.connect("builder-inited", find_uses)
    app.connect("autodoc-process-docstring", append_use, priority=950)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
