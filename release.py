"""Prepares a release: ``python release.py VERSION``, in a clean working tree.

Sets the version in pyproject.toml and CITATION.cff, dates CHANGELOG.md, and commits and tags. The
push of the tag publishes: see "Release" in CONTRIBUTING.md.
"""

import datetime
import re
import subprocess
import sys
from pathlib import Path


def run(*command: str) -> str:
    return subprocess.run(command, check=True, text=True, capture_output=True).stdout


def replace(path: str, pattern: str, text: str) -> None:
    """Replace the one match of a pattern in a file."""
    old = Path(path).read_text("utf-8")
    new, count = re.subn(pattern, text, old, flags=re.MULTILINE)
    if count != 1:
        sys.exit(f"{path}: {pattern} must match once, got {count} matches")
    Path(path).write_text(new, "utf-8")


def main(version: str) -> None:
    if not re.fullmatch(r"\d+\.\d+\.\d+(rc\d+)?", version):
        sys.exit(f"VERSION must be like 1.2.3 or 1.2.3rc1, got {version}")
    if run("git", "status", "--porcelain"):
        sys.exit("the working tree must be clean")
    if run("git", "tag", "--list", f"v{version}"):
        sys.exit(f"v{version} is released already")
    today = datetime.date.today().isoformat()
    replace("pyproject.toml", r'^version = ".*"$', f'version = "{version}"')
    replace("CITATION.cff", r"^version: .*$", f"version: {version}")
    replace("CITATION.cff", r"^(date-released: .*\n)?license:", f"date-released: {today}\nlicense:")
    if "## Unreleased" in Path("CHANGELOG.md").read_text("utf-8"):  # the first release
        replace("CHANGELOG.md", "^## Unreleased$", f"## {version} - {today}")
        replace("CHANGELOG.md", " Nothing is released yet.$", "")
    else:
        print(run("towncrier", "build", "--yes", "--version", version, "--date", today))
    run("git", "commit", "--all", "--message", f"release {version}")
    run("git", "tag", "--annotate", f"v{version}", "--message", f"logitlab {version}")
    print(f"committed and tagged; to publish: git push origin main v{version}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python release.py VERSION")
    main(sys.argv[1])
