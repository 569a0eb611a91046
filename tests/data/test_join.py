"""Two sets of pairs as one: nothing lost, nothing twice."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from crossguard.data import OneToManyPairs
from crossguard.data.join import join


def named_links(pairs: OneToManyPairs) -> set[tuple[str, str]]:
    return {(pairs.images[i].key, pairs.texts[j]) for i, j in pairs.links}


@given(
    st.lists(st.integers(0, 23), min_size=1, unique=True),
    st.lists(st.integers(0, 23), min_size=1, unique=True),
)
def test_all_links_of_both_and_the_first_keep_their_places(toy_pairs, some, others):
    first = replace(toy_pairs.select(images=some), notes=("left out: 1", "repeated: 2"))
    second = replace(toy_pairs.select(images=others), notes=("left out: 3", "repeated: 2"))
    both = join(first, second)
    assert named_links(both) == named_links(first) | named_links(second)
    assert len(both.links) == len(named_links(both))
    assert both.images[: len(first.images)] == first.images
    assert both.texts[: len(first.texts)] == first.texts
    assert len(set(both.images)) == len(both.images) == len({*some, *others})
    assert both.text_kinds == ("caption",) * len(both.texts)
    assert both.name == "toy+toy"
    assert both.notes == ("left out: 1", "repeated: 2", "left out: 3")
