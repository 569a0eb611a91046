"""Time and memory of reading a million rows: a JSON annotation file, and the index of tar shards.

    python benchmarks/reading.py [--rows 1000000] [--folder DIR]

Files are made first, in a temporary folder or in DIR: as many captions as rows, five for each picture of the JSON file,
one for each picture of the shards (ten thousand a shard, pictures of 200 random bytes: nothing decodes them). Each
reading is a process of its own: seconds on the clock, seconds of a core (what counts on a busy machine), and the
largest resident set, Python and packages included.
"""

import argparse
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

PER_IMAGE, PER_SHARD = 5, 10_000
WORDS = (
    "a",
    "the",
    "red",
    "small",
    "dog",
    "cat",
    "man",
    "woman",
    "child",
    "runs",
    "sits",
    "on",
    "in",
    "grass",
    "water",
)
CHILD = """
import resource, sys, time
began = time.perf_counter()
import crossguard as cg
cg.load_pairs
imported, worked = time.perf_counter(), time.process_time()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
pairs = cg.load_pairs(sys.argv[1], **eval(sys.argv[2]))
seconds, work = time.perf_counter() - imported, time.process_time() - worked
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
counts = "".join(f"{len(part):>10,}" for part in (pairs.images, pairs.texts, pairs.links))
print(f"{counts}{seconds:>10.2f}{work:>10.2f}{peak / 1e6:>10.3f}{before / 1e6:>10.3f}")
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder = options.folder or Path(made)
        annotations, shards = write_json(folder / "json", options.rows), write_shards(folder / "shards", options.rows)
        columns = ("images", "texts", "links", "seconds", "of a core", "peak GB", "import GB")
        print(f"{'':<22}" + "".join(f"{column:>10}" for column in columns))
        given = {"annotations": str(annotations), "root": str(annotations.parent)}
        measure("JSON", "json", given, folder)
        measure("shards", "webdataset", {"shards": f"{shards}/*.tar"}, folder)
        measure("shards, index kept", "webdataset", {"shards": f"{shards}/*.tar"}, folder)


def measure(title: str, name: str, options: dict[str, str], folder: Path) -> None:
    environment = {**os.environ, "CROSSGUARD_CACHE": str(folder / "cache")}
    command = [sys.executable, "-c", CHILD, name, repr(options)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    print(f"{title:<22}{done.stdout}", end="", flush=True)


def caption(number: int) -> str:
    """Return a caption of eight words and its number: all are different."""
    words = []
    for _ in range(8):
        number, place = divmod(number, len(WORDS))
        words.append(WORDS[place])
    return " ".join(words)


def write_json(folder: Path, rows: int) -> Path:
    target = folder / "mine.json"
    if target.exists():
        return target
    (folder / "images").mkdir(parents=True)
    for image in range(-(-rows // PER_IMAGE)):
        os.close(os.open(folder / "images" / f"{image:012}.jpg", os.O_CREAT | os.O_WRONLY))
    with target.open("w") as file:
        file.write("[")
        for row in range(rows):
            made = {
                "image": f"images/{row // PER_IMAGE:012}.jpg",
                "caption": f"{caption(row)} {row}",
                "image_id": row // PER_IMAGE,
            }
            file.write((", " if row else "") + json.dumps(made))
        file.write("]")
    return target


def write_shards(folder: Path, rows: int) -> Path:
    if folder.exists():
        return folder
    folder.mkdir(parents=True)
    for shard in range(-(-rows // PER_SHARD)):
        with (folder / f"{shard:05}.tar").open("wb") as file:
            for row in range(shard * PER_SHARD, min(rows, (shard + 1) * PER_SHARD)):
                for name, content in (
                    (f"{row:09}.jpg", os.urandom(200)),
                    (f"{row:09}.txt", f"{caption(row)} {row}".encode()),
                ):
                    info = tarfile.TarInfo(name)
                    info.size = len(content)
                    file.write(info.tobuf(tarfile.USTAR_FORMAT) + content.ljust(512, b"\0"))
            file.write(bytes(1024))
    return folder


if __name__ == "__main__":
    main()
