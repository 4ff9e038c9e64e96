"""Somebody else can write to a policy, a key, or a directory on the way to either."""

from __future__ import annotations

import os
import pwd
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from drkit.config.choosing import choose_compiled
from drkit.config.compiled import secret_owners
from drkit.config.discovery import policy_dirs
from drkit.config.loading import load_policy
from drkit.config.recalling import find_policy, recall_policy
from drkit.config.secrets import SecretReference
from drkit.errors import DrkitError, KeyUnavailable, NotFound, PolicyError
from tests.cli.site import SYSTEM, Site, make_site
from tests.pg import give_to, run_drkit
from tests.storage.localtools import NOBODY, only_root, unprivileged

if TYPE_CHECKING:
    from collections.abc import Callable

    from drkit.postgres.process import Account

MODES = (0o666, 0o664, 0o646, 0o622)
FOLDERS = (0o777, 0o775, 0o757)


@pytest.fixture
def site(make_directory: Callable[[], Path], postgres_user: Account) -> Site:
    return make_site(make_directory(), postgres_user, system=SYSTEM)


def _secret(path: Path) -> str:
    return SecretReference.parse(f"file:{path}", field="keys.wal").resolve({}).reveal()


def _mode(path: Path, mode: int) -> str:
    """Give a file its mode; return what an error must say of it."""
    path.chmod(mode)
    return f"{path} (mode {mode:04o}), which belongs to {path.owner()}"


# -- what others can write to


@pytest.mark.parametrize("mode", MODES)
def test_a_policy_that_others_can_write(site: Site, tmp_path: Path, mode: int) -> None:
    environ = {"DRKIT_CACHE_DIR": str(tmp_path / "cache")}
    path = str(site.policy)
    uses: list[Callable[[], object]] = [
        lambda: recall_policy(path, environ),
        lambda: choose_compiled(path, SYSTEM, environ),
        lambda: choose_compiled("alpha", SYSTEM, environ, policy_dir=folder),
        lambda: load_policy(path, environ),
    ]
    folder = str(site.policy.parent)
    for use in uses:
        use()  # the cache has it from here on
    told = _mode(site.policy, mode)
    for use in uses:
        with pytest.raises(PolicyError) as caught:
            use()
        assert told in caught.value.message
        assert f"chmod go-w {path}" in str(caught.value.hint)


@pytest.mark.parametrize("mode", FOLDERS)
@pytest.mark.parametrize("above", [0, 1])
def test_a_policy_directory_that_others_can_write(
    site: Site, above: int, mode: int
) -> None:
    place = [site.policy.parent, site.root][above]
    told = _mode(place, mode)
    folder = str(site.policy.parent)
    for use in (
        lambda: load_policy(site.policy, {}),
        lambda: find_policy("alpha", [folder], {}),
        lambda: choose_compiled("alpha", SYSTEM, {}, policy_dir=folder),
    ):
        with pytest.raises(PolicyError) as caught:
            use()
        assert told in caught.value.message
    done = site.drkit("info")
    assert done.returncode == PolicyError.exit_code
    assert told in done.stderr.decode()


def test_a_directory_with_the_sticky_bit_is_fine_but_not_a_stranger_s_link(
    site: Site, tmp_path: Path
) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    give_to_nobody = shared / "policies"
    give_to_nobody.symlink_to(site.policy.parent)
    load_policy(give_to_nobody / "alpha.yaml", {})
    if os.geteuid() == 0:
        os.chown(give_to_nobody, NOBODY, NOBODY, follow_symlinks=False)
        with pytest.raises(PolicyError, match="who could change it"):
            load_policy(give_to_nobody / "alpha.yaml", {})


def test_a_policy_that_others_can_write_hides_no_other(site: Site) -> None:
    other = site.policy.with_name("other.yaml")
    other.write_text(site.policy.read_text().replace("name: alpha", "name: beta"))
    told = _mode(other, 0o666)
    folder = str(site.policy.parent)
    assert find_policy("alpha", [folder], {}) == str(site.policy)
    assert choose_compiled("alpha", SYSTEM, {}, policy_dir=folder)["name"] == "alpha"
    with pytest.raises(NotFound) as caught:
        find_policy("beta", [folder], {})
    assert told in str(caught.value.hint)


@pytest.mark.parametrize("above", [0, 1])
def test_a_key_in_a_directory_that_others_can_write(tmp_path: Path, above: int) -> None:
    folder = tmp_path / "keys/main"
    folder.mkdir(parents=True)
    key = folder / "wal.key"
    key.touch(0o600)
    key.write_text("x")
    assert _secret(key) == "x"
    told = _mode([folder, folder.parent][above], 0o770)
    with pytest.raises(KeyUnavailable) as caught:
        _secret(key)
    assert caught.value.message.startswith("keys.wal: ")
    assert told in caught.value.message


@pytest.mark.parametrize("mode", [0o460, 0o402, 0o420])
def test_a_credential_that_others_can_write(tmp_path: Path, mode: int) -> None:
    wanted = SecretReference.parse("credential:wal", field="keys.wal")
    path = tmp_path / "wal"
    path.write_text("x")
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    path.chmod(0o440)  # as systemd shows an access list
    assert wanted.resolve(environ).reveal() == "x"
    told = _mode(path, mode)
    with pytest.raises(KeyUnavailable) as caught:
        wanted.resolve(environ)
    assert told in caught.value.message


# -- whose they are


@only_root
def test_another_user_s_files_do_not_count(
    site: Site, make_directory: Callable[[], Path]
) -> None:
    name = site.policy.owner()
    key = site.root / "wal.key"
    key.chmod(0o644)
    with unprivileged(), pytest.raises(PolicyError, match=f"belongs to {name}"):
        load_policy(site.policy, {})
    mine = make_directory() / "key"
    mine.write_text("x")
    mine.chmod(0o600)
    os.chown(mine, NOBODY, NOBODY)
    with unprivileged(), pytest.raises(KeyUnavailable, match=f"belongs to {name}"):
        _secret(mine)  # the directory above is
    os.chown(mine.parent, 0, 0)
    with unprivileged():
        assert _secret(mine) == "x"
    with pytest.raises(KeyUnavailable, match="belongs to nobody"):
        _secret(mine)


@only_root
@pytest.mark.parametrize("mode", [0o640, 0o440])
def test_a_key_that_root_gave_to_a_group_to_read(
    tmp_path: Path, postgres_user: Account, mode: int
) -> None:
    """As Kubernetes mounts them, and as root keeps them for the server's user."""
    key = tmp_path / "wal.key"
    key.write_text("x")
    os.chown(key, 0, postgres_user.gid)
    key.chmod(mode)
    assert _secret(key) == "x"
    for worse in (mode | 0o004, mode | 0o020):
        key.chmod(worse)
        with pytest.raises(KeyUnavailable, match=f"mode {worse:04o}"):
            _secret(key)
    key.chmod(mode)
    os.chown(key, postgres_user.uid, postgres_user.gid)
    with pytest.raises(KeyUnavailable, match=f"mode {mode:04o}"):
        _secret(key)


@only_root
def test_root_reads_a_server_user_s_policy_that_names_only_his_own(
    site: Site, make_directory: Callable[[], Path]
) -> None:
    """As `init` has left them where root ran it; but no policy makes root do more."""
    owner = site.policy.owner()
    assert site.drkit("keys", "check", "alpha").returncode == 0
    mine = make_directory()
    os.chown(mine, 0, 0)
    (mine / "secret").write_text("x")
    (mine / "secret").chmod(0o600)
    text = site.policy.read_text()
    for line, there in (
        ("data_directory: /var/lib/nowhere", f"data_directory: {mine}"),
        (f"file://{site.root}/repository", f"file://{mine}"),
    ):
        site.policy.write_text(text.replace(line, there))
        done = site.drkit("info")
        assert done.returncode == PolicyError.exit_code, line
        assert f"{site.policy} can be changed by {owner}" in done.stderr.decode()
        assert str(mine) in done.stderr.decode()
    site.policy.write_text(text.replace(f"{site.root}/wal.key", f"{mine}/secret"))
    done = site.drkit("keys", "check", "alpha")
    assert done.returncode == KeyUnavailable.exit_code
    assert f"{mine}/secret (mode 0600), which belongs to root" in done.stdout.decode()


@only_root
def test_root_reads_keys_of_whom_its_own_policy_is_for(site: Site) -> None:
    os.chown(site.policy, 0, 0)
    os.chown(site.policy.parent, 0, 0)
    os.chown(site.root, 0, 0)
    owners = secret_owners(choose_compiled(str(site.policy), SYSTEM, {}))
    assert owners == {0, (site.root / "repository").stat().st_uid}
    assert site.drkit("keys", "check", "alpha").returncode == 0
    os.chown(site.root / "wal.key", NOBODY, NOBODY)
    done = site.drkit("keys", "check", "alpha")
    assert done.returncode == KeyUnavailable.exit_code
    assert "belongs to nobody" in done.stdout.decode()


# -- ./policies


@pytest.fixture
def here(site: Site, postgres_user: Account) -> Path:
    """A working directory with a `policies` of the server's user."""
    work = site.root / "work"
    work.mkdir()
    (work / "policies").mkdir()
    (work / "policies/alpha.yaml").write_bytes(site.policy.read_bytes())
    give_to(postgres_user, work)
    return work


def test_policies_that_somebody_left_where_root_works(
    here: Path, postgres_user: Account
) -> None:
    told = f"{here}/policies is not searched"
    if os.geteuid() == 0:
        for words in (("info",), ("info", "alpha"), ("wal", "push", "x")):
            done = run_drkit(*words, cwd=here)
            if words[0] != "wal":
                assert done.returncode == NotFound.exit_code
                assert told in done.stderr.decode()
        assert f"{here}/policies" not in policy_dirs(None, {})
    own = run_drkit("info", "alpha", cwd=here, account=postgres_user)
    assert own.returncode == 0, own.stderr.decode()


@only_root
def test_policies_that_somebody_left_where_others_work(here: Path) -> None:
    back = Path.cwd()
    os.chdir(here)
    try:
        with unprivileged():
            assert f"{here}/policies" not in policy_dirs(None, {})
            with pytest.raises(DrkitError) as caught:
                find_policy("alpha", policy_dirs(None, {}), {})
    finally:
        os.chdir(back)
    hint = str(caught.value.hint)
    assert f"{here}/policies is not searched" in hint
    assert f"belongs to {pwd.getpwuid(here.stat().st_uid).pw_name}" in hint


def test_a_directory_of_one_s_own_that_a_group_can_write(
    here: Path, postgres_user: Account
) -> None:
    told = _mode(here / "policies", 0o775)
    done = run_drkit("info", "alpha", cwd=here, account=postgres_user)
    assert done.returncode == NotFound.exit_code
    assert told in done.stderr.decode()


def test_a_working_directory_that_is_gone(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    back = Path.cwd()
    os.chdir(gone)
    gone.rmdir()
    try:
        with pytest.raises(NotFound):
            find_policy("alpha", policy_dirs(None, {}), {})
    finally:
        os.chdir(back)
