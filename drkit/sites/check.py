"""What `check` looks at."""

from __future__ import annotations

from typing import TYPE_CHECKING

from drkit import wiring
from drkit.config.repository_url import split_repository_url
from drkit.operations.check import Heartbeat, Subject
from drkit.postgres.connection import replication_connect

if TYPE_CHECKING:
    from datetime import timedelta

    from drkit.config.policy import Policy


def check_subject(
    policy: Policy, secrets: wiring.Secrets, timeout: timedelta
) -> Subject:
    """Return what `check` looks at; nothing is opened yet."""

    def replicate() -> None:
        password = wiring.password_of(policy, secrets)
        replication_connect(policy.cluster.url, password, "check").finish()

    streamed = policy.backup.source == "stream"
    scheme, path, _ = split_repository_url(policy.repository.url)
    return Subject(
        system_identifier=policy.cluster.system_identifier,
        source=policy.backup.source,
        policy_path=policy.path,
        repository=lambda: wiring.open_repository(policy, secrets),
        signing=wiring.signing(policy, secrets),
        connect=lambda: wiring.connect_to(policy, secrets, "check"),
        heartbeat=Heartbeat(
            connect=lambda: wiring.heartbeat_connection(policy, secrets),
            every=policy.heartbeat.every,
            objective=policy.objectives.rpo,
        ),
        replicate=replicate if streamed else None,
        local_root=path if scheme == "file" else None,
        data_directory=None if streamed else policy.cluster.data_directory,
        archive_command=wiring.archive_command(policy.path),
        timeout=timeout,
        clock=wiring.SystemClock(),
        fingerprint=policy.verification.fingerprint,
    )
