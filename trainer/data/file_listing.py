"""List the files below a folder: a folder in; its files, and a line for each entry that is not a file, out.

Links are followed, but never in a circle. Each entry that is left out gets a line: a broken link, a pipe, a folder with
a file's suffix, a folder that cannot be read, a name that is not UTF-8.
"""

from __future__ import annotations

from pathlib import Path


def files_below(folder: Path, suffixes: frozenset[str]) -> tuple[list[Path], list[str]]:
    """Return all files below a folder, sorted, and a line for each entry that is left out.

    A folder with a suffix of the wanted files (".jpg") is left out with its content.
    """
    files: list[Path] = []
    problems: list[str] = []
    real = folder.resolve()
    _walk(folder, frozenset({real, *real.parents}), suffixes, files, problems)
    return sorted(files), problems


def printable(path: Path) -> str:
    """Return a path as one line that any terminal and file can hold."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in str(path))


def is_utf8(path: Path) -> bool:
    """Return whether a path can be written as UTF-8, into a manifest or a report."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def _walk(
    folder: Path, above: frozenset[Path], suffixes: frozenset[str], files: list[Path], problems: list[str]
) -> None:
    """Collect the files of a folder. above: the resolved paths of the folder and its parents."""
    try:
        children = sorted(folder.iterdir())
        found = [(child, _problem(child, above, suffixes), child.is_dir()) for child in children]
    except OSError as error:
        problems.append(f"{printable(folder)} cannot be read ({error.strerror})")
        return
    for child, problem, is_folder in found:
        if problem:
            problems.append(f"{printable(child)} {problem}")
        elif is_folder:
            _walk(child, above | {child.resolve()}, suffixes, files, problems)
        else:
            files.append(child)


def _problem(path: Path, above: frozenset[Path], suffixes: frozenset[str]) -> str | None:
    """Return why an entry is neither a file nor a folder to list; None if it is one."""
    if not is_utf8(path):
        return "has a name that is not UTF-8, rename it"
    if path.is_dir():
        if path.suffix.lower() in suffixes:
            return "is a folder, though its name is a file's"
        return "links back to a folder that contains it" if path.resolve() in above else None
    if path.is_file():
        return None
    return "is a link to nothing" if path.is_symlink() and not path.exists() else "is not a file"
