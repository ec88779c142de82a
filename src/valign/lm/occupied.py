"""The frame of every session: a `with` block that has a host model to itself.

What a session hooks into the model is gone when the block ends, also after an exception, and a
second session on the same model is refused: edits applied twice would be nobody's intention.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any, NoReturn, Self

import torch
from torch.utils.hooks import RemovableHandle

from valign.lm.errors import NestedControlError, NotAppliedError, UnsupportedSiteError
from valign.lm.host import HostModel


class Occupied:
    """Base of the sessions of `steer`, `weights` and `bridge`.

    A session says in `_install` what it hooks, in `_on_pass` and `_on_end` what it does around
    each pass of the whole model, and in `_require_fired` what must have run by the end.

    Raises:
        NestedControlError: on entering, if the model is already in a session.
        NotAppliedError: on leaving, if what was to act never ran.
    """

    def __init__(self, lm: HostModel):
        self._lm, self._passes, self._stack = lm, 0, ExitStack()

    def __enter__(self) -> Self:
        lm = self._lm
        if lm.session is not None:
            raise NestedControlError(
                f"{lm.name} already runs under a control. Leave that `with` block (or let that "
                "generation end) first; what should act together goes into one control."
            )
        lm.session = self
        self._stack.callback(setattr, lm, "session", None)
        try:
            self._install()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self._stack.close()
        if kind is None and self._passes:
            self._require_fired()

    @property
    def ran(self) -> bool:
        """Whether any pass went through the session's hooks."""
        return self._passes > 0

    def read_prompt(self, inputs: dict[str, Any]) -> Any:
        """What a pass of its own over the prompt computed; None where none is needed."""
        return None

    # What a kind of session fills in ----------------------------------------------------

    def _install(self) -> None:
        """Hook the model; every handle goes through `_keep`."""
        raise NotImplementedError

    def _on_pass(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        raise NotImplementedError

    def _on_end(self, module: Any, args: Any, output: Any) -> None:
        """A pass has ended, or was broken off by an exception."""
        raise NotImplementedError

    def _require_fired(self) -> None:
        raise NotImplementedError

    # What they share ----------------------------------------------------------------------

    def _watch_passes(self) -> None:
        for entry in self._lm.entries:
            self._keep(
                entry.register_forward_pre_hook(self._on_pass, with_kwargs=True),
                entry.register_forward_hook(self._on_end, always_call=True),
            )

    def _keep(self, *handles: RemovableHandle) -> None:
        for handle in handles:
            self._stack.callback(handle.remove)

    def _read_pass(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[torch.Tensor, int, dict[str, Any]]:
        """(ids or embeddings, tokens the cache holds, all arguments by name) of a pass."""
        if args:
            kwargs = {**dict(zip(self._lm.accepts, args, strict=False)), **kwargs}
        ids = kwargs.get("input_ids")
        cache = kwargs.get("past_key_values")
        held = 0 if cache is None else int(cache.get_seq_length())
        return kwargs["inputs_embeds"] if ids is None else ids, held, kwargs

    def _require_begun(self, held: int, *, rows: int, batch: int) -> None:
        """Refuse to go on with a prompt that was read elsewhere, or with other rows."""
        if not self._passes:
            raise NotAppliedError(
                f"The cache already holds {held} tokens that were read without the control. "
                "Give the model the whole prompt inside the `with` block."
            )
        if batch != rows:
            raise UnsupportedSiteError(f"The prompt had {rows} rows, this pass has {batch}.")

    def _ran_outside(self, what: object) -> NoReturn:
        raise NotAppliedError(
            f"{what} ran outside a pass of the whole model. Under a control call "
            f"{type(self._lm.model).__name__} itself, not its parts."
        )
