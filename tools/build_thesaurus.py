"""Build the shipped thesaurus and antonym list from Princeton WordNet 3.0, with the forms of its words.

    apt-get download wordnet-base && dpkg -x wordnet-base_*.deb wordnet
    pip install --no-deps --target lemminflect lemminflect==0.2.3
    python tools/build_thesaurus.py wordnet/usr/share/wordnet lemminflect/lemminflect src/crossguard/attacks/assets

Kept, per single-word lower-case lemma and part of speech: from its main senses, the other words of the synset
(synonyms), of similar adjectives, and of the nearest hypernym that is a single word, one or two steps up (a broader
word: "cat" -> "feline"). A sense is a main one when it is the first of its part of speech, or carries at least a
quarter of the word's tagged occurrences (SemCor counts of `cntlist.rev`), and at most three per part of speech. Parts
of speech with less than a tenth of the tagged occurrences of the word's most frequent one are dropped (when that one
has at least five), so that "cat" brings no "flog". Words without tagged occurrences keep their first three senses.
Where the main senses bring nothing, the first sense with synonyms and a tenth of the occurrences stands in ("wear":
"bear", from its second).
Broader words above depth `MIN_DEPTH` ("entity", "whole", "act") say too little and are dropped. So are candidates
that never occur in the tagged text ("caliginous" for "dark"), unless a word has no others, and words in -ed and -ing
that WordNet alone lists ("leging").

The forms of every word and candidate come from `english_forms.py`.

Lines of `thesaurus.txt.gz`: word, part of speech (n v a r), tagged occurrences, forms, synonyms and similar words,
broader words; separated by tabs, words by commas, best first; a word's commonest part of speech comes first. Forms:
plural (n); third person, -ing, past, past participle (v); comparative, superlative (a r); other spellings behind "/",
and nothing before it where a form is read but never written. Lines of `antonyms.txt.gz`: two words. Both files are
byte-reproducible.
"""

import argparse
import gzip
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from english_forms import FILES, FORMS, WORD, English

TYPES = {"1": "n", "2": "v", "3": "a", "4": "r", "5": "a"}
MAIN_SHARE, POS_SHARE, MIN_TAGGED, MAX_SENSES, MIN_DEPTH, MAX_WORDS = 0.25, 0.1, 5, 3, 4, 16


@dataclass
class Synset:
    words: list[str]
    lexical_file: int
    broader: list[str] = field(default_factory=list)
    similar: list[str] = field(default_factory=list)
    antonyms: list[tuple[str, str]] = field(default_factory=list)


def read_synsets(folder: Path, pos: str) -> dict[str, Synset]:
    """Read a `data.*` file (format: wndb(5)): synsets by offset; antonyms point to (offset, word number)."""
    synsets = {}
    for line in (folder / f"data.{FILES[pos]}").read_text().splitlines():
        if line.startswith(" "):
            continue
        parts = line.split(" | ")[0].split()
        count = int(parts[3], 16)
        # Adjectives may carry a position mark: "afraid(p)".
        words = [re.sub(r"\(.*\)", "", parts[4 + 2 * i]) for i in range(count)]
        synset = Synset(words, int(parts[1]))
        at = 4 + 2 * count
        for i in range(int(parts[at])):
            symbol, offset, target_pos, ends = parts[at + 1 + 4 * i : at + 5 + 4 * i]
            if symbol == "@":  # not "@i", instances: "andorra" is no other word for a land
                synset.broader.append(offset)
            elif symbol == "&" and target_pos in "as":
                synset.similar.append(offset)
            elif symbol == "!":
                synset.antonyms.append((words[int(ends[:2], 16) - 1], f"{offset}:{int(ends[2:], 16) - 1}"))
        synsets[parts[0]] = synset
    return synsets


def read_counts(folder: Path) -> dict[tuple[str, str, int], int]:
    """Read tagged occurrences of (word, part of speech, sense number)."""
    counts = {}
    for line in (folder / "cntlist.rev").read_text().splitlines():
        key, sense, count = line.split()
        word, lexical = key.split("%")
        counts[word, TYPES[lexical[0]], int(sense)] = int(count)
    return counts


def read_senses(folder: Path, pos: str) -> dict[str, list[str]]:
    """Read an `index.*` file: the offsets of a word's synsets in sense order."""
    senses = {}
    for line in (folder / f"index.{FILES[pos]}").read_text().splitlines():
        if not line.startswith(" "):
            parts = line.split()
            senses[parts[0]] = parts[-int(parts[2]) :]
    return senses


def depths(synsets: dict[str, Synset]) -> dict[str, int]:
    """Return the length of the shortest chain of hypernyms above every synset."""
    depth = {offset: 0 for offset, synset in synsets.items() if not synset.broader}
    below = defaultdict(list)
    for offset, synset in synsets.items():
        for parent in synset.broader:
            below[parent].append(offset)
    frontier = list(depth)
    while frontier:
        reached = []
        for parent in frontier:
            for child in below[parent]:
                if child not in depth:
                    depth[child] = depth[parent] + 1
                    reached.append(child)
        frontier = reached
    return depth


def above(
    synset: Synset, word: str, pos: str, synsets: dict[str, Synset], depth: dict[str, int], steps: int = 2
) -> list[str]:
    """Return the single words of the nearest hypernyms that have any and are not too general."""
    parents = [p for p in synset.broader if pos == "v" or depth.get(p, 0) >= MIN_DEPTH]
    found = [w for parent in parents for w in single(synsets[parent].words, but=word)]
    if found or steps == 1:
        return found
    return [w for parent in parents for w in above(synsets[parent], word, pos, synsets, depth, steps - 1)]


def neighbours(
    synset: Synset, word: str, pos: str, synsets: dict[str, Synset], depth: dict[str, int]
) -> tuple[list[str], list[str]]:
    """Return a sense's synonyms and similar words, and its broader words."""
    same = single(synset.words, but=word)
    for near in synset.similar:
        same += single(synsets[near].words, but=word)
    return same, above(synset, word, pos, synsets, depth)


def common(words: list[str], tagged: dict[str, dict[str, int]]) -> list[str]:
    """Drop words that were never tagged in running text, unless that leaves none."""
    return [word for word in words if sum(tagged[word].values())] or words


def single(words: Iterable[str], *, but: str) -> list[str]:
    return [word for word in words if WORD.fullmatch(word) and word != but]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wordnet", type=Path, help="folder with data.noun, index.noun, cntlist.rev, ...")
    parser.add_argument("lemminflect", type=Path, help="the package's folder, with resources/infl_lu.csv.gz")
    parser.add_argument("out", type=Path, help="folder for thesaurus.txt.gz and antonyms.txt.gz")
    arguments = parser.parse_args()
    counts = read_counts(arguments.wordnet)
    synsets = {pos: read_synsets(arguments.wordnet, pos) for pos in FILES}
    senses = {pos: read_senses(arguments.wordnet, pos) for pos in FILES}
    depth = {pos: depths(synsets[pos]) for pos in FILES}

    tagged: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for (word, pos, _), count in counts.items():
        tagged[word][pos] += count

    english = English(arguments.wordnet, arguments.lemminflect)
    found: dict[tuple[str, str], tuple[list[str], list[str]]] = {}
    for pos in FILES:
        for word in single(senses[pos], but=""):
            by_pos = tagged[word]
            most = max(by_pos.values(), default=0)
            if most >= MIN_TAGGED and by_pos[pos] < POS_SHARE * most:
                continue
            offsets = senses[pos][word]
            tagged_as = [counts.get((word, pos, number), 0) for number in range(1, len(offsets) + 1)]
            leading = [i for i, n in enumerate(tagged_as) if i == 0 or n >= MAIN_SHARE * by_pos[pos]][:MAX_SENSES]
            around = [neighbours(synsets[pos][offset], word, pos, synsets[pos], depth[pos]) for offset in offsets]
            chosen = [around[i] for i in leading]
            if not any(same or broader for same, broader in chosen):
                further = [i for i, n in enumerate(tagged_as) if n >= POS_SHARE * by_pos[pos]]
                chosen = [(around[i][0], []) for i in further if around[i][0]][:1]
            same = [w for lists in chosen for w in lists[0]]
            broader = [w for lists in chosen for w in lists[1]]
            same, broader = (common([w for w in ws if english.vouched(w)], tagged) for ws in (same, broader))
            same = list(dict.fromkeys(same))[:MAX_WORDS]
            broader = [w for w in dict.fromkeys(broader) if w not in same][: MAX_WORDS // 2]
            if same or broader:
                found[word, pos] = (same, broader)
    for (_, pos), lists in list(found.items()):
        for word in chain(*lists):  # its forms are needed
            found.setdefault((word, pos), ([], []))
    entries = []
    for (word, pos), (same, broader) in found.items():
        times = tagged[word][pos]
        columns = (word, pos, str(times), spell(english, word, pos), ",".join(same), ",".join(broader))
        entries.append((word, -times, pos, "\t".join(columns)))

    pairs = set()
    for pos in FILES:
        for synset in synsets[pos].values():
            for word, target in synset.antonyms:
                offset, number = target.split(":")
                other = synsets[pos][offset].words[int(number)]
                if WORD.fullmatch(word) and WORD.fullmatch(other):
                    pairs.add("\t".join(sorted((word, other))))
    write(arguments.out / "thesaurus.txt.gz", [line for *_, line in sorted(entries)])
    write(arguments.out / "antonyms.txt.gz", sorted(pairs))
    print(f"{len(entries)} entries, {len(pairs)} antonym pairs")


def spell(english: English, word: str, pos: str) -> str:
    """Return the column of forms."""
    forms = english.forms(word, pos)
    slots = (forms.get(form) for form in FORMS[pos])
    return ",".join(("" if slot.written else "/") + "/".join(slot.spellings) if slot else "" for slot in slots)


def write(path: Path, lines: Iterable[str]) -> None:
    # mtime=0: the same input gives the same bytes.
    path.write_bytes(gzip.compress(("\n".join(lines) + "\n").encode(), compresslevel=9, mtime=0))
    print(f"{path}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
