"""The library's model, opened no further than an answer needs."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from search import banks
from search.encoders import canonical_name, recipes
from search.errors import EncoderMismatch, LibraryError
from search.resources import user_cache

if TYPE_CHECKING:
    from search.catalog import Catalog, EncoderRow
    from search.encoders import Encoder, TextTower
    from search.encoders.recipes import TextHalf
    from search.labels.sets import Remember
    from search.relevance import Bank

AUTO = "auto"


class LibraryModel:
    """Knows which model a library's vectors are of, and opens it: its text half alone where that will do.

    name: what was asked for; "auto" means the library's own, for a new library the recommended one.
    offline, notify, trust_checkpoint: as in Library.open.
    """

    def __init__(
        self,
        catalog: Catalog,
        name: str,
        *,
        offline: bool,
        notify: Callable[[str], None],
        trust_checkpoint: str | None,
    ) -> None:
        self.catalog = catalog  # another one once the library answers from a copy
        self.loaded: Encoder | None = None
        self.offline = offline
        self.trust_checkpoint = trust_checkpoint
        self._name = name if name == AUTO else canonical_name(name)
        self._notify = notify
        self._halves: dict[str, TextHalf | None] = {}  # by fingerprint
        self._banks: dict[str, Bank] = {}

    @property
    def wanted(self) -> str:
        """The name that was asked for."""
        return self._name

    def forget(self) -> None:
        """Let go of what was opened."""
        self.loaded = None
        self._halves.clear()
        self._banks.clear()

    # ---- which

    def row(self) -> EncoderRow | None:
        """What the catalog knows of the model that answers; None while the library has no vectors at all.

        Raises EncoderMismatch if the model asked for has none but others have.
        """
        current = self.catalog.encoder()
        if self._name == AUTO or current is None:
            return current
        row = self.named()
        if row is None:
            raise EncoderMismatch(
                f"{self.catalog.shown} was indexed with {current.name}",
                hint=f"run 'search index --reencode --model {self._name}' to use {self._name}",
            )
        return row

    def named(self) -> EncoderRow | None:
        """What the catalog knows of the model asked for, None if nothing."""
        return self.catalog.encoder(name=None if self._name == AUTO else self._name)

    def answering(self) -> EncoderRow:
        """What the catalog knows of the model that answers. Raises EncoderMismatch, LibraryError without vectors."""
        row = self.row()
        if row is None:
            raise LibraryError(f"{self.catalog.shown} holds no photos yet", hint="run 'search index DIR'")
        return row

    # ---- the whole of it

    @property
    def encoder(self) -> Encoder:
        """The model, loaded on first use: the one asked for, else the library's own, else the recommended."""
        if self.loaded is None:
            current = self.catalog.encoder() if self._name == AUTO and self.catalog.exists() else None
            self.loaded = self.load(current.name if current else self._name)
        return self.loaded

    def load(self, name: str, *, photos: int = 0) -> Encoder:
        """Open the model of a name, by the runtime that is worth preparing for so many photos."""
        from search.encoders import load_encoder, resolve_auto

        if name != AUTO:
            return load_encoder(
                name,
                offline=self.offline,
                on_download=self.downloading,
                trust_checkpoint=self.trust_checkpoint,
                photos=photos,
                on_export=self._exporting,
            )
        encoder, warning = resolve_auto(
            offline=self.offline, on_download=self.downloading, trust_checkpoint=self.trust_checkpoint
        )
        if warning:
            self._notify(warning)
        return encoder

    def made_sure(self, fingerprint: str, photos: int = 0) -> Encoder:
        """Return the loaded model by the runtime that is worth preparing for so many photos.

        Raises EncoderMismatch if its fingerprint is another: it would not be the one that made the vectors.
        """
        from search.encoders.runtimes import is_worth_exporting

        name = self.encoder.name
        if is_worth_exporting(name, photos):
            self.loaded = None  # two in memory are one too many
            self.loaded = self.load(name, photos=photos)
        if self.encoder.fingerprint != fingerprint:
            raise EncoderMismatch(
                f"the weights behind {name} are not those {self.catalog.shown} was indexed with",
                hint="run 'search index --reencode' to use them",
            )
        return self.encoder

    def downloading(self, name: str) -> None:
        """Tell that a model is being fetched."""
        self._notify(f"downloading {name}; this happens once")

    def _exporting(self, name: str) -> None:
        self._notify(f"exporting {name} to a faster runtime; this happens once")

    # ---- its text half

    def text_tower(self, row: EncoderRow) -> TextTower:
        """Open the text half: by its recipe without torch where that can be, else the whole model."""
        if half := self.half(row):
            return half
        encoder = self.made_sure(row.fingerprint)
        self.save_recipe()
        self._halves.clear()
        return encoder

    def half(self, row: EncoderRow) -> TextHalf | None:
        """Open the text half by its recipe; None where there is none, or the weights file must be looked into first."""
        if self.trust_checkpoint:
            return None
        if row.fingerprint not in self._halves:
            half = recipes.open_half(self._recipes, row.fingerprint, lambda: self.made_sure(row.fingerprint))
            self._halves[row.fingerprint] = half
        return self._halves[row.fingerprint]

    def texts(self, row: EncoderRow) -> tuple[TextHalf | Encoder, Remember | None]:
        """Return what encodes texts of this model, the half alone where that will do, and what keeps class weights.

        Raises EncoderMismatch as `made_sure`.
        """
        half = self.half(row)
        return (half, half.remember) if half else (self.made_sure(row.fingerprint), None)

    def save_recipe(self) -> None:
        """Write down how to open the text half of the loaded model again."""
        if self.loaded is not None and self.catalog.exists() and not self.catalog.is_newer:
            recipes.save(self.loaded, self._recipes, on_export=self._exporting)

    def lend_recipes(self, other: LibraryModel) -> None:
        """Give another library what this one has written down of models, so that it need not open them to know."""
        if self._recipes != other._recipes:
            with contextlib.suppress(OSError, shutil.Error):
                shutil.copytree(self._recipes, other._recipes, dirs_exist_ok=True)

    # ---- what it makes of unrelated texts

    def bank(self, model: EncoderRow | Encoder | TextHalf) -> Bank:
        """Return a model's bank of prompts, made now if need be: once, unless it can be kept nowhere.

        model: what the catalog knows of it, or itself where it made none of the library's vectors.
        """
        if model.fingerprint not in self._banks:
            known = self._kept_bank(model.fingerprint)
            self._banks[model.fingerprint] = known or self._made(model, lambda: self._tower(model))
        return self._banks[model.fingerprint]

    def save_bank(self) -> None:
        """Make the loaded model's bank unless it is there: a query should not have to."""
        encoder = self.loaded
        if encoder is None or banks.load(self._recipes, encoder.fingerprint):
            return
        if known := self._kept_bank(encoder.fingerprint):
            self._keep_bank(known, encoder.fingerprint)
        elif row := self.catalog.encoder(fingerprint=encoder.fingerprint):
            self._made(row, lambda: self.half(row) or encoder)

    def _kept_bank(self, fingerprint: str) -> Bank | None:
        """Return a bank that ships, or was kept beside this library or for another of this user's."""
        return banks.load(self._recipes, fingerprint) or banks.load(banks.default_cache(), fingerprint)

    def _tower(self, model: EncoderRow | Encoder | TextHalf) -> TextTower:
        from search.catalog import EncoderRow

        return self.text_tower(model) if isinstance(model, EncoderRow) else model

    def _made(self, model: EncoderRow | Encoder | TextHalf, tower: Callable[[], TextTower]) -> Bank:
        self._notify(f"learning what {model.name} makes of texts that fit nothing; this happens once")
        bank = banks.make(tower())
        self._keep_bank(bank, model.fingerprint)
        return bank

    def _keep_bank(self, bank: Bank, fingerprint: str) -> None:
        """Keep a bank beside the library, which may be taken elsewhere, and for this user's other libraries."""
        beside = self._recipes
        kept_here = self.catalog.exists() and not self.catalog.is_newer
        writable = self.catalog.folder and kept_here and os.access(beside.parent, os.W_OK)
        for folder in (beside, banks.default_cache()) if writable else (banks.default_cache(),):
            with contextlib.suppress(OSError):
                banks.save(bank, folder, fingerprint)

    @property
    def _recipes(self) -> Path:
        """The folder of recipes: beside the catalog; for one on a server in the user's cache, `search/encoders`."""
        return self.catalog.folder / "encoders" if self.catalog.folder else user_cache("encoders")
