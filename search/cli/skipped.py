"""search skipped"""

from __future__ import annotations

from search.cli.options import Settings, as_command


@as_command("skipped")
def command(settings: Settings) -> None:
    """List the files that could not be indexed, with reasons.

    \b
    Example:
      search skipped
    """
    from search.cli.output import emit_json, emit_table
    from search.documents import skip_document

    with settings.open_library() as library:
        skipped = library.skipped()
    if settings.json:
        emit_json({"skipped": [skip_document(skip) for skip in skipped]})
    elif skipped:
        emit_table([(skip.path, skip.reason, skip.detail) for skip in skipped])
    else:
        settings.talk("no file was skipped")
