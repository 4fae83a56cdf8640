from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import struct
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from search.encoders import load_encoder
from search.encoders.blueprints import open_clip
from search.encoders.checkpoints import identify, merge_long_positions, read_state_dict
from search.errors import CheckpointError, ModelError

MakeClip = Callable[..., torch.nn.Module]
TEXTS = ["a photo of a cat", "two dogs on a beach at sunset", ""]


class Touch:
    """Pickles to a call of os.system; a file appears if anybody makes it."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.marker}",)


def traced(model: torch.nn.Module, file: Path) -> Path:
    """Save a TorchScript archive as open_clip.model.trace_model does."""
    size = model.visual.image_size  # a pair for some towers
    image = torch.ones((2, 3, *(size if isinstance(size, tuple) else (size, size))))
    text = torch.zeros((2, model.context_length), dtype=torch.int)
    inputs = {"forward": (image, text), "encode_text": (text,), "encode_image": (image,)}
    torch.jit.trace_module(model, inputs=inputs).save(str(file))
    return file


@pytest.fixture(scope="module")
def archive(random_clip: MakeClip, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A TorchScript archive of a whole model."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, of what traces
        return traced(random_clip(), tmp_path_factory.mktemp("traced") / "good.pt").read_bytes()


# OpenAI's and Long-CLIP's layouts


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("resnet", [False, True])
def test_a_torchscript_archive_gives_the_vectors_of_its_source(
    resnet: bool,
    tmp_path: Path,
    random_clip: MakeClip,
    pictures: list[Image.Image],
    assert_equal_vectors: Callable[..., None],
) -> None:
    model = random_clip(resnet=resnet)
    file = traced(model, tmp_path / "traced.pt")
    encoder = load_encoder(f"clip:{file}", device="cpu", precision="float32")
    assert encoder.name == f"clip:{file}"
    assert encoder.preprocessing.size == ((64, 64) if resnet else (48, 48))
    assert_equal_vectors(encoder, model, open_clip.SimpleTokenizer(), pictures, TEXTS)


@pytest.mark.parametrize("wrap", [False, True])
def test_an_openai_state_dict_in_half_precision_gives_the_vectors_of_its_source(
    wrap: bool,
    tmp_path: Path,
    random_clip: MakeClip,
    pictures: list[Image.Image],
    assert_equal_vectors: Callable[..., None],
) -> None:
    model = random_clip()
    state: dict[str, object] = {name: tensor.half() for name, tensor in model.state_dict().items()}
    if wrap:
        state = {"epoch": 3, "state_dict": {f"module.{name}": tensor for name, tensor in state.items()}}
    torch.save(state, tmp_path / "clip.pt")
    encoder = load_encoder(f"clip:{tmp_path / 'clip.pt'}", device="cpu", precision="float32")
    assert_equal_vectors(encoder, model, open_clip.SimpleTokenizer(), pictures, TEXTS)


def test_the_legacy_format_of_torch_is_read(tmp_path: Path, random_clip: MakeClip) -> None:
    state = random_clip().state_dict()
    torch.save(state, tmp_path / "clip.pt", _use_new_zipfile_serialization=False)
    read = read_state_dict(identify(tmp_path / "clip.pt"))
    assert read.keys() == state.keys()
    assert all(torch.equal(read[name], state[name]) for name in state)


def test_long_clip_adds_the_first_table_below_position_20_and_the_second_from_there(
    tmp_path: Path, random_clip: MakeClip
) -> None:
    model = random_clip(context_length=248)
    state = model.state_dict()
    torch.manual_seed(2)
    first, second = torch.randn(2, 248, 64).unbind()
    torch.save({**state, "positional_embedding": first, "positional_embedding_res": second}, tmp_path / "l.pt")
    encoder = load_encoder(f"longclip:{tmp_path / 'l.pt'}", device="cpu", precision="float32")
    assert encoder.context_length == 248

    below = (torch.arange(248) < 20).float()[:, None]  # Long-CLIP's mask1; mask2 is the rest
    model.positional_embedding.data = first * below + second * (1 - below)
    texts = ["dog " * (tokens - 2) for tokens in (5, 19, 20, 21, 100, 248, 300)]
    with torch.inference_mode():
        tokens = open_clip.SimpleTokenizer(context_length=248)(texts)
        expected = model.encode_text(tokens, normalize=True).numpy()
    assert encoder.count_tokens(texts) == [5, 19, 20, 21, 100, 248, 300]
    np.testing.assert_allclose(encoder.encode_texts(texts), expected, atol=1e-5)  # fp32 reduction order
    np.testing.assert_array_equal(expected[-1], expected[-2])  # what is beyond the context is cut


@pytest.mark.parametrize("second", [None, torch.zeros(248, 63), torch.zeros(77, 64)])
def test_long_clip_needs_both_tables(second: torch.Tensor | None) -> None:
    state = {"positional_embedding": torch.zeros(248, 64)}
    if second is not None:
        state["positional_embedding_res"] = second
    with pytest.raises(CheckpointError, match="not in Long-CLIP's layout"):
        merge_long_positions(state, Path("l.pt"))


def test_another_layout_is_not_taken_for_openais(tmp_path: Path, random_clip: MakeClip) -> None:
    state = random_clip().state_dict()
    del state["ln_final.weight"]
    torch.save(state, tmp_path / "clip.pt")
    with pytest.raises(CheckpointError, match=r"not in OpenAI's layout \(looked for 'ln_final.weight'\)"):
        load_encoder(f"clip:{tmp_path / 'clip.pt'}")


ODD_SHAPES = {
    "flat patches": (False, "visual.conv1.weight", (64, 3)),
    "no patches": (False, "visual.conv1.weight", (64, 3, 16, 0)),
    "no vision width": (False, "visual.conv1.weight", (0, 3, 16, 16)),
    "no vision positions": (False, "visual.positional_embedding", (0, 64)),
    "no grid": (False, "visual.positional_embedding", (1, 64)),
    "no text width": (False, "ln_final.weight", (0,)),
    "a scalar for a width": (False, "ln_final.weight", ()),
    "no context": (False, "positional_embedding", (0, 64)),
    "no vocabulary": (False, "token_embedding.weight", (0, 64)),
    "no vectors": (False, "text_projection", (64, 0)),
    "flat stem": (True, "visual.layer1.0.conv1.weight", (64,)),
    "no stem": (True, "visual.layer1.0.conv1.weight", (0, 32, 1, 1)),
    "no attention positions": (True, "visual.attnpool.positional_embedding", (0, 2048)),
    "no attention grid": (True, "visual.attnpool.positional_embedding", (1, 2048)),
}


@pytest.mark.parametrize("case", ODD_SHAPES)
def test_shapes_no_model_has_are_refused_by_name(case: str, tmp_path: Path, random_clip: MakeClip) -> None:
    resnet, name, shape = ODD_SHAPES[case]
    state = random_clip(resnet=resnet).state_dict()
    save_file({**state, name: torch.zeros(shape)}, tmp_path / "clip.safetensors")
    assert f"not in OpenAI's layout: {name} is {shape}" in refused(tmp_path / "clip.safetensors")


@pytest.mark.parametrize("name", ["ln_final.weight", "visual.conv1.weight"])
def test_a_width_that_heads_do_not_divide_is_refused(name: str, tmp_path: Path, random_clip: MakeClip) -> None:
    state = random_clip().state_dict()
    save_file({**state, name: torch.zeros(65, *state[name].shape[1:])}, tmp_path / "clip.safetensors")
    assert "not multiples of 64" in refused(tmp_path / "clip.safetensors")


@pytest.mark.parametrize("tower", ["visual.transformer.", "transformer."])
def test_a_tower_without_layers_is_refused(tower: str, tmp_path: Path, random_clip: MakeClip) -> None:
    state = {name: x for name, x in random_clip().state_dict().items() if not name.startswith(tower)}
    save_file(state, tmp_path / "clip.safetensors")
    assert "without layers" in refused(tmp_path / "clip.safetensors")


def test_shapes_beyond_torchs_arithmetic_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from search.encoders import blueprints, checkpoints

    vision = {"layers": 1, "width": 64, "patch_size": 2**31, "image_size": 2**31}
    text = {"width": 64, "heads": 1, "layers": 1}
    config = {"embed_dim": 32, "vision_cfg": vision, "text_cfg": text}
    monkeypatch.setattr(checkpoints, "openai_config", lambda *_: config)  # an honest file would take gigabytes
    with pytest.raises(CheckpointError, match=r"clip\.pt describes no model that can be built") as caught:
        blueprints._from_shapes("clip:clip.pt", {}, checkpoints.Weights(Path("clip.pt"), "", Path()))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("width", [80, pytest.param(96, marks=pytest.mark.slow)])
def test_resnets_of_other_widths_than_a_multiple_of_64_are_read(
    width: int, tmp_path: Path, random_clip: MakeClip
) -> None:
    """OpenAI's RN50x4 and RN50x16: heads are counted after the last stage, which is 32 times as wide."""
    model = random_clip(resnet=True, width=width)
    torch.save(model.state_dict(), tmp_path / "clip.pt")
    assert load_encoder(f"clip:{tmp_path / 'clip.pt'}", device="cpu").dim == 32


def test_shapes_that_disagree_are_found_before_memory_is_given_to_them(
    tmp_path: Path, random_clip: MakeClip
) -> None:
    state = random_clip().state_dict()
    state["visual.conv1.weight"] = torch.zeros(64 * 2**14, 3, 1, 1)  # would be a model of terabytes
    torch.save(state, tmp_path / "clip.pt")
    with pytest.raises(CheckpointError, match="misshaped"):
        load_encoder(f"clip:{tmp_path / 'clip.pt'}")


# strictness


@pytest.fixture
def builtin_copy(tmp_path: Path) -> Path:
    from search.resources import data_path

    folder = tmp_path / "model"
    shutil.copytree(data_path("builtin"), folder)
    return folder


Change = Callable[[dict[str, torch.Tensor]], object]
BAD_STATES: dict[str, tuple[Change, str]] = {
    "extra key": (lambda s: s.update(extra=torch.ones(1)), "1 unexpected: extra"),
    "missing key": (lambda s: s.pop("ln_final.bias"), "1 missing: ln_final.bias"),
    "wrong shape": (
        lambda s: s.update(logit_scale=torch.ones(2)),
        r"1 misshaped: logit_scale is \(2,\), not \(\)",
    ),
    "longer context": (
        lambda s: s.update(positional_embedding=torch.zeros(90, 256)),
        r"positional_embedding is \(90, 256\), not \(77, 256\)",
    ),
    "wrong kind": (lambda s: s.update(logit_scale=torch.tensor(3)), "logit_scale is torch.int64"),
    "endless scale": (
        lambda s: s.update(logit_scale=torch.tensor(200.0)),
        "logit_scale of 200, whose exponential is infinite",
    ),
    "not finite": (lambda s: s["ln_final.weight"][3:4].fill_(float("nan")), "not finite in ln_final.weight"),
    "all gone": (lambda s: [s.pop(name) for name in list(s) if name != "logit_scale"], r"and \d+ more"),
}


@pytest.mark.parametrize("case", BAD_STATES)
def test_weights_that_do_not_fit_exactly_are_refused_by_name(case: str, builtin_copy: Path) -> None:
    change, message = BAD_STATES[case]
    file = builtin_copy / "open_clip_model.safetensors"
    state = load_file(file)
    change(state)
    save_file(state, file)
    with pytest.raises(CheckpointError, match=message):
        load_encoder(f"dir:{builtin_copy}")


def test_a_scalar_saved_as_one_element_is_taken(builtin_copy: Path) -> None:
    file = builtin_copy / "open_clip_model.safetensors"
    state = load_file(file)
    save_file({**state, "logit_scale": state["logit_scale"].reshape(1)}, file)
    assert load_encoder(f"dir:{builtin_copy}").logit_scale == pytest.approx(34.897, abs=0.001)


# hostile and damaged files


@pytest.fixture
def marker(tmp_path: Path) -> Iterator[Path]:
    """A file that must not be there when the test is over."""
    marker = tmp_path / "code-ran"
    yield marker
    assert not marker.exists()


def refused(file: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_encoder(f"clip:{file}")
    text = str(caught.value)
    assert str(file) in text
    assert "\n" not in text
    assert "weights_only" not in text  # torch advises to give up the safeguard
    return text


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_calls_is_refused(zipped: bool, tmp_path: Path, marker: Path) -> None:
    file = tmp_path / "evil.pt"
    torch.save({"weight": Touch(marker)}, file, _use_new_zipfile_serialization=zipped)
    assert "can't be read as weights" in refused(file)


@pytest.mark.usefixtures("started_anew")
def test_a_bare_pickle_that_calls_is_refused(tmp_path: Path, marker: Path) -> None:
    (tmp_path / "evil.pt").write_bytes(pickle.dumps(Touch(marker)))
    refused(tmp_path / "evil.pt")


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_torchscript_archive_that_calls_is_refused(
    protocol: int, tmp_path: Path, marker: Path, archive: bytes
) -> None:
    evil = tmp_path / "evil.pt"
    with zipfile.ZipFile(io.BytesIO(archive)) as source, zipfile.ZipFile(evil, "w") as target:
        for entry in source.infolist():
            data = source.read(entry)
            if entry.filename.endswith("/data.pkl"):
                data = pickle.dumps({"x": Touch(marker)}, protocol=protocol)
            target.writestr(entry, data)
    assert "the archive asks for posix.system" in refused(evil)


@pytest.mark.parametrize("part", [pytest.param(0.02, marks=pytest.mark.slow), 0.5, 0.99])
@pytest.mark.parametrize("kind", ["state", "legacy", "traced", "safetensors"])
def test_a_truncated_file_is_refused(
    kind: str, part: float, tmp_path: Path, random_clip: MakeClip, archive: bytes
) -> None:
    model = random_clip()
    file = tmp_path / ("clip.safetensors" if kind == "safetensors" else "clip.pt")
    if kind == "traced":
        file.write_bytes(archive)
    elif kind == "safetensors":
        save_file(model.state_dict(), file)
    else:
        torch.save(model.state_dict(), file, _use_new_zipfile_serialization=kind == "state")
    os.truncate(file, int(file.stat().st_size * part))
    refused(file)


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    for number, content in enumerate((b"<!DOCTYPE html><html>404</html>", b"", b"\0" * 100, b"PK\x03\x04 no zip")):
        for suffix in ("pt", "safetensors"):
            file = tmp_path / f"{number}.{suffix}"
            file.write_bytes(content)
            refused(file)


def test_a_safetensors_header_that_promises_too_much_is_refused(tmp_path: Path) -> None:
    header = json.dumps({"x": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}).encode()
    (tmp_path / "x.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 64)
    refused(tmp_path / "x.safetensors")


def test_tensors_that_are_not_plain_and_dense_are_refused(tmp_path: Path) -> None:
    tensors = {
        "stretched": torch.zeros(1).expand(2**40),
        "meta": torch.zeros(3, device="meta"),
        "number": 3,
    }
    for name, tensor in tensors.items():
        file = tmp_path / f"{name}.pt"
        torch.save({"weight": tensor}, file)
        assert "weight" in refused(file)


@pytest.mark.filterwarnings("ignore:.*[Ss]parse")
def test_a_sparse_tensor_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "sparse.pt"
    torch.save({"weight": torch.eye(3).to_sparse()}, file)
    refused(file)


def test_a_file_without_named_tensors_is_refused(tmp_path: Path) -> None:
    for number, content in enumerate((torch.zeros(3), [torch.zeros(3)], {}, {3: torch.zeros(3)})):
        torch.save(content, tmp_path / f"{number}.pt")
        assert "holds no state dict" in refused(tmp_path / f"{number}.pt")


def test_an_archive_that_unpacks_to_more_than_itself_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb/data.pkl", b"\x80\x02}.")
        archive.writestr("bomb/data/0", bytes(10_000_000))
    assert "unpacks to more than the whole file" in refused(tmp_path / "bomb.pt")


# folders


def test_a_missing_file_is_said_to_be_missing(tmp_path: Path) -> None:
    for name in ("clip:{}/no.pt", "longclip:{}/no.pt", "ViT-B-32/{}/no.pt"):
        with pytest.raises(ModelError, match=r"no weights file|is no file") as caught:
            load_encoder(name.format(tmp_path))
        assert "no.pt" in str(caught.value)


def test_a_folder_that_is_no_model_says_what_it_lacks(tmp_path: Path, builtin_copy: Path) -> None:
    with pytest.raises(ModelError, match=r"has no open_clip_config\.json"):
        load_encoder(f"dir:{tmp_path}")
    weights = builtin_copy / "open_clip_model.safetensors"
    for name in ("a.safetensors", "b.pt"):
        shutil.copy(weights, builtin_copy / name)
    weights.unlink()
    with pytest.raises(ModelError, match=r"has several weights files: a\.safetensors, b\.pt"):
        load_encoder(f"dir:{builtin_copy}")
    (builtin_copy / "b.pt").unlink()
    assert load_encoder(f"dir:{builtin_copy}").dim == 256
    (builtin_copy / "a.safetensors").unlink()
    with pytest.raises(ModelError, match="has no weights"):
        load_encoder(f"dir:{builtin_copy}")


NO_CFGS = '{"model_cfg": {"embed_dim": 3, "vision_cfg": [], "text_cfg": "x"}}'


@pytest.mark.parametrize("text", ["{}", "[]", '{"model_cfg": {"embed_dim": 3}}', NO_CFGS, "{", "\udcff"])
def test_a_configuration_without_a_model_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "open_clip_config.json").write_text(text, errors="surrogateescape")
    with pytest.raises(ModelError, match=r"describes no model|can't be read"):
        load_encoder(f"dir:{tmp_path}")


def test_a_configuration_nested_without_end_is_refused(tmp_path: Path) -> None:
    (tmp_path / "open_clip_config.json").write_text("[" * 100_000)
    with pytest.raises(ModelError, match=r"open_clip_config\.json can't be read"):
        load_encoder(f"dir:{tmp_path}")


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"preprocess_cfg": []}, "preprocess_cfg is no object"),
        ({"preprocess_cfg": [1]}, "preprocess_cfg is no object"),
        ({"preprocess_cfg": "RGB"}, "preprocess_cfg is no object"),
        ({"tokenizer_kwargs": ["clean"]}, "tokenizer_kwargs is no object"),
        ({"preprocess_cfg": {"mean": [0.5, 0.5]}}, "mean"),
        ({"preprocess_cfg": {"mode": "L"}}, "mode"),
        ({"preprocess_cfg": {"interpolation": "nearest"}}, "interpolation"),
        ({"preprocess_cfg": {"size": "96"}}, "size"),
    ],
)
def test_a_configuration_with_nonsense_in_it_is_named(
    change: dict[str, object], fault: str, builtin_copy: Path
) -> None:
    file = builtin_copy / "open_clip_config.json"
    config = json.loads(file.read_text())
    if "tokenizer_kwargs" in change:
        config["model_cfg"]["text_cfg"] |= change
    else:
        config |= change
    file.write_text(json.dumps(config))
    with pytest.raises(ModelError, match=fault) as caught:
        load_encoder(f"dir:{builtin_copy}")
    assert str(caught.value).startswith(str(file))
    assert "\n" not in str(caught.value)
