"""Which models there are, and where their files are: on this machine first, fetched only when missing."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from search.errors import ModelError, ModelUnavailable

if TYPE_CHECKING:
    from search.encoders import Encoder

T = TypeVar("T")

WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
CONFIG = "open_clip_config.json"
TOKENIZER = "tokenizer.json"
_PROBE_TIMEOUT_S = 3.0
_MAX_REASON = 200  # characters
_SHA256 = re.compile("[0-9a-f]{64}")
_offline_lock = RLock()


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model one can ask for.

    cached: its weights are on this machine.   size_bytes: of the weights file; before a download, what the
    architecture's parameters take in float32; None where that is not known either.
    """

    name: str
    source: str
    cached: bool
    size_bytes: int | None
    description: str


@dataclass(frozen=True, slots=True)
class _Listed:
    """A hand-picked model: its hub repository and parameters are data, so listing it needs no torch."""

    name: str
    repo: str
    parameters: int
    description: str


_LISTED = (
    _Listed(
        "ViT-B-32-256/datacomp_s34b_b86k",
        "laion/CLIP-ViT-B-32-256x256-DataComp-s34B-b86K",
        151_288_833,
        "recommended: good answers at a speed that suits a laptop",
    ),
    _Listed(
        "ViT-L-14/datacomp_xl_s13b_b90k",
        "laion/CLIP-ViT-L-14-DataComp.XL-s13B-b90K",
        427_616_513,
        "better answers, several times slower",
    ),
    _Listed("MobileCLIP2-S0/dfndr2b", "timm/MobileCLIP2-S0-OpenCLIP", 74_835_073, "small and fast"),
    _Listed(
        "ViT-B-16-SigLIP2-256/webli",
        "timm/ViT-B-16-SigLIP2-256",
        375_234_050,
        "understands many languages; needs the extra `huggingface`",
    ),
)


class Fetcher:
    """Finds the files of one model, and asks the network only for what this machine lacks.

    Every method raises ModelUnavailable if something is missing and may not or can't be fetched.
    trust_checkpoint: the SHA-256 that its weights must have.   cache: see `checkpoints.identify`.
    """

    def __init__(
        self,
        name: str,
        *,
        offline: bool = False,
        on_download: Callable[[str], None] | None = None,
        trust_checkpoint: str | None = None,
        cache: Path | None = None,
    ) -> None:
        self.name = name
        self.trust_checkpoint = trust_checkpoint
        self.cache = cache
        self._offline = offline
        self._on_download = on_download
        self._online_hosts: set[str] = set()

    def file(self, repo: str, *candidates: str) -> Path:
        """Return the first of the candidate files of a hub repository.

        Raises ModelError if the repository does not exist or has none of them.
        """
        for filename in candidates:
            if (found := cached_file(repo, filename)) is not None:
                return found
        self._go_online(_hub_endpoint())
        for filename in candidates:
            if (path := self._download(repo, filename)) is not None:
                return path
        raise ModelError(f"{repo} on the hub has no {' or '.join(candidates)}: it is not in open_clip's layout")

    def url(self, url: str) -> Path:
        """Return the file behind a URL of open_clip's table, from ~/.cache/clip if it is there."""
        from open_clip.pretrained import download_pretrained_from_url

        path = url_cache(url)
        if not path.is_file():
            self._go_online(url)
        elif self._offline:
            return path
        try:
            return Path(download_pretrained_from_url(url))  # hashes what is there, fetches only a damaged file
        except (OSError, RuntimeError) as error:
            raise self._unavailable(str(error)) from None

    def local_first(self, action: Callable[[], T]) -> T:
        """Run something that may fetch on its own: without network, and if that fails and we may, with it.

        For transformers, which looks up tokenizers and text-tower configurations itself.
        """
        try:
            with no_network():
                return action()
        except (OSError, ValueError) as error:
            reason = first_line(error)
        self._go_online(_hub_endpoint(), reason)
        try:
            return action()
        except (OSError, ValueError) as error:
            raise self._unavailable(first_line(error)) from None

    def _download(self, repo: str, filename: str) -> Path | None:
        from huggingface_hub import errors, hf_hub_download

        try:
            return Path(hf_hub_download(repo, filename))
        except errors.RepositoryNotFoundError:  # gated repositories included
            raise ModelError(f"{repo} is not on the hub, or not open to you") from None
        except errors.LocalEntryNotFoundError as error:  # the network went away; a kind of EntryNotFoundError
            raise self._unavailable(first_line(error)) from None
        except errors.EntryNotFoundError:
            return None
        except Exception as error:  # whatever HTTP library the hub client uses raises its own
            raise self._unavailable(first_line(error)) from None

    def _go_online(self, url: str, reason: str = "") -> None:
        """Make sure that we may fetch and that the server answers; tell the caller once."""
        if self._offline or _hub_offline():
            raise self._unavailable(reason or "offline, and its files are not on this machine")
        host = f"{urlsplit(url).scheme}://{urlsplit(url).netloc}"
        if host in self._online_hosts:
            return
        if not reachable(host):
            raise self._unavailable(f"not on this machine, and {host} can't be reached")
        if self._on_download is not None and not self._online_hosts:
            self._on_download(self.name)
        self._online_hosts.add(host)

    def _unavailable(self, reason: str) -> ModelUnavailable:
        hint = f"connect once and run `search models download {self.name}`, or use `--model builtin`"
        return ModelUnavailable(f"{self.name} can't be had: {reason}", hint=hint)


def cached_file(repo: str, filename: str) -> Path | None:
    """Return a hub file's place in the local cache, or None; opens no socket."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repo, filename)
    return Path(found) if isinstance(found, str) else None


def url_cache(url: str) -> Path:
    """Return where open_clip keeps a file fetched by URL."""
    return Path("~/.cache/clip").expanduser() / Path(urlsplit(url).path).name


def known_sha256(path: Path) -> str:
    """Return the SHA-256 that a file in the hub's cache must have; "" where the cache does not say.

    There the hub keeps large files under their SHA-256 and links to them, where the system has links.
    """
    blob = path.resolve()
    return blob.name if blob.parent.name == "blobs" and _SHA256.fullmatch(blob.name) else ""


def url_sha256(url: str) -> str:
    """Return the SHA-256 that a URL of open_clip's table promises, or its beginning, or "".

    OpenAI's have it as the last folder, the mlfoundations' at the end of the file's name.
    """
    path = Path(urlsplit(url).path)
    if "openaipublic" in url:
        return path.parent.name
    return path.stem.rpartition("-")[2] if "mlfoundations" in url else ""


def tag_files(hf_hub: str) -> tuple[str, tuple[str, ...]]:
    """Split an `hf_hub` entry of open_clip's table into repository and candidate weights files.

    "org/name/" means the usual names; "org/name/weights.bin" that file, or better its safetensors twin.
    """
    repo, _, filename = hf_hub.rpartition("/")
    if not filename:
        return repo, WEIGHTS
    if filename.endswith((".bin", ".pth")):
        return repo, (filename[:-4] + ".safetensors", filename)
    return repo, (filename,)


def reachable(host: str) -> bool:
    """Say whether a server answers at all: one try, a few seconds; proxies as the hub client uses them.

    The client itself tries five times, which takes half a minute where there is no network.
    """
    from huggingface_hub import get_session

    try:
        get_session().head(host, timeout=_PROBE_TIMEOUT_S)
    except Exception:  # any failure to answer, in the words of whatever HTTP library the hub client uses
        return False
    return True


@contextlib.contextmanager
def no_network() -> Iterator[None]:
    """Make huggingface_hub and transformers refuse to open a socket inside the block.

    Both ask this constant at each call; the environment variable behind it is read only at import. It is
    process-wide, hence the lock.
    """
    from huggingface_hub import constants

    with _offline_lock:
        before = constants.HF_HUB_OFFLINE
        constants.HF_HUB_OFFLINE = True
        try:
            yield
        finally:
            constants.HF_HUB_OFFLINE = before


def known_models(*, all_: bool = False) -> list[ModelInfo]:
    """Return the built-in and the hand-picked models; with all_, every (architecture, tag) of open_clip.

    Without all_ this loads neither torch nor open_clip.
    """
    models = [_builtin(), *(_listed(entry) for entry in _LISTED)]
    if all_:
        names = {model.name for model in models}
        models += [model for model in _open_clip_models() if model.name not in names]
    return models


def download(
    name: str,
    *,
    offline: bool = False,
    on_download: Callable[[str], None] | None = None,
    trust_checkpoint: str | None = None,
) -> dict[str, Any]:
    """Fetch all that a model needs, and return its `model_info`.

    The model is opened too: only a download that loads is known to be whole.   Raises as `load_encoder`.
    """
    from search.encoders import load_encoder

    encoder = load_encoder(
        name,
        device="cpu",
        runtime="torch",
        offline=offline,
        on_download=on_download,
        trust_checkpoint=trust_checkpoint,
    )
    return model_info(encoder)


def model_info(encoder: Encoder) -> dict[str, Any]:
    """Return what there is to know of an open model, ready for JSON.

    parameters and weights are None for encoders that can't say.
    """
    from search.encoders import parse_name

    weights: Path | None = getattr(encoder, "weights", None)
    return {
        "name": encoder.name,
        "source": parse_name(encoder.name)[0],
        "dim": encoder.dim,
        "context_length": encoder.context_length,
        "logit_scale": encoder.logit_scale,
        "logit_bias": encoder.logit_bias,
        "preprocessing": encoder.preprocessing.to_dict(),
        "parameters": getattr(encoder, "parameters", None),
        "runtime": getattr(encoder, "runtime", None),
        "precision": getattr(encoder, "precision", None),
        "fingerprint": encoder.fingerprint,
        "weights": None if weights is None else str(weights),
        "weights_bytes": None if weights is None else weights.stat().st_size,
    }


def _builtin() -> ModelInfo:
    from search.resources import data_path

    weights = data_path("builtin", WEIGHTS[0])
    size = weights.stat().st_size if weights.is_file() else None
    return ModelInfo("builtin", "builtin", size is not None, size, "ships with this package: small, for a start")


def _listed(entry: _Listed) -> ModelInfo:
    found = _cached_weights(entry.repo, WEIGHTS)
    size = 4 * entry.parameters if found is None else found.stat().st_size
    return ModelInfo(entry.name, "open_clip", found is not None, size, entry.description)


def _open_clip_models() -> Iterator[ModelInfo]:
    from search.encoders.blueprints import pretrained_tags

    for arch, tag, config in pretrained_tags():
        if config.get("hf_hub"):
            found = _cached_weights(*tag_files(config["hf_hub"]))
        else:
            found = path if (path := url_cache(config.get("url", ""))).is_file() else None
        size = None if found is None else found.stat().st_size
        yield ModelInfo(f"{arch}/{tag}", "open_clip", found is not None, size, "")


def _cached_weights(repo: str, candidates: tuple[str, ...]) -> Path | None:
    return next((path for name in candidates if (path := cached_file(repo, name)) is not None), None)


def _hub_endpoint() -> str:
    from huggingface_hub import constants

    return constants.ENDPOINT


def _hub_offline() -> bool:
    from huggingface_hub import constants

    return constants.HF_HUB_OFFLINE


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says, as far as it fits a message of ours; else its type."""
    text = str(error).strip()
    return text.splitlines()[0][:_MAX_REASON] if text else type(error).__name__
