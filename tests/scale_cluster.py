"""A Ray cluster of two machines, both this one; a process of its own, which obeys a line at a time.

    python scale_cluster.py HEAD OTHER      resources of either, as JSON that Cluster.add_node takes

Says its address, then `done` after each line: `other` kills that node, `head` the first one, with what they run.
"""

from __future__ import annotations

import json
import sys

from ray.cluster_utils import Cluster


def main() -> None:
    head, other = (json.loads(word) for word in sys.argv[1:])
    cluster = Cluster(initialize_head=True, head_node_args={**head, "include_dashboard": False})
    lost = {"other": cluster.add_node(**other), "head": cluster.head_node}
    say(cluster.address)
    for line in sys.stdin:
        cluster.remove_node(lost[line.strip()], allow_graceful=False)
        say("done")


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
