"""Contrastive training of an image and a text tower: the objectives of CLIP, SigLIP and Long-CLIP, see `objectives`.

A run is a function of its recipe, its data and the model it begins with. What it learnt lies in a checkpoint beside
the coming model, so that the same call goes on after any end, and at the end in a folder that `dir:` loads.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from search import failpoints
from search.encoders import parse_name
from search.errors import TrainingError, UsageError
from search.evaluate.metrics import first_positive_ranks
from search.files import atomic_write
from search.plurals import count_of
from search.train import checkpoints, gradcache, long_captions, models
from search.train.averages import Average
from search.train.folder import RECORD, REPEAT, REPEAT_SHA256, alone, finished
from search.train.objectives import MAX_LOG_SCALE, Objective, Term
from search.train.recipe import LongClipRecipe, Recipe
from search.train.samples import Batch, Feeder, Pairs
from search.train.world import World

if TYPE_CHECKING:
    from search.types import Skip

CLIP_TOKENS = 77
"""What CLIP reads, start and end included."""

_RECALL_K = (1, 5, 10)
_PACKAGES = ("torch", "open_clip_torch", "timm", "numpy", "pillow")
_SMOOTHED = 0.98  # of the loss that is told, what stays at a step
_BEGUN_WITH = {"data": "other data", "origin": "other weights", "world": "another number of processes"}
_EVALUATED = 64  # photos or captions of the held-out part that are encoded at a time


@dataclass(frozen=True, slots=True)
class Measured:
    """Retrieval on the held-out part after so many steps: image and text recall at 1, 5 and 10, by CLIP_benchmark's
    names, "short_" before those of short captions; empty where nothing is held out."""

    step: int
    figures: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Moment:
    """How far a run is.   loss: smoothed.   measured: where this step was measured."""

    step: int
    steps: int
    loss: float
    learning_rate: float
    images_per_second: float
    measured: Measured | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """What a run did.

    steps: done, of `planned`; fewer where it was stopped.   photos, captions: to train with.   loss: smoothed, at the
    end.   measured: from the start to the end.   skipped: photos that could not be read.   data: their fingerprint.
    images_per_second, seconds: of this call alone.
    """

    path: str
    steps: int
    planned: int
    photos: int
    captions: int
    held_out: int
    loss: float
    measured: tuple[Measured, ...]
    skipped: tuple[Skip, ...]
    data: str
    seconds: float
    images_per_second: float

    @property
    def finished(self) -> bool:
        return self.steps == self.planned


def train(
    recipe: Recipe,
    out: Path,
    *,
    anew: bool = False,
    device: str | None = None,
    offline: bool = False,
    on_download: Callable[[str], None] | None = None,
    progress: Callable[[Moment], None] | None = None,
    stop: Callable[[], bool] | None = None,
) -> Report:
    """Train a model into a folder; where a run by the same recipe and data was cut short there, go on with it.

    anew: take the place of another run in the folder; what it left stays until this one is saved, its model until this
    one is finished.   device: as torch names it; None picks the best there is.
    progress: told of every step.   stop: asked after every step; True saves and ends the run early.
    Random numbers of the caller are as before. In a world of several processes all call this, with the same arguments.
    Raises UsageError, ModelError, StorageError, CheckpointError, TrainingError.
    """
    from search.encoders.openclip import usable_device

    _require_elsewhere(recipe, out)
    place = torch.device(usable_device(device))
    world = World.current()
    with alone(out, anew=anew) if world.rank == 0 else nullcontext(), _own_random(recipe, place):
        world.wait()
        subject = models.prepare(recipe, offline=offline, on_download=on_download)
        _require_length(recipe, subject)
        pairs, held_out, missing = _pairs(recipe)
        with Feeder(pairs, recipe, subject.preprocessing, rank=world.rank, ranks=world.size) as feeder:
            run = _Run(recipe, out, subject, feeder, place, world)
            run.open(pairs, held_out, missing, anew=anew)
            return run.go(progress or (lambda _: None), stop or (lambda: False))


def _require_elsewhere(recipe: Recipe, out: Path) -> None:
    """Raise UsageError where the model to begin with is in the folder that it would be replaced in."""
    source, place = parse_name(recipe.model) if recipe.model else ("", "")
    if source == "dir" and os.path.realpath(place) == os.path.realpath(out):
        raise UsageError(f"{out} is where the model to begin with is", hint="give another --out")


def _require_length(recipe: Recipe, subject: models.Subject) -> None:
    """Raise UsageError where long captions would be cut to what CLIP reads, unless that is wanted."""
    length = subject.config["text_cfg"].get("context_length", CLIP_TOKENS)
    if isinstance(recipe, LongClipRecipe) and not recipe.cut_long and length <= CLIP_TOKENS:
        longer = f"search models stretch {recipe.model} OUT, then --model dir:OUT"
        raise UsageError(
            f"{subject.origin} reads {length} tokens and would see long captions cut",
            hint=f"{longer if recipe.model else '--size text_cfg.context_length=248'}; --cut-long trains it so",
        )


def _pairs(recipe: Recipe) -> tuple[Pairs, Pairs, tuple[Skip, ...]]:
    """Return photos to train with, those to measure on, and the files that are not there.   Raises UsageError."""
    read = long_captions.read if isinstance(recipe, LongClipRecipe) else Pairs.of
    pairs, missing = read(recipe.captions).present()
    if recipe.held_out:
        held_out, also = read(recipe.held_out).present()
        held_out = held_out.split(1.0, recipe.held_out_most, recipe.seed)[1]
        unseen = set(held_out.paths)
        pairs = pairs.take([row for row, path in enumerate(pairs.paths) if path not in unseen])
        missing += also
    else:
        pairs, held_out = pairs.split(recipe.held_out_share, recipe.held_out_most, recipe.seed)
    if len(pairs.paths) < 2:
        raise UsageError(
            f"{recipe.captions} leaves {count_of(len(pairs.paths), 'photo')} to train with; it takes 2"
        )
    return pairs, held_out, missing


@contextmanager
def _own_random(recipe: Recipe, device: torch.device) -> Iterator[None]:
    """Seed torch for a run, and have it choose algorithms that repeat; all as before afterwards."""
    before, warns = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(recipe.seed)
        torch.use_deterministic_algorithms(recipe.deterministic, warn_only=True)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(before, warn_only=warns)


def rate(recipe: Recipe, step: int, steps: int) -> float:
    """Return the learning rate of a step, counted from 0: linear up to the highest, then a half cosine down."""
    if step < recipe.warm_up:
        return recipe.learning_rate * (step + 1) / recipe.warm_up
    done = (step - recipe.warm_up) / max(1, steps - recipe.warm_up)
    falling = (1 + math.cos(math.pi * done)) / 2
    return recipe.learning_rate * (recipe.final_rate + (1 - recipe.final_rate) * falling)


class _Run:
    """One run between two ends: `open` puts it where it begins or was, `go` does the rest."""

    def __init__(
        self,
        recipe: Recipe,
        out: Path,
        subject: models.Subject,
        feeder: Feeder,
        device: torch.device,
        world: World,
    ) -> None:
        self._recipe, self._out, self._subject, self._feeder = recipe, out, subject, feeder
        self._device, self._world = device, world
        subject.model.to(device)
        self._model = subject.model
        self._parameters = subject.parameters()
        self._objective = Objective.of(recipe)
        self._optimiser = _optimiser(recipe, self._parameters)
        self._average = Average(self._parameters, recipe.ema)
        self._encode = subject.encoders(device, half=recipe.precision == "bfloat16")
        self._measure = subject.encoders(device, half=False)
        self._step, self._loss = 0, math.nan
        self._measured: list[Measured] = []
        self._skipped: dict[str, Skip] = {}
        self._origin = subject.fingerprint

    def open(self, pairs: Pairs, held_out: Pairs, missing: tuple[Skip, ...], *, anew: bool) -> None:
        """Read the held-out part, and go back to where the run was cut short.   Raises UsageError, CheckpointError."""
        self._pairs, self._data = pairs, _fingerprint(pairs, held_out)
        self._pixels, rows, unread = self._feeder.middles(held_out)
        self._held_out = held_out.take(rows)
        self._skipped = {skip.path: skip for skip in (*missing, *unread)}
        found = None if anew else checkpoints.load(self._out)
        if found is None:
            return
        self._require_same(found.state)
        found.restore(self._model, self._optimiser, self._device)
        self._average.restore(found.average)
        self._step, self._loss = found.state["step"], found.state["loss"]
        self._measured = [Measured(one["step"], one["figures"]) for one in found.state["measured"]]

    def go(self, progress: Callable[[Moment], None], stop: Callable[[], bool]) -> Report:
        """Train to the end, or until it is to stop."""
        begun, seen, steps = time.monotonic(), 0, self._feeder.steps
        if not self._measured:
            self._evaluate()
        self._subject.training()
        for batch in self._feeder.batches(self._step):
            seen += self._learn(batch)
            failpoints.reach("train.stepped")
            speed = seen / max(time.monotonic() - begun, 1e-9)
            measured = self._evaluate() if self._due(self._recipe.evaluate_every) else None
            progress(Moment(self._step, steps, self._loss, self._rate(), speed, measured))
            if self._world.any(stop(), self._device):
                break
            if self._due(self._recipe.checkpoint_every) and self._step < steps:
                self._save()
        if self._step < steps:
            self._save()
        elif not all(torch.isfinite(one).all() for one in self._parameters.values()):
            raise _diverged("the last step left weights that are no numbers")
        seconds = time.monotonic() - begun
        report = self._report(seconds, seen / max(seconds, 1e-9))
        if report.finished and self._world.rank == 0:
            self._write(report)
        self._world.wait()
        return report

    def _due(self, every: int) -> bool:
        return bool(every) and (self._step % every == 0 or (self._step == self._feeder.steps))

    def _rate(self) -> float:
        return rate(self._recipe, max(0, self._step - 1), self._feeder.steps)

    def _learn(self, batch: Batch) -> int:
        """Make one step; return how many pairs it was of.   Raises TrainingError."""
        self._skipped |= {skip.path: skip for skip in batch.skipped}
        count = len(self._world.gathered(torch.zeros(len(batch.captions), device=self._device)))
        self._step += 1
        if count < 2:
            return 0
        loss = self._backward(batch)
        norm = torch.nn.utils.clip_grad_norm_(self._parameters.values(), self._recipe.clip_norm or math.inf)
        if not math.isfinite(loss) or not torch.isfinite(norm):
            raise _diverged(f"the loss is {loss:g} at step {self._step}, its gradient's length {float(norm):g}")
        for group in self._optimiser.param_groups:
            group["lr"] = self._rate()
        self._optimiser.step()
        self._optimiser.zero_grad(set_to_none=True)
        if self._recipe.loss == "softmax":
            with torch.no_grad():
                self._model.logit_scale.clamp_(max=MAX_LOG_SCALE)
        self._average.follow(self._step)
        told = self._loss if math.isfinite(self._loss) else loss
        self._loss = _SMOOTHED * told + (1 - _SMOOTHED) * loss
        return count

    def _positives(self, batch: Batch, term: Term) -> torch.Tensor | None:
        """Return (N, N), which captions of all processes fit which photos; None where only a photo's own does."""
        if not self._recipe.match_equal:
            return None
        numbers = self._world.gathered(_numbers(_texts(batch, term), batch.among).to(self._device))  # (N, 2)
        return (numbers[:, None] == numbers[None]).any(dim=-1)

    def _backward(self, batch: Batch) -> float:
        """Leave the gradients of one batch, of all processes, in the parameters; return its loss."""
        images, texts = self._encode
        subject, objective = self._subject, self._objective
        parts = [
            gradcache.Part(images, models.pixels_of(batch.pixels, self._device), subject.trains_images),
            *(
                gradcache.Part(texts, subject.tokens(_texts(batch, term)).to(self._device), subject.trains_texts)
                for term in objective.terms
            ),
        ]
        positives = [self._positives(batch, term) for term in objective.terms]

        def loss(*features: torch.Tensor) -> torch.Tensor:
            seen, *said = (self._world.gathered(one) for one in features)
            return objective(seen, said, self._model.logit_scale.exp(), self._bias(), positives)

        chunk = self._recipe.chunk or max(1, len(batch.pixels))
        found = gradcache.backward(self._model, parts, loss, chunk=chunk)
        self._world.sum_gradients(self._parameters.values(), subject.scales())
        return float(found)

    def _bias(self) -> torch.Tensor | None:
        return getattr(self._model, "logit_bias", None)

    def _evaluate(self) -> Measured:
        """Measure retrieval on the held-out part."""
        with self._average.in_place():
            measured = Measured(self._step, self._figures() if len(self._pixels) else {})
        self._measured.append(measured)
        return measured

    def _figures(self) -> dict[str, float]:
        self._model.eval()
        images = self._features(self._measure[0], models.pixels_of(self._pixels, self._device))
        figures = self._recalls(images, self._held_out.captions)
        if self._held_out.shorts:
            found = self._recalls(images, self._held_out.shorts)
            figures |= {f"short_{name}": value for name, value in found.items()}
        self._subject.training()
        return figures

    def _recalls(self, images: Any, captions: Sequence[Sequence[str]]) -> dict[str, float]:
        said = [caption for of_one in captions for caption in of_one]
        owners = np.repeat(np.arange(len(images)), [len(of_one) for of_one in captions])
        texts = self._features(self._measure[1], self._subject.tokens(said).to(self._device))
        photos = np.arange(len(images))
        of_images = first_positive_ranks(texts, images, owners, photos)
        of_texts = first_positive_ranks(images, texts, photos, owners)
        kinds = (("image_retrieval_recall", of_images), ("text_retrieval_recall", of_texts))
        return {f"{kind}@{k}": float((ranks < k).mean()) for k in _RECALL_K for kind, ranks in kinds}

    def _features(self, encode: models.Encode, inputs: torch.Tensor) -> Any:
        with torch.inference_mode():
            return torch.cat([encode(piece) for piece in torch.split(inputs, _EVALUATED)]).cpu().numpy()

    def _state(self) -> dict[str, Any]:
        return {
            "step": self._step,
            "loss": self._loss,
            "recipe": asdict(self._recipe),
            "data": self._data,
            "origin": self._origin,
            "world": self._world.size,
            "measured": [asdict(one) for one in self._measured],
        }

    def _require_same(self, state: Mapping[str, Any]) -> None:
        """Raise UsageError unless what was begun is this run."""
        now = self._state()
        differs = [told for name, told in _BEGUN_WITH.items() if state[name] != now[name]]
        if not self._recipe.same_run(state["recipe"]):
            differs.insert(0, "another recipe")
        if differs:
            raise UsageError(
                f"{self._out} holds a run that was begun with {differs[0]}",
                hint="--force begins anew, another --out keeps it",
            )

    def _save(self) -> None:
        if self._world.rank == 0:
            state = self._state()
            checkpoints.save(
                self._out,
                self._model,
                self._optimiser,
                average=self._average.weights,
                device=self._device,
                state=state,
            )
        self._world.wait()

    def _report(self, seconds: float, speed: float) -> Report:
        if self._measured[-1].step != self._step:
            self._evaluate()
        return Report(
            path=str(self._out.absolute()),
            steps=self._step,
            planned=self._feeder.steps,
            photos=len(self._pairs.paths),
            captions=sum(map(len, self._pairs.captions)),
            held_out=len(self._held_out.paths),
            loss=self._loss,
            measured=tuple(self._measured),
            skipped=tuple(self._skipped[path] for path in sorted(self._skipped)),
            data=self._data,
            seconds=seconds,
            images_per_second=speed,
        )

    def _write(self, report: Report) -> None:
        """Write the model and how it was made; only then is the run finished, and its checkpoint needed no more."""
        repeat = self._recipe.to_toml().encode("utf-8", "replace")
        record = self._record(report) | {REPEAT_SHA256: hashlib.sha256(repeat).hexdigest()}
        with finished(self._out) as folder:
            with self._average.in_place():
                self._subject.write(folder, precision=self._recipe.save_precision)
            atomic_write(folder / REPEAT, repeat)
            atomic_write(folder / RECORD, json.dumps(record, indent=2).encode())

    def _record(self, report: Report) -> dict[str, Any]:
        return {
            "recipe": asdict(self._recipe),
            "origin": {"name": self._subject.origin, "fingerprint": self._origin},
            "data": {"sha256": self._data, "photos": report.photos, "captions": report.captions},
            "held_out": report.held_out,
            "steps": report.steps,
            "batch_size": self._feeder.batch_size,
            "loss": report.loss,
            "measured": [asdict(one) for one in report.measured],
            "skipped": len(report.skipped),
            "versions": {"python": platform.python_version(), "search": version("search")}
            | {name: version(name) for name in _PACKAGES},
            "device": str(self._device),
        }


def _optimiser(recipe: Recipe, parameters: Mapping[str, torch.nn.Parameter]) -> torch.optim.AdamW:
    """AdamW, as CLIP trains with it: no decay of what is no matrix, gains, biases and the scale."""
    matrices = [one for one in parameters.values() if one.ndim >= 2]
    others = [one for one in parameters.values() if one.ndim < 2]
    groups = [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=recipe.learning_rate,
        betas=(recipe.beta1, recipe.beta2),
        eps=recipe.epsilon,
    )


def _diverged(what: str) -> TrainingError:
    return TrainingError(what, hint="--force with a lower --learning-rate or a longer --warm-up begins anew")


def _texts(batch: Batch, term: Term) -> tuple[str, ...]:
    return batch.shorts if term.short else batch.captions


def _fingerprint(pairs: Pairs, held_out: Pairs) -> str:
    if not held_out.paths:
        return pairs.fingerprint()
    return hashlib.sha256((pairs.fingerprint() + held_out.fingerprint()).encode()).hexdigest()


def _numbers(captions: tuple[str, ...], among: tuple[tuple[str, ...], ...]) -> torch.Tensor:
    """Return (N, 2) int64, of the caption drawn and of all its photo has: equal for equal ones, in every process."""
    said = [(caption, "\n".join(every)) for caption, every in zip(captions, among, strict=True)]
    return torch.tensor([list(map(_number, row)) for row in said], dtype=torch.int64).reshape(-1, 2)


def _number(text: str) -> int:
    digest = hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)
