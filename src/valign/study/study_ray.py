"""Workers on a Ray cluster; needs the extra `ray`.

Workers see nothing of the study's folder: they get cells and give back what they made. Every node
needs valign, and models named by a folder must lie at the same path on all of them.
"""

from __future__ import annotations

from typing import Any

from valign.study.cells import Cell, CellResult
from valign.study.study import Failed, Runner, attempt
from valign.values import ValignError


class RayError(ValignError, RuntimeError):
    """A Ray cluster that cannot be used."""


class RayWorkers:
    """A pool of Ray actors.

    Args:
        runner: makes cells; pickled once per actor.
        address: of the cluster as `ray.init` takes it: `auto`, `local`, `ray://host:port`.
        size: how many actors; None, and at most, one per GPU of the cluster, or one per CPU where
            it has no GPU.

    Raises:
        RayError: Ray is not installed, or the cluster cannot be reached.
    """

    def __init__(
        self,
        runner: Runner,
        *,
        address: str,
        size: int | None = None,
    ):
        try:
            import ray
        except ImportError:
            raise RayError(
                "Ray is not installed. Install it with `pip install 'valign[ray]'`, or use "
                "--workers to stay on this machine."
            ) from None
        self._ray = ray
        try:
            ray.init(address=address, ignore_reinit_error=True, log_to_driver=False)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise RayError(f"No Ray cluster at {address}: {error}") from None
        held = ray.cluster_resources()
        gpus, cpus = int(held.get("GPU", 0)), int(held.get("CPU", 1))
        self.size = min(size or gpus or cpus, gpus or cpus)  # more would wait for ever
        options = {"num_gpus": 1} if gpus else {"num_cpus": 1}
        # The runner is sent along by value, wherever it was defined.
        self._actor: Any = ray.remote(_Actor).options(max_restarts=0, **options)
        self._runner = ray.put(runner)
        self._actors: list[Any] = [self._actor.remote(self._runner) for _ in range(self.size)]
        self._busy: dict[Any, int] = {}

    def give(self, worker: int, cell: Cell) -> None:
        self._busy[self._actors[worker].make.remote(cell)] = worker

    def finished(self) -> list[tuple[int, CellResult | Failed | None]]:
        ready, _ = self._ray.wait(list(self._busy), num_returns=1)
        found: list[tuple[int, CellResult | Failed | None]] = []
        for reference in ready:
            worker = self._busy.pop(reference)
            try:
                outcome = self._ray.get(reference)
            except self._ray.exceptions.RayTaskError:
                raise  # a defect, with the worker's trace
            except self._ray.exceptions.RayError:
                outcome = None  # the actor, its node or what it made is gone
            found.append((worker, outcome))
        return found

    def restart(self, worker: int) -> None:
        self._ray.kill(self._actors[worker])
        self._actors[worker] = self._actor.remote(self._runner)

    def close(self) -> None:
        self._ray.shutdown()


class _Actor:
    """Makes cells on some node."""

    def __init__(self, runner: Runner):
        self._runner = runner

    def make(self, cell: Cell) -> CellResult | Failed:
        return attempt(self._runner, cell)
