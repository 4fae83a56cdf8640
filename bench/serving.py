"""How many searches a second a server answers, how long each takes, and what becomes of its memory.

A library of random unit vectors, `search serve` on the loopback, and so many clients that ask without a pause, each on
a connection of its own, every request in other words. The same is held against two limits in the same run: the query
itself, asked in one process without HTTP, and a server of the same kind that sends the same bytes without a search.

python bench/serving.py [--photos 100000] [--requests 1500] [--flat 10000]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from urllib.parse import quote
from urllib.request import urlopen

import numpy as np
import psutil
from PIL import Image

from search import Library
from search.encoders import load_encoder
from search.query import Kind, Query, Term
from stopwatch import print_head, workshop
from synthetic import Identity, make_library

CLIENTS = (1, 8, 32)
COLOURS = ("red", "blue", "green", "white", "black", "yellow", "brown", "grey", "golden", "striped")
THINGS = ("car", "dog", "cat", "house", "tree", "child", "boat", "flower", "bicycle", "bird", "horse", "cup")
PLACES = ("in the snow", "on a beach", "at night", "in a kitchen", "near a river", "on a street", "in the rain")
LIMIT = """
import sys, uvicorn
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route
body = open(sys.argv[1], "rb").read()
async def same(request): return Response(body, media_type="application/json")
uvicorn.run(Starlette(routes=[Route("/api/search", same)]), port=int(sys.argv[2]), log_level="error", http="h11")
"""


@dataclass(frozen=True, slots=True)
class Load:
    """What so many clients saw: requests a second, milliseconds at half and at 99 of a hundred, and errors.

    cpu_ms: what the server's process took for each; on a busy machine it says more than the clock.
    """

    a_second: float
    p50_ms: float
    p99_ms: float
    errors: int
    cpu_ms: float


def text(number: int) -> str:
    """Return words that no other number below 100,000 or so has."""
    colour, thing, place = COLOURS[number % 10], THINGS[number // 10 % 12], PLACES[number // 120 % 7]
    return f"a {colour} {thing} {place} {number}"


# ---- clients


async def ask(port: int, numbers: Sequence[int], taken: list[float]) -> int:
    """Ask one after another on one connection; return how many answers were none."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    errors = 0
    for number in numbers:
        started = time.perf_counter()
        writer.write(f"GET /api/search?q={quote(text(number))}&k=10 HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(
            int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")
        )
        await reader.readexactly(length)
        taken.append(time.perf_counter() - started)
        errors += not head.startswith(b"HTTP/1.1 200")
    writer.close()
    return errors


async def load(
    port: int, clients: int, requests: int, *, start: int, process: psutil.Process | None = None
) -> Load:
    """Have so many clients ask so much together.   start: the number of the first text.   process: the server's."""
    taken: list[float] = []
    before = sum(process.cpu_times()[:2]) if process else 0.0
    each = requests // clients
    started = time.perf_counter()
    errors = await asyncio.gather(
        *(ask(port, range(start + at * each, start + (at + 1) * each), taken) for at in range(clients))
    )
    seconds = time.perf_counter() - started
    cpu = sum(process.cpu_times()[:2]) - before if process else 0.0
    return summed(taken, seconds, cpu, errors=sum(errors))


def summed(taken: list[float], seconds: float, cpu: float, *, errors: int = 0) -> Load:
    taken = sorted(taken)
    count = len(taken)
    return Load(count / seconds, 1000 * median(taken), 1000 * taken[int(count * 0.99)], errors, 1000 * cpu / count)


# ---- servers


@contextmanager
def served(library: Path) -> Iterator[tuple[int, psutil.Process]]:
    """Start `search serve`; yield its port and process."""
    command = [sys.executable, "-m", "search", "--library", library, "--offline", "serve", "--port", "0", "--json"]
    with subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True) as process:
        try:
            said = ""
            while not said.endswith("}\n"):
                said += process.stdout.readline()
            yield int(json.loads(said)["url"].rstrip("/").rpartition(":")[2]), psutil.Process(process.pid)
        finally:
            process.terminate()


@contextmanager
def limit(body: bytes, folder: Path) -> Iterator[int]:
    """Start a server that sends the same bytes whatever is asked; yield its port."""
    (folder / "body").write_bytes(body)
    port = 18000 + os.getpid() % 1000
    command = [sys.executable, "-c", LIMIT, str(folder / "body"), str(port)]
    with subprocess.Popen(command) as process:
        try:
            for _ in range(600):
                with socket_or_none(port) as there:
                    if there:
                        break
                time.sleep(0.1)
            yield port
        finally:
            process.terminate()


@contextmanager
def socket_or_none(port: int) -> Iterator[bool]:
    with socket.socket() as connection:
        yield connection.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def writing(library: Path, folder: Path, port: int) -> Iterator[None]:
    """Index a folder of small pictures by another process; yield once the first of them are in the library."""
    before = photos_of(port)
    command = [sys.executable, "-m", "search", "--library", library, "--offline", "index", make_pictures(folder)]
    with subprocess.Popen(
        list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            while photos_of(port) == before and process.poll() is None:
                time.sleep(0.2)
            yield
            if process.poll() is not None:
                print("the indexer was done before the end", file=sys.stderr)
        finally:
            process.terminate()


def make_pictures(folder: Path, count: int = 3000) -> Path:
    """Write pictures that differ into a new folder."""
    place = Path(tempfile.mkdtemp(dir=folder))
    for number in range(count):
        noise = np.frombuffer(os.urandom(6 * 8 * 3), np.uint8).reshape(6, 8, 3)
        Image.fromarray(noise).resize((64, 48)).save(place / f"{number}.jpg")
    return place


def photos_of(port: int) -> int:
    with urlopen(f"http://127.0.0.1:{port}/api/status") as answer:
        return json.load(answer)["photos"]


# ---- the table


def bare(library: Path, requests: int) -> Load:
    """The query itself, in this process."""
    taken = []
    with Library.open(library, offline=True) as opened:
        for number in range(requests + 20):
            started = time.perf_counter()
            opened.answer(Query((Term(Kind.TEXT, text(50_000 + number)),)), 11)
            taken.append(time.perf_counter() - started)
            if number == 19:
                before = time.process_time()
    return summed(taken[20:], sum(taken[20:]), time.process_time() - before)


def print_load(what: str, found: Load, bare_: Load) -> None:
    print(
        f"| {what} | {found.a_second:.0f} | {found.p50_ms:.1f} · {found.p99_ms:.1f} | {found.errors} | "
        f"{found.cpu_ms:.1f} | {found.a_second / bare_.a_second:.2f} |",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=100_000)
    parser.add_argument("--requests", type=int, default=1500, help="for each row")
    parser.add_argument("--flat", type=int, default=10_000, help="requests over which memory is watched")
    parser.add_argument("--library", type=Path, help="one that is there already, and will be written to")
    arguments = parser.parse_args()
    print_head(f"A server with {arguments.photos} photos")
    with workshop() as folder:
        run(arguments, folder, arguments.library or made(arguments.photos, folder))


def made(photos: int, folder: Path) -> Path:
    make_library(folder / "library", photos, encoder=Identity.of(load_encoder("builtin", offline=True)))
    return folder / "library"


def run(arguments: argparse.Namespace, folder: Path, library: Path) -> None:
    alone = bare(library, arguments.requests // 3)
    with served(library) as (port, process):
        asyncio.run(load(port, 1, 50, start=90_000))
        body = sample(port)
        with limit(body, folder) as other:
            asyncio.run(load(other, 1, 50, start=0))
            rows(arguments, folder, library, (port, other), alone, process)
        watch(arguments, port, process)


def sample(port: int) -> bytes:
    with urlopen(f"http://127.0.0.1:{port}/api/search?q=noise&min_relevance=0") as answer:
        return answer.read()


def rows(
    arguments: argparse.Namespace,
    folder: Path,
    library: Path,
    ports: tuple[int, int],
    alone: Load,
    process: psutil.Process,
) -> None:
    print("| clients | answers a second | p50 · p99, ms | errors | CPU, ms | of the bare query |")
    print("|---|---|---|---|---|---|")
    number = 0
    for is_writing in (False, True):
        for clients in CLIENTS:
            number += arguments.requests
            if is_writing:
                with writing(library, folder, ports[0]):
                    found = asyncio.run(load(ports[0], clients, arguments.requests, start=number, process=process))
            else:
                found = asyncio.run(load(ports[0], clients, arguments.requests, start=number, process=process))
            print_load(f"{clients}{', while another process writes' if is_writing else ''}", found, alone)
    same = asyncio.run(load(ports[1], CLIENTS[1], arguments.requests, start=0))
    print_load(f"{CLIENTS[1]}, to a server that sends the same bytes without a search", same, alone)
    print_load("none: the query itself", alone, alone)


def watch(arguments: argparse.Namespace, port: int, process: psutil.Process) -> None:
    """Print the memory of the server after each tenth of many requests."""
    sizes = []
    for part in range(10):
        found = asyncio.run(load(port, 8, arguments.flat // 10, start=20_000 + part * arguments.flat // 10))
        sizes.append(process.memory_info().rss / 1e6)
        assert not found.errors
    print(f"\nmemory over {arguments.flat} requests, MB: {', '.join(f'{size:.0f}' for size in sizes)}")


if __name__ == "__main__":
    main()
