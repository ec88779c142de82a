"""One batch, another value for every row; what each row then speaks for.

python examples/a_profile_for_each_row.py
"""

import valign
from valign.values import Profile
from valign.world import World, WorldJudge, reference_path
from valign.world.corpus import world_corpus

lm = valign.HostModel.load(str(reference_path()))
corpus = world_corpus(0)
names = corpus.system.names
method = valign.get_method("prompt")
controls = [method.fit(lm, corpus, Profile.from_mapping(corpus.system, {v: 1})) for v in names]

item = World(split="heldout").dilemmas(1, seed=1)[0]
rows = [None, *controls]
answers = valign.generate(lm, [item.messages] * len(rows), rows, temperature=1, seed=0).texts
print(item.messages[-1]["content"])
judged = WorldJudge().read_all([item] * len(rows), answers)
for name, answer, reading in zip(("as it is", *names), answers, judged, strict=True):
    found = [value for value, score in zip(names, reading.scores, strict=True) if score > 0]
    print(f"\n{name}: {answer}\n    speaks for: {', '.join(found) or 'nothing'}")
