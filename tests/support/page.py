"""Programs and blocks of bytes in the pages of `schemas/`, for tests that execute them."""

import re
from pathlib import Path

SCHEMAS = Path(__file__).parents[2] / "schemas"


def page(name: str) -> str:
    """The text of a page."""
    return (SCHEMAS / name).read_text(encoding="utf-8")


def program(text: str, name: str) -> str:
    """The one Python block under `<!-- run: NAME -->`."""
    (code,) = re.findall(rf"<!-- run: {name} -->\n```python\n(.*?)```", text, re.DOTALL)
    return code


def run(text: str, *names: str, **given):
    """Execute programs one after another; returns their names and values."""
    found = dict(given)
    for name in names:
        exec(compile(program(text, name), name, "exec"), found)
    return found


def blocks_of_bytes(text: str) -> list[bytes]:
    """Blocks without a language that hold hexadecimal digits only."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    plain = [block for language, block in blocks if not language]
    return [bytes.fromhex(block) for block in plain if re.fullmatch(r"[0-9a-f\s]+", block)]


def rows_of_table(text: str, head: str) -> list[list[str]]:
    """The cells of the one table whose head line begins with `head`, without code marks."""
    (body,) = re.findall(rf"^{re.escape(head)}.*\n\|[-|]+\n((?:\|.*\n)+)", text, re.MULTILINE)
    return [[cell.strip().strip("`") for cell in line.strip("| \n").split("|")] for line in body.splitlines()]
