"""The command line with another task for workers: `python scale_driver.py TASK index ...`, one of scale_tasks."""

from __future__ import annotations

import sys

import scale_tasks

from search.cli import main
from search.shards import run

if __name__ == "__main__":
    run.encode_shard = getattr(scale_tasks, sys.argv.pop(1))
    main()
