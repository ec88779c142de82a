"""How well translations agree with labelled shifts."""

from __future__ import annotations

import numpy as np


def cosines(found: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Cosine of each translation to its label, shape (n,); both (n, n_values).

    NaN where the label is empty; 0 where only the translation is.
    """
    size = np.linalg.norm(found, axis=1) * np.linalg.norm(wanted, axis=1)
    cosine = (found * wanted).sum(axis=1) / np.where(size > 0, size, 1.0)
    return np.where(np.linalg.norm(wanted, axis=1) > 0, cosine, np.nan)


def exact_signs(found: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Whether every value's sign is right (0 included), shape (n,)."""
    return (np.sign(found) == np.sign(wanted)).all(axis=1)


def figures(found: np.ndarray, wanted: np.ndarray) -> dict[str, float]:
    """All figures of a set of translations; arrays (n, n_values).

    Returns:
        `cosine`: mean over rows with a shift. `exact signs`: share of all rows whose ten signs
        are all right; `exact signs, shifts`: the same among rows with a shift. `signs found`:
        share of labelled signs that are right. `signs right`: share of found signs that are right.
        `empty precision`, `empty recall`: of the empty shift. NaN where a share has no ground.
    """
    wants, finds = np.sign(wanted), np.sign(found)
    empty, called = ~wants.any(axis=1), ~finds.any(axis=1)
    exact = exact_signs(found, wanted)
    right = (wants == finds) & (wants != 0)
    cosine = cosines(found, wanted)

    def share(part: float, whole: float) -> float:
        return float(part / whole) if whole else float("nan")

    return {
        "cosine": share(np.nansum(cosine), float((~empty).sum())),
        "exact signs": share(exact.sum(), len(exact)),
        "exact signs, shifts": share(exact[~empty].sum(), float((~empty).sum())),
        "signs found": share(right.sum(), float((wants != 0).sum())),
        "signs right": share(right.sum(), float((finds != 0).sum())),
        "empty precision": share((empty & called).sum(), float(called.sum())),
        "empty recall": share((empty & called).sum(), float(empty.sum())),
    }
