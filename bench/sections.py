"""What one sitting of bench/run.py measures: a section a script, and which of their figures stand at the top.

`{data}` stands for the folder of labelled photos. Sizes are such that all of it takes half an hour on two cores.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

CLASSES = "--classes {data}/flowers --classes {data}/styles/photo --classes {data}/styles/sketch"
SETS = f"{CLASSES} --classes {{data}}/styles/cartoon --classes {{data}}/styles/art_painting"
CAPTIONS = "{data}/captions/captions.tsv"


@dataclass(frozen=True, slots=True)
class Section:
    """A heading and what is measured under it.

    script: a file of this folder and its arguments.   quick: the arguments instead, for a quick look.   has_figures:
    whether it takes `--json FILE` for figures of the summary.
    """

    title: str
    script: str
    quick: str | None = None
    has_figures: bool = False

    @property
    def needs_data(self) -> bool:
        return "{data}" in self.script

    def words(self, *, quick: bool = False) -> list[str]:
        name, _, arguments = self.script.partition(" ")
        return [name, *shlex.split(arguments if not quick or self.quick is None else self.quick)]

    def places(self, data: Path | None) -> list[Path]:
        """Return the files and folders that it needs below the folder of labelled photos."""
        found = re.findall(r"\{data\}/([\w./]+)", self.script)
        return [data / place for place in dict.fromkeys(found)] if data else []


SECTIONS = (
    Section("Models", "models.py", "--photos 8 --models builtin ViT-B-32-256", has_figures=True),
    Section("Disk and memory for 100,000 photos", "footprint.py", "--photos 5000 --requests 5"),
    Section("Indexing and searching beside rclip", "against_rclip.py", "--quick", has_figures=True),
    Section("Indexing beside clip-retrieval", "against_clip_retrieval.py", "--quick", has_figures=True),
    Section(
        "Metrics beside CLIP_benchmark", "against_clip_benchmark.py", "--rounds 3 --photos 500", has_figures=True
    ),
    Section("Interruptions, here and in rclip", "reliability.py --photos 200", "--photos 100", has_figures=True),
    Section("A million vectors", "index.py --queries 30", "--n 20000 --queries 5", has_figures=True),
    Section(
        "Encoders and the processor's limit",
        "encoders.py --models ViT-B-32 MobileCLIP2-S0 --batches 16 --rounds 3",
        "--models ViT-B-32 --batches 4 --rounds 1",
    ),
    Section("Decoding, encoding and both", "pipeline.py --rounds 1 --share 0.5", "--rounds 1 --share 0.1"),
    Section("Decoding in child processes", "decoding.py --rounds 2", "--rounds 1"),
    Section("A second run", "incremental.py", "--photos 100"),
    Section("Memory for large photos", "memory.py", "--photos 2 --megapixels 12"),
    Section("Indexing on a busy machine", "contention.py --photos 300 --runs 2", "--photos 40 --runs 1"),
    Section("Conditions", "filters.py --photos 100000", "--photos 5000 --runs 2"),
    Section("A thousand labels", "labels.py --photos 32768", "--labels 50 --photos 1000"),
    Section(
        "A server under load",
        "serving.py --requests 256 --flat 2000",
        "--photos 2000 --requests 64 --flat 160",
    ),
    Section("Labels into sidecars", "export.py", "--count 300 --rival-count 30"),
    Section("Duplicates among many photos", "duplicates.py", "--count 5000"),
    Section("The built-in model on the demo's photographs", "quality.py"),
    Section("The built-in model on class folders", f"quality.py {CLASSES}"),
    Section("Zero-shot", "evaluations.py zero-shot {data}/flowers"),
    Section("Retrieval", f"evaluations.py retrieval {CAPTIONS}"),
    Section("Robustness", "evaluations.py robustness {data}/styles"),
    Section("Relevance", "evaluations.py relevance {data}/styles/photo {data}/flowers"),
    Section("Wordings", "evaluations.py prompts {data}/flowers"),
    Section("Examples against words", "evaluations.py probe {data}/flowers"),
    Section("Other words for the same photos", "laboratory.py {data}/flowers --rounds 1"),
    Section("A linear probe", "probes.py {data}/flowers {data}/photos {data}/styles/photo"),
    Section(
        "Corrected labels", "corrections.py {data}/flowers --seeds 3", "{data}/flowers --seeds 2 --budgets 10"
    ),
    Section("Verdicts of one kind", "corrections.py {data}/flowers --one-sided --seeds 1"),
    Section("Labels by themselves", f"label_calibration.py {SETS} --named {{data}}/photos --captions {CAPTIONS}"),
    Section(
        "Prompt templates for queries",
        f"query_templates.py {SETS} --captions {CAPTIONS}",
        "--classes {data}/flowers",
    ),
    Section("Long texts", f"stretching.py {CAPTIONS}"),
    Section(
        "Duplicates on a made set",
        "duplicates.py --photos {data}/photos --most 60",
        "--photos {data}/photos --most 6",
    ),
    Section("Pictures scaled down first", "scaling.py {data}/photos"),
)

SUMMARY_TITLE = "Against rclip and clip-retrieval"
_RCLIP, _VECTORS = "Indexing and searching beside rclip", "A million vectors"
SUMMARY = (
    (_RCLIP, "index 1,000 photos"),
    (_RCLIP, "index 32 photos of 12 MP"),
    ("Indexing beside clip-retrieval", "index one photo more"),
    (_RCLIP, "a new text query, 1,000 photos"),
    (_RCLIP, "a new text query, 100,000 photos"),
    (_RCLIP, "look again at 100,000 unchanged files"),
    (_VECTORS, "search 1,000,000 vectors"),
    ("Metrics beside CLIP_benchmark", "recall of 5,000 photos"),
    ("Metrics beside CLIP_benchmark", "memory for it"),
    ("Interruptions, here and in rclip", "photos kept"),
)
"""Sections and how the names of their figures begin."""
