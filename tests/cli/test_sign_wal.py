"""`drkit keys sign-wal`: from a policy that signs no WAL to one that does."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import yaml

from drkit.crypto.signing import format_public, parse_signing_key

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.site import Site


def key_of(site: Site) -> Path:
    return site.root / "wal-signing.key"


def test_the_key_is_made_beside_that_of_wal(site: Site) -> None:
    done = site.drkit("keys", "sign-wal", "alpha")
    assert done.returncode == 0, done.stderr
    key = key_of(site)
    assert key.stat().st_mode & 0o777 == 0o600
    assert key.stat().st_uid == (site.root / "wal.key").stat().st_uid
    public = format_public(parse_signing_key(key.read_text(), "it").public)
    told = done.stdout.decode()
    assert f"wal_signing: file:{key}\n" in told
    assert f"- {public}\n" in told
    assert key.read_text().strip().rpartition(":")[2] not in told


def test_what_it_says_makes_a_policy_whose_keys_all_work(site: Site) -> None:
    told = site.drkit("keys", "sign-wal", "alpha").stdout.decode()
    _, _, rest = told.partition("drkit:\n\n")
    fields = yaml.safe_load(rest.partition("\n\n")[0])
    policy = yaml.safe_load(site.policy.read_text())
    policy["keys"] |= fields
    site.policy.write_text(yaml.safe_dump(policy))
    checked = site.drkit("keys", "check", "alpha")
    assert checked.returncode == 0, checked.stdout
    assert b"keys.wal_signing" in checked.stdout
    again = site.drkit("keys", "sign-wal", "alpha")
    assert again.returncode == 2
    assert b"has keys.wal_signing already" in again.stderr


def test_a_key_that_is_there_is_kept(site: Site) -> None:
    first = json.loads(site.drkit("keys", "sign-wal", "alpha", "--output=json").stdout)
    assert first["created"]
    again = json.loads(site.drkit("keys", "sign-wal", "alpha", "--output=json").stdout)
    assert not again["created"]
    assert again["public_key"] == first["public_key"]


def test_something_else_in_its_place_is_no_key(site: Site) -> None:
    key_of(site).write_text("no key\n")
    key_of(site).chmod(0o600)
    assert site.drkit("keys", "sign-wal", "alpha").returncode == 13


def test_without_a_file_it_wants_to_know_where(site: Site, tmp_path: Path) -> None:
    key = (site.root / "wal.key").read_text()
    text = site.policy.read_text()
    site.policy.write_text(
        text.replace(f"file:{site.root}/wal.key", "env:DRKIT_SECRET_WAL")
    )
    env = {"DRKIT_SECRET_WAL": key}
    done = site.drkit("keys", "sign-wal", "alpha", env=env)
    assert done.returncode == 2
    assert b"--to FILE" in done.stderr
    place = tmp_path / "elsewhere.key"
    done = site.drkit("keys", "sign-wal", "alpha", "--to", place, env=env)
    assert done.returncode == 0, done.stderr
    assert place.stat().st_uid == os.geteuid()
