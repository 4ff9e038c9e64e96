"""The runner of other programs: failures told, time-outs kept, users changed."""

from __future__ import annotations

import os
import pwd
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from drkit.errors import DrkitError, PostgresRefused
from drkit.postgres.process import (
    SAME_USER,
    Account,
    Identity,
    current_account,
    drop_to,
    find_account,
    run,
    server_account,
    tail,
)

if TYPE_CHECKING:
    from collections.abc import Callable

AS_ROOT = os.geteuid() == 0


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_output_and_input_are_bytes() -> None:
    done = run(["cat"], stdin=b"\xff\0x")
    assert done.stdout == b"\xff\0x"
    assert done.returncode == 0


def test_environment_is_only_what_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRKIT_SOMETHING_SECRET", "value")
    assert b"DRKIT_SOMETHING_SECRET" not in run(["env"]).stdout
    assert run(["env"], env={"A": "b"}).stdout == b"A=b\n"


def test_failure_tells_the_end_of_standard_error() -> None:
    code = "import sys; [print(i, file=sys.stderr) for i in range(99)]; sys.exit(3)"
    with pytest.raises(PostgresRefused, match="failed with exit code 3") as caught:
        run(python(code), raising=PostgresRefused)
    assert "98" in caught.value.message
    assert "50" not in caught.value.message


def test_death_by_signal_is_named() -> None:
    with pytest.raises(DrkitError, match="ended by SIGKILL"):
        run(["sh", "-c", "kill -9 $$"])


def test_failures_can_be_results() -> None:
    done = run(["sh", "-c", "echo no >&2; exit 7"], raising=None)
    assert (done.returncode, done.stderr) == (7, b"no\n")


def test_missing_program_is_named() -> None:
    with pytest.raises(DrkitError, match="cannot run /no/such: No such file"):
        run(["/no/such"])


def test_time_out_kills_the_whole_group(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    script = f"sleep 60 & echo $! > {pid_file}; echo words >&2; wait"
    began = time.monotonic()
    with pytest.raises(DrkitError, match=r"did not end within 0\.5 s:\n  words"):
        run(["sh", "-c", script], timeout=0.5)
    assert time.monotonic() - began < 10

    grandchild = Path(f"/proc/{pid_file.read_text().strip()}/stat")
    for _ in range(100):
        if not grandchild.exists() or " Z " in grandchild.read_text():
            return
        time.sleep(0.01)
    pytest.fail("the grandchild still runs")


def test_tail_of_little_and_of_nothing() -> None:
    assert tail(b"") == ""
    assert tail(b" \n") == ""
    assert tail(b"one\ntwo\n") == ":\n  one\n  two"


def test_accounts() -> None:
    own = current_account()
    assert own.uid == os.geteuid()
    assert find_account(pwd.getpwuid(own.uid).pw_name).uid == own.uid
    with pytest.raises(DrkitError, match="no operating-system user 'nobody-such'"):
        find_account("nobody-such")


def test_servers_never_run_as_root() -> None:
    assert server_account().uid != 0


def test_own_account_changes_nothing() -> None:
    assert drop_to(current_account(), reach=["/nowhere"]) == SAME_USER


def test_others_cannot_become_somebody(postgres_user: Account) -> None:
    code = (
        "from drkit.errors import PostgresRefused\n"
        "from drkit.postgres.process import Account, drop_to\n"
        "try: drop_to(Account('other', 12345, 12345))\n"
        "except PostgresRefused as error: print(error, error.hint)"
    )
    identity = drop_to(postgres_user, reach=[sys.executable, __file__])
    refusal = run(python(code), identity=identity).stdout.decode()
    assert refusal.startswith("only root can run a program as user other")


needs_root = pytest.mark.skipif(not AS_ROOT, reason="only root can change the user")


@needs_root
def test_reachable_programs_need_no_capability(postgres_user: Account) -> None:
    identity = drop_to(postgres_user, reach=["/bin/sh", "/etc/passwd"])
    assert identity == Identity(account=postgres_user)
    done = run(["id", "-u"], identity=identity)
    assert int(done.stdout) == postgres_user.uid
    groups = run(["id", "-G"], identity=identity).stdout.split()
    assert groups == [str(postgres_user.gid).encode()]


@needs_root
def test_programs_in_private_directories_can_be_run(
    postgres_user: Account, make_directory: Callable[[int], Path]
) -> None:
    private = make_directory(0o700)
    os.chown(private, 0, 0)
    program = private / "program"
    program.write_text('#!/bin/sh\nid -u; cat "$0" > /dev/null && echo read\n')
    program.chmod(0o700)

    identity = drop_to(postgres_user, reach=[str(program)])
    assert identity.prefix[0] == "setpriv"
    done = run(["sh", str(program)], identity=identity)
    assert done.stdout.split() == [str(postgres_user.uid).encode(), b"read"]
    written = run(["touch", str(private / "new")], identity=identity, raising=None)
    assert written.returncode != 0
