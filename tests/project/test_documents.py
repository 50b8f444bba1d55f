"""The documents name files, tests and make targets that exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = ("ARCHITECTURE.md", "CONTRIBUTING.md", "README.md", "CHANGELOG.md")
NAMES = re.compile(r"`([A-Za-z_.][\w.-]*(?:/[\w.-]+)+/?)`")
PACKAGES = tuple(f"{path.name}/" for path in (ROOT / "pipeline").iterdir() if path.is_dir())


def named_paths(text):
    """Paths in code marks that lie in the repository: from its root, or from `pipeline/` for short."""
    return {
        name for name in NAMES.findall(text) if name.startswith((*PACKAGES, "pipeline/", "tests/", "native/", ".ci/"))
    }


def test_paths_are_found():
    text = "see `samples/join/join.py`, `tests/support`, `native/table/`; not `a/b`, nor `hash(x) % y`"
    assert named_paths(text) == {"samples/join/join.py", "tests/support", "native/table/"}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_files_that_documents_name_exist(document):
    found = named_paths((ROOT / document).read_text(encoding="utf-8"))
    assert [name for name in sorted(found) if not ((ROOT / name).exists() or (ROOT / "pipeline" / name).exists())] == []


def test_architecture_names_every_package():
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    packages = [p.name for p in (ROOT / "pipeline").iterdir() if (p / "__init__.py").exists()]
    assert [name for name in sorted(packages) if f"pipeline/{name}" not in text] == []


def test_make_targets_that_documents_name_exist():
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    text = "".join((ROOT / document).read_text(encoding="utf-8") for document in DOCUMENTS)
    assert set(re.findall(r"\bmake ([a-z][\w-]*)", text)) - {"it", "up"} <= targets


def test_comments_refer_to_sections_that_exist():
    sections = set(re.findall(r"^#+ (.+)$", (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8"), flags=re.MULTILINE))
    sources = [*(ROOT / "pipeline").rglob("*.py"), *(ROOT / "native").rglob("*.h"), *(ROOT / "native").rglob("*.cc")]
    referred = set()
    for path in sources:
        referred |= set(re.findall(r'"([^"]+)" in\s+(?://\s*)?ARCHITECTURE\.md', path.read_text(encoding="utf-8")))
    assert referred <= sections
    assert referred
