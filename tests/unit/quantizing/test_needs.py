"""Memory and disk space, computed from shapes."""

from deckard_deploy.catalog import library
from deckard_deploy.quantizing.needs import needs_of, quantized_linears

SHAPES = {
    "model.language_model.embed_tokens.weight": (1000, 64),
    "model.language_model.layers.0.self_attn.q_proj.weight": (128, 64),
    "model.language_model.layers.0.mlp.down_proj.weight": (64, 256),
    "model.language_model.layers.0.input_layernorm.weight": (64,),
    "model.vision_tower.encoder.layers.0.mlp.up_proj.linear.weight": (32, 32),
    "lm_head.weight": (1000, 64),
}
LINEARS = 128 * 64 + 64 * 256
REST = 2 * 1000 * 64 + 64 + 32 * 32


def test_linears_of_decoder_layers_are_packed_unless_excluded():
    assert quantized_linears(SHAPES, library.recipe("nvfp4")) == [
        "model.language_model.layers.0.self_attn.q_proj.weight",
        "model.language_model.layers.0.mlp.down_proj.weight",
    ]
    own = library.recipe("nvfp4").model_copy(update={"exclude": ("*vision_tower*", "*.mlp.*")})
    assert quantized_linears(SHAPES, own) == ["model.language_model.layers.0.self_attn.q_proj.weight"]


def test_written_bytes_are_codes_scales_and_the_rest():
    needs = needs_of(SHAPES, library.recipe("nvfp4"), 1000)
    assert needs.weights == 2 * (LINEARS + REST)
    assert needs.written == LINEARS // 2 + LINEARS // 16 + 2 * REST
    low_rank = needs_of(SHAPES, library.recipe("svdquant"), 1000).written - needs.written
    assert low_rank == 2 * 32 * (128 + 64 + 64 + 256)


def test_each_method_needs_memory_beside_the_weights():
    needs = {name: needs_of(SHAPES, library.recipe(name), 1000) for name in ("nvfp4", "awq-lite", "svdquant")}
    assert needs["nvfp4"].memory > needs["nvfp4"].weights
    assert needs["nvfp4"].working < needs["awq-lite"].working < needs["svdquant"].working
