"""VISA: the host answers as it is; a rewriter then brings the answer's values to the target.

    y      = host(x)                       the host model is frozen and knows nothing of this
    y'     = rewriter(y, target)           values that are not named stay as they are

Helps where facts must survive: knowledge and values do not share parameters. Hurts where answers
are long or latency counts: every answer is made twice. The untrained host is a weak rewriter of
its own answers (in the paper's table an untuned 4B model keeps 0.23 consistency, a trained one
0.87). Source: Chen et al. 2026, arXiv 2603.04822; read through digests, see `docs/visa.md`. The
request's words, the warm-up and all numbers are ours, untuned.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, field_validator

from valign.control.rewrite import HOST, RewriteControl
from valign.corpora.triplets import Triplet, load_triplets
from valign.corpora.types import Corpus
from valign.lm import HostModel
from valign.methods.base import Method
from valign.methods.errors import FitError
from valign.methods.visa.rewriter import TEMPLATES, Rewriter, read_card, template_text
from valign.values import Profile


class VISA(Method):
    """A second pass by a rewriter, asked in words or trained for it."""

    name: ClassVar[str] = "visa"
    has_strength: ClassVar[bool] = False

    rewriter: str = HOST
    """Who rewrites: `host` asks the host model itself; else a trained rewriter's folder, or any
    model by folder or Hub name."""
    train: Literal["no", "sft", "grpo"] = "no"
    """Train the host into a rewriter first: by references only, or by references and then the
    reward. Takes triplets of the world for the world's corpora, else those of `triplets`."""
    triplets: str | None = None
    """JSONL of triplets to train on; the 50 bundled ones by default."""
    folder: Path | None = None
    """Where the trained rewriter is kept (`valign fit` puts it beside the control); the same
    settings go on from what lies there."""
    template: str = "auto"
    """Words of the request: `full`, `world`, or a jinja file; `auto` takes what the rewriter was
    trained with, else `world` for the world's corpora and `full` for all others."""
    max_new_tokens: int = Field(default=128, ge=1)
    """Longest rewrite."""
    sft_steps: int = Field(default=200, ge=0)
    """Steps of the warm-up."""
    grpo_steps: int = Field(default=200, ge=0)
    """Steps with the reward."""
    batch: int = Field(default=16, ge=1)
    """Rows a step."""
    generations: int = Field(default=8, ge=2)
    """Completions a group."""
    lora_rank: int = Field(default=64, ge=0)
    """0 trains all weights."""
    sft_rate: float = Field(default=1e-4, gt=0)
    """Learning rate of the warm-up."""
    grpo_rate: float = Field(default=1e-5, gt=0)
    """Learning rate with the reward."""
    detector: str = "english-a"
    """What tunes, where the corpus is not the world's."""
    seed: int = 0
    """Of data, order and draws."""

    @field_validator("template")
    @classmethod
    def _there(cls, template: str) -> str:
        if template not in ("auto", *TEMPLATES) and not Path(template).is_file():
            raise ValueError(f"no such template; there are auto, {', '.join(TEMPLATES)}, or a file")
        return template

    def _fit(self, lm: HostModel, corpus: Corpus, target: Profile) -> RewriteControl:
        card = read_card(self.rewriter)
        in_world = corpus.of_world
        if self.template != "auto":
            template = template_text(self.template)
        else:
            template = card.get("template") or template_text("world" if in_world else "full")
        control = RewriteControl(
            target=target,
            template=template,
            rewriter=self.rewriter,
            steps=int(card.get("steps", 3 if in_world else 2)),
            max_new_tokens=self.max_new_tokens,
        )
        if self.train == "no":
            return control
        if self.rewriter != HOST:
            raise FitError(
                f"train={self.train} makes the host into a rewriter; leave rewriter={self.rewriter}"
                " out, or leave train out to use it as it is."
            )
        if self.folder is None:
            raise FitError("A trained rewriter needs a place: set folder=DIR.")
        start = Rewriter(lm, corpus.system, template, control.steps, self.max_new_tokens)
        trained = self._trained(start, self._material(corpus), in_world, self.folder.resolve())
        made = {"rewriter_steps_per_hour": trained[1], "judge_must_not_be": trained[2]}
        return RewriteControl(
            target=target,
            template=template,
            rewriter=str(trained[0]),
            steps=control.steps,
            max_new_tokens=self.max_new_tokens,
            provenance=made,
        )

    def _material(self, corpus: Corpus) -> list[Triplet]:
        if corpus.of_world and self.triplets is None:
            from valign.world.rewrites import rewrites

            return rewrites(self.batch * max(self.sft_steps, 64), seed=self.seed)
        return load_triplets(corpus.system, self.triplets)

    def _trained(
        self, start: Rewriter, material: list[Triplet], in_world: bool, folder: Path
    ) -> tuple[Path, float, str | None]:
        """The rewriter's folder, steps per hour of the last phase, and the detector that tuned."""
        from valign.methods.visa.fidelity import EntailmentFidelity
        from valign.methods.visa.reward import Reward
        from valign.methods.visa.training import Settings, train

        shared = dict(
            batch=self.batch, max_new_tokens=self.max_new_tokens,
            lora_rank=self.lora_rank or None, seed=self.seed,
        )  # fmt: skip
        warm = train(
            "sft", start, material, folder / "sft",
            Settings(steps=self.sft_steps, rate=self.sft_rate, **shared),  # type: ignore[arg-type]
        )  # fmt: skip
        if self.train == "sft":
            return warm.folder, warm.steps_per_hour, None
        if in_world:
            from valign.world.rewrites import WorldFidelity
            from valign.world.tuner import WorldTuner

            reward = Reward(WorldTuner(), WorldFidelity())
        else:
            from valign.detect import load_detector

            detector = load_detector(self.detector, system=start.system)
            reward = Reward(detector, EntailmentFidelity())
        warmed = Rewriter.load(warm.folder, trust_remote_code=start.lm.trusted)
        done = train(
            "grpo", warmed, material, folder / "grpo",
            Settings(steps=self.grpo_steps, rate=self.grpo_rate, generations=self.generations,
                     **shared),  # type: ignore[arg-type]
            reward=reward,
        )  # fmt: skip
        return done.folder, done.steps_per_hour, reward.detector.name
