from __future__ import annotations

import pytest
import torch

from search.encoders.blueprints import open_clip
from search.errors import ModelError, UsageError
from search.train.models import chosen, prepare

TEXT = {"context_length": 8, "vocab_size": 50, "width": 32, "heads": 2, "layers": 3}
VISION = {"image_size": 16, "layers": 3, "width": 32, "patch_size": 8, "head_width": 16}
SCALE = {"logit_scale"}


@pytest.fixture(scope="module")
def clip():
    return open_clip.CLIP(embed_dim=16, vision_cfg=VISION, text_cfg=TEXT)


@pytest.fixture(scope="module")
def custom():
    """Text in a tower of its own, images by a network without transformer blocks."""
    vision = {"layers": [1, 1, 1, 1], "width": 8, "image_size": 32, "patch_size": None}
    return open_clip.CustomTextCLIP(embed_dim=16, vision_cfg=vision, text_cfg=TEXT)


def names(model):
    return {name for name, _ in model.named_parameters()}


def test_full_trains_everything(clip):
    assert set(chosen(clip, "full", 1)) == names(clip)


def test_heads_are_the_projections(clip, custom):
    assert set(chosen(clip, "heads", 1)) == {"visual.proj", "text_projection"} | SCALE
    pooled = {"visual.attnpool.c_proj.weight", "visual.attnpool.c_proj.bias"}
    assert set(chosen(custom, "heads", 1)) == pooled | {"text.text_projection"} | SCALE


def test_last_layers_are_so_many_blocks_and_what_follows_them(clip):
    found = set(chosen(clip, "last", 2))
    blocks = {name for name in names(clip) if "resblocks.1." in name or "resblocks.2." in name}
    norms = {f"{norm}.{part}" for norm in ("visual.ln_post", "ln_final") for part in ("weight", "bias")}
    assert found == blocks | norms | {"visual.proj", "text_projection"} | SCALE


def test_last_layers_of_a_network_without_blocks_are_its_parts(custom):
    found = set(chosen(custom, "last", 1))
    assert {name.split(".")[1] for name in found if name.startswith("visual.")} == {"layer4", "attnpool"}
    assert {name.split(".")[3] for name in found if name.startswith("text.transformer")} == {"2"}


def test_text_leaves_the_image_tower_locked(clip):
    assert set(chosen(clip, "text", 1)) == {name for name in names(clip) if not name.startswith("visual.")}


def test_images_leaves_the_text_tower_locked(clip, recipe):
    assert set(chosen(clip, "images", 1)) == {name for name in names(clip) if name.startswith("visual.")} | SCALE
    subject = prepare(recipe(model="builtin", tune="images"))
    assert (subject.trains_images, subject.trains_texts) == (True, False)


def test_a_tower_with_learnt_positions_trains_on_no_other_size(recipe):
    with pytest.raises(UsageError, match="no photos of 64 x 64 pixels"):
        prepare(recipe(train_size=64))
    prepare(recipe(train_size=32))
    prepare(recipe(model="builtin", train_size=64))


def test_more_layers_than_there_are_is_an_error(clip):
    with pytest.raises(UsageError, match="a tower has 3 layers, not 4"):
        list(chosen(clip, "last", 4))


def test_locked_towers_stay_as_in_use_while_the_other_trains(recipe):
    subject = prepare(recipe(model="builtin", tune="text"))
    subject.training()
    assert not any(module.training for module in subject.model.visual.modules())
    assert subject.model.transformer.training
    assert (subject.trains_images, subject.trains_texts) == (False, True)


def test_sizes_change_an_architecture(recipe):
    sizes = {"vision_cfg.layers": 1, "embed_dim": 8}
    subject = prepare(recipe(sizes=sizes))
    assert len(subject.model.visual.transformer.resblocks) == 1
    assert subject.config["embed_dim"] == 8 == subject.model.visual.proj.shape[1]
    with pytest.raises(UsageError, match=r"no 'vision\.layers'"):
        prepare(recipe(sizes={"vision.layers": 1}))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("vision_cfg.patch_size", 64, "takes no photos of 32 x 32 pixels: .*Kernel size"),
        ("text_cfg.vocab_size", 100, "takes no texts: index out of range"),
        ("vision_cfg.layers", 0, "can't tell photos of 32 x 32 pixels apart"),
        ("text_cfg.context_length", 2, "can't tell texts apart"),
    ],
)
def test_sizes_with_which_nothing_can_be_learnt_are_refused_before_a_step(recipe, name, value, message):
    with pytest.raises(UsageError, match=message) as refused:
        prepare(recipe(sizes={name: value}))
    assert "sizes of its architecture" in refused.value.hint


def test_a_name_that_is_no_architecture_is_an_error(recipe, data):
    with pytest.raises(ModelError, match="did you mean ViT-B-32"):
        prepare(recipe(architecture="ViT-B-33", model=""))


def test_random_weights_follow_torchs_seed(recipe):
    drawn = []
    for seed in (1, 1, 2):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            drawn.append(prepare(recipe()).model.visual.proj.detach())
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert drawn[0].abs().min() > 0


def test_the_loss_decides_whether_there_is_a_bias(recipe, tiny_model):
    subject = prepare(recipe(loss="sigmoid"))
    assert (subject.model.logit_bias.item(), subject.config["init_logit_bias"]) == (-10, -10)
    assert subject.model.logit_scale.exp().item() == pytest.approx(10)
    assert "logit_bias" in subject.trained
    assert "logit_bias" not in prepare(recipe(model=tiny_model)).model.state_dict()


def test_short_texts_of_a_causal_tower_are_cut_behind_the_longest(recipe):
    subject = prepare(recipe())
    tokens = subject.tokens(["a dog", "a brown dog on a wall"])
    assert tokens.shape == (2, 8)
    encode = subject.encoders(torch.device("cpu"), half=False)[1]
    whole = subject.model.encode_text(subject.tokenizer(["a dog", "a brown dog on a wall"]), normalize=True)
    torch.testing.assert_close(encode(tokens), whole, rtol=1e-5, atol=1e-6)  # float32: sums over fewer positions


def test_a_quantised_model_is_not_trained(recipe):
    with pytest.raises(ModelError, match="train builtin"):
        prepare(recipe(model="builtin+int8"))
