"""A text task that every machine already holds: describe a function of Python's standard library.

Source: what the code says, as lower-case words: the name, the arguments, where it stands, words of its body.
Target: the first sentence of its docstring. The code shares words with its description once names are split
(``_get_sys_path`` -> ``get sys path``), so that a small model can learn to describe it in minutes.
"""

from __future__ import annotations

import ast
import keyword
import os
import re
import sysconfig
import warnings
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

MAX_BODY_WORDS = 16
MAX_BODY_LINES = 60
MIN_TARGET_WORDS, MAX_TARGET_WORDS = 2, 30

_SKIPPED_FOLDERS = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"}
_PART_OF_NAME = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|\d+")
_NAME = re.compile(r"[A-Za-z_][A-Za-z_0-9]*")
# A sentence ends at . ! or ? before a space, but not after e.g. and the like.
_SENTENCE_END = re.compile(r"(?<=[a-z0-9)\]'\"`>][.!?])(?<!e\.g\.)(?<!i\.e\.)(?<!etc\.)(?<!vs\.)(?<!cf\.)['\")]*\s")
_LIST_OR_EXAMPLE = re.compile(r"(>>>|[-*+] |:\w+|@\w+|\w+\s*:\s*$)")
_SIGNATURE = re.compile(r"^[\w.]+\([^)]*\)\s*(->\s*[\w\[\], .]+?)?(\s*[:.]|\s--?|$)\s*")
_Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


class Pair(NamedTuple):
    """One example; ``file`` is relative to the standard library, ``line`` 1-based."""

    source: str
    target: str
    file: str
    line: int


def root() -> Path:
    """The folder of this Python's standard library."""
    return Path(sysconfig.get_paths()["stdlib"])


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
        name = path.relative_to(base).as_posix()
        for pair in _pairs_of_file(path, name):
            pairs.setdefault((pair.source, pair.target), pair)
    return list(pairs.values())


def _pairs_of_file(path: Path, name: str) -> Iterator[Pair]:
    try:
        text = path.read_text("utf-8")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in their strings
            tree = ast.parse(text)
    except (OSError, SyntaxError, ValueError, RecursionError):
        return  # a few files are deliberately broken (lib2to3's samples)
    module = name.removesuffix(".py").removesuffix("/__init__").split("/")
    lines = text.splitlines()
    for node, outer in _definitions(tree, []):
        docstring = ast.get_docstring(node, clean=False)
        target = first_sentence(docstring) if docstring else ""
        if target:
            yield Pair(_source(node, outer, module, lines), target, name, node.lineno)


def _definitions(node: ast.AST, outer: list[str]) -> Iterator[tuple[_Definition, list[str]]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, _Definition):
            yield child, outer
            yield from _definitions(child, [*outer, child.name])
        elif isinstance(child, ast.stmt):  # definitions stand in statements only
            yield from _definitions(child, outer)


def _source(node: _Definition, outer: list[str], module: list[str], lines: list[str]) -> str:
    """``name ( arguments ) outer class . module : words of the body``"""
    if isinstance(node, ast.ClassDef):
        head = f"class {words_of(node.name)} ( {' , '.join(words_of(ast.unparse(base)) for base in node.bases)} )"
        names = [child.name for child in node.body if isinstance(child, _Definition)]
    else:
        head = f"{words_of(node.name)} ( {' , '.join(_arguments(node.args))} )"
        body = lines[node.body[0].end_lineno : node.end_lineno][:MAX_BODY_LINES]
        names = [name for name in _NAME.findall("\n".join(body)) if not keyword.iskeyword(name)]
    body_words = list(dict.fromkeys(word for name in names for word in words_of(name).split()))
    place = f"{words_of(' '.join(outer))} . {words_of(' '.join(module[-2:]))}"
    return " ".join(f"{head} {place} : {' '.join(body_words[:MAX_BODY_WORDS])}".split())


def _arguments(arguments: ast.arguments) -> list[str]:
    plain = [argument.arg for argument in arguments.posonlyargs + arguments.args if argument.arg not in ("self", "cls")]
    named = [f"* {words_of(arguments.vararg.arg)}"] if arguments.vararg else []
    named += [words_of(argument.arg) for argument in arguments.kwonlyargs]
    named += [f"** {words_of(arguments.kwarg.arg)}"] if arguments.kwarg else []
    return [words_of(name) for name in plain] + named


@lru_cache(maxsize=65536)
def words_of(name: str) -> str:
    """``"getSysPath_2"`` -> ``"get sys path 2"``"""
    return " ".join(_PART_OF_NAME.findall(name.replace("_", " "))).lower()


def first_sentence(docstring: str) -> str:
    """The first sentence, as one line that ends in a full stop; empty where there is none of usable length."""
    paragraph = re.split(r"\n\s*\n", docstring.strip(), maxsplit=1)[0]
    lines: list[str] = []
    for line in paragraph.split("\n"):
        if lines and _LIST_OR_EXAMPLE.match(line.strip()):
            break
        lines.append(line.strip())
    text = " ".join(" ".join(lines).split())
    signature = _SIGNATURE.match(text)
    if signature and ("->" in signature.group(0) or signature.end() == len(text)):
        text = text[signature.end() :]
    end = _SENTENCE_END.search(text + " ")
    text = (text[: end.end()] if end else text).strip()
    if (
        not MIN_TARGET_WORDS <= len(text.split()) <= MAX_TARGET_WORDS
        or not text.isascii()
        or not re.search("[a-z]{2}", text)
    ):
        return ""
    if text[-1] not in ".!?":
        text = text.rstrip(":;,") + "."
    return text[0].upper() + text[1:]
