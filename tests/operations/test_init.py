"""`init`: what it writes, what it asks the server for, and what it refuses."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from moto.moto_server.werkzeug_app import (
    DomainDispatcherApplication,
    create_backend_app,
)
from werkzeug.serving import make_server

from drkit import wiring
from drkit.config.loading import load_policy
from drkit.config.writing import write_new
from drkit.errors import (
    KeyUnavailable,
    PolicyError,
    PostgresRefused,
    StorageError,
    UsageError,
)
from drkit.model.log import Open
from drkit.operations.init import InitResult, initialise
from drkit.operations.init_site import InitRequest
from drkit.postgres.connection import connect
from drkit.postgres.process import Identity, run
from drkit.sites.init import InitSite
from drkit.storage.memory import MemoryStorage
from tests.pg import give_to, run_drkit
from tests.storage.servers import serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from drkit.model.draft import PolicyDraft
    from drkit.model.owner import Owner
    from drkit.postgres.process import Account
    from drkit.protocols import Buffer, Storage
    from tests.conftest import MakeCluster
    from tests.pg import Cluster, ClusterFactory

KEYS = ("backup", "wal", "dump", "files", "catalog", "signing", "wal_signing")
SMALL = 1 << 20


class Setup:
    """A cluster, and a home for what `init` makes."""

    def __init__(self, cluster: Cluster, home: Path) -> None:
        self.cluster = cluster
        self.policies = home / "policies"
        self.root = home / "repository"

    def policy_path(self, name: str = "main") -> Path:
        return self.policies / f"{name}.yaml"

    def key(self, purpose: str, name: str = "main") -> Path:
        return self.policies / "keys" / name / f"{purpose.replace('_', '-')}.key"

    def site(
        self, name: str = "main", environ: dict[str, str] | None = None
    ) -> InitSite:
        secrets = wiring.Secrets(environ or {})
        return InitSite(name, str(self.policies), None, secrets)

    def init(self, name: str = "main", **changes: Any) -> InitResult:
        """Initialise in this process; `changes` replace fields of the request."""
        site = changes.pop("site", None) or self.site(name)
        fields: dict[str, Any] = {
            "name": name,
            "url": self.cluster.url,
            "repository_url": f"file://{self.root}",
            "source": "local",
            "password": None,
            "s3": {},
            "archive_command": wiring.archive_command(site.policy_path),
        }
        request = InitRequest(**fields | changes)
        with connect(request.url, None, "init") as connection:
            return initialise(request, connection, site, wiring.SystemClock())

    def command(self, *options: str | Path, **more: Any) -> Any:
        """Run the command line."""
        return run_drkit(
            *("init", "main", "--url", self.cluster.url),
            *("--repository", f"file://{self.root}", "--policy-dir", self.policies),
            *options,
            **more,
        )

    def opened(self, name: str = "main") -> Open | None:
        policy = load_policy(self.policy_path(name), {})
        repository = wiring.open_repository(policy, wiring.Secrets({}))
        return repository.log.read().opened


@pytest.fixture(scope="module")
def shared_cluster(cluster_factory: ClusterFactory) -> Iterator[Cluster]:
    """A cluster that tests leave as it is, roles apart."""
    with cluster_factory.make(15, wal_segment_size=SMALL) as cluster:
        yield cluster


@pytest.fixture
def setup(shared_cluster: Cluster, make_directory: Callable[[], Path]) -> Setup:
    return Setup(shared_cluster, make_directory())


@pytest.fixture
def own_setup(make_cluster: MakeCluster, make_directory: Callable[[], Path]) -> Setup:
    """One whose server the test may change."""
    return Setup(make_cluster(15, wal_segment_size=SMALL), make_directory())


def apply(cluster: Cluster, found: dict[str, Any], states: tuple[str, ...]) -> None:
    """Do what `init` says: run its statements, then restart."""
    for one in found["settings"]:
        if one["state"] in states:
            cluster.rows(one["statement"])
    cluster.stop()
    cluster.start()


@pytest.mark.parametrize("major", [15, 18])
def test_who_follows_what_it_prints_is_protected(
    major: int, make_cluster: MakeCluster, make_directory: Callable[[], Path]
) -> None:
    settings = {"wal_level": "minimal", "max_wal_senders": "0"}
    setup = Setup(
        make_cluster(major, settings, wal_segment_size=SMALL), make_directory()
    )
    done = setup.command("--output", "json")
    assert done.returncode == 0, done.stderr.decode()
    found = json.loads(done.stdout)

    needs = {one["name"]: (one["state"], one["restart"]) for one in found["settings"]}
    suggested = {"archive_timeout": ("suggested", False)}
    if major >= 17:
        suggested["summarize_wal"] = ("suggested", False)
    assert needs == {
        "archive_mode": ("needed", True),
        "archive_command": ("needed", False),
        "wal_level": ("needed", True),
        **suggested,
    }
    assert found["grants"] == []
    apply(setup.cluster, found, ("needed", "suggested"))
    in_policies = ("--policy-dir", setup.policies, "--output", "json")
    checked = run_drkit("check", "main", *in_policies)
    assert checked.returncode == 0, checked.stdout.decode()
    assert run_drkit("backup", "main", *in_policies).returncode == 0


def test_what_it_prints_can_be_pasted_into_psql(own_setup: Setup) -> None:
    cluster = own_setup.cluster
    cluster.sql("CREATE ROLE backup LOGIN")
    as_role = own_setup.cluster.url.replace("postgres@", "backup@", 1)
    told = own_setup.command("--url", as_role, "--source", "stream")
    assert b"let a superuser run: GRANT" in told.stderr
    cluster.sql("GRANT pg_monitor TO backup")
    for function in ("pg_control_system", "pg_control_init", "pg_control_checkpoint"):
        cluster.sql(f"GRANT EXECUTE ON FUNCTION pg_catalog.{function}() TO backup")
    told = own_setup.command("--url", as_role, "--source", "stream")
    assert told.returncode == 0, told.stderr.decode()
    _, _, after = told.stdout.decode().partition("in psql:\n\n")
    sql, _, rest = after.partition("\n\n")
    assert rest.startswith("IMPORTANT: ")
    assert sql.splitlines()[0].startswith("-- Settings")
    assert "-- Rights" in sql
    cluster.psql(sql)
    cluster.stop()
    cluster.start()
    assert cluster.sql("SHOW archive_mode") == "on"
    assert cluster.sql("SHOW archive_timeout") == "1min"
    assert str(own_setup.policy_path()) in cluster.sql("SHOW archive_command")
    can = "SELECT rolreplication FROM pg_roles WHERE rolname = 'backup'"
    assert cluster.sql(can) is True


def test_lines_for_the_configuration_file_say_the_same(own_setup: Setup) -> None:
    found = own_setup.init()
    own_setup.cluster.stop()
    conf = Path(own_setup.cluster.data_directory, "postgresql.conf")
    with conf.open("a") as file:
        file.writelines(f"{one.line}\n" for one in found.settings)
    own_setup.cluster.start()
    for one in found.settings:
        query = f"SELECT reset_val FROM pg_settings WHERE name = '{one.name}'"
        value = own_setup.cluster.sql(query)
        assert value == one.wanted or one.name == "archive_timeout"


def test_what_it_writes(setup: Setup, postgres_user: Account) -> None:
    result = setup.init()

    written = [str(setup.key(purpose)) for purpose in KEYS]
    assert list(result.created) == [*written, str(setup.policy_path())]
    assert result.kept == ()
    assert result.log_opened
    for purpose in KEYS:
        status = setup.key(purpose).stat()
        assert stat.S_IMODE(status.st_mode) == 0o600
        assert status.st_uid == postgres_user.uid
    assert stat.S_IMODE(setup.key("wal").parent.stat().st_mode) == 0o700
    for path in (setup.policy_path(), setup.policies, setup.root):
        assert path.stat().st_uid == postgres_user.uid
    assert len({setup.key(purpose).read_bytes() for purpose in KEYS}) == len(KEYS)

    policy = load_policy(setup.policy_path(), {})
    system = setup.cluster.sql(
        "SELECT system_identifier::text FROM pg_control_system()"
    )
    assert policy.cluster.system_identifier == system == result.system_identifier
    assert policy.cluster.data_directory == setup.cluster.data_directory
    assert policy.keys.trusted == (result.public_key,)
    assert setup.opened() == Open("main", system, SMALL)
    assert any("away from this host" in text for text in result.warnings)
    left_over = [path.name for path in setup.policies.rglob("*.tmp")]
    assert left_over == []


def test_it_never_replaces_a_policy(setup: Setup) -> None:
    setup.init()
    before = {
        path: path.read_bytes()
        for path in setup.policies.rglob("*.*")
        if path.is_file()
    }
    with pytest.raises(PolicyError, match="exists already") as caught:
        setup.init()
    assert str(setup.policy_path()) in caught.value.message
    assert {path: path.read_bytes() for path in before} == before


def test_it_goes_on_where_an_interrupted_run_stopped(setup: Setup) -> None:
    """Before the log was opened, keys that are missing may still be made."""
    setup.init("other")
    site = setup.site()
    for purpose in ("backup", "signing"):
        site.write_key(purpose, setup.key(purpose, "other").read_text(), None)
    kept = {
        purpose: setup.key(purpose).read_text() for purpose in ("backup", "signing")
    }

    result = setup.init()

    assert set(result.kept) == {str(setup.key("backup")), str(setup.key("signing"))}
    assert {purpose: setup.key(purpose).read_text() for purpose in kept} == kept
    assert setup.opened() is not None


def test_it_goes_on_when_only_the_policy_is_missing(setup: Setup) -> None:
    first = setup.init()
    setup.policy_path().unlink()
    again = setup.init()
    assert not again.log_opened
    assert again.created == (str(setup.policy_path()),)
    assert (again.public_key, again.lineage) == (first.public_key, first.lineage)
    assert setup.opened() is not None


def test_it_makes_no_new_keys_for_what_others_wrote(setup: Setup) -> None:
    setup.init()
    setup.policy_path().unlink()
    setup.key("wal").unlink()
    with pytest.raises(KeyUnavailable) as caught:
        setup.init()
    assert str(setup.key("wal")) in caught.value.message
    assert not setup.key("wal").exists()
    assert not setup.policy_path().exists()


def test_keys_of_another_cluster_do_not_open_the_log(setup: Setup) -> None:
    setup.init()
    setup.policy_path().unlink()
    setup.init("other")
    os.replace(setup.key("catalog", "other"), setup.key("catalog"))
    with pytest.raises(KeyUnavailable):
        setup.init()
    assert not setup.policy_path().exists()


def test_a_name_belongs_to_one_cluster(setup: Setup, make_cluster: MakeCluster) -> None:
    setup.init()
    setup.policy_path().unlink()
    # a copied template has the same identifier, so this one is of another version
    setup.cluster = make_cluster(16, wal_segment_size=SMALL)
    with pytest.raises(PostgresRefused, match="is the cluster with system identifier"):
        setup.init()
    assert not setup.policy_path().exists()


def test_a_key_file_for_another_purpose_is_refused(setup: Setup) -> None:
    setup.init("other")
    site = setup.site()
    site.write_key("wal", setup.key("dump", "other").read_text(), None)
    with pytest.raises(KeyUnavailable, match="a key for dump, not for wal"):
        setup.init()
    assert not setup.key("backup").exists()


def test_a_standby_is_refused(own_setup: Setup) -> None:
    own_setup.cluster.stop()
    Path(own_setup.cluster.data_directory, "standby.signal").touch()
    own_setup.cluster.start()
    with pytest.raises(PostgresRefused, match="standby"):
        own_setup.init()
    assert not own_setup.policies.exists()
    assert not own_setup.root.exists()


def test_what_can_be_no_name(setup: Setup) -> None:
    for name in ("", "Main", "a/b", "..", "a b", "x" * 64):
        with pytest.raises(UsageError, match="can't be the name"):
            setup.init(name)
    assert not setup.policies.exists()


def test_a_repository_inside_the_data_directory_is_refused(setup: Setup) -> None:
    setup.root = Path(setup.cluster.data_directory, "backups")
    with pytest.raises(PolicyError, match="would be lost with it"):
        setup.init()
    assert not setup.root.exists()
    assert not setup.policies.exists()


def test_a_password_in_the_url_is_refused_and_not_repeated(setup: Setup) -> None:
    url = setup.cluster.url.replace("postgres@", "postgres:hunter2@")
    done = setup.command("--url", url)
    assert done.returncode == UsageError.exit_code
    shown = (done.stdout + done.stderr).decode()
    assert "hunter2" not in shown
    assert "~/.pgpass" in shown


def test_a_password_from_the_environment_becomes_a_reference(setup: Setup) -> None:
    env = {"DRKIT_DATABASE_PASSWORD": "hunter2"}
    done = setup.command(env=env)
    assert done.returncode == 0, done.stderr.decode()
    assert "hunter2" not in (done.stdout + done.stderr).decode()
    text = setup.policy_path().read_text()
    assert "password: env:DRKIT_DATABASE_PASSWORD" in text
    assert "hunter2" not in text


def test_rights_that_are_missing_come_as_sql(setup: Setup) -> None:
    cluster = setup.cluster
    cluster.rows("CREATE ROLE keeper LOGIN")
    url = cluster.url.replace("postgres@", "keeper@")
    with pytest.raises(PostgresRefused) as caught:
        setup.init(url=url)
    assert caught.value.hint is not None
    assert "GRANT pg_monitor TO" in caught.value.hint
    cluster.rows("GRANT pg_monitor TO keeper")
    result = setup.init(url=url, source="stream")
    assert "REPLICATION" in " ".join(result.grants)
    assert load_policy(setup.policy_path(), {}).cluster.data_directory is None
    cluster.rows(" ".join(result.grants))
    setup.policy_path().unlink()
    assert setup.init(url=url, source="stream").grants == ()


def test_a_directory_that_root_made_is_given_to_the_server(
    setup: Setup, postgres_user: Account
) -> None:
    setup.root.mkdir()
    setup.init()
    assert setup.root.stat().st_uid == postgres_user.uid


def test_a_place_that_the_server_cannot_enter_is_told(
    setup: Setup, make_directory: Callable[[], Path], postgres_user: Account
) -> None:
    closed = make_directory()
    if os.geteuid() == 0:
        os.chown(closed, 0, 0)
    closed.chmod(0o700)
    setup.policies = closed / "policies"
    warnings = " ".join(setup.init().warnings)
    assert (f"may not enter {closed}" in warnings) is (os.geteuid() == 0)


def test_the_servers_user_can_do_it_alone(setup: Setup, postgres_user: Account) -> None:
    give_to(postgres_user, setup.policies.parent)
    done = setup.command(account=postgres_user)
    assert done.returncode == 0, done.stderr.decode()
    assert setup.key("wal").stat().st_uid == postgres_user.uid
    assert setup.opened() is not None


@pytest.fixture
def bucket() -> Iterator[tuple[str, dict[str, str]]]:
    """An empty bucket's URL, and the environment with which drkit reaches it."""
    application = DomainDispatcherApplication(create_backend_app)
    server = make_server("127.0.0.1", 0, application, True)
    keys = {"ACCESS_KEY_ID": "AKIDEXAMPLE", "SECRET_ACCESS_KEY": "not a secret"}
    with serving(server) as endpoint:
        client = boto3.session.Session().client(
            "s3",
            endpoint_url=endpoint,
            region_name="us-east-1",
            aws_access_key_id=keys["ACCESS_KEY_ID"],
            aws_secret_access_key=keys["SECRET_ACCESS_KEY"],
        )
        client.create_bucket(Bucket="backups")
        client.close()
        settings = keys | {"ENDPOINT_URL": endpoint, "REGION": "us-east-1"}
        environ = {f"DRKIT_S3_{name}": value for name, value in settings.items()}
        yield "s3://backups/main", environ


def test_a_bucket_takes_its_settings_from_the_environment(
    setup: Setup, bucket: tuple[str, dict[str, str]]
) -> None:
    url, environ = bucket
    done = setup.command("--repository", url, "--output", "json", env=environ)
    assert done.returncode == 0, done.stderr.decode()
    text = setup.policy_path().read_text()
    assert f"endpoint_url: {environ['DRKIT_S3_ENDPOINT_URL']}" in text
    assert "secret_access_key: env:DRKIT_S3_SECRET_ACCESS_KEY" in text
    assert environ["DRKIT_S3_SECRET_ACCESS_KEY"] not in text
    warnings = " ".join(json.loads(done.stdout)["warnings"])
    assert "DRKIT_S3_SECRET_ACCESS_KEY" in warnings
    in_policies = ("--policy-dir", setup.policies)
    checked = run_drkit("keys", "check", "main", *in_policies, env=environ)
    assert checked.returncode == 0, checked.stdout.decode()


class _Overwriting(MemoryStorage):
    """A store that lets a second put win, as an S3 gateway may."""

    def put(self, name: str, data: Buffer) -> None:
        self.delete(name)
        super().put(name, data)


class _OverwritingSite(InitSite):
    def create_storage(self, draft: PolicyDraft, owner: Owner | None) -> Storage:
        return _Overwriting()


def test_a_store_that_overwrites_is_refused(setup: Setup) -> None:
    site = _OverwritingSite("main", str(setup.policies), None, wiring.Secrets({}))
    with pytest.raises(StorageError, match="lets a second write replace"):
        setup.init(site=site)
    assert not setup.policies.exists()


def test_a_file_is_created_whole_and_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_new(str(path), "first", 0o600, None)
    with pytest.raises(PolicyError, match="exists already"):
        write_new(str(path), "second", 0o600, None)
    assert path.read_text() == "first"
    assert [one.name for one in tmp_path.iterdir()] == ["file"]
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "nowhere")
    with pytest.raises(PolicyError, match="exists already"):
        write_new(str(link), "third", 0o600, None)
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root keeps keys from others")
def test_the_server_s_user_reads_what_archiving_needs_and_no_more(
    own_setup: Setup, session_directory: str, postgres_user: Account
) -> None:
    """Root's init: who takes the server's user over reads no backup and signs none."""
    setup = own_setup
    setup.policies = Path(session_directory, "etc-drkit", "policies")
    done = setup.command("--output", "json")
    assert done.returncode == 0, done.stderr.decode()
    found = json.loads(done.stdout)
    assert "the keys belong to root; postgres can read" in " ".join(found["warnings"])
    apply(setup.cluster, found, ("needed", "suggested"))
    setup.cluster.rows("CREATE TABLE t AS SELECT 1 AS n")
    for purpose in KEYS:
        words = ["cat", str(setup.key(purpose))]
        read = run(words, identity=Identity(account=postgres_user), raising=None)
        assert (read.returncode == 0) is (purpose in ("wal", "wal_signing")), purpose
        assert setup.key(purpose).stat().st_uid == 0
    for path in (setup.policies.parent, setup.policies, setup.policy_path()):
        assert (path.stat().st_uid, path.stat().st_mode & 0o022) == (0, 0)
    policy = str(setup.policy_path())
    for command in ("check", "backup"):  # archiving works, and root backs up
        done = run_drkit(command, policy)
        assert done.returncode in (0, 3), done.stderr.decode() + done.stdout.decode()
