"""Processes that run a model in a runtime, and take orders."""
import json
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from scripts.benchmarks.common.command import ROOT


class Process:
    """common/worker.py with a model in a runtime.

    Args:
        runtime: A key of worker.py's PYTORCH or of runtimes.py's LOADERS.
        model: Name of the model.
        file: What the runtime reads.
        threads: How many it may use.
    """

    def __init__(self, runtime: str, model: str, file: Path, threads: int):
        self.log = tempfile.TemporaryFile('w+')  # noqa: SIM115  closed with the process
        self.process = subprocess.Popen(
            [sys.executable, '-m', 'scripts.benchmarks.common.worker', runtime, model, str(file.resolve()),
             str(threads)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True, cwd=ROOT)

    def ask(self, **order: Any) -> Any:
        """
        Raises:
            RuntimeError: The process has failed.
        """
        with suppress(BrokenPipeError):  # the answer will be missing
            self.process.stdin.write(json.dumps(order) + '\n')
            self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            status = self.process.wait()
            if status < 0:
                raise RuntimeError(f'the system has killed the process with signal {-status}, perhaps for its memory')
            self.log.seek(0)
            lines = self.log.read().strip().splitlines()
            raise RuntimeError(lines[-1] if lines else f'the process ended with status {status}')
        return json.loads(answer)

    def close(self) -> None:
        with suppress(BrokenPipeError):  # it may have failed
            self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()
        self.log.close()
