from __future__ import annotations

import json
import sys
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from search.encoders import Encoder, load_encoder, tuning
from search.encoders.blueprints import open_clip
from search.encoders.hub import model_info
from search.errors import DimensionError, ModelError

TEXTS = ["a photo of a cat", "two dogs on a beach at sunset", ""]
SIGLIP = {
    "embed_dim": 32,
    "init_logit_bias": -10,
    "custom_text": True,
    "vision_cfg": {
        "image_size": 160,
        "timm_model_name": "test_vit",
        "timm_pool": "avg",
        "timm_proj": "linear",
    },
    "text_cfg": {
        "context_length": 16,
        "vocab_size": 64,
        "hf_tokenizer_name": "somebody/else",
        "tokenizer_kwargs": {"clean": "canonicalize"},
        "width": 32,
        "heads": 2,
        "layers": 2,
        "no_causal_mask": True,
        "proj_bias": True,
        "pool_type": "last",
        "norm_kwargs": {"eps": 1e-6},
        "act_kwargs": {"approximate": "tanh"},
    },
}
SIGLIP_PREPROCESS = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "squash"}


def save_tokenizer(folder: Path) -> None:
    """A word-level tokenizer that ends texts with </s>, in transformers' files."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = ["<pad>", "</s>", "<unk>", "a", "photo", "of", "cat", "two", "dogs", "on"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)


def save_folder(folder: Path, config: dict, preprocess: dict) -> torch.nn.Module:
    """Write an open_clip folder with random weights; return the model they are of."""
    folder.mkdir(exist_ok=True)
    described = {"model_cfg": config, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(described))
    torch.manual_seed(0)
    model = open_clip.create_model(f"local-dir:{folder}", load_weights=False, pretrained_text=False).eval()
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return model


@pytest.fixture(scope="module")
def siglip(files: Path) -> tuple[Encoder, torch.nn.Module, Path]:
    folder = files / "siglip"
    model = save_folder(folder, SIGLIP, SIGLIP_PREPROCESS)
    save_tokenizer(folder)
    return load_encoder(f"dir:{folder}", device="cpu", precision="float32"), model, folder


@pytest.mark.parametrize(
    "arch",
    [
        pytest.param("ViT-B-32"),
        *(pytest.param(arch, marks=pytest.mark.slow) for arch in ("RN50", "MobileCLIP2-S0")),
    ],
)
def test_vectors_equal_open_clips(
    arch: str, files: Path, pictures: list[Image.Image], assert_equal_vectors: Callable[..., None]
) -> None:
    torch.manual_seed(0)
    model = open_clip.create_model(arch, load_weights=False).eval().half().float()
    file = files / f"{arch}.safetensors"
    state = model.state_dict()
    save_file({n: t.half() if t.is_floating_point() else t for n, t in state.items()}, file)
    encoder = load_encoder(f"{arch}/{file}", device="cpu", precision="float32")
    rounded = load_encoder(f"{arch}/{file}", device="cpu", precision="bfloat16")
    file.unlink()
    assert encoder.name == f"{arch}/{file}"
    assert_equal_vectors(encoder, model, open_clip.get_tokenizer(arch), pictures, TEXTS)
    assert rounded.fingerprint == encoder.fingerprint
    images = np.stack([encoder.preprocess(image) for image in pictures])
    for half, full in (
        (rounded.encode_images(images), encoder.encode_images(images)),
        (rounded.encode_texts(TEXTS), encoder.encode_texts(TEXTS)),
    ):
        assert half.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(half, axis=1), 1, atol=1e-6)  # normalised in float32
        assert (half * full).sum(axis=1).min() >= 0.999  # what bfloat16's eight bits leave


def test_vectors_of_a_siglip_folder_equal_open_clips(
    siglip: tuple[Encoder, torch.nn.Module, Path],
    pictures: list[Image.Image],
    assert_equal_vectors: Callable[..., None],
) -> None:
    encoder, model, folder = siglip
    assert encoder.logit_bias == -10
    assert encoder.context_length == 16
    assert encoder.preprocessing.resize_mode == "squash"
    assert_equal_vectors(encoder, model, open_clip.get_tokenizer(f"local-dir:{folder}"), pictures, TEXTS)


@pytest.mark.slow
def test_vectors_of_a_full_siglip_equal_open_clips(
    files: Path, pictures: list[Image.Image], assert_equal_vectors: Callable[..., None]
) -> None:
    folder = files / "ViT-B-16-SigLIP"
    model = save_folder(folder, open_clip.get_model_config("ViT-B-16-SigLIP"), SIGLIP_PREPROCESS)
    save_tokenizer(folder)  # the vocabulary is somebody else's; which rows it picks makes no difference here
    encoder = load_encoder(f"dir:{folder}", device="cpu", precision="float32")
    assert_equal_vectors(encoder, model, open_clip.get_tokenizer(f"local-dir:{folder}"), pictures, TEXTS)


def test_tokens_of_a_hugging_face_tokenizer_are_counted_before_the_cut(
    siglip: tuple[Encoder, torch.nn.Module, Path],
) -> None:
    assert siglip[0].count_tokens(["", "A photo of a cat!", "dogs " * 30]) == [1, 6, 31]


def test_the_builtin_model_says_who_it_is(builtin: Encoder) -> None:
    info = model_info(builtin)
    assert (info["name"], info["source"]) == ("builtin", "builtin")
    assert (info["dim"], info["context_length"], info["parameters"]) == (256, 77, 19_974_305)
    assert info["logit_scale"] == pytest.approx(34.897, abs=0.001)
    assert info["logit_bias"] is None
    assert info["preprocessing"]["size"] == [96, 96]
    assert info["weights_bytes"] == 40_237_996
    assert len(info["fingerprint"]) == 64
    json.dumps(info)


def test_known_answers_of_the_builtin_model(builtin: Encoder, gradient_picture: Image.Image) -> None:
    text = builtin.encode_texts(["a photo of a cat"])[0, :5]
    image = builtin.encode_images(builtin.preprocess(gradient_picture)[None])[0, :5]
    # atol=1e-4: fp32 reduction order differs between machines; another preprocessing moves these by 1e-2
    np.testing.assert_allclose(text, [-0.0434314, -0.1964840, 0.1024900, 0.0639565, -0.1563298], atol=1e-4)
    np.testing.assert_allclose(image, [-0.180334, -0.069384, -0.067286, -0.007777, 0.082063], atol=1e-4)


def test_vectors_are_float32_unit_rows(builtin: Encoder, pictures: list[Image.Image]) -> None:
    images = builtin.encode_images(np.stack([builtin.preprocess(picture) for picture in pictures]))
    for vectors in (images, builtin.encode_texts(TEXTS)):
        assert vectors.shape == (3, 256)
        assert vectors.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)  # fp32 rounding


def test_a_batch_equals_its_singles_in_order(builtin: Encoder, pictures: list[Image.Image]) -> None:
    images = np.stack([builtin.preprocess(picture) for picture in pictures])
    singles = np.concatenate([builtin.encode_images(image[None]) for image in images])
    np.testing.assert_allclose(builtin.encode_images(images), singles, atol=1e-5)  # fp32 reduction order
    words = np.concatenate([builtin.encode_texts([text]) for text in TEXTS])
    np.testing.assert_allclose(builtin.encode_texts(TEXTS), words, atol=1e-5)


def test_more_texts_than_one_pass_takes_keep_their_order(builtin: Encoder) -> None:
    texts = [f"photo number {i}" for i in range(300)]
    vectors = builtin.encode_texts(texts)
    np.testing.assert_allclose(
        vectors[[0, 255, 256, 299]], builtin.encode_texts([texts[i] for i in (0, 255, 256, 299)]), atol=1e-5
    )


def test_a_batch_in_bfloat16_equals_its_singles(pictures: list[Image.Image]) -> None:
    encoder = load_encoder("builtin", device="cpu", precision="bfloat16")
    images = np.stack([encoder.preprocess(picture) for picture in pictures])
    singles = np.concatenate([encoder.encode_images(image[None]) for image in images])
    assert (encoder.encode_images(images) * singles).sum(axis=1).min() >= 0.999  # bfloat16's own noise
    words = np.concatenate([encoder.encode_texts([text]) for text in TEXTS])
    assert (encoder.encode_texts(TEXTS) * words).sum(axis=1).min() >= 0.999


def test_the_temperature_is_exact_in_every_precision(builtin: Encoder) -> None:
    assert load_encoder("builtin", precision="bfloat16").logit_scale == builtin.logit_scale


def test_an_unknown_precision_is_an_error_before_anything_is_read() -> None:
    with pytest.raises(ModelError, match="no precision 'int4'"):
        load_encoder("hf-hub:nobody/nothing", precision="int4", offline=True)


@pytest.mark.parametrize(
    ("flags", "bits"),
    [("fpu amx_bf16", True), ("avx2 avx512_bf16", True), ("fp asimd bf16", True), ("avx512f", False)],
)
def test_bfloat16_is_for_processors_that_multiply_it(
    flags: str, bits: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpuinfo").write_text(f"flags : {flags}\n")
    monkeypatch.setattr(tuning, "_CPU_FLAGS", tmp_path / "cpuinfo")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": False}, raising=False)
    expected = torch.bfloat16 if bits else torch.float32
    assert tuning.choose_precision(torch.device("cpu")) == expected
    assert tuning.choose_precision(torch.device("cpu"), "float32") == torch.float32


def test_the_last_block_of_a_class_token_tower_computes_one_token(
    random_clip: Callable[..., torch.nn.Module],
) -> None:
    model = random_clip()
    images = torch.rand(3, 3, 48, 48)
    with torch.inference_mode():
        expected = model.visual(images)
        tower = tuning.image_tower(deepcopy(model.visual))
        assert tower.transformer(tower._embeds(images)).shape[1] == 1
        torch.testing.assert_close(tower(images), expected, atol=1e-5, rtol=1e-4)  # fp32 reduction order


def test_a_causal_text_is_cut_behind_the_longest_end_in_its_batch(builtin: Encoder) -> None:
    """Exact against all 77 positions, in whatever order long and short texts come."""
    texts = ["a cat", "word " * 100, "", "two dogs on a beach", "<end_of_text> behind the end"]
    tokens = builtin._tokenizer(texts)
    with torch.inference_mode():
        whole = builtin._model.encode_text(tokens)
    expected = torch.nn.functional.normalize(whole, dim=-1).numpy()
    np.testing.assert_allclose(builtin.encode_texts(texts), expected, atol=1e-5)  # fp32 reduction order
    assert [part.shape for _, part in builtin._text_batches(tokens[[0, 2]])] == [(2, 4)]


def test_nothing_in_gives_no_rows(builtin: Encoder) -> None:
    assert builtin.encode_texts([]).shape == (0, 256)
    assert builtin.encode_images(np.empty((0, 96, 96, 3), np.uint8)).shape == (0, 256)
    assert builtin.count_tokens([]) == []


def test_read_only_and_strided_batches_are_taken(builtin: Encoder, pictures: list[Image.Image]) -> None:
    images = np.stack([builtin.preprocess(picture) for picture in pictures])
    expected = builtin.encode_images(images[::2].copy())
    images.flags.writeable = False
    np.testing.assert_allclose(builtin.encode_images(images[::2]), expected, atol=1e-6)  # fp32 reduction order


@pytest.mark.parametrize(
    ("shape", "dtype"), [((1, 95, 96, 3), "uint8"), ((96, 96, 3), "uint8"), ((1, 96, 96, 3), "float32")]
)
def test_images_of_another_size_or_type_are_refused(builtin: Encoder, shape: tuple[int, ...], dtype: str) -> None:
    with pytest.raises(DimensionError, match="builtin takes"):
        builtin.encode_images(np.zeros(shape, dtype))


def test_tokens_are_counted_before_the_cut(builtin: Encoder) -> None:
    assert builtin.count_tokens(["", "a photo of a cat", "dog " * 100]) == [2, 7, 102]


def test_an_unusable_device_is_an_error_before_anything_is_read() -> None:
    with pytest.raises(ModelError, match="device 'nonsense' can't be used"):
        load_encoder("builtin", device="nonsense")


def test_the_fingerprint_follows_weights_activation_and_preprocessing(files: Path) -> None:
    prints = set()
    tiny = {
        "embed_dim": 8,
        "vision_cfg": {"layers": 1, "width": 64, "patch_size": 16, "image_size": 32},
        "text_cfg": {"width": 64, "heads": 1, "layers": 1},
    }
    variants = [
        (tiny, {}),
        ({**tiny, "quick_gelu": True}, {}),
        (tiny, {"resize_mode": "squash"}),
        ({**tiny, "init_logit_scale": 1.0}, {}),
    ]
    for number, (config, preprocess) in enumerate(variants):
        folder = files / f"fingerprint-{number}"
        save_folder(folder, deepcopy(config), preprocess)
        prints.add(load_encoder(f"dir:{folder}", device="cpu").fingerprint)
    again = load_encoder(f"dir:{files}/fingerprint-0", device="cpu").fingerprint
    assert len(prints) == 4
    assert again in prints


def test_a_tag_trained_with_quickgelu_gets_it_whatever_the_architecture_says(
    tmp_path: Path,
) -> None:
    """open_clip only warns here and computes other vectors than the weights were trained for."""
    from search.encoders import blueprints
    from search.encoders.hub import Fetcher

    class Here(Fetcher):
        def file(self, repo: str, *candidates: str) -> Path:
            assert (repo, candidates[0]) == (
                "timm/vit_base_patch32_clip_224.openai",
                "open_clip_model.safetensors",
            )
            return tmp_path / candidates[0]

    blueprint = blueprints._open_clip("ViT-B-32/openai", Here("ViT-B-32/openai"))
    plain = blueprints._open_clip("ViT-B-32-quickgelu/openai", Here("ViT-B-32-quickgelu/openai"))
    assert blueprint.config == plain.config
    assert blueprint.config["quick_gelu"] is True
    assert open_clip.get_model_config("ViT-B-32").get("quick_gelu") is None


def test_a_tag_not_trained_with_quickgelu_names_the_right_architecture() -> None:
    with pytest.raises(ModelError, match=r"its name is ViT-B-32/laion2b_s34b_b79k"):
        load_encoder("ViT-B-32-quickgelu/laion2b_s34b_b79k", offline=True)


def test_a_model_that_needs_transformers_says_how_to_get_it(
    siglip: tuple[Encoder, torch.nn.Module, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ModelError, match=r"pip install 'search\[huggingface\]'"):
        load_encoder(f"dir:{siglip[2]}")


def test_a_folder_may_not_ask_for_its_own_tokenizer_code(tmp_path: Path) -> None:
    config = deepcopy(SIGLIP)
    config["text_cfg"]["tokenizer_kwargs"] = {"trust_remote_code": True}
    folder = tmp_path / "model"
    save_folder(folder, config, {})
    with pytest.raises(ModelError, match="trust_remote_code"):
        load_encoder(f"dir:{folder}")


def test_a_folder_without_its_tokenizer_is_an_error_and_not_a_download(tmp_path: Path) -> None:
    save_folder(tmp_path / "model", deepcopy(SIGLIP), {})
    with pytest.raises(ModelError, match="tokenizer of dir:") as caught:
        load_encoder(f"dir:{tmp_path / 'model'}")
    assert "\n" not in str(caught.value)


def test_a_configuration_open_clip_can_not_build_is_one_clear_error(tmp_path: Path) -> None:
    config = deepcopy(SIGLIP)
    config["text_cfg"].pop("hf_tokenizer_name")
    config["vision_cfg"]["timm_model_name"] = "hf-hub:somebody/model"
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    (tmp_path / "open_clip_model.safetensors").touch()
    with pytest.raises(ModelError, match="can't build dir:"):
        load_encoder(f"dir:{tmp_path}")
