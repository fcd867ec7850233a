"""Runs on this machine, without a cluster: torchrun in a session of its own, so it outlives the shell."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from kanctl.errors import KanctlError

from .launch import STOP_ENVIRONMENT, STOP_TIMEOUT_S, Launch, write_launch
from .names import corpus_dir, run_dir
from .place import LocalPlace


def start_local_run(place: LocalPlace, run: str, corpus: str, processes: int) -> Launch:
    """Start torchrun for a run folder that exists. Raises KanctlError when it dies at once."""
    folder = run_dir(place.data_dir, run)
    words = [
        *(sys.executable, "-m", "torch.distributed.run"),
        *("--standalone", f"--nproc-per-node={processes}", "--max-restarts=0"),
        *("-m", "--", "kanctl.trainer.train"),
        *("--run-dir", folder, "--corpus", corpus_dir(place.data_dir, corpus)),
    ]
    environment = {
        **os.environ,
        **STOP_ENVIRONMENT,
        "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // processes)),
        "PYTHONUNBUFFERED": "1",
        "TORCH_EXTENSIONS_DIR": f"{folder}/torch-extensions",
    }
    with Path(folder, "logs", "local.log").open("a") as log:
        process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True
        )
    launch = Launch(
        run=run,
        nodes=(),
        processes_per_node=(processes,),
        unit="",
        started_unix_s=time.time(),
        rendezvous="standalone",
        local_pid=process.pid,
    )
    write_launch(place, launch)
    time.sleep(0.5)
    if process.poll() is not None:
        raise KanctlError(f"{run} ended at once with {process.returncode}", f"read {folder}/logs/local.log")
    return launch


def local_state(launch: Launch) -> str:
    """`active` while the run's torchrun lives, else `inactive`."""
    return "active" if launch.local_pid and _is_run_process(launch.local_pid) else "inactive"


def stop_local_run(launch: Launch) -> str:
    """Ask torchrun to end (the trainer writes a checkpoint first) and wait; 'stopped' or what went wrong."""
    if launch.local_pid is None or not _is_run_process(launch.local_pid):
        return "stopped"
    os.kill(launch.local_pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_TIMEOUT_S
    while time.monotonic() < deadline:
        if not _is_run_process(launch.local_pid):
            return "stopped"
        time.sleep(0.2)
    return f"still running after {STOP_TIMEOUT_S} s as process {launch.local_pid}"


def _is_run_process(pid: int) -> bool:
    """True when that process is a torchrun of ours: a pid may have been given to another program since."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return b"kanctl.trainer.train" in command and state != "Z"
