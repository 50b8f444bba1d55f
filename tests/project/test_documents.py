"""The documents name files, tests and make targets that exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = tuple(f"schemas/{path.name}" for path in sorted((ROOT / "schemas").glob("*.md")))
DOCUMENTS = ("ARCHITECTURE.md", "CONTRIBUTING.md", "README.md", "CHANGELOG.md", *PAGES)
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


@pytest.mark.parametrize("page", PAGES)
def test_links_of_pages_refer_to_files_and_sections_that_exist(page):
    text = without_code((ROOT / page).read_text(encoding="utf-8"))
    for file, section in re.findall(r"\]\((?!https:)([^)#]*)#?([^)]*)\)", text):
        linked = (ROOT / page).parent / file if file else ROOT / page
        assert linked.exists(), file
        assert not section or section in anchors(linked.read_text(encoding="utf-8")), section


def without_code(text):
    return re.sub(r"^ *```.*?^ *```", "", text, flags=re.DOTALL | re.MULTILINE)


def anchors(text):
    """The anchors of the headings of a Markdown document."""
    titles = re.findall(r"^#+ (.+)$", without_code(text), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES)
def test_the_readme_links_every_page(page):
    assert f"]({page})" in (ROOT / "README.md").read_text(encoding="utf-8")


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
