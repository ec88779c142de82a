"""Answers on disk, so that a judgement is paid for once."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class AnswerCache:
    """One file per answer, named by the hash of everything that was asked.

    A file appears complete or not at all (written beside, flushed, renamed), so that readers in
    other threads and processes, and a killed writer, never see or leave half an answer. A file
    that cannot be read counts as absent and is written anew.
    """

    def __init__(self, folder: str | os.PathLike[str]):
        self.folder = Path(folder)

    def get(self, asked: Mapping[str, Any]) -> dict[str, Any] | None:
        """The stored answer, None where there is none."""
        try:
            stored = json.loads(self._path(asked).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return stored if isinstance(stored, dict) else None

    def put(self, asked: Mapping[str, Any], answer: Mapping[str, Any]) -> None:
        """Store an answer; of two writers the last one wins."""
        path = self._path(asked)
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, partial = tempfile.mkstemp(dir=path.parent, suffix=".partial")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(answer, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(partial)
            raise

    def _path(self, asked: Mapping[str, Any]) -> Path:
        canonical = json.dumps(asked, sort_keys=True, separators=(",", ":"))
        key = hashlib.sha256(canonical.encode()).hexdigest()
        return self.folder / key[:2] / f"{key}.json"
