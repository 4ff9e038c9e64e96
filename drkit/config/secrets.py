"""Secrets as references: policies say where a secret is, never what it is.

`wal push` imports this module on every segment, so it imports next to nothing; pydantic
finds its hook here without being imported.
"""

from __future__ import annotations

import errno
import os
import stat

from drkit.config.trust import Exposed, own_users, refuse_strangers
from drkit.errors import KeyUnavailable, PolicyError
from drkit.rights import run_as_owner

TYPE_CHECKING = False  # without importing typing
if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from typing import Any, Never

    from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
    from pydantic_core import CoreSchema

MAX_SECRET = 64 << 10
_FORMS = "write env:NAME, file:/path or credential:NAME"


class Secret:
    """A secret's value, which shows itself only to `reveal`."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the value, for the one place that needs it."""
        return self._value

    def __repr__(self) -> str:
        return "***"

    __str__ = __repr__

    def __reduce__(self) -> Never:
        raise TypeError("a secret is not written anywhere")


class SecretReference:
    """Where a secret is: a variable, a file, or a systemd credential.

    Attributes:
        scheme: `env`, `file` or `credential`.
        target: a variable's name, an absolute path, or a credential's name.
        field: the policy field that holds the reference, for messages.
    """

    __slots__ = ("_field", "_scheme", "_target")

    def __init__(self, scheme: str, target: str, field: str = "") -> None:
        self._scheme, self._target, self._field = scheme, target, field

    @property
    def scheme(self) -> str:
        """Say which kind of place this is."""
        return self._scheme

    @property
    def target(self) -> str:
        """Name the place."""
        return self._target

    @property
    def field(self) -> str:
        """Name the policy field that holds this reference; may be empty."""
        return self._field

    @classmethod
    def parse(
        cls, text: str, *, folder: str | None = None, field: str = ""
    ) -> SecretReference:
        """Read a reference.

        Args:
            text: `env:NAME`, `file:/path` or `credential:NAME`.
            folder: where a relative path begins: the policy file's folder.
            field: the policy field, for messages.

        Raises:
            ValueError: not a reference. The message never repeats the text: whoever
                writes something else here has written the secret itself.
        """
        scheme, colon, target = text.partition(":")
        if not colon or scheme not in _TARGETS:
            raise ValueError(
                "must say where the secret is, not the secret itself; " + _FORMS
            )
        return cls(scheme, _TARGETS[scheme](target, folder), field)

    def named(self, field: str) -> SecretReference:
        """Return the reference as the content of the policy field `field`."""
        return SecretReference(self._scheme, self._target, field)

    def resolve(
        self, environ: Mapping[str, str], users: Collection[int] | None = None
    ) -> Secret:
        """Fetch the secret, without the line end that editors leave behind it.

        Args:
            environ: the process's environment.
            users: who may own its file; root and this user by default.

        Raises:
            PolicyError: the variable is not set.
            KeyUnavailable: the file is missing, unreadable, empty, no text, open to
                other users, or could have been changed by them.
        """
        if self._scheme == "env":
            return self._from_variable(environ)
        if self._scheme == "credential":
            # systemd keeps other users out of the directory, and shows an access list
            # as group permissions of the file: who may read it is not told by its mode.
            return _read(self._credential_path(environ), self, None, private=False)
        return _read(self._target, self, users, private=True)

    def _from_variable(self, environ: Mapping[str, str]) -> Secret:
        value = environ.get(self._target, "")
        if not value.strip():
            raise PolicyError(
                f"{self.owner}: the environment variable {self._target} is not set",
                hint=f"set {self._target} for the user and service that run drkit",
            )
        return Secret(value.rstrip("\r\n"))

    def _credential_path(self, environ: Mapping[str, str]) -> str:
        directory = environ.get("CREDENTIALS_DIRECTORY", "")
        if not os.path.isabs(directory):
            raise KeyUnavailable(
                f"{self.owner}: there is no systemd credential {self._target} here",
                hint="run drkit from a unit with "
                f"LoadCredential={self._target}:/path/to/the/file",
            )
        return os.path.join(directory, self._target)

    @property
    def owner(self) -> str:
        """Say what this is a secret of: its policy field, or the reference itself."""
        return self._field or str(self)

    def __str__(self) -> str:
        return f"{self._scheme}:{self._target}"

    def __repr__(self) -> str:
        return f"SecretReference({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SecretReference):
            return NotImplemented
        return str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """Let pydantic validate a field of this type from text, and write it as text.

        The validation context's `folder`, if there is one, is where relative paths
        begin.
        """
        from pydantic_core import core_schema  # noqa: PLC0415  only under pydantic

        def validate(value: object, info: core_schema.ValidationInfo) -> object:
            if isinstance(value, SecretReference):
                return value
            if not isinstance(value, str):
                raise ValueError("must be text; " + _FORMS)  # noqa: TRY004
            context = info.context or {}
            return cls.parse(value, folder=context.get("folder"))

        return core_schema.with_info_plain_validator_function(
            validate,
            serialization=core_schema.plain_serializer_function_ser_schema(str),
        )

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """Describe a reference for editors."""
        return {
            "type": "string",
            "pattern": "^(env:[A-Za-z_][A-Za-z0-9_]*|file:.+|credential:[^/]+)$",
        }


def _variable(target: str, folder: str | None) -> str:  # noqa: ARG001
    name = target.replace("_", "a")
    if not (name.isascii() and name.isalnum()) or target[0].isdigit():
        raise ValueError("env: must be followed by the name of a variable; " + _FORMS)
    return target


def _credential(target: str, folder: str | None) -> str:  # noqa: ARG001
    if not target or target.startswith(".") or "/" in target or "\0" in target:
        raise ValueError(
            "credential: must be followed by the name of a credential; " + _FORMS
        )
    return target


def _path(target: str, folder: str | None) -> str:
    path = target[2:] if target.startswith("///") else target
    if not path or path.startswith(("//", "~")) or "\0" in path:
        raise ValueError(
            "file: must be followed by a path, with neither ~ nor a host; " + _FORMS
        )
    if not os.path.isabs(path):
        if folder is None:
            raise ValueError("file: must be followed by an absolute path here")
        path = os.path.join(folder, path)
    return os.path.normpath(path)


_TARGETS = {"env": _variable, "file": _path, "credential": _credential}


def _read(
    path: str,
    reference: SecretReference,
    users: Collection[int] | None,
    *,
    private: bool,
) -> Secret:
    """Read one secret file; `private` demands that no other user can."""
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise KeyUnavailable(f"{reference.owner}: {path} is not a file")
            users = own_users() if users is None else users
            refuse_strangers(path, status, users, private=private)
            data = file.read(MAX_SECRET + 1)
    except OSError as error:
        raise _unreadable(path, reference, error) from error
    except Exposed as error:
        raise KeyUnavailable(
            f"{reference.owner}: {error.message}", hint=error.hint
        ) from None
    return Secret(_text(data, path, reference))


def _without_waiting(path: str, flags: int) -> int:
    """Open a file, and a named pipe without waiting for its writer."""
    return os.open(path, flags | os.O_NONBLOCK)


def _unreadable(
    path: str, reference: SecretReference, error: OSError
) -> KeyUnavailable:
    if error.errno in {errno.ENOENT, errno.ENOTDIR}:
        return KeyUnavailable(
            f"{reference.owner}: there is no file {path}",
            hint="bring the file from where your keys are kept safe; "
            f"{_without(reference.owner)}",
        )
    return KeyUnavailable(
        f"{reference.owner}: {path} can't be read: {error.strerror}",
        hint=run_as_owner(path) if isinstance(error, PermissionError) else None,
    )


def _without(owner: str) -> str:
    """Say what can't be done without a secret that is lost."""
    if owner == "keys.signing":
        return "without it nothing can be written to the log, and restores still work"
    if owner == "keys.wal_signing":
        return "without it no WAL can be archived, and restores still work"
    if owner.startswith("keys."):
        return "without it nothing that it encrypted can be read"
    return "or name another place for it in the policy"


def _text(data: bytes, path: str, reference: SecretReference) -> str:
    """Decode a secret; no error carries any of its bytes."""
    text = None
    if len(data) <= MAX_SECRET:
        try:
            text = data.decode()
        except UnicodeDecodeError:
            text = None  # raised below, where no traceback holds the bytes
    if text is None:
        raise KeyUnavailable(f"{reference.owner}: {path} is no short text in UTF-8")
    if not text.strip():
        raise KeyUnavailable(f"{reference.owner}: {path} is empty")
    return text.rstrip("\r\n")
