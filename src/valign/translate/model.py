"""The trained translator: a small sentence encoder that reads the shift off an instruction."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib import resources
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from valign.detect.backbone import Backbone, length_batches
from valign.detect.calibrate import sign_probabilities
from valign.detect.packing import packed, unpacked
from valign.translate.errors import TranslatorError
from valign.translate.head import ShiftHead
from valign.translate.numbers import stated_changes
from valign.translate.types import Translation, ValueShift
from valign.values import load_system

FILE = "translator.safetensors"
FORMAT = "valign-translator-1"
BUNDLED = Path(str(resources.files("valign.translate") / "weights"))


@dataclass(frozen=True)
class Decision:
    """How probabilities become a shift; set on validation rows.

    Attributes:
        gate: an instruction asks for nothing from this chance of an empty shift.
        change: a value changes from this probability of a change.
        certainty: (slope, offset) of the logistic curve from the log-probability of the chosen
            signs to the chance that all are right.
    """

    gate: float = 0.5
    change: float = 0.5
    certainty: tuple[float, float] = (1.0, 0.0)


@dataclass(frozen=True)
class Readings:
    """What the network says of n instructions.

    Attributes:
        signs: (n, n_values, 3), probabilities of down, unchanged, up.
        sizes: (n, n_values, 2), probability of a whole step, were it down or up.
        nothing: (n,), probability that nothing about values was asked.
    """

    signs: np.ndarray
    sizes: np.ndarray
    nothing: np.ndarray

    @property
    def empty(self) -> np.ndarray:
        """(n,), chance that the shift is empty: odds of `nothing` times odds that the likeliest
        change is none. So a request about form beside one about a value is not lost."""
        change = (1 - self.signs[..., 1]).max(axis=1)
        neither, either = self.nothing * (1 - change), (1 - self.nothing) * change
        return neither / (neither + either + 1e-12)

    def shifts(self, decision: Decision) -> np.ndarray:
        """Shifts on the grid, (n, n_values).

        Where something was asked yet no value reaches its threshold, the likeliest one changes.
        """
        changed = 1 - self.signs[..., 1]
        asked = self.empty < decision.gate
        chosen = (changed >= decision.change) & asked[:, None]
        alone = asked & ~chosen.any(axis=1)
        chosen[alone, changed[alone].argmax(axis=1)] = True
        up = self.signs[..., 2] >= self.signs[..., 0]
        whole = np.where(up, self.sizes[..., 1], self.sizes[..., 0]) >= 0.5
        return np.where(chosen, np.where(up, 1.0, -1.0) * np.where(whole, 1.0, 0.5), 0.0)

    def log_probability(self, shifts: np.ndarray) -> np.ndarray:
        """Log-probability of the signs of `shifts`, gate included, (n,)."""
        place = np.sign(shifts).astype(int) + 1
        own = np.take_along_axis(self.signs, place[..., None], axis=-1)[..., 0]
        gate = np.where(shifts.any(axis=1), 1 - self.empty, self.empty)
        return np.log(np.clip(own, 1e-6, 1)).sum(axis=1) + np.log(np.clip(gate, 1e-6, 1))


class EnglishTranslator:
    """Reads the ten values' shift off an English instruction, in one pass of a six-layer encoder.

    Numbers that stand beside a value's name are taken as they are. Instructions of more than
    `max_tokens` tokens are cut.

    Attributes:
        name: of the weights, with version.
        settings: what the weights were trained on and with.
    """

    def __init__(
        self,
        backbone: Backbone,
        head: ShiftHead,
        settings: dict,
        *,
        decision: Decision | None = None,
    ):
        self.name: str = settings["name"]
        self.system = load_system("schwartz10")
        self.settings = settings
        self.backbone = backbone
        self.head = head.eval().requires_grad_(False)
        self.decision = decision or Decision()

    @classmethod
    def load(cls, folder: str | Path = BUNDLED) -> EnglishTranslator:
        """A translator from the folder that training wrote; by default the one in the package.

        Raises:
            TranslatorError: no `translator.safetensors` there, or not one of ours.
            MissingEncoderError: MiniLM is not installed.
        """
        path = Path(folder) / FILE
        if not path.is_file():
            raise TranslatorError(
                f"No {FILE} in {folder}. Train one: python -m valign.translate.train --help"
            )
        try:
            with safe_open(str(path), "pt") as file:
                settings = json.loads((file.metadata() or {})["valign"])
                tensors = unpacked({key: file.get_tensor(key) for key in file.keys()})  # noqa: SIM118
        except (SafetensorError, KeyError, ValueError) as error:
            raise TranslatorError(f"{path} is not a translator's file: {error}") from None
        if settings.get("format") != FORMAT:
            raise TranslatorError(
                f"{path} has format {settings.get('format')!r}, expected {FORMAT}."
            )
        backbone = _backbone(settings["backbone"])
        head = ShiftHead.over(
            backbone, frozen_layers=settings["frozen_layers"], values=settings["values"]
        )
        head.load_state_dict(tensors)
        raw = settings["decision"]
        decision = Decision(raw["gate"], raw["change"], tuple(raw["certainty"]))
        return cls(backbone, head, settings, decision=decision)

    def save(self, folder: str | Path) -> None:
        """Write `translator.safetensors`: packed weights, settings in its header."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        header = self.settings | {"format": FORMAT, "decision": asdict(self.decision)}
        path = Path(folder) / FILE
        save_file(packed(self.head.state_dict()), str(path), {"valign": json.dumps(header)})
        path.chmod(0o644)

    @property
    def fingerprint(self) -> str:
        """First 12 hex digits of the SHA-256 over the head's weights and the decision."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.head.state_dict().items()):
            digest.update(name.encode() + tensor.numpy().tobytes())
        digest.update(json.dumps(asdict(self.decision), sort_keys=True).encode())
        return digest.hexdigest()[:12]

    def translate_all(self, instructions: Sequence[str]) -> list[Translation]:
        """One translation an instruction; a blank one gives the empty shift, surely."""
        readings = self.read(instructions)
        shifts = readings.shifts(self.decision)
        slope, offset = self.decision.certainty
        sure = 1 / (1 + np.exp(-(slope * readings.log_probability(shifts) + offset)))
        found = []
        for text, row, certainty in zip(instructions, shifts, sure, strict=True):
            changes = dict(zip(self.system.names, row, strict=True)) if text.strip() else {}
            changes |= stated_changes(text, self.system)
            shift = ValueShift.of(self.system, changes, source=self.name)
            found.append(Translation(shift, float(certainty) if text.strip() else 1.0))
        return found

    @torch.inference_mode()
    def read(self, instructions: Sequence[str]) -> Readings:
        """The network's probabilities."""
        rows = self.backbone.tokenize(instructions, max_tokens=self.settings["max_tokens"])
        n, n_values = len(rows), len(self.system)
        signs = np.zeros((n, n_values, 2))
        sizes = np.zeros((n, n_values, 2))
        nothing = np.zeros(n)
        for batch in length_batches([len(row) for row in rows]):
            ids, mask = self.backbone.pad([rows[i] for i in batch])
            lower = self.backbone.lower(ids, mask, upto=self.settings["frozen_layers"])
            out = self.head(lower, mask)
            signs[batch] = out.signs.double().numpy()
            sizes[batch] = out.sizes.double().sigmoid().numpy()
            nothing[batch] = out.nothing.double().sigmoid().numpy()
        return Readings(sign_probabilities(signs), sizes, nothing)


@cache
def _backbone(name: str) -> Backbone:
    return Backbone(name)
