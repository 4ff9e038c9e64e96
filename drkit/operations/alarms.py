"""What is odd about a log that could be read, for whoever is on call."""

from __future__ import annotations

from typing import TYPE_CHECKING

from drkit.errors import Corrupt

if TYPE_CHECKING:
    from collections.abc import Iterator

    from drkit.protocols import Progress
    from drkit.repository.repository import Repository

_SHOWN = 3


def log_alarms(repository: Repository) -> tuple[str, ...]:
    """Return a sentence for each oddity of the log, as it was read last."""
    return tuple(_alarms(repository))


def warn_of_log(repository: Repository, progress: Progress) -> None:
    """Warn of each oddity of the log, as it was read last."""
    for alarm in log_alarms(repository):
        progress.warning(alarm)


def need_whole_log(repository: Repository) -> None:
    """Read the log.

    Raises:
        Corrupt: an entry can't be believed; the hint says how to do without it.
    """
    repository.log.read_proven()
    broken = repository.log.broken
    if broken is not None:
        raise Corrupt(
            broken.message,
            hint=f"{broken.hint or 'restore it from a copy of the repository'}; or "
            "restore by what is proven in front of it, with --log-until "
            f"{repository.log.head}",
        ) from broken


def _alarms(repository: Repository) -> Iterator[str]:
    log, name = repository.log, repository.layout.log_entry
    if log.void:
        first = log.void[0]
        others = f" and {len(log.void) - 1} more" if len(log.void) > 1 else ""
        yield (
            f"{name(first.sequence)}{others} lies where a log entry may come, and is "
            f"none: {first.why}. Unless an entry was damaged there, somebody stored it "
            "who has no key; entries go on behind it"
        )
    if log.strays:
        more = ", …" if len(log.strays) > _SHOWN else ""
        yield (
            "what lies among the log's entries and can be none is passed over: "
            f"{', '.join(log.strays[:_SHOWN])}{more}"
        )
