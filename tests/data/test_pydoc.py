import subprocess
import sys

import pytest

from recipes.data import pydoc

MODULE = '''
"""A module."""

class SparseMatrix(Base, pkg.Other):
    """A matrix with few entries. Most are zero."""

    def getRow_2(self, rowIndex, *args, key=None, **kw):
        """Return row `rowIndex`, e.g. the first one

        More text.
        """
        def inner():
            """Inner words that may not leak."""
            return 1
        if rowIndex >= 0:
            return self.rows[rowIndex]

    def undocumented(self):
        pass

async def fetch(url): "Fetch the url."; return url
'''


def test_pairs_of_a_module():
    pairs = {pair.line: pair for pair in pydoc.pairs_of(MODULE, "pkg/linAlg/sparse.py")}
    assert [pairs[line].target for line in sorted(pairs)] == [
        "A matrix with few entries.",
        "Return row `rowIndex`, e.g. the first one.",
        "Inner words that may not leak.",
        "Fetch the url.",
    ]
    head = "class sparse matrix ( base , other ) of lin alg sparse : get row 2 undocumented"
    assert pairs[4].source == head
    assert pairs[7].source == (
        "def get row 2 ( row index , args , key , kw ) in sparse matrix of lin alg sparse : def inner ( ) : return 1 "
        "if row index >= 0 : return self . rows [ row index ]"
    )
    assert {pair.file for pair in pairs.values()} == {"pkg/linAlg/sparse.py"}


def test_modules_without_use():
    assert pydoc.pairs_of("def broken(:", "a.py") == []
    assert pydoc.pairs_of("x = 1", "a.py") == []


@pytest.mark.parametrize(
    ("docstring", "sentence"),
    [
        ("Return x. Then y.", "Return x."),
        ("return x", "Return x."),
        ("Return\n    the\n  value, i.e. x.  And more", "Return the value, i.e. x."),
        ("Options:\n  - one\n  - two", ""),
        ("Known options are:\n  - one", "Known options are."),
        ("f(x, y) -> int.\n\nWhat follows.", ""),
        ("f(x) -> int. Return the size of x.", "Return the size of x."),
        ("Größe eines Baums.", ""),
        ("Word", ""),
        (">>> f(1)\n2", ""),
        ("a " * 40, ""),
        ("", ""),
    ],
)
def test_first_sentence(docstring, sentence):
    assert pydoc.first_sentence(docstring) == sentence


@pytest.mark.parametrize(
    ("name", "words"),
    [("getSysPath_2", "get sys path 2"), ("_HTTPServer", "http server"), ("__init__", "init"), ("x", "x")],
)
def test_names_are_split_into_words(name, words):
    assert pydoc.words_of(name) == words


def test_files_are_sorted_and_without_tests_and_packages():
    names = [path.relative_to(pydoc.root()).as_posix() for path in pydoc.files()]
    assert names == sorted(names)
    assert "argparse.py" in names
    assert not any(part in ("site-packages", "test", "tests") for name in names for part in name.split("/"))


def test_the_order_is_the_same_in_every_process():
    script = (
        "from recipes.data import pydoc; "
        "print([pydoc.pairs_of(p.read_text('utf-8'), p.name) for p in pydoc.files() if p.name.startswith('t')])"
    )
    outputs = [subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout for _ in range(2)]
    assert outputs[0] == outputs[1]
    assert len(outputs[0]) > 1000
