"""Right policies of every shape, for Hypothesis, as mappings that a file could hold."""

from __future__ import annotations

from operator import itemgetter
from typing import Any

from hypothesis import strategies as st

KEYS = ("backup", "wal", "dump", "files", "catalog", "signing")
CHECKS = ("pages", "rows", "amcheck", "fingerprint", "assertions", "write", "heartbeat")
DAYS = ("monday", "thursday and sunday", "daily")
ZONES = ("UTC", "Etc/UTC", "Europe/Berlin", "America/St_Johns")

Sections = dict[str, dict[str, st.SearchStrategy[Any]]]

counts = st.integers(1, 64)
durations = st.builds(
    "{} {}".format,
    st.integers(1, 400),
    st.sampled_from(("seconds", "minutes", "hours", "days", "weeks")),
)
sizes = st.builds("{} {}".format, counts, st.sampled_from(("kB", "MB", "GB")))
whens = st.sampled_from(("hourly", "every 6 hours", "every 5 minutes")) | st.builds(
    "{} at {:02}:{:02}".format,
    st.sampled_from(DAYS),
    st.integers(0, 23),
    st.integers(0, 59),
)
references = st.sampled_from(
    ("env:DRKIT_SECRET_X", "file:relative/x", "file:/etc/x", "credential:x")
)
databases = st.text("aé\"'\\\u2028 $", min_size=1, max_size=63)


def _lists(choices: tuple[str, ...]) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(choices), min_size=1, unique=True)


# What each section may hold: every field that the schema knows.
SECTIONS: Sections = {
    "cluster": {
        "url": st.sampled_from(
            ("postgresql://drkit@/postgres", "postgres://[::1]:5432/x?sslmode=require")
        ),
        "password": references,
        "data_directory": st.sampled_from(("/data", "/var/lib/postgresql/15/main")),
        "system_identifier": st.integers(1, (1 << 64) - 1),
    },
    "s3": {
        "endpoint_url": st.just("https://minio.example.net:9000"),
        "region": st.sampled_from(("eu-central-1", "x")),
        "access_key_id": references,
        "secret_access_key": references,
    },
    "keys": {
        "provider": st.just("local"),
        **{
            purpose: st.sampled_from(
                (
                    f"env:DRKIT_SECRET_{purpose}",
                    f"file:{purpose}.key",
                    f"file:/{purpose}",
                )
            )
            for purpose in (*KEYS, "wal_signing")
        },
        "trusted_wal": st.just(["ed25519:" + "f" * 64]),
        "trusted": st.lists(
            st.sampled_from(("0", "1", "aB")).map(
                lambda two: "ed25519:" + f"{two:0>64}"
            ),
            min_size=1,
            unique=True,
        ),
    },
    "backup": {
        "source": st.sampled_from(("local", "stream")),
        "jobs": counts,
        "compression_level": st.integers(1, 19),
        "wal_timeout": durations,
        "audit_every": durations,
        "timezone": st.sampled_from(ZONES),
        "schedule": st.fixed_dictionaries(
            {}, optional={"full": whens, "incremental": whens}
        ),
    },
    "retention": {
        "full": counts,
        "window": durations,
        "daily": counts,
        "weekly": counts,
        "monthly": counts,
        "yearly": counts,
        "wal_window": durations,
        "max_deletions": counts,
    },
    "objectives": {"rto": durations, "rpo": durations},
    "heartbeat": {"every": durations, "database": databases},
    "assertion": {
        "name": st.from_regex(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,62}", fullmatch=True),
        "database": databases,
        "sql": st.just('SELECT count(*)\nFROM "größen";'),
        "equals": st.integers() | st.booleans() | databases,
        "at_least": st.integers(),
        "at_most": st.integers(),
        "tolerance": st.sampled_from((100, "5 %", "0.50%", "3")),
        "timeout": durations,
    },
    "verification": {
        "directory": st.just("/scratch"),
        "jobs": counts,
        "time_limit": durations,
        "memory": sizes,
        "max_size": sizes,
        "fingerprint": st.sampled_from(("off", "sampled", "exact")),
        "choose": _lists(("latest", "random-backup", "random-moment")),
        "checks": _lists(CHECKS),
        "allow_missing": _lists(CHECKS),
        "assertions": st.deferred(
            lambda: st.lists(assertions(), max_size=3, unique_by=itemgetter("name"))
        ),
        "every": st.builds("{} days".format, counts),
        "timestamps": st.deferred(lambda: section("timestamps")),
    },
    "timestamps": {
        "authority": st.sampled_from(("https://a.example", "http://b.example:80/x")),
        "roots": st.just("/roots.pem"),
    },
    "wal": {"timeout": durations},
}
_NEEDED = {
    "cluster": {"url", "data_directory", "system_identifier"},
    "keys": {*KEYS, "trusted", "trusted_wal"},
    "retention": {"full"},
    "assertion": {"name", "sql", "equals"},
    "timestamps": {"authority", "roots"},
    "s3": {"access_key_id", "secret_access_key"},
}
_NOT_BOTH = {"assertion": {"at_least", "at_most"}}


def section(name: str) -> st.SearchStrategy[dict[str, Any]]:
    """Return a section with any of its fields, and those that it needs."""
    known = SECTIONS[name]
    needed = _NEEDED.get(name, set())
    wanted = known.keys() - _NOT_BOTH.get(name, set())
    return st.fixed_dictionaries(
        {one: known[one] for one in known if one in needed},
        optional={one: known[one] for one in known if one in wanted - needed},
    )


def assertions() -> st.SearchStrategy[dict[str, Any]]:
    """Return assertions, each with one comparison."""

    def compared(held: dict[str, Any], how: str) -> dict[str, Any]:
        value = held.pop("equals")
        return held | {how: value}

    comparisons = st.sampled_from(("equals", "at_least", "at_most"))
    return st.builds(compared, section("assertion"), comparisons)


def repositories() -> st.SearchStrategy[dict[str, Any]]:
    """Return directories, and buckets with or without how they are reached."""
    bucket = {"url": st.sampled_from(("s3://bucket", "s3://bucket/a/b/"))}
    return st.fixed_dictionaries(
        {"url": st.just("file:///srv/drkit/")}
    ) | st.fixed_dictionaries(bucket, optional={"s3": section("s3")})


def policies() -> st.SearchStrategy[dict[str, Any]]:
    """Return whole policies."""
    return st.fixed_dictionaries(
        {
            "name": st.from_regex(r"[a-z0-9][a-z0-9_-]{0,62}", fullmatch=True),
            "cluster": section("cluster"),
            "repository": repositories(),
            "keys": section("keys"),
            "retention": section("retention"),
        },
        optional={
            one: section(one)
            for one in ("backup", "objectives", "heartbeat", "verification", "wal")
        },
    )
