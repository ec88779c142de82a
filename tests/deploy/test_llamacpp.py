"""The GGUF vector in llama.cpp itself: its logits move as the hooked model's do.

Needs `llama-cpp-python`, which builds from source (`make test-llamacpp`); skipped without it.
"""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.deploy.cases import control, edit
from tests.lm.tiny import PROMPTS, tiny_lm
from valign.deploy import export
from valign.deploy.certificate import hooked_logits
from valign.deploy.llamacpp import read
from valign.lm import HostModel, generate
from valign.world import reference_path

llama_cpp = pytest.importorskip("llama_cpp")
gguf = pytest.importorskip("gguf")

TOLERANCE = 1e-4
"""Both compute in float32, in another order."""


def convert(model: torch.nn.Module, path: Path) -> Path:
    """A Llama as GGUF, float32, without a vocabulary."""
    c = model.config
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_block_count(c.num_hidden_layers)
    writer.add_context_length(c.max_position_embeddings)
    writer.add_embedding_length(c.hidden_size)
    writer.add_feed_forward_length(c.intermediate_size)
    writer.add_head_count(c.num_attention_heads)
    writer.add_head_count_kv(c.num_key_value_heads)
    writer.add_layer_norm_rms_eps(c.rms_norm_eps)
    writer.add_rope_dimension_count(c.head_dim)
    writer.add_rope_freq_base(float(c.rope_parameters["rope_theta"]))
    writer.add_vocab_size(c.vocab_size)
    writer.add_tokenizer_model("no_vocab")
    names = {
        "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
        "post_attention_layernorm": "ffn_norm", "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
    }  # fmt: skip
    top = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    heads = {"attn_q": c.num_attention_heads, "attn_k": c.num_key_value_heads}
    for name, tensor in model.state_dict().items():
        name = name.removesuffix(".weight")
        if name in top:
            made = top[name]
        else:
            layer, _, part = name.removeprefix("model.layers.").partition(".")
            made = f"blk.{layer}.{names[part]}"
            if names[part] in heads:  # llama.cpp rotates neighbours, transformers halves
                tensor = tensor.view(heads[names[part]], 2, c.head_dim // 2, -1).transpose(1, 2)
                tensor = tensor.reshape(-1, c.hidden_size)
        writer.add_tensor(f"{made}.weight", tensor.float().contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@llama_cpp.llama_log_callback
def _quiet(level, text, data) -> None:
    pass


class Engine:
    """llama.cpp on one prompt at a time."""

    def __init__(self, path: Path):
        llama_cpp.llama_log_set(_quiet, ctypes.c_void_p(0))
        llama_cpp.llama_backend_init()
        params = llama_cpp.llama_model_default_params()
        params.n_gpu_layers = 0
        self.model = llama_cpp.llama_model_load_from_file(str(path).encode(), params)
        assert self.model
        options = llama_cpp.llama_context_default_params()
        options.n_ctx = options.n_batch = 128
        options.n_threads = options.n_threads_batch = 1
        options.type_k = options.type_v = llama_cpp.GGML_TYPE_F32  # its default has 16 bits
        options.flash_attn_type = 0  # computes in 16 bits
        self.context = llama_cpp.llama_init_from_model(self.model, options)
        self.words = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))

    def steer(self, vectors: dict[int, torch.Tensor], width: int, layers: int) -> None:
        """As llama.cpp's own loader lays the file out: one row per block from 1 on."""
        data = np.zeros((layers, width), dtype=np.float32)
        for layer, vector in vectors.items():
            data[layer - 1] = vector.numpy()
        pointer = data.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        done = llama_cpp.llama_set_adapter_cvec(self.context, pointer, data.size, width, 1, layers)
        assert done == 0

    def logits(self, ids: list[int]) -> torch.Tensor:
        """(vocabulary,) after the last token."""
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.context), True)
        tokens = (llama_cpp.llama_token * len(ids))(*ids)
        assert llama_cpp.llama_decode(
            self.context, llama_cpp.llama_batch_get_one(tokens, len(ids))
        ) == 0  # fmt: skip
        found = llama_cpp.llama_get_logits_ith(self.context, -1)
        return torch.tensor(np.ctypeslib.as_array(found, (self.words,)).copy())

    def close(self) -> None:
        llama_cpp.llama_free(self.context)
        llama_cpp.llama_model_free(self.model)


@pytest.fixture(params=["tiny", "reference"])
def lm(request) -> HostModel:
    """A random model with grouped heads, and the trained reference model with a tied head."""
    return tiny_lm() if request.param == "tiny" else HostModel.load(reference_path())


def test_llama_cpp_moves_as_the_hooked_model_does(lm, tmp_path):
    """Logits after the prompt and along the steered answer, with the vector and without."""
    last = lm.n_layers - 1
    steering = control(
        edit(lm, "add", "resid:1"), edit(lm, "add", f"resid:{last}"), edit(lm, "add", "neurons:1")
    )
    export(lm, steering, to="gguf", out=tmp_path / "out", prompts=PROMPTS)
    engine = Engine(convert(lm.model, tmp_path / "model.gguf"))
    worst, largest = {"plain": 0.0, "steered": 0.0}, 0.0
    try:
        for kind, acting in (("plain", None), ("steered", steering)):
            if acting is not None:
                engine.steer(read(tmp_path / "out"), lm.layout.width, lm.n_layers)
            for prompt in PROMPTS:
                answer = generate(lm, [prompt], steering, max_new_tokens=8).token_ids[0]
                wanted = hooked_logits(lm, prompt, answer, acting)
                head = lm.encode_prompt(prompt)
                found = torch.stack(
                    [engine.logits(head + answer[:n]) for n in range(len(answer) + 1)]
                )
                largest = max(largest, float(wanted.abs().max()))
                worst[kind] = max(worst[kind], float((found - wanted).abs().max()))
                assert torch.equal(found.argmax(-1), wanted.argmax(-1))
                if acting is not None:
                    moved = wanted - hooked_logits(lm, prompt, answer, None)
                    assert moved.abs().max() > 100 * TOLERANCE
    finally:
        engine.close()
    print(f"largest logit difference: {worst}, logits up to {largest:.3g}")
    assert max(worst.values()) < TOLERANCE, worst
