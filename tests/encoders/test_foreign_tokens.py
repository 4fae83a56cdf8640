"""Tokenizers of Hugging Face's kind without transformers: the ids that open_clip.HFTokenizer gives."""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from search import Library
from search.encoders import foreign_tokens, load_encoder, recipes
from search.encoders.openclip import open_clip

transformers = pytest.importorskip("transformers")

WORDS = [
    *("the", "dog", "photo", "of", "a", "red", "car", "in", "snow", "mountain", "lake", "old", "town", "café"),
    *("Zürich", "собака", "日本語", "写真", "don't", "it's", "42", "!"),
]
PIECES = [
    *(*WORDS, " ", "  ", "\n", "_", "-", ".", "&amp;", "É", "ß", "🎉", "👨‍👩‍👧", "\x00", "\u200d"),
    *("</s>", "[SEP]", "<pad>", "<eos>", "qzx"),
]
CONTEXT = 16


def corpus() -> list[str]:
    draw = random.Random(3)
    return [" ".join(draw.choices(WORDS, k=8)) for _ in range(400)]


def unigram() -> tuple[Tokenizer, dict[str, str]]:
    """T5's kind, which SigLIP has: sentencepiece's unigrams, an end and no beginning."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.Nmt(), normalizers.NFKC()])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(vocab_size=300, special_tokens=special, unk_token="<unk>")
    tokenizer.train_from_iterator(corpus(), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return tokenizer, {"pad_token": "</s>", "eos_token": "</s>", "unk_token": "<unk>"}


def bytes_bpe() -> tuple[Tokenizer, dict[str, str]]:
    """Gemma's kind, which SigLIP2 has: pairs, single bytes where there is none, spaces as characters."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    special = ["<pad>", "<eos>", "<bos>", "<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokenizer.train_from_iterator(corpus(), trainers.BpeTrainer(vocab_size=500, special_tokens=special))
    tokenizer.decoder = decoders.ByteFallback()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A <eos>", special_tokens=[("<eos>", 1)])
    return tokenizer, {"pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<bos>", "unk_token": "<unk>"}


def wordpiece() -> tuple[Tokenizer, dict[str, str]]:
    """BERT's kind, which CLIPA has."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    tokenizer.train_from_iterator(corpus(), trainers.WordPieceTrainer(vocab_size=300, special_tokens=special))
    ends = [("[CLS]", 2), ("[SEP]", 3)]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    names = ("pad", "unk", "cls", "sep")
    return tokenizer, {f"{name}_token": f"[{name.upper()}]" for name in names}


def roberta() -> tuple[Tokenizer, dict[str, str]]:
    """XLM-R's kind: sentencepiece's unigrams between a beginning and an end."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.Nmt(), normalizers.NFKC()])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(vocab_size=300, special_tokens=special, unk_token="<unk>")
    tokenizer.train_from_iterator(corpus(), trainer)
    ends = [("<s>", 0), ("</s>", 2)]
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=ends)
    names = {"bos": "<s>", "cls": "<s>", "eos": "</s>", "sep": "</s>", "pad": "<pad>", "unk": "<unk>"}
    return tokenizer, {f"{name}_token": token for name, token in names.items()}


KINDS = {"unigram": unigram, "bytes": bytes_bpe, "wordpiece": wordpiece, "roberta": roberta}


@pytest.fixture
def save_tokenizer(tmp_path: Path) -> Callable[..., Path]:
    """Train a tokenizer and save it as transformers does."""

    def make(kind: str, **options: Any) -> Path:
        tokenizer, special = KINDS[kind]()
        fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special, **options)
        folder = tmp_path / kind
        fast.save_pretrained(folder)
        return folder

    return make


@pytest.fixture(scope="module")
def texts() -> list[str]:
    draw = random.Random(9)
    mixed = ["".join(draw.choices(PIECES, k=draw.randrange(30))) for _ in range(600)]
    wide = ["".join(chr(draw.randrange(1, 0xD800)) for _ in range(12)) for _ in range(200)]
    return ["", " ", *mixed, *wide, " ".join(WORDS) * 20]


@pytest.mark.parametrize("clean", ["canonicalize", "lower", "whitespace"])
@pytest.mark.parametrize("kind", KINDS)
def test_ids_are_open_clips(save_tokenizer, texts, tmp_path, kind, clean):
    strip = kind == "wordpiece" and clean == "whitespace"
    theirs = open_clip.tokenizer.HFTokenizer(
        str(save_tokenizer(kind)), context_length=CONTEXT, clean=clean, strip_sep_token=strip
    )
    content, facts = foreign_tokens.describe(theirs, clean)
    (tmp_path / "kept.json").write_text(content, encoding="utf-8")
    ours = foreign_tokens.load(tmp_path / "kept.json", CONTEXT, facts)
    for text, row in zip(texts, theirs(texts).tolist(), strict=True):
        ids = ours(text)
        assert ids + [ours.pad] * (CONTEXT - len(ids)) == row, repr(text)
    full = theirs.tokenizer([theirs.clean_fn(text) for text in texts], truncation=False, verbose=False).input_ids
    assert [ours.count(text) for text in texts] == list(map(len, full))


def test_a_tokenizer_of_another_kind_is_left_to_the_whole_model(save_tokenizer):
    assert foreign_tokens.describe(open_clip.SimpleTokenizer(), "lower") is None
    left = open_clip.tokenizer.HFTokenizer(str(save_tokenizer("unigram", padding_side="left")), context_length=8)
    assert foreign_tokens.describe(left, "whitespace") is None


def test_a_tokenizer_cleaned_otherwise_than_was_said_is_left_to_the_whole_model(save_tokenizer):
    theirs = open_clip.tokenizer.HFTokenizer(str(save_tokenizer("bytes")), context_length=CONTEXT, clean="lower")
    assert foreign_tokens.describe(theirs, "lower") is not None
    assert foreign_tokens.describe(theirs, "canonicalize") is None


@pytest.fixture
def siglip(save_tokenizer) -> str:
    """The name of a tiny SigLIP2."""
    folder = save_tokenizer("bytes")
    config = open_clip.get_model_config("ViT-B-16-SigLIP2")
    config["text_cfg"] |= {"width": 32, "heads": 2, "layers": 2, "vocab_size": 600}
    config |= {"embed_dim": 32, "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16}}
    torch.manual_seed(3)
    plain = {key: value for key, value in config.items() if key != "custom_text"}
    save_file(open_clip.CustomTextCLIP(**plain).state_dict(), folder / "open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    return f"dir:{folder}"


def test_a_siglips_text_half_runs_without_torch_and_transformers(siglip, texts, tmp_path):
    encoder = load_encoder(siglip, device="cpu", precision="float32")
    recipes.save(encoder, tmp_path / "kept")
    half = recipes.open_text(tmp_path / "kept", encoder.fingerprint)
    ours, theirs = half.encode_texts(texts[:60]), encoder.encode_texts(texts[:60])
    assert (ours * theirs).sum(axis=1).min() >= 0.99999
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)  # fp32 reduction order
    assert half.count_tokens(texts) == encoder.count_tokens(texts)
    script = f"""
import sys
from pathlib import Path
from search.encoders import recipes
half = recipes.open_text(Path({str(tmp_path / "kept")!r}), {encoder.fingerprint!r})
assert half.encode_texts(["a dog"]).shape == (1, 32)
assert not {{"torch", "open_clip", "transformers", "huggingface_hub"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_a_tokenizer_whose_file_is_gone_or_changed_is_kept_again(siglip, tmp_path):
    encoder = load_encoder(siglip, device="cpu", precision="float32")
    recipes.save(encoder, tmp_path / "kept")
    [kept] = (tmp_path / "kept").glob("*.tokenizer.json")
    content = kept.read_bytes()
    for damage in (kept.unlink, lambda: kept.write_bytes(content[:-20])):
        damage()
        assert recipes.open_text(tmp_path / "kept", encoder.fingerprint) is None
        recipes.save(encoder, tmp_path / "kept")
        assert kept.read_bytes() == content
        assert recipes.open_text(tmp_path / "kept", encoder.fingerprint) is not None


@pytest.mark.parametrize("how", ["recipe", "whole"])
def test_a_query_in_any_script_by_a_tokenizer_of_many_languages_gets_no_hint(siglip, album, tmp_path, how):
    told: list[str] = []
    with Library.open(tmp_path / "library", model=siglip, offline=True, notify=told.append) as library:
        library.index([album])
        if how == "whole":
            library.model.trust_checkpoint = hashlib.sha256(Path(library.encoder.weights).read_bytes()).hexdigest()
        assert library.answer("海辺の犬 - собака", 3).hits
        long = library.answer(", ".join(f"日本語 собака {number}" for number in range(30)), 3)
    assert len(long.clauses) > 1
    assert not [message for message in told if "another script" in message]


# ---- text halves that are Hugging Face's own

TOWERS = {  # by transformers' model type: what it takes to make a tiny one
    "xlm-roberta": {"hidden_size": 32, "intermediate_size": 64, "pad_token_id": 1, "max_position_embeddings": 80},
    "roberta": {"hidden_size": 32, "intermediate_size": 64, "pad_token_id": 1, "max_position_embeddings": 80},
    "mt5": {"d_model": 32, "d_ff": 64, "d_kv": 16, "pad_token_id": 1},
    "m2m_100": {"d_model": 32, "encoder_ffn_dim": 64, "encoder_attention_heads": 2, "pad_token_id": 1},
}
LAYERS = {"num_hidden_layers": 2, "num_attention_heads": 2, "num_layers": 2, "num_heads": 2, "encoder_layers": 2}


@pytest.fixture
def foreign_model(save_tokenizer) -> Callable[..., str]:
    """Makes a tiny model with a text half of one of those types, and returns its name."""

    def make(kind: str = "xlm-roberta") -> str:
        folder = save_tokenizer("roberta")
        config = transformers.AutoConfig.for_model(kind, vocab_size=400, **TOWERS[kind], **LAYERS)
        config.save_pretrained(folder)
        pooler = "cls_pooler" if kind == "m2m_100" else "mean_pooler"
        text = {"hf_model_name": str(folder), "hf_tokenizer_name": str(folder), "hf_pooler_type": pooler}
        vision = {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16}
        model = {
            "embed_dim": 24,
            "vision_cfg": vision,
            "text_cfg": text | {"hf_proj_type": "mlp", "hf_model_pretrained": False, "context_length": CONTEXT},
        }
        torch.manual_seed(5)
        made = open_clip.CustomTextCLIP(**json.loads(json.dumps(model)))
        state = {name: tensor.contiguous().clone() for name, tensor in made.state_dict().items()}
        save_file(state, folder / "open_clip_model.safetensors")
        (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": model, "preprocess_cfg": {}}))
        return f"dir:{folder}"

    return make


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=() if kind == "xlm-roberta" else pytest.mark.slow) for kind in TOWERS]
)
def test_a_foreign_text_half_is_exported_once_and_agrees_with_torch(foreign_model, texts, tmp_path, kind):
    pytest.importorskip("openvino")
    encoder = load_encoder(foreign_model(kind), device="cpu", precision="float32", runtime="torch")
    told: list[str] = []
    for _ in range(2):
        recipes.save(encoder, tmp_path / "kept", on_export=told.append)
    assert told == [f"the text half of {encoder.name}"]
    half = recipes.open_text(tmp_path / "kept", encoder.fingerprint)
    ours, theirs = half.encode_texts(texts[:150]), encoder.encode_texts(texts[:150])
    assert (ours * theirs).sum(axis=1).min() >= 0.9999
    assert np.abs(ours - theirs).max() < 0.01 * np.ptp(theirs, axis=0).max()  # texts differ by far more
    assert half.count_tokens(texts) == encoder.count_tokens(texts)


def test_an_indexed_library_answers_a_foreign_text_half_without_torch_and_transformers(
    foreign_model, album, tmp_path
):
    pytest.importorskip("openvino")
    told: list[str] = []
    name = foreign_model()
    with Library.open(tmp_path / "library", model=name, offline=True, notify=told.append) as library:
        library.index([album])
    assert [message for message in told if "the text half of" in message] == [
        f"exporting the text half of {name} to a faster runtime; this happens once"
    ]
    script = f"""
import sys
from search import Library
with Library.open({str(tmp_path / "library")!r}, offline=True) as library:
    print(len(library.search("a red car", k=3)))
print(sorted({{"torch", "open_clip", "transformers", "huggingface_hub"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout == "3\n[]\n", done.stderr


@pytest.mark.slow
def test_a_model_whose_image_half_was_exported_has_its_foreign_text_half_exported(foreign_model, tmp_path):
    pytest.importorskip("openvino")
    encoder = load_encoder(foreign_model(), runtime="openvino")
    assert encoder.runtime == "openvino"
    recipes.save(encoder, tmp_path / "kept")
    half = recipes.open_text(tmp_path / "kept", encoder.fingerprint)
    assert (half.encode_texts(WORDS) * encoder.encode_texts(WORDS)).sum(axis=1).min() >= 0.999  # bfloat16


def test_a_replaced_tokenizer_is_noticed(siglip, tmp_path):
    encoder = load_encoder(siglip, device="cpu", runtime="torch")
    recipes.save(encoder, tmp_path / "kept")
    assert recipes.open_text(tmp_path / "kept", encoder.fingerprint) is not None
    tokenizer = encoder.weights.with_name("tokenizer.json")
    tokenizer.write_bytes(tokenizer.read_bytes() + b" ")
    assert recipes.open_text(tmp_path / "kept", encoder.fingerprint) is None


@pytest.mark.slow
def test_a_siglip_whose_image_half_was_exported_keeps_its_tokenizer(siglip, tmp_path):
    pytest.importorskip("openvino")
    encoder = load_encoder(siglip, runtime="openvino")
    recipes.save(encoder, tmp_path / "kept")
    assert recipes.open_text(tmp_path / "kept", encoder.fingerprint) is not None


def test_a_foreign_text_half_that_would_give_other_vectors_is_left_to_torch(foreign_model, tmp_path, monkeypatch):
    openvino = pytest.importorskip("search.encoders.openvino")
    right = openvino.TextTower.__call__
    with monkeypatch.context() as patch:
        patch.setattr(openvino.TextTower, "__call__", lambda self, ids: right(self, ids)[:, ::-1])
        encoder = load_encoder(foreign_model(), device="cpu", runtime="torch")
        recipes.save(encoder, tmp_path / "kept")
    assert recipes.open_text(tmp_path / "kept", encoder.fingerprint) is None
    assert not list((tmp_path / "kept").glob("*.bin"))
    told: list[str] = []
    recipes.save(encoder, tmp_path / "kept", on_export=told.append)
    assert not told


@pytest.mark.slow
def test_a_foreign_text_half_is_exported_once_the_runtime_is_there(foreign_model, tmp_path, monkeypatch):
    pytest.importorskip("openvino")
    encoder = load_encoder(foreign_model(), device="cpu", runtime="torch")
    with monkeypatch.context() as patch:
        patch.setattr(recipes, "_has_runtime", lambda: False)
        recipes.save(encoder, tmp_path / "kept")
        assert recipes.open_text(tmp_path / "kept", encoder.fingerprint) is None
    recipes.save(encoder, tmp_path / "kept")
    assert recipes.open_text(tmp_path / "kept", encoder.fingerprint) is not None
    monkeypatch.setattr(recipes, "_has_runtime", lambda: False)
    assert recipes.open_text(tmp_path / "kept", encoder.fingerprint) is None


@pytest.mark.slow
def test_a_foreign_text_half_whose_files_are_gone_is_exported_again(foreign_model, tmp_path):
    pytest.importorskip("openvino")
    encoder = load_encoder(foreign_model(), device="cpu", runtime="torch")
    recipes.save(encoder, tmp_path / "kept")
    [weights] = (tmp_path / "kept").glob("*.bin")
    weights.unlink()
    assert recipes.open_text(tmp_path / "kept", encoder.fingerprint) is None
    recipes.save(encoder, tmp_path / "kept")
    assert recipes.open_text(tmp_path / "kept", encoder.fingerprint) is not None
