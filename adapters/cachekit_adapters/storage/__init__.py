"""Files in IPFS where there is a daemon, else in a directory: one wrapper, and the functions of a backend beside it.

storage = get_storage_wrapper()
where = storage.write_file(model_path, model_data, pin=True)      # a CID, or the path of a local copy
storage.read_file(model_path) == storage.read_file(where) == model_data
"""

from cachekit_adapters.storage.router import (
    add_bytes,
    add_path,
    block_get,
    block_put,
    cat,
    fetch,
    get_to_path,
    pin,
    unpin,
)
from cachekit_adapters.storage.wrapper import StorageWrapper, get_storage_wrapper, reset_storage_wrapper

HAVE_STORAGE_WRAPPER = True
"""For code that imports it beside the class, as the systems that this replaces had it."""

__all__ = [
    "HAVE_STORAGE_WRAPPER",
    "StorageWrapper",
    "add_bytes",
    "add_path",
    "block_get",
    "block_put",
    "cat",
    "fetch",
    "get_storage_wrapper",
    "get_to_path",
    "pin",
    "reset_storage_wrapper",
    "unpin",
]
