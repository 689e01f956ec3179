"""Every text of an error stands in docs/troubleshooting.md, where it is found by the parts that do not vary.

Taken for one is each literal of three words and more that is no documentation (core/tests/error_texts.rs does so for
Rust)."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
# Shorter parts are anywhere.
SHORTEST = 12


def test_every_text_is_documented():
    page = " ".join((ROOT / "docs/troubleshooting.md").read_text().split())
    texts = [
        (source.name, text)
        for source in (ROOT / "python/lib/mitosis").glob("*.py")
        for text in _texts(ast.parse(source.read_text()))
    ]
    assert len(texts) > 15
    missing = [(name, part) for name, text in texts for part in _parts(text) if part not in page]
    assert missing == []


def test_texts_are_told_from_documentation():
    source = '''
"""A module of some words."""
limit: int
"""Documentation of an attribute."""
raise ValueError(f"the limit is {limit!r}: " "give a whole number")
def __repr__(self): return "what developers see here"
'''
    assert list(_texts(ast.parse(source))) == [["the limit is ", ": give a whole number"]]
    assert _parts(["the limit is ", ": give a whole number"]) == ["the limit is", "give a whole number"]


def _texts(tree: ast.AST) -> Iterator[list[str]]:
    """The constant parts of each text."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            continue
        if isinstance(node, ast.FunctionDef) and node.name == "__repr__":
            continue
        if isinstance(node, ast.JoinedStr):
            parts = [part.value for part in node.values if isinstance(part, ast.Constant)]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            parts = [node.value]
        else:
            yield from _texts(node)
            continue
        if len("{}".join(parts).split()) >= 3:
            yield parts


def _parts(text: list[str]) -> list[str]:
    parts = (" ".join(part.split()).removeprefix(": ") for part in text)
    return [part for part in parts if len(part) >= SHORTEST]
