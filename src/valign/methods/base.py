"""The one contract of methods: settings are fields, `fit` makes a control from model and texts."""

from __future__ import annotations

import difflib
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from valign.control import Control
from valign.corpora.types import Corpus
from valign.lm import HostModel
from valign.methods.errors import FitError, MethodSettingError
from valign.values import Profile


class Configured(BaseModel):
    """A frozen record of checked settings, with a docstring under each.

    Settings may be given as strings, so the command line needs no code of its own.

    Raises:
        MethodSettingError: on construction, for a setting that does not exist or does not fit.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
    name: ClassVar[str]

    def __init__(self, **settings: Any):
        known = type(self).model_fields
        for key in settings:
            if key not in known:
                near = difflib.get_close_matches(key, known, n=1)
                hint = f" Did you mean {near[0]}?" if near else ""
                raise MethodSettingError(
                    f"{self.name} has no setting {key!r}.{hint} "
                    f"It has: {', '.join(known) or 'none'}."
                )
        try:
            super().__init__(**{key: _listed(value) for key, value in settings.items()})
        except ValidationError as error:
            lines = [
                f"{self.name}: {'.'.join(map(str, e['loc'])) or 'settings'}: "
                f"{e['msg'].removeprefix('Value error, ')} (got {e['input']!r})"
                for e in error.errors()
            ]
            raise MethodSettingError("\n".join(lines)) from None

    @classmethod
    def from_strings(cls, pairs: Mapping[str, str] | list[str]) -> Self:
        """Settings as typed on the command line: `["p0=0.95", "layers=3,4"]`."""
        if not isinstance(pairs, Mapping):
            broken = [pair for pair in pairs if "=" not in pair]
            if broken:
                raise MethodSettingError(
                    f"Cannot read the setting {broken[0]!r}; write it as key=value, for example "
                    f"{next(iter(cls.model_fields), 'seed')}=..."
                )
            pairs = dict(pair.split("=", 1) for pair in pairs)
        return cls(**pairs)

    @property
    def settings(self) -> dict[str, Any]:
        """All settings, JSON-able."""
        return self.model_dump(mode="json")


class Method(Configured):
    """Base of all methods: settings that can `fit`.

    A subclass names itself, declares its settings as typed fields and writes `_fit`.
    """

    has_strength: ClassVar[bool] = True
    """Whether a dose can be set on its controls; an instruction is given or not."""
    trains_strength: ClassVar[bool] = False
    """Whether its training settles how strongly its controls act; a dose is then an afterthought,
    and what is measured unless one is asked for is the control as fitted."""

    def fit(self, lm: HostModel, corpus: Corpus, target: Profile) -> Control:
        """A control that moves the model towards the target profile.

        Strength is not set here: scale the control to a dose (`valign.lm.DoseMeter.set`).

        Args:
            lm: the model it is for.
            corpus: what to fit on; never the texts a result is judged on.
            target: wanted values; the sign says towards or away, the size how much.

        Raises:
            FitError: an empty target, another value system, or too little to fit on.
            UnsupportedSiteError: the model lacks the sites this method edits.
        """
        if target.system.names != corpus.system.names:
            raise FitError(
                f"The target speaks of {target.system.name}, the corpus {corpus.name} of "
                f"{corpus.system.name}. Use a corpus over {target.system.name}."
            )
        if not target.named:
            raise FitError(
                "The target names no value, so there is nothing to steer to. "
                "Write for example benevolence=+1; for the plain model pass no control."
            )
        control = self._fit(lm, corpus, target)
        made = dict(
            method=self.name,
            settings=self.settings,
            corpus=corpus.name,
            corpus_fingerprint=corpus.fingerprint,
            model=lm.name,
            model_fingerprint=lm.fingerprint,
        )
        return replace(control, provenance={**made, **control.provenance})

    @abstractmethod
    def _fit(self, lm: HostModel, corpus: Corpus, target: Profile) -> Control:
        """The control, without the provenance all methods share."""


def _listed(value: Any) -> Any:
    """`3,4,5` as typed on the command line becomes a list; other values stay."""
    if isinstance(value, str) and "," in value:
        return [part.strip() for part in value.split(",") if part.strip()]
    return value
