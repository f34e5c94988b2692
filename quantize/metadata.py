"""What a GGUF says of its model besides the tensors: shape, tokenizer, chat template, licence."""

from __future__ import annotations

from typing import TYPE_CHECKING

from contract.base import Base
from quantize.recipe import RECIPES

if TYPE_CHECKING:
    from gguf import GGUFWriter

    from quantize.gguf_file import Plan


def add_metadata(writer: GGUFWriter, plan: Plan, base: Base, title: str) -> None:
    """Into the writer's header.  `title` is what `ollama show` and others call the model."""
    import gguf

    shape = plan.shape
    writer.add_type("model")
    writer.add_name(title)
    writer.add_license(base.license)
    writer.add_file_type(gguf.LlamaFileType[RECIPES[plan.type].file_type])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_block_count(shape.layers)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.hidden)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_key_length(shape.head_size)
    writer.add_value_length(shape.head_size)
    writer.add_rope_dimension_count(shape.head_size)
    writer.add_rope_freq_base(shape.rope_theta)
    writer.add_layer_norm_rms_eps(shape.rms_eps)
    plan.vocabulary.write(writer)
    writer.add_add_bos_token(base.add_bos)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(base.add_space_prefix)
    writer.add_chat_template(base.chat_template())
