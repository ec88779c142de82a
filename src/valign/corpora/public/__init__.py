"""Public data sets as typed rows. One function a set; data is read, never copied or shipped.

Every function takes `folder=`, the folder that holds the sets' folders, or the set's own file
(default: the variable VALIGN_DATA). Those with `hub=` can read the same content from the Hub, given
its id there.
"""

from valign.corpora.public.capability import (
    blimp,
    dolly_sample,
    gsm8k,
    mmlu,
    self_instruct,
    truthfulqa,
    wikitext2,
)
from valign.corpora.public.entailment import breaking_nli, cad_nli, esnli, med
from valign.corpora.public.safety import (
    harmbench,
    hh_rlhf,
    openai_moderation,
    simple_safety_tests,
    strongreject,
    xstest,
    xstest_completions,
)
from valign.corpora.public.values import (
    daily_dilemmas,
    fulcra,
    persona_evals,
    personal_values_dictionary,
    portraits,
    valuebench,
    valueconsistency,
    valueeval23,
)

__all__ = [
    "blimp",
    "breaking_nli",
    "cad_nli",
    "daily_dilemmas",
    "dolly_sample",
    "esnli",
    "fulcra",
    "gsm8k",
    "harmbench",
    "hh_rlhf",
    "med",
    "mmlu",
    "openai_moderation",
    "persona_evals",
    "personal_values_dictionary",
    "portraits",
    "self_instruct",
    "simple_safety_tests",
    "strongreject",
    "truthfulqa",
    "valuebench",
    "valueconsistency",
    "valueeval23",
    "wikitext2",
    "xstest",
    "xstest_completions",
]
