"""How much steering costs: tokens per second steered and plain, beside other libraries.

    OMP_NUM_THREADS=1 python benchmarks/speed.py

A random Llama of 49M parameters in float32 on one thread. Everything is paired and alternated in
one process: base, arm 1, base, arm 2, ..., base; an arm's ratio in a round is taken to the mean of
the two base runs around it, and the median over rounds is reported. CPU time is the measure,
because other programs on a shared machine do not count in it; wall time is given beside it. Peers
are measured where they are installed (`pip install steering-vectors pyvene nnsight`).
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import logging
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

from valign.control import Edit, EditsControl, Gate, Site
from valign.lm import HostModel, capture, generate
from valign.values import Profile, load_system

LAYERS, WIDTH, VOCABULARY = 12, 512, 16_384
PROMPT, ANSWER = 20, 16
SYSTEM = load_system("schwartz10")
TARGET = Profile.of(SYSTEM, benevolence=1)
HALF = range(1, LAYERS, 2)

KINDS = ("add", "push", "push at neurons", "add behind a gate")

Run = Callable[[], object]


def make_lm() -> HostModel:
    """The model under test; answers never end early, so all runs make the same tokens."""
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=WIDTH, num_hidden_layers=LAYERS, intermediate_size=3 * WIDTH,
        num_attention_heads=8, num_key_value_heads=8, vocab_size=VOCABULARY,
        max_position_embeddings=512, tie_word_embeddings=True, bos_token_id=1, eos_token_id=None,
        pad_token_id=0,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    words = {"<pad>": 0, "<s>": 1, "<unk>": 2} | {f"w{i}": i for i in range(3, VOCABULARY)}
    made = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token="<s>", pad_token="<pad>", padding_side="left"
    )
    return HostModel(model, tokenizer, name="random-llama-49M")


def make_prompts(n: int, *, seed: int = 0, length: int = PROMPT) -> list[str]:
    """Texts of `length` words and a few less, so that there is padding to deal with."""
    rng = torch.Generator().manual_seed(seed)
    rows = torch.randint(3, VOCABULARY, (n, length), generator=rng).tolist()
    return [" ".join(f"w{t}" for t in row[i % 5 :]) for i, row in enumerate(rows)]


def make_controls(kind: str, lm: HostModel, n: int) -> list[EditsControl]:
    """One control per row, each its own."""
    controls = []
    for row in range(n):
        rng = torch.Generator().manual_seed(row)

        def noise(*shape: int, rng: torch.Generator = rng) -> torch.Tensor:
            return torch.randn(*shape, generator=rng)

        edits = []
        for layer in HALF:
            site = Site("neurons" if kind == "push at neurons" else "resid", layer)
            width = lm.site_width(site)
            if kind.startswith("push"):
                weight = noise(1, width) / width**0.5
                tensors = dict(weight=weight, bias=torch.zeros(1), target=torch.full((1,), 0.5),
                               direction=weight / (weight @ weight.T))  # fmt: skip
                edits.append(Edit(site, "push", tensors))
            else:
                edits.append(Edit(site, "add", {"vector": 0.02 * noise(width)}))
        gate = None
        if kind == "add behind a gate":
            bias = torch.tensor(1e6 if row % 2 == 0 else -1e6)
            gate = Gate({Site("resid", LAYERS // 2): (noise(WIDTH), bias)})
        controls.append(EditsControl(target=TARGET, edits=tuple(edits), gate=gate))
    return controls


def timed(run: Run) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - wall, time.process_time() - cpu


def alternate(
    base: Run, arms: dict[str, Run], *, work: int, rounds: int, faster: str
) -> list[dict[str, object]]:
    """Ratios of each arm to the base.

    Args:
        work: tokens one run makes, for the tokens per second.
        faster: `arm`: ratio is base time by arm time, above 1 the arm is faster. `base`: the
            other way round.
    """
    for run in (base, *arms.values()):
        run()
    times: dict[str, list[tuple[tuple[float, float], tuple[float, float]]]] = {n: [] for n in arms}
    for _ in range(rounds):
        before = timed(base)
        for name, run in arms.items():
            own, after = timed(run), timed(base)
            near = ((before[0] + after[0]) / 2, (before[1] + after[1]) / 2)
            times[name].append((near, own) if faster == "arm" else (own, near))
            before = after
    rows = []
    for name, pairs in times.items():
        ratios = sorted(top[1] / bottom[1] for top, bottom in pairs)
        low, _, high = statistics.quantiles(ratios, n=4)
        row = dict(
            name=name, ratio=statistics.median(ratios), low=low, high=high, rounds=rounds,
            wall_ratio=statistics.median(top[0] / bottom[0] for top, bottom in pairs),
            per_cpu_second=[work / statistics.median(p[i][1] for p in pairs) for i in (0, 1)],
        )  # fmt: skip
        print(f"{name:50s} {row['ratio']:.3f} [{low:.3f}, {high:.3f}]", flush=True)
        rows.append(row)
    return rows


def steering(lm: HostModel, batches: list[int], rounds: int) -> list[dict[str, object]]:
    """Steered against plain generation, one control per row."""
    rows = []
    for n in batches:
        prompts = make_prompts(n)

        def run(kind: str | None, n: int = n, prompts: list[str] = prompts) -> Run:
            controls = kind and make_controls(kind, lm, n)
            return lambda: generate(lm, prompts, controls or None, max_new_tokens=ANSWER)

        arms = {f"{kind}, batch {n}": run(kind) for kind in KINDS}
        rows += alternate(run(None), arms, work=n * ANSWER, faster="arm",
                          rounds=rounds if n < 32 else max(3, rounds // 2))  # fmt: skip
    return rows


def padded(lm: HostModel, prompts: list[str]) -> dict[str, torch.Tensor]:
    """Inputs for other libraries: the same tokens, padded on the left."""
    rendered = [lm.render(prompt) for prompt in prompts]
    return dict(lm.tokenizer(rendered, return_tensors="pt", padding=True,
                             return_token_type_ids=False))  # fmt: skip


def own_loop(lm: HostModel, batches: list[int], rounds: int) -> list[dict[str, object]]:
    """transformers' generate against valign's, both plain and greedy."""
    rows = []
    for n in batches:
        prompts = make_prompts(n)
        inputs = padded(lm, prompts)

        def ours(prompts: list[str] = prompts) -> object:
            return generate(lm, prompts, max_new_tokens=ANSWER)

        def theirs(inputs: dict[str, torch.Tensor] = inputs) -> object:
            return lm.model.generate(**inputs, max_new_tokens=ANSWER, do_sample=False)

        arms = {f"plain generation, batch {n}": theirs}
        rows += alternate(ours, arms, work=n * ANSWER, rounds=rounds, faster="base")
    return rows


def peers(lm: HostModel, n: int, rounds: int) -> list[dict[str, object]]:
    """The same vectors at the same layers and all positions, through other libraries."""
    prompts = make_prompts(n)
    vectors = {layer: 0.02 * torch.randn(WIDTH) for layer in HALF}
    edits = tuple(
        Edit(Site("resid", layer), "add", {"vector": v}, scope="all")
        for layer, v in vectors.items()
    )
    control = EditsControl(target=TARGET, edits=edits)

    def ours() -> list[list[int]]:
        return generate(lm, prompts, control, max_new_tokens=ANSWER).token_ids

    inputs = padded(lm, prompts)
    width = inputs["input_ids"].shape[1]
    options = dict(max_new_tokens=ANSWER, do_sample=False)
    expected, rows = ours(), []
    for name, make in PEERS.items():
        version = version_of(name)
        try:
            theirs, leave = make(lm, inputs, vectors, options)
            made = theirs()[:, width:].tolist()
        except Exception as error:
            reason = f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[-1]}"
            rows.append(dict(name=name, version=version, failed=f"cannot run: {reason}"))
            print(name, "cannot run:", reason, flush=True)
            continue
        same = sum(a == b for a, b in zip(made, expected, strict=True))
        arm = {f"{name} {version}, batch {n}": theirs}
        (row,) = alternate(ours, arm, work=n * ANSWER, rounds=rounds, faster="base")
        rows.append({**row, "version": version, "same_answers": f"{same} of {n}"})
        leave()
    return rows


def _steering_vectors(lm, inputs, vectors, options):
    from steering_vectors import SteeringVector

    vector = SteeringVector(layer_activations=vectors)

    def run():
        with vector.apply(lm.model):
            return lm.model.generate(**inputs, **options)

    return run, lambda: None


def _pyvene(lm, inputs, vectors, options):
    import pyvene

    configuration = [
        {"layer": layer, "component": "block_output",
         "intervention": pyvene.AdditionIntervention(
             embed_dim=WIDTH, source_representation=vector)}
        for layer, vector in vectors.items()
    ]  # fmt: skip
    model = pyvene.IntervenableModel(configuration, model=lm.model)

    def run():
        # Without it pyvene steers the prompt's first pass only or no pass at all.
        return model.generate(inputs, unit_locations=None, intervene_on_prompt=True, **options)[1]

    return run, model._remove_forward_hooks


def _nnsight(lm, inputs, vectors, options):
    import nnsight

    model = nnsight.LanguageModel(lm.model, tokenizer=lm.tokenizer)

    def run():
        with model.generate(inputs, **options) as tracer:
            for _ in tracer.iter[: options["max_new_tokens"]]:
                for layer, vector in vectors.items():
                    model.model.layers[layer].output[:] += vector
            answer = tracer.result.save()
        return answer

    return run, lambda: None


PEERS = {"steering-vectors": _steering_vectors, "pyvene": _pyvene, "nnsight": _nnsight}


def probes(lm: HostModel, texts: int, rounds: int) -> list[dict[str, object]]:
    """Capture and probes over all layers and ten values, against one plain pass.

    The plain pass runs the decoder without the vocabulary projection, over the same batches.
    """
    try:
        from valign.methods.probes import fit_probes, split
        from valign.methods.readings import collect
    except ImportError as error:
        return [dict(name="probes", failed=str(error))]
    sites = lm.sites("resid")
    per_value = texts // len(SYSTEM)
    examples = [(None, text) for text in make_prompts(texts, length=40)]
    labels = torch.arange(per_value) < per_value // 2
    rows = [lm.encode_example(*example)[0] for example in examples]
    rows.sort(key=len)

    def plain():
        from valign.lm.score import pad_right

        with torch.no_grad():
            for begin in range(0, len(rows), 16):
                ids, mask = pad_right(rows[begin : begin + 16], lm)
                lm.model.model(input_ids=ids, attention_mask=mask, use_cache=False)

    def read_only():
        for _ in capture(lm, examples, sites, positions="mean"):
            pass

    def fit():
        for number in range(len(SYSTEM)):
            own = examples[number * per_value : (number + 1) * per_value]
            found = collect(lm, own, sites, positions="mean")
            fit_probes(found, labels, split(per_value // 2, seed=0).repeat(2), ridge=1.0)

    arms = {
        f"capture at all {LAYERS} layers, {texts} texts": read_only,
        f"capture and the probes of ten values, {texts} texts": fit,
    }
    return alternate(plain, arms, work=sum(map(len, rows)), rounds=rounds, faster="base")


def version_of(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def page(result: dict, command: str) -> str:
    """The result as Markdown."""

    def line(row: dict) -> str:
        if "failed" in row:
            return f"| {row['name']} {row.get('version', '')} | {row['failed']} |||||"
        a, b = row["per_cpu_second"]
        same = f" ({row['same_answers']} answers equal)" if "same_answers" in row else ""
        return (
            f"| {row['name']}{same} | {row['ratio']:.3f} | {row['low']:.3f} to {row['high']:.3f} "
            f"| {row['wall_ratio']:.3f} | {a:.0f}, {b:.0f} | {row['rounds']} |"
        )

    columns = ("what", "ratio", "quartiles", "wall ratio", "tokens per CPU second", "rounds")
    head = f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}"
    parts = [
        "# Speed\n",
        f"Made by `{command}`; numbers in `speed.json`.\n",
        ", ".join(f"{k} {v}" for k, v in result["versions"].items()) + ".\n",
        f"Machine: {result['machine']}; one thread, float32. The machine was shared with other "
        "heavy work while this ran: CPU time is the measure, wall time stands beside it. Base and "
        "arms alternate in one process; the ratio is the median over rounds.\n",
        f"Model: random Llama, {result['parameters'] / 1e6:.0f}M parameters, {LAYERS} layers; "
        f"prompts of {PROMPT - 4} to {PROMPT} tokens, answers of {ANSWER}.\n",
        f"## Steered by plain generation, {len(HALF)} of {LAYERS} layers, one control per row\n",
        "Budget: at least 0.97. First number of tokens per second: plain; second: steered. "
        "Answers are short, so that setting up the edits weighs heavily. A gate costs one more "
        f"decoding step per answer (1 in {ANSWER} here, 1 in 128 for answers of 128 tokens).\n",
        head, *map(line, result["steering"]),
        "\n## valign's loop by transformers' `generate`, no steering\n",
        "Above 1, valign is faster. First number: transformers; second: valign.\n",
        head, *map(line, result["loop"]),
        "\n## The same vectors at the same layers through other libraries\n",
        "Above 1, valign is faster. One vector for all rows, all positions, through each "
        "library's own generation. First number: the library; second: valign. steering-vectors "
        "0.12 declares transformers < 5 and was installed against that.\n",
        head, *map(line, result["peers"]),
        "\n## Reading all layers and fitting the probes of ten values, by one plain pass\n",
        "Budget: at most 1.3 times the time of a plain pass of the decoder over the same texts.\n",
        head, *map(line, result["probes"] or [dict(name="probes", failed="not measured")]), "",
    ]  # fmt: skip
    return "\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/speed.json"))
    parser.add_argument("--page", type=Path, default=Path("benchmarks/speed.md"))
    parser.add_argument("--rounds", type=int, default=15, help="of each comparison")
    parser.add_argument("--batches", type=int, nargs="*", default=[1, 8, 32])
    parser.add_argument("--texts", type=int, default=480, help="texts of the probe comparison")
    parser.add_argument("--only", nargs="*", default=["steering", "loop", "peers", "probes"])
    given = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    lm = make_lm()
    result = json.loads(given.out.read_text()) if given.out.exists() else {}
    result |= dict(
        versions={"Python": platform.python_version()} | {
            name: version_of(name)
            for name in ("torch", "transformers", "steering-vectors", "pyvene", "nnsight")
        },
        machine=f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        parameters=sum(p.numel() for p in lm.model.parameters()),
    )  # fmt: skip
    parts = dict(
        steering=lambda: steering(lm, given.batches, given.rounds),
        loop=lambda: own_loop(lm, given.batches, given.rounds),
        peers=lambda: peers(lm, 1, given.rounds),
        probes=lambda: probes(lm, given.texts, given.rounds),
    )
    for name in parts:
        result.setdefault(name, [])
    command = "OMP_NUM_THREADS=1 " + " ".join(["python", *sys.argv])
    for name in given.only:
        result[name] = parts[name]()
        given.out.write_text(json.dumps(result, indent=1) + "\n")
        given.page.write_text(page(result, command))


if __name__ == "__main__":
    main()
