import pytest
from pyarrow import fs

from recipes.storage import Storage


@pytest.fixture
def object_store(tmp_path) -> Storage:
    """tmp_path behind pyarrow's generic filesystem interface, as an s3:// folder is."""
    storage = Storage(tmp_path)
    storage._fs = fs.SubTreeFileSystem(str(tmp_path.parent), fs.LocalFileSystem())
    storage._root = tmp_path.name
    assert storage.local is None
    return storage
