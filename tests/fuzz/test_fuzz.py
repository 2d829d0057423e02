"""The quick form: a few hundred changed inputs for each target, the same ones in each run of one version."""

import json
import random
import time
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.fuzz.common import Target
from tests.fuzz.targets import TARGETS, check_row, row_seeds

CASES = {"video": 80, "folders": 80, "states": 60, "photos": 300, "alerts": 60, "requests": 100, "rows": 100}
LONGEST_S = 5.0


def changed(target: Target, number: int, changes: list[tuple[int, float, bytes]]) -> bytes:
    """A seed with bytes replaced (0), put in (1), cut out (2), flipped (3), or another seed behind it (4)."""
    seeds = target.seeds()
    data = bytearray(seeds[number % len(seeds)])
    for how, where, new in changes:
        place = int(where * len(data))
        if how == 0:
            data[place : place + len(new)] = new
        elif how == 1:
            data[place:place] = new
        elif how == 2:
            del data[place : place + 1 + len(new) ** 2]
        elif how == 3 and data:
            data[min(place, len(data) - 1)] ^= new[0] if new else 1
        else:
            data[place:] = seeds[len(new) % len(seeds)][: len(data)]
    return bytes(data)


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_whatever_comes_there_is_an_answer_or_one_line(name: str, tell: Callable[[str], None]) -> None:
    target, cases = TARGETS[name], 0
    slowest_s = 0.0

    @settings(
        max_examples=CASES.get(name, 200),
        deadline=None,
        derandomize=True,
        database=None,
        phases=(Phase.explicit, Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(
        number=st.integers(0, 99),
        changes=st.lists(st.tuples(st.integers(0, 4), st.floats(0, 1), st.binary(max_size=8)), max_size=8),
    )
    def check(number: int, changes: list[tuple[int, float, bytes]]) -> None:
        nonlocal cases, slowest_s
        began_s = time.monotonic()
        target.check(changed(target, number, changes))
        cases += 1
        slowest_s = max(slowest_s, time.monotonic() - began_s)

    for seed in target.seeds():
        target.check(seed)
        cases += 1
    for length in (0, 1, 7, 100):
        target.check(random.Random(length).randbytes(length))
        cases += 1
    try:
        check()
    finally:
        target.close()
    tell(f"{cases} cases, the slowest took {slowest_s:.2f} s")


ODD = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=6), st.lists(st.integers()),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2), st.just("hex:"),
    st.binary(max_size=80).map(lambda content: f"hex:{content.hex()}"),
)  # fmt: skip


@settings(max_examples=150, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(data=st.data(), number=st.integers(0, 99), inside=st.booleans())
def test_a_row_with_other_types_and_lengths_hides_no_other_and_ends_nothing(
    data: st.DataObject, number: int, inside: bool
) -> None:
    seeds = row_seeds()
    row = json.loads(seeds[number % len(seeds)])
    changed_ones = data.draw(st.dictionaries(st.sampled_from(sorted(set(row) - {"table"})), ODD, max_size=3))
    if inside and "account" in row:
        account = json.loads(row["account"])
        account |= data.draw(st.dictionaries(st.sampled_from(sorted(account)), ODD, max_size=3))
        changed_ones["account"] = json.dumps(account)
    check_row(json.dumps(row | changed_ones).encode(errors="surrogatepass"))
