"""How the files of a scan stand to what is known of photos and skips: conditions of SQL."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Column, ColumnElement, ScalarSelect, Select, and_, case, exists, not_, or_, select

from search.catalog.found import Settled, Verdict
from search.catalog.schema import embeddings, photos, scanned, skips


def here() -> ColumnElement[bool]:
    """Whether a file and a photo have one place."""
    return and_(scanned.c.root_id == photos.c.root_id, scanned.c.path == photos.c.path)


def same_stat() -> ColumnElement[bool]:
    """Whether a file is as its photo knows it. Different is different, never "newer": clocks go wrong.

    The change time finds an edit that put size and modification time back. It also changes when a file is renamed
    or gets other permissions; that costs reading the file once, not decoding it. The inode number is left out: FAT
    and some network drives hand out new ones at every mount, and a file that was replaced has a new change time
    anyway.
    """
    same = and_(photos.c.size_bytes == scanned.c.size_bytes, photos.c.mtime_ns == scanned.c.mtime_ns)
    return and_(same, _same_or_unknown(photos.c.ctime_ns))


def _same_or_unknown(ctime_ns: Column[int]) -> ColumnElement[bool]:
    return or_(ctime_ns.is_(None), scanned.c.ctime_ns.is_(None), ctime_ns == scanned.c.ctime_ns)


def scanned_as_is() -> ColumnElement[bool]:
    """Photos whose file was found as they know it."""
    return exists().where(here(), same_stat())


def embedded(encoder_id: int | ScalarSelect[Any]) -> ColumnElement[bool]:
    """Photos that have a vector by this encoder."""
    return exists().where(embeddings.c.encoder_id == encoder_id, embeddings.c.photo_id == photos.c.id)


def lacking(encoder_id: int | ScalarSelect[Any]) -> ColumnElement[bool]:
    """Photos present that should have a vector by this encoder and have none.

    Those whose file can't be read any more are not among them: nothing could give them one.
    """
    broken = exists().where(skips.c.root_id == photos.c.root_id, skips.c.path == photos.c.path)
    return and_(photos.c.gone_at.is_(None), not_(embedded(encoder_id)), not_(broken))


def classified(encoder_id: int, settled: Settled) -> Select[Any]:
    """Return the files of a scan, each with its verdict and the id of the photo that has its place."""
    same = same_stat()
    memo = exists().where(
        skips.c.root_id == scanned.c.root_id,
        skips.c.path == scanned.c.path,
        skips.c.size_bytes == scanned.c.size_bytes,
        skips.c.mtime_ns == scanned.c.mtime_ns,
        _same_or_unknown(skips.c.ctime_ns),
        skips.c.decoder == settled.decoder,
        skips.c.reason.in_(settled.reasons),
    )
    twin = photos.alias()
    present = and_(same, embedded(encoder_id), photos.c.gone_at.is_(None))
    verdict = case(
        (and_(present, photos.c.reader == settled.reader), Verdict.UNCHANGED),
        (present, Verdict.UNREAD),
        (and_(same, embedded(encoder_id)), Verdict.RETURNED),
        (memo, Verdict.SETTLED),
        (same, Verdict.UNEMBEDDED),
        (photos.c.id.is_not(None), Verdict.CHANGED),
        (exists().where(twin.c.size_bytes == scanned.c.size_bytes), Verdict.SUSPECT),
        else_=Verdict.NEW,
    )
    query = select(scanned, photos.c.id.label("photo_id"), verdict.label("verdict"))
    return query.select_from(scanned.outerjoin(photos, here()))
