"""SAE steering with a dictionary trained for long, beside the one that the method trains itself.

    python benchmarks/sae_long.py --work runs/sae-long

The table of all methods holds `sae` with the small autoencoder that it trains on the corpus's own
pairs (67,000 tokens). Here one with four times the features sees a million tokens of the world's
training half, at the same layer. Then the same targets, seeds and prompts at 0.2 nats.
Interrupted, the same command goes on.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import torch
import yaml

from valign.lm import HostModel
from valign.methods.sae.training import Recipe, train_sae
from valign.report import markdown_table
from valign.study.results import Results
from valign.world import World, reference_path

HERE = Path(__file__).parent
COLUMNS = ("gain", "gain_held_out", "leakage", "facts_wrong", "fluency", "neutral_unchanged")
DOSE = 0.2
DIALOGUES = 24_000
SEED = 4242
"""Of the dialogues; the corpus that methods are fitted on and the judging prompts have others."""
TOKENS = 1_000_000
RECIPE = Recipe(expansion=16, k=32, epochs=2)


def trained(folder: Path) -> dict:
    """What the dictionary does on held-out texts; made once."""
    lm = HostModel.load(reference_path(), dtype=torch.float32)
    world = World()
    items = [*world.dilemmas(DIALOGUES * 3 // 4, SEED), *world.neutral(DIALOGUES // 4, SEED)]
    layer = (len(lm.sites("resid")) - 1) // 2
    examples = [(item.messages[-1]["content"], item.answer) for item in items]
    sae = train_sae(lm, examples, layer, folder, recipe=RECIPE, max_tokens=TOKENS)
    return dict(layer=layer, fidelity=sae.notes["fidelity"])


def study(work: Path) -> Path:
    """The full table's study with this method alone at one dose."""
    whole = yaml.safe_load((HERE / "full_table.yaml").read_text("utf-8"))
    whole |= dict(
        title="SAE steering, a longer training",
        methods=[{"sae": {"path": str((work / "sae").resolve())}}],
        doses=[DOSE],
    )
    path = work / "study.yaml"
    path.write_text(yaml.safe_dump(whole, sort_keys=False), "utf-8")
    return path


def page(results: Results, small: Results, made: dict) -> str:
    """`sae_long.md`: the long one between the rows it is to be read against."""
    (long,) = (b for b in results.blocks if b.role == "method")
    wanted = [(m, d) for m, d in (("none", None), ("random", DOSE), ("sae", DOSE), ("neva", DOSE))]
    beside = [b for key in wanted for b in small.blocks if (b.method, b.dose) == key]
    long = long.model_copy(update={"method": "sae, trained for long"})
    table = small.model_copy(update={"blocks": [*beside[:3], long, *beside[3:]]})
    fit = ", ".join(f"{k} {v:.3g}" for k, v in made["fidelity"].items())
    return (
        "# SAE steering with a longer training\n\n`python benchmarks/sae_long.py`\n\n"
        f"A TopK autoencoder at layer {made['layer']} of the reference model: "
        f"{RECIPE.expansion} features per coordinate, {RECIPE.k} on at a token, "
        f"{RECIPE.epochs} passes over {TOKENS / 1e6:g} M tokens of {DIALOGUES:,} dialogues "
        f"(seed {SEED}). On a held-out tenth of the texts: {fit}. Rows but that one are those of "
        "[full_table.md](full_table.md): same targets, seeds and prompts.\n\n"
        f"{markdown_table(table, columns=COLUMNS)}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=Path("runs/sae-long"))
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    made = trained(given.work / "sae")
    print(made, flush=True)
    out = given.work / "study"
    command = [sys.executable, "-m", "valign", "study", str(study(given.work)), "--out", str(out)]
    if subprocess.run(command).returncode:
        sys.exit("The study did not end; the same command goes on.")
    results = Results.read(out / "results" / "reference.json")
    small = Results.read(HERE / "full_table.json")
    text = page(results, small, made)
    (HERE / "sae_long.md").write_text(text, "utf-8")
    (block,) = (b for b in results.blocks if b.role == "method")
    record = dict(recipe=asdict(RECIPE), tokens=TOKENS, dialogues=DIALOGUES, seed=SEED, **made,
                  summary=block.summary.model_dump(mode="json"))  # fmt: skip
    (HERE / "sae_long.json").write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    print(text)


if __name__ == "__main__":
    main()
