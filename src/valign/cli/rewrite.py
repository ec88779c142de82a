"""`valign rewrite`: bring the values a text expresses to a wish, and keep its facts."""

from __future__ import annotations

import json as json_module
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.markup import escape

from valign.cli.console import errors, out, progress_bar
from valign.cli.options import TRUST_REMOTE_CODE

if TYPE_CHECKING:
    from valign.methods.visa.loop import Rewrites, Rewritten, Thresholds, Visa, Wish
    from valign.values import ValueSystem

_BATCH = 16
_FIELDS = ("text", "instruction", "profile", "prompt")


def register(app: typer.Typer) -> None:
    app.command("rewrite")(rewrite)


def rewrite(
    text: str = typer.Argument(None, help="The text to rewrite."),
    instruction: str | None = typer.Option(
        None, "--instruction", "-i", help="A wish in words, e.g. 'more security, less power'."
    ),
    profile: str | None = typer.Option(
        None, "--profile", "-p", help="Wanted scores, e.g. security=+1,power=-0.5; others stay."
    ),
    whole: bool = typer.Option(
        False, "--whole", help="Values that the profile does not name should be absent."
    ),
    share: float = typer.Option(
        1.0, "--share", min=0.0, max=1.0, help="How far to go towards the profile."
    ),
    prompt: str | None = typer.Option(None, "--prompt", help="The question the text answers."),
    file: Path | None = typer.Option(
        None,
        "--file",
        "-f",
        help="JSONL: objects with `text`, and `instruction` or `profile` where they differ.",
    ),
    to: Path | None = typer.Option(
        None, "--out", "-o", help="JSONL of results; the same command goes on where it stopped."
    ),
    model: str = typer.Option(
        "reference", "--model", "-m", help="The rewriter: a trained one's folder, or any model."
    ),
    base_url: str | None = typer.Option(
        None, "--base-url", help="Ask --model of an OpenAI-compatible server, e.g. http://host/v1."
    ),
    api_key_env: str | None = typer.Option(
        None, "--api-key-env", help="Environment variable that holds the server's key."
    ),
    template: str | None = typer.Option(None, "--template", help="full, world, or a jinja file."),
    detector: str | None = typer.Option(None, "--detector", help="Who reads the values."),
    nli: str | None = typer.Option(
        None, "--nli", help="Any NLI model of the Hub instead of the bundled one."
    ),
    distance: float = typer.Option(0.8, "--distance", min=0.0, help="Largest L2 from the target."),
    consistency: float = typer.Option(0.3, "--consistency", help="Least agreement with the text."),
    facts: bool = typer.Option(
        True, "--facts/--no-facts", help="Turn away what drops, adds or contradicts facts."
    ),
    rounds: int = typer.Option(2, "--rounds", min=0, help="Tries after the first."),
    candidates: int = typer.Option(8, "--candidates", min=1, help="Draws in each try."),
    max_new_tokens: int | None = typer.Option(None, "--max-new-tokens", min=1),
    trust_remote_code: bool = TRUST_REMOTE_CODE,
    seed: int = typer.Option(0, "--seed", min=0),
    json: bool = typer.Option(False, "--json", help="One object a text, with every attempt."),
) -> None:
    """Rewrite a text: detect its values, set a target, rewrite, check, and try again.

    Where no try passes, the best one is returned with a warning that says what is wrong with it.
    """
    from valign.cli.rewritten import RewrittenFile
    from valign.cli.textfile import no_file_as_text
    from valign.methods.visa.loop import Thresholds
    from valign.methods.visa.rewriter import read_card
    from valign.values import load_system

    if (text is None) == (file is None):
        raise typer.BadParameter("Give one text, or a file of them with --file.")
    no_file_as_text([text] if text is not None else [])
    if to is not None and file is None:
        raise typer.BadParameter("--out keeps the results of --file; one text is printed.")
    if instruction is not None and profile is not None:
        raise typer.BadParameter("Give --instruction or --profile, not both.")
    shared = dict(instruction=instruction, profile=profile)
    rows = [{**shared, "text": text, "prompt": prompt}] if file is None else _rows(file, shared)
    system = load_system(({} if base_url else read_card(model)).get("system", "schwartz10"))
    wishes = [_wish(row, system, whole, share) for row in rows]
    in_world = detector == "world" or (detector is None and model == "reference")
    detector = "world" if in_world else detector or "english-a"
    thresholds = Thresholds(distance=distance, consistency=consistency, facts=facts)
    kept = None if to is None else RewrittenFile(to, rows, dict(
        model=model, base_url=base_url, template=template, detector=detector, nli=nli,
        whole=whole, share=share, thresholds=asdict(thresholds), rounds=rounds,
        candidates=candidates, max_new_tokens=max_new_tokens, seed=seed,
    ))  # fmt: skip
    done = 0 if kept is None else kept.done
    if done == len(wishes):
        errors.print(f"All {done} rewrites are in {to}.", markup=False, highlight=False)
        return
    needs_words = any(wish.instruction is not None for wish in wishes)
    if base_url is None:
        rewriter = _local(model, template, max_new_tokens, trust_remote_code)
    else:
        rewriter = _remote(base_url, model, template, api_key_env)
    visa = _visa(
        rewriter, detector, nli, needs_words,
        rounds=rounds, candidates=candidates, seed=seed, thresholds=thresholds,
    )  # fmt: skip
    with progress_bar("texts", quiet=file is None) as bar:
        task = bar.add_task("rewriting", total=len(wishes), completed=done)
        for begin in range(done, len(wishes), _BATCH):
            made = visa.rewrite_all(wishes[begin : begin + _BATCH])
            if kept is not None:
                kept.add(made)
            else:
                for one in made:
                    _show(one, json)
            bar.advance(task, len(made))
    if to is not None:
        out.print(str(to), markup=False, highlight=False, soft_wrap=True)


def _local(
    model: str, template: str | None, max_new_tokens: int | None, trust_remote_code: bool
) -> Rewrites:
    from transformers.utils import logging

    from valign.methods.visa.rewriter import Rewriter

    logging.disable_progress_bar()
    if model == "reference":
        from valign.world import reference_path

        errors.print(
            "The reference model speaks only the test world's English. For other texts name a "
            "rewriter: --model FOLDER_OR_HUB_NAME.",
            markup=False, highlight=False,
        )  # fmt: skip
        model, template = str(reference_path()), template or "world"
    return Rewriter.load(
        model, template=template, max_new_tokens=max_new_tokens,
        trust_remote_code=trust_remote_code,
    )  # fmt: skip


def _remote(base_url: str, model: str, template: str | None, api_key_env: str | None) -> Rewrites:
    from valign.methods.visa.remote import RemoteRewriter
    from valign.methods.visa.rewriter import template_text

    words = template_text(template or "full")
    return RemoteRewriter(base_url, model, template=words, api_key_env=api_key_env)


def _visa(
    rewriter: Rewrites,
    detector: str,
    nli: str | None,
    needs_words: bool,
    *,
    rounds: int,
    candidates: int,
    seed: int,
    thresholds: Thresholds,
) -> Visa:
    """The loop with all its parts; in the world, with the world's own."""
    from valign.detect import load_detector
    from valign.methods.visa.fidelity import EntailmentFidelity, Fidelity
    from valign.methods.visa.loop import Visa
    from valign.methods.visa.reward import Reward

    fidelity: Fidelity
    if detector == "world":
        from valign.world.rewrites import WorldFidelity

        fidelity = WorldFidelity()
    else:
        from valign.detect.entail import Entailment

        fidelity = EntailmentFidelity(Entailment.from_pretrained(nli) if nli else None)
    translator: Any = None
    if needs_words:
        from valign.translate import Translator

        translator = Translator.load(system=rewriter.system)
    return Visa(
        rewriter,
        Reward(load_detector(detector, system=rewriter.system), fidelity),
        translator,
        thresholds,
        rounds=rounds,
        candidates=candidates,
        seed=seed,
    )


def _rows(file: Path, shared: dict[str, str | None]) -> list[dict[str, Any]]:
    from valign.cli.textfile import TextFileError, stream_objects

    found = []
    for _, row in stream_objects(
        file, example='{"text": "...", "instruction": "more security"}', needed=("text",),
        optional=_FIELDS,
    ):  # fmt: skip
        own = {k: row.get(k) for k in _FIELDS}
        if own["instruction"] is None and own["profile"] is None:
            own |= shared
        found.append(own)
    if not found:
        raise TextFileError(f"{file} is empty: expected one JSON object a line.")
    return found


def _wish(row: dict[str, Any], system: ValueSystem, whole: bool, share: float) -> Wish:
    from valign.methods.visa.loop import Wish
    from valign.values import Profile

    given = row["profile"]
    parsed = None if given is None else Profile.parse(given, system)
    return Wish(
        row["text"], row["instruction"], parsed, whole=whole, share=share, prompt=row["prompt"]
    )


def _show(one: Rewritten, json: bool) -> None:
    if json:
        typer.echo(json_module.dumps(one.to_dict(), ensure_ascii=False))
        return
    out.print(one.text, markup=False, highlight=False, soft_wrap=True)
    if one.warning:
        errors.print(f"[yellow]warning:[/] {escape(one.warning)}", highlight=False, soft_wrap=True)
    moves = ", ".join(f"{name} {size:+.2f}" for name, size in one.shift.items())
    if moves:
        tries = len(one.attempts)
        errors.print(
            f"asked for {moves}; {tries} {'try' if tries == 1 else 'tries'}",
            markup=False, highlight=False, soft_wrap=True,
        )  # fmt: skip
