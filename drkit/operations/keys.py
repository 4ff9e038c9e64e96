"""Which keys a repository's objects need, and whether they are all at hand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from drkit.crypto.keys import PURPOSES
from drkit.crypto.signing import format_public
from drkit.errors import Corrupt, DrkitError, KeyUnavailable
from drkit.model.finding import Finding, failed, ok, skipped, warning
from drkit.model.log import AttemptState
from drkit.operations.alarms import log_alarms

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from drkit.crypto.signing import Signer
    from drkit.repository.keyring import StoredKey
    from drkit.repository.repository import Repository

    KeyName = tuple[str, str]  # purpose and id in hex

_WAL = "wal_signing"
_NO_OTHER = "bring the right key file back from where your keys are kept safe"


@dataclass(frozen=True, slots=True)
class Signing:
    """The signing keys that a policy refers to, and the public keys that it trusts.

    Attributes:
        wal_signer: None if the policy has no key that signs WAL.
    """

    signer: Callable[[], Signer]
    trusted: Collection[bytes]
    wal_signer: Callable[[], Signer] | None = None
    trusted_wal: Collection[bytes] = ()

    def signers(self) -> dict[str, Callable[[], Signer]]:
        """Return what reads the keys that there are, by what they are for."""
        found = {"signing": self.signer}
        return found if self.wal_signer is None else found | {_WAL: self.wal_signer}

    def pins(self, purpose: str) -> tuple[str, set[str]]:
        """Return the field that pins a signing key's public half, and what it pins."""
        wal = purpose == _WAL
        pinned = self.trusted_wal if wal else self.trusted
        field = "keys.trusted_wal" if wal else "keys.trusted"
        return field, {format_public(public) for public in pinned}


@dataclass(frozen=True, slots=True)
class Use:
    """What a data key belongs to.

    Attributes:
        kind: `backup`, `running`, `abandoned` or `expired` with a label as name; `wal`
            with a UTC day; `log` without a name.
    """

    kind: str
    name: str = ""

    @property
    def live(self) -> bool:
        """Whether something that is kept can't be read without the key."""
        return self.kind in ("backup", "wal", "log")

    def __str__(self) -> str:
        return {"log": "the log", "wal": f"WAL of {self.name}"}.get(
            self.kind, f"{self.kind} {self.name}"
        )


@dataclass(frozen=True, slots=True)
class KeyAtHand:
    """A key that the policy refers to; `key_id` is empty where `problem` says why.

    Attributes:
        key_id: of a key-encrypting key its id, of a signing key its public half.
    """

    purpose: str
    key_id: str
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class DataKey:
    """One stored generation of a wrapped DEK.

    Attributes:
        recipients: ids of the key-encrypting keys that it is wrapped for.
    """

    purpose: str
    key_id: str
    generation: int
    recipients: tuple[str, ...]
    uses: tuple[Use, ...]


@dataclass(frozen=True, slots=True)
class KeyList:
    """Every key of a cluster.

    Attributes:
        problems: what could not be read, so that the list may lack something.
    """

    policy_keys: tuple[KeyAtHand, ...]
    data_keys: tuple[DataKey, ...]
    problems: tuple[str, ...]


def list_keys(repository: Repository, signing: Signing) -> KeyList:
    """List the policy's keys and every wrapped DEK with what it belongs to."""
    problems: list[str] = []
    uses = _Uses(repository, problems)
    if uses.log_error is not None:
        problems.append(f"what keys belong to is not known: {uses.log_error}")
    data_keys = [
        DataKey(
            stored.purpose,
            stored.key_id.hex(),
            stored.generation,
            tuple(recipient.kek_id for recipient in stored.recipients),
            uses.of(stored.purpose, stored.key_id.hex()),
        )
        for stored in _stored(repository, problems)
    ]
    return KeyList(
        tuple(_at_hand(repository, signing)), tuple(data_keys), tuple(problems)
    )


def check_keys(repository: Repository, signing: Signing) -> tuple[Finding, ...]:
    """Try every key: it is there, it is the right one, it opens what it should.

    Returns:
        One finding for each key of the policy, for the log and for each DEK, whether
        it is stored or only needed.
    """
    held = tuple(_at_hand(repository, signing))
    findings = [*_check_policy_keys(held, signing), _check_log(repository)]
    problems: list[str] = []
    uses = _Uses(repository, problems)
    absent = {key.purpose for key in held if key.problem}
    stored: dict[KeyName, list[StoredKey]] = {}
    for one in _stored(repository, problems):
        stored.setdefault((one.purpose, one.key_id.hex()), []).append(one)
    for (purpose, key_id), generations in stored.items():
        used = uses.of(purpose, key_id)
        if purpose in absent:
            why = f"keys.{purpose} is not at hand"
            findings.append(skipped(_name(purpose, key_id), why))
        else:
            findings.append(_check_dek(repository, generations, used))
    for (purpose, key_id), used in uses.live():
        if (purpose, key_id) not in stored and purpose not in absent:
            findings.append(_check_unlisted(repository, purpose, key_id, used))
    findings += [failed("objects", KeyUnavailable(problem)) for problem in problems]
    return tuple(findings)


class _Uses:
    """What each data key belongs to, as the log and the WAL days say.

    Attributes:
        log_error: why the log could not be read to its end.
    """

    def __init__(self, repository: Repository, problems: list[str]) -> None:
        self._uses: dict[KeyName, list[Use]] = {}
        self.log_error: DrkitError | None = None
        try:
            self._read_log(repository)
        except DrkitError as error:
            self.log_error = error
        for day, key_id in _wal_days(repository, problems):
            self._add("wal", key_id, Use("wal", day))

    def of(self, purpose: str, key_id: str) -> tuple[Use, ...]:
        """Return the uses of one key; none is known of an unused one."""
        return tuple(self._uses.get((purpose, key_id), ()))

    def live(self) -> Iterator[tuple[KeyName, tuple[Use, ...]]]:
        """Yield the keys without which something that is kept can't be read."""
        for name, uses in self._uses.items():
            if any(use.live for use in uses):
                yield name, tuple(uses)

    def _read_log(self, repository: Repository) -> None:
        try:
            state = repository.log.read()
        finally:
            for key in repository.log.key_ids:
                self._add("catalog", key.hex(), Use("log"))
        for attempt in state.attempts.values():
            kind, label = str(attempt.state), attempt.begin.label
            if attempt.state is AttemptState.COMMITTED:
                kind = "backup" if label in state.backups else "expired"
            for purpose, key_id in attempt.begin.keys:
                self._add(purpose, key_id, Use(kind, label))

    def _add(self, purpose: str, key_id: str, use: Use) -> None:
        self._uses.setdefault((purpose, key_id), []).append(use)


def _wal_days(repository: Repository, problems: list[str]) -> Iterator[tuple[str, str]]:
    for info in repository.storage.list(repository.layout.wal_day("")):
        try:
            key_id = repository.keyring.wal_day_key(info.name)
        except Corrupt:
            continue  # it names no key: anybody may have put it there
        except DrkitError as error:
            problems.append(str(error))
        else:
            yield info.name.rpartition("/")[2], key_id.hex()


def _stored(repository: Repository, problems: list[str]) -> Iterator[StoredKey]:
    """Yield the wrapped DEKs that can be read, in the order of their names."""
    for info in repository.storage.list(repository.layout.keys()):
        try:
            yield repository.keyring.read(info.name)
        except DrkitError as error:
            problems.append(str(error))


def _at_hand(repository: Repository, signing: Signing) -> Iterator[KeyAtHand]:
    for purpose in PURPOSES:
        try:
            yield KeyAtHand(purpose, repository.keyring.provider(purpose).kek_id)
        except DrkitError as error:
            yield KeyAtHand(purpose, "", _told(error))
    for purpose, signer in signing.signers().items():
        try:
            yield KeyAtHand(purpose, format_public(signer().public))
        except DrkitError as error:
            yield KeyAtHand(purpose, "", _told(error))


def _told(error: DrkitError) -> str:
    return f"{error.message} ({error.hint})" if error.hint else error.message


def _check_policy_keys(
    held: tuple[KeyAtHand, ...], signing: Signing
) -> Iterator[Finding]:
    seen: dict[str, str] = {}
    for key in held:
        name = f"keys.{key.purpose}"
        pinned_by, pinned = signing.pins(key.purpose)
        if key.problem is not None:
            yield failed(name, KeyUnavailable(key.problem))
        elif key.key_id in seen:
            yield failed(
                name,
                KeyUnavailable(
                    f"holds the same key as keys.{seen[key.key_id]}",
                    hint="each purpose needs a key of its own; " + _NO_OTHER,
                ),
            )
        elif key.purpose in signing.signers() and key.key_id not in pinned:
            yield failed(
                name,
                KeyUnavailable(
                    f"the signing key is {key.key_id}, which {pinned_by} lacks: "
                    "nobody would believe what it signs",
                    hint=_NO_OTHER + f", or add that public key to {pinned_by}",
                ),
            )
        else:
            yield ok(name, key.key_id)
        seen.setdefault(key.key_id, key.purpose)


def _check_log(repository: Repository) -> Finding:
    try:
        backups = repository.backups()
    except DrkitError as error:
        return failed("log", error)
    entries, alarms = len(repository.log.entries), log_alarms(repository)
    if alarms:
        return warning(
            "log",
            "; ".join(alarms),
            hint="look who can write to the repository; objects that are no entries "
            "may be deleted once a later entry is there",
        )
    return ok(
        "log", f"{entries} entries, all signed by trusted keys; {len(backups)} backups"
    )


def _check_dek(
    repository: Repository, generations: list[StoredKey], uses: tuple[Use, ...]
) -> Finding:
    """Unwrap every generation; readers need one that opens."""
    first = generations[0]
    name = _name(first.purpose, first.key_id.hex())
    kek = repository.keyring.provider(first.purpose).kek_id
    errors: list[KeyUnavailable] = []
    damaged: list[int] = []
    for stored in generations:
        try:
            repository.keyring.unwrap(stored)
        except KeyUnavailable as error:
            errors.append(error)
            if any(recipient.kek_id == kek for recipient in stored.recipients):
                damaged.append(stored.generation)
    if len(errors) == len(generations):
        return failed(name, _needed(errors[-1], uses))
    if damaged:
        shown = ", ".join(f"{number:04d}" for number in damaged)
        return warning(name, f"generation {shown} does not open, but another does")
    return ok(name, _listed(uses))


def _check_unlisted(
    repository: Repository, purpose: str, key_id: str, uses: tuple[Use, ...]
) -> Finding:
    """Look for a key by its name: a listing may lack it."""
    name = _name(purpose, key_id)
    try:
        repository.storage.size(
            repository.layout.dek_generation(purpose, bytes.fromhex(key_id), 1)
        )
        repository.keyring.get(purpose, bytes.fromhex(key_id))
    except DrkitError:
        error = KeyUnavailable(
            f"data key {key_id} ({purpose}) is not in {repository.storage.url}"
        )
        return failed(name, _needed(error, uses))
    return ok(name, _listed(uses))


def _needed(error: KeyUnavailable, uses: tuple[Use, ...]) -> KeyUnavailable:
    live = [use for use in uses if use.live]
    if not live:
        return error
    lost = f"without it nobody can read {_listed(tuple(live))}"
    hint = f"{error.hint}; {lost}" if error.hint else lost
    return KeyUnavailable(error.message, hint=hint)


def _name(purpose: str, key_id: str) -> str:
    return f"{purpose} {key_id}"


def _listed(uses: tuple[Use, ...]) -> str:
    return ", ".join(str(use) for use in uses) or "nothing that is known"
