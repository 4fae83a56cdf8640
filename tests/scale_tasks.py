"""Tasks for shards that worker processes can import."""

from __future__ import annotations

import os
import time

from search.shards import Job, Receipt, Shard
from search.shards.encoding import encode_shard


def deadly(shard: Shard, job: Job, poison: str, deaths: str) -> Receipt:
    """Encode a shard; a file of the poison's name ends the process, which is noted."""
    if any(os.path.basename(file.path) == poison for file in shard.files):
        with open(deaths, "a") as log:
            log.write(f"{len(shard.files)}\n")
        os._exit(1)
    return encode_shard(shard, job)


def poisoned(shard: Shard, job: Job) -> Receipt:
    """Encode a shard; a file named poison.jpg ends the process."""
    if any(os.path.basename(file.path) == "poison.jpg" for file in shard.files):
        os._exit(1)
    return encode_shard(shard, job)


def with_gpus(shard: Shard, job: Job) -> Receipt:
    """Encode a shard; beside the store is noted which GPUs it was given."""
    time.sleep(0.5)  # so that as many run at a time as can
    with open(f"{job.store}.gpus", "a") as log:
        log.write(f"{os.environ.get('CUDA_VISIBLE_DEVICES', 'all')}\n")
    return encode_shard(shard, job)


def failing(shard: Shard, of: str) -> Receipt:
    """Fail on the shard of this name."""
    if shard.name == of:
        raise OSError("no such disk")
    return Receipt(shard.name, len(shard.files))


def slow(shard: Shard) -> Receipt:
    """Never end."""
    time.sleep(3600)
    raise AssertionError
