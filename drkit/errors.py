"""Every error drkit raises on purpose: what happened, to which object, what next.

DrkitError                     1  failed
├── UsageError                 2  the command line is off
├── PolicyError               10  a policy or setting is wrong
├── RepositoryMissing         11  no repository where the policy says
├── Locked                    12  another run holds the work
├── KeyUnavailable            13  a key is missing, wrong or unreadable
├── NotFound                  14  no such backup, policy or object
│   └── BackupExpired         14  a backup was expired while it was read
├── Corrupt                   15  stored bytes fail their authentication or shape
│   └── RolledBack            15  the log ends before what is known of it
├── TargetNotEmpty            16  the restore target holds data or a running server
├── PostgresUnreachable       17  no connection, or it was lost
├── PostgresRefused           18  the server's state or settings forbid the work
├── WalRefused                19  a WAL file that must not be archived under its name
├── WalMissing                20  WAL that a backup or a restore needs is not there
├── TargetUnreachable         21  a recovery target outside of what can be reached
├── StorageError              22  the store failed
│   ├── ObjectExists          22  create-only put of a name that is taken
│   ├── Retained              22  the store keeps an object from being deleted
│   └── ObjectNotFound        14  no object of that name
├── NoSpace                   23  a disk is too full, now or by the plan
├── SourceUnreadable          24  a data file could not be read
├── AttemptFenced             25  another host abandoned or expired this run's work
├── Interrupted               26  stopped by a signal; nothing half-done is listed
└── ClockImplausible          27  the time can't be right, so nothing is deleted by it

The numbers are exit codes and a contract: the README holds the same table and a
test compares the two.
"""


class DrkitError(Exception):
    """The root: a message that names the object, and a hint that says what next."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(DrkitError):
    """The command line is off."""

    exit_code = 2


class PolicyError(DrkitError):
    """A policy file or an environment setting is wrong; names file, line, field."""

    exit_code = 10


class RepositoryMissing(DrkitError):
    """There is no repository where the policy says, or not one of this format."""

    exit_code = 11


class Locked(DrkitError):
    """Another run holds the work; running both would only waste it."""

    exit_code = 12


class KeyUnavailable(DrkitError):
    """A key is missing, unreadable, too open, or not the one that opens an object."""

    exit_code = 13


class KeyLost(KeyUnavailable):
    """A wrapped data key is not in the repository any more: nothing brings it back."""


class NotRecipient(KeyUnavailable):
    """A wrapped data key is wrapped for other keys than the policy's."""


class NotFound(DrkitError):
    """No such backup, policy or WAL file."""

    exit_code = 14


class BackupExpired(NotFound):
    """A backup was expired, by another host or run, while it was read."""


class Corrupt(DrkitError):
    """Stored bytes fail authentication, or have a shape no writer produces."""

    exit_code = 15


class TooLong(Corrupt):
    """A stored object is longer than any of its kind, so it was not read."""


class RolledBack(Corrupt):
    """The log ends before what is known of it: put back, cut off, or another one."""


class TargetNotEmpty(DrkitError):
    """The restore target holds data, or a running server."""

    exit_code = 16


class PostgresUnreachable(DrkitError):
    """No connection to the server, or it was lost on the way."""

    exit_code = 17


class PostgresRefused(DrkitError):
    """The server answered, but its state, version or settings forbid the work."""

    exit_code = 18


class NotHeld(PostgresRefused):
    """Writers could not be held up."""


class WalRefused(DrkitError):
    """A WAL file that must not be archived under its name."""

    exit_code = 19


class WalMissing(DrkitError):
    """WAL that a backup or a restore needs is not in the repository."""

    exit_code = 20


class TargetUnreachable(DrkitError):
    """The recovery target lies outside of what the repository can reach."""

    exit_code = 21


class StorageError(DrkitError):
    """The store failed.

    Attributes:
        transient: whether the same request may succeed later (time-outs, 5xx).
            `drkit.storage.retry` repeats only those.
    """

    exit_code = 22

    def __init__(
        self, message: str, *, hint: str | None = None, transient: bool = False
    ) -> None:
        super().__init__(message, hint=hint)
        self.transient = transient


class ObjectExists(StorageError):
    """A create-only put met an object of that name."""


class Retained(StorageError):
    """An object lock or a legal hold keeps an object from being deleted."""


class ObjectNotFound(StorageError):
    """There is no object of that name; the store itself answered."""

    exit_code = 14


class NoSpace(DrkitError):
    """A disk is too full, now or by the plan."""

    exit_code = 23


class SourceUnreadable(DrkitError):
    """A file of the cluster could not be read; names file and block."""

    exit_code = 24


class AttemptFenced(DrkitError):
    """Another host abandoned or expired this run's work; it can't commit."""

    exit_code = 25


class Interrupted(DrkitError):
    """Stopped by a signal; nothing half-done is listed."""

    exit_code = 26


class ClockImplausible(DrkitError):
    """The time can't be right, or nobody backed up for long; nothing is deleted."""

    exit_code = 27


class NotProven(DrkitError):
    """A restored cluster failed a check, or one that was asked for was not made."""

    exit_code = 28
