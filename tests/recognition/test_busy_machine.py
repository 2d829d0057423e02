"""Load costs sightings one by one, never all: cameras of a machine that is too slow for them, in virtual time."""

import pytest

from tests.support.busy_machine import Costs, run

SLOW = Costs(search_s=0.3, follow_s=0.1, embed_s=0.12)
"""So slow is a machine without vector instructions of its own, or one of which other work takes the most."""


@pytest.mark.parametrize(
    ("cameras", "least_share"),
    [
        pytest.param(2, 1.0, id="carried in full"),
        pytest.param(4, 0.9, id="twice that"),
        pytest.param(8, 0.6, id="four times that"),
        pytest.param(16, 0.3, id="eight times that"),
    ],
)
def test_of_the_visits_the_most_are_named_however_many_cameras_there_are(cameras: int, least_share: float) -> None:
    outcomes = [run(cameras, SLOW, seconds=40.0, seed=seed) for seed in range(2)]
    known, named = sum(one.known for one in outcomes), sum(one.named for one in outcomes)
    assert named >= least_share * known
    assert sum(one.wrong for one in outcomes) == 0
    assert sum(one.strangers_named for one in outcomes) == 0


def test_a_machine_that_is_fast_enough_names_everybody_soon() -> None:
    outcome = run(4, Costs(search_s=0.06, follow_s=0.02, embed_s=0.02), seconds=40.0)
    assert outcome.named == outcome.known
    assert max(outcome.delays_s) < 1.5
