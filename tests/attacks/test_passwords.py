"""Somebody answers in the server's place, and asks for the password."""

from __future__ import annotations

import json
import os
import random
import shutil
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from drkit.errors import DrkitError, PostgresRefused, PostgresUnreachable
from drkit.postgres.connection import connect, replication_connect
from drkit.postgres.process import find_account
from drkit.postgres.transport import guarded, read_transport
from tests.attacks.impostor import CLEAR, MD5, impostor
from tests.pg import give_to, versions_under_test
from tests.protect import NAME, SETTINGS, protect
from tests.storage.localtools import only_root

if TYPE_CHECKING:
    from collections.abc import Callable

    from drkit.postgres.process import Account
    from tests.conftest import MakeCluster
    from tests.pg import Cluster

WITH_TLS = 15  # the only one under test that was built with it
PASSWORD = "correct-horse-battery"


# -- a server that is none


@pytest.mark.parametrize("question", [CLEAR, MD5], ids=["clear", "md5"])
@pytest.mark.parametrize("way", [connect, replication_connect])
def test_an_impostor_on_a_port_hears_no_password(
    way: Callable[..., object], question: bytes
) -> None:
    listening = socket.create_server(("127.0.0.1", 0))
    url = f"postgresql://app@127.0.0.1:{listening.getsockname()[1]}/postgres"
    with (
        impostor(listening, question) as heard,
        pytest.raises(PostgresRefused, match="the password was not sent") as caught,
    ):
        way(url, PASSWORD, "backup")
    assert heard == [b""]
    assert "scram-sha-256" in str(caught.value.hint)


@pytest.mark.parametrize("question", [CLEAR, MD5], ids=["clear", "md5"])
def test_an_impostor_in_a_directory_that_all_can_write_hears_none(
    make_directory: Callable[[], Path], question: bytes
) -> None:
    """As in /tmp, where anybody can make the socket while the server is down."""
    place = make_directory()
    place.chmod(0o1777)
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(place / ".s.PGSQL.5432"))
    listening.listen()
    url = f"postgresql://app@/postgres?host={place}"
    with impostor(listening, question) as heard, pytest.raises(PostgresRefused):
        connect(url, PASSWORD, "backup")
    assert heard == [b""]


@only_root
def test_an_impostor_in_a_directory_of_his_own_hears_none(
    make_directory: Callable[[], Path],
) -> None:
    """Below /tmp, where anybody can make a directory that only he can write to."""
    place = make_directory()
    os.chown(place, find_account("nobody").uid, -1)
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(place / ".s.PGSQL.5432"))
    listening.listen()
    url = f"postgresql://app@/postgres?host={place}"
    with impostor(listening, CLEAR) as heard, pytest.raises(PostgresRefused):
        connect(url, PASSWORD, "backup")
    assert heard == [b""]
    below = place / "below"  # which he can put another one into the place of
    below.mkdir()
    assert guarded({"host": str(below)}) == {"require_auth": "!password,!md5"}


def test_a_password_file_is_as_safe(
    make_directory: Callable[[], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What libpq finds by itself goes nowhere else either."""
    file = make_directory() / "pgpass"
    file.write_text(f"*:*:*:*:{PASSWORD}\n")
    file.chmod(0o600)
    os.chown(file, os.geteuid(), -1)
    monkeypatch.setenv("PGPASSFILE", str(file))
    listening = socket.create_server(("127.0.0.1", 0))
    url = f"postgresql://app@127.0.0.1:{listening.getsockname()[1]}/postgres"
    with impostor(listening, CLEAR) as heard, pytest.raises(DrkitError):
        connect(url, None, "backup")
    assert heard == [b""]


def test_what_is_asked_of_whom(
    make_directory: Callable[[], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = make_directory()
    strict = {"require_auth": "!password,!md5"}
    assert guarded({"host": "db1"}) == strict
    assert guarded({"host": "db1", "sslmode": "require"}) == strict
    assert guarded({"host": f"{place},db1"}) == strict
    assert guarded({"host": str(place), "hostaddr": "192.0.2.1"}) == strict
    assert guarded({}) == strict  # libpq's own directory: nobody knows which
    assert guarded({"host": str(place)}) == {}
    assert guarded({"host": "db1", "sslmode": "verify-full"}) == {}
    assert guarded({"host": "db1", "require_auth": "md5"}) == {}
    place.chmod(0o1777)
    assert guarded({"host": str(place)}) == strict
    assert guarded({"host": str(place), "requirepeer": "postgres"}) == {}
    assert guarded({"host": "db1", "requirepeer": "postgres"}) == strict
    monkeypatch.setenv("PGSSLMODE", "verify-full")
    assert guarded({"host": "db1"}) == {}


# -- real servers


def _listening(make_cluster: MakeCluster, version: int) -> Cluster:
    """Make a server that listens at an address that no other test does."""
    address = f"127.{random.randint(1, 254)}.{random.randint(0, 255)}.7"
    made = make_cluster(version, overrides={"listen_addresses": address})
    hba = Path(made.data_directory, "pg_hba.conf")
    hba.write_text(
        "local all postgres trust\n"
        "local all all password\n"
        "host all,replication in_clear 127.0.0.0/8 password\n"
        "host all,replication hashed 127.0.0.0/8 md5\n"
        "host all,replication proving 127.0.0.0/8 scram-sha-256\n"
    )
    made.sql("SELECT pg_reload_conf()")
    for role, kind in (("in_clear", "scram-sha-256"), ("hashed", "md5")):
        _role(made, role, kind)
    _role(made, "proving", "scram-sha-256")
    return made


def _role(cluster: Cluster, name: str, kind: str) -> None:
    with cluster.connect() as connection:
        connection.execute(f"SET password_encryption = '{kind}'".encode())
        connection.execute(
            f"CREATE ROLE {name} LOGIN SUPERUSER PASSWORD '{PASSWORD}'".encode()
        )


def _url(cluster: Cluster, role: str, more: str = "") -> str:
    host = cluster.sql("SHOW listen_addresses")
    port = cluster.sql("SHOW port")
    return f"postgresql://{role}@{host}:{port}/postgres{more}"


def test_servers_that_ask_in_different_ways(
    pg_version: int, make_cluster: MakeCluster
) -> None:
    cluster = _listening(make_cluster, pg_version)
    for role in ("in_clear", "hashed"):
        for way in (connect, replication_connect):
            with pytest.raises(PostgresRefused, match="the password was not sent"):
                way(_url(cluster, role), PASSWORD, "backup")
    with connect(_url(cluster, "proving"), PASSWORD, "backup") as connection:
        assert connection.query("SELECT current_user") == [("proving",)]
    replication_connect(_url(cluster, "proving"), PASSWORD, "backup").finish()
    # By a socket that only the server's user can have made, or where the URL wants it.
    socket_url = cluster.url.replace("postgres@", "in_clear@")
    connect(socket_url, PASSWORD, "backup").close()
    for role, kind in (("in_clear", "password"), ("hashed", "md5")):
        url = _url(cluster, role, f"?require_auth={kind}")
        connect(url, PASSWORD, "backup").close()


def _certificate(cluster: Cluster, name: str) -> Path:
    """Give a server a certificate of its own making; return the file to trust."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(subject, subject, key.public_key(), 1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    data = Path(cluster.data_directory)
    (data / "server.crt").write_bytes(made.public_bytes(Encoding.PEM))
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (data / "server.key").touch(0o600)
    (data / "server.key").write_bytes(private)
    for file in ("server.crt", "server.key"):
        give_to(cluster.account, data / file)
    cluster.sql("ALTER SYSTEM SET ssl = on")
    cluster.sql("SELECT pg_reload_conf()")
    return data / "server.crt"


def test_a_certificate_that_is_verified_is_proof(make_cluster: MakeCluster) -> None:
    cluster = _listening(make_cluster, WITH_TLS)
    root = _certificate(cluster, "db.example")
    proof = f"?sslmode=verify-ca&sslrootcert={root}"
    with connect(_url(cluster, "in_clear", proof), PASSWORD, "backup") as connection:
        way = read_transport(connection.pgconn)
    assert (way.encrypted, way.verified, way.tells) == (True, True, False)
    # What is encrypted to whoever answers proves nothing.
    with pytest.raises(PostgresRefused, match="the password was not sent"):
        connect(_url(cluster, "in_clear", "?sslmode=require"), PASSWORD, "backup")
    other = root.with_name("other.crt")
    shutil.copy(os.path.join(os.path.dirname(__file__), "__init__.py"), other)
    lost = f"?sslmode=verify-ca&sslrootcert={other}"
    with pytest.raises(PostgresUnreachable):
        connect(_url(cluster, "in_clear", lost), PASSWORD, "backup")


# 0.0.0.0 leads to this host, by a way that could be any network's.
@pytest.mark.parametrize(
    ("where", "state", "told"),
    [
        (("127.0.0.1", "proving", ""), "ok", "this host"),
        (("0.0.0.0", "proving", ""), "warning", "over the network in clear"),
        (
            ("127.0.0.1", "in_clear", "?require_auth=password"),
            "warning",
            "gives the password to whoever answers there",
        ),
    ],
)
def test_check_says_what_goes_in_clear(
    make_cluster: MakeCluster,
    make_directory: Callable[[], Path],
    postgres_user: Account,
    monkeypatch: pytest.MonkeyPatch,
    where: tuple[str, str, str],
    state: str,
    told: str,
) -> None:
    host, role, more = where
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    monkeypatch.setenv("PGPORT", str(port))  # for the socket
    major = max(versions_under_test())
    overrides = {"listen_addresses": "127.0.0.1", "port": str(port)}
    served = make_cluster(major, SETTINGS, overrides=overrides)
    protected = protect(served, make_directory(), postgres_user)
    hba = Path(served.data_directory, "pg_hba.conf")
    hba.write_text(
        "local all all trust\nhost all in_clear 127.0.0.1/32 password\n"
        "host all proving 127.0.0.1/32 scram-sha-256\n"
    )
    served.sql("SELECT pg_reload_conf()")
    _role(served, role, "scram-sha-256")

    def change(policy: dict[str, Any]) -> None:
        url = f"postgresql://{role}@{host}:{port}/postgres{more}"
        policy["cluster"].update(url=url, password="env:DRKIT_DATABASE_PASSWORD")

    protected.change_policy(change)
    env = {"DRKIT_DATABASE_PASSWORD": PASSWORD}
    done = protected.drkit("check", NAME, "--output", "json", env=env)
    found = {one["name"]: one for one in json.loads(done.stdout)["checks"]}
    assert found["connection"]["state"] == state, found
    assert told in found["connection"]["detail"]
    assert PASSWORD not in done.stdout.decode() + done.stderr.decode()
