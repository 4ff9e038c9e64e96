"""Objects below a directory, in the order of their names."""

from __future__ import annotations

import stat

from drkit.model.objects import ObjectInfo
from drkit.storage import files
from drkit.storage.names import is_part

TYPE_CHECKING = False  # without importing typing
if TYPE_CHECKING:
    from collections.abc import Iterator

    from drkit.storage.files import Descriptor


def walk(here: Descriptor, path: str, start: str) -> Iterator[ObjectInfo]:
    """Yield the objects in and below `here`; what vanishes meanwhile is left out.

    Args:
        path: where `here` is, with a slash behind it; `""` at the root.
        start: what names in `here` start with.
    """
    for key in _sorted_keys(here, start):
        try:
            found = files.status(here, key.rstrip("/"))
            child = files.enter(here, key[:-1]) if key.endswith("/") else None
        except FileNotFoundError:
            continue
        if child is not None:
            with child:
                yield from walk(child, path + key, "")
        elif stat.S_ISREG(found.st_mode):
            yield ObjectInfo(path + key, found.st_size)


def _sorted_keys(here: Descriptor, start: str) -> list[str]:
    """Return a directory's entries, subdirectories with a slash behind them.

    With the slash they sort as the objects below them do: `a-b` comes before `a/b`.
    """
    return sorted(
        f"{name}/" if is_directory else name
        for name, is_directory in files.entries(here)
        if name.startswith(start) and is_part(name)
    )
