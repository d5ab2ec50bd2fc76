"""Which shard a row belongs to, which part of a limit a shard gets, and what array engines say."""

import re
from hashlib import blake2b
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from bulkimg.settings import Settings
from bulkimg.shard import MOST, Shard, array_shard, parse_shard
from bulkimg.values import Limit

COUNTS = st.integers(1, 50)


def all_shards(count: int) -> list[Shard]:
    return [Shard(index, count) for index in range(1, count + 1)]


@given(st.uuids(), COUNTS)
def test_every_uuid_is_in_exactly_one_shard(uuid: UUID, count: int) -> None:
    assert sum(shard.holds(uuid.bytes) for shard in all_shards(count)) == 1


@given(st.text(), COUNTS)
def test_text_that_is_no_uuid_is_in_exactly_one_shard(text: str, count: int) -> None:
    assert sum(shard.holds(text) for shard in all_shards(count)) == 1


def test_a_lone_surrogate_is_text_too() -> None:
    assert sum(shard.holds("\ud800") for shard in all_shards(7)) == 1


def test_the_division_is_that_of_every_version() -> None:
    """Shards that different machines run with different versions would lose rows, if the hash changed."""
    raw = bytes.fromhex("0123456789abcdef0123456789abcdef")
    assert [shard.index for shard in all_shards(1000) if shard.holds(raw)] == [746]


def test_shards_are_of_about_one_size() -> None:
    uuids = [blake2b(str(at).encode(), digest_size=16).digest() for at in range(4000)]
    sizes = [sum(map(shard.holds, uuids)) for shard in all_shards(4)]
    assert min(sizes) > 900
    assert max(sizes) < 1100


@given(st.integers(0, 10**9), COUNTS)
def test_the_parts_of_a_limit_sum_up_to_it(limit: int, count: int) -> None:
    parts = [shard.part(Limit(limit)).count for shard in all_shards(count)]
    assert sum(part for part in parts if part is not None) == limit
    assert max(map(int, map(str, parts))) - min(map(int, map(str, parts))) <= 1


@given(st.floats(0.01, 1), COUNTS)
def test_a_share_is_that_of_every_shard(share: float, count: int) -> None:
    assert {shard.part(Limit(share=share)) for shard in all_shards(count)} == {Limit(share=share)}


@given(st.floats(0.1, 1e6), COUNTS)
def test_the_rates_of_all_shards_are_the_rate(rate: float, count: int) -> None:
    own = [Settings(rate=rate, shard=shard).own_rate for shard in all_shards(count)]
    assert sum(own) == pytest.approx(rate)
    assert Settings(rate=rate).own_rate == rate


def test_unlimited_stays_unlimited() -> None:
    assert Settings.model_validate({"rate": "unlimited", "shard": "1/4"}).own_rate == float("inf")


def test_guards_of_a_shard_are_its_parts() -> None:
    found = [Settings.model_validate({"max_changes": 10, "max_errors": 3, "shard": f"{at}/4"}) for at in (1, 2, 3, 4)]
    assert [one.own_max_changes.count for one in found] == [3, 3, 2, 2]
    assert [one.own_max_errors.count for one in found] == [1, 1, 1, 0]


@pytest.mark.parametrize(
    ("text", "index", "count"), [("1/1", 1, 1), ("2/4", 2, 4), (" 4/4 ", 4, 4), (f"{MOST}/{MOST}", MOST, MOST)]
)
def test_a_shard_is_written_from_one_on(text: str, index: int, count: int) -> None:
    shard = parse_shard(text)
    assert (shard.index, shard.count, str(shard)) == (index, count, text.strip())
    assert shard.suffix == f"-{index}-of-{count}"
    assert parse_shard(shard) is shard


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("0/4", "names shard 0 of 4; shards are counted from 1 to 4"),
        ("5/4", "names shard 5 of 4"),
        ("1/0", "asks for 0 shards; there may be 1 to 10,000"),
        (f"1/{MOST + 1}", "asks for 10001 shards"),
        *((text, "is not a shard; write I/N, such as 2/4, or auto") for text in (
            "", "2", "2/", "/4", "-1/4", "1/-4", "1.5/4", "1/4/2", "a/b", "1//4", "1 / 4", "auto/", "auto/x", "auto/-1",
            "automatic", "٢/٤", "2/4\n3", "1e1/20", "9999999999/9999999999", "all",
        )),
    ],
)  # fmt: skip
def test_what_is_no_shard_is_refused(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=re.escape(why)):
        parse_shard(text)
    with pytest.raises(ValidationError):
        Settings.model_validate({"shard": text})


def slurm(task: int, first: int = 0, last: int = 3, count: int = 4) -> dict[str, str]:
    return {
        "SLURM_ARRAY_TASK_ID": str(task),
        "SLURM_ARRAY_TASK_MIN": str(first),
        "SLURM_ARRAY_TASK_MAX": str(last),
        "SLURM_ARRAY_TASK_COUNT": str(count),
    }


def engines(at: int, count: int) -> dict[str, dict[str, str]]:
    """Return what each engine says to its process `at`, counted from 0."""
    return {
        "Kubernetes": {"JOB_COMPLETION_INDEX": str(at)},
        "Slurm": slurm(at + 1, 1, count, count),
        "AWS Batch": {"AWS_BATCH_JOB_ARRAY_INDEX": str(at), "AWS_BATCH_JOB_ARRAY_SIZE": str(count)},
        "Cloud Run": {"CLOUD_RUN_TASK_INDEX": str(at), "CLOUD_RUN_TASK_COUNT": str(count)},
    }


@pytest.mark.parametrize("name", engines(0, 1))
@given(data=st.data())
def test_every_process_of_an_array_is_a_shard_of_its_own(name: str, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 100))
    asked = count if name == "Kubernetes" else data.draw(st.sampled_from([None, count]))
    found = [array_shard(engines(at, count)[name], asked) for at in range(count)]
    assert found == all_shards(count)


@given(st.integers(0, 1000), st.integers(1, 100))
def test_slurm_may_count_from_any_number(first: int, count: int) -> None:
    last = first + count - 1
    assert [array_shard(slurm(at, first, last, count), None).index for at in range(first, last + 1)] == list(
        range(1, count + 1)
    )


@pytest.mark.parametrize(
    ("environ", "count", "why"),
    [
        ({}, None, "none is set: JOB_COMPLETION_INDEX (Kubernetes), SLURM_ARRAY_TASK_ID (Slurm), AWS_BATCH"),
        ({"JOB_COMPLETION_INDEX": ""}, 4, "none is set"),
        ({"JOB_COMPLETION_INDEX": "1"}, None, "which Kubernetes does not say; write auto/N, such as auto/8"),
        ({"JOB_COMPLETION_INDEX": "4"}, 4, "names shard 5 of 4 (JOB_COMPLETION_INDEX of Kubernetes)"),
        ({"JOB_COMPLETION_INDEX": "-1"}, 4, "needs a whole number in JOB_COMPLETION_INDEX, which is '-1'"),
        ({"JOB_COMPLETION_INDEX": "one"}, 4, "which is 'one'"),
        ({"JOB_COMPLETION_INDEX": "1"}, 0, "asks for 0 shards (JOB_COMPLETION_INDEX of Kubernetes)"),
        (slurm(2) | {"JOB_COMPLETION_INDEX": "1"}, 4, "JOB_COMPLETION_INDEX (Kubernetes) and SLURM_ARRAY_TASK_ID (Slurm)"),
        (slurm(4), None, "names shard 5 of 4 (SLURM_ARRAY_TASK_ID of Slurm)"),
        (slurm(2, 0, 6, 4), None, "needs an array without gaps, but SLURM_ARRAY_TASK_COUNT is 4 for 0 to 6"),
        (slurm(2), 8, "asks for 8 shards, but SLURM_ARRAY_TASK_COUNT is 4 (Slurm); write auto"),
        ({"SLURM_ARRAY_TASK_ID": "1"}, None, "needs a whole number in SLURM_ARRAY_TASK_MIN, which is ''"),
        (slurm(0, 2, 5, 4), None, "names shard -1 of 4"),
        ({"AWS_BATCH_JOB_ARRAY_INDEX": "0"}, None, "which AWS Batch does not say; write auto/N"),
        ({"CLOUD_RUN_TASK_INDEX": "0", "CLOUD_RUN_TASK_COUNT": "x"}, None, "needs a whole number in CLOUD_RUN_TASK_COUNT"),
        ({"CLOUD_RUN_TASK_INDEX": "0", "CLOUD_RUN_TASK_COUNT": "0"}, None, "asks for 0 shards"),
    ],
)  # fmt: skip
def test_what_an_engine_cannot_mean_is_refused(environ: dict[str, str], count: int | None, why: str) -> None:
    with pytest.raises(ValueError, match=re.escape(why)):
        array_shard(environ, count)


def test_the_first_batch_of_aws_that_does_not_say_its_size_is_told_it() -> None:
    assert array_shard({"AWS_BATCH_JOB_ARRAY_INDEX": "0"}, 3) == Shard(1, 3)
