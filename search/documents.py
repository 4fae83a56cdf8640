"""Values as the JSON documents that the command line prints and the HTTP interface returns.

Paths are absolute; names that are not valid UTF-8 come with surrogate escapes, and their bytes beside them.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable

    from search.types import (
        Answer,
        Contents,
        Hit,
        IndexReport,
        JobStatus,
        LabelledPhoto,
        Labelling,
        LabelRecord,
        LabelSummary,
        LibraryStatus,
        Passport,
        Photo,
        RootStatus,
        RunInfo,
        Skip,
        SpotCheck,
        Suggestion,
        TagReport,
        UndoReport,
        Withheld,
    )


def path_fields(path: str, name: str = "path") -> dict[str, str]:
    """Return a path for JSON; its bytes too where they are not valid UTF-8."""
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        import base64

        return {name: path, f"{name}_bytes": base64.b64encode(os.fsencode(path)).decode()}
    return {name: path}


def photo_document(photo: Photo) -> dict[str, Any]:
    """Return the fields of a photo that every answer has."""
    info = photo.info
    return {
        "id": photo.id,
        **path_fields(photo.path),
        "width": info.width,
        "height": info.height,
        "taken_at": info.taken_at.isoformat() if info.taken_at else None,
        "camera": info.camera,
        "latitude": info.latitude,
        "longitude": info.longitude,
        "labels": list(photo.labels),
    }


def whole_photo_document(photo: Photo) -> dict[str, Any]:
    """Return everything known of a photo."""
    info = photo.info
    return {
        **photo_document(photo),
        "root": photo.root,
        "format": info.format,
        "size_bytes": photo.size_bytes,
        "mtime_ns": photo.mtime_ns,
        "content_hash": photo.content_hash,
        "orientation": info.orientation,
        "taken_at_source": info.taken_at_source,
        "lens": info.lens,
        "rating": info.rating,
        "keywords": list(info.keywords),
        "gone_at": photo.gone_at.isoformat() if photo.gone_at else None,
    }


def record_document(record: LabelRecord) -> dict[str, Any]:
    """Return a label on a photo with where it is from."""
    return {
        "label": record.label,
        "source": record.source,
        "probability": record.probability,
        "score": record.score,
        "encoder": record.encoder,
        "run": record.run,
        "rejected": record.rejected,
        "created_at": record.created_at.isoformat() if record.created_at else None,
    }


def hit_document(rank: int, hit: Hit) -> dict[str, Any]:
    clauses = [{"text": c.text, "score": c.score, "relevance": c.relevance, "holds": c.holds} for c in hit.clauses]
    return {
        "rank": rank,
        "score": hit.score,
        "relevance": hit.relevance,
        **photo_document(hit.photo),
        **({"clauses": clauses} if clauses else {}),
    }


def answer_document(answer: Answer) -> dict[str, Any]:
    return {
        "query": answer.query,
        "encoder": answer.encoder,
        "hits": [hit_document(rank, hit) for rank, hit in enumerate(answer.hits, start=1)],
        "candidates": answer.candidates,
        "truncated_tokens": answer.truncated_tokens,
        **({"clauses": list(answer.clauses)} if answer.clauses else {}),
        "cut": answer.cut,
        "below": answer.below,
        "best": answer.best,
        "seconds": answer.seconds,
    }


def skip_document(skip: Skip) -> dict[str, str]:
    return {**path_fields(skip.path), "reason": str(skip.reason), "detail": skip.detail}


def withheld_document(withheld: Withheld) -> dict[str, Any]:
    return {**path_fields(withheld.path), "photos": withheld.photos, "reason": withheld.reason}


def job_document(job: JobStatus) -> dict[str, Any]:
    return {
        "kind": job.kind,
        "state": str(job.state),
        "started_at": job.started_at.isoformat(),
        "heartbeat_at": job.heartbeat_at.isoformat(),
        "done": job.done,
        "total": job.total,
        "pid": job.pid,
        "host": job.host,
    }


def report_document(report: IndexReport, library: str) -> dict[str, Any]:
    return {
        "library": library,
        "encoder": report.encoder,
        "photos": report.photos,
        "added": report.added,
        "updated": report.updated,
        "moved": report.moved,
        "unchanged": report.unchanged,
        "gone": report.gone,
        "offline": report.offline,
        "withheld": [withheld_document(withheld) for withheld in report.withheld],
        "purged": report.purged,
        "skipped": [skip_document(skip) for skip in report.skipped],
        "encoded": report.encoded,
        "reread": report.reread,
        "not_encoded": report.not_encoded,
        "seconds": report.seconds,
        "images_per_second": report.images_per_second,
        "interrupted": report.interrupted,
        "not_published": report.not_published,
        "index_behind": report.index_behind,
        "passed_over": {str(kind): count for kind, count in report.passed_over.items()},
    }


def introduction_document(contents: Contents, suggestions: Iterable[Suggestion]) -> dict[str, Any]:
    """Return what the first run tells beside its report."""
    found = {"formats": dict(contents.formats), "years": contents.years and list(contents.years)}
    return {
        "found": {**found, "folders": contents.folders},
        "suggestions": [suggestion_document(suggestion) for suggestion in suggestions],
    }


def suggestion_document(suggestion: Suggestion) -> dict[str, Any]:
    return {"query": suggestion.query, "relevance": suggestion.relevance}


def labelled_document(photo: LabelledPhoto) -> dict[str, Any]:
    labels = [{"label": x.label, "probability": x.probability, "score": x.score} for x in photo.labels]
    parents = [{"label": x.label, "probability": x.probability} for x in photo.parents]
    return {**path_fields(photo.path), "labels": labels} | ({"parents": parents} if parents else {})


def labelling_document(labelling: Labelling) -> dict[str, Any]:
    return {
        "encoder": labelling.encoder,
        "labels": list(labelling.labels),
        "templates": list(labelling.templates),
        "label_set": labelling.label_set,
        "template_set": labelling.templates_name,
        "photos": [labelled_document(photo) for photo in labelling.photos],
        "skipped": [skip_document(skip) for skip in labelling.skipped],
        "applied": labelling.applied,
        "run": labelling.run,
        "truncated_tokens": labelling.truncated_tokens,
    }


def root_document(root: RootStatus) -> dict[str, Any]:
    return {**path_fields(root.path), "state": "online" if root.online else "offline", "photos": root.photos}


def status_document(status: LibraryStatus) -> dict[str, Any]:
    return {
        "library": status.path,
        "photos": status.photos,
        "roots": [root_document(root) for root in status.roots],
        "encoders": [{"name": e.name, "dim": e.dim, "photos": e.photos} for e in status.encoders],
        "index": dict(status.index),
        "skipped": status.skipped,
        "schema": status.schema,
        "job": job_document(status.job) if status.job else None,
    }


def label_document(one: LabelSummary) -> dict[str, Any]:
    """Return a label of the library with how often it is there and how good it is."""
    low, share, high = one.precision or (None, None, None)
    precision = {"low": low, "share": share, "high": high} if one.precision else None
    return {
        "label": one.label,
        "photos": one.photos,
        "proposed": one.proposed,
        "accepted": one.accepted,
        "imported": one.imported,
        "rejected": one.rejected,
        "in_files": one.in_files,
        "judged": one.judged,
        "right": one.right,
        "precision": precision,
    }


def passport_document(passport: Passport) -> dict[str, Any]:
    """What vectors of other software were held against, and how they stood."""
    return {
        "source": passport.source,
        "place": passport.place,
        "model": passport.model,
        "fingerprint": passport.fingerprint,
        "preprocessing": dict(passport.preprocessing),
        "orientation": passport.orientation,
        "agreement": passport.agreement,
        "compared": len(passport.spots),
        "agreeing": passport.agreeing,
        "lowest": round(passport.lowest, 5),
        "median": round(passport.median, 5),
        "turned": len(passport.turned),
        "deviating": [_spot(spot) for spot in passport.spots if not spot.cosine >= passport.agreement],
    }


def _spot(spot: SpotCheck) -> dict[str, Any]:
    return {**path_fields(spot.path), "cosine": round(spot.cosine, 5), "as_stored": round(spot.as_stored, 5)}


def run_document(run: RunInfo) -> dict[str, Any]:
    """Return what wrote labels, and what still stands of it."""
    return {
        "run": run.id,
        "kind": run.kind,
        "started_at": run.started_at.isoformat(),
        "encoder": run.encoder,
        "label_set": run.label_set,
        "templates": run.templates,
        "photos": run.photos,
        "labels": run.labels,
        "details": run.details,
        "undone_at": run.undone_at.isoformat() if run.undone_at else None,
    }


def tag_report_document(report: TagReport) -> dict[str, Any]:
    """Return what accepting or rejecting changed."""
    return {
        "run": report.run,
        "photos": report.photos,
        "labels": report.labels,
        "unchanged": report.unchanged,
        "new": list(report.new),
    }


def undo_document(report: UndoReport) -> dict[str, Any]:
    """Return what was taken back."""
    return {
        "run": report.run,
        "kind": report.kind,
        "labels": report.labels,
        "verdicts": report.verdicts,
        "photos": report.photos,
        "sidecars": report.sidecars,
        "skipped": [skip_document(skip) for skip in report.skipped],
    }


class Question(Protocol):
    """What a review asks: whether a photo has a label."""

    @property
    def photo(self) -> Photo: ...
    @property
    def label(self) -> str: ...
    @property
    def probability(self) -> float: ...
    @property
    def uncertainty(self) -> float: ...
    @property
    def why(self) -> str: ...


def question_document(question: Question) -> dict[str, Any]:
    """Return a question of a review."""
    return {
        **path_fields(question.photo.path),
        "id": question.photo.id,
        "label": question.label,
        "probability": question.probability,
        "uncertainty": question.uncertainty,
        "why": question.why,
    }
