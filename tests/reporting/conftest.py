import pytest
from pyarrow import fs

from recipes.reporting.page import write_report
from recipes.storage import Storage
from tests.pages import Page


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
