"""LoRA variants of PEFT: those that change the delta, and those that only change training."""

from types import SimpleNamespace

import pytest
import torch

from factories_peft import (
    TinyNet,
    distance,
    noise,
    numpy,
    one_layer,
    read_arrays,
    save_and_reload,
    scaled,
)
from gradience.errors import AdapterConfigError, AdapterError, UnsupportedAdapterError

peft = pytest.importorskip("peft")
variants = pytest.importorskip("peft.tuners.lora.variants")


@pytest.mark.parametrize("side", ["a", "b"])
def test_bdlora_has_one_block_diagonal_factor(tmp_path, side):
    blocks = peft.BdLoraConfig(**{f"target_modules_bd_{side}": ["lin"]}, nblocks=2)
    config = peft.LoraConfig(r=4, lora_alpha=6, target_modules=["lin"], use_bdlora=blocks)
    saved = save_and_reload(TinyNet, config, tmp_path)
    layer = one_layer(saved.parts(), "lin")
    module = saved.reloaded.base_model.model.lin
    wanted = numpy(variants.BdLoraLinearVariant._get_bdlora_delta_weight(module, "default"))
    assert distance(scaled(layer), wanted) < 1e-6
    assert layer.rank == layer.configured_rank == 4


def test_kasa_weighs_the_directions_and_says_that_the_base_moved(tmp_path):
    config = peft.LoraConfig(
        r=4, lora_alpha=6, target_modules=["lin"], kasa_config=peft.KasaConfig()
    )
    saved = save_and_reload(TinyNet, config, tmp_path)
    parts = saved.parts()
    module = saved.reloaded.base_model.model.lin
    wanted = numpy(variants.KasaLinearVariant._get_delta_weight(module, "default"))
    assert distance(scaled(one_layer(parts, "lin")), wanted) < 1e-6
    assert [f.code for f in parts.findings] == ["init_changes_base"]


def test_qalora_sees_the_means_of_groups():
    # PEFT applies QA-LoRA to GPTQ layers only; its forward needs no more of the layer than this.
    a, b = noise(3, 4), noise(5, 3)
    module = SimpleNamespace(
        training=False,
        in_features=8,
        scaling={"default": 2.0},
        qalora_group_size={"default": 2},
        lora_dropout={"default": torch.nn.Identity()},
        lora_A={"default": SimpleNamespace(weight=torch.tensor(a))},
        lora_B={"default": SimpleNamespace(weight=torch.tensor(b))},
    )
    wanted = variants.QALoraLinearVariant.forward(
        module, active_adapter="default", x=torch.eye(8), result=torch.zeros(8, 5)
    )
    config = {
        "peft_type": "LORA",
        "r": 3,
        "lora_alpha": 6,
        "use_qalora": True,
        "qalora_group_size": 2,
    }
    arrays = {"base_model.model.x.lora_A.weight": a, "base_model.model.x.lora_B.weight": b}
    layer = read_arrays(arrays, config).layers[0]
    assert distance(scaled(layer), numpy(wanted).T) < 1e-6


@pytest.mark.parametrize(
    ("options", "codes"),
    [
        ({"init_lora_weights": "olora"}, ["init_changes_base"]),
        ({"init_lora_weights": "pissa_niter_2"}, ["init_changes_base"]),
        ({"init_lora_weights": "mica"}, []),
        ({"init_lora_weights": "orthogonal"}, []),
        ({"alora_invocation_tokens": [1, 2], "task_type": "CAUSAL_LM"}, ["delta_depends_on_input"]),
        ({"velora_config": {"num_groups": 2}}, []),
        ({"monteclora_config": {"num_samples": 2}}, []),
    ],
    ids=["olora", "pissa", "mica", "orthogonal", "alora", "velora", "monteclora"],
)
def test_variants_of_training_leave_the_delta_as_it_is(tmp_path, options, codes):
    plain = torch.nn.Linear(12, 18)

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.lin = torch.nn.Linear(12, 18)
            self.lin.load_state_dict(plain.state_dict())

        def forward(self, x):
            return self.lin(x)

        def prepare_inputs_for_generation(self, *args, **kwargs):
            raise NotImplementedError

    config = peft.LoraConfig(r=4, lora_alpha=6, target_modules=["lin"], **options)
    saved = save_and_reload(Net, config, tmp_path)
    parts = saved.parts()
    assert distance(scaled(one_layer(parts, "lin")), saved.peft_delta("lin")) < 1e-6
    assert [f.code for f in parts.findings] == codes
    assert parts.unread == ()


def factors(out=5, rank=3, wide=4):
    return {
        "base_model.model.x.lora_A.weight": noise(rank, wide),
        "base_model.model.x.lora_B.weight": noise(out, rank),
    }


def test_an_arrow_router_is_refused_by_name():
    config = {"peft_type": "LORA", "r": 3, "lora_alpha": 3, "arrow_config": {"top_k": 2}}
    with pytest.raises(UnsupportedAdapterError, match="arrow_config"):
        read_arrays(factors(), config)


def test_layer_replication_is_reported():
    config = {"peft_type": "LORA", "r": 3, "lora_alpha": 3, "layer_replication": [[0, 2], [1, 3]]}
    assert [f.code for f in read_arrays(factors(), config).findings] == ["layers_replicated"]


@pytest.mark.parametrize("settings", [{"nblocks": 0}, {"nblocks": "2"}])
def test_a_block_count_that_is_none_is_an_error(settings):
    config = {
        "peft_type": "LORA",
        "r": 3,
        "lora_alpha": 3,
        "use_bdlora": {"target_modules_bd_a": ["x"], **settings},
    }
    with pytest.raises(AdapterConfigError, match="nblocks"):
        read_arrays(factors(), config)


def test_blocks_that_do_not_divide_are_an_error():
    config = {
        "peft_type": "LORA",
        "r": 3,
        "lora_alpha": 3,
        "use_bdlora": {"target_modules_bd_a": ["x"], "nblocks": 2},
    }
    with pytest.raises(AdapterError, match="x: the ranks disagree"):
        read_arrays(factors(), config)
