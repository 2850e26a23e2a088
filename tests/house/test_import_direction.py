"""Imports point one way: store <- env <- (adapters, rl) <- benchmarks <- the files at the top."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

MAY_IMPORT = {
    "store": {"store"},
    "env": {"store", "env"},
    "adapters": {"store", "env", "adapters"},
    "rl": {"store", "env", "rl"},
    "benchmarks": {"store", "env", "adapters", "rl", "benchmarks"},
}
ROOMS = sorted(MAY_IMPORT)


def rooms_imported(source: str, package: str) -> set[str]:
    """The rooms that a module of `package` (dotted) imports, inside functions and `TYPE_CHECKING` too."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = (
                ".".join(package.split(".")[: len(package.split(".")) - node.level + 1]) if node.level else ""
            )
            module = ".".join(part for part in (base, node.module) if part)
            names |= {f"{module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Call) and _is_import_call(node):
            names |= {arg.value for arg in node.args if isinstance(arg, ast.Constant)}
    return {name.split(".")[1] for name in names if isinstance(name, str) and name.startswith("raybolt.")}


def _is_import_call(node: ast.Call) -> bool:
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    return name in ("import_module", "__import__")


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_the_rooms_below_it(room):
    wrong = {
        str(path.relative_to(ROOT)): sorted(extra)
        for path in (ROOT / room).rglob("*.py")
        if (extra := rooms_imported(path.read_text(), _package(path)) - MAY_IMPORT[room])
    }
    assert wrong == {}


def _package(path: Path) -> str:
    return ".".join(("raybolt", *path.relative_to(ROOT).parent.parts))


@pytest.mark.parametrize(
    ("source", "rooms"),
    [
        ("import raybolt.rl.trainer", {"rl"}),
        ("from raybolt.store import types", {"store"}),
        ("from raybolt import rl", {"rl"}),
        ("def f():\n    from raybolt.adapters.wrap import wrap", {"adapters"}),
        ("from ..rl import recipes", {"rl"}),
        ("from . import chat", {"env"}),
        ("import_module('raybolt.rl.trainer')", {"rl"}),
        ("import numpy", set()),
    ],
)
def test_every_way_to_import_is_seen(source, rooms):
    assert rooms_imported(source, "raybolt.env") == rooms
