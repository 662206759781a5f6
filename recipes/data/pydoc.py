"""A text task that every machine already holds: describe a function of Python's standard library.

Source: what the code says, as lower-case words: kind, name, arguments, enclosing class, module, then the first words of
the body without any docstring. Target: the first sentence of the docstring. Names are split (``_get_sys_path`` ->
``get sys path``), so that code and description share words and a small model learns to describe in minutes.
"""

from __future__ import annotations

import ast
import os
import re
import sysconfig
import warnings
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

MAX_BODY_WORDS = 60
MIN_TARGET_WORDS, MAX_TARGET_WORDS = 2, 30

_SKIPPED_FOLDERS = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"}
_PART_OF_NAME = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|\d+")
# Names, numbers, operators of two or three characters, any other mark.
_CODE = re.compile(r"[A-Za-z_]\w*|\d+|\*\*=?|//=?|[-+*/%&|^=<>!:]=|->|<<|>>|[^\w\s]")
# As the parser counts lines: a form feed ends none.
_LINE_END = re.compile(r"\r\n|\r|\n")
_BLANK_LINE = re.compile(r"\n[ \t]*\n")
_LIST_OR_EXAMPLE = re.compile(r"(>>>|[-*+] |[:@]\w+|\w+\s*:\s*$)")
# "name(arguments) -> type.": written by hand in place of a sentence.
_SIGNATURE = re.compile(r"^[\w.]+\([^)]*\)\s*(->\s*[\w\[\], .]+?)?(\s*[:.]|\s--?|$)\s*")
# A sentence ends at . ! or ? before a space, but not after e.g. and the like.
_SENTENCE_END = re.compile(r"(?<=[a-z0-9)\]'\"`>][.!?])(?<!e\.g\.)(?<!i\.e\.)(?<!etc\.)(?<!vs\.)(?<!cf\.)['\")]*\s")
_Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


class Pair(NamedTuple):
    """One example; ``file`` is relative to the standard library, ``line`` 1-based."""

    source: str
    target: str
    file: str
    line: int


def root() -> Path:
    """The folder of this Python's standard library."""
    return Path(sysconfig.get_path("stdlib"))


def files() -> list[Path]:
    """Its Python files, tests and installed packages left out, in an order that is the same on every machine."""
    found: list[tuple[str, Path]] = []
    base = root()
    for folder, names, file_names in os.walk(base):
        names[:] = [name for name in names if name not in _SKIPPED_FOLDERS]
        paths = [Path(folder, name) for name in file_names if name.endswith(".py")]
        found += [(path.relative_to(base).as_posix(), path) for path in paths]
    return [path for _, path in sorted(found)]


def read_pairs() -> list[Pair]:
    """All documented functions and classes of the standard library; no pair twice. Takes some seconds."""
    pairs: dict[tuple[str, str], Pair] = {}
    base = root()
    for path in files():
        try:
            text = path.read_text("utf-8")
        except (OSError, UnicodeDecodeError):
            continue  # templates and samples in other encodings
        for pair in pairs_of(text, path.relative_to(base).as_posix()):
            pairs.setdefault((pair.source, pair.target), pair)
    return list(pairs.values())


def pairs_of(text: str, file: str) -> list[Pair]:
    """The documented functions and classes of one module, by line; none if it cannot be parsed."""
    if "def " not in text and "class " not in text:
        return []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in strings
            tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError):
        return []  # a few files are broken on purpose
    module = file.removesuffix(".py").removesuffix("/__init__").split("/")
    found = list(_definitions(tree, ()))
    lines = _LINE_END.split(text)
    # No docstring may reach a source, an inner function's neither.
    for node, _ in found:
        if ast.get_docstring(node, clean=False) is not None:
            first = node.body[0]
            for number in range(first.lineno - 1, first.end_lineno or first.lineno):
                lines[number] = ""
    pairs = []
    for node, outer in found:
        target = first_sentence(ast.get_docstring(node, clean=False) or "")
        if target:
            pairs.append(Pair(_source(node, outer, module, lines), target, file, node.lineno))
    return pairs


def _definitions(node: ast.AST, outer: tuple[str, ...]) -> Iterator[tuple[_Definition, tuple[str, ...]]]:
    """Definitions below ``node``, with the names around them; expressions hold none and are not entered."""
    for part in ("body", "handlers", "orelse", "finalbody", "cases"):
        for child in getattr(node, part, ()):
            if isinstance(child, _Definition):
                yield child, outer
                yield from _definitions(child, (*outer, child.name))
            elif hasattr(child, "body"):
                yield from _definitions(child, outer)


def _source(node: _Definition, outer: tuple[str, ...], module: list[str], lines: list[str]) -> str:
    """``def name ( arguments ) in class of module : words of the body``"""
    if isinstance(node, ast.ClassDef):
        kind = "class"
        names = [getattr(base, "id", getattr(base, "attr", "")) for base in node.bases]
        body = " ".join(child.name for child in node.body if isinstance(child, _Definition))
    else:
        kind = "def"
        names = [name for name in _argument_names(node.args) if name not in ("self", "cls")]
        body = "\n".join(lines[node.body[0].lineno - 1 : node.end_lineno])
    header = f"{kind} {words_of(node.name)} ( {' , '.join(map(words_of, filter(None, names)))} )"
    place = f"{'in' if outer else ''} {' '.join(map(words_of, outer))} of {' '.join(map(words_of, module[-2:]))} :"
    words: list[str] = []
    for token in _CODE.findall(body[: 20 * MAX_BODY_WORDS]):
        words += words_of(token).split() if token[0].isalpha() or token[0] == "_" else [token]
    return " ".join([*header.split(), *place.split(), *words[:MAX_BODY_WORDS]])


def _argument_names(arguments: ast.arguments) -> list[str]:
    every = [*arguments.posonlyargs, *arguments.args, arguments.vararg, *arguments.kwonlyargs, arguments.kwarg]
    return [argument.arg for argument in every if argument is not None]


@lru_cache(maxsize=65_536)
def words_of(name: str) -> str:
    """``"getSysPath_2"`` -> ``"get sys path 2"``"""
    return " ".join(_PART_OF_NAME.findall(name)).lower()


def first_sentence(docstring: str) -> str:
    """The first sentence, as one line that ends in a full stop; empty where there is none of usable length."""
    lines: list[str] = []
    for line in _BLANK_LINE.split(docstring.strip(), maxsplit=1)[0].split("\n"):
        if lines and _LIST_OR_EXAMPLE.match(line.strip()):
            break
        lines.append(line.strip())
    text = " ".join(" ".join(lines).split())
    signature = _SIGNATURE.match(text)
    if signature and ("->" in signature.group() or signature.end() == len(text)):
        text = text[signature.end() :]
    end = _SENTENCE_END.search(text + " ")
    text = (text[: end.end()] if end else text).strip()
    fits = MIN_TARGET_WORDS <= len(text.split()) <= MAX_TARGET_WORDS
    if not fits or text.startswith(">>>") or not text.isascii() or not re.search("[a-z]{2}", text):
        return ""
    if text[-1] not in ".!?":
        text = text.rstrip(":;,") + "."
    return text[0].upper() + text[1:]
