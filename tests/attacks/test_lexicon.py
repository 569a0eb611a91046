"""Words that exist: irregular forms both ways, doubled consonants, and no misspelling among the candidates."""

import importlib.util
import sys
from pathlib import Path

import pytest

from crossguard.attacks import Thesaurus
from crossguard.attacks.lexicon import entries, inflect, is_known, readings

VERBS = """
arise arose arisen; awake awoke awoken; bear bore borne; beat beat beaten; become became become; begin began begun;
bend bent bent; bet bet bet; bind bound bound; bite bit bitten; bleed bled bled; blow blew blown; break broke broken;
breed bred bred; bring brought brought; build built built; burst burst burst; buy bought bought; cast cast cast;
catch caught caught; choose chose chosen; cling clung clung; come came come; cost cost cost; creep crept crept;
cut cut cut; deal dealt dealt; dig dug dug; draw drew drawn; drink drank drunk; drive drove driven; eat ate eaten;
fall fell fallen; feed fed fed; feel felt felt; fight fought fought; find found found; flee fled fled;
fling flung flung; fly flew flown; forget forgot forgotten; forgive forgave forgiven; freeze froze frozen;
get got got; give gave given; go went gone; grind ground ground; grow grew grown; hang hung hung; hear heard heard;
hide hid hidden; hit hit hit; hold held held; hurt hurt hurt; keep kept kept; kneel knelt knelt; know knew known;
lay laid laid; lead led led; leave left left; lend lent lent; let let let; lie lay lain; lose lost lost;
make made made; mean meant meant; meet met met; overtake overtook overtaken; pay paid paid; put put put;
read read read; ride rode ridden; ring rang rung; rise rose risen; run ran run; say said said; see saw seen;
seek sought sought; sell sold sold; send sent sent; set set set; shake shook shaken; shine shone shone;
shoot shot shot; shrink shrank shrunk; shut shut shut; sing sang sung; sink sank sunk; sit sat sat;
sleep slept slept; slide slid slid; sling slung slung; slit slit slit; speak spoke spoken; spend spent spent;
spin spun spun; split split split; spread spread spread; spring sprang sprung; stand stood stood; steal stole stolen;
stick stuck stuck; sting stung stung; stink stank stunk; stride strode stridden; strike struck struck;
string strung strung; swear swore sworn; sweep swept swept; swell swelled swelled; swim swam swum; swing swung swung;
take took taken; teach taught taught; tear tore torn; tell told told; think thought thought; throw threw thrown;
thrust thrust thrust; tread trod trodden; understand understood understood; upset upset upset; wake woke woken;
wear wore worn; weave wove woven; weep wept wept; win won won; wind wound wound; withdraw withdrew withdrawn;
wring wrung wrung; write wrote written; panic panicked panicked; mimic mimicked mimicked; vie vied vied; die died died
"""
NOUNS = """
man men; woman women; child children; person people; foot feet; tooth teeth; goose geese; mouse mice; louse lice;
ox oxen; sheep sheep; deer deer; fish fish; aircraft aircraft; series series; species species;
leaf leaves; loaf loaves; thief thieves; wife wives; knife knives; life lives; half halves; calf calves; wolf wolves;
shelf shelves; self selves; elf elves; sheaf sheaves; tomato tomatoes; potato potatoes; hero heroes; echo echoes;
piano pianos; photo photos; zoo zoos; radio radios; crisis crises; thesis theses; analysis analyses; oasis oases;
axis axes; criterion criteria; fireman firemen; policeman policemen; snowman snowmen;
fisherman fishermen; human humans; roof roofs; cliff cliffs; chief chiefs; quiz quizzes; whiz whizzes; topaz topazes; bus buses;
church churches; box boxes; city cities; monkey monkeys; grandchild grandchildren;
scissors scissors; furniture furniture; stairs stairs; goldfish goldfish; midwife midwives; mosquito mosquitoes
"""
ADJECTIVES = """
good better best; bad worse worst; big bigger biggest; hot hotter hottest; thin thinner thinnest; fat fatter fattest;
wet wetter wettest; sad sadder saddest; red redder reddest; happy happier happiest; dry drier driest;
tiny tinier tiniest; free freer freest; true truer truest; blue bluer bluest; large larger largest; old older oldest;
young younger youngest; quick quicker quickest; easy easier easiest; grey greyer greyest; simple simpler simplest
"""
CONTINUOUS = """
run running; sit sitting; put putting; cut cutting; swim swimming; begin beginning; forget forgetting; hit hitting;
permit permitting; submit submitting; refer referring; prefer preferring; occur occurring; admit admitting;
control controlling; rebel rebelling; abhor abhorring; compel compelling; equip equipping; stop stopping;
hug hugging; jog jogging; skip skipping; open opening; visit visiting; listen listening; offer offering;
answer answering; enter entering; happen happening; gallop galloping; rain raining; play playing; fix fixing;
snow snowing; lie lying; die dying; vie vying; tie tying; dye dyeing; see seeing; flee fleeing; singe singeing;
hoe hoeing; canoe canoeing; wave waving; ride riding; panic panicking; picnic picnicking; ski skiing; quit quitting
"""
REGULAR = """
stop stopped; grab grabbed; beg begged; plan planned; permit permitted; refer referred; occur occurred;
admit admitted; abhor abhorred; control controlled; equip equipped; open opened; visit visited; offer offered;
gallop galloped; carry carried; play played; smile smiled; hurry hurried; mix mixed; snow snowed; kidnap kidnapped;
format formatted; ski skied; tie tied; dye dyed; agree agreed; picnic picnicked; hum hummed; rub rubbed; nod nodded
"""
MISSPELT = """
finded shutted viing runned sheeps tomatos abhored submited defering permiting controling fulfiling upseting flinged
hurted falled cutted drawed beared standed throwed goed forsweared diing stomaches womans childs mans mouses foots
holded weared writed sitted swimmed catched teached buyed breaked drived eated readed peoples furnitures heros potatos
biger hoter happyer gooder baddest occuring refering begining geting puting stoped whizes quizes
"""


def table(text):
    return [row.split() for row in text.replace("\n", " ").split(";")]


CASES = [
    *[(verb, "v", form, word) for verb, *pair in table(VERBS) for form, word in zip(("ed", "en"), pair, strict=True)],
    *[(noun, "n", "s", plural) for noun, plural in table(NOUNS)],
    *[
        (word, "a", form, made)
        for word, *pair in table(ADJECTIVES)
        for form, made in zip(("er", "est"), pair, strict=True)
    ],
    *[(verb, "v", "ing", made) for verb, made in table(CONTINUOUS)],
    *[(verb, "v", form, made) for verb, made in table(REGULAR) for form in ("ed", "en")],
]


def test_irregular_forms_are_written_right():
    assert len(CASES) > 400
    made = {(word, pos, form): inflect(word, pos, form) for word, pos, form, _ in CASES}
    assert made == {(word, pos, form): expected for word, pos, form, expected in CASES}


def test_irregular_forms_are_read():
    """A form that is spelt like its word ("put") is read as the word."""
    unread = [
        (word, made)
        for word, pos, form, made in CASES
        if made != word and not any(made in entry.forms.get(form, ()) for entry in entries(word) if entry.pos == pos)
    ]
    assert unread == []
    for word, lemma, form in (("wore", "wear", "ed"), ("geese", "goose", "s"), ("vying", "vie", "ing")):
        assert (lemma, form) in [(entry.word, found) for entry, found in readings(word)]


@pytest.mark.parametrize("word", ["ran", "wore", "held", "stood", "ate", "threw", "flew", "geese", "bigger", "written"])
def test_irregular_forms_have_candidates(word):
    assert Thesaurus().of(word)


@pytest.mark.parametrize(
    ("word", "candidates"),
    [
        ("ran", {"sped", "hurried"}),
        ("worn", {"aged", "tattered"}),
        ("written", {"composed", "penned"}),
        ("bigger", {"larger"}),
        ("vying", {"competing", "contending"}),
        ("children", {"kids", "youngsters"}),
        ("walked", {"traveled", "went", "gone"}),  # past and participle are spelt alike here, and not there
        ("leaves", {"foliage"}),  # no plural
    ],
)
def test_candidates_take_the_form_of_the_word(word, candidates):
    assert candidates <= set(Thesaurus().of(word))


def test_a_likely_form_hides_a_word_that_is_never_met():
    assert {entry.word for entry, _ in readings("sat")} == {"sit"}
    assert {"rose", "rise"} == {entry.word for entry, _ in readings("rose")}


def test_no_candidate_is_misspelt():
    thesaurus, strange = Thesaurus(broader="always", limit=99), set(MISSPELT.split())
    words = {
        spelling for word, *_ in CASES for entry in entries(word) for ws in entry.forms.values() for spelling in ws
    }
    near = {synonym for word, *_ in CASES for entry in entries(word) for synonym in (*entry.synonyms, *entry.broader)}
    words |= {spelling for word in near for entry in entries(word) for ws in entry.forms.values() for spelling in ws}
    found = {candidate for word in words for candidate in thesaurus.of(word)}
    assert len(found) > 5000
    assert not strange & found
    assert all(is_known(candidate) for candidate in found)


def test_the_rules_of_the_tool():
    """What the thesaurus is built with where no list knows a word."""
    path = Path(__file__).parents[2] / "tools" / "english_forms.py"
    spec = importlib.util.spec_from_file_location("english_forms", path)
    tool = importlib.util.module_from_spec(spec)
    sys.modules["english_forms"] = tool  # dataclasses look their module up
    try:
        spec.loader.exec_module(tool)
    finally:
        del sys.modules["english_forms"]
    for form, rows in {
        "ing": "blit blitting; blerp blerping; blie blying; blee bleeing; blype blyping; bleec bleecking; blay blaying",
        "ed": "blit blitted; blerp blerped; blie blied; blee bleed; quib quibbed; bly blied; blay blayed; bloin bloined",
        "s": "blit blits; bly blies; blay blays; blush blushes; bloz blozzes; waltz waltzes; bleeman bleemen; blesis bleses; bleo bleos",
        "er": "blit blitter; bly blier; blosey blosier; blue bluer; grey greyer",
    }.items():
        assert {word: tool.regular_forms(word, form)[0] for word, _ in table(rows)} == dict(table(rows))
