"""Programs that begin by importing torch, in a process each, but one that begins with torch imported."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

_SERVER = """
import json, os, sys

sys.path[:] = json.loads(sys.stdin.readline())
from search.encoders import foreign

for line in sys.stdin:
    program, folder = json.loads(line)
    pid = os.fork()
    if pid:
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
        continue
    code = 1
    try:
        os.dup2(os.open(folder + "/given", os.O_RDONLY), 0)
        os.dup2(os.open(folder + "/told", os.O_WRONLY | os.O_CREAT), 1)
        sys.stdin, sys.stdout = open(0), open(1, "w")
        exec(program, {"__name__": "__main__"})
        sys.stdout.flush()
        code = 0
    finally:
        os._exit(code)
"""


class Forks:
    """Forks a process for each program from one that has imported what converting weights takes.

    Importing torch costs two seconds of processor time, the rest of a small conversion a fiftieth of that.
    """

    def __init__(self) -> None:
        self._server: subprocess.Popen[str] | None = None

    def run(self, program: str, given: bytes) -> tuple[int, bytes]:
        """Run a program on an input; return how it ended, as subprocess says it, and what it printed."""
        with TemporaryDirectory() as folder:
            Path(folder, "given").write_bytes(given)
            code = int(self._ask([program, folder]))
            told = Path(folder, "told")
            return code, told.read_bytes() if told.exists() else b""

    def close(self) -> None:
        if self._server:
            self._server.communicate(timeout=60)

    def _ask(self, question: list[Any]) -> str:
        server = self._server = self._server or self._start()
        assert server.stdin
        assert server.stdout
        print(json.dumps(question), file=server.stdin, flush=True)
        return server.stdout.readline()

    def _start(self) -> subprocess.Popen[str]:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        server = subprocess.Popen([sys.executable, "-I", "-c", _SERVER], text=True, **pipes)
        assert server.stdin
        print(json.dumps([path for path in sys.path if path]), file=server.stdin, flush=True)
        return server
