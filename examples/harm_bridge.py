"""SVGT: a value module beside the frozen model turns harmful answers into careful ones.

python examples/harm_bridge.py
"""

import valign
from valign.methods.svgt.harm import world_harm
from valign.values import Profile, load_system
from valign.world import World, WorldJudge, reference_path

lm = valign.HostModel.load(str(reference_path()))
control = valign.get_method("svgt").fit(
    lm, world_harm(0), Profile.of(load_system("hh"), harmless=1)
)

world, judge = World(split="heldout"), WorldJudge()
for name, items in {
    "harmful requests": world.harmful(24, seed=5),
    "harmless look-alikes": world.benign_lookalikes(24, seed=5),
}.items():
    prompts = [item.messages for item in items]
    for label, chosen in {"plain": None, "svgt": control}.items():
        texts = valign.generate(lm, prompts, chosen, max_new_tokens=96).texts
        helped = sum(reading.complied for reading in judge.read_all(items, texts))
        print(f"{name}, {label}: {helped} of {len(items)} helped with")
