"""Environment variables as checked values: `DRKIT_*`."""

from __future__ import annotations

import os
from difflib import get_close_matches
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from drkit.config.environment import KNOWN, PREFIX, REFERENCE_PREFIX
from drkit.errors import PolicyError
from drkit.printing import page

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pydantic.fields import FieldInfo


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def _absolute(path: str) -> str:
    if not os.path.isabs(path):
        raise ValueError("must be an absolute path")
    return path


class Settings(BaseSettings):
    """What the environment says; None where it says nothing.

    Values that replace a policy's are checked there, by the same rules as the file's.
    Name, system identifier, keys and retention can't be replaced: one variable left
    over in a shell would turn a command against another cluster.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, extra="forbid", hide_input_in_errors=True
    )

    database_url: str | None = Field(
        None, description="replaces cluster.url; without a password"
    )
    database_password: SecretStr | None = Field(
        None, description="the password itself, instead of what cluster.password names"
    )
    database_directory: str | None = Field(
        None, description="replaces cluster.data_directory"
    )
    repository_url: str | None = Field(None, description="replaces repository.url")
    s3_endpoint_url: str | None = Field(
        None, description="replaces repository.s3.endpoint_url"
    )
    s3_region: str | None = Field(None, description="replaces repository.s3.region")
    s3_access_key_id: SecretStr | None = Field(
        None, description="the key id itself, instead of repository.s3.access_key_id"
    )
    s3_secret_access_key: SecretStr | None = Field(
        None, description="the key itself, instead of repository.s3.secret_access_key"
    )
    backup_source: str | None = Field(
        None, description="replaces backup.source: local or stream"
    )
    backup_jobs: int | None = Field(
        None, description="replaces backup.jobs: parallel workers"
    )
    backup_compression_level: int | None = Field(
        None, description="replaces backup.compression_level: 1 to 19"
    )
    backup_wal_timeout: str | None = Field(
        None, description="replaces backup.wal_timeout, such as 10 minutes"
    )
    wal_timeout: str | None = Field(
        None, description="replaces wal.timeout, such as 60 seconds"
    )
    policy_dir: str | None = Field(
        None, description="the directory of policy files, instead of the usual two"
    )
    cache_dir: Annotated[str, AfterValidator(_absolute)] | None = Field(
        None, description="where checked policies are cached, instead of ~/.cache/drkit"
    )
    state_dir: Annotated[str, AfterValidator(_absolute)] | None = Field(
        None,
        description="where the newest log entries seen are remembered, not in the "
        "user's state directory",
    )
    log_format: Annotated[Literal["text", "json"], BeforeValidator(_lower)] = Field(
        "text", description="text or json"
    )
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], BeforeValidator(_lower)
    ] = Field("info", description="debug, info, warning or error")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take only what is handed in: `read_settings` is told the environment.

        A `.env` file is never read: archive commands run in the data directory, and
        what lies around there must not steer them.
        """
        return (init_settings,)


class _Variables(PydanticBaseSettingsSource):
    """The environment as a source of settings; empty variables count as unset."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        super().__init__(Settings)
        self._environ = environ

    def get_field_value(
        self,
        field: FieldInfo,  # noqa: ARG002
        field_name: str,
    ) -> tuple[Any, str, bool]:
        variable = PREFIX + field_name.upper()
        return self._environ.get(variable) or None, variable, False

    def __call__(self) -> dict[str, Any]:
        found = {
            name: self.get_field_value(field, name)[0]
            for name, field in Settings.model_fields.items()
        }
        return {name: value for name, value in found.items() if value is not None}


def read_settings(environ: Mapping[str, str]) -> Settings:
    """Check the `DRKIT_*` variables of an environment.

    Raises:
        PolicyError: an unknown variable or a malformed value; all of them are told,
            one per line, and no value is repeated.
    """
    problems = list(_unknown(environ))
    settings = None
    try:
        settings = Settings(**_Variables(environ)())
    except ValidationError as error:
        problems.extend(
            f"{PREFIX}{str(detail['loc'][0]).upper()}: {_text(detail)}"
            for detail in error.errors(include_input=False, include_url=False)
        )
    if settings is None or problems:
        raise PolicyError(
            page(problems), hint=".env.example lists and explains every variable"
        )
    return settings


def _unknown(environ: Mapping[str, str]) -> Iterator[str]:
    for name in sorted(environ):
        ours = name.upper().startswith(PREFIX)
        if not ours or name in KNOWN or name.startswith(REFERENCE_PREFIX):
            continue
        near = get_close_matches(name.upper(), KNOWN, 1)
        advice = f"did you mean {near[0]}?" if near else "unset it"
        yield (
            f"{name}: drkit knows no such variable; {advice} (variables that policies "
            f"refer to begin with {REFERENCE_PREFIX})"
        )


def _text(detail: Mapping[str, Any]) -> str:
    if detail["type"] == "int_parsing":
        return "must be a whole number"
    if detail["type"] == "literal_error":
        return f"must be {detail['ctx']['expected']}"
    if detail["type"] == "value_error":
        return str(detail["ctx"]["error"])
    return str(detail["msg"])
