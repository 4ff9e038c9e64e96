"""Where `drkit` starts.

PostgreSQL starts `wal push` and `wal get` for every segment, so they and `--version`
go past everything that parses and draws. What their exit codes mean to PostgreSQL is
told in `drkit.cli.archiving`.
"""

import gc
import os
import sys

from drkit.hardening import harden

_GET_FAILED = 200
_COLLECT_AFTER = 100_000  # objects; imports make as many, and none is garbage
_SWITCH_AFTER = 0.0005  # seconds; what native code of one thread has ready can go on
_HELP = {"--help", "-h"}


def main() -> None:
    """Run the command line and exit."""
    open_standard_streams()
    harden()
    start_fast()
    arguments = sys.argv[1:]
    command = arguments[:2]
    if arguments == ["--version"]:
        _version()
    elif command == ["wal", "get"] and _HELP.isdisjoint(arguments):
        _wal_get(arguments[2:])
    elif command == ["wal", "push"] and _HELP.isdisjoint(arguments):
        _wal_push(arguments[2:])
    else:
        _command_line(arguments)


def _command_line(arguments: list[str]) -> None:
    from drkit.cli import early
    from drkit.cli.errors import wants_json
    from drkit.cli.signals import end_at_signals

    end_at_signals(as_json=wants_json(arguments))
    early.start(arguments)
    from drkit.cli.app import run  # takes a moment, in which a signal may come

    code = run(arguments)
    early.end()
    _leave(code)


def _leave(code: int) -> None:
    """End at once: taking apart all that was imported takes half as long as importing.

    What was said is written; nothing else waits for the interpreter's end.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except BrokenPipeError:
            continue  # the reader has gone
        except OSError:
            code = code or 1
    os._exit(code)


def open_standard_streams() -> None:
    """Let no file get the number of a standard stream, and no character end the work.

    What is written to standard error past Python would get into a file that had got
    its number. Characters that a terminal's encoding lacks are written as escapes.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def start_fast() -> None:
    """Spare what importing large libraries would do for nothing: a third of it."""
    gc.set_threshold(_COLLECT_AFTER)
    sys.setswitchinterval(_SWITCH_AFTER)
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # numpy starts them at import
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")


def _version() -> None:
    from drkit import __version__

    print(f"drkit {__version__}")


def _wal_push(arguments: list[str]) -> None:
    code = 1
    try:
        from drkit.cli.archiving import push

        code = push(arguments)
    except BaseException as error:  # noqa: BLE001  the exit code must be ours
        _tell("push", error)
    finally:
        os._exit(code)


def _wal_get(arguments: list[str]) -> None:
    """Fetch a WAL file; no failure whatever ends with what means "not archived"."""
    code = _GET_FAILED
    try:
        if os.path.lexists("standby.signal"):
            code = 1  # a code above 125 would stop the standby
        from drkit.cli.archiving import get

        code = get(arguments)
    except BaseException as error:  # noqa: BLE001  the exit code must be ours
        _tell("get", error)
    finally:
        os._exit(code)


def _tell(verb: str, error: BaseException) -> None:
    """Say what went wrong without anything that could go wrong as well.

    The text of an unforeseen error may hold a secret, so only its kind is told.
    """
    line = f"drkit: error: wal {verb} failed: {type(error).__name__}\n"
    try:
        os.write(2, line.encode())
    except OSError:
        return


if __name__ == "__main__":
    main()
