"""Every way to get a policy wrong: told with file, line and field."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING

import pytest

from drkit.config.loading import load_policy, parse_policy
from drkit.errors import NotFound, PolicyError
from tests.config.samples import GOOD, changed

if TYPE_CHECKING:
    from pathlib import Path

PATH = "/etc/drkit/policies/production.yaml"
HEX = "0" * 64


def errors(text: str | bytes, environ: dict[str, str] | None = None) -> list[str]:
    data = text if isinstance(text, bytes) else text.encode()
    with pytest.raises(PolicyError) as caught:
        parse_policy(data, PATH, environ or {})
    return caught.value.message.splitlines()


# (what is replaced, what by, line, field, what the message says)
WRONG = [
    # Names and keys.
    ("name: production", "name: Production", 1, "name", 'look like "production"'),
    ("name: production", "name: -x", 1, "name", "does not look like"),
    ("name: production", "name: " + "x" * 64, 1, "name", "does not look like"),
    ("name: production", "name: 2026", 1, "name", "must be text; put it in quotes"),
    ("name: production", "name: true", 1, "name", "must be text; put it in quotes"),
    ("name: production", "name: [a]", 1, "name", "must be text"),
    ("name: production", "nmae: production", 1, "nmae", "did you mean `name`?"),
    ("  jobs: 2", "  job: 2", 20, "backup.job", "did you mean `jobs`?"),
    ("  jobs: 2", "  Jobs: 2", 20, "backup.Jobs", "did you mean `jobs`?"),
    ("backup:\n", "backpu:\n", 18, "backpu", "did you mean `backup`?"),
    ("retention:\n", "jobs: 3\nretention:\n", 22, "jobs", "belongs under `backup`"),
    (
        "  jobs: 2",
        "  full: 2",
        20,
        "backup.full",
        "is not known here; it belongs under `backup.schedule`",
    ),
    (
        "  jobs: 2",
        "  zzz: 2",
        20,
        "backup.zzz",
        "is no known key; known here are source, jobs",
    ),
    # The cluster.
    ("  url: postgresql://drkit@/", "  url: mysql://x/", 3, "cluster.url", "is no Pos"),
    ("&port=5432", "&hst=x", 3, "cluster.url", 'invalid URI query parameter: "hst"'),
    (
        "  data_directory: /var/lib/postgresql/15/main",
        "  data_directory: main",
        4,
        "cluster.data_directory",
        "must be an absolute path",
    ),
    (
        "  data_directory: /var/lib/postgresql/15/main\n",
        "",
        2,
        "cluster.data_directory",
        "is missing; `backup.source: local` reads files there",
    ),
    (
        '  system_identifier: "7412345678901234567"\n',
        "",
        2,
        "cluster.system_identifier",
        'is missing; write, for example, system_identifier: "7412345678901234567"',
    ),
    ('"7412345678901234567"', "0", 5, "cluster.system_identifier", "pg_controldata"),
    ('"7412345678901234567"', '"0123"', 5, "cluster.system_identifier", "is no sys"),
    (
        '"7412345678901234567"',
        "18446744073709551616",
        5,
        "cluster.system_identifier",
        "is no system identifier",
    ),
    # The repository.
    ("file:///srv/drkit", "file://srv/drkit", 7, "repository.url", "three slashes"),
    ("file:///srv/drkit", "/srv/drkit", 7, "repository.url", "with file:// before"),
    ("file:///srv/drkit", "file:///", 7, "repository.url", "is the root directory"),
    ("file:///srv/drkit", "file:///a/../b", 7, "repository.url", ".. in its path"),
    ("file:///srv/drkit", "memory://x", 7, "repository.url", "is no address"),
    ("file:///srv/drkit", "ftp://x/y", 7, "repository.url", "is no address"),
    ("file:///srv/drkit", "s3://B/x", 7, "repository.url", "does not name a bucket"),
    ("file:///srv/drkit", "s3://bucket/a//b", 7, "repository.url", "an empty part"),
    ("file:///srv/drkit", "s3://bucket/a b", 7, "repository.url", "in its prefix"),
    (
        "file:///srv/drkit",
        "file:///srv/drkit\n  s3: {region: eu-central-1}",
        8,
        "repository.s3",
        "the repository is a directory; remove it",
    ),
    (
        "file:///srv/drkit",
        "s3://bucket/x\n  s3: {access_key_id: env:KEY}",
        8,
        "repository.s3.secret_access_key",
        "is missing; write both keys",
    ),
    (
        "file:///srv/drkit",
        "s3://bucket/x\n  s3:\n    endpoint_url: minio:9000",
        9,
        "repository.s3.endpoint_url",
        "write https://host",
    ),
    (
        "file:///srv/drkit",
        "s3://bucket/x\n  s3:\n    region: EU Central",
        9,
        "repository.s3.region",
        "does not look like",
    ),
    (
        "file:///srv/drkit",
        "file:///var/lib/postgresql/15/main/backups",
        7,
        "repository.url",
        "lies in the data directory or around it",
    ),
    (
        "file:///srv/drkit",
        "file:///var/lib/postgresql",
        7,
        "repository.url",
        "lies in the data directory or around it",
    ),
    # Keys.
    ("provider: local", "provider: aws", 9, "keys.provider", "must be 'local'"),
    ("  wal: file:/etc/drkit/keys/wal.key\n", "", 8, "keys.wal", "is missing; write"),
    ("file:/etc/drkit/keys/wal.key", "'file:'", 11, "keys.wal", "followed by a path"),
    ("file:/etc/drkit/keys/wal.key", "file:~/k", 11, "keys.wal", "with neither ~"),
    ("file:/etc/drkit/keys/wal.key", "file://h/k", 11, "keys.wal", "nor a host"),
    ("file:/etc/drkit/keys/wal.key", "env:A-B", 11, "keys.wal", "name of a variable"),
    ("file:/etc/drkit/keys/wal.key", "env:1A", 11, "keys.wal", "name of a variable"),
    (
        "file:/etc/drkit/keys/wal.key",
        "credential:../x",
        11,
        "keys.wal",
        "followed by the name of a credential",
    ),
    ("file:/etc/drkit/keys/wal.key", "17", 11, "keys.wal", "must be text; write env:"),
    (
        "env:DRKIT_SECRET_DUMP",
        "env:DRKIT_KEY_DUMP",
        12,
        "keys.dump",
        "begin its name with DRKIT_SECRET_",
    ),
    (
        "credential:files",
        "file:/etc/drkit/keys/wal.key",
        13,
        "keys.files",
        "is the same key as keys.wal",
    ),
    (
        "credential:files",
        "file:./keys/../keys/backup.key",
        13,
        "keys.files",
        "is the same key as keys.backup",
    ),
    (
        "credential:files",
        "file:/srv/drkit/files.key",
        13,
        "keys.files",
        "lies in the repository",
    ),
    (
        "credential:files",
        "file:/var/lib/postgresql/15/main/files.key",
        13,
        "keys.files",
        "lies in the data directory",
    ),
    (
        f"\n    - ed25519:{HEX}",
        " []",
        16,
        "keys.trusted",
        "needs at least 1 entry",
    ),
    (
        f"\n    - ed25519:{HEX}",
        f" ed25519:{HEX}",
        16,
        "keys.trusted",
        "must be a list",
    ),
    (f"ed25519:{HEX}", f"ed25519:{HEX[1:]}", 17, "keys.trusted[0]", "no public key"),
    (f"ed25519:{HEX}", HEX, 17, "keys.trusted[0]", "write ed25519:"),
    (
        f"ed25519:{HEX}",
        f"ed25519:{HEX}\n  wal_signing: file:/x",
        8,
        "keys.trusted_wal",
        "is missing; write the public half of keys.wal_signing",
    ),
    (
        f"ed25519:{HEX}",
        f"ed25519:{HEX}\n  trusted_wal: [ed25519:{HEX}]",
        18,
        "keys.trusted_wal",
        "must not be able to sign backups",
    ),
    (
        f"ed25519:{HEX}",
        (
            f"ed25519:{HEX}\n  trusted_wal: [ed25519:{'f' * 64}]\n"
            "  wal_signing: file:/etc/drkit/keys/signing.key"
        ),
        19,
        "keys.wal_signing",
        "is the same key as keys.signing",
    ),
    # Backups.
    ("source: local", "source: remote", 19, "backup.source", "'local' or 'stream'"),
    ("jobs: 2", "jobs: 0", 20, "backup.jobs", "must be at least 1"),
    ("jobs: 2", "jobs: -2", 20, "backup.jobs", "must be at least 1"),
    ("jobs: 2", "jobs: 200", 20, "backup.jobs", "must be at most 64"),
    ("jobs: 2", 'jobs: "2"', 20, "backup.jobs", "whole number without quotes"),
    ("jobs: 2", "jobs: 2.5", 20, "backup.jobs", "must be a whole number"),
    ("jobs: 2", "jobs: yes", 20, "backup.jobs", "must be a whole number"),
    ("jobs: 2", "jobs: true", 20, "backup.jobs", "must be a whole number"),
    ("jobs: 2", "jobs: " + "9" * 5000, 20, "backup.jobs", "must be a whole number"),
    (
        "jobs: 2",
        "compression_level: 22",
        20,
        "backup.compression_level",
        "must be at most 19",
    ),
    ("jobs: 2", "wal_timeout: 10", 20, "backup.wal_timeout", "10 has no unit"),
    ("jobs: 2", "wal_timeout: 0 s", 20, "backup.wal_timeout", "no time at all"),
    ("jobs: 2", "wal_timeout: -1 s", 20, "backup.wal_timeout", "is negative"),
    ("jobs: 2", "wal_timeout: [1]", 20, "backup.wal_timeout", "must be text, such as"),
    ("jobs: 2", "timezone: Europe/Berln", 20, "backup.timezone", "Europe/Berlin"),
    ("jobs: 2", "timezone: ../x", 20, "backup.timezone", "is no time zone"),
    ("jobs: 2", "timezone: Europe", 20, "backup.timezone", "is no time zone"),
    (
        "full: sunday at 02:00",
        "full: sundya at 02:00",
        21,
        "backup.schedule.full",
        "`sundya` is no day",
    ),
    ("incremental: hourly", "incr: hourly", 21, "backup.schedule.incr", "is no known"),
    ("  jobs: 2\n  schedule:", "  jobs: 2\n  schedule: daily #", 21,
     "backup.schedule", "must be a section"),
    # Retention.
    ("  full: 4", "  full: 0", 23, "retention.full", "must be at least 1"),
    ("  full: 4", "  full: -1", 23, "retention.full", "must be at least 1"),
    ("  full: 4", "  full: four", 23, "retention.full", "must be a whole number"),
    ("  full: 4", "  fulls: 4", 23, "retention.fulls", "did you mean `full`?"),
    ("  full: 4", "  monthly: 0", 23, "retention.monthly", "must be at least 1"),
    ("  full: 4", "  window: 0 days", 23, "retention.window", "no time at all"),
    ("  full: 4", "  window: 30", 23, "retention.window", "30 has no unit"),
    ("  full: 4", "  window: 1 month", 23, "retention.window", "differ in length"),
    ("  full: 4", "  wal_window: 7 days", 22, "retention", "has no rule that keeps"),
    ("retention:\n  full: 4\n", "", 1, "retention", "is missing; write, for example"),
    ("retention:\n  full: 4", "retention: {}", 22, "retention", "has no rule"),
    ("retention:\n  full: 4", "retention: 4", 22, "retention", "must be a section"),
    ("retention:\n  full: 4", "retention:", 22, "retention", "has no value"),
    ("rto: 15 minutes", "rto: 15", 24, "objectives.rto", "15 has no unit"),
    # YAML that means more, or less, than it says.
    ("  full: 4", "  full: 4\n  full: 9", 24, "retention.full", "first on line 23"),
    ("name: production", "name: a\nname: b", 2, "name", "twice, first on line 1"),
    ("jobs: 2", "jobs: &jobs 2", 20, "backup.jobs", "has an anchor"),
    ("jobs: 2", "jobs: *jobs", 20, "backup.jobs", "is an alias"),
    ("jobs: 2", "jobs: !!int 2", 20, "backup.jobs", "has a tag"),
    ("jobs: 2", "jobs: ! 2", 20, "backup.jobs", "has a tag"),
    ("jobs: 2", "jobs: !!python/name:os.system x", 20, "backup.jobs", "has a tag"),
    ("jobs: 2", "<<: {jobs: 2}", 20, "backup.<<", "is a merge key"),
    ("jobs: 2", "jobs: ~", 20, "backup.jobs", "has no value"),
    ("jobs: 2", "jobs: null", 20, "backup.jobs", "has no value"),
    ("jobs: 2", "jobs:", 20, "backup.jobs", "has no value"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "line", "field", "says"), WRONG)
def test_names_line_and_field(
    old: str, new: str, line: int, field: str, says: str
) -> None:
    (told,) = errors(changed(old, new))
    assert told.startswith(f"{PATH}:{line}: {field}: ")
    assert says in told


# (the file, line, what the message says): nothing after this line can be trusted.
UNREADABLE = [
    ("", 1, "is empty"),
    ("# nothing\n\n", 1, "is empty"),
    ("- a\n- b\n", 1, "must be keys with values"),
    ("\n\nproduction\n", 3, "must be keys with values"),
    (GOOD + "---\nname: x\n", 25, "begins a second document"),
    (changed("  full: 4", "\tfull: 4"), 23, "is no YAML"),
    (changed("  full: 4", "  full: 'x"), 25, "is no YAML"),
    (changed("  full: 4", "  full: [1, 2"), 24, "is no YAML"),
    (changed("  full: 4", "  full: \x07"), 23, "is no YAML"),
    (changed("  full: 4", "  full: 4\n kept: x"), 24, "is no YAML"),
    (changed("  full: 4", "  ? [a]\n  : 4"), 23, "a key that is no plain word"),
    (changed("  full: 4", "  full: " + "[" * 40 + "]" * 40), 23, "nested too deeply"),
    (GOOD + "".join(f"k{n}: 1\n" for n in range(1001)), 1018, "too many entries"),
]


@pytest.mark.parametrize(("text", "line", "says"), UNREADABLE)
def test_stops_where_reading_ends(text: str, line: int, says: str) -> None:
    (told,) = errors(text)
    assert told.startswith(f"{PATH}:{line}: ")
    assert says in told


def test_only_utf8() -> None:
    latin = changed("# x", "", GOOD + "# x").encode() + b"# caf\xe9\n"
    assert errors(latin) == [
        f"{PATH}:25: is not text in UTF-8; save the file in that encoding"
    ]
    (told,) = errors(GOOD.encode("utf-16"))
    assert told.startswith(f"{PATH}:1: is not text in UTF-8")


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm() -> None:
    data = b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode()
    assert parse_policy(data, PATH, {}).name == "production"


def test_all_errors_at_once_in_the_order_of_the_file() -> None:
    text = changed("name: production", "nmae: production")
    text = changed("/var/lib/postgresql/15/main", "main", text)
    text = changed("jobs: 2", "jobs: many", text)
    text = changed("full: 4", "full: 0\n  fulll: 3\n  daily: *x", text)
    told = errors(text)
    fields = [line.split(": ")[1] for line in told]
    assert fields == [
        "nmae",
        "cluster.data_directory",
        "backup.jobs",
        "retention.full",
        "retention.fulll",
        "retention.daily",
    ]


def test_contradictions_are_told_beside_errors_of_fields() -> None:
    text = changed("  data_directory: /var/lib/postgresql/15/main\n", "")
    fields = {
        line.split(": ")[1] for line in errors(changed("jobs: 2", "jobs: 0", text))
    }
    assert fields == {"cluster.data_directory", "backup.jobs"}


def test_a_duplicate_does_not_hide_what_is_wrong_with_the_first() -> None:
    told = errors(changed("  full: 4", "  full: 0\n  full: 9"))
    assert [line.split(": ", 1)[0] for line in told] == [f"{PATH}:23", f"{PATH}:24"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("drkit@/postgres", "drkit:hunter2@/postgres"),
        ("drkit@/postgres", "drkit:hun/ter2@db/postgres"),
        ("&port=5432", "&password=hunter2"),
        ("&port=5432", "&pass%77ord=hunter2"),
        ("&port=5432", "&sslpassword=hunter2"),
        ("file:/etc/drkit/keys/wal.key", "hunter2"),
        ("file:/etc/drkit/keys/wal.key", "drkit-kek-1:wal:hunter2"),
        ("file:/etc/drkit/keys/wal.key", "env:hunter2!"),
        ("file:/etc/drkit/keys/wal.key", "ENV:hunter2"),
        ("file:/etc/drkit/keys/wal.key", "|\n    hunter2\n    hunter2"),
        ("file:///srv/drkit", "s3://AKIA:hunter2@bucket/x"),
        ("file:///srv/drkit", "https://me:hunter2@host/x"),
        (
            "file:///srv/drkit",
            "s3://bucket/x\n  s3: {endpoint_url: 'http://a:hunter2@host'}",
        ),
        (
            "file:///srv/drkit",
            "s3://bucket/x\n  s3: {access_key_id: env:A, secret_access_key: hunter2}",
        ),
        ("  data_directory:", "  password: hunter2\n  data_directory:"),
        ("  data_directory:", "  pasword: hunter2\n  data_directory:"),
    ],
)
def test_no_error_repeats_a_secret(old: str, new: str) -> None:
    with pytest.raises(PolicyError) as caught:
        parse_policy(changed(old, new).encode(), PATH, {})
    shown = "".join(traceback.format_exception(caught.value)) + str(caught.value.hint)
    assert "ter2" not in shown
    # Nor does what a logger could reach through the chain of exceptions.
    assert caught.value.__context__ is None
    assert caught.value.__cause__ is None


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="there is no policy file"):
        load_policy(tmp_path / "absent.yaml", {})


def test_a_directory_and_a_huge_file(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="can't be read: Is a directory"):
        load_policy(tmp_path, {})
    huge = tmp_path / "huge.yaml"
    huge.write_text(GOOD + "#" * (1 << 20))
    with pytest.raises(PolicyError, match="is larger than 1048576 bytes"):
        load_policy(huge, {})


def test_the_hint_names_the_command_that_checks_again() -> None:
    with pytest.raises(PolicyError) as caught:
        parse_policy(b"name: x", PATH, {})
    assert caught.value.hint == (f"correct this, then run: drkit policy check {PATH}")
    assert caught.value.exit_code == 10
