"""HttpClient answers as ClientSession does, byte for byte (T23). `EXPECTED` explains the differences.

`python -m tests.battery differential` runs ten times as many mutations.
"""

import pytest

from tests.battery.differential import OWN, Told, hold, mutations, replies, whole
from tests.battery.differential_faults import hold_faults
from tests.conftest import corpus

MUTATIONS = 1000


def _well(told: Told, most: int) -> None:
    assert not told.troubles, "\n".join(told.troubles[:3])
    assert sum(told.ends.values()) == most


async def test_replies_of_our_own_are_answered_as_by_a_session() -> None:
    told = await hold(whole(OWN))
    _well(told, 2 * len(OWN))
    assert set(told.expected) == {"too many interim answers", "unasked bytes"}, "the exceptions are no dead letters"


async def test_the_corpora_are_answered_as_by_a_session() -> None:
    found = replies(corpus(""))
    others = {name: pieces for name, pieces in found.items() if name not in OWN}
    assert len(others) > 85
    _well(await hold(whole(others)), 2 * len(others))


@pytest.mark.slow
async def test_mutations_are_answered_as_by_a_session() -> None:
    _well(await hold(mutations(replies(corpus("")), MUTATIONS, seed=1)), MUTATIONS)


@pytest.mark.slow
async def test_the_faults_of_the_witness_are_answered_as_by_a_session() -> None:
    found = await hold_faults()
    assert found.compared > 200
    assert not found.troubles, "\n".join(found.troubles[:3])
