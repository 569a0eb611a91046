"""Captions as words: the Penn Treebank tokenizer that published figures use (it needs Java), or a plain one."""

import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from threading import Thread
from typing import Any, Literal

from crossguard.extras import install

UTF8 = ("-Dfile.encoding=UTF-8",)
"""What makes Java read and write UTF-8 whatever the system's language."""

Tokenizer = Literal["ptb", "plain"]
_MARKS = ("''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";")
PUNCTUATION = frozenset([*_MARKS, "-LRB-", "-RRB-", "-LCB-", "-RCB-"])
"""Tokens that are left out, as by the COCO caption evaluation (Chen et al., 2015)."""

_PIECES = re.compile(r"(?:[^\W\d_]\.){2,}|\d+(?:[.,:/]\d+)*|'(?:s|m|d|ll|re|ve)\b|\w+(?:['-]\w+)*|\.{3}|-+|[^\w\s]")
_CLITICS = re.compile(r"(?<=\w)(n't|(?<=^can)not$|'(?:s|m|d|ll|re|ve))(?=$|-)")
_BRACKETS = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-", '"': "''"}


def find_java() -> str | None:
    """Return the path of Java, or None where there is none."""
    return shutil.which("java")


def package(module: str) -> Any:
    """Return a module of pycocoevalcap.

    Raises:
        ImportError: it is not installed.
    """
    try:
        return import_module(f"pycocoevalcap.{module}")
    except ImportError as error:
        raise ImportError(
            f"Expected pycocoevalcap for the metrics of captions, but it is not installed: {install('captions')}"
        ) from error


def package_folder() -> Path:
    """Return the folder of pycocoevalcap.

    Raises:
        ImportError: it is not installed.
    """
    return Path(package("tokenizer.ptbtokenizer").__file__).resolve().parent.parent


def choose_tokenizer() -> Tokenizer:
    """Return "ptb" where Java is there, else "plain"."""
    return "plain" if find_java() is None else "ptb"


def tokenize(captions: Sequence[str], *, tokenizer: Tokenizer) -> list[str]:
    """Return each caption in lower case, as words with single blanks between, without punctuation.

    Args:
        captions: any texts; line breaks count as blanks.
        tokenizer: "ptb" is Stanford's Penn Treebank tokenizer in pycocoevalcap, as published figures use it; "plain"
            splits at white space and punctuation, parts "'s" and "n't" from their words, and gives the same words for
            nearly all captions.

    Raises:
        ImportError: "ptb" without pycocoevalcap.
        RuntimeError: "ptb", and Java failed.
    """
    lines = [" ".join(caption.split()) for caption in captions]
    split = _ptb(lines) if tokenizer == "ptb" else [_plain(line) for line in lines]
    return [" ".join(token for token in tokens if token not in PUNCTUATION) for tokens in split]


def _plain(line: str) -> list[str]:
    pieces = (_BRACKETS.get(piece, piece) for piece in _PIECES.findall(line.lower().replace("’", "'")))
    return [token for piece in pieces for token in _CLITICS.sub(r" \1", piece).split()]


def _ptb(lines: Sequence[str]) -> list[list[str]]:
    jar = next(iter(sorted((package_folder() / "tokenizer").glob("stanford-corenlp-*.jar"))), None)
    if jar is None:
        raise RuntimeError(f"Expected the tokenizer's jar in {package_folder() / 'tokenizer'}, but there is none.")
    found = run_java(
        [
            "-Dfile.encoding=UTF-8",
            "-cp",
            str(jar),
            "edu.stanford.nlp.process.PTBTokenizer",
            "-preserveLines",
            "-lowerCase",
        ],
        "".join(f"{line}\n" for line in lines),
    ).split("\n")
    if len(found) < len(lines):
        raise RuntimeError(f"Expected {len(lines)} lines of the tokenizer, but got {len(found)}.")
    return [line.split() for line in found[: len(lines)]]


def run_java(arguments: Sequence[str], text: str, *, folder: Path | None = None) -> str:
    """Run Java on a text and return what it prints.

    Raises:
        RuntimeError: there is no Java, or it failed; with the last line that it said.
    """
    java = find_java()
    if java is None:
        raise RuntimeError("Expected Java on the path, but there is none.")
    done = subprocess.run([java, *arguments], input=text.encode(), capture_output=True, cwd=folder, check=False)
    if done.returncode:
        raise _failed(done.returncode, done.stderr)
    return done.stdout.decode(errors="replace")


@contextmanager
def talk_to_java(arguments: Sequence[str], *, folder: Path) -> Iterator[Callable[[Sequence[str], int], list[str]]]:
    """Run a program that answers line by line; gives a function that sends lines and returns so many of its own.

    Raises:
        RuntimeError: there is no Java, or it ended before it answered; with the last line that it said.
    """
    java = find_java()
    if java is None:
        raise RuntimeError("Expected Java on the path, but there is none.")
    with tempfile.TemporaryFile() as said:
        program = subprocess.Popen(
            [java, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, cwd=folder
        )
        assert program.stdin is not None
        assert program.stdout is not None
        told, heard = program.stdin, program.stdout

        def send(lines: Sequence[str]) -> None:
            with suppress(BrokenPipeError):  # it has ended; what it said is told below
                told.write("".join(f"{line}\n" for line in lines).encode())
                told.flush()

        def ask(lines: Sequence[str], answers: int) -> list[str]:
            sending = Thread(target=send, args=(lines,))  # it may answer before it has heard everything
            sending.start()
            found = [heard.readline().decode(errors="replace") for _ in range(answers)]
            sending.join()
            if not all(line.endswith("\n") for line in found):
                said.seek(0)
                raise _failed(program.wait(), said.read())
            return [line.strip() for line in found]

        try:
            yield ask
        finally:
            program.kill()
            program.communicate()


def _failed(code: int, said: bytes) -> RuntimeError:
    lines = said.decode(errors="replace").strip().splitlines()
    return RuntimeError(f"Java failed with exit code {code}: {lines[-1] if lines else 'it said nothing'}")
