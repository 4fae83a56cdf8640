"""search tags reject"""

from __future__ import annotations

from typing import Any

from search.cli.options import Settings, as_command
from search.cli.tags.judging import judge, judging_options


@as_command("reject")
@judging_options
def command(settings: Settings, **options: Any) -> None:
    """Say that photos do not have a label; a folder stands for the photos in it.

    It is not shown and not found there any more, and labelling anew does not bring it back. --above and --below as for
    accept.

    \b
    Examples:
      search tags reject --label cat IMG_3.jpg
      search tags reject --label cat --below 0.3
    """
    judge(settings, "reject", **options)
