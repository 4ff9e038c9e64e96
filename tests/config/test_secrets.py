from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import BaseModel, ValidationError

from drkit.config.secrets import MAX_SECRET, Secret, SecretReference
from drkit.errors import KeyUnavailable, PolicyError

SECRET = "correct horse battery staple"


def key_file(
    path: Path, content: str | bytes = SECRET + "\n", mode: int = 0o600
) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    path.chmod(mode)
    return path


def reference(path: Path) -> SecretReference:
    return SecretReference.parse(f"file:{path}", field="keys.wal")


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("env:DRKIT_DATABASE_PASSWORD", "env:DRKIT_DATABASE_PASSWORD"),
        ("env:_x9", "env:_x9"),
        ("file:/etc/key", "file:/etc/key"),
        ("file:///etc/key", "file:/etc/key"),
        ("file:key", "file:/base/key"),
        ("file:../keys/./key", "file:/keys/key"),
        ("credential:wal.key", "credential:wal.key"),
    ],
)
def test_reads_references(text: str, normal: str) -> None:
    parsed = SecretReference.parse(text, folder="/base")
    assert str(parsed) == normal
    assert SecretReference.parse(str(parsed)) == parsed


@pytest.mark.parametrize(
    "text",
    ["", "hunter2", "hunter2:x", "env:", "env:hunter2-", "env:hünter2", "file:",
     "file:~/hunter2", "file://hunter2/x", "file:/a\0hunter2", "credential:",
     "credential:a/hunter2", "credential:.hunter2", " env:hunter2"],
)  # fmt: skip
def test_refuses_everything_else_without_repeating_it(text: str) -> None:
    with pytest.raises(ValueError, match="write env:NAME") as caught:
        SecretReference.parse(text, folder="/base")
    assert "nter2" not in str(caught.value)


def test_a_relative_path_needs_a_folder() -> None:
    with pytest.raises(ValueError, match="absolute path"):
        SecretReference.parse("file:key")


def test_from_a_variable() -> None:
    wanted = SecretReference.parse("env:PASSWORD", field="cluster.password")
    assert wanted.resolve({"PASSWORD": SECRET}).reveal() == SECRET
    for environ in ({}, {"PASSWORD": ""}, {"PASSWORD": "  \n"}):
        with pytest.raises(PolicyError) as caught:
            wanted.resolve(environ)
        assert caught.value.message == (
            "cluster.password: the environment variable PASSWORD is not set"
        )


def test_from_a_file_without_its_line_end(tmp_path: Path) -> None:
    path = key_file(tmp_path / "key", f" {SECRET} \r\n")
    assert reference(path).resolve({}).reveal() == f" {SECRET} "


def test_through_a_symbolic_link(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(key_file(tmp_path / "key"))
    assert reference(link).resolve({}).reveal() == SECRET


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o601, 0o666, 0o660])
def test_a_file_that_others_can_get_at(tmp_path: Path, mode: int) -> None:
    path = key_file(tmp_path / "key", mode=mode)
    with pytest.raises(KeyUnavailable, match=f"mode {mode:04o}") as caught:
        reference(path).resolve({})
    assert str(caught.value.hint).startswith(f"chmod 600 {path}")
    assert caught.value.message.startswith("keys.wal: ")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "is empty"),
        ("\n", "is empty"),
        ("  \r\n", "is empty"),
        (b"\xffhunter2", "is no short text"),
        ("x" * (MAX_SECRET + 1), "is no short text"),
    ],
)
def test_a_file_without_a_secret(
    tmp_path: Path, content: str | bytes, told: str
) -> None:
    path = key_file(tmp_path / "key", content)
    with pytest.raises(KeyUnavailable, match=told) as caught:
        reference(path).resolve({})
    # The bytes must not be reachable through the chain of exceptions.
    assert caught.value.__context__ is None


@pytest.mark.parametrize(
    ("field", "told"),
    [
        ("keys.wal", "nothing that it encrypted can be read"),
        ("keys.signing", "nothing can be written to the log, and restores still work"),
        ("keys.wal_signing", "no WAL can be archived, and restores still work"),
        ("repository.password", "name another place for it in the policy"),
    ],
)
def test_what_is_not_possible_without_a_file(
    tmp_path: Path, field: str, told: str
) -> None:
    lost = SecretReference.parse(f"file:{tmp_path / 'absent'}", field=field)
    with pytest.raises(KeyUnavailable) as caught:
        lost.resolve({})
    assert told in (caught.value.hint or "")


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(KeyUnavailable, match=r"keys\.wal: there is no file"):
        reference(tmp_path / "absent").resolve({})
    with pytest.raises(KeyUnavailable, match="there is no file"):
        reference(key_file(tmp_path / "key") / "below").resolve({})


@pytest.mark.parametrize(
    ("make", "told"),
    [(Path.mkdir, "Is a directory"), (os.mkfifo, "is not a file")],
)
def test_what_is_no_file_does_not_hang(tmp_path: Path, make: object, told: str) -> None:
    make(tmp_path / "key")  # type: ignore[operator]
    with pytest.raises(KeyUnavailable, match=told):
        reference(tmp_path / "key").resolve({})


def test_a_file_of_another_user(session_directory: str) -> None:
    # Root reads everything: then another process tries, as nobody.
    root = os.geteuid() == 0
    path = key_file(Path(session_directory) / "key", mode=0o600 if root else 0o000)
    try:
        told = _resolved_as_nobody(path) if root else _refusal(path)
    finally:
        path.unlink()
    assert told == f"keys.wal: {path} can't be read: Permission denied"


def _refusal(path: Path) -> str:
    with pytest.raises(KeyUnavailable) as caught:
        reference(path).resolve({})
    return caught.value.message


def _resolved_as_nobody(path: Path) -> str:
    program = (
        "import os, sys\n"
        "from drkit.config.secrets import SecretReference\n"
        "from drkit.errors import KeyUnavailable\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "try:\n"
        "    wanted = SecretReference.parse('file:' + sys.argv[1], field='keys.wal')\n"
        "    wanted.resolve({})\n"
        "except KeyUnavailable as error:\n"
        "    print(error.message)\n"
    )
    command = [sys.executable, "-c", program, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_from_a_systemd_credential(tmp_path: Path) -> None:
    # systemd's access list shows as group permission, and that is right there.
    key_file(tmp_path / "wal", mode=0o440)
    wanted = SecretReference.parse("credential:wal", field="keys.wal")
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    assert wanted.resolve(environ).reveal() == SECRET
    with pytest.raises(KeyUnavailable, match="there is no file"):
        SecretReference.parse("credential:dump").resolve(environ)


@pytest.mark.parametrize("environ", [{}, {"CREDENTIALS_DIRECTORY": "relative"}])
def test_no_credentials_outside_of_systemd(environ: dict[str, str]) -> None:
    with pytest.raises(KeyUnavailable) as caught:
        SecretReference.parse("credential:wal", field="keys.wal").resolve(environ)
    assert "LoadCredential=wal:" in str(caught.value.hint)


def test_a_secret_shows_itself_to_nobody() -> None:
    secret = Secret(SECRET)
    for shown in (repr(secret), str(secret), f"{secret}", f"{[secret]!r}"):
        assert "horse" not in shown
    assert str(secret) == "***"
    with pytest.raises(TypeError):
        pickle.dumps(secret)
    with pytest.raises(TypeError):
        vars(secret)


def test_references_are_values() -> None:
    one = SecretReference.parse("env:A", field="keys.wal")
    assert one == SecretReference.parse("env:A")
    assert one != SecretReference.parse("env:B")
    assert one != "env:A"
    assert len({one, SecretReference.parse("env:A")}) == 1
    assert copy.deepcopy(one) == pickle.loads(pickle.dumps(one)) == one
    assert repr(one) == "SecretReference('env:A')"
    with pytest.raises(AttributeError):
        one.target = "B"  # type: ignore[misc]


class Model(BaseModel):
    key: SecretReference
    other: SecretReference | None = None


def test_as_a_field_of_a_model() -> None:
    model = Model.model_validate({"key": "file:key"}, context={"folder": "/base"})
    assert model.key.target == "/base/key"
    assert Model(key=model.key).model_dump() == {"key": "file:/base/key", "other": None}
    assert Model.model_json_schema()["properties"]["key"]["type"] == "string"


@pytest.mark.parametrize("value", ["hunter2", 17, None, ["env:A"]])
def test_as_a_field_refuses_what_is_no_reference(value: object) -> None:
    with pytest.raises(ValidationError, match="write env:NAME"):
        Model.model_validate({"key": value})
