"""Both forms of config.json."""

from deckard_deploy.weights import gemma4_config
from tests.support import checkpoint_shapes as real_shapes


def test_old_and_new_config_forms_give_same_layers():
    old = real_shapes.config(real_shapes.BIG)["text_config"]
    dropped = ("global_head_dim", "num_global_key_value_heads")
    full = [number for number, kind in enumerate(old["layer_types"]) if kind == "full_attention"]
    exceptions = {f"{number:02}": {"head_dim": 512, "num_key_value_heads": 4} for number in full}
    new = {key: value for key, value in old.items() if key not in dropped} | {"per_layer_config": exceptions}
    assert gemma4_config.layers(new) == gemma4_config.layers(old)
    assert gemma4_config.layers(old)[5] == gemma4_config.Layer("full_attention", 32, 4, 512)
