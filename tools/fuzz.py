"""Damaged and unusual input by the thousand: what is read right, what is refused, and what should never happen.

    python tools/fuzz.py                                  # 10,000 inputs and 200 kills, with seed 0
    python tools/fuzz.py --inputs 500 --kills 10 --seed 3
    python tools/fuzz.py --kind json --input 1234         # one input again, with its traceback

Every input is made from (seed, kind, number). Most are judged by what the input is known to hold, or by an independent
reading of it. A *right* answer is the whole truth; *refused* is a message of the kinds that the command line turns into
one sentence; everything else is a *traceback*, a *hang* (`--seconds`), or *silently wrong*. A kill ends a process in
the middle of writing a run, training or evaluating; the run is then taken up, and must end as an undisturbed one does.
"""

import argparse
import contextlib
import csv
import io
import json
import os
import random
import re
import shutil
import signal
import sys
import tarfile
import tempfile
import time
import traceback
import unicodedata
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import numpy as np
import torch
from PIL import Image
from transformers.utils.logging import disable_progress_bar

import crossguard as cg
from crossguard.checks import WrongKind
from crossguard.data.decode import decode_error
from crossguard.data.pictures import Picture
from crossguard.data.rows_of import CAPTION, IMAGE
from crossguard.recipes import check_names, parse_recipe, read_recipe, shipped_recipes
from crossguard.runs import RunBusy, RunFolder
from shared import make_clip

REFUSED = (ValueError, WrongKind, ImportError, OSError, RunBusy)
"""What the command line turns into one message (`crossguard.cli.console`)."""
OUTCOMES = ("right", "refused", "traceback", "hang", "silently wrong")


class Hang(BaseException):
    """An input took longer than allowed."""


class Wrong(Exception):
    """An answer that is not the truth."""


Judge = Callable[[random.Random, Path], None]
KINDS: dict[str, tuple[Judge, int]] = {}


def kind(name: str, share: int) -> Callable[[Judge], Judge]:
    """Add a kind of input; `share` of a thousand are of it."""

    def add(judge: Judge) -> Judge:
        KINDS[name] = judge, share
        return judge

    return add


def check(holds: bool, said: str) -> None:
    if not holds:
        raise Wrong(said)


def damaged(rng: random.Random, content: bytes) -> bytes:
    """Flip, cut, repeat, drop or overwrite parts of bytes."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 5, 20))):
        if not data:
            break
        place = rng.randrange(len(data))
        length = min(rng.choice((1, 2, 4, 16, 200)), len(data) - place)
        way = rng.randrange(7)
        if way == 0:
            data[place] ^= 1 << rng.randrange(8)
        elif way == 1:
            data[place : place + length] = rng.randbytes(length)
        elif way == 2:
            del data[place : place + length]
        elif way == 3:
            data[place:place] = data[place : place + length]
        elif way == 4:
            del data[place:]
        elif way == 5:
            data[place : place + length] = rng.choice((b"\0", b"\xff")) * length
        else:
            data[place:place] = rng.choice(
                (b'"', b"{", b"]", b",", b"\n", b"\\", b"\0", b"9" * 30, b"-1", b"null", b"\xf0", b"[" * 3000, b"1e999")
            )
    return bytes(data)


ODD: tuple[Any, ...] = (
    *(
        None,
        True,
        False,
        0,
        -1,
        1,
        2**31,
        2**63,
        10**40,
        0.5,
        -0.0,
        1e308,
        "",
        " ",
        "yes",
        "1",
        "../..",
        "~",
        "\0",
        "a\x1b[2J",
    ),
    *([], {}, [[]], {"a": 1}, ["a", None], "x" * 5000, "[/]", "[red]", "🙂", "\ud800", "\u202e", "\u200b"),
)


def mutated(rng: random.Random, value: Any) -> Any:
    """Replace, drop or add something in a nested value."""
    if isinstance(value, dict) and value and rng.random() < 0.85:
        key = rng.choice(list(value))
        way = rng.randrange(5)
        if way == 0:
            return {k: v for k, v in value.items() if k != key}
        if way == 1:
            return {**value, rng.choice(("x", "", "1", f"{key}s", "a.b", "\x1b[2J")): rng.choice(ODD)}
        return {**value, key: mutated(rng, value[key])}
    if isinstance(value, list) and value and rng.random() < 0.85:
        place = rng.randrange(len(value))
        way = rng.randrange(4)
        if way == 0:
            return value[:place] + value[place + 1 :]
        if way == 1:
            return [*value, value[place]]
        return [*value[:place], mutated(rng, value[place]), *value[place + 1 :]]
    return rng.choice(ODD)


# Recipes


def _judge_recipe(read: Callable[[], Any]) -> None:
    recipe = read()
    problems = check_names(recipe)
    for problem in problems:
        check(bool(problem.strip()), "a problem without words")
    values = recipe.model_dump(mode="json")
    for name, value in values.items():
        if name in ("steps", "seed", "batch_size", "draws", "per_sample", "probe", "max_samples") and value is not None:
            check(type(value) is int and 0 <= value < 2**63, f"{name} is {value!r}")
    check(parse_recipe(values, source="again") == recipe, "settings do not come back as they were")
    json.dumps(values, allow_nan=False)
    if problems:
        raise ValueError(problems[0])


def _yaml_of(rng: random.Random) -> tuple[str, str]:
    name, path = rng.choice(sorted(shipped_recipes().items()))
    return name, path.read_text(encoding="utf-8")


@kind("recipe text", 120)
def recipe_text(rng: random.Random, folder: Path) -> None:
    """Bytes of recipes, and lines taken away, doubled or moved in."""
    _, text = _yaml_of(rng)
    if rng.random() < 0.5:
        content = damaged(rng, text.encode())
    else:
        lines = text.split("\n")
        place = rng.randrange(len(lines))
        lines[place : place + 1] = rng.choice(
            (
                [],
                [lines[place]] * 2,
                ["  " + lines[place]],
                ["&a " + lines[place], "*a"],
                [lines[place] + ": ["],
                ["\t" + lines[place]],
            )
        )
        content = "\n".join(lines).encode()
    (folder / "recipe.yaml").write_bytes(content)
    _judge_recipe(lambda: read_recipe(str(folder / "recipe.yaml")))


@kind("recipe values", 120)
def recipe_values(rng: random.Random, folder: Path) -> None:
    """Settings of recipes replaced by values of other types and sizes, in the file or on the command line."""
    name, _ = _yaml_of(rng)
    values = read_recipe(name).model_dump(mode="json")
    for _ in range(rng.choice((1, 1, 2, 4))):
        values = mutated(rng, values)
    if not isinstance(values, dict):
        values = {"verb": values}
    if rng.random() < 0.7:
        with contextlib.suppress(UnicodeEncodeError):
            (folder / "recipe.yaml").write_text(json.dumps(values, ensure_ascii=rng.random() < 0.5), encoding="utf-8")
            _judge_recipe(lambda: read_recipe(str(folder / "recipe.yaml")))
        return
    key = ".".join(
        rng.choice(("seed", "threat", "image", "data", "options", "attack", "0", "run", "model", "steps", ""))
        for _ in range(rng.randint(1, 3))
    )
    value = rng.choice(
        (
            json.dumps(rng.choice(ODD)),
            "yes",
            ".inf",
            "1e3",
            "2/255",
            "[",
            "*a",
            "&a [*a]",
            "010",
            "1:30",
            "!!python/name:os.system",
        )
    )
    _judge_recipe(lambda: read_recipe(name, [f"{key}={value}"]))


# Images and captions


class Pool:
    """Some pictures in a folder, links and traps beside them."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "root"
        (self.root / "sub").mkdir(parents=True)
        self.names = [f"{'sub/' if i % 3 == 0 else ''}{i}.png" for i in range(8)]
        for i, name in enumerate(self.names):
            Image.new("RGB", (4, 4), (30 * i, 7 * i, 99)).save(self.root / name)
        Image.new("RGB", (4, 4)).save(folder / "outside.png")
        (self.root / "link.png").symlink_to(self.root / self.names[1])
        (self.root / "loop.png").symlink_to("loop.png")
        (self.root / "out.png").symlink_to(folder / "outside.png")

    def file(self, image: Any) -> str | None:
        """Return the file that a path of an annotation means; None if it means none inside the folder."""
        if not isinstance(image, str) or not image.strip() or "\0" in image:
            return None
        with contextlib.suppress(OSError, ValueError):
            path = os.path.realpath(self.root / image)
            if os.path.isfile(path) and path.startswith(f"{os.path.realpath(self.root)}/"):
                return path
        return None


def _row(rng: random.Random, pool: Pool, number: int) -> dict[str, Any]:
    """Return a row, good in most cases."""
    image: Any = rng.choice(pool.names)
    caption: Any = f"caption {rng.randrange(12)} 🙂 of {number % 5}"
    row = {"image": image, "caption": caption}
    way = rng.randrange(22)
    if way == 0:
        row["image"] = rng.choice(("./" + image, "link.png", "sub/../" + image, "sub//0.png"))
    elif way == 1:
        row["image"] = rng.choice(("none.png", "loop.png", "out.png", "../outside.png", "/etc/hosts", "sub", *ODD))
    elif way == 2:
        row["caption"] = rng.choice(ODD)
    elif way == 3:
        row["caption"] = [caption, rng.choice((f"{caption} again", "", None, caption, 3))]
    elif way == 4:
        del row[rng.choice(("image", "caption"))]
    elif way == 5:
        row["image_id"] = rng.choice((1, "1", 2, None))
    elif way == 6:
        row = {rng.choice(IMAGE): image, rng.choice(CAPTION): caption}
    return row


def _expected(pool: Pool, rows: list[Any]) -> tuple[set[tuple[str, str]], int, int]:
    """Read rows independently: the links, how many rows are kept, and how many have something wrong with them."""
    links, kept, bad = set(), 0, 0
    ids: dict[str, str] = {}
    for row in rows:
        if not isinstance(row, dict):
            bad += 1
            continue
        image = next((row[key] for key in ("image", *IMAGE) if row.get(key) is not None), None)
        caption = next((row[key] for key in ("caption", *CAPTION) if row.get(key) is not None), None)
        if isinstance(caption, list) and any(isinstance(text, dict) for text in caption):
            caption = [text.get("raw") if isinstance(text, dict) else text for text in caption]
        texts = [caption] if isinstance(caption, str) else caption if isinstance(caption, list) else []
        good = [text.strip() for text in texts if isinstance(text, str) and _seen(text) and _encodes(text)]
        plain = isinstance(image, str) and image.strip() and "\0" not in image and texts
        known = row.get("image_id")
        if plain and known is not None and ids.setdefault(str(known), _same(image)) != _same(image):
            bad += 1
            continue
        file = pool.file(image) if plain else None
        bad += not (file and good and len(good) == len(texts))
        if file and good:
            kept += 1
            links |= {(file, text) for text in good}
    return links, kept, bad


def _same(image: str) -> str:
    return re.sub(r"(?<![^/])(?:\./)+|/(?=/)", "", image)


def _seen(text: str) -> bool:
    """Whether a reader would see anything of a text."""
    return any(unicodedata.category(sign) != "Cf" for sign in "".join(text.split()))


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _judge_links(pool: Pool, load: Callable[..., Any], rows: list[Any], *, whole: bool) -> None:
    """Compare what is loaded, strictly and with `skip_bad`, with an independent reading.

    Args:
        pool: the pictures.
        load: takes `skip_bad`.
        rows: of the file.
        whole: nothing else can be wrong with the file.
    """
    links, kept, bad = _expected(pool, rows)
    if bad or not links:
        try:
            load(skip_bad=False)
        except REFUSED:
            pass
        else:
            raise Wrong(f"{bad} bad rows are not told")
    if not links:
        with contextlib.suppress(*REFUSED):
            load(skip_bad=True)
            raise Wrong("no row is whole, and yet there are pairs")
        raise ValueError("none is whole")
    try:
        pairs = load(skip_bad=True)
    except REFUSED:
        if whole:
            raise Wrong("whole rows are refused with skip_bad") from None
        raise
    found = {(os.path.realpath(pairs.images[i].path), pairs.texts[j]) for i, j in pairs.links.tolist()}
    check(found == links, f"links {sorted(found ^ links)[:3]} differ")
    told = [re.match(r"([\d,]+) of ([\d,]+) rows", note) for note in pairs.notes]
    counts = next(([int(n.replace(",", "")) for n in m.groups()] for m in told if m), [kept, len(rows)])
    check(counts == [kept, len(rows)], f"{counts} of the note are not {kept} of {len(rows)}")
    if bad:
        raise ValueError("refused, unless bad rows are skipped")


@kind("json rows", 180)
def json_rows(rng: random.Random, folder: Path) -> None:
    """Lists and lines of rows, some of them bad, in any spacing."""
    pool = Pool(folder)
    rows: list[Any] = [_row(rng, pool, n) for n in range(rng.choice((1, 5, 40)))]
    if rng.random() < 0.2:
        rows[rng.randrange(len(rows))] = rng.choice(ODD)
    lines = rng.random() < 0.4
    style: dict[str, Any] = {
        "ensure_ascii": True,
        "separators": rng.choice([(",", ":"), (", ", ": "), (" ,\t", " : ")]),
    }
    written = [json.dumps(row, **style) for row in rows]
    twice = rng.randrange(len(rows)) if rng.random() < 0.2 else None
    if twice is not None and isinstance(rows[twice], dict) and rows[twice]:
        written[twice] = written[twice][:-1] + ', "caption": "one", "caption": "two"}'
        rows[twice] = None
    text = "\n".join(written) + "\n" if lines else "[" + rng.choice((",", ", ", ",\n ")).join(written) + "]"
    path = folder / ("rows.jsonl" if lines else "rows.json")
    path.write_text(text, encoding="utf-8")
    if lines and any(not line.strip() for line in written):
        raise ValueError("a line without a row")
    _judge_links(pool, lambda **o: cg.load_pairs("json", annotations=path, root=pool.root, **o), rows, whole=True)


def _twice(pairs: list[tuple[str, Any]]) -> Any:
    found = dict(pairs)
    return found if len(found) == len(pairs) else None


@kind("json bytes", 100)
def json_bytes(rng: random.Random, folder: Path) -> None:
    """Annotation files with damaged bytes, held against the standard library's reading."""
    pool = Pool(folder)
    text = json.dumps(
        [{"image": rng.choice(pool.names), "caption": f"text {n}"} for n in range(12)], indent=rng.choice((None, 1))
    )
    content = damaged(rng, text.encode())
    path = folder / "rows.json"
    path.write_bytes(content)
    load = lambda **o: cg.load_pairs("json", annotations=path, root=pool.root, **o)  # noqa: E731
    try:
        rows = json.loads(content.decode("utf-8-sig"), object_pairs_hook=_twice)
    except (ValueError, RecursionError):
        with contextlib.suppress(*REFUSED):
            pairs = load(skip_bad=True)
            # A file of lines may have lines that are no JSON.
            check(content.decode("utf-8-sig").lstrip().startswith("{"), f"no JSON, and yet {len(pairs.links)} links")
        raise ValueError("no JSON") from None
    if not isinstance(rows, list) or any(isinstance(row, dict) and "split" in row for row in rows):
        load(skip_bad=True)
        return
    _judge_links(pool, load, rows, whole=False)


@kind("karpathy and coco", 60)
def json_layouts(rng: random.Random, folder: Path) -> None:
    """The field's layouts with entries replaced at random."""
    pool = Pool(folder)
    if rng.random() < 0.5:
        images: list[Any] = [
            {
                "filename": name.rpartition("/")[2],
                "filepath": name.rpartition("/")[0],
                "split": "test",
                "sentences": [{"raw": f"t {i}"}],
            }
            for i, name in enumerate(pool.names)
        ]
        value: Any = {"images": images, "dataset": "x"}
    else:
        value = {
            "images": [{"id": i, "file_name": name} for i, name in enumerate(pool.names)],
            "annotations": [{"image_id": i % 8, "caption": f"t {i}", "id": i} for i in range(20)],
        }
    for _ in range(rng.choice((0, 1, 1, 3))):
        value = mutated(rng, value)
    path = folder / "rows.json"
    path.write_text(json.dumps(value))
    pairs = cg.load_pairs("json", annotations=path, root=pool.root, skip_bad=rng.random() < 0.5)
    for i, j in pairs.links.tolist():
        check(pool.file(str(pairs.images[i].path)) is not None, "a picture from outside")
        check(
            pairs.texts[j] in json.dumps(value, ensure_ascii=False) or not pairs.texts[j].isprintable(),
            "a text from nowhere",
        )


@kind("json objects", 60)
def json_objects(rng: random.Random, folder: Path) -> None:
    """Objects and lists that hold rows in other ways, some damaged: a file gives what the value gives in memory."""
    pool = Pool(folder)
    rows = [(rng.choice(pool.names), f"text {n}") for n in range(6)]
    named = [{"image": image, "caption": text} for image, text in rows]
    value: Any = rng.choice(
        (
            {image: [text, f"{text} too"] for image, text in rows},
            dict(rows),
            {"image": [image for image, _ in rows], "caption": [text for _, text in rows]},
            {key: {str(n): row[key] for n, row in enumerate(named)} for key in ("image", "caption")},
            {str(n): row for n, row in enumerate(named)},
            {"version": 1, "data": named},
            {"train": named[:3], "test": named[3:]},
            [[image, text] for image, text in rows],
            [[image for image, _ in rows], [text for _, text in rows]],
            {"images": [{"filename": image, "split": "test", "sentences": [{"raw": text}]} for image, text in rows]},
        )
    )
    for _ in range(rng.choice((0, 1, 1, 2, 4))):
        value = mutated(rng, value)
    text = json.dumps(value, indent=rng.choice((None, 1)))
    (folder / "rows.json").write_text(text)
    skip = rng.random() < 0.5

    def found(load: Callable[[], Any]) -> Any:
        try:
            pairs = load()
        except REFUSED as error:
            check(bool(str(error).strip()), "a refusal without words")
            return None
        return sorted((os.path.realpath(pairs.images[i].path), pairs.texts[j]) for i, j in pairs.links.tolist())

    options: dict[str, Any] = {"root": pool.root, "split": "test"}
    in_file = found(lambda: cg.load_pairs("json", annotations=folder / "rows.json", skip_bad=skip, **options))
    given = json.loads(text)
    in_memory = found(lambda: cg.as_pairs(given, reading=cg.data.Reading(skip_bad=skip), **options))
    check(in_file == in_memory, f"{in_file} in a file, {in_memory} in memory")
    if in_file is None:
        raise ValueError("refused in both")
    check(all(pool.file(path) for path, _ in in_file), "a picture from outside")


@kind("questions", 60)
def questions(rng: random.Random, folder: Path) -> None:
    """Questions about pictures as they were released, with entries replaced at random."""
    pool = Pool(folder)
    name = rng.choice(("vqav2", "textvqa", "pope", "scienceqa"))
    for target in (
        *(f"val2014/COCO_val2014_{n:012d}.jpg" for n in range(4)),
        *(f"train_images/{n}.jpg" for n in range(4)),
    ):
        (pool.root / target).parent.mkdir(exist_ok=True)
        shutil.copy(pool.root / pool.names[1], pool.root / target)
    for n in range(4):
        (pool.root / "test" / str(n)).mkdir(parents=True)
        shutil.copy(pool.root / pool.names[1], pool.root / "test" / str(n) / "image.png")
    told: Any = {"annotations": [{"question_id": n, "answers": [{"answer": "yes"}] * 3} for n in range(4)]}
    value: Any = {
        "vqav2": {"questions": [{"question_id": n, "image_id": n, "question": f"what {n}?"} for n in range(4)]},
        "textvqa": {"data": [{"image_id": str(n), "question": f"what {n}?", "answers": ["a"] * 3} for n in range(4)]},
        "pope": [{"image": pool.names[n], "text": f"is it {n}?", "label": "yes"} for n in range(4)],
        "scienceqa": {
            str(n): {"question": "q", "choices": ["a", "b"], "answer": n % 2, "image": "image.png", "split": "test"}
            for n in range(4)
        },
    }[name]
    for _ in range(rng.choice((0, 1, 1, 2))):
        if name == "vqav2" and rng.random() < 0.5:
            told = mutated(rng, told)
        else:
            value = mutated(rng, value)
    file = {
        "vqav2": "v2_OpenEnded_mscoco_val2014_questions.json",
        "textvqa": "TextVQA_0.5.1_val.json",
        "pope": "pope.json",
        "scienceqa": "problems.json",
    }[name]
    lines = name == "pope" and isinstance(value, list)
    text = "\n".join(map(json.dumps, value)) if lines else json.dumps(value)
    content = text.encode() if rng.random() < 0.7 else damaged(rng, text.encode())
    (pool.root / file).write_bytes(content)
    (pool.root / "v2_mscoco_val2014_annotations.json").write_text(json.dumps(told))
    options = {"file": pool.root / file, "root": pool.root} if name == "pope" else {"root": pool.root}
    data = cg.load_questions(name, **options)
    for place, question in enumerate(data.questions):
        data.image(place)
        check(_seen(question.rpartition("\n")[0]), "a question without words")
        if name == "scienceqa":
            listed = [line[0] for line in question.split("\n") if line[1:3] == ". "]
            check(data.answers[place][0] in listed, "an answer that is no choice")
    if content == text.encode() and lines:
        check(len(data) == len(value), "questions are missing")


@kind("csv", 120)
def csv_rows(rng: random.Random, folder: Path) -> None:
    """Tables in every delimiter with quotes, delimiters and damage in some lines; whole lines must all come through."""
    pool = Pool(folder)
    mark = rng.choice((",", "\t", ";", "|"))
    texts = (
        "plain words",
        'a "quoted" word',
        f"with{mark} the mark",
        "ünïcode 🙂",
        "an apostrophe's",
        'ends with "it"',
        '"begins" so',
    )
    rows = [(rng.choice(pool.names), f"{rng.choice(texts)} {n}") for n in range(rng.choice((1, 8, 50)))]
    buffer = io.StringIO()
    writer = csv.writer(
        buffer, delimiter=mark, lineterminator="\n", quoting=rng.choice((csv.QUOTE_MINIMAL, csv.QUOTE_ALL))
    )
    if mark == "|":  # quotation marks are text there
        lines = [mark.join(row) for row in (("image", "caption"), *rows)]
    else:
        writer.writerows((("image", "caption"), *rows))
        lines = buffer.getvalue().split("\n")[:-1]
    hurt = {n for n in range(len(rows)) if rng.random() < 0.1}
    for n in sorted(hurt):
        line = lines[n + 1]
        place = rng.randrange(len(line))
        lines[n + 1] = rng.choice(
            (
                line[:place] + '"' + line[place:],
                line[:place],
                line[:place] + mark + line[place:],
                '"' + line,
                line + '"',
            )
        )
    path = folder / "table.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    pairs = cg.load_pairs("csv", captions=path, root=pool.root, delimiter=mark, skip_bad=True)
    found = {(pairs.images[i].key, pairs.texts[j]) for i, j in pairs.links.tolist()}
    whole = {rows[n] for n in range(len(rows)) if n not in hurt}
    # A quotation mark that a hurt line lacks may take in the line after it, never one before.
    lost = {
        row for row in whole - found if not any(n in hurt for n in range(max(0, rows.index(row) - 20), rows.index(row)))
    }
    check(not lost, f"whole rows are lost: {sorted(lost)[:2]}")
    strange = {text for _, text in found - set(rows)}
    check(len(strange) <= len(hurt), f"more strange texts than hurt lines: {sorted(strange)[:2]}")


@kind("shards", 60)
def shards(rng: random.Random, folder: Path) -> None:
    """Tar files with damaged bytes: what is still given is what was written."""
    format_ = rng.choice((tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT))
    held: dict[str, tuple[bytes, str]] = {}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format_) as tar:
        for n in range(6):
            key = f"{'long/' * 30 if n == 3 and format_ != tarfile.USTAR_FORMAT else ''}{n:04}"
            picture = io.BytesIO()
            Image.new("RGB", (4, 4), (n, n, n)).save(picture, "PNG")
            held[key] = picture.getvalue(), f"caption {n}"
            for name, content in ((f"{key}.png", held[key][0]), (f"{key}.txt", held[key][1].encode())):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    original = buffer.getvalue()
    content = original if rng.random() < 0.1 else damaged(rng, original)
    path = folder / "a.tar"
    path.write_bytes(content)
    pairs = cg.load_pairs("webdataset", shards=str(path), skip_bad=rng.random() < 0.5)
    for i, j in pairs.links.tolist():
        image = pairs.images[i]
        key = image.key.partition("/")[2].removesuffix(".png")
        if key in held and len(content) == len(original):
            data, text = held[key]
            same = image.read() == data and pairs.texts[j] == text
            changed = sum(a != b for a, b in zip(content, original, strict=True))
            check(same or changed > 0, "an undamaged sample is another")
        image.load()
    if content == original:
        check(len(pairs.links) == 6, "samples are missing")


@kind("pictures", 150)
def pictures(rng: random.Random, folder: Path) -> None:
    """Picture files of all formats with damaged bytes: checking and loading agree, and give upright RGB."""
    mode = rng.choice(("RGB", "L", "RGBA", "P", "1", "I;16", "CMYK", "LA"))
    format_ = rng.choice(("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"))
    size = rng.choice(((1, 1), (5, 9), (33, 17)))
    pixels = np.random.default_rng(rng.randrange(2**31)).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    image = Image.fromarray(pixels[..., 0].astype(np.uint16) * 257) if mode == "I;16" else image.convert(mode)
    buffer = io.BytesIO()
    try:
        image.save(buffer, format_)
    except (OSError, ValueError):
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, format_)
    content = buffer.getvalue() if rng.random() < 0.1 else damaged(rng, buffer.getvalue())
    path = folder / "picture.jpg"
    path.write_bytes(content)
    told = decode_error(content)
    try:
        found = Picture("a", path).load()
    except ValueError:
        check(bool(told), "checking does not tell what loading refuses")
        raise
    check(not told, f"checking refuses what is loaded: {told}")
    check(found.mode == "RGB" and found.width * found.height > 0, "no RGB")


@kind("memory", 60)
def memory(rng: random.Random, folder: Path) -> None:
    """Objects given to `as_pairs` and `as_samples`."""
    array = np.random.default_rng(rng.randrange(2**31)).random(
        (rng.choice((0, 1, 4)), rng.choice((1, 3, 5)), rng.choice((3, 4)))
    )
    things: tuple[Any, ...] = (
        *ODD,
        *(
            array,
            array.astype(np.float16),
            array * 300,
            array.astype(np.uint8),
            torch.from_numpy(array),
            Image.new("L", (3, 3)),
        ),
        *(b"", b"\x89PNG", np.array(None), np.float32(1), Path("none.png"), io.BytesIO(b"x"), object(), float("nan")),
    )
    one = lambda: rng.choice(things)  # noqa: E731
    shape = rng.randrange(6)
    given: Any = [(one(), one()) for _ in range(3)]
    if shape == 1:
        given = ([one(), one()], [one(), one()])
    elif shape == 2:
        given = {"image": [one(), Image.new("RGB", (3, 3))], "caption": ["a", one()]}
    elif shape == 3:
        given = [{"image": one(), "caption": one()}]
    elif shape == 4:
        given = one()
    if shape == 5:
        samples = cg.as_samples(
            {"a": one(), "b": np.ones((2, 3))}, rng.choice((one(), [0, 1])), groups=rng.choice((None, [0, 0], one()))
        )
        check(all(np.isfinite(values).all() for values in samples.modalities.values()), "values that are not finite")
        return
    pairs = cg.as_pairs(given, reading=None)
    check(len(pairs.links) > 0 and all(text.strip() for text in pairs.texts), "blank texts")


@kind("npz", 60)
def npz(rng: random.Random, folder: Path) -> None:
    """Arrays of one's own, damaged, or of odd types and shapes."""
    arrays: dict[str, Any] = {"a": np.ones((4, 3)), "labels": np.arange(4) % 2, "groups": np.arange(4)}
    if rng.random() < 0.5:
        odd = (
            np.ones(4, np.float16),
            np.array(["x"] * 4),
            np.full((4, 2), np.nan),
            np.zeros((0, 3)),
            np.ones((4, 2, 2, 2)),
            np.array(3),
            np.ones(4) * 1j,
        )
        arrays[rng.choice(["a", "labels", "groups", "split", "classes", "x"])] = rng.choice(odd)
    buffer = io.BytesIO()
    rng.choice((np.savez, np.savez_compressed))(buffer, **arrays)
    content = buffer.getvalue()
    hurt = rng.random() < 0.6
    path = folder / "samples.npz"
    path.write_bytes(damaged(rng, content) if hurt else content)
    samples = cg.load_samples("npz", file=path)
    if path.read_bytes() == content or "x" in arrays:
        return
    for name, values in samples.modalities.items():
        check(np.isfinite(values).all(), "values that are not finite")
        if name == "a" and arrays["a"].dtype == np.float64 and arrays["a"].shape == (4, 3):
            check(np.array_equal(values.reshape(4, 3), arrays["a"]), "values are not those that were saved")


# Runs, counts and models


def _run(folder: Path) -> Path:
    with RunFolder.open(folder / "run", settings={"a": {"b": 1}}, seed=0, command=["x"]) as run:
        run.rows.append(*({"n": n, "section": "s"} for n in range(5)))
        run.summarise("kind", "name", {"x": 1.5})
        run.finish()
    return folder / "run"


@kind("runs", 90)
def runs(rng: random.Random, folder: Path) -> None:
    """Run folders with damaged or odd files, read and taken up."""
    path = _run(folder)
    name = rng.choice(("run.json", "rows.jsonl", "summary.json"))
    file = path / name
    before = file.read_bytes()
    way = rng.randrange(5)
    if way == 0:
        file.write_bytes(damaged(rng, before))
    elif way == 1:
        file.unlink()
        rng.choice((file.mkdir, lambda: file.symlink_to("/etc/hosts"), lambda: None))()
    elif name == "rows.jsonl":
        rows = [json.dumps(mutated(rng, json.loads(line))) for line in before.splitlines()]
        file.write_text("\n".join(rows) + rng.choice(("\n", "", "\n{")))
    else:
        file.write_text(json.dumps(mutated(rng, json.loads(before))))
    run = RunFolder(path)
    rows = run.read_rows()
    check(all(isinstance(row, dict) for row in rows), "rows that are none")
    check(isinstance(run.summary, dict), "a summary that is none")
    with RunFolder.open(path, settings={"a": {"b": 1}}, seed=0) as again:
        taken = list(again.rows)
        again.rows.append({"n": 99})
        check([row for row in taken if row in rows] == taken[: len(rows)], "rows are lost on taking up")
    check(RunFolder(path).read_rows()[-1] == {"n": 99}, "a row is lost")


_KEPT: dict[str, Any] = {}
"""What is made once: models, samples, a finished evaluation."""


def _kept(name: str, make: Callable[[Path], None]) -> Path:
    if name not in _KEPT:
        _KEPT[name] = Path(tempfile.mkdtemp(prefix="fuzz-kept-"))
        make(_KEPT[name])
    found: Path = _KEPT[name]
    return found


@kind("reports", 40)
def reports(rng: random.Random, folder: Path) -> None:
    """Finished evaluations whose files are damaged or odd, put into a report."""
    from crossguard.report import report_runs

    shutil.copytree(_kept("evaluation", _evaluate) / "run", folder / "run")
    file = folder / "run" / rng.choice(("run.json", "summary.json", "summary.json", "rows.jsonl"))
    content = file.read_bytes()
    if file.suffix == ".json" and rng.random() < 0.7:
        file.write_text(json.dumps(mutated(rng, json.loads(content))))
    else:
        file.write_bytes(damaged(rng, content))
    page = report_runs([folder / "run"], folder / "report.html").read_text(encoding="utf-8")
    check("<html" in page, "no page")
    check("\x1b[2J" not in page, "commands to a terminal")


def _watch() -> tuple[Any, Any]:
    if "samples" not in _KEPT:
        rng = np.random.default_rng(0)
        values = {m: rng.normal(size=(6, 5, 3)).astype(np.float32) for m in ("accelerometer", "gyroscope")}
        samples = cg.MultiModalSamples("toy", "test", values, np.arange(6) % 3, ("x", "y", "z"), np.arange(6))
        from crossguard.models import WatchNet

        _KEPT["samples"], _KEPT["watch"] = samples, WatchNet.for_samples(samples, width=8, seed=0)
    return _KEPT["watch"], _KEPT["samples"]


def _certified(folder: Path) -> Any:
    model, samples = _watch()
    keep = {"accelerometer": 2, "gyroscope": 2}
    return cg.certify(model, samples, keep=keep, draws=40, alpha=0.1, seed=0, folder=folder).counts.votes


@kind("counts", 40)
def counts(rng: random.Random, folder: Path) -> None:
    """Kept counts, damaged: refused, or those that were drawn."""
    truth = _certified(folder / "counts").copy()
    files = sorted(path for path in (folder / "counts").rglob("*") if path.is_file())
    file = rng.choice(files)
    file.write_bytes(damaged(rng, file.read_bytes()))
    check(np.array_equal(_certified(folder / "counts"), truth), "other counts than were drawn")


def _save_models(home: Path) -> None:
    make_clip().save_pretrained(home / "clip")
    _watch()[0].save_pretrained(home / "watch")


@kind("models", 80)
def models(rng: random.Random, folder: Path) -> None:
    """Saved models with damaged weights, configs and tokenizers: refused, or of finite weights."""
    home = _kept("models", _save_models)
    name = rng.choice(("clip", "watch"))
    target = folder / "model"
    shutil.copytree(home / name, target)
    file = rng.choice(sorted(target.iterdir()))
    content = file.read_bytes()
    if file.suffix == ".json" and rng.random() < 0.6:
        file.write_text(json.dumps(mutated(rng, json.loads(content))))
    else:
        file.write_bytes(damaged(rng, content))
    model = cg.load_model(target)
    check(all(p.dtype.is_floating_point for p in model.parameters()), "weights of another type")


# Kills


def _rows_forever(folder: Path) -> None:
    with RunFolder.open(folder / "run", settings={}, seed=0) as run:
        for n in range(len(run.rows), 60):
            run.rows.append({"n": n, "filler": "x" * 3000})
            run.summarise("kind", "name", {"n": n, "filler": ["y" * 50] * 50})
        # Again, for a kill between the last row and its summary.
        run.summarise("kind", "name", {"n": 59, "filler": ["y" * 50] * 50})
        run.finish()


def _rows_truth(folder: Path) -> Any:
    run = RunFolder(folder / "run")
    return [row["n"] for row in run.read_rows()], run.summary


def _train(folder: Path) -> None:
    from crossguard.models import WatchNet
    from crossguard.training import train_ablated

    if (folder / "model").is_dir():
        return
    _, samples = _watch()
    model = WatchNet.for_samples(samples, width=8, seed=0)
    keep = {"accelerometer": 2, "gyroscope": 2}
    trained = train_ablated(
        model, samples, keep=keep, steps=40, batch_size=8, folder=folder / "checkpoint", checkpoint_every=3
    )
    trained.save_pretrained(folder / "model")


def _train_truth(folder: Path) -> Any:
    return {name: value.tolist() for name, value in cg.load_model(folder / "model").state_dict().items()}


def _evaluate(folder: Path) -> None:
    pairs = cg.as_pairs([(Image.new("RGB", (16, 16), (9 * i, 5 * i, 7)), f"a small picture {i}") for i in range(12)])
    threat = cg.ThreatModel(image=cg.LInf(eps=8 / 255))
    with RunFolder.open(folder / "run", settings={}, seed=0) as run:
        cg.evaluate(make_clip(), pairs, attack="pgd", attack_options={"steps": 3}, threat=threat, batch_size=2, run=run)
        run.finish()


def _evaluate_truth(folder: Path) -> Any:
    return sorted(json.dumps(row, sort_keys=True) for row in RunFolder(folder / "run").read_rows())


def _count(folder: Path) -> None:
    _certified(folder / "counts")


def _count_truth(folder: Path) -> Any:
    return _certified(folder / "counts").tolist()


WORK: dict[str, tuple[Callable[[Path], None], Callable[[Path], Any]]] = {
    "rows": (_rows_forever, _rows_truth),
    "training": (_train, _train_truth),
    "evaluation": (_evaluate, _evaluate_truth),
    "counts": (_count, _count_truth),
}


def _forked(work: Callable[[Path], None], folder: Path, *, stop: int | None = None, after: float = 0.0) -> int:
    """Do work in a process of its own, ended by a signal after some seconds; return its status."""
    child = os.fork()
    if child == 0:
        status = 0
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            for number in (signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.default_int_handler)
            work(folder)
        except KeyboardInterrupt:
            status = 3
        except BaseException:
            (folder / "error.txt").write_text(traceback.format_exc())
            status = 4
        os._exit(status)
    if stop is not None:
        time.sleep(after)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, stop)
    _, status = os.waitpid(child, 0)
    return status


def kills(seed: int, count: int) -> tuple[Counter[str], list[str]]:
    """Kill and take up; return the outcomes and what went wrong."""
    outcomes, told = Counter[str](), list[str]()
    truth: dict[str, tuple[Any, float]] = {}
    for name, (work, read) in WORK.items():
        with tempfile.TemporaryDirectory(prefix="fuzz-") as made:
            began = time.monotonic()
            check(_forked(work, Path(made)) == 0, f"{name} fails: {(Path(made) / 'error.txt')}")
            truth[name] = read(Path(made)), time.monotonic() - began
    for number in range(count):
        rng = random.Random(f"{seed} kill {number}")
        name = rng.choice(sorted(WORK))
        work, read = WORK[name]
        expected, seconds = truth[name]
        with tempfile.TemporaryDirectory(prefix="fuzz-") as made:
            folder = Path(made)
            for _ in range(rng.choice((1, 1, 2, 3))):
                stop = rng.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT))
                _forked(work, folder, stop=stop, after=rng.random() * seconds)
            if (folder / "error.txt").exists() or _forked(work, folder) != 0:
                error = (folder / "error.txt").read_text()
                outcomes["traceback"] += 1
                told.append(f"kill {number} ({name}): {error}")
                continue
            left = [str(path.relative_to(folder)) for path in folder.rglob("*.partial")]
            same = read(folder) == expected
            outcomes["right" if same and not left else "silently wrong"] += 1
            if not same or left:
                told.append(f"kill {number} ({name}): {'the same' if same else 'another'} end; left over: {left}")
    return outcomes, told


# Running


def judge(name: str, seed: int, number: int, seconds: float) -> tuple[str, str]:
    """Try one input; return the outcome, and what to look at."""
    work, _ = KINDS[name]
    rng = random.Random(f"{seed} {name} {number}")

    def late(signum: int, frame: FrameType | None) -> NoReturn:
        raise Hang

    signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        with tempfile.TemporaryDirectory(prefix="fuzz-") as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            work(rng, Path(folder))
    except Hang:
        return "hang", traceback.format_exc()
    except Wrong as error:
        return "silently wrong", str(error)
    except REFUSED as error:
        if not str(error).strip():
            return "traceback", f"a refusal without words: {traceback.format_exc()}"
        return "refused", ""
    except Exception:
        return "traceback", traceback.format_exc()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return "right", ""


def plan(inputs: int, only: str | None) -> Iterator[tuple[str, int]]:
    """Give (kind, number) of all inputs."""
    total = sum(share for _, share in KINDS.values())
    for name, (_, share) in KINDS.items():
        if only in (None, name):
            for number in range(inputs if only else round(inputs * share / total)):
                yield name, number


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=20.0, help="after which an input hangs")
    parser.add_argument("--kind", choices=sorted(KINDS))
    parser.add_argument("--input", type=int, help="this one of the kind alone")
    options = parser.parse_args()
    torch.set_num_threads(1)
    disable_progress_bar()
    if options.kind and options.input is not None:
        outcome, told = judge(options.kind, options.seed, options.input, options.seconds)
        print(outcome, told, sep="\n")
        return 0 if outcome in OUTCOMES[:2] else 1
    with tempfile.TemporaryDirectory(prefix="fuzz-cache-") as cache:
        os.environ["CROSSGUARD_CACHE"] = cache
        os.environ["HF_HUB_OFFLINE"] = "1"
        table: dict[str, Counter[str]] = {}
        seen: Counter[str] = Counter()
        for name, number in plan(options.inputs, options.kind):
            outcome, told = judge(name, options.seed, number, options.seconds)
            table.setdefault(name, Counter())[outcome] += 1
            if outcome not in OUTCOMES[:2]:
                place = told if outcome == "silently wrong" else "".join(told.splitlines()[-3:])
                seen[f"{name} {outcome} {place[:60]}"] += 1
                if seen[f"{name} {outcome} {place[:60]}"] == 1:
                    print(f"--kind {name!r} --input {number}: {outcome}\n{told}", file=sys.stderr, flush=True)
        if options.kills and not options.kind:
            table["kills"], told_kills = kills(options.seed, options.kills)
            print(*told_kills, sep="\n", file=sys.stderr)
    print(f"{'':<20}{'tried':>8}" + "".join(f"{outcome:>16}" for outcome in OUTCOMES))
    table["all"] = sum((row for name, row in table.items() if name != "kills"), Counter())
    for name, row in table.items():
        print(f"{name:<20}{row.total():>8,}" + "".join(f"{row[outcome]:>16,}" for outcome in OUTCOMES))
    return 1 if any(row[outcome] for row in table.values() for outcome in OUTCOMES[2:]) else 0


if __name__ == "__main__":
    sys.exit(main())
