"""`wal push` and `wal get`: what PostgreSQL runs as archive and restore command.

Their exit codes are read by PostgreSQL (`RestoreArchivedFile` in `xlogarchive.c`,
`pgarch_archiveXlog` in `shell_archive.c`):

- `wal get` exits with 1 only if the file is proven not to be archived. PostgreSQL takes
  1 to 125 as the end of WAL and would promote without what is missing, so every other
  failure is 200, which stops the recovery. A standby would be stopped for good by that:
  where `standby.signal` lies in the working directory, failures are repeated for the
  policy's `wal.timeout`, and then the code is 1, for the standby asks again.
- A policy that pins `keys.trusted_wal` has WAL refused that is not signed. The log says
  since when WAL must be, but this reads no log: `--unsigned-before` brings it along.
- 1 is what Python itself ends with where drkit is not there. `--absent-exit CODE` makes
  "not archived" a code that nothing but drkit gives; `wiring.restore_command` uses it.
- `wal push` exits with 1 to 125 for every failure: a code above would stop the
  archiver, and not even be counted as a failure.

Started for every segment, so this module and what it imports stay small.
"""

from __future__ import annotations

import json
import os
import signal
import time
from datetime import UTC, datetime

from drkit import wiring
from drkit.config.choosing import choose_compiled
from drkit.errors import DrkitError, Interrupted, NotFound, UsageError
from drkit.operations import archive
from drkit.printing import printable

TYPE_CHECKING = False  # without importing typing
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import NoReturn

    from drkit.config.compiled import Compiled

NOT_ARCHIVED = 1
GET_FAILED = 200
_MAX_CODE = 125
_OPTIONS = ("--policy", "--policy-dir", "--log-format", "--log-level", "--output")
_ABSENT_EXIT, _UNSIGNED = "--absent-exit", "--unsigned-before"
_OPTIONS_OF_GET = (_ABSENT_EXIT, _UNSIGNED)
_ALL = "all"
_FORMATS = ("text", "json")
_STANDBY = "standby.signal"
_DEFAULT_PATIENCE = 60.0  # seconds, as wal.timeout is by default
_PAUSE = 1.0  # seconds between attempts on a standby
_RUN = os.urandom(4).hex()  # correlates the lines of this run


class Call:
    """One call of either command: its options and its words."""

    def __init__(self, verb: str) -> None:
        self.verb = verb
        self.options: dict[str, str] = {}
        self.words: list[str] = []
        self.quiet = False
        self.secrets = wiring.Secrets(os.environ)
        self.patience = _DEFAULT_PATIENCE

    @property
    def log_format(self) -> str:
        """How to tell: `text` or `json`."""
        chosen = os.environ.get("DRKIT_LOG_FORMAT") or "text"
        return self.options.get("--log-format", chosen)

    @property
    def output(self) -> str:
        """What to write to standard output: `text` or `json`."""
        return self.options.get("--output", "text")

    @property
    def absent_code(self) -> int:
        """The exit code that says that a file is proven not to be archived."""
        return int(self.options.get(_ABSENT_EXIT, NOT_ARCHIVED))

    @property
    def signed_since(self) -> dict[int, str] | None:
        """From where on WAL must be signed, as `WalTrust.since`."""
        names = self.options.get(_UNSIGNED, "")
        return None if names == _ALL else _since(names)

    def parse(self, arguments: list[str], words: int) -> None:
        """Take in the arguments.

        Raises:
            UsageError: an unknown option, or another number of words than `words`.
        """
        left = list(arguments)
        while left:
            word = left.pop(0)
            if word == "--":
                self.words += left
                break
            if word in ("--quiet", "-q"):
                self.quiet = True
            elif word.startswith("-") and word != "-":
                self._option(word, left)
            else:
                self.words.append(word)
        if len(self.words) != words:
            raise UsageError(
                f"wal {self.verb} takes {words} argument(s), not {len(self.words)}",
                hint=_usage(self.verb),
            )

    def _option(self, word: str, left: list[str]) -> None:
        name, equals, value = word.partition("=")
        if name not in _OPTIONS and not (
            name in _OPTIONS_OF_GET and self.verb == "get"
        ):
            raise UsageError(
                f"wal {self.verb} has no option {name}", hint=_usage(self.verb)
            )
        if not equals:
            if not left:
                raise UsageError(f"{name} needs a value", hint=_usage(self.verb))
            value = left.pop(0)
        if name in ("--log-format", "--output") and value not in _FORMATS:
            raise UsageError(f"{name} is text or json, not {value}")
        if name == _ABSENT_EXIT and not _is_code(value):
            raise UsageError(f"{name} is a number from 1 to {_MAX_CODE}, not {value}")
        if name == _UNSIGNED and value != _ALL:
            _since(value)
        self.options[name] = value

    def choose(self, system_identifier: str | None) -> Compiled:
        """Return the policy to work by."""
        compiled = choose_compiled(
            self.options.get("--policy"),
            system_identifier,
            os.environ,
            policy_dir=self.options.get("--policy-dir"),
        )
        self.patience = compiled["wal_timeout"]
        return compiled


def push(arguments: list[str]) -> int:
    """Run `wal push`; return its exit code."""
    call = Call("push")
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        call.parse(arguments, 1)
        _push(call)
    except (DrkitError, KeyboardInterrupt, _Terminated) as error:
        told = error if isinstance(error, DrkitError) else _interrupted()
        _tell_error(call, told, code := min(told.exit_code, _MAX_CODE))
        return code
    return 0


def _push(call: Call) -> None:
    path = call.words[0]
    name = os.path.basename(path)
    content = archive.read_wal_file(path)
    here = archive.cluster_system_identifier()
    compiled = call.choose(_claimed(name, content) or here)
    system = compiled["system_identifier"]
    archive.refuse_other_cluster(here, system)
    wal = wiring.open_wal_archive(compiled, call.secrets)
    now, level = datetime.now(UTC), compiled["compression_level"]
    new = archive.archive_wal(wal, name, content, system, now, level)
    what = f"archived {name}" if new else f"{name} was archived already"
    _tell(call, what, {"policy": compiled["name"], "file": name, "new": new})


def _claimed(name: str, content: bytes) -> str | None:
    """Return a segment's own system identifier; histories have none."""
    if name.endswith((".history", ".backup")):
        return None
    return archive.segment_system_identifier(content)


def get(arguments: list[str]) -> int:
    """Run `wal get`; return its exit code."""
    call = Call("get")
    standby = os.path.lexists(_STANDBY)
    failed = NOT_ARCHIVED if standby else GET_FAILED
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        call.parse(arguments, 2)
        return _get_patiently(call) if standby else _get(call)
    except _Terminated:
        _tell_error(call, _interrupted(), failed)
        _die_of_signal()
    except DrkitError as error:
        _tell_error(call, error, failed)
    except KeyboardInterrupt:
        _tell_error(call, _interrupted(), failed)
    return failed


def _get_patiently(call: Call) -> int:
    """Repeat what fails, for a standby has nobody to look after it.

    Raises:
        DrkitError: the last failure.
    """
    begun = time.monotonic()
    while True:
        try:
            return _get(call)
        except UsageError:
            raise
        except DrkitError:
            if time.monotonic() - begun + _PAUSE > call.patience:
                raise
            time.sleep(_PAUSE)


def _get(call: Call) -> int:
    name, destination = call.words
    here = archive.cluster_system_identifier()
    compiled = call.choose(here)
    system = compiled["system_identifier"]
    archive.refuse_other_cluster(here, system)
    # Without a pin there is nobody whose signature could be asked for.
    since = call.signed_since if compiled["trusted_wal"] else None
    size = archive.cluster_segment_size()
    wal = wiring.open_wal_archive(compiled, call.secrets, size, since)
    fields = {"policy": compiled["name"], "file": name}
    try:
        archive.fetch_wal(wal, name, destination, system)
    except NotFound as error:
        _tell(call, error.message, {**fields, "found": False})
        return call.absent_code
    _tell(call, f"fetched {name}", {**fields, "found": True})
    return 0


class _Terminated(BaseException):
    """SIGTERM came; no `Exception`, which a store's client would take for its own."""


def _interrupt(number: int, _frame: object) -> NoReturn:
    signal.signal(number, lambda *_: None)  # once is enough
    raise _Terminated


def _interrupted() -> Interrupted:
    return Interrupted("interrupted; nothing half-done is left")


def _die_of_signal() -> None:
    """End as if the signal had not been caught: PostgreSQL asks what ended us."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGTERM)


def _since(names: str) -> dict[int, str]:
    """Read which segment of each timeline is the first that must be signed.

    Raises:
        UsageError: one of the names is no segment's.
    """
    from drkit.model.wal import timeline_of

    try:
        return {timeline_of(name): name for name in names.split(",") if name}
    except ValueError as error:
        raise UsageError(
            f"{_UNSIGNED}: {error}",
            hint="it takes a segment for each timeline that has WAL from before it was "
            f"signed, with commas between, or `{_ALL}`; `drkit restore --plan` shows "
            "the whole restore_command",
        ) from None


def _is_code(text: str) -> bool:
    return text.isascii() and text.isdecimal() and 0 < int(text) <= _MAX_CODE


def _usage(verb: str) -> str:
    words = "PATH" if verb == "push" else "NAME DEST"
    return f"drkit wal {verb} [--policy P] {words}; more: drkit wal {verb} --help"


def _tell(call: Call, text: str, fields: Mapping[str, object]) -> None:
    """Tell a result; PostgreSQL writes it to its log."""
    if call.output == "json":
        _write(
            1, _json({"drkit": f"wal {call.verb}", "version": 1, "run": _RUN, **fields})
        )
    elif call.quiet:
        return
    elif call.log_format == "json":
        line = {"level": "info", "event": text, "command": f"wal {call.verb}"}
        _write(2, _json({**line, "run": _RUN, **fields}))
    else:
        _write(1, f"drkit: {printable(text)}\n")


def _tell_error(call: Call, error: DrkitError, code: int) -> None:
    message = _redacted(error.message, call)
    hint = _redacted(error.hint, call) if error.hint else None
    if "json" in (call.log_format, call.output):
        found = {"drkit": "error", "version": 1, "error": type(error).__name__}
        told = {"exit_code": code, "message": message, "hint": hint, "run": _RUN}
        _write(2, _json(found | told))
        return
    _write(2, f"drkit: error: {_one_line(message)}\n")
    if hint:
        _write(2, f"drkit: hint: {_one_line(hint)}\n")


def _redacted(text: str, call: Call) -> str:
    for secret in call.secrets.seen:
        text = text.replace(secret, "***")
    return text


def _one_line(text: str) -> str:
    return "; ".join(map(printable, text.split("\n")))


def _json(found: Mapping[str, object]) -> str:
    return json.dumps(found) + "\n"


def _write(descriptor: int, text: str) -> None:
    """Write past Python's buffers; whoever does not listen is no reason to fail."""
    try:
        os.write(descriptor, text.encode(errors="backslashreplace"))
    except OSError:
        return
