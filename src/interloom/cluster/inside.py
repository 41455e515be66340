"""What runs in a stage's pods: ``python -m interloom.cluster.inside fetch|run``.

``fetch`` pulls what the stage reads from the DVC remote, by digest. ``run`` starts the stage's own
command, watches its memory, and leaves its last words where Kubernetes keeps them beyond the pod's
end: the digests of what was written, or why it failed.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

from interloom.cluster.data import Inputs, TransferError, fetch, push_products
from interloom.cluster.manifests import OUT_OF_MEMORY, REFUSED
from interloom.code import PACKAGE
from interloom.digests import digest
from interloom.errors import InterloomError

MEMORY_SECONDS = 1.0
CGROUP_EVENTS = Path("/sys/fs/cgroup/memory.events")
KEPT_LINES = 200
"""Of the stage's output, to find an error in; torchrun's report after it is long."""
ERROR = re.compile(r"(?!torch\.distributed\.elastic)(\w+\.)*\w*(Error|Exception)\b")
"""The last line of a traceback."""
LAST_WORDS = 1500
"""Characters of an error that are kept; Kubernetes keeps 4096 bytes of a container's message."""


def main(words: Sequence[str] | None = None) -> int:
    """Entry point; the exit status of the container."""
    parser = argparse.ArgumentParser(prog="interloom.cluster.inside")
    parser.add_argument("what", choices=["fetch", "run"])
    parser.add_argument("--inputs", type=Path, required=True)
    parser.add_argument("--params", type=Path)
    parser.add_argument("--message", type=Path, required=True)
    words = list(sys.argv[1:] if words is None else words)
    end = words.index("--") if "--" in words else len(words)
    given, command = parser.parse_args(words[:end]), words[end + 1 :]
    inputs = Inputs.read(given.inputs)
    try:
        if given.what == "fetch":
            fetch(inputs, Path.cwd(), given.params)
            return 0
        return _run(inputs, command, given.message)
    except (InterloomError, TransferError) as error:
        print(f"interloom: {error}", file=sys.stderr, flush=True)
        _leave(given.message, {"error": str(error)[-LAST_WORDS:]})
        return REFUSED if isinstance(error, InterloomError) else 1


def _run(inputs: Inputs, command: Sequence[str], message: Path) -> int:
    """Run the stage's processes; push and name what they have written."""
    check_code(inputs)
    kills = _memory_kills()
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                             encoding="utf-8", errors="replace")  # fmt: skip

    def pass_on(number: int, frame: FrameType | None) -> None:
        child.send_signal(number)

    signal.signal(signal.SIGTERM, pass_on)
    memory = _Memory(child.pid, message)
    said: list[str] = []
    assert child.stdout is not None
    for line in child.stdout:
        print(line, end="", flush=True)
        if line.strip() and not line.startswith("::"):
            said = [*said[-KEPT_LINES:], line.rstrip("\n")]
    status = child.wait()
    peak = memory.end()
    if status:
        out_of_memory = _memory_kills() > kills
        return _failed(status, said, {"peak_memory_mib": peak}, out_of_memory, message)
    if inputs.first:
        made = _products(inputs)
        if inputs.kind == "dvc":
            push_products(inputs, Path.cwd())
            # From now on nothing is lost with the pod, so the checkpoints may go.
            shutil.rmtree(Path(".interloom/work") / inputs.stage, ignore_errors=True)
        _leave(message, {"peak_memory_mib": peak, "outs": made})
    return 0


def _failed(
    status: int, said: Sequence[str], words: dict[str, Any], out_of_memory: bool, message: Path
) -> int:
    """The container's exit status for a failed command; its last words say why."""
    refusals = [line.removeprefix("interloom: ") for line in said if line.startswith("interloom: ")]
    if refusals:
        _leave(message, words | {"error": refusals[-1][:LAST_WORDS]})
        return REFUSED
    if out_of_memory:
        _leave(message, words | {"out_of_memory": True})
        return OUT_OF_MEMORY
    errors = [line for line in said if ERROR.match(line)] or list(said)
    _leave(message, words | {"error": errors[-1][-LAST_WORDS:] if errors else "no word"})
    return status if status > 0 else 128 - status


def _products(inputs: Inputs) -> dict[str, str]:
    """Digest of every output, by its path."""
    memory = Path(".interloom/digests.sqlite")
    missing = [path for path in inputs.products if not Path(path).exists()]
    if missing:
        raise InterloomError(f"the stage ended without {', '.join(missing)}")
    return {path: digest(Path(path), memory) for path in inputs.products}


def check_code(inputs: Inputs) -> None:
    """Refuse an image with other code than the caller's: its outputs would be recorded as made by
    code that did not make them."""
    other = []
    for item in inputs.files:
        if item.context != "code":
            continue
        path = PACKAGE / Path(item.path).relative_to("src/interloom")
        if not path.exists() or digest(path) != item.md5:
            other.append(item.path)
    if other:
        shown = ", ".join(other[:3]) + (f" and {len(other) - 3} more" if len(other) > 3 else "")
        raise InterloomError(
            f"the image has other code than the project: {shown}: build the image of this commit, "
            "and name it in cluster.image"
        )


class _Memory:
    """Writes the most memory that the stage's processes held to the container's message, so that
    it is known even if they are killed for it."""

    def __init__(self, pid: int, message: Path) -> None:
        self._pid, self._message = pid, message
        self._peak = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="memory", daemon=True)
        self._thread.start()

    def end(self) -> float:
        """Stop watching; the peak in MiB."""
        self._stop.set()
        self._thread.join()
        return self._peak

    def _watch(self) -> None:
        while not self._stop.wait(MEMORY_SECONDS):
            held = _held(self._pid)
            if held > self._peak:
                self._peak = held
                _leave(self._message, {"peak_memory_mib": held})


def _held(pid: int) -> float:
    """MiB that a process and its descendants hold."""
    import psutil

    try:
        root = psutil.Process(pid)
        processes = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0.0
    total = 0
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            total += process.memory_info().rss
    return total / 2**20


def _memory_kills() -> int:
    """Processes of this container that the kernel has killed for memory."""
    try:
        text = CGROUP_EVENTS.read_text(encoding="utf-8")
    except OSError:
        return 0
    return int(dict(line.split() for line in text.splitlines()).get("oom_kill", 0))


def _leave(message: Path, words: dict[str, Any]) -> None:
    """The file cannot be replaced, as it is mounted: one write of less than a page."""
    message.write_text(json.dumps(words), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
