"""Conditions: what they parse to, and where an error lies."""

import pytest

from pipeline.errors import InputError
from pipeline.quarantine.where import (
    DEEPEST,
    LONGEST,
    Among,
    Column,
    Compare,
    Every,
    Flag,
    IsNull,
    Like,
    Not,
    Some,
    Value,
    parse_where,
)


def test_the_condition_of_the_manual_is_a_conjunction_of_comparisons():
    left = Compare("=", Column("campaign", 0), Value("x", 11), 9)
    right = Compare("<", Column("app_version", 19), Value(7, 33), 31)
    assert parse_where('campaign = "x" and app_version < 7') == Every((left, right))


def test_and_binds_more_tightly_than_or_and_not_more_tightly_than_both():
    found = parse_where("a or not b and c")
    assert found == Some((Flag(Column("a", 0), 0), Every((Not(Flag(Column("b", 9), 9)), Flag(Column("c", 15), 15)))))
    assert isinstance(parse_where("(a or not b) and c"), Every)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("a IN (1, 2)", Among(Column("a", 0), (Value(1, 6), Value(2, 9)), 2)),
        ("a not in (1)", Not(Among(Column("a", 0), (Value(1, 10),), 6))),
        ("a like 'x%'", Like(Column("a", 0), Value("x%", 7), 2)),
        ("a is null", IsNull(Column("a", 0), 2)),
        ("a is not null", Not(IsNull(Column("a", 0), 2))),
        ("a <> -1.5e2", Compare("!=", Column("a", 0), Value(-150.0, 5), 2)),
        ("a == TRUE", Compare("=", Column("a", 0), Value(True, 5), 2)),
        ("7 > a", Compare(">", Value(7, 0), Column("a", 4), 2)),
        ("`order` = 'it''s'", Compare("=", Column("order", 0), Value("it's", 10), 8)),
        ("nothing = 1", Compare("=", Column("nothing", 0), Value(1, 10), 8)),
        ("a\t=\n1", Compare("=", Column("a", 0), Value(1, 4), 2)),
    ],
)
def test_every_form_has_its_node_with_positions(text, wanted):
    assert parse_where(text) == wanted


def test_between_includes_both_ends():
    lower = Compare(">=", Column("a", 0), Value(1, 10), 2)
    assert parse_where("a between 1 and 5") == Every((lower, Compare("<=", Column("a", 0), Value(5, 16), 2)))


@pytest.mark.parametrize(
    ("text", "character", "got", "wanted"),
    [
        ("", 1, "the end", "a column, a value, not or an opening parenthesis"),
        ("   ", 1, "the end", "a column, a value, not or an opening parenthesis"),
        ("campaign = 'x' and app_version <", 33, "the end", "a column or a value"),
        ("app_version lt 7", 13, "lt", "an operator (=, <, in, between, like, is null)"),
        ("a = 1 b = 2", 7, "b", "and, or, or the end"),
        ("a = 1 and", 10, "the end", "a column, a value, not or an opening parenthesis"),
        ("= 3", 1, "=", "a column, a value, not or an opening parenthesis"),
        ("(a = 1 or b = 2", 16, "the end", "and, or, or a closing parenthesis"),
        ("(a = 1))", 8, ")", "and, or, or the end"),
        ("a in ()", 7, ")", "a value"),
        ("a in (1, 2", 11, "the end", "a comma or a closing parenthesis"),
        ("a in 1", 6, "1", None),
        ("a between 1 or 2", 13, "or", "and"),
        ("a is 3", 6, "3", "null"),
        ("a not = 3", 7, "=", "in, between or like"),
        ("a = 'x", 5, "'x, a text that is not closed", "a column or a value"),
        ("a = 5x", 5, "5x", "a column or a value"),
        ("a = and", 5, "and", "a column or a value"),
        ("a = 1; drop", 6, ";", "and, or, or the end"),
        ("ä = 1", 1, "ä", "a column, a value, not or an opening parenthesis"),
    ],
)
def test_an_error_names_the_character_the_token_and_what_would_fit(text, character, got, wanted):
    with pytest.raises(InputError) as refused:
        parse_where(text)
    message = str(refused.value)
    assert message.startswith(f"condition, character {character}: got {got}, wanted ")
    assert message.endswith(". hint: campaign = 'x' and app_version < 7")
    assert wanted is None or f"wanted {wanted}. hint" in message


def test_a_condition_that_is_too_long_or_too_deep_is_refused():
    with pytest.raises(InputError, match=f"has {LONGEST + 1} characters, wanted at most {LONGEST}. hint: --keys"):
        parse_where("a" * (LONGEST + 1))
    assert parse_where("(" * DEEPEST + "a" + ")" * DEEPEST) == Flag(Column("a", DEEPEST), DEEPEST)
    for deep in ("(" * 4000 + "a" + ")" * 4000, "not " * 21 + "a", "not (" * 21 + "a" + ")" * 21):
        with pytest.raises(InputError, match=r"^condition .{40}… is nested more than 20 times\. hint: fewer"):
            parse_where(deep)


def test_a_long_flat_condition_is_no_problem():
    found = parse_where(" or ".join(f"a = {i}" for i in range(900)))
    assert isinstance(found, Some)
    assert len(found.parts) == 900
