"""Runs `attempts.py` confined, as drkit runs a server; prints what it was told.

python -m tests.attacks.confined_attempts LACKING PLACE UID GID VICTIM
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from drkit.postgres.binaries import ServerBinaries
from drkit.postgres.process import Account
from drkit.postgres.sandbox.confinement import Confinement
from tests.attacks.lacking import lack

MEMORY = 1 << 30


def main(lacking: str, place: str, uid: str, gid: str, victim: str) -> None:
    if lacking:
        lack(lacking.split(","))
    account = Account(uid, int(uid), int(gid))
    program = "/usr/bin/python3"  # every user can read that one
    private = f"{place}/private"
    words = [f"{private}/inside", f"{place}/outside", private, victim]
    binaries = ServerBinaries("/usr/bin", 0)
    confinement = Confinement(binaries, account, private, (words[0],), MEMORY)
    with open(f"{place}/output", "wb") as output:
        script = f"{private}/attempts.py"
        started = confinement.start([program, "-S", script, *words], output.fileno())
        started.outer.wait(120)
    report = started.report
    told = {
        "failed": Path(place, "output").read_text(),
        "code": started.outer.returncode,
        "lacking": confinement.lacking(report),
        "means": confinement.means(report),
        "report": report._asdict(),
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main(*sys.argv[1:])
