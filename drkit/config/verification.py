"""The policy's section on verifications: what is restored, and how it is proven."""

from __future__ import annotations

import re
from datetime import timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    PlainSerializer,
    PlainValidator,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from drkit.config.fields import (  # noqa: TC001  pydantic reads them
    AbsolutePath,
    Duration,
    EndpointUrl,
    Size,
)
from drkit.config.policy import default_jobs
from drkit.config.section import Section
from drkit.model.fingerprint import Mode
from drkit.model.verification import (
    Assertion,
    CheckName,
    Choice,
    Comparison,
    TimestampAuthority,
    Tolerance,
    VerificationRules,
)

_DEFAULTS = VerificationRules()
_NUMBER = r"[0-9]{1,30}(\.[0-9]{1,30})?"
_TOLERANCE = re.compile(rf"({_NUMBER})( *%)?")
_SELECT = re.compile(r"\(*\s*(select|with|values|table)\b", re.IGNORECASE)

ChoiceName = Literal["latest", "random-backup", "random-moment"]
AskedCheck = Literal[
    "pages", "rows", "amcheck", "fingerprint", "assertions", "write", "heartbeat"
]


def _expected(value: object) -> str:
    """Return a value as SQL writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, int | str):
        raise ValueError("must be a number or text")  # noqa: TRY004
    return str(value)


def _tolerance(value: object) -> object:
    if isinstance(value, Tolerance):
        return value
    match = _TOLERANCE.fullmatch(str(value).strip())
    if match is None or isinstance(value, bool):
        raise ValueError("is no tolerance; write a number, such as 100, or 5 %")
    return Tolerance(Decimal(match[1]), percent=match[3] is not None)


def _unlike(values: tuple[Any, ...]) -> tuple[Any, ...]:
    twice = [value for place, value in enumerate(values) if value in values[:place]]
    if twice:
        raise ValueError(f"names {twice[0]} twice; remove one")
    return values


Expected = Annotated[
    str,
    PlainValidator(_expected),
    WithJsonSchema({"type": ["string", "integer", "boolean"]}),
]
ToleranceText = Annotated[
    Tolerance,
    PlainValidator(_tolerance),
    PlainSerializer(str),
    WithJsonSchema(
        {"type": ["string", "integer"], "minimum": 0, "pattern": f"^{_NUMBER}( *%)?$"}
    ),
]


class AssertionSection(Section):
    """A statement, and the value that it must return on a restored cluster."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]{0,62}$",
        description="What the assertion is called in evidence and reports.",
        examples=["recent orders"],
    )
    database: str | None = Field(
        None,
        min_length=1,
        max_length=63,
        description="The database that it is asked in; by default that of cluster.url.",
        examples=["shop"],
    )
    sql: str = Field(
        description="One statement that returns one value; it runs in a transaction "
        "that can't write.",
        examples=["SELECT count(*) FROM orders"],
    )
    equals: Expected | None = Field(
        None, description="The value must be this one.", examples=[3, "utf8"]
    )
    at_least: Expected | None = Field(
        None, description="The value must be this one or larger.", examples=[1000]
    )
    at_most: Expected | None = Field(
        None, description="The value must be this one or smaller.", examples=[0]
    )
    tolerance: ToleranceText | None = Field(
        None,
        description="How far a number may miss: a number, or percent of the expected.",
        examples=["5 %", 100],
    )
    timeout: Duration = Field(
        timedelta(minutes=10),
        description="How long the statement may take.",
        examples=["10 minutes"],
        json_schema_extra={"default": "10 minutes"},
    )

    @field_validator("sql")
    @classmethod
    def _one_query(cls, sql: str) -> str:
        """Refuse early what the server would refuse, and what is no question."""
        text = sql.strip().removesuffix(";").rstrip()
        if not _SELECT.match(text):
            raise ValueError("must be one SELECT, WITH, VALUES or TABLE statement")
        return text

    @model_validator(mode="after")
    def _one_comparison(self) -> AssertionSection:
        if len(self._comparisons()) != 1:
            raise ValueError("needs exactly one of equals, at_least and at_most")
        return self

    def _comparisons(self) -> list[Comparison]:
        return [one for one in Comparison if getattr(self, one.value) is not None]

    def value(self) -> Assertion:
        """Return it as a plain value."""
        (comparison,) = self._comparisons()
        return Assertion(
            name=self.name,
            sql=self.sql,
            comparison=comparison,
            expected=getattr(self, comparison.value),
            database=self.database,
            tolerance=self.tolerance,
            timeout=self.timeout,
        )


class TimestampsSection(Section):
    """An authority that stamps records with the time (RFC 3161)."""

    authority: EndpointUrl = Field(
        description="Where it is asked.", examples=["https://timestamp.example.com"]
    )
    roots: AbsolutePath = Field(
        description="Its root certificates, in PEM.",
        examples=["/etc/drkit/timestamp-roots.pem"],
    )

    def value(self) -> TimestampAuthority:
        """Return it as a plain value."""
        return TimestampAuthority(self.authority, self.roots)


class VerificationSection(Section):
    """How backups are proven: restored into a scratch instance, and checked there."""

    directory: AbsolutePath | None = Field(
        None,
        description="Where scratch instances are made, each in a private directory; by "
        "default /var/tmp. Where root owns it, they run as a user that nobody else "
        "has; else as its owner.",
        examples=["/srv/scratch/drkit-production"],
    )
    jobs: int = Field(
        default_factory=default_jobs,
        ge=1,
        le=64,
        description="Parallel workers; by default the CPUs drkit may use, at most 8.",
        examples=[2],
    )
    time_limit: Duration = Field(
        _DEFAULTS.time_limit,
        description="How long a verification may take; checks that were not made "
        "until then are not done.",
        examples=["4 hours"],
        json_schema_extra={"default": "4 hours"},
    )
    memory: Size = Field(
        _DEFAULTS.memory,
        description="How much memory each process of the scratch instance may take; "
        "its buffers are a quarter of that.",
        examples=["1 GB"],
        json_schema_extra={"default": "1 GB"},
    )
    max_size: Size | None = Field(
        None,
        description="The largest data directory that is restored; by default whatever "
        "fits on the disk.",
        examples=["500 GB"],
    )
    fingerprint: Literal["off", "sampled", "exact"] = Field(
        "sampled",
        description="What each backup notes of the cluster, to compare what is "
        "restored with: sampled reads some blocks of each table; exact reads every "
        "row, and holds up writers for a moment.",
        examples=["sampled"],
    )
    choose: tuple[ChoiceName, ...] = Field(
        ("latest", "random-backup", "random-moment"),
        strict=False,
        min_length=1,
        description="What is restored where nobody says it, in turn: the latest "
        "backup, a random backup, a random moment.",
        examples=[["latest", "random-backup", "random-moment"]],
        json_schema_extra={"default": [one.value for one in Choice]},
    )
    checks: tuple[AskedCheck, ...] = Field(
        (
            "pages",
            "rows",
            "amcheck",
            "fingerprint",
            "assertions",
            "write",
            "heartbeat",
        ),
        strict=False,
        min_length=1,
        description="What is checked of a restored cluster.",
        examples=[["pages", "rows", "assertions"]],
        json_schema_extra={"default": [one.value for one in CheckName]},
    )
    allow_missing: tuple[AskedCheck, ...] = Field(
        ("amcheck", "fingerprint", "heartbeat"),
        strict=False,
        description="Checks that a verification passes without where they can't be "
        "made; the evidence says why.",
        examples=[["amcheck"]],
        json_schema_extra={"default": ["amcheck", "fingerprint", "heartbeat"]},
    )
    assertions: tuple[AssertionSection, ...] = Field(
        (),
        strict=False,
        max_length=500,
        description="What statements must return on a restored cluster.",
        examples=[
            [
                {
                    "name": "orders",
                    "sql": "SELECT count(*) FROM orders",
                    "at_least": 1000,
                }
            ]
        ],
    )
    every: Duration | None = Field(
        None,
        description="How often a verification is due; reports show where none was.",
        examples=["1 day"],
    )

    timestamps: TimestampsSection | None = Field(
        None,
        description="Who stamps each signed record with the time (RFC 3161), so that "
        "its date is not the signer's word alone.",
        examples=[
            {
                "authority": "https://timestamp.example.com",
                "roots": "/etc/drkit/timestamp-roots.pem",
            }
        ],
    )

    @field_validator("choose", "checks", "allow_missing")
    @classmethod
    def _once(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        return _unlike(values)

    @field_validator("assertions")
    @classmethod
    def _names(
        cls, values: tuple[AssertionSection, ...]
    ) -> tuple[AssertionSection, ...]:
        _unlike(tuple(one.name for one in values))
        return values

    @field_validator("every")
    @classmethod
    def _not_too_often(cls, every: timedelta | None) -> timedelta | None:
        if every is not None and every < timedelta(minutes=1):
            raise ValueError("is too often; write at least 1 minute")
        return every

    def value(self) -> VerificationRules:
        """Return the rules as a plain value."""
        exact = None if self.fingerprint == "off" else Mode(self.fingerprint)
        return VerificationRules(
            jobs=self.jobs,
            directory=self.directory,
            time_limit=self.time_limit,
            memory=self.memory,
            max_size=self.max_size,
            fingerprint=exact,
            choose=tuple(Choice(name) for name in self.choose),
            checks=frozenset(CheckName(name) for name in self.checks),
            allow_missing=frozenset(CheckName(name) for name in self.allow_missing),
            assertions=tuple(one.value() for one in self.assertions),
            every=self.every,
            timestamps=None if self.timestamps is None else self.timestamps.value(),
        )
