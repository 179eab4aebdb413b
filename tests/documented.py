"""Read the documentation: Markdown pages in; their commands, code blocks, inline code and links out."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import product
from pathlib import Path
from textwrap import dedent

from feeding import REPOSITORY

PAGES = [
    "README.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    *sorted(str(path.relative_to(REPOSITORY)) for path in (REPOSITORY / "docs").glob("*.md")),
    "models/README.md",
    "deploy/kubernetes/README.md",
]
FENCED = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"`([^`]+)`")
LINK = re.compile(r"\]\(([^)]+)\)")
ASSIGNMENT = re.compile(r"[A-Z_]+=")
SEPARATORS = "|&;<>\n"
PROGRAMS = frozenset(
    {"maskwatch", ".venv/bin/maskwatch", "make", "docker", "docker-compose", "kubectl", "python", "pytest", "git"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One command of a page. variables: what is set in front of it. is_name: the text only names it."""

    page: str
    words: tuple[str, ...]
    variables: dict[str, str] = field(default_factory=dict)
    is_name: bool = False

    def __str__(self) -> str:
        return f"{self.page}: {' '.join(self.words)}"


@cache
def text_of(page: str) -> str:
    return (REPOSITORY / page).read_text()


def blocks(page: str) -> list[tuple[str, str]]:
    """Return the fenced blocks of a page: language and content."""
    return [(language, dedent(content)) for language, content in FENCED.findall(text_of(page))]


def inline(page: str) -> list[str]:
    """Return the inline code of a page, each piece on one line."""
    return [" ".join(code.replace("\\|", "|").split()) for code in INLINE.findall(FENCED.sub("", text_of(page)))]


def links(page: str) -> list[str]:
    """Return the links of a page that lead to files or headings of this repository."""
    found = LINK.findall(FENCED.sub("", text_of(page)))
    return [link for link in found if not link.startswith(("http://", "https://"))]


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", FENCED.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def block_commands(page: str) -> list[Command]:
    """Return the commands in the bash blocks of a page, in their order."""
    return [one for language, text in blocks(page) if language == "bash" for one in commands_in(page, text)]


def inline_commands(page: str) -> list[Command]:
    """Return the commands in the inline code of a page; `a|b` is two, `[ID]` is an ID, `DATASET...` one of them."""
    found = []
    for code in inline(page):
        words = [word.strip("[]").removesuffix("...").split("|") for word in code.split()]
        for variant in product(*words):
            (command,) = list(commands_in(page, " ".join(variant))) or [None]
            if command and command.words[0] in PROGRAMS and len(command.words) > 1:
                found.append(replace(command, is_name=len(command.words) == 2))
    return found


def commands_in(page: str, text: str) -> Iterator[Command]:
    """Give the commands of a piece of shell, those in $( ) and on both sides of a pipe too."""
    text = re.sub(r"(^|\s)#.*$", r"\1", text.replace("\\\n", " "), flags=re.MULTILINE)
    for nested in re.findall(r"\$\(([^)]*)\)", text):
        yield from commands_in(page, nested)
    lexer = shlex.shlex(text, posix=True, punctuation_chars=SEPARATORS)
    lexer.whitespace, lexer.whitespace_split, lexer.commenters = " \t", True, ""
    words: list[str] = []
    for token in [*lexer, "\n"]:
        if token.strip(SEPARATORS):
            words.append(token)
        elif words:
            yield from _command(page, words)
            words = []


def _command(page: str, words: list[str]) -> Iterator[Command]:
    words = [word for word in words if word not in ("{", "}")]
    variables = {}
    while words and ASSIGNMENT.match(words[0]):
        name, _, variables[name] = words.pop(0).partition("=")
    if words:
        yield Command(page=page, words=tuple(words), variables=variables)
