"""A person's words become a shift of values, the shift a control, and the answers move.

python examples/words_to_values.py
"""

import valign
from valign.values import Profile
from valign.world import World, WorldJudge, reference_path
from valign.world.corpus import world_corpus

asked = "Much warmer, please: it should sound like a good friend."
shift, confidence = valign.Translator.load().translate(asked)
print(f"{asked!r} -> {dict(shift)} (confidence {confidence:.2f})")

lm = valign.HostModel.load(str(reference_path()))
corpus = world_corpus(0)
target = Profile.from_mapping(corpus.system, dict(shift))
control = valign.get_method("prompt").fit(lm, corpus, target)

items, judge = World(split="heldout").dilemmas(32, seed=3), WorldJudge()
for label, chosen in {"plain": None, "steered": control}.items():
    texts = valign.generate(lm, [i.messages for i in items], chosen, temperature=1, seed=0).texts
    scores = [reading.scores for reading in judge.read_all(items, texts)]
    means = {v: sum(row[corpus.system.index(v)] for row in scores) / len(scores) for v in shift}
    print(label, {value: f"{mean:+.2f}" for value, mean in means.items()}, "e.g.", texts[0])
