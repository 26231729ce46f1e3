"""Find a Chromium for the browser tests, or install one: `python tools/chromium.py` prints its path.

Order: $CHROMIUM, one on the PATH, Playwright's own; then apt-get (as root on Debian and Ubuntu), then Playwright's
download. If none of these works it fails and names the fix.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FIX = """\
The browser tests need Chromium, and it could not be installed here. Any one of these helps:
  apt-get install chromium                        (Debian, Ubuntu; as root)
  .venv/bin/python -m playwright install --with-deps chromium
  export CHROMIUM=/path/to/an/installed/chrome"""


def find() -> str | None:
    """The path of an installed Chromium, or None."""
    chosen = os.environ.get("CHROMIUM")
    if chosen:
        return chosen if Path(chosen).is_file() else None
    on_path = next((path for name in NAMES if (path := shutil.which(name))), None)
    if on_path:
        return on_path
    caches = Path(os.environ.get("PLAYWRIGHT_BROWSERS_PATH", Path.home() / ".cache" / "ms-playwright"))
    return next((str(path) for path in sorted(caches.glob("chromium-*/chrome-linux*/chrome"))), None)


def install() -> None:
    """Try the ways to install one, quietly."""
    attempts = []
    if os.geteuid() == 0 and shutil.which("apt-get"):
        attempts.append("apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q chromium")
    attempts.append(f"{sys.executable} -m playwright install chromium")
    for attempt in attempts:
        print(f"installing Chromium: {attempt}", file=sys.stderr)
        subprocess.run(["sh", "-c", attempt], stdout=sys.stderr, timeout=900, check=False)
        if find():
            return


def main() -> int:
    """Print the path, installing first where needed."""
    if not find():
        install()
    path = find()
    print(path or FIX, file=sys.stdout if path else sys.stderr)
    return 0 if path else 1


if __name__ == "__main__":
    sys.exit(main())
