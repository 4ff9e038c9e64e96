"""Reading other people's tables without running their code.

A table's owner has more ways to have code run by whoever reads the table than casts and
triggers. The planner computes what is constant in the expressions of its indexes and
extended statistics, by functions of the owner's choice. And what a name stands for can
be changed between a look at it and its use: a table replaced, a schema renamed.

What runs in a superuser's session could do everything. So there, while a statement over
somebody else's table is planned, another session keeps everybody from renaming schemas
and from giving that table indexes or statistics, and looks at what is there by then.
Planned statements look at none of this again, so it takes a moment, however long they
run.

A role without these rights can't hold anybody up so. What is there is looked at all the
same, just before; who still wins that race has the rights of a role that may read.
"""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Protocol

from drkit.errors import PostgresRefused
from drkit.postgres.connection import translated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from drkit.postgres.connection import Connection

BUSY = "somebody was changing it, and kept everybody else out"
"""Why a table is not read that could be at another moment."""

AT_WORK = (
    "somebody vacuumed, indexed or altered it just then, and a superuser's session "
    "reads nobody's table without a lock"
)
"""Why a table is not read whose lock was not to be had at once."""

CODE = (
    "an index, statistics or a column of it calls a function of somebody who is no "
    "superuser, and it would have drkit's rights: give that function to a superuser"
)
"""Why a table is not read whose owner has put code where planning it runs it."""

UNHELD = (
    "its owner could replace it while it is looked at, and his code would run as a "
    "superuser: let drkit use a role of its own, which `drkit init` makes"
)
"""Why something is not read where nobody can be held up."""

_WAIT = "200ms"  # for somebody who creates a schema just then
_HOLD_NAMES = f"""
    SET LOCAL lock_timeout = '{_WAIT}';
    LOCK TABLE pg_catalog.pg_namespace IN SHARE MODE
"""
_MAY_HOLD = """
    SELECT NOT pg_is_in_recovery() AND (current_setting('is_superuser') = 'on'
        OR EXISTS (SELECT FROM pg_roles
            WHERE rolname = 'pg_maintain' AND pg_has_role(oid, 'USAGE')))
"""
_HOLD_TABLE = "LOCK TABLE ONLY {table} IN SHARE UPDATE EXCLUSIVE MODE NOWAIT"


def trusted(owner: str) -> str:
    """Return SQL that says whether an owner may do all that drkit may.

    Args:
        owner: SQL for the oid of a role.
    """
    return f"""(SELECT trusting.rolsuper OR trusting.rolname = current_user
        OR trusting.rolname = 'pg_database_owner' AND (SELECT everywhere.rolsuper
            FROM pg_database AS here
                JOIN pg_roles AS everywhere ON everywhere.oid = here.datdba
            WHERE here.datname = current_database())
        FROM pg_roles AS trusting WHERE trusting.oid = {owner})"""  # noqa: S608


CODED = f"""
    SELECT part.relation FROM (
        SELECT indrelid AS relation, 'pg_class'::regclass AS catalog,
            indexrelid AS object FROM pg_index
        UNION ALL SELECT stxrelid, 'pg_statistic_ext'::regclass, oid
            FROM pg_statistic_ext
        UNION ALL SELECT f.adrelid, 'pg_attrdef'::regclass, f.oid
            FROM pg_attrdef f JOIN pg_attribute a
                ON a.attrelid = f.adrelid AND a.attnum = f.adnum
            WHERE a.attgenerated = 'v') AS part
    CROSS JOIN LATERAL (SELECT d.refclassid, d.refobjid FROM pg_depend AS d
        WHERE d.classid = part.catalog AND d.objid = part.object
            AND d.refobjid >= 16384 OFFSET 0) AS used
    WHERE EXISTS (SELECT FROM pg_proc AS p WHERE NOT {trusted("p.proowner")}
        AND p.oid = CASE used.refclassid WHEN 'pg_proc'::regclass THEN used.refobjid
            WHEN 'pg_operator'::regclass THEN
                (SELECT o.oprcode::oid FROM pg_operator o WHERE o.oid = used.refobjid)
            END)
"""  # noqa: S608  made of constants
"""SQL for the tables whose planning may run somebody's functions."""

_TABLE_IS_FINE = f"""
    SELECT count(*) FROM pg_class AS c
    WHERE c.oid = to_regclass(%(name)s::text) AND c.relkind IN ('r', 'm')
        AND NOT EXISTS (SELECT FROM ({CODED}) AS coded
            WHERE coded.relation = to_regclass(%(name)s::text))
"""  # noqa: S608  made of constants
_SEQUENCES_ARE_THE_SAME = """
    SELECT count(*)
    FROM unnest(%(names)s::text[], %(oids)s::bigint[]) AS one (name, oid)
        JOIN pg_class AS c ON c.oid = to_regclass(one.name) AND c.oid = one.oid::oid
    WHERE c.relkind = 'S'
"""


class Guard(Protocol):
    """Keeps code of the database's users out of a session of one database.

    Attributes:
        alone: whether nobody else is there to change anything.
    """

    alone: bool

    def over_table(
        self, session: Connection, table: str, *, lockable: bool
    ) -> AbstractContextManager[None]:
        """Let a statement over somebody's table be planned.

        Args:
            session: the one that will; in a transaction.
            table: qualified and quoted.
            lockable: whether LOCK TABLE takes it.

        Raises:
            PostgresRefused: it holds code, or could not be held; the message is the
                reason.
        """

    def over_sequences(
        self, names: Sequence[str], oids: Sequence[int]
    ) -> AbstractContextManager[None]:
        """Let a statement over somebody's sequences run, which are locked already.

        Raises:
            PostgresRefused: as above.
        """


class Alone:
    """The guard of a restored copy: nobody is there who could change anything.

    What the copy's tables hold as code may run, for it can do nothing there.
    """

    alone = True

    def over_table(
        self,
        session: Connection,  # noqa: ARG002  as the protocol wants it
        table: str,  # noqa: ARG002
        *,
        lockable: bool,  # noqa: ARG002
    ) -> AbstractContextManager[None]:
        """Let a statement over a table be planned."""
        return nullcontext()

    def over_sequences(
        self,
        names: Sequence[str],  # noqa: ARG002  as the protocol wants it
        oids: Sequence[int],  # noqa: ARG002
    ) -> AbstractContextManager[None]:
        """Let a statement over sequences run."""
        return nullcontext()


class SecondSession:
    """Guards a session by what another one sees and, as far as it may, locks.

    Args:
        connect: opens a session in the same database; called when it is needed.
    """

    alone = False

    def __init__(self, connect: Callable[[], Connection]) -> None:
        self._connect = connect
        self._opened: Connection | None = None
        self._may_hold = False

    @contextmanager
    def over_table(
        self, session: Connection, table: str, *, lockable: bool
    ) -> Iterator[None]:
        """Let a statement over somebody's table be planned."""
        locks = []
        if lockable:
            # first the one that waits, or a third one could come in between for good
            session.query(f"LOCK TABLE ONLY {table} IN ACCESS SHARE MODE")
            locks.append(_HOLD_TABLE.format(table=table))
        with self._held(*locks) as holder:
            self._look(holder, _TABLE_IS_FINE, CODE, 1, name=table)
            yield

    @contextmanager
    def over_sequences(
        self, names: Sequence[str], oids: Sequence[int]
    ) -> Iterator[None]:
        """Let a statement over somebody's sequences run, which are locked already."""
        with self._held() as holder:
            self._look(
                holder,
                _SEQUENCES_ARE_THE_SAME,
                AT_WORK,
                len(names),
                names=list(names),
                oids=list(oids),
            )
            yield

    def close(self) -> None:
        """End the session, if there is one."""
        if self._opened is not None:
            self._opened.close()

    @contextmanager
    def _held(self, *statements: str) -> Iterator[Connection]:
        holder = self._holder()
        holder.query("BEGIN")
        try:
            if self._may_hold:
                _hold(holder, *statements)
            yield holder
        finally:
            if not holder.closed and not holder.broken:
                holder.query("ROLLBACK")

    def _holder(self) -> Connection:
        if self._opened is None:
            self._opened = self._connect()
            self._may_hold = self._opened.query(_MAY_HOLD)[0][0]
        return self._opened

    def _look(
        self,
        holder: Connection,
        statement: str,
        reason: str,
        expected: int,
        **values: object,
    ) -> None:
        """Refuse what is not as it was listed; planning that is most of its work."""
        with translated(holder):
            found = holder.execute(statement.encode(), values, prepare=True).fetchall()
        if found[0][0] != expected:
            raise PostgresRefused(reason)


def _hold(holder: Connection, *statements: str) -> None:
    try:
        holder.query("; ".join((_HOLD_NAMES, *statements)))
    except PostgresRefused:
        raise PostgresRefused(AT_WORK) from None
