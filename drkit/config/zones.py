"""Time zones by their IANA names."""

from __future__ import annotations

from datetime import UTC, tzinfo


def read_zone(name: str) -> tzinfo:
    """Return the time zone of an IANA name.

    Raises:
        ValueError: there is no such zone on this machine.
    """
    if name == "UTC":  # also where no zone files are installed
        return UTC
    # Not at the start: a policy of UTC does without.
    from zoneinfo import ZoneInfo, available_timezones  # noqa: PLC0415

    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        zones = available_timezones()
    from difflib import get_close_matches  # noqa: PLC0415

    near = get_close_matches(name, zones, 1)
    if not zones:
        raise ValueError("can't be read: install the system's tzdata package")
    raise ValueError(
        f"is no time zone this machine knows; write {near[0] if near else 'UTC'}"
    )
