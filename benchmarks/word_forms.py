"""How many of the thesaurus's candidates are no words, by a lexicon that it is not made from.

    apt-get download wamerican-huge wbritish-huge && for f in w*-huge_*.deb; do dpkg -x $f lexicon; done
    python benchmarks/word_forms.py lexicon/usr/share/dict/*-english-huge

Every word of the lexicon is asked for its candidates, in each part of speech and form that it may be; a candidate that
is not in the lexicon counts as no word. Base forms are WordNet's own entries, so that their rows show how narrow the
lexicon is.
"""

import argparse
import unicodedata
from collections import Counter, defaultdict
from pathlib import Path

from crossguard.attacks import Thesaurus
from crossguard.attacks.candidates import attackable
from crossguard.attacks.lexicon import inflect, readings
from crossguard.attacks.meaning import keeps_meaning

FORMS = {"": "base form", "s": "-s", "ing": "-ing", "ed": "past", "en": "past participle", "er": "-er", "est": "-est"}
PARTS = {"n": "noun", "v": "verb", "a": "adjective", "r": "adverb"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lexicon", type=Path, nargs="+", help="files with one word a line")
    parser.add_argument("--encoding", default="utf-8")
    arguments = parser.parse_args()
    known = {plain(w) for path in arguments.lexicon for w in path.read_text(arguments.encoding).split()}
    asked = sorted(w for w in known if w.isascii() and w.isalpha() and w.islower() and attackable(w))

    thesaurus = Thesaurus()
    words, candidates, wrong = Counter(), Counter(), Counter()
    examples: dict[str, dict[str, None]] = defaultdict(dict)
    for word in asked:
        for row, found in {"all": thesaurus.of(word), **by_form(word)}.items():
            strange = [w for w in found if w not in known]
            words[row] += bool(found)
            candidates[row] += len(found)
            wrong[row] += len(strange)
            examples[row] |= dict.fromkeys(strange)
        for ending in ("ed", "ing"):
            found = [w for w in thesaurus.of(word) if w.endswith(ending)]
            words[f"ends in -{ending}"] += bool(found)
            candidates[f"ends in -{ending}"] += len(found)
            wrong[f"ends in -{ending}"] += sum(w not in known for w in found)
    print(f"{len(known):,} words in the lexicon, {len(asked):,} asked for, {words['all']:,} with candidates")
    print("| the word is | words with candidates | candidates | no words | share |\n|---|---|---|---|---|")
    for row in [
        "all",
        *(f"{part}, {form}" for part in PARTS.values() for form in FORMS.values()),
        "ends in -ed",
        "ends in -ing",
    ]:
        if candidates[row]:
            share = 100 * wrong[row] / candidates[row]
            print(f"| {row} | {words[row]:,} | {candidates[row]:,} | {wrong[row]:,} | {share:.2f} % |")
    for row in sorted(examples):
        print(f"{row}: {', '.join(list(examples[row])[:12])}")


def plain(word: str) -> str:
    """Take the accents away: the thesaurus has none."""
    return "".join(c for c in unicodedata.normalize("NFD", word) if not unicodedata.combining(c))


def by_form(word: str) -> dict[str, tuple[str, ...]]:
    """Return all synonyms and broader words of each reading of a word."""
    found: dict[str, tuple[str, ...]] = {}
    for entry, form in readings(word):
        made = (inflect(w, entry.pos, form) for w in (*entry.synonyms, *entry.broader))
        row = f"{PARTS[entry.pos]}, {FORMS[form]}"
        found[row] = (*found.get(row, ()), *(w for w in made if w and keeps_meaning(word, w)))
    return found


if __name__ == "__main__":
    main()
