"""Which bundle this process serves: the environment variable VALIGN_BUNDLE."""

from __future__ import annotations

import os
from functools import lru_cache

from valign.deploy.bundle import read_bundle
from valign.deploy.vllm_plugin.request import Catalog, RequestError, read_catalog

VARIABLE = "VALIGN_BUNDLE"


def active_path() -> str | None:
    """File or folder of the bundle, None where the plug-in sleeps."""
    return os.environ.get(VARIABLE) or None


@lru_cache(maxsize=4)
def _read(path: str) -> Catalog:
    return read_catalog(read_bundle(path))


def active_catalog() -> Catalog:
    """What requests to this process may ask for.

    Raises:
        RequestError: the server names no bundle.
        ExportError: the bundle cannot be read.
    """
    path = active_path()
    if path is None:
        raise RequestError(
            "This server has no value profiles. Start it with `valign serve MODEL --control "
            f"BUNDLE`, or with {VARIABLE}=BUNDLE in the environment of vLLM."
        )
    return _read(path)
