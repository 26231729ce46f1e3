"""`python -m lora_lightning.runs.supervisor RUN -- COMMAND...`: runs a job and records how it ended.

It lives in a session of its own, so that closing the browser, Ctrl-C in the dashboard's terminal or killing the
dashboard does not reach the job. If the supervisor dies the job gets SIGTERM: it saves and stops.
"""

import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from lora_lightning.runs.folder import LIVE, RunFolder
from lora_lightning.runs.notify import tell
from lora_lightning.workspace import Workspace

PR_SET_PDEATHSIG = 1


def supervise(run: RunFolder, command: list[str]) -> int:
    """Run the command to its end and write into the run's state what the command could not."""
    with run.log_path.open("ab") as log:
        job = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            preexec_fn=_before_exec,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: job.send_signal(signal.SIGTERM))
    code = job.wait()
    stored = run.read_state()
    resumed = stored.get("supervisor_pid", os.getpid()) != os.getpid()  # by another supervisor, while this one slept
    if stored.get("state") in LIVE and not resumed:
        message, hint = explain(code, run.log_tail(4096))
        run.write_state(message=message, hint=hint, ended=time.time(), exit_code=code)
        if code >= 0:
            run.write_state(state="failed")
    if not resumed:
        tell(Workspace(run.path.parents[1]), run)
    return code


def explain(code: int, log_tail: str) -> tuple[str, str]:
    """What an exit code means when the job itself could not say, and what to do."""
    if code == -signal.SIGKILL:
        return (
            "killed by the system (SIGKILL), usually because memory ran out",
            "Resume it: it goes on from its last checkpoint. If it happens again, lower the batch size.",
        )
    if code < 0:
        return f"ended by signal {signal.Signals(-code).name}", "Resume it: it goes on from its last checkpoint."
    last = next((line.strip() for line in reversed(log_tail.splitlines()) if line.strip()), "")
    return f"ended with exit code {code}: {last}", "The log holds the details."


def _before_exec() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    signal.signal(signal.SIGINT, signal.default_int_handler)


if __name__ == "__main__":
    separator = sys.argv.index("--")
    sys.exit(supervise(RunFolder(Path(sys.argv[1])), sys.argv[separator + 1 :]))
