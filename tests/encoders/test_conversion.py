"""Hostile and damaged files are read by a process that may break; nothing of them reaches this one or the cache."""

from __future__ import annotations

import io
import json
import os
import pickle
import socket
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from search.cli import cli
from search.encoders import conversion, load_encoder, recipes
from search.errors import CheckpointError
from search.files import sha256

MakeClip = Callable[..., torch.nn.Module]


class Call:
    """Pickles to a call of a function."""

    def __init__(self, function: Callable[..., object], argument: str) -> None:
        self.call = function, (argument,)

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return self.call


@pytest.fixture
def marker(tmp_path: Path) -> Iterator[Path]:
    """A file that must not be there when the test is over."""
    marker = tmp_path / "code-ran"
    yield marker
    assert not marker.exists()


@pytest.fixture
def clip(tmp_path: Path, random_clip: MakeClip) -> Path:
    torch.save(random_clip().state_dict(), tmp_path / "clip.pt")
    return tmp_path / "clip.pt"


def runs(code: str) -> Callable[[Path, Path, dict[str, torch.Tensor]], None]:
    def make(file: Path, marker: Path, _: dict[str, torch.Tensor]) -> None:
        torch.save(
            {
                "weight": Call(eval, f"open({str(marker)!r}, 'w')")
                if code == "eval"
                else Call(os.system, f"touch {marker}")
            },
            file,
            _use_new_zipfile_serialization=code != "legacy",
        )

    return make


def archived(file: Path, pickled: bytes) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("x/constants.pkl", b"\x80\x02).")
        archive.writestr("x/data.pkl", pickled)
        archive.writestr("x/code/__torch__.py", "def forward(self): pass")


def tarred(file: Path, marker: Path, _: object) -> None:
    with tarfile.open(file, "w") as archive:
        for name in ("sys_info", "pickle", "tensors", "storages"):
            data = pickle.dumps(Call(os.system, f"touch {marker}"), protocol=2)
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def sparse(file: Path, _: Path, __: object) -> None:
    indices = torch.tensor([[0, 2**40], [1, 5]])
    torch.save({"weight": torch.sparse_coo_tensor(indices, torch.ones(2), (3, 3), check_invariants=False)}, file)


def huge(file: Path, _: Path, __: object) -> None:
    """The legacy format says how many elements a storage has; their memory is taken before they are read."""
    legacy = file.with_suffix(".good")
    torch.save({"weight": torch.zeros(12345)}, legacy, _use_new_zipfile_serialization=False)
    small = pickle.dumps(12345, protocol=2)[2:-1]
    large = pickle.dumps(2**33, protocol=2)[2:-1]  # 32 GiB
    content = legacy.read_bytes()
    assert small in content
    file.write_bytes(content.replace(small, large))


def bomb(file: Path, _: Path, __: object) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/data.pkl", bytes(50_000_000))


def changed(**change: object) -> Callable[[Path, Path, dict[str, torch.Tensor]], None]:
    def make(file: Path, _: Path, state: dict[str, torch.Tensor]) -> None:
        torch.save({**state, **change}, file)

    return make


def truncated(file: Path, _: Path, state: dict[str, torch.Tensor]) -> None:
    torch.save(state, file)
    os.truncate(file, file.stat().st_size // 2)


HOSTILE = {
    "os.system, zip": (runs("zip"), "can't be read as weights"),
    "os.system, legacy": (runs("legacy"), "can't be read as weights"),
    "eval": (runs("eval"), "can't be read as weights"),
    "TorchScript": (lambda f, m, _: archived(f, pickle.dumps(Call(os.system, f"touch {m}"), 2)), "posix.system"),
    "tar": (tarred, "can't be read as weights"),
    "sparse, out of range": (sparse, "weight"),
    "huge storage": (huge, "more memory than it can need"),
    "zip bomb": (bomb, "unpacks to more than the whole file"),
    "a number": (changed(logit_scale=3), "holds more than dense tensors: logit_scale"),
    "truncated": (truncated, "can't be read as weights"),
}
UNFIT = {  # they hold nothing but tensors, so they are converted; this process says what is wrong with those
    "complex": (changed(logit_scale=torch.tensor(3j)), "logit_scale is torch.complex64"),
    "not finite": (changed(logit_scale=torch.tensor(float("nan"))), "not finite in logit_scale"),
    "extra key": (changed(extra=torch.ones(1)), "1 unexpected: extra"),
}


@pytest.mark.filterwarnings("ignore:.*[Ss]parse")
@pytest.mark.parametrize("case", [*HOSTILE, *UNFIT])
def test_a_hostile_checkpoint_is_one_line_and_nothing_else(
    case: str, tmp_path: Path, marker: Path, conversions: Path, random_clip: MakeClip
) -> None:
    make, message = {**HOSTILE, **UNFIT}[case]
    file = tmp_path / "evil.pt"
    make(file, marker, random_clip().state_dict())
    done = CliRunner().invoke(cli, ["models", "info", f"clip:{file}"])
    assert done.exit_code == 1
    assert isinstance(done.exception, SystemExit)
    [line] = done.stderr.splitlines()
    assert line.startswith(f"search: {file} ")
    assert message in line
    assert done.stdout == ""
    assert case in UNFIT or not list(conversions.iterdir())


@pytest.mark.usefixtures("started_anew")
def test_a_second_load_starts_no_process(clip: Path, conversions: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load_encoder(f"clip:{clip}", device="cpu")
    [kept] = conversions.iterdir()
    assert conversions.stat().st_mode & 0o777 == 0o700
    assert kept.name == f"{sha256(clip)}.{sha256(kept)}.safetensors"
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("a process was started"))
    second = load_encoder(f"clip:{clip}", device="cpu")
    assert (second.fingerprint, second.encode_texts(["x"]).tobytes()) == (
        first.fingerprint,
        first.encode_texts(["x"]).tobytes(),
    )


def test_a_damaged_conversion_is_made_again(clip: Path, conversions: Path) -> None:
    expected = load_encoder(f"clip:{clip}", device="cpu").encode_texts(["x"])
    [kept] = conversions.iterdir()
    content = kept.read_bytes()
    kept.write_bytes(content[:-1] + bytes([content[-1] ^ 64]))
    assert (load_encoder(f"clip:{clip}", device="cpu").encode_texts(["x"]) == expected).all()
    assert [path.read_bytes() == content for path in conversions.iterdir()] == [True]


@pytest.mark.parametrize("fault", ["a file", "for others to write"])
def test_a_cache_that_can_not_be_used_is_done_without(fault: str, clip: Path, conversions: Path) -> None:
    if fault == "a file":
        conversions.touch()
    else:
        conversions.mkdir()
        conversions.chmod(0o777)
    assert load_encoder(f"clip:{clip}", device="cpu").dim == 32
    assert conversions.is_file() or not list(conversions.iterdir())


def test_a_process_that_is_killed_is_an_error_that_names_the_file(
    clip: Path, conversions: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = "import os, signal; os.kill(os.getpid(), signal.{})"
    for name, words in (("SIGSEGV", "ended by Segmentation fault"), ("SIGXCPU", "takes too long")):
        monkeypatch.setattr(conversion, "_PROGRAM", program.format(name))
        with pytest.raises(CheckpointError, match=rf"clip\.pt can't be read as weights \(.*{words}"):
            load_encoder(f"clip:{clip}")
    for answer in ("[]", "{", "", "3"):
        monkeypatch.setattr(conversion, "_PROGRAM", f"print({answer!r})")
        with pytest.raises(CheckpointError, match="gave no answer"):
            load_encoder(f"clip:{clip}")
    assert not list(conversions.iterdir())


def test_what_gave_up_the_network_reaches_nobody() -> None:
    code = """
import json, socket, sys
from search.encoders.isolation import leave_network
left = leave_network()
try: socket.create_connection(("127.0.0.1", int(sys.argv[1])), 5)
except OSError: print(json.dumps([left, False]))
else: print(json.dumps([left, True]))
"""
    with socket.create_server(("127.0.0.1", 0)) as server:
        command = [sys.executable, "-c", code, str(server.getsockname()[1])]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    left, reached = json.loads(done.stdout)
    assert reached is not left


def test_weights_are_loaded_only_if_they_are_the_trusted_ones(clip: Path, conversions: Path) -> None:
    digest = sha256(clip)
    wrong = "0" * 64
    with pytest.raises(CheckpointError, match=rf"clip\.pt has the SHA-256 {digest}, not {wrong}"):
        load_encoder(f"clip:{clip}", trust_checkpoint=wrong)
    assert not conversions.exists()  # it was not even read
    assert load_encoder(f"clip:{clip}", device="cpu", trust_checkpoint=digest.upper()).dim == 32
    with pytest.raises(CheckpointError, match=wrong):
        load_encoder("builtin", trust_checkpoint=wrong)


def test_a_trusted_number_is_64_digits() -> None:
    done = CliRunner().invoke(cli, ["models", "info", "builtin", "--trust-checkpoint", "abc"])
    assert done.exit_code == 2
    assert "64 hexadecimal digits" in done.stderr


def test_a_converted_checkpoint_has_a_recipe(clip: Path, conversions: Path, tmp_path: Path) -> None:
    encoder = load_encoder(f"clip:{clip}", device="cpu", precision="float32")
    recipes.save(encoder, tmp_path / "recipes")
    tower = recipes.open_text(tmp_path / "recipes", encoder.fingerprint)
    assert tower is not None
    assert abs(tower.encode_texts(["a dog"]) - encoder.encode_texts(["a dog"])).max() < 1e-5  # fp32 order
    clip.write_bytes(clip.read_bytes() + b"x")
    assert recipes.open_text(tmp_path / "recipes", encoder.fingerprint) is None


def test_a_recipe_that_can_not_be_saved_is_no_error(clip: Path, tmp_path: Path) -> None:
    encoder = load_encoder(f"clip:{clip}", device="cpu")
    (tmp_path / "recipes").touch()
    recipes.save(encoder, tmp_path / "recipes")
    clip.unlink()
    recipes.save(encoder, tmp_path / "others")
    assert not (tmp_path / "others").exists()
