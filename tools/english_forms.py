"""The inflected forms of English words, for `build_thesaurus.py`: which there are, and which may be written.

Three sources are held against each other:

- the look-up table of LemmInflect (MIT licence; drawn from the SPECIALIST Lexicon of the U.S. National Library of
  Medicine): spellings of every form, the commonest first;
- WordNet's exception lists (`noun.exc`, `verb.exc`, `adj.exc`, `adv.exc`): every irregular form it knows, and the verbs
  that double a consonant ("preferred");
- the regular rules, where the exception lists are silent.

A form of the table is believed when one of the others or WordNet's own running text (its glosses) has it too, so
that "mimiced" is not. A word that the table lacks has the forms of the exception lists and of the rules. These are
all *read* ("sashaying" is a form of "sashay"); only what a lexicon has is *written*: a form of the table or of the
exception lists, and a plural that is in the glosses or in the list of forms that LemmInflect takes apart.
"""

import gzip
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

FILES = {"n": "noun", "v": "verb", "a": "adj", "r": "adv"}
FORMS = {"n": ("s",), "v": ("s", "ing", "ed", "en"), "a": ("er", "est"), "r": ("er", "est")}
TABLE_COLUMNS = {"n": ("s",), "v": ("ed", "en", "ing", "s"), "a": ("er", "est"), "r": ("er", "est")}
# Words for one that stand for many as well; the table has "aircrafts" first.
INVARIANT = ("aircraft", "hovercraft", "spacecraft", "watercraft", "fish", "sheep", "deer")
# Where the table puts another spelling first than running text has, or has none.
LEADING = {
    ("person", "s"): "people",
    ("quit", "ed"): "quit",
    ("singe", "ing"): "singeing",
    ("bear", "en"): "borne",
    ("wake", "en"): "woken",
    **{(verb, "en"): verb for verb in ("run", "outrun", "overrun", "rerun")},
}
WORD = re.compile(r"[a-z]{2,}")
VOWELS = "aeiou"


@dataclass(frozen=True)
class Forms:
    """The spellings of one form of one word: all that are read, the first of which is written if `written`."""

    spellings: tuple[str, ...]
    written: bool


class English:
    """What the sources say of a word's forms.

    Args:
        wordnet: the folder with `noun.exc`, `data.noun`, ...
        lemminflect: the folder of the package, with `resources/infl_lu.csv.gz`.
    """

    def __init__(self, wordnet: Path, lemminflect: Path) -> None:
        self.table = read_table(lemminflect / "resources" / "infl_lu.csv.gz")
        self.exceptions = {pos: read_exceptions(wordnet / f"{name}.exc") for pos, name in FILES.items()}
        self.glosses = Counter(word for name in FILES.values() for word in read_glosses(wordnet / f"data.{name}"))
        with gzip.open(lemminflect / "resources" / "lemma_lu.csv.gz", "rt") as lines:
            self.taken_apart = {line.split(",")[0] for line in lines}
        nouns = read_words(wordnet / "index.noun")
        # "stairs", "woods": WordNet lists some words in the plural.
        self.plurals = {
            w
            for w in nouns
            if w.endswith("s") and w[:-1] in nouns and w not in self.exceptions["n"] and (w, "n") not in self.table
        }

    def forms(self, word: str, pos: str) -> dict[str, Forms]:
        """Return a lower-case word's forms as a part of speech: n (s), v (s, ing, ed, en), a and r (er, est)."""
        listed = self.table.get((word, pos), {})
        irregular = self._irregular(word, pos, listed)
        found = {}
        for form in FORMS[pos]:
            odd, regular = irregular[form], regular_forms(word, form)
            if pos == "n" and (word.endswith(INVARIANT) or word in self.plurals):
                odd = (word,)
            believed = () if odd or (form in ("ed", "en") and self._compound(word)) else regular
            known = [w for w in listed.get(form, ()) if w in odd or w in believed or w in self.glosses]
            if form in ("er", "est") and not (syllables(word) < 3 and (known or odd)):
                continue  # "more careful" is no single word
            first = [LEADING[word, form]] if (word, form) in LEADING else odd if odd == (word,) else []
            certain = [*first, *known, *odd]
            rest = [w for w in regular if not listed and not certain]
            if pos == "n" and not certain:
                certain = [w for w in rest if w in self.glosses or w in self.taken_apart]
            if spellings := tuple(dict.fromkeys((*certain, *rest))):
                found[form] = Forms(spellings, written=bool(certain))
        if pos == "v" and "ed" in found and "en" not in listed and irregular["en"] == irregular["ed"]:
            found["en"] = found["ed"]
        return found

    def vouched(self, word: str) -> bool:
        """Whether a word of WordNet's may be written: one that looks like a form is to be in another list or in use."""
        known = word in self.taken_apart or word in self.glosses or any((word, pos) in self.table for pos in FILES)
        return known or not word.endswith(("ed", "ing"))

    def _compound(self, word: str) -> bool:
        """Whether a verb ends in an irregular one, so that the regular past is in doubt ("housebreak")."""
        inner = (word[start:] for start in range(2, len(word) - 2))
        pasts = ((verb, self.table.get((verb, "v"), {}).get("ed", ())) for verb in inner)
        return any(ed and ed[0] not in regular_forms(verb, "ed") for verb, ed in pasts)

    def _irregular(self, word: str, pos: str, listed: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        """Tell which form each entry of an exception list is; the lists do not."""
        found: dict[str, list[str]] = {form: [] for form in FORMS[pos]}
        for entry in self.exceptions[pos].get(word, ()):
            for form in self._form_of(entry, word, pos, listed):
                found[form].append(entry)
        if pos == "v" and not found["en"]:
            found["en"] = found["ed"]
        if pos == "v" and not found["ed"]:
            found["ed"] = found["en"]
        return {form: tuple(entries) for form, entries in found.items()}

    def _form_of(self, entry: str, word: str, pos: str, listed: dict[str, tuple[str, ...]]) -> list[str]:
        if pos == "n":
            return ["s"]
        if pos in "ar":
            return ["est"] if entry.endswith("st") else ["er"] if entry.endswith(("r", "re", "se", "ss")) else []
        if entry.endswith("ing"):
            return ["ing"]
        if entry.endswith("s"):
            return ["s"]
        either = [form for form in ("ed", "en") if entry in listed.get(form, ())]
        if either:
            return either
        # "foreknew" and "foreknown", as "knew" and "known".
        for start in range(1, len(word) - 1):
            inner = self.table.get((word[start:], "v"), {})
            either = [form for form in ("ed", "en") if entry[start:] in inner.get(form, ())]
            if entry[:start] == word[:start] and either:
                return either if inner.get("en") else ["ed", "en"]
        return ["en"] if entry.endswith(("n", "ne", "ung", "unk")) else ["ed"]


def regular_forms(word: str, form: str) -> tuple[str, ...]:
    """Return what the rules make of a word, the likelier spelling first."""
    after_consonant = word[-2:-1] not in VOWELS
    if form == "s":
        if word.endswith("man"):
            return (word[:-3] + "men", word + "s")
        if word.endswith("y") and after_consonant:
            return (word[:-1] + "ies",)
        if word.endswith("sis"):
            return (word[:-2] + "es",)
        if word.endswith("o") and after_consonant:
            return (word + "es", word + "s")
        if re.search(r"(?:[^aeiou]|qu)[aeiou]z$", word) and syllables(word) == 1:
            return (word + "zes",)
        return (word + "es",) if word.endswith(("s", "x", "z", "ch", "sh")) else (word + "s",)
    if word.endswith("ie") and form == "ing":
        return (word[:-2] + "ying",)
    if word.endswith("e") and not (form == "ing" and word.endswith(("ee", "oe", "ye"))):
        return (word[:-1] + form,)
    if word.endswith("y") and after_consonant and form != "ing":
        return (word[:-1] + "i" + form,)
    if word.endswith("ey") and form in ("er", "est") and syllables(word) > 1:
        return (word[:-2] + "i" + form,)
    if word.endswith("c") and form in ("ing", "ed", "en"):
        return (word + "k" + form,)
    if re.fullmatch(r"(?:.*[^aeiou])?(?:[aeiou]|qu[aeiou])[^aeiouwxy]", word):
        doubled = word + word[-1] + form
        # Longer verbs double under stress, which their spelling does not tell.
        longer = (word + form,) if form in ("er", "est") else (word + form, doubled)
        return (doubled,) if syllables(word) == 1 else longer
    return (word + form,)


def syllables(word: str) -> int:
    """Return about how many a word has: its groups of vowels, without a silent e."""
    word = word.replace("qu", "q")
    silent = word.endswith("e") and not word.endswith(("le", "ee"))
    return max(1, len(re.findall(r"[aeiouy]+", word[:-1] if silent else word)))


def read_table(path: Path) -> dict[tuple[str, str], dict[str, tuple[str, ...]]]:
    """Read LemmInflect's table: forms by word and part of speech; an empty participle is as the past."""
    letters = {name: pos for pos, name in FILES.items()}
    table = {}
    with gzip.open(path, "rt") as lines:
        for line in lines:
            word, name, *columns = line.rstrip("\n").split(",")
            pos = letters[name]
            spellings = ([w for w in column.split("/") if WORD.fullmatch(w)] for column in columns)
            table[word, pos] = {form: tuple(ws) for form, ws in zip(TABLE_COLUMNS[pos], spellings, strict=False) if ws}
    return table


def read_words(path: Path) -> set[str]:
    """Read the single lower-case words of an `index.*` file."""
    return {word for line in path.read_text().splitlines() if WORD.fullmatch(word := line.partition(" ")[0])}


def read_exceptions(path: Path) -> dict[str, tuple[str, ...]]:
    """Read an exception list: the irregular forms by lemma."""
    found: dict[str, list[str]] = defaultdict(list)
    for line in path.read_text().splitlines():
        form, *lemmas = line.split()
        if WORD.fullmatch(form):
            for lemma in lemmas:
                found[lemma].append(form)
    return {lemma: tuple(forms) for lemma, forms in found.items()}


def read_glosses(path: Path) -> Iterable[str]:
    """Read the lower-case words of WordNet's definitions and examples."""
    for line in path.read_text().splitlines():
        if not line.startswith(" "):
            yield from re.findall(r"(?<![\w'-])[a-z]{2,}(?![\w'-])", line.partition(" | ")[2])
