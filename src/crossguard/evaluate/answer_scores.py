"""How answers are scored: VQA's agreement with ten people, yes or no, and letters of choices."""

import re
from collections.abc import Sequence

from crossguard.data.questions import Scoring

_PEOPLE = 3
"""From how many people who said the same an answer is wholly right."""
_NUMBERS = ["none", "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
_DIGITS = dict(zip(_NUMBERS, ["0", "0", *map(str, range(1, 11))], strict=True))
_ARTICLES = {"a", "an", "the"}
_SIGNS = ';/[]"{}()=+\\_-><@`,?!'
_CONTRACTIONS = """
ain't aren't can't could've couldn't didn't doesn't don't hadn't hasn't haven't he'd he's how'd
how'll how's i'm i've isn't it'd it'll let's ma'am might've mightn't must've mustn't needn't o'clock
shan't she's should've shouldn't that'd that's there'd there're there's they'd they'll they're
they've wasn't we've weren't what'll what're what's what've when's where'd where's where've who'd
who'll who's who've why'll why're why's won't would've wouldn't y'all you'd you'll you're you've
"""
_SPELT = {word.replace("'", ""): word for word in _CONTRACTIONS.split()}


def normalise_answer(text: str) -> str:
    """Return an answer as VQA's authors compare them.

    Lower case; signs become blanks, or go where a blank is beside one (or a comma stands in a number); stops before no
    digit go; numbers up to ten as digits; articles go; contractions get their apostrophe.

    Example:
        >>> normalise_answer("The two cats."), normalise_answer("dont know"), normalise_answer("1,000.5 km/h")
        ('2 cats', "don't know", '1000.5 kmh')
    """
    text = text.replace("\n", " ").replace("\t", " ").strip()
    numbers = re.search(r"\d,\d", text) is not None
    for sign in _SIGNS:
        if numbers or f"{sign} " in text or f" {sign}" in text:
            text = text.replace(sign, "")
        else:
            text = text.replace(sign, " ")
    text = re.sub(r"\.(?!\d)", "", text)
    words = [_DIGITS.get(word, word) for word in text.lower().split()]
    return " ".join(_SPELT.get(word, word) for word in words if word not in _ARTICLES)


def vqa_accuracy(answer: str, people: Sequence[str]) -> float:
    """Return VQA's accuracy of an answer, in [0, 1] (Antol et al., 2015).

    min(agreements / 3, 1), averaged over leaving out each person in turn.

    Args:
        answer: the model's.
        people: their answers, usually ten; one alone is right or wrong.

    Example:
        >>> vqa_accuracy("Two", ["2", "two", "three", "3", "3", "3", "3", "3", "3", "3"])
        0.6
    """
    said, given = normalise_answer(answer), [normalise_answer(text) for text in people]
    agreed = sum(text == said for text in given)
    if len(given) == 1:
        return float(agreed)
    others = [agreed - (text == said) for text in given]
    return sum(min(count / _PEOPLE, 1.0) for count in others) / len(others)


def yes_or_no(answer: str) -> str:
    """Return what an answer says, as POPE's authors read it: "no" where its first sentence has no or not, else "yes".

    Example:
        >>> yes_or_no("No, there is none."), yes_or_no("There is not. Yes"), yes_or_no("Yes."), yes_or_no("a dog")
        ('no', 'no', 'yes', 'yes')
    """
    words = answer.split(".")[0].replace(",", "").lower().split()
    return "no" if {"no", "not"} & set(words) else "yes"


def chosen_letter(answer: str) -> str:
    """Return the letter of a choice: the answer itself, or one at its beginning; "" where there is none.

    Example:
        >>> chosen_letter("B"), chosen_letter("C. a magnet"), chosen_letter("The answer is A."), chosen_letter("Blue")
        ('B', 'C', 'A', '')
    """
    text = answer.strip()
    found = re.match(r"([A-Z])(?:[.):]|$)", text) or re.search(r"[Aa]nswer is ([A-Z])\b", text)
    return found[1] if found else ""


def score_answer(answer: str, people: Sequence[str], scoring: Scoring) -> float:
    """Return the score of an answer in [0, 1]."""
    if scoring == "vqa":
        return vqa_accuracy(answer, people)
    return float((yes_or_no(answer) if scoring == "yes-no" else chosen_letter(answer)) == people[0])
