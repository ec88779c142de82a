"""Shared by all tests: one thread, fixed seeds, the public data where it is at hand."""

import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings

# A machine under load makes single examples slow; that is no failure.
settings.register_profile("valign", deadline=None, max_examples=50, derandomize=True)
settings.load_profile("valign")

torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what reads the public data, so that `-m public` finds it."""
    for item in items:
        if "public_data" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.public)


@pytest.fixture(autouse=True)
def _fixed_seeds():
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def public_data() -> Path:
    """Folder of the public data sets; the test is skipped where there is none."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data" / "public"
    folder = Path(os.environ.get("VALIGN_DATA", beside))
    if not folder.is_dir():
        pytest.skip(f"no public data at {folder}; set VALIGN_DATA")
    return folder
