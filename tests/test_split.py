"""Groups are assigned to splits: the same way every time, each data set by its share, nothing torn apart."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from trainer.data.split import CopyGroup, assign_splits, connected_components, find_leaks


def groups(count: int, stratum: str = "a", share: float = 0.2, weights: tuple[int, ...] = ()) -> list[CopyGroup]:
    return [
        CopyGroup(
            name=f"{stratum}{number}",
            stratum=stratum,
            share=share,
            weight=weights[number] if weights else 1,
            fixed=None,
        )
        for number in range(count)
    ]


def test_a_fifth_of_each_stratum_is_kept_and_a_twentieth_of_the_rest_calibrates() -> None:
    splits = assign_splits([*groups(100, "a"), *groups(50, "b")], seed=0, with_validation=True)

    assert Counter(split for name, split in splits.items() if name[0] == "a") == {
        "validation": 20,
        "calibration": 4,
        "training": 76,
    }
    assert Counter(split for name, split in splits.items() if name[0] == "b")["validation"] == 10


def test_the_same_seed_draws_the_same_and_another_seed_does_not() -> None:
    first, again, other = (assign_splits(groups(100), seed=seed, with_validation=True) for seed in (3, 3, 4))

    assert first == again
    assert first != other


def test_a_stratum_is_drawn_the_same_whatever_else_is_there() -> None:
    alone = assign_splits(groups(40), seed=0, with_validation=True)
    beside = assign_splits([*groups(40), *groups(30, "b")], seed=0, with_validation=True)

    assert {name: split for name, split in beside.items() if name in alone} == alone


def test_fixed_splits_stay_and_no_validation_is_drawn_unless_wanted() -> None:
    fixed = CopyGroup(name="x", stratum="a", share=0.2, weight=1, fixed="test")

    splits = assign_splits([fixed, *groups(100)], seed=0, with_validation=False)

    assert splits["x"] == "test"
    assert Counter(splits.values()) == {"test": 1, "calibration": 5, "training": 95}


def test_what_weights_were_trained_on_counts_towards_the_share_that_is_kept() -> None:
    before = assign_splits(groups(100), seed=0, with_validation=True)
    known = [replace(one, fixed="training" if before[one.name] == "training" else None) for one in groups(100)]

    assert assign_splits(known, seed=0, with_validation=True) == before


def test_of_clips_the_groups_nearest_to_half_are_kept() -> None:
    splits = assign_splits(groups(3, share=0.5, weights=(6, 2, 2)), seed=0, with_validation=True)

    assert splits == {"a0": "validation", "a1": "training", "a2": "training"}


def test_of_clips_half_at_least_are_kept_where_two_choices_are_as_near() -> None:
    splits = assign_splits(groups(4, share=0.5, weights=(4, 2, 2, 2)), seed=0, with_validation=True)

    assert Counter(splits.values()) == {"validation": 2, "training": 2}
    assert splits["a0"] == "validation"


@given(st.integers(1, 30), st.lists(st.tuples(st.integers(0, 29), st.integers(0, 29)), max_size=40))
def test_what_is_paired_has_one_number_and_nothing_else_has(count: int, pairs: list[tuple[int, int]]) -> None:
    inside = [(one, other) for one, other in pairs if one < count and other < count]

    numbers = connected_components(count, inside)

    assert all(numbers[one] == numbers[other] for one, other in inside)
    reached = {place: {place} for place in range(count)}
    for _ in range(count):
        for one, other in inside:
            reached[one] |= reached[other]
            reached[other] |= reached[one]
    assert all(
        (numbers[one] == numbers[other]) == (other in reached[one]) for one in range(count) for other in range(count)
    )


def test_a_pair_on_two_splits_leaks_unless_one_is_left_out() -> None:
    found = list(find_leaks(["training", "test", "out", "test"], [(0, 1), (1, 2), (1, 3)]))

    assert found == [(0, 1)]
