"""Conditions over samples: the rows that SQLite chooses, and types that do not fit."""

import random
import sqlite3

import numpy as np
import pyarrow as pa
import pytest

from pipeline.errors import InputError
from pipeline.quarantine.predicate import Predicate

SCHEMA = pa.schema(
    [
        ("user", pa.string()),
        ("version", pa.int64()),
        ("hash", pa.uint64()),
        ("price", pa.float64()),
        ("rate", pa.float32()),
        ("row", pa.int32()),
        ("bot", pa.bool_()),
        ("tags", pa.list_(pa.string())),
        ("impression_at", pa.int64()),
        ("click_at", pa.int64()),
    ]
)
PLAIN = [name for name in SCHEMA.names if name != "tags"]
START_MS = 1_767_225_600_000
"""2026-01-01T00:00:00Z."""


def make_samples(rows=400, seed=3):
    """Rows of small values and many nulls."""
    chosen = random.Random(seed)
    values = {
        "user": ["a", "b", "ab", "a%", "A", ""],
        "version": [-1, 0, 6, 7, 8],
        "hash": [0, 7, 2**63 - 1],
        "price": [-0.5, 0.0, 1.5, 7.0],
        "rate": [0.5, 0.1, 1.0],
        "row": [0, 1, 2],
        "bot": [True, False],
        "tags": [[], ["x"], ["x", "y"]],
        "click_at": [START_MS, START_MS + 1, START_MS + 60_000],
    }
    plain = [{name: chosen.choice([*of, None]) for name, of in values.items()} for _ in range(rows)]
    plain = [row | {"impression_at": chosen.choice(values["click_at"])} for row in plain]
    return pa.RecordBatch.from_pylist(plain, SCHEMA)


@pytest.fixture(scope="module")
def world():
    """Samples, and the same rows in SQLite with a column `place`."""
    samples = make_samples()
    connection = sqlite3.connect(":memory:")
    connection.execute("PRAGMA case_sensitive_like = ON")
    connection.execute(f"CREATE TABLE samples (place INTEGER, {', '.join(PLAIN)})")
    rows = [[place, *(row[name] for name in PLAIN)] for place, row in enumerate(samples.to_pylist())]
    connection.executemany(f"INSERT INTO samples VALUES ({', '.join('?' * (len(PLAIN) + 1))})", rows)
    return samples, connection


CONDITIONS = [
    "user = 'a'",
    "user != 'a'",
    "not user = 'a'",
    "user >= 'a' and user < 'b'",
    "user in ('a', 'b', '')",
    "user not in ('a', 'b')",
    "not (user in ('a') or version = 7)",
    "user like 'a%'",
    "user like '_'",
    "user not like '%b'",
    "version < 7",
    "7 > version",
    "version between 0 and 7",
    "version not between 0 and 7",
    "version < 6.5",
    "version in (6, 7)",
    "hash = 9223372036854775807",
    "hash > 0",
    "price > -0.5",
    "price = 7",
    "row <> 1",
    "bot",
    "not bot",
    "bot = true",
    "bot != true or version is null",
    "user is null",
    "user is not null and not version is null",
    "user = 'a' and version < 7 or price = 1.5 and not bot",
    "(user = 'a' or version < 7) and (price = 1.5 or not bot)",
    "impression_at < click_at",
    "click_at >= 1767225600001",
    "not (click_at = impression_at)",
]


@pytest.mark.parametrize("condition", CONDITIONS)
def test_the_rows_are_those_of_sqlite(world, condition):
    samples, connection = world
    wanted = [place for (place,) in connection.execute(f"SELECT place FROM samples WHERE {condition} ORDER BY place")]
    found = Predicate(condition, SCHEMA).matches(samples)
    assert np.flatnonzero(found).tolist() == wanted
    assert 0 < len(wanted) < samples.num_rows


def test_random_conditions_choose_the_rows_of_sqlite(world):
    samples, connection = world
    chosen = random.Random(11)

    def condition(depth):
        if depth == 0:
            return chosen.choice(CONDITIONS)
        parts = [condition(depth - 1) for _ in range(chosen.randint(2, 3))]
        joined = chosen.choice([" and ", " or "]).join(f"({part})" for part in parts)
        return chosen.choice(["{}", "not ({})"]).format(joined)

    for _ in range(60):
        text = condition(2)
        wanted = [place for (place,) in connection.execute(f"SELECT place FROM samples WHERE {text} ORDER BY place")]
        assert np.flatnonzero(Predicate(text, SCHEMA).matches(samples)).tolist() == wanted, text


def test_a_float32_column_is_compared_at_its_own_precision():
    samples = make_samples()
    found = Predicate("rate = 0.1", SCHEMA).matches(samples)
    assert found.tolist() == [rate == pytest.approx(0.1) for rate in samples.column("rate").to_pylist()]


def test_times_are_compared_as_text_in_quotes():
    samples = make_samples()
    text = "click_at > '2026-01-01T00:00:00+00:00' and impression_at <= '2026-01-01'"
    found = Predicate(text, SCHEMA).matches(samples)
    wanted = [
        row["click_at"] is not None and row["click_at"] > START_MS and row["impression_at"] <= START_MS
        for row in samples.to_pylist()
    ]
    assert found.tolist() == wanted
    assert any(wanted)


def test_a_column_that_the_samples_lack_is_null():
    samples = make_samples().select(["user", "impression_at"])
    assert not Predicate("version < 7 or version >= 7", SCHEMA).matches(samples).any()
    assert Predicate("version is null", SCHEMA).matches(samples).all()


def test_a_dictionary_of_texts_is_read_as_texts():
    samples = pa.RecordBatch.from_pydict({"user": pa.array(["a", "b", None, "a"]).dictionary_encode()})
    assert Predicate("user = 'a'", SCHEMA).matches(samples).tolist() == [True, False, False, True]


def test_a_column_of_another_type_in_the_samples_is_named():
    samples = pa.RecordBatch.from_pydict({"version": pa.array(["seven"])})
    with pytest.raises(InputError, match=r"column version is string in the samples, the configuration declares int64"):
        Predicate("version < 7", SCHEMA).matches(samples)


def test_no_samples_give_no_rows():
    assert Predicate("version < 7", SCHEMA).matches(make_samples().slice(0, 0)).tolist() == []


def test_a_condition_of_hundreds_of_parts_is_evaluated():
    text = " or ".join(f"version = {i}" for i in range(7, 600))
    samples = make_samples()
    assert Predicate(text, SCHEMA).matches(samples).tolist() == [v in (7, 8) for v in samples["version"].to_pylist()]


@pytest.mark.parametrize(
    ("condition", "character", "problem"),
    [
        ("campaign = 'x'", 1, "column campaign does not exist, known: user, version, hash, price, rate, row, bot"),
        ("user = 'a' and vresion < 7", 16, "column vresion does not exist"),
        ("user = 7", 8, "column user is string, wanted a text in quotes"),
        ("version = '7'", 11, "column version is int64, wanted a number"),
        ("version = true", 11, "column version is int64, wanted a number"),
        ("version < 9223372036854775808", 11, "column version is int64, which holds -9223372036854775808 to"),
        ("hash > -1", 8, "column hash is uint64, which holds 0 to 18446744073709551615"),
        ("row = 1e99", 7, "column row is int32, which holds -2147483648 to 2147483647"),
        ("rate < 1e300", 8, "column rate is float, whose numbers do not reach 1e+300"),
        ("price < 1e999", 9, "column price is double, whose numbers do not reach inf"),
        ("bot = 'true'", 7, "column bot is bool, wanted true or false"),
        ("bot < true", 5, "column bot is bool, wanted = or !="),
        ("user", 1, "column user is string, wanted a comparison"),
        ("tags = 'x'", 1, "column tags is list"),
        ("1 = 1", 5, "wanted a column on one side"),
        ("version like '7%'", 1, "column version is int64, wanted a string for like"),
        ("user like 7", 11, "wanted a text in quotes after like"),
        ("user in ('a', 7)", 15, "column user is string, wanted a text in quotes"),
        ("version in (6, 6.5)", 16, "column version is int64, wanted values of this type"),
        ("user = version", 8, "column version is int64, compared with column user is string"),
        ("version < hash", 11, "column hash is uint64, compared with column version is int64"),
        ("version < click_at", 11, "column click_at is a time, compared with column version is int64"),
        ("click_at > 'noon'", 12, "column click_at is a time, wanted a time such as '2026-01-31T14:00:00Z'"),
        ("click_at > '1969-12-31'", 12, "wanted a time between 1970 and 9999"),
        ("click_at = true", 12, "column click_at is a time, wanted a time in quotes"),
    ],
)
def test_a_wrong_name_or_type_is_refused_with_its_position(condition, character, problem):
    with pytest.raises(InputError) as refused:
        Predicate(condition, SCHEMA)
    message = str(refused.value)
    assert message.startswith(f"condition, character {character}: ")
    assert problem in message
