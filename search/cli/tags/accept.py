"""search tags accept"""

from __future__ import annotations

from typing import Any

from search.cli.options import Settings, as_command
from search.cli.tags.judging import judge, judging_options


@as_command("accept")
@judging_options
def command(settings: Settings, **options: Any) -> None:
    """Say that photos have a label, proposed or not; a folder stands for the photos in it.

    With --above or --below it is all photos that the label is proposed for so, or those among the ones that are named;
    photos that you judged before are left alone then.

    \b
    Examples:
      search tags accept --label cat IMG_1.jpg IMG_2.jpg
      search tags accept --label cat --above 0.9
    """
    judge(settings, "accept", **options)
