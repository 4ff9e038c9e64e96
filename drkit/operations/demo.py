"""The whole story on a throw-away server: back up, lose everything, get it back.

Every step but the server's own is the command that a user would type, run as a process
of its own, so that what the demo shows is what the user will have.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shlex
import shutil
import threading
import time
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from drkit.errors import Corrupt, DrkitError
from drkit.postgres.binaries import ServerBinaries
from drkit.postgres.connection import connect
from drkit.postgres.server import ClusterOptions, ThrowawayServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from drkit.postgres.connection import Connection

NAME = "demo"
_WRITE_BEFORE, _WRITE_AFTER = 1.0, 2.0  # seconds of writing around the backup
_ROWS_A_COMMIT = 50
_ARCHIVED_WITHIN = 30.0
_TABLE = """
    CREATE TABLE public.payments (
        id bigint PRIMARY KEY, account text NOT NULL, amount numeric NOT NULL
    )
"""
_INSERT = (
    "INSERT INTO public.payments "
    "SELECT * FROM unnest(%s::bigint[], %s::text[], %s::numeric[])"
)
_PROMISES = """
objectives:
  rto: 5 minutes
  rpo: 1 minute
verification:
  directory: {scratch}
"""
_SELECT = "SELECT id, account, amount::bigint FROM public.payments"


class Row(NamedTuple):
    """A row as it was written, and as it must come back."""

    id: int
    account: str
    amount: int


class Step(NamedTuple):
    """One step of the story, with the command that a user would have typed."""

    title: str
    command: str
    seconds: float
    detail: str


@dataclass(slots=True)
class DemoReport:
    """What the demo did and proved.

    Attributes:
        written: rows whose commit was acknowledged before the moment restored to.
        restored: rows that came back.
        moment: what was restored to.
        recovery_seconds: from the loss of the server to its successor taking writes.
        kept: where everything is, if it was to be kept.
        drill, report: how the drill at the end came out, and the file that tells.
    """

    version: str
    steps: list[Step] = field(default_factory=list)
    written: int = 0
    restored: int = 0
    moment: str = ""
    recovery_seconds: float = 0.0
    kept: str | None = None
    drill: str = ""
    report: str | None = None


@dataclass(slots=True)
class Demo:
    """The pieces that the steps share.

    Attributes:
        directory: for repository, policies and the restored cluster.
        drkit: runs a drkit command line and returns its standard output.
        show: called with each step as it ends.
    """

    directory: str
    drkit: Callable[[list[str]], str]
    show: Callable[[Step], None]
    report: DemoReport

    @contextlib.contextmanager
    def step(self, title: str, command: str = "") -> Iterator[list[str]]:
        """Time a step; the block appends to the list what is worth telling."""
        began = time.monotonic()
        told: list[str] = []
        yield told
        seconds = time.monotonic() - began
        done = Step(title, command, seconds, "; ".join(told))
        self.report.steps.append(done)
        self.show(done)

    def run(self, title: str, *arguments: str) -> dict[str, Any]:
        """Run a drkit command as a step and return what it printed as JSON."""
        shown = shlex.join(["drkit", *arguments])
        with self.step(title, shown) as told:
            command = [*arguments, "--policy-dir", self.policies, "--output", "json"]
            found: dict[str, Any] = json.loads(self.drkit(command))
            told.extend(_summary(found))
        return found

    @property
    def policies(self) -> str:
        """Where the demo's policy is."""
        return os.path.join(self.directory, "policies")


def run_demo(
    directory: str,
    drkit: Callable[[list[str]], str],
    show: Callable[[Step], None],
    *,
    keep: bool,
    reports: str | None,
    path: str,
) -> DemoReport:
    """Run the story in an empty directory and return the proof.

    Args:
        directory: must be reachable by the user that the server runs as; it is
            removed at the end unless `keep` is set.
        reports: where the drill's report goes, and stays; None leaves it in the
            directory.
        path: where PostgreSQL's programs are looked for, in the manner of `PATH`.

    Raises:
        Corrupt: what came back is not what was written.
        NotFound: there is no PostgreSQL to run.
    """
    binaries = ServerBinaries.locate(path=path)
    report = DemoReport(version=str(binaries.major))
    demo = Demo(directory, drkit, show, report)
    try:
        lost = _protect_and_lose(demo, binaries)
        _recover(demo, binaries, lost)
        _rehearse(demo, reports or os.path.join(directory, "reports"))
    finally:
        if not keep:
            shutil.rmtree(directory, ignore_errors=True)
    report.kept = directory if keep else None
    if not keep and reports is None:
        report.report = None
    return report


class _Lost(NamedTuple):
    at: float
    rows: list[Row]


def _protect_and_lose(demo: Demo, binaries: ServerBinaries) -> _Lost:
    settings = {"archive_mode": "on", "wal_level": "replica", "fsync": "off"}
    with ThrowawayServer(binaries, settings=settings) as server:
        with demo.step(f"start a PostgreSQL {binaries.major}", "initdb; postgres"):
            server.initdb(ClusterOptions(data_checksums=True))
            server.start()
        _initialise(demo, server)
        with _writing(server) as writer:
            time.sleep(_WRITE_BEFORE)
            demo.run("full backup, while it is written to", "backup", NAME)
            with demo.step("go on writing") as told:
                time.sleep(_WRITE_AFTER)
                told.append(f"{len(writer.rows)} rows so far")
        _go_wrong(demo, server)
        with demo.step("lose the server", "kill -9; rm -rf"):
            server.kill()
            lost_at = time.monotonic()
    return _Lost(lost_at, writer.rows)


def _initialise(demo: Demo, server: ThrowawayServer) -> None:
    repository = "file://" + os.path.join(demo.directory, "repository")
    made = demo.run(
        "make keys, policy and repository",
        *("init", NAME, "--url", server.url, "--repository", repository),
    )
    _promise(demo)
    statement = "ALTER SYSTEM SET archive_command = '…'"
    with demo.step("switch archiving on", statement), _session(server) as connection:
        value = made["archive_command"].replace("'", "''")
        connection.query(f"ALTER SYSTEM SET archive_command = '{value}'")
        connection.query("SELECT pg_reload_conf()")
    demo.run("a row that says how old data is", "heartbeat", NAME, "--create")


def _promise(demo: Demo) -> None:
    """Say in the policy how good recovery has to be, and where drills take place."""
    scratch = os.path.join(demo.directory, "scratch")
    text = _PROMISES.format(scratch=json.dumps(scratch))
    path = os.path.join(demo.policies, f"{NAME}.yaml")
    with demo.step("promise how good recovery is", f"edit {NAME}.yaml") as told:
        with open(path, "a", encoding="utf-8") as file:
            file.write(text)
        told.append("RTO 5 minutes, RPO 1 minute")


def _go_wrong(demo: Demo, server: ThrowawayServer) -> None:
    """Note the moment, then delete everything, and let the deletion be archived."""
    demo.run("the timer writes it again", "heartbeat", NAME)
    title = "a bad day: DELETE FROM payments, committed"
    with demo.step(title) as told, _session(server) as connection:
        moment: datetime = connection.query("SELECT clock_timestamp()")[0][0]
        time.sleep(0.1)
        connection.query("DELETE FROM public.payments")
        demo.report.moment = moment.isoformat(sep=" ")
        told.append(f"the last good moment was {demo.report.moment}")
        _wait_for_archive(connection)


def _wait_for_archive(connection: Connection) -> None:
    last = connection.query("SELECT pg_walfile_name(pg_switch_wal())")[0][0]
    deadline = time.monotonic() + _ARCHIVED_WITHIN
    archived = "SELECT coalesce(last_archived_wal, '') >= %s FROM pg_stat_archiver"
    while not connection.query(archived, (last,))[0][0]:
        if time.monotonic() > deadline:
            raise DrkitError(
                f"the demo's server did not archive {last} within "
                f"{_ARCHIVED_WITHIN:.0f} seconds",
                hint="run the demo with --keep DIR and read the server's log",
            )
        time.sleep(0.05)


def _recover(demo: Demo, binaries: ServerBinaries, lost: _Lost) -> None:
    target = os.path.join(demo.directory, "restored")
    demo.run(
        "restore to the last good moment",
        *("restore", NAME, "--to", target, "--target-time", demo.report.moment),
    )
    # The successor must not archive: its repository goes away with the demo.
    settings = {"archive_mode": "off", "fsync": "off"}
    with ThrowawayServer(binaries, data_directory=target, settings=settings) as server:
        with demo.step(
            "start the restored cluster, replay WAL, promote", "pg_ctl start"
        ):
            server.start()
            server.wait_until_primary()
        demo.report.recovery_seconds = time.monotonic() - lost.at
        _prove(demo, server, lost.rows)


def _rehearse(demo: Demo, reports: str) -> None:
    """Rehearse the same recovery as auditors want it: timed, proven, signed."""
    drill = demo.run(
        "drill: recover to just before the DELETE, in a scratch instance",
        *("drill", "run", NAME, "--scenario", "operator-error"),
    )
    record = drill["record"]
    measured = (record["rto"]["measured"], record["rpo"]["measured"])
    demo.report.drill = (
        f"objectives {record['outcome']}: RTO {measured[0]:.1f} s, RPO "
        f"{measured[1]:.1f} s, {len(record['checks'])} checks"
    )
    finished = datetime.fromisoformat(record["finished"])
    quarter = f"{finished.year}-Q{(finished.month + 2) // 3}"
    written = demo.run(
        "report on the quarter",
        *("drill", "report", NAME, "--quarter", quarter, "--to", reports),
        *("--format", "html,pdf"),
    )
    demo.report.report = written["files"][0]["path"]


def _prove(demo: Demo, server: ThrowawayServer, written: list[Row]) -> None:
    """Compare every row with what was acknowledged, and write once more."""
    with demo.step("compare what came back with what was written") as told:
        with contextlib.closing(connect(server.url, None, NAME)) as connection:
            found = connection.query(
                "SELECT id, account, amount::bigint FROM public.payments"
            )
            connection.query("INSERT INTO public.payments VALUES (0, 'after', 1)")
        restored = {Row(*row) for row in found}
        demo.report.written, demo.report.restored = len(written), len(restored)
        lost = set(written) - restored
        extra = restored - set(written)
        if lost or extra:
            raise Corrupt(
                f"the restored cluster differs: {len(lost)} rows are missing, "
                f"{len(extra)} are too many",
                hint="this is a bug of drkit; please report it with the output above",
            )
        told.append(f"{len(restored)} rows, SHA-256 {_digest(restored)}, all equal")


def _digest(rows: set[Row]) -> str:
    text = "\n".join(str(tuple(row)) for row in sorted(rows))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class _Writer:
    """Commits rows one batch after the other, and remembers what was acknowledged."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._stop = threading.Event()
        self._error: BaseException | None = None
        self.rows: list[Row] = []
        self._thread = threading.Thread(target=self._write, name="writer")

    def start(self) -> None:
        """Make the table and begin to write."""
        self._connection.query(_TABLE)
        self._thread.start()

    def stop(self) -> None:
        """Let the last commit end; raise what went wrong."""
        self._stop.set()
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _write(self) -> None:
        try:
            while not self._stop.is_set():
                first = len(self.rows) + 1
                batch = [_row(first + place) for place in range(_ROWS_A_COMMIT)]
                columns = tuple(list(column) for column in zip(*batch, strict=True))
                self._connection.query(_INSERT, columns)
                self.rows += batch
                time.sleep(0.005)
        except BaseException as error:  # noqa: BLE001  raised again by `stop`
            self._error = error


def _row(number: int) -> Row:
    account = hashlib.sha256(str(number).encode()).hexdigest()[:12]
    return Row(number, account, number * 7919 % 100_000)


def _session(server: ThrowawayServer) -> contextlib.closing[Connection]:
    return contextlib.closing(connect(server.url, None, NAME))


@contextlib.contextmanager
def _writing(server: ThrowawayServer) -> Iterator[_Writer]:
    with _session(server) as connection:
        writer = _Writer(connection)
        writer.start()
        try:
            yield writer
        finally:
            writer.stop()


def _summary(found: dict[str, Any]) -> list[str]:
    """Pick what is worth telling from a command's JSON."""
    told = []
    backup = found.get("backup")
    if isinstance(backup, dict) and "bytes" in backup:
        told.append(
            f"{backup['label']}: {backup['bytes'] / 1e6:.1f} MB, stored "
            f"{backup.get('stored_bytes', 0) / 1e6:.1f} MB"
        )
    return told
