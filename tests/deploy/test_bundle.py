"""Bundles: many profiles in one file, batched as an engine batches them."""

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from tests.deploy.cases import control, edit, gate
from tests.lm.tiny import PROMPTS, tiny_lm
from valign.control import Site, TextControl
from valign.deploy import Bank, ExportError, export, read_bundle
from valign.deploy.bundle import KINDS
from valign.lm.hooks import hooked
from valign.lm.program import EVERYWHERE, compile_site


@pytest.fixture(scope="module")
def lm():
    return tiny_lm()


@pytest.fixture
def profiles(lm):
    """Kinds, sites, places and scopes that overlap and that do not."""
    return {
        "add": control(edit(lm, "add", "resid:1"), edit(lm, "add", "resid:2", scope="generation")),
        "more": control(edit(lm, "add", "resid:1", seed=1)),
        "push": control(edit(lm, "push3", "resid:1"), edit(lm, "clamp", "resid:1")),
        "clip": control(edit(lm, "clip", "neurons:1"), edit(lm, "push", "neurons:1", seed=2)),
        "late": control(edit(lm, "push", "resid:1", seed=3, scope="generation")),
        "scale": control(edit(lm, "scale", "neurons:1"), edit(lm, "project", "resid:0")),
        "gated": control(edit(lm, "add", "resid:1", seed=4), gate=gate(lm, opens=True)),
        "words": TextControl(target=control().target, instruction="the family should help"),
    }


def test_every_profile_of_one_file_is_exact(lm, profiles, tmp_path):
    made = export(lm, profiles, to="vllm", out=tmp_path / "out", prompts=PROMPTS, tokens=4)
    assert set(made.control) == set(profiles) and made.max_logit_difference <= 1e-4
    bundle = read_bundle(tmp_path / "out")
    assert [p["name"] for p in bundle.profiles] == list(profiles)
    assert bundle.profiles[bundle.slot("words")]["instruction"] == "the family should help"
    assert [p["gated"] for p in bundle.profiles].count(True) == 1
    assert bundle.model["fingerprint"] == lm.fingerprint
    # Edits of one site, place, kind and scope share a bank.
    assert sum(b.site == Site("resid", 1) and b.kind == "add" for b in bundle.banks) == 1
    with pytest.raises(ExportError, match=r"no profile 'power'.*add, more"):
        bundle.slot("power")


def test_one_flat_batch_holds_every_profile_and_a_plain_row(lm, profiles, tmp_path):
    """What a server does: all tokens of all requests side by side, a coefficient row each."""
    chosen = {name: profiles[name] for name in ("add", "more", "push", "clip", "late", "scale")}
    export(lm, chosen, to="vllm", out=tmp_path / "out", prompts=PROMPTS, tokens=2)
    bundle = read_bundle(tmp_path / "out")
    ids = lm.encode_prompt(PROMPTS[0])
    rows = [*chosen, None]
    coefficients = {
        scope: torch.zeros(len(rows), len(ids), bundle.slots) for scope in ("all", "generation")
    }
    for number, name in enumerate(rows):
        if name is not None:
            coefficients["all"][number, :, bundle.slot(name)] = 1
            coefficients["generation"][number, -1:, bundle.slot(name)] = 1
    changes = []
    for site in sorted({bank.site for bank in bundle.banks}):

        def change(a, site=site):
            x = a.reshape(-1, a.shape[-1])
            for bank in bundle.banks:
                if bank.site == site:
                    x = bank.apply(x, coefficients[bank.scope].flatten(0, 1))
            return x.view_as(a)

        changes.append((site, change))
    with torch.no_grad(), hooked(lm.layout, changes):
        found = lm.model(torch.tensor([ids] * len(rows)), use_cache=False).logits[:, -1]
    with torch.no_grad(), lm.controlled([chosen.get(name) for name in rows]):
        expected = lm.model(torch.tensor([ids] * len(rows)), use_cache=False).logits[:, -1]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    assert (found[:-1] - found[-1]).abs().amax(-1).min() > 1e-2


@pytest.mark.parametrize("kind", [*KINDS, "push3", "clip"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_bank_is_the_algebra_of_the_hooks(lm, kind, dtype, tmp_path):
    made = edit(lm, kind, "neurons:1")
    export(lm, {"x": control(made), "y": control(edit(lm, kind, "neurons:1", seed=1))},
           to="vllm", out=tmp_path / "out", prompts=PROMPTS, tokens=2)  # fmt: skip
    (bank,) = read_bundle(tmp_path / "out").banks
    a = torch.randn(1, 20, 64).to(dtype)
    (step,) = compile_site([[made]], a.device, dtype)
    on = torch.tensor([[1.0, 0.0]]).expand(20, 2)
    tolerance = 1e-5 if dtype == torch.float32 else 5e-2
    torch.testing.assert_close(bank.apply(a[0], on), step(EVERYWHERE, a)[0], rtol=tolerance,
                               atol=tolerance)  # fmt: skip
    assert torch.equal(bank.apply(a[0], torch.zeros(20, 2)), a[0])


def test_slots_mix_and_coefficients_are_strengths(lm, tmp_path):
    one, two = (edit(lm, "add", "resid:1", seed=seed) for seed in (0, 1))
    export(lm, {"one": control(one), "two": control(two)}, to="vllm", out=tmp_path / "out",
           prompts=PROMPTS, tokens=2)  # fmt: skip
    (bank,) = read_bundle(tmp_path / "out").banks
    a = torch.randn(3, 32)
    mixed = bank.apply(a, torch.tensor([[0.8, -0.5]] * 3))
    constant = 0.8 * 0.8 * one.tensors["vector"] - 0.5 * 0.8 * two.tensors["vector"]
    torch.testing.assert_close(mixed, a + constant)


def test_a_changed_bundle_is_refused(lm, profiles, tmp_path):
    export(lm, {"add": profiles["add"]}, to="vllm", out=tmp_path / "out", prompts=PROMPTS)
    path = tmp_path / "out" / "bundle.safetensors"
    whole = path.read_bytes()
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    tensors["bank.0.vector"] = tensors["bank.0.vector"] * 2
    save_file(tensors, path, metadata=metadata)
    with pytest.raises(ExportError, match="not what its identity says"):
        read_bundle(path)
    for broken in (whole[:100], b"", whole[:-4]):
        path.write_bytes(broken)
        with pytest.raises(ExportError, match="no readable bundle"):
            read_bundle(path)
    save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(ExportError, match="no readable bundle"):
        read_bundle(path)


def test_the_identity_follows_the_content(lm, profiles, tmp_path):
    found = []
    for number, strength in enumerate((1.0, 1.0, 1.5)):
        out = tmp_path / str(number)
        export(lm, profiles["add"].scaled(strength), to="vllm", out=out, prompts=PROMPTS)
        found.append(read_bundle(out).identity)
    assert found[0] == found[1] != found[2]


def test_a_bank_runs_in_a_compiled_graph():
    """No branch depends on data: one trace serves any coefficients."""
    tensors = dict(weight=torch.randn(2, 8), gap=torch.ones(2), direction=torch.randn(2, 8))
    bank = Bank(Site("resid", 0), "push", "all", torch.tensor([0, 1]), tensors)
    a = torch.randn(4, 8)
    traced = torch.jit.trace(bank.apply, (a, torch.zeros(4, 2)))
    on = torch.rand(4, 2)
    torch.testing.assert_close(traced(a, on), bank.apply(a, on))
