"""What changes the library over HTTP: indexing and labelling as jobs, verdicts on labels, and taking runs back.

The second half of the REST interface: `OPERATIONS` stands beside api's in the one table (search.web.table).
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from search import documents
from search.web.api import LIST_PAGE, TEXT, Operation, answer, desk_of, listed, many
from search.web.asking import Parameter, Schema, of_document
from search.web.folders import check_permitted, folder_of
from search.web.jobs import Job, Jobs
from search.web.problems import Problem

if TYPE_CHECKING:
    from search.library import Library
    from search.types import TagReport


def jobs_of(request: Request) -> Jobs:
    """Return the jobs of the server."""
    jobs: Jobs = request.app.state.jobs
    return jobs


async def body_of(request: Request, parameters: tuple[Parameter, ...]) -> dict[str, Any]:
    """Return what a JSON body says. Raises Problem."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise Problem(415, "The body is application/json.")
    return of_document(await request.body(), parameters)


# ---- jobs


async def _job(request: Request, given: dict[str, Any]) -> Response:
    return answer(request, _said(jobs_of(request).last))


async def _stop(request: Request, given: dict[str, Any]) -> Response:
    return answer(request, _said(jobs_of(request).stop()))


async def _index(request: Request, given: dict[str, Any]) -> Response:
    job = await start_index(request, await body_of(request, INDEX))
    return answer(request, _said(job), status=202)


async def start_index(request: Request, asked: dict[str, Any]) -> Job:
    """Begin to index a folder. Raises Problem."""
    folder = folder_of(asked["folder"], asked["folder_bytes"])
    options = request.app.state.options

    def begin(library: Library) -> Job:
        check_permitted(folder, library, options)
        about = documents.path_fields(folder, "folder")
        return jobs_of(request).start("index", {"folder": folder}, asked=about)

    return await desk_of(request).look(begin)


async def _label(request: Request, given: dict[str, Any]) -> Response:
    job = await start_label(request, await body_of(request, LABEL))
    return answer(request, _said(job), status=202)


async def start_label(request: Request, asked: dict[str, Any]) -> Job:
    """Begin to propose labels for all photos. Raises Problem."""
    from search.labels.classifier import DEFAULT_MULTI_THRESHOLD
    from search.labels.sources import built_in

    labels, label_set = asked["labels"], asked["label_set"]
    if not labels and label_set is None:
        raise Problem(400, "Say which labels: `labels`, or a built-in `label_set`.")
    if label_set is not None and label_set not in built_in("labels"):  # never a file
        raise Problem(400, "There is no such label set.", more={"parameter": "label_set"})
    options = {
        "multi": asked["multi"],
        "threshold": asked["threshold"],
        "otherwise": DEFAULT_MULTI_THRESHOLD if asked["multi"] else 0.0,
        "none_of_these": asked["none_of_these"],
        "learned": asked["learned"],
        "k": asked["k"],
    }
    order = {"labels": labels, "label_set": label_set, "options": options}

    def begin(library: Library) -> Job:
        library.model.answering()  # raises for a library without photos
        return jobs_of(request).start("label", order, asked={"labels": labels, "label_set": label_set})

    return await desk_of(request).look(begin)


def _said(job: Job | None) -> dict[str, Any]:
    return {"job": job.document() if job else None}


async def _events(request: Request, given: dict[str, Any]) -> Response:
    """Stream the job as it stands, and each change of it, until it ends.

    Every event says all, so whoever comes again has missed nothing; who has seen the end already is told not to (204).
    """
    jobs = jobs_of(request)
    job, seen = jobs.last, request.headers.get("last-event-id")
    if job is not None and not job.is_running and seen == _event_id(job):
        return Response(status_code=204)
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(_stream(jobs.watch()), media_type="text/event-stream", headers=headers)


def _event_id(job: Job | None) -> str:
    return f"{job.id}.{job.version}" if job else "0"


async def _stream(watched: AsyncIterator[Job | None]) -> AsyncIterator[bytes]:
    first = True
    async with aclosing(watched):  # type: ignore[type-var]
        async for job in watched:
            if job is None and not first:
                yield b": still there\n\n"
            else:
                yield f"id: {_event_id(job)}\nevent: job\ndata: {json.dumps(_said(job))}\n\n".encode()
            first = False


# ---- labels


async def _accept(request: Request, given: dict[str, Any]) -> Response:
    return await _judge(request, lambda library, **asked: library.tags.accept(**asked))


async def _reject(request: Request, given: dict[str, Any]) -> Response:
    return await _judge(request, lambda library, **asked: library.tags.reject(**asked))


async def _judge(request: Request, judge: Callable[..., TagReport]) -> Response:
    asked = await body_of(request, JUDGE)
    asked["photos"] = asked["photos"] or None
    report = await desk_of(request).look(lambda library: judge(library, **asked))
    return answer(request, documents.tag_report_document(report))


async def _undo(request: Request, given: dict[str, Any]) -> Response:
    asked = await body_of(request, UNDO)
    if asked["run"] is None:
        raise Problem(400, "Say which run.", more={"parameter": "run"})
    report = await desk_of(request).look(lambda library: library.tags.undo(asked["run"]))
    return answer(request, documents.undo_document(report))


async def _runs(request: Request, given: dict[str, Any]) -> Response:
    found = await desk_of(request).look(lambda library: library.tags.runs()[::-1])
    return answer(request, listed("runs", found, documents.run_document, given))


async def _review(request: Request, given: dict[str, Any]) -> Response:
    """Tell what a review asks next, as `search tags review --json` does."""
    labels, k = tuple(given["label"]), given["k"]

    def look(library: Library) -> dict[str, Any]:
        review = request.app.state.reviews.of(library, labels)
        return {"items": [documents.question_document(one) for one in review.queue(k)], "left": review.left}

    return answer(request, await desk_of(request).answer(look))


async def _export(request: Request, given: dict[str, Any]) -> Response:
    """Send the labels as a list, as `search tags export --format` writes it."""
    from search.library.exporting import ExportOptions
    from search.library.label_lists import PARTS

    form = given["format"]
    options = ExportOptions(tuple(given["label"]), given["accepted"])

    def write(library: Library) -> bytes:
        runs = {run.id: run for run in library.tags.runs()}
        return b"".join(PARTS[form](library.tags.records(options=options), runs))

    name = f'attachment; filename="labels.{form}"'
    media = {"csv": "text/csv; charset=utf-8", "json": "application/json"}[form]
    content = await desk_of(request).look(write)
    return Response(content, media_type=media, headers={"Content-Disposition": name})


# ---- the table

_FLAG: Schema = {"type": "boolean"}
_P: Schema = {"type": "number", "minimum": 0, "maximum": 1}
_FOLDER: Schema = {"type": "string", "minLength": 1, "maxLength": 4096}
_ID: Schema = {"type": "integer", "minimum": 0, "maximum": 10**18 - 1}

INDEX = (
    Parameter("folder", _FOLDER, "An absolute path on the server's machine."),
    Parameter("folder_bytes", {**_FOLDER, "maxLength": 8192}, "Its bytes in base64, where it is not UTF-8."),
)
LABEL = (
    Parameter("labels", {"type": "array", "items": TEXT, "maxItems": 2000}, "Labels, as they stand."),
    Parameter("label_set", TEXT, "A built-in set: everyday, photo-tags, coco80, imagenet1k, places365."),
    Parameter("multi", _FLAG, "Decide each label by itself.", False),
    Parameter("threshold", _P, "Least probability."),
    Parameter("none_of_these", _FLAG, "Allow that no label fits.", False),
    Parameter("learned", _FLAG, "Let what your verdicts taught count.", True),
    Parameter("k", {"type": "integer", "minimum": 1, "maximum": 100}, "Labels a photo, at most."),
)
JUDGE = (
    Parameter("labels", many(TEXT), "The labels."),
    Parameter("photos", {"type": "array", "items": _ID, "maxItems": 10_000}, "Photos by their ids."),
    Parameter("above", _P, "Proposals at least this probable."),
    Parameter("below", _P, "Proposals less probable than this."),
)
REVIEW = (
    Parameter("label", many(TEXT), "Ask about these, on all photos; none: about what is proposed."),
    Parameter("k", {"type": "integer", "minimum": 1, "maximum": 100}, "How many at most.", 20),
)
EXPORT = (
    Parameter("format", {"type": "string", "pattern": "^(csv|json)$", "maxLength": 4}, "csv or json.", "csv"),
    Parameter("label", many(TEXT), "Only these labels."),
    Parameter("accepted", _FLAG, "Only what was accepted.", False),
)
UNDO = (Parameter("run", {"type": "integer", "minimum": 1, "maximum": 2**53}, "The run's number."),)

_JOB_PROBLEMS = (408, 409, 413, 415, 503)
_VERDICT_PROBLEMS = (404, 408, 413, 415, 503, 507)
OPERATIONS = (
    Operation(
        "POST",
        "/api/index",
        "index",
        "Index a folder; it is a job from then on.",
        _index,
        "JobAnswer",
        body=INDEX,
        status=202,
        problems=_JOB_PROBLEMS,
    ),
    Operation(
        "POST",
        "/api/label",
        "label",
        "Propose labels for all photos; it is a job from then on.",
        _label,
        "JobAnswer",
        body=LABEL,
        status=202,
        problems=_JOB_PROBLEMS,
    ),
    Operation("GET", "/api/job", "job", "The job that runs, else this server's last one.", _job, "JobAnswer"),
    Operation(
        "DELETE",
        "/api/job",
        "stopJob",
        "End the job after its current batch; what is done is kept.",
        _stop,
        "JobAnswer",
        problems=(409,),
    ),
    Operation(
        "GET",
        "/api/job/events",
        "jobEvents",
        "The job as server-sent events `job`, each with all of it, until it ends.",
        _events,
        None,
        media=("text/event-stream",),
    ),
    Operation(
        "POST",
        "/api/labels/accept",
        "accept",
        "Say that photos have labels.",
        _accept,
        "TagReport",
        body=JUDGE,
        problems=_VERDICT_PROBLEMS,
    ),
    Operation(
        "POST",
        "/api/labels/reject",
        "reject",
        "Say that photos do not have labels.",
        _reject,
        "TagReport",
        body=JUDGE,
        problems=_VERDICT_PROBLEMS,
    ),
    Operation(
        "POST",
        "/api/labels/undo",
        "undo",
        "Take back what a run added.",
        _undo,
        "UndoReport",
        body=UNDO,
        problems=_VERDICT_PROBLEMS,
    ),
    Operation(
        "GET",
        "/api/labels/runs",
        "runs",
        "What wrote labels and when, the last first.",
        _runs,
        "Runs",
        parameters=LIST_PAGE,
        problems=(503,),
    ),
    Operation(
        "GET",
        "/api/labels/export",
        "exportLabels",
        "The labels of all photos as a list.",
        _export,
        None,
        parameters=EXPORT,
        problems=(404, 503),
        media=("text/csv", "application/json"),
    ),
    Operation(
        "GET",
        "/api/review",
        "review",
        "What a review asks next: the least certain labels first.",
        _review,
        "Review",
        parameters=REVIEW,
        problems=(503,),
    ),
)
