"""Processes that train together, of which one dies -> one line by a survivor, and an end instead of a wait for ever."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from finetune.checkpoints import find_checkpoint
from finetune.parallel.processes import gather, rank, world_size

REAPED = 5.0  # seconds in which a launcher has noticed that a process of its own died; torchrun takes a tenth of one
_ending = threading.Lock()
Peer = tuple[str, int]  # host, process id


@contextlib.contextmanager
def watch_peers(checkpoints: Path) -> Iterator[None]:
    """In the body, the launcher's SIGTERM and a connection that broke end this process with one line and exit code 1.

    Whoever waits for a dead process is stuck in C++, where no Python handler runs: a thread reads the signal instead.
    """
    if world_size() == 1:
        yield
        return
    peers: list[Peer] = gather((socket.gethostname(), os.getpid()))
    ears, mouth = os.pipe()
    os.set_blocking(mouth, False)
    handler, wakeup = signal.signal(signal.SIGTERM, lambda *_: None), signal.set_wakeup_fd(mouth)
    threading.Thread(target=_listen, args=(ears, peers, checkpoints), daemon=True).start()
    try:
        yield
    except RuntimeError as error:  # gloo's and NCCL's are of this kind
        if not _is_broken(error, peers):
            raise
        _end(peers, checkpoints)
    finally:
        signal.set_wakeup_fd(wakeup)
        signal.signal(signal.SIGTERM, handler)
        os.close(mouth)


def lost_ranks(peers: Sequence[Peer]) -> list[int]:
    """Those of this host whose process is gone; of other hosts nothing is known."""
    return [i for i, (host, pid) in enumerate(peers) if host == socket.gethostname() and not _lives(pid)]


def describe(lost: Sequence[int], count: int, checkpoints: Path) -> str:
    """What happened and what would do, in one line."""
    who, were = ("rank", "was") if len(lost) == 1 else ("ranks", "were")
    ranks = " and ".join(map(str, lost))
    what = f"{who} {ranks} of {count} {were} lost (killed, out of memory, or by its own error above)"
    if not lost:
        what = "the launcher ended this process, or one on another host was lost"
    found = find_checkpoint(checkpoints)
    cure = f"with --resume: it goes on from {found.name}" if found else "again: no checkpoint had been written"
    return f"{what}; nothing half-written was left behind; run the same command {cure}"


def _listen(ears: int, peers: Sequence[Peer], checkpoints: Path) -> None:
    while number := os.read(ears, 1):
        if number[0] == signal.SIGTERM:
            _end(peers, checkpoints)
    os.close(ears)


def _end(peers: Sequence[Peer], checkpoints: Path) -> NoReturn:
    """Tell it once, by the first rank of this host that is left; then end, whatever the other threads wait for."""
    _ending.acquire()  # and never release: whoever comes second waits for the end
    lost = lost_ranks(peers)
    here = [i for i, (host, _) in enumerate(peers) if host == socket.gethostname() and i not in lost]
    if rank() == here[0]:
        print(f"error: {describe(lost, len(peers), checkpoints)}", file=sys.stderr, flush=True)
    sys.stdout.flush()
    os._exit(1)


def _is_broken(error: RuntimeError, peers: Sequence[Peer]) -> bool:
    """Whether another process's end is the cause: one of this host is gone soon, or the connection itself says so."""
    until = time.monotonic() + REAPED
    while time.monotonic() < until:
        if lost_ranks(peers):
            return True
        time.sleep(0.05)
    return len({host for host, _ in peers}) > 1 and any(word in str(error) for word in ("gloo", "NCCL", "onnection"))


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
