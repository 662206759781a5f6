from html.parser import HTMLParser

import pytest
from pyarrow import fs

from recipes.reporting.page import write_report
from recipes.storage import Storage


class Page(HTMLParser):
    """A parsed page: its tags with attributes, and its text without markup."""

    def __init__(self, html):
        super().__init__()
        self.html, self.tags, self.open, self.words = html, [], [], []
        self.feed(html)
        assert self.open == [], "unclosed tags"

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "source", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


@pytest.fixture
def object_store(tmp_path) -> Storage:
    """tmp_path behind pyarrow's generic filesystem interface, as an s3:// folder is."""
    storage = Storage(tmp_path)
    storage._fs = fs.SubTreeFileSystem(str(tmp_path.parent), fs.LocalFileSystem())
    storage._root = tmp_path.name
    assert storage.local is None
    return storage


@pytest.fixture(scope="session")
def page_of():
    """Writes a run folder's report and gives it parsed."""

    def page(folder):
        write_report(Storage(folder))
        return Page((folder / "report.html").read_bytes().decode("utf-8"))

    return page
