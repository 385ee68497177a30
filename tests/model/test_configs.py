"""Laws of config.json: every published one opens, and what would be another model is refused."""

import json

import pytest
from transformers import AutoConfig

from clozeworks.core.errors import UserError
from clozeworks.model.config import EncoderConfig
from clozeworks.model.families import FAMILIES, sized

NAMES = FAMILIES.names()
PUBLIC = [name for name in NAMES if FAMILIES.get(name).architectures]
HOUSEKEEPING = {
    "_name_or_path": "ada/tiny",
    "architectures": ["BertForMaskedLM"],
    "attn_implementation": "sdpa",
    "bos_token_id": 0,
    "classifier_dropout": None,
    "dtype": "float32",
    "eos_token_id": 2,
    "finetuning_task": "sst-2",
    "gradient_checkpointing": False,
    "id2label": {"0": "no", "1": "yes"},
    "label2id": {"no": 0, "yes": 1},
    "language": "zh",
    "max_length": 20,
    "model_max_length": 512,
    "name": "Bert",
    "num_labels": 2,
    "output_attentions": False,
    "output_past": True,
    "output_hidden_states": True,
    "position_embedding_type": "absolute",
    "problem_type": "regression",
    "pruned_heads": {},
    "something_new": {"of": ["tomorrow"]},
    "task_specific_params": None,
    "torch_dtype": "float16",
    "torchscript": False,
    "transformers_version": "4.6.0.dev0",
    "use_bfloat16": False,
    "use_cache": True,
}
"""What published configs hold beside what makes the model."""
PUBLISHED = {
    "bert": {
        "directionality": "bidi",
        "pooler_fc_size": 768,
        "pooler_num_attention_heads": 12,
        "pooler_num_fc_layers": 3,
        "pooler_size_per_head": 128,
        "pooler_type": "first_token_transform",
    },
    "albert": {
        "down_scale_factor": 1,
        "gap_size": 0,
        "layers_to_keep": [],
        "net_structure_type": 0,
        "num_memory_blocks": 0,
    },
    "distilbert": {"sinusoidal_pos_embds": True, "tie_weights_": True},
    "electra": {"summary_last_dropout": 0.1, "summary_use_proj": True},
    "modernbert": {
        "deterministic_flash_attn": False,
        "global_attn_every_n_layers": 3,
        "global_rope_theta": 160000.0,
        "gradient_checkpointing": False,
        "local_rope_theta": 10000.0,
        "reference_compile": None,
        "repad_logits_with_grad": False,
        "rope_scaling": None,
        "sparse_prediction": False,
    },
}
"""And what those of one family do."""


def their_default(name, folder):
    """config.json as transformers writes it for the family's default values."""
    AutoConfig.for_model(FAMILIES.get(name).model_type).save_pretrained(folder)
    return json.loads((folder / "config.json").read_text("utf-8"))


def read(name, values):
    return FAMILIES.get(name)().config(values)


def some(name):
    """A config.json of the family, as we write it."""
    family = FAMILIES.get(name)()
    return family.values(sized(name, next(iter(family.sizes)), 1000))


@pytest.mark.parametrize("name", PUBLIC)
def test_what_transformers_writes_by_default_opens(name, tmp_path):
    values = their_default(name, tmp_path)
    config = read(name, values)
    theirs = AutoConfig.from_pretrained(tmp_path)
    assert config.num_layers == theirs.num_hidden_layers
    assert config.hidden_size == theirs.hidden_size
    assert config.num_heads == theirs.num_attention_heads
    assert read(name, {**values, **HOUSEKEEPING, **PUBLISHED.get(name, {})}) == config


@pytest.mark.parametrize("name", PUBLIC)
def test_what_a_config_leaves_out_is_as_transformers_takes_it(name, tmp_path):
    values = their_default(name, tmp_path)
    config = read(name, values).model_copy(update={"pad_id": 0})
    least = {"vocab_size": values["vocab_size"]}
    assert read(name, least).model_copy(update={"pad_id": 0}) == config
    for key in values.keys() - {"vocab_size", "model_type"}:
        without = {k: v for k, v in values.items() if k != key}
        for changed in (without, {**values, key: None}):
            assert read(name, changed).model_copy(update={"pad_id": 0}) == config


@pytest.mark.parametrize("name", NAMES)
def test_a_model_without_a_vocabulary_is_refused(name):
    with pytest.raises(UserError, match="'vocab_size' is missing"):
        read(name, {key: value for key, value in some(name).items() if key != "vocab_size"})


@pytest.mark.parametrize("name", ["lstm", "transformer"])
def test_our_own_folders_say_their_shape(name):
    values = some(name)
    for key in ("hidden_size", "num_layers", "num_heads", "inner_size"):
        with pytest.raises(UserError, match=f"'{key}' is missing"):
            read(name, {k: v for k, v in values.items() if k != key})
    for key in EncoderConfig.model_fields:
        if key not in ("vocab_size", "hidden_size", "num_layers", "num_heads", "inner_size"):
            assert read(name, {k: v for k, v in values.items() if k != key}) == read(name, values)


ANOTHER = {
    "a decoder": {"is_decoder": True},
    "one direction": {"directionality": "uni"},
    "left to right": {"use_bidirectional_attention": False},
    "causal": {"is_causal": True},
    "alibi": {"alibi": True},
    "mosaic's alibi": {"alibi_starting_size": 512},
    "relative": {"position_embedding_type": "relative_key"},
    "quantized": {"quantization": {"bits": 4}},
    "quantized by theirs": {"quantization_config": {"quant_method": "gptq"}},
    "compressed": {"compression_config": {"format": "pack-quantized"}},
    "code": {"auto_map": {"AutoModel": "modeling.Other"}},
    "attention from elsewhere": {"_attn_implementation": "kernels/flash"},
    "untied": {"tie_word_embeddings": False},
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("changes", ANOTHER.values(), ids=ANOTHER)
def test_another_model_is_refused_by_every_family(name, changes):
    (key,) = changes
    with pytest.raises(UserError, match=f"config.json: {key} = ") as refusal:
        read(name, {**some(name), **changes})
    assert "\n" not in str(refusal.value)


LOCAL, GLOBAL = "sliding_attention", "full_attention"


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("albert", {"net_structure_type": 1}, "net_structure_type = 1"),
        ("albert", {"gap_size": 1}, "gap_size = 1"),
        ("albert", {"inner_group_num": 10**12}, "group_layers = 1000000000000"),
        ("albert", {"num_hidden_groups": 10**12}, "groups = 1000000000000"),
        ("albert", {"inner_group_num": 500}, "4 layers of 500 each are more than 1,000"),
        ("electra", {"summary_use_proj": False}, "summary_use_proj = False"),
        ("electra", {"summary_type": "mean"}, r"summary_type = 'mean'.*choices: 'first'"),
        ("roberta", {"pad_token_id": "one"}, "pad_token_id = 'one' should be a whole number"),
        ("roberta", {"max_position_embeddings": 2}, "so none is left"),
        ("modernbert", {"layer_types": ["chunked_attention"] * 4}, "did you mean|choices: full_"),
        ("modernbert", {"layer_types": [LOCAL]}, "layer_types should be a list of 4 kinds"),
        ("modernbert", {"layer_types": [GLOBAL] * 5}, "layer_types should be a list of 4 kinds"),
        ("modernbert", {"layer_types": 5}, "layer_types should be a list of 4 kinds"),
        ("modernbert", {"layer_types": [3] * 4}, "layer type '3' is not known"),
        ("modernbert", {"num_hidden_layers": 10**12}, "from 1 to 1,000"),
        ("modernbert", {"num_hidden_layers": [4]}, "num_hidden_layers = .4. should be a whole"),
        ("modernbert", {"local_attention": -1}, "local_attention = -1 should be a whole number"),
        ("modernbert", {"local_attention": "abc"}, "local_attention = 'abc' should be a whole"),
        ("modernbert", {"local_attention": 10**12}, "from 2 to 10,000,000"),
        ("modernbert", {"partial_rotary_factor": 0.5}, "partial_rotary_factor = 0.5"),
        ("modernbert", {"rope_parameters": [1]}, "rope_parameters should be a JSON object"),
        ("modernbert", {"rope_parameters": {GLOBAL: 3}}, f"for {GLOBAL} should be a JSON object"),
        ("modernbert", {"rope_parameters": {"rope_theta": 1e4}}, "for 'rope_theta' is not known"),
        ("modernbert", {"rope_parameters": {LOCAL: {"rope_theta": "abc"}}}, "local_theta = 'abc'"),
        ("modernbert", {"rope_parameters": {LOCAL: {"rope_theta": 0}}}, "local_theta = 0"),
        ("modernbert", {"rope_parameters": {GLOBAL: {"rope_type": "yarn"}}}, "rope_type = 'yarn'"),
        (
            "modernbert",
            {"rope_parameters": {GLOBAL: {"partial_rotary_factor": 0.5}}},
            "partial_rotary_factor = 0.5",
        ),
        ("modernbert", {"decoder_bias": False}, "decoder_bias = False"),
    ],
    ids=str,
)
def test_another_model_is_refused_by_its_family(name, changes, message):
    with pytest.raises(UserError, match=message) as refusal:
        read(name, {**some(name), **changes})
    assert "\n" not in str(refusal.value)


BROKEN = [[4], {"a": 1}, "many", -1, 10**12, 10**400, float("nan"), float("inf"), True, ""]


@pytest.mark.parametrize("name", NAMES)
def test_any_value_is_read_or_refused_in_one_line(name):
    values = some(name)
    for key in values:
        for value in BROKEN:
            try:
                config = read(name, {**values, key: value})
            except UserError as error:
                assert "\n" not in str(error)
            else:
                assert len(config.order) <= 1000


def test_distilberts_numbers_go_by_two_names():
    values = {"vocab_size": 100, "hidden_size": 96, "num_hidden_layers": 3}
    config = read("distilbert", {**values, "num_attention_heads": 6})
    assert (config.hidden_size, config.num_layers, config.num_heads) == (96, 3, 6)
    assert read("distilbert", {**values, "dim": 48, "n_heads": 6}).hidden_size == 48
