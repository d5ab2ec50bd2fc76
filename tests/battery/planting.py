"""Change one symbol of a package: a function, a class, a constant, or an object of an SQL script, found by its name.

Neither the symbol's file, nor its line, nor how the code is laid out matters. A name is the end of a dotted path:
`STRETCH`, `rate.STRETCH` and `pace.rate.STRETCH` are the same constant. Code is compared as syntax trees, text word by word.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

_SQL_OBJECT = re.compile(r"^CREATE (?:TABLE|VIEW|TRIGGER|INDEX) (\w+).*?(?=^CREATE |\Z)", re.MULTILINE | re.DOTALL)
_NOT_COMPARED = ("ctx", "kind", "type_comment")  # a name is the same name where it is read and where it is assigned


class Unplantable(ValueError):
    """Why a change cannot be made: its symbol, or the code within it, is not there exactly once."""


@dataclass(frozen=True, slots=True)
class Symbol:
    """One definition. `node` is Python's; `span` is the place of an SQL object in its file."""

    name: str
    path: Path
    node: ast.stmt | None = None
    span: tuple[int, int] = (0, 0)


class Package:
    """A folder with Python modules and SQL scripts. Nothing in it is written.

    In code, `old` is an expression, or statements that follow each other, and `...` in it stands for any expression or any
    block; the same in `new` is what was there. In a text (a constant that is a string, an SQL object), `old` is a piece of it.
    Without `old`, `new` is the whole body of a function or the whole value of a constant.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def changed(self, name: str, old: str, new: str) -> tuple[Path, str]:
        """The symbol's file below the package, and its text with the change in it. Unplantable."""
        symbol = self.find(name)
        if symbol.node is None:
            return symbol.path, self._changed_object(symbol, old, new)
        tree = self._tree(symbol.path)  # a fresh one: it is changed in place
        (node,) = (found.node for found in _definitions(tree, symbol.path) if found.name == symbol.name)
        assert node is not None
        _change(node, symbol.name, old, new)
        return symbol.path, ast.unparse(ast.fix_missing_locations(tree))

    def check(self, name: str, old: str, new: str) -> None:
        """Unplantable where `changed` would be, in a tenth of its time; SyntaxError where the new code is none."""
        symbol = self.find(name)
        if symbol.node is None:
            self._changed_object(symbol, old, new)
        elif old and (text := _text_of(symbol.node)) is not None:
            _changed_text(text, symbol.name, old, new)
        else:
            ast.parse(new)
            if old:
                _place(symbol.node, symbol.name, old).check(new)

    def find(self, name: str) -> Symbol:
        """The one symbol whose dotted path ends with this name. Unplantable."""
        found = [symbol for symbol in self._symbols if f".{symbol.name}".endswith(f".{name}")]
        if len(found) != 1:
            raise Unplantable(f"{name} is defined {_times(len(found))}")
        return found[0]

    @cached_property
    def _symbols(self) -> tuple[Symbol, ...]:
        code = (_definitions(self._tree(path), path) for path in self._files("py"))
        texts = (_objects(self._text(path), path) for path in self._files("sql"))
        return tuple(chain.from_iterable([*code, *texts]))

    def _files(self, kind: str) -> list[Path]:
        return [path.relative_to(self._root) for path in sorted(self._root.rglob(f"*.{kind}"))]

    def _text(self, path: Path) -> str:
        return (self._root / path).read_text("utf-8")

    def _tree(self, path: Path) -> ast.Module:
        return ast.parse(self._text(path))

    def _changed_object(self, symbol: Symbol, old: str, new: str) -> str:
        text, (begin, end) = self._text(symbol.path), symbol.span
        return text[:begin] + _changed_text(text[begin:end], symbol.name, old, new) + text[end:]


# -- symbols ------------------------------------------------------------------------------------------------------------


def _definitions(tree: ast.Module, path: Path) -> Iterator[Symbol]:
    """Functions, classes and constants of a module, and those of its classes."""
    return _within(tree.body, _module(path), path)


def _within(body: list[ast.stmt], place: str, path: Path) -> Iterator[Symbol]:
    for node in body:
        for name in _names(node):
            yield Symbol(f"{place}.{name}", path, node)
            if isinstance(node, ast.ClassDef):
                yield from _within(node.body, f"{place}.{name}", path)


def _names(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        return [target.id for target in targets if isinstance(target, ast.Name)]
    return []


def _objects(script: str, path: Path) -> Iterator[Symbol]:
    for found in _SQL_OBJECT.finditer(script):
        yield Symbol(f"{_module(path)}.{found[1]}", path, span=found.span())


def _module(path: Path) -> str:
    return ".".join(path.with_suffix("").parts)


# -- changes ------------------------------------------------------------------------------------------------------------


def _change(node: ast.stmt, name: str, old: str, new: str) -> None:
    """Change the definition in place."""
    if old and (text := _text_of(node)) is not None:
        new, old = repr(_changed_text(text, name, old, new)), ""
    if old:
        _place(node, name, old).fill(new)
    elif isinstance(node, ast.Assign | ast.AnnAssign):
        node.value = _expression(new)
    else:
        assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        node.body = ast.parse(new).body


def _text_of(node: ast.stmt) -> str | None:
    """The text of a constant that is one."""
    value = node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None
    return value.value if isinstance(value, ast.Constant) and isinstance(value.value, str) else None


def _changed_text(text: str, name: str, old: str, new: str) -> str:
    """The text with one piece replaced, whatever blanks are between its words."""
    pattern = r"\s+".join(map(re.escape, old.split()))
    changed, count = re.subn(pattern, lambda _: new, text)
    if count != 1:
        raise Unplantable(f"{name} has {old!r} {_times(count)}")
    return changed


@dataclass(frozen=True, slots=True)
class _Place:
    """Where code was found: a field of a node, or a part of the list in it; and what `...` stood for."""

    parent: ast.AST
    field: str
    part: slice | None
    gaps: list[Any]

    @property
    def _takes_statements(self) -> bool:
        return self.part is not None and isinstance(getattr(self.parent, self.field)[self.part.start], ast.stmt)

    def check(self, new: str) -> None:
        """SyntaxError where the new code does not fit: statements where an expression is."""
        if not self._takes_statements:
            _expression(new)

    def fill(self, new: str) -> None:
        filling = _Filling(self.gaps)
        if self.part is None:
            setattr(self.parent, self.field, filling.visit(_expression(new)))
            return
        there = getattr(self.parent, self.field)
        there[self.part] = filling.block(new) if self._takes_statements else [filling.visit(_expression(new))]


def _place(node: ast.stmt, name: str, old: str) -> _Place:
    """The one place with the old code. Unplantable."""
    places = list(_places(node, ast.parse(old).body))
    if len(places) != 1:
        raise Unplantable(f"{name} has `{old.strip()}` {_times(len(places))}")
    return places[0]


def _places(node: ast.AST, pattern: list[ast.stmt]) -> Iterator[_Place]:
    """Every place below the node with the pattern: one expression, or a run of statements."""
    first = pattern[0]
    wanted = first.value if len(pattern) == 1 and isinstance(first, ast.Expr) else None
    for parent, field, part, found in _parts(node, len(pattern)):
        gaps: list[Any] = []
        if _same(wanted, found[0] if part else found, gaps) if wanted else _same(pattern, found, gaps):
            yield _Place(parent, field, part, gaps)


def _parts(node: ast.AST, length: int) -> Iterator[tuple[ast.AST, str, slice | None, Any]]:
    """Every node below this one, and every run of so many in a list: whose field it is, and its part of the list."""
    for parent in ast.walk(node):
        for field, value in ast.iter_fields(parent):
            if not isinstance(value, list):
                yield parent, field, None, value
                continue
            for at in range(len(value) - length + 1):
                yield parent, field, slice(at, at + length), value[at : at + length]


def _same(pattern: Any, found: Any, gaps: list[Any]) -> bool:
    """Whether the code is the pattern's; `gaps` gets what `...` stands for."""
    if _is_gap(pattern) and isinstance(found, ast.expr):
        gaps.append(found)
        return True
    if isinstance(pattern, list) and isinstance(found, list):
        if found and len(pattern) == 1 and isinstance(pattern[0], ast.Expr) and _is_gap(pattern[0].value):
            gaps.append(found)
            return True
        return len(pattern) == len(found) and all(_same(*pair, gaps) for pair in zip(pattern, found, strict=True))
    if isinstance(pattern, ast.AST):
        fields = [name for name in pattern._fields if name not in _NOT_COMPARED]
        return type(pattern) is type(found) and all(
            _same(getattr(pattern, name, None), getattr(found, name, None), gaps) for name in fields
        )
    return type(pattern) is type(found) and pattern == found  # True is not 1


def _is_gap(node: Any) -> bool:
    return isinstance(node, ast.Constant) and node.value is ...


class _Filling(ast.NodeTransformer):
    """Puts what was found where the new code has `...`, in order."""

    def __init__(self, gaps: list[Any]) -> None:
        self._gaps = iter(gaps)

    def block(self, new: str) -> list[ast.stmt]:
        module = self.visit(ast.parse(new))
        assert isinstance(module, ast.Module)
        return module.body

    def visit_Expr(self, node: ast.Expr) -> Any:
        return next(self._gaps) if _is_gap(node.value) else self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> Any:
        return next(self._gaps) if _is_gap(node) else node


def _expression(text: str) -> ast.expr:
    return ast.parse(text, mode="eval").body


def _times(count: int) -> str:
    return {0: "nowhere", 2: "twice"}.get(count, f"{count} times")
