"""Words that text attacks leave alone: function words carry grammar, negations turn the meaning round."""

_APOSTROPHES = str.maketrans(dict.fromkeys("\u2018\u2019\u02bc\uff07", "'"))
_NEGATIONS = (
    "no not never none nobody nothing nowhere neither nor without cannot cant can't dont don't doesnt "
    "doesn't didnt didn't isnt isn't arent aren't wasnt wasn't werent weren't wont won't wouldnt "
    "wouldn't shouldnt shouldn't couldnt couldn't hasnt hasn't havent haven't hadnt hadn't mustnt "
    "mustn't neednt needn't aint ain't mightnt mightn't shant shan't oughtnt oughtn't darent daren't n't hardly barely "
    "scarcely"
)
_FUNCTION_WORDS = (
    "a an the this that these those some any each every either both all few many much more most "
    "several such other another own same i me my mine myself we us our ours ourselves you your yours "
    "yourself yourselves he him his himself she her hers herself it its itself they them their theirs "
    "themselves one ones someone somebody something anyone anybody anything everyone everybody "
    "everything who whom whose which what whatever whoever and or but if then else than as because "
    "while although though unless until whether so yet of in on at by for with about against between "
    "among into onto through during before after above below to from up down out off over under again "
    "further near beside besides behind beneath across along around inside outside within toward "
    "towards upon per via is am are was were be been being do does did doing done have has had having "
    "can could may might must shall should will would ought get gets got here there when where why "
    "how now just only very too also quite rather really even still ever always often 's 're 've 'll "
    "'d 'm s t d ll m re ve"
)

NEGATIONS: frozenset[str] = frozenset(_NEGATIONS.split())
"""Never inserted, removed or replaced."""

STOP_WORDS: frozenset[str] = NEGATIONS | frozenset(_FUNCTION_WORDS.split())
"""English function words, lower case: never attacked, never proposed."""


def is_negation(word: str) -> bool:
    """Whether a word, in any case and with any apostrophe, is a negation.

    Example:
        >>> [is_negation(word) for word in ("don't", "Don\u2019t", "amn't", "tent")]
        [True, True, True, False]
    """
    plain = _plain(word)
    return plain in NEGATIONS or plain.endswith("n't")


def is_stop_word(word: str) -> bool:
    """Whether a word, in any case and with any apostrophe, is a function word or a negation."""
    return _plain(word) in STOP_WORDS or is_negation(word)


def _plain(word: str) -> str:
    return word.lower().translate(_APOSTROPHES)
