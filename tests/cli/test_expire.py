"""`expire`, `pin` and `unpin` as they are typed."""

from __future__ import annotations

import contextlib
import io
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from drkit import wiring
from drkit.cli import app
from drkit.cli.expire import read_end
from drkit.config.compiled import compile_policy
from drkit.config.loading import load_policy
from drkit.errors import ClockImplausible, NotFound, UsageError
from drkit.model.log import Pin
from drkit.model.wal import Segment, WalFileName
from drkit.repository.log import Log
from drkit.repository.log_entries import LogIdentity
from tests.builders import SEGMENT, FakeClock
from tests.catalogs import store
from tests.cli.test_json_output import agree

if TYPE_CHECKING:
    from tests.cli.site import Site


@pytest.fixture
def labels(site: Site) -> list[str]:
    """Six full backups, of which the policy keeps four, and their WAL."""
    repository = site.repository()
    made = [store(repository, start=10 * number) for number in range(6)]
    for number in range(60):
        name = repository.wal.name(WalFileName.parse(Segment(1, number).name(SEGMENT)))
        repository.storage.put(name, b"segment")
    return [commit.backup.label for commit in made]


def run(site: Site, *words: str) -> tuple[int, str, str]:
    """Run a command in this process; return its code and what it wrote."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = app.run([*words, "--policy-dir", str(site.policy.parent)])
    return code, out.getvalue(), err.getvalue()


def text_of(site: Site, *words: str) -> str:
    code, out, err = run(site, *words)
    assert code == 0, err
    return out


def write(site: Site, *words: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(text_of(site, *words, "--output", "json"))
    return found


def test_expire_plans_and_then_deletes(site: Site, labels: list[str]) -> None:
    text = text_of(site, "expire", "alpha", "--plan")
    assert f"{labels[0]}  EXPIRES  no rule keeps it (full: 4)" in text
    assert f"{labels[5]}  kept     the newest backup is always kept" in text
    assert "2 backups would be deleted" in text
    assert "20 WAL files would be deleted" in text
    assert (
        "timeline 1: 20, 000000010000000000000000 to 000000010000000000000013" in text
    )
    assert text.endswith("nothing was deleted: this is a plan\n")

    planned = write(site, "expire", "alpha", "--plan")
    agree("expire", planned)
    assert (planned["executed"], planned["result"]) == (False, None)
    assert planned["plan"]["delete"] == labels[:2]
    done = write(site, "expire", "alpha", "--max", "1")
    agree("expire", done)
    assert done["executed"]
    assert done["result"]["deleted"] == labels[:1]
    assert done["result"]["wal"]["files"] == 10
    assert done["plan"]["deferred"] == labels[1:2]
    assert f"deleted: {labels[1]}" in text_of(site, "expire", "alpha")
    found = write(site, "info", "alpha")["policies"][0]
    assert [fate["label"] for fate in found["fates"]] == labels[2:]
    assert all(fate["kept"] for fate in found["fates"])
    text = text_of(site, "info", "alpha")
    assert f"{labels[2]}  kept  full: 4: one of the 4 newest full backups" in text


def test_pin_and_unpin(site: Site, labels: list[str]) -> None:
    pinned = write(
        site, "pin", "alpha", labels[0], "--reason", "audit", "--until", "2999-12-31"
    )
    agree("pin", pinned)
    assert pinned["pin"]["until"] == "3000-01-01T00:00:00+00:00"
    found = write(site, "expire", "alpha")
    assert found["result"]["deleted"] == [labels[1]]
    assert found["plan"]["fates"][0]["reasons"][0]["rule"] == "pin"
    text = text_of(site, "info", "alpha")
    assert f"{labels[0]}  kept  pinned until 3000-01-01 00:00:00+00:00: audit" in text
    lifted = write(site, "unpin", "alpha", labels[0])
    agree("unpin", lifted)
    assert run(site, "unpin", "alpha", labels[0])[0] == NotFound.exit_code
    assert write(site, "expire", "alpha")["result"]["deleted"] == [labels[0]]


def test_a_wrong_clock_has_its_exit_code(site: Site, labels: list[str]) -> None:
    """Another host wrote to the log in 2036, as far as its clock knew."""
    repository = site.repository()
    policy = load_policy(site.policy, {})
    signers = wiring.signer_sources(compile_policy(policy), wiring.Secrets({}))
    signer = signers["signing"]
    identity = LogIdentity("elsewhere", signer, {signer().public})
    log = Log(
        repository.storage,
        repository.layout,
        repository.lineage,
        repository.keyring,
        identity,
        FakeClock(datetime(2036, 1, 1, tzinfo=UTC)),
    )
    log.append(lambda _: Pin(labels[3], "why", None))
    for words in (["--plan"], []):
        code, _, told = run(site, "expire", "alpha", *words)
        assert code == ClockImplausible.exit_code
        assert "time ran backwards" in told
        assert "--accept-clock" in told
    assert len(site.repository().backups()) == 6
    accepted = write(site, "expire", "alpha", "--accept-clock")
    assert accepted["result"]["deleted"] == labels[:2]


@pytest.mark.parametrize("words", [["--max", "0"], ["--max", "-1"]])
def test_a_limit_is_at_least_one(site: Site, words: list[str]) -> None:
    assert run(site, "expire", "alpha", *words)[0] == UsageError.exit_code


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-12-31", datetime(2027, 1, 1, tzinfo=UTC)),
        ("2026-12-31 18:00:00+00:00", datetime(2026, 12, 31, 18, tzinfo=UTC)),
        ("2026-12-31T18:00Z", datetime(2026, 12, 31, 18, tzinfo=UTC)),
    ],
)
def test_a_day_is_meant_to_its_end(text: str, expected: datetime) -> None:
    assert read_end(text) == expected


@pytest.mark.parametrize(
    "text", ["", "tomorrow", "2026-12-31 18:00", "2026-02-30", "9999-12-31", "12-31"]
)
def test_what_is_no_end_of_a_pin(text: str) -> None:
    with pytest.raises(UsageError, match="--until"):
        read_end(text)
