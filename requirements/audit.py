"""Says whether advisories are known of what a lock file installs. Run by `make audit`.

    python audit.py LOCK_FILE…

pip-audit says "no known vulnerabilities" where it could ask nobody, or was told that
a release is unknown. Here that is what it is: not audited.

Exit codes: 0 none is known, 1 some are, 2 not all could be asked for.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

CLEAN, AFFECTED, NOT_AUDITED = 0, 1, 2


def main(lock_files: list[str]) -> int:
    """Audit lock files with pip-audit; print what came of it and return the code."""
    command = [sys.executable, "-m", "pip_audit", "--require-hashes", "--disable-pip"]
    command += ["--progress-spinner=off", "--format=json"]
    command += [word for file in lock_files for word in ("-r", file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    code, lines = verdict(done.stdout, done.stderr)
    print("\n".join(lines))
    return code


def verdict(report: str, errors: str) -> tuple[int, list[str]]:
    """Return the exit code and the lines for what pip-audit wrote.

    Args:
        report: its JSON; something else, or nothing, where it broke off.
        errors: what it wrote to standard error.
    """
    try:
        found: list[dict[str, Any]] = json.loads(report)["dependencies"]
    except (ValueError, KeyError, TypeError):
        last = errors.strip().splitlines()[-1:] or ["pip-audit said nothing"]
        return NOT_AUDITED, [f"not audited: no advisories could be read: {last[0]}"]
    lines = [
        f"{one['name']} {one['version']}: {flaw['id']}, "
        f"mended in {', '.join(flaw['fix_versions']) or 'no release yet'}"
        for one in found
        for flaw in one.get("vulns", ())
    ]
    unknown = [one["name"] for one in found if "skip_reason" in one]
    if unknown or not found:
        names = ", ".join(unknown)
        lines.append(f"not audited: no data of {len(unknown)} of {len(found)}: {names}")
    if any(one.get("vulns") for one in found):
        return AFFECTED, lines
    if unknown or not found:
        return NOT_AUDITED, lines
    return CLEAN, [f"no advisory is known of any of {len(found)} packages"]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
