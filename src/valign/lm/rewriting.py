"""Asking a model to rewrite texts: the request's words, and the second pass of generation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from jinja2 import StrictUndefined, Template, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from valign.control.rewrite import HOST, RewriteControl
from valign.lm.errors import ModelLoadError
from valign.lm.host import HostModel
from valign.lm.render import Prompt, Verbatim
from valign.values import ValueSystem

if TYPE_CHECKING:
    from valign.lm.generate import Generation


@dataclass(frozen=True)
class Change:
    """One value as the template sees it.

    Attributes:
        now: score in the source, None where nobody measured it.
        wanted: score the rewrite should have.
        level: `wanted` in grid steps, a whole number.
    """

    name: str
    title: str
    definition: str
    now: float | None
    wanted: float
    level: int


def request(
    template: str,
    system: ValueSystem,
    source: str,
    changes: Mapping[str, float],
    *,
    now: Mapping[str, float] | None = None,
    prompt: str | None = None,
    steps: int = 2,
) -> str:
    """The words with which a rewrite is asked for.

    Args:
        template: jinja text; `templates/` of `valign.methods.visa` holds the bundled ones.
        changes: value -> wanted score.
        now: value -> score in the source, where known.

    Raises:
        ModelLoadError: the template cannot be rendered.
        UnknownValueError: a value the system does not hold.
    """
    return words(template, source, listed(system, changes, now=now, steps=steps), prompt)


def listed(
    system: ValueSystem,
    changes: Mapping[str, float],
    *,
    now: Mapping[str, float] | None = None,
    steps: int = 2,
) -> list[Change]:
    """The changes as a template goes over them; arguments as in `request`.

    Raises:
        UnknownValueError: a value the system does not hold.
    """
    return [
        Change(
            name=name,
            title=system[name].title.lower(),
            definition=system[name].definition.rstrip(". "),
            now=None if now is None else float(now[name]),
            wanted=float(score),
            level=round(score * steps),
        )
        for name, score in changes.items()
    ]


def words(template: str, source: str, changes: Sequence[Change], prompt: str | None) -> str:
    """A template filled in.

    Raises:
        ModelLoadError: the template cannot be rendered.
    """
    try:
        text = _compiled(template).render(source=source.strip(), prompt=prompt, changes=changes)
    except TemplateError as error:
        raise ModelLoadError(f"The template of the rewrite cannot be rendered: {error}") from None
    return text.strip()


@cache
def _compiled(template: str) -> Template:
    # Templates come with control files, which may come from anywhere.
    return ImmutableSandboxedEnvironment(undefined=StrictUndefined).from_string(template)


def rewriter_of(lm: HostModel, control: RewriteControl) -> HostModel:
    """The model that rewrites; a folder's is loaded once and kept with the host.

    Raises:
        ModelLoadError: no model there.
    """
    if control.rewriter == HOST:
        return lm
    key = ("rewriter", control.rewriter)
    if key not in lm.memo:
        lm.memo[key] = HostModel.load(control.rewriter, device=str(lm.device))
    return lm.memo[key]


def rewrite_rows(
    lm: HostModel,
    prompts: Sequence[Prompt],
    said: Generation,
    rows: Sequence[int],
    controls: Sequence[RewriteControl],
    **options: Any,
) -> dict[int, tuple[str, list[int], bool]]:
    """The second pass: answers `rows` of `said`, rewritten under their controls.

    An empty answer stays empty. Tokens are those of the host's tokenizer, since that is what
    likelihoods of the answer are taken with.

    Args:
        options: of `generate`: temperature, top_p, batch_size, on_token and seed (one a row).

    Returns:
        Row -> (text, tokens, whether it ended by itself).
    """
    from valign.lm.generate import generate

    found: dict[int, tuple[str, list[int], bool]] = {}
    groups: dict[tuple[str, int], list[int]] = {}
    for place, control in enumerate(controls):
        if said.texts[rows[place]].strip():
            groups.setdefault((control.rewriter, control.max_new_tokens), []).append(place)
    seeds, on_token = options.pop("seed"), options.pop("on_token", None)
    for (_, length), places in groups.items():
        own = rewriter_of(lm, controls[places[0]])
        asked = [
            request(
                controls[p].template,
                controls[p].target.system,
                said.texts[rows[p]],
                controls[p].target.named,
                prompt=question(prompts[rows[p]]),
                steps=controls[p].steps,
            )
            for p in places
        ]
        numbers = [rows[p] for p in places]

        def heard(row: int, text: str, numbers: list[int] = numbers) -> None:
            assert on_token is not None
            on_token(numbers[row], text)

        made = generate(
            own, asked, None, max_new_tokens=length, seed=[seeds[p] for p in places],
            on_token=None if on_token is None else heard, **options,
        )  # fmt: skip
        for place, number in enumerate(numbers):
            text, tokens = made.texts[place], made.token_ids[place]
            if own is not lm:
                tokens = lm.tokenizer(text, add_special_tokens=False)["input_ids"]
            found[number] = text, tokens, made.finished[place]
    return found


def question(prompt: Prompt) -> str | None:
    """What the user asked last; bare tokens hold no question."""
    if isinstance(prompt, Verbatim):
        return None
    if isinstance(prompt, str):
        return prompt
    messages: list[Any] = list(prompt) if isinstance(prompt, Sequence) else []  # not bare tokens
    return next((m["content"] for m in reversed(messages) if m["role"] == "user"), None)
