"""Every place in the host that writes to the journal, found in its source: none can be forgotten.

A site is a call of a writing method on something called ``journal``, ``recorder`` or ``documents``. Which
methods write is found in the source, too: those of ``Journal`` that open a transaction, those of
``AsyncJournal`` that call them, and those of ``Recorder``, ``RunStreams`` and ``DocumentWriter`` that end
there.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from hil_tests.harness import REPOSITORY

CONTROLLER = REPOSITORY / "controller"
PLUMBING = (
    "journal.py", "journal_store.py", "journal_read.py", "journal_prune.py", "record.py", "run_documents.py",
    "documents.py",
)  # fmt: skip
RECEIVERS = frozenset({"journal", "recorder", "documents"})


@dataclass(frozen=True)
class Site:
    """One call in the host that ends in the journal."""

    name: str  # file:function:receiver.method, with a number if there are several
    file: str  # relative to the repository
    verb: str
    line: int
    end_line: int


@cache
def writing_methods() -> frozenset[str]:
    """Return the names of all methods through which something is written."""
    store = _methods("journal_store.py", "Journal")
    writers = _closure(store, {"_transaction"})
    front = _methods("journal.py", "AsyncJournal")
    direct = {name for name, body in front.items() if _names(body) & {*writers, "_posts"}}
    writers |= {name for name in direct if name != "_call"} | (writers & set(front))
    for file, name in (
        ("documents.py", "DocumentWriter"), ("run_documents.py", "RunStreams"), ("record.py", "Recorder"),
    ):  # fmt: skip
        writers |= _closure(_methods(file, name), set(writers))
    return frozenset(name for name in writers if not name.startswith("_"))


@cache
def writing_functions() -> frozenset[str]:
    """Return the functions of the journal's own files that write on behalf of others."""
    found: set[str] = set()
    for file in PLUMBING:
        for node in ast.parse((CONTROLLER / file).read_text()).body:
            if isinstance(node, ast.AsyncFunctionDef) and _names(node) & writing_methods():
                found.add(node.name)
    return frozenset(found)


@cache
def sites() -> tuple[Site, ...]:
    """Return every writing call of the host outside of the journal's own files, in order."""
    found: list[Site] = []
    for path in sorted(CONTROLLER.rglob("*.py")):
        if path.parent == CONTROLLER and path.name in PLUMBING:
            continue
        found += _sites_of(path)
    return tuple(found)


def _sites_of(path: Path) -> Iterator[Site]:
    file = str(path.relative_to(REPOSITORY))
    names: dict[str, int] = {}
    for function, call in _calls(ast.parse(path.read_text()), ""):
        verb, receiver = _tail(call.func), ""
        if isinstance(call.func, ast.Attribute):
            receiver = _tail(call.func.value).lstrip("_")
            if verb not in writing_methods() or receiver not in RECEIVERS:
                continue
        elif verb not in writing_functions():
            continue
        name = f"{path.relative_to(CONTROLLER)}:{function}:{receiver}.{verb}".replace(":.", ":")
        names[name] = names.get(name, 0) + 1
        number = f"#{names[name]}" if names[name] > 1 else ""
        yield Site(name + number, file, verb, call.lineno, call.end_lineno or call.lineno)


def _calls(node: ast.AST, function: str) -> Iterator[tuple[str, ast.Call]]:
    """Yield the calls below a node, each with the function it stands in."""
    for child in ast.iter_child_nodes(node):
        inside = function
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            inside = f"{function}.{child.name}".lstrip(".")
        if isinstance(child, ast.Call):
            yield inside, child
        yield from _calls(child, inside)


def _tail(node: ast.AST) -> str:
    """Return the last name of what a method is called on."""
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _methods(file: str, name: str) -> dict[str, ast.AST]:
    tree = ast.parse((CONTROLLER / file).read_text())
    (found,) = (node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name)
    return {
        node.name: node for node in found.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def _names(body: ast.AST) -> set[str]:
    return {node.attr for node in ast.walk(body) if isinstance(node, ast.Attribute)}


def _closure(methods: dict[str, ast.AST], ends: set[str]) -> set[str]:
    """Return the methods in which one of ``ends`` is named, directly or through one another."""
    found: set[str] = set()
    while True:
        more = {name for name, body in methods.items() if name not in found and _names(body) & (ends | found)}
        if not more:
            return found
        found |= more
