"""The encoder detector: a small sentence encoder that says which values a text serves or opposes.

The lower layers of the encoder are frozen and come from their own package; the upper layers
(where tuned), the head and the calibration are one small safetensors file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from valign.detect.backbone import Backbone, length_batches
from valign.detect.calibrate import SignCalibration, expected_sign
from valign.detect.errors import DetectorError
from valign.detect.head import ValueHead
from valign.detect.packing import packed, unpacked
from valign.detect.windows import Rule, combine, split_windows
from valign.values import ValueSystem, convert, load_system

FILE = "detector.safetensors"
FORMAT = "valign-detector-1"
_AGAIN = "Copy the detector again, or train it: python -m valign.detect.train --help"
_WEIGHTS = Path(str(resources.files("valign.detect") / "weights"))
_SYSTEMS = ("schwartz10", "schwartz19")
_SETTINGS = (
    "name", "backbone", "frozen_layers", "max_tokens", "values", "categories", "n_level1"
)  # fmt: skip
_CALIBRATION = ("calibration.temperature", "calibration.offset")
_READS_BY = ("backbone", "frozen_layers", "max_tokens", "values", "categories")
"""Settings that decide a score beside the weights."""


class EncoderDetector:
    """Reads the ten values (or nineteen) off a text, with sign.

    score = P(promotes) - P(argues against), calibrated on held-out texts. The nineteen are the
    probability of the ValueEval'23 category times the sign of the value it belongs to (ours; face
    and humility belong to none of the ten and are never negative).

    Long texts are cut into windows of whole sentences (`windows.split_windows`).

    Attributes:
        name: from the file; differs between the detector that tunes and the one that judges.
        system: `schwartz10` or `schwartz19`.
        thresholds: (n_values,) score from which a value counts as expressed: one half for the
            ten, whose scores are calibrated; for the nineteen, those of best F1 on ValueEval'23
            validation.
        settings: what the weights were trained on and with.
    """

    def __init__(
        self,
        backbone: Backbone,
        head: ValueHead,
        settings: dict,
        *,
        calibration: SignCalibration | None = None,
        system: str = "schwartz10",
        windows: Rule = "max",
    ):
        if system not in _SYSTEMS:
            raise DetectorError(
                f"{settings['name']} reads {' and '.join(_SYSTEMS)}, not {system}. "
                "`wordlist` reads any system."
            )
        self.name: str = settings["name"]
        self.system: ValueSystem = load_system(system)
        self.settings = settings
        self.windows = windows
        self.backbone = backbone
        self.head = head.eval().requires_grad_(False)
        self.calibration = calibration or SignCalibration.identity(len(head.values))
        self.thresholds = _thresholds(settings, self.system)

    @classmethod
    def bundled(
        cls, name: str, *, system: str = "schwartz10", windows: Rule = "max"
    ) -> EncoderDetector:
        """One of the detectors whose weights come with the package.

        Raises:
            DetectorError: no such detector; MissingEncoderError where MiniLM is not installed.
        """
        return cls.load(_WEIGHTS / name, system=system, windows=windows)

    @classmethod
    def load(
        cls, folder: str | Path, *, system: str = "schwartz10", windows: Rule = "max"
    ) -> EncoderDetector:
        """A detector from the folder that training wrote.

        Raises:
            DetectorError: no `detector.safetensors` there, not one of ours, or one that lacks parts
                or does not fit its encoder; MissingEncoderError where the encoder is not there.
        """
        path = Path(folder) / FILE
        if not path.is_file():
            raise DetectorError(
                f"No {FILE} in {folder}. Train one: python -m valign.detect.train --help"
            )
        try:
            with safe_open(str(path), "pt") as file:
                settings = json.loads((file.metadata() or {})["valign"])
                tensors = unpacked({key: file.get_tensor(key) for key in file.keys()})  # noqa: SIM118
        except (SafetensorError, KeyError, ValueError) as error:
            raise DetectorError(f"{path} is not a detector's file: {error}") from None
        if settings.get("format") != FORMAT:
            raise DetectorError(f"{path} has format {settings.get('format')!r}, expected {FORMAT}.")
        _check_whole(path, settings, tensors, system)
        calibration = SignCalibration(*(tensors.pop(name).numpy() for name in _CALIBRATION))
        backbone = _backbone(settings["backbone"])
        head = ValueHead.from_settings(settings, backbone)
        _fill(head, tensors, path, backbone)
        return cls(
            backbone, head, settings, calibration=calibration, system=system, windows=windows
        )

    def save(self, folder: str | Path) -> None:
        """Write `detector.safetensors`: packed weights, settings in its header."""
        tensors = packed(self.head.state_dict())
        tensors["calibration.temperature"] = torch.tensor(self.calibration.temperature).float()
        tensors["calibration.offset"] = torch.tensor(self.calibration.offset).float()
        Path(folder).mkdir(parents=True, exist_ok=True)
        header = json.dumps(self.settings | {"format": FORMAT})
        path = Path(folder) / FILE
        save_file(tensors, str(path), {"valign": header})
        path.chmod(0o644)

    @property
    def fingerprint(self) -> str:
        """First 12 hex digits of the SHA-256 over all that decides scores and what they mean.

        The head's weights, the calibration, the system and its thresholds, how texts are cut.
        """
        reads = {name: self.settings[name] for name in _READS_BY} | {
            "system": self.system.name,
            "thresholds": self.thresholds.tolist(),
            "windows": self.windows,
        }
        digest = hashlib.sha256(json.dumps(reads, sort_keys=True).encode())
        for name, tensor in sorted(self.head.state_dict().items()):
            digest.update(name.encode() + tensor.numpy().tobytes())
        digest.update(self.calibration.temperature.astype(np.float32).tobytes())
        digest.update(self.calibration.offset.astype(np.float32).tobytes())
        return digest.hexdigest()[:12]

    def score(
        self, texts: Sequence[str], prompts: Sequence[str | None] | None = None
    ) -> np.ndarray:
        """Scores in [-1, 1], shape (n_texts, n_values); a blank text scores 0 everywhere.

        Prompts are not read: what counts is what the answer itself expresses.
        """
        windows = [self.split(text) for text in texts]
        flat = [window for own in windows for window in own]
        by_window = self.score_windows(flat)
        scores = np.zeros((len(texts), len(self.system)))
        start = 0
        for row, own in enumerate(windows):
            if own:
                part = by_window[start : start + len(own)]
                scores[row] = combine(part, rule=self.windows)
                start += len(own)
        return scores

    def split(self, text: str) -> list[str]:
        """The windows a text is read in."""
        size = self.settings["max_tokens"]

        def count(piece: str) -> int:
            return len(self.backbone.tokenizer(piece, verbose=False)["input_ids"])

        return split_windows(text, count, size=size)

    def score_windows(self, texts: Sequence[str]) -> np.ndarray:
        """Scores of texts that each fit one window (longer ones are cut), (n, n_values)."""
        signs, categories = self.logits(texts)
        signs = self.calibration.apply(signs)
        ten = expected_sign(signs)
        if self.system.name == "schwartz10":
            return ten
        return _nineteen(signs, ten, categories, self.head.categories)

    @torch.inference_mode()
    def logits(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Uncalibrated logits: signs (n, 10, 2), against and for; categories (n, 20)."""
        rows = self.backbone.tokenize(texts, max_tokens=self.settings["max_tokens"])
        signs = np.zeros((len(rows), len(self.head.values), 2))
        categories = np.zeros((len(rows), len(self.head.categories)))
        for batch in length_batches([len(row) for row in rows]):
            ids, mask = self.backbone.pad([rows[i] for i in batch])
            found = self.head(self.lower(ids, mask), mask)
            signs[batch] = found.signs.double().numpy()
            categories[batch] = found.categories.double().numpy()
        return signs, categories

    def lower(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Token vectors (B, T, width) below the tuned layers."""
        return self.backbone.lower(ids, mask, upto=self.settings["frozen_layers"])


def _check_whole(path: Path, settings: dict, tensors: Mapping[str, Tensor], system: str) -> None:
    needed = (*_SETTINGS, *(("category_thresholds",) if system == "schwartz19" else ()))
    lacking = [
        *(f"the setting {key}" for key in needed if key not in settings),
        *(f"the tensor {name}" for name in _CALIBRATION if name not in tensors),
    ]
    if lacking:
        raise DetectorError(f"{path} lacks {', '.join(lacking)}. {_AGAIN}")
    values = len(settings["values"])
    expected = dict(zip(_CALIBRATION, ((values,), (values, 2)), strict=True))
    for name, shape in expected.items():
        if tensors[name].shape != shape:
            raise DetectorError(
                f"{path}: {name} has shape {tuple(tensors[name].shape)}, expected {shape} for "
                f"{values} values. {_AGAIN}"
            )


def _fill(head: ValueHead, tensors: Mapping[str, Tensor], path: Path, backbone: Backbone) -> None:
    own = head.state_dict()
    wrong = [
        *(f"{name} is missing" for name in own if name not in tensors),
        *(f"{name} has no place" for name in tensors if name not in own),
        *(
            f"{name} has shape {tuple(tensors[name].shape)}, expected {tuple(tensor.shape)}"
            for name, tensor in own.items()
            if name in tensors and tensors[name].shape != tensor.shape
        ),
    ]
    if wrong:
        more = f", and {len(wrong) - 1} more such" if len(wrong) > 1 else ""
        raise DetectorError(
            f"The weights in {path} do not fit its settings and the encoder {backbone.name} "
            f"({backbone.n_layers} layers, width {backbone.width}): {wrong[0]}{more}. "
            f"It needs the encoder it was trained on. {_AGAIN}"
        )
    head.load_state_dict(tensors)


def _thresholds(settings: dict, system: ValueSystem) -> np.ndarray:
    if system.name == "schwartz10":
        return np.full(len(system), 0.5)
    own = dict(zip(settings["categories"], settings["category_thresholds"], strict=True))
    found = convert(own, "valueeval23", "schwartz19")
    return np.array([found[value] for value in system.names])


def _nineteen(
    signs: np.ndarray, ten: np.ndarray, categories: np.ndarray, names: Sequence[str]
) -> np.ndarray:
    probability = 1 / (1 + np.exp(-categories))
    present = convert(dict(zip(names, probability.T, strict=True)), "valueeval23", "schwartz19")
    system, parents = load_system("schwartz19"), load_system("schwartz10")
    columns = []
    for value in system.names:
        home = _parent(value)
        direction = 1.0 if home is None else np.sign(ten[:, parents.index(home)])
        columns.append(direction * present[value])
    return np.stack(columns, axis=1)


@cache
def _parent(value: str) -> str | None:
    own = {name: float(name == value) for name in load_system("schwartz19").names}
    ten = convert(own, "schwartz19", "schwartz10")
    return next((parent for parent, share in ten.items() if share > 0), None)


@cache
def _backbone(name: str) -> Backbone:
    return Backbone(name)
