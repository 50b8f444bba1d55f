"""The language of conditions: the WHERE of SQL over the columns of samples, as a tree whose nodes know their position.

    campaign = 'x' and (app_version < 7 or not country in ('de', 'at')) and referrer is not null

Comparisons are =, ==, !=, <>, <, <=, > and >= between a column and a value or two columns; further [not] in (…),
[not] between … and …, [not] like 'a%', is [not] null, and a column of type bool alone. Texts stand in single or double
quotes, which are doubled inside; a column that is called like a keyword stands in backquotes. Types are not known here.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pyparsing as pp

from pipeline.errors import InputError

LONGEST = 10_000
"""Characters of a condition."""
DEEPEST = 20
"""Parentheses and negations inside one another: the parser and Arrow recurse, in threads of any depth."""
_KEYWORDS = ("and", "or", "not", "in", "between", "like", "is", "null", "true", "false")
_EXAMPLE = """hint: campaign = 'x' and app_version < 7"""
_TOKEN = re.compile(r"'[^']*'?|\"[^\"]*\"?|[\w.]+|[<>=!]+|\S", re.ASCII)


@dataclass(frozen=True)
class Column:
    """A column by name; `at` is the index of its first character in the condition, as in every node."""

    name: str
    at: int


@dataclass(frozen=True)
class Value:
    """A text, number or truth value."""

    value: str | int | float | bool
    at: int


Operand = Column | Value


@dataclass(frozen=True)
class Compare:
    """`left operator right`, with one of the operators = != < <= > >=."""

    operator: str
    left: Operand
    right: Operand
    at: int


@dataclass(frozen=True)
class Among:
    """`column in (…)`."""

    column: Operand
    values: tuple[Value, ...]
    at: int


@dataclass(frozen=True)
class Like:
    """`column like pattern`: % is any text, _ any character."""

    column: Operand
    pattern: Value
    at: int


@dataclass(frozen=True)
class IsNull:
    """`column is null`."""

    column: Operand
    at: int


@dataclass(frozen=True)
class Flag:
    """A column of type bool alone."""

    column: Operand
    at: int


@dataclass(frozen=True)
class Not:
    """Negation; of null it is null."""

    part: "Node"


@dataclass(frozen=True)
class Every:
    """Conjunction of two or more."""

    parts: tuple["Node", ...]


@dataclass(frozen=True)
class Some:
    """Disjunction of two or more."""

    parts: tuple["Node", ...]


Node = Compare | Among | Like | IsNull | Flag | Not | Every | Some
_Tail = Callable[[Operand], Node]
"""What follows the first operand of a comparison: it makes the node."""


def parse_where(text: str) -> Node:
    """The tree of a condition.

    Raises InputError, which names the position and the text of the first token that does not fit, and what would.

    >>> parse_where("age >= 18")
    Compare(operator='>=', left=Column(name='age', at=0), right=Value(value=18, at=7), at=4)
    """
    if len(text) > LONGEST:
        raise InputError(f"condition has {len(text)} characters, wanted at most {LONGEST}. hint: --keys FIELD FILE")
    if _depth(text) > DEEPEST:
        raise InputError(f"condition {text[:40]}… is nested more than {DEEPEST} times. hint: fewer parentheses")
    try:
        found = _GRAMMAR.parse_string(text)
    except pp.ParseBaseException as failure:
        raise problem_at(text, failure.loc, f"wanted {failure.msg.removeprefix('Expected ')}") from None
    node: Node = found[0]
    return node


def problem_at(text: str, at: int, problem: str) -> InputError:
    """The error for the token at an index of a condition.

    >>> str(problem_at("age >", 5, "wanted a value"))
    "condition, character 6: got the end, wanted a value. hint: campaign = 'x' and app_version < 7"
    """
    found = _TOKEN.search(text, at)
    if found is None:
        return InputError(f"condition, character {len(text.rstrip()) + 1}: got the end, {problem}. {_EXAMPLE}")
    token = found[0] if len(found[0]) <= 40 else f"{found[0][:40]}…"
    open_text = found[0][0] in "'\"" and (len(found[0]) == 1 or found[0][-1] != found[0][0])
    unclosed = ", a text that is not closed" if open_text else ""
    return InputError(f"condition, character {found.start() + 1}: got {token}{unclosed}, {problem}. {_EXAMPLE}")


def _depth(text: str) -> int:
    depth = negations = deepest = 0
    for token in _TOKEN.findall(text):
        depth += (token == "(") - (token == ")")
        negations = negations + 1 if token.lower() == "not" else 0
        deepest = max(deepest, depth + negations)
    return deepest


def _grammar() -> pp.ParserElement:
    words = {name: pp.CaselessKeyword(name).set_name(name) for name in _KEYWORDS}
    column, value = _column(), _value()
    operand = (value | column).set_name("a column or a value")
    condition = pp.Forward()
    closing = pp.Literal(")").set_name("and, or, or a closing parenthesis")
    group = pp.Suppress("(") - condition - pp.Suppress(closing)
    comparison = (operand - _tail(words, operand, value)).set_parse_action(lambda found: found[1](found[0]))
    negation = pp.Forward()
    negated = (pp.Suppress(words["not"]) - negation).set_parse_action(lambda found: Not(found[0]))
    negation <<= (negated | group | comparison).set_name("a column, a value, not or an opening parenthesis")
    conjunction = _chain(negation, words["and"], Every)
    condition <<= _chain(conjunction, words["or"], Some)
    return (condition + pp.StringEnd().set_name("and, or, or the end")).parse_with_tabs()


def _column() -> pp.ParserElement:
    # One expression each: the position that an action gets is that of the first character only for a token.
    name = pp.Regex(rf"`[^`]+`|(?!(?i:{'|'.join(_KEYWORDS)})\b)[A-Za-z_][A-Za-z0-9_]*")
    return name.set_name("a column").set_parse_action(lambda text, at, found: Column(found[0].strip("`"), at))


def _value() -> pp.ParserElement:
    number = pp.Regex(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?(?![\w.])")
    number.set_parse_action(lambda text, at, found: Value(_number(found[0]), at))
    quoted = pp.Regex(r"""'(?:[^']|'')*'|"(?:[^"]|"")*\"""")
    quoted.set_parse_action(lambda text, at, found: Value(_unquoted(found[0]), at))
    truth = pp.Regex(r"(?i:true|false)\b")
    truth.set_parse_action(lambda text, at, found: Value(found[0].lower() == "true", at))
    return (number | quoted | truth).set_name("a value")


def _number(text: str) -> int | float:
    # Python refuses to convert thousands of digits.
    return int(text) if re.fullmatch(r"[+-]?[0-9]{1,40}", text) else float(text)


def _unquoted(text: str) -> str:
    return text[1:-1].replace(text[0] * 2, text[0])


def _tail(words: dict[str, pp.ParserElement], operand: pp.ParserElement, value: pp.ParserElement) -> pp.ParserElement:
    """What follows the first operand."""
    operator = pp.Regex(r"==|!=|<>|<=|>=|=|<|>")
    comparison = (operator - operand).set_parse_action(_comparison)
    values = pp.Suppress("(") - value - pp.ZeroOrMore(pp.Suppress(",") - value)
    closing = pp.Suppress(pp.Literal(")").set_name("a comma or a closing parenthesis"))
    among = (pp.Suppress(words["in"]) - values - closing).set_parse_action(_among)
    between = pp.Suppress(words["between"]) - value - pp.Suppress(words["and"]) - value
    between.set_parse_action(_between)
    like = (pp.Suppress(words["like"]) - value).set_parse_action(_like)
    choice = among | between | like
    negated = (pp.Suppress(words["not"]) - choice.copy().set_name("in, between or like")).set_parse_action(_negated)
    null = pp.Suppress(words["is"]) - pp.Opt(words["not"]) - pp.Suppress(words["null"])
    null.set_parse_action(_null)
    after = words["and"] | words["or"] | pp.Literal(")") | pp.StringEnd()
    flag = pp.FollowedBy(after).set_parse_action(_flag)
    return (comparison | choice | negated | null | flag).set_name("an operator (=, <, in, between, like, is null)")


def _comparison(text: str, at: int, found: pp.ParseResults) -> _Tail:
    operator, right = {"==": "=", "<>": "!="}.get(found[0], found[0]), found[1]
    return lambda left: Compare(operator, left, right, at)


def _among(text: str, at: int, found: pp.ParseResults) -> _Tail:
    values = tuple(found)
    return lambda column: Among(column, values, at)


def _between(text: str, at: int, found: pp.ParseResults) -> _Tail:
    low, high = found
    return lambda left: Every((Compare(">=", left, low, at), Compare("<=", left, high, at)))


def _like(text: str, at: int, found: pp.ParseResults) -> _Tail:
    pattern = found[0]
    return lambda column: Like(column, pattern, at)


def _negated(text: str, at: int, found: pp.ParseResults) -> _Tail:
    tail: _Tail = found[0]
    return lambda left: Not(tail(left))


def _null(text: str, at: int, found: pp.ParseResults) -> _Tail:
    negated = len(found) > 0
    return lambda column: Not(IsNull(column, at)) if negated else IsNull(column, at)


def _flag(text: str, at: int, found: pp.ParseResults) -> list[_Tail]:
    return [lambda column: Flag(column, column.at)]


def _chain(part: pp.ParserElement, word: pp.ParserElement, kind: Callable[[tuple[Any, ...]], Any]) -> pp.ParserElement:
    """One part, or several with `word` between them."""
    chain = part + pp.ZeroOrMore(pp.Suppress(word) - part)
    return chain.set_parse_action(lambda found: _joined(found, kind))


def _joined(found: Sequence[Any], kind: Callable[[tuple[Any, ...]], Any]) -> Any:
    return found[0] if len(found) == 1 else kind(tuple(found))


_GRAMMAR = _grammar()
