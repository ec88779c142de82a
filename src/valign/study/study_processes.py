"""Workers as processes on this machine."""

from __future__ import annotations

import multiprocessing
import signal
import traceback
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Any

from valign.study.cells import Cell, CellResult
from valign.study.study import Failed, Runner, attempt


class Processes:
    """A pool of processes, each started afresh, so that no thread or lock is inherited.

    Args:
        runner: makes cells; it is pickled and must load what is heavy when it is first called.
        size: how many.
    """

    def __init__(self, runner: Runner, size: int):
        self.size = size
        self._runner = runner
        self._context = multiprocessing.get_context("spawn")
        self._workers: list[tuple[Any, Connection]] = [self._start() for _ in range(size)]
        self._busy: set[int] = set()

    def _start(self) -> tuple[Any, Connection]:
        here, there = self._context.Pipe()
        process = self._context.Process(target=_serve, args=(there, self._runner), daemon=True)
        process.start()
        there.close()  # so that its end is noticed here
        return process, here

    def give(self, worker: int, cell: Cell) -> None:
        self._busy.add(worker)
        with suppress(OSError):  # it died while idle; `finished` will notice
            self._workers[worker][1].send(cell)

    def finished(self) -> list[tuple[int, CellResult | Failed | None]]:
        numbers = {self._workers[worker][1]: worker for worker in self._busy}
        found: list[tuple[int, CellResult | Failed | None]] = []
        for pipe in wait(list(numbers)):
            worker = numbers[pipe]  # type: ignore[index]
            self._busy.discard(worker)
            try:
                outcome = self._workers[worker][1].recv()
            except (EOFError, OSError):
                outcome = None
            if isinstance(outcome, str):
                raise RuntimeError(f"A worker met a defect:\n{outcome}")
            found.append((worker, outcome))
        return found

    def restart(self, worker: int) -> None:
        self._end(worker)
        self._workers[worker] = self._start()

    def close(self) -> None:
        for worker in range(self.size):
            self._end(worker)

    def _end(self, worker: int) -> None:
        process, pipe = self._workers[worker]
        pipe.close()
        process.kill()
        process.join()


def _serve(pipe: Connection, runner: Runner) -> None:
    """Make cells until the other end is gone, be it closed or killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that started us
    try:
        while True:
            cell = pipe.recv()
            try:
                made: Any = attempt(runner, cell)
            except Exception:
                made = traceback.format_exc()
            pipe.send(made)
    except (EOFError, OSError):
        return
