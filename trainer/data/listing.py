"""List the files of a folder and what is below it: a folder in; its files, and a line for each thing that is none, out.

Links are followed, but never in a circle. Nothing disappears without a line: a link to nothing, a pipe, a folder that
is named like a file, one that cannot be read, a name that no manifest could hold.
"""

from __future__ import annotations

from pathlib import Path


def files_below(folder: Path, suffixes: frozenset[str]) -> tuple[list[Path], list[str]]:
    """Return all files below a folder, sorted, and a line for each thing that is left out.

    Args:
        folder: where to look.
        suffixes: of the files looked for (".jpg"); a folder whose name ends so is left out with all it holds.
    """
    files: list[Path] = []
    problems: list[str] = []
    real = folder.resolve()
    _walk(folder, frozenset({real, *real.parents}), suffixes, files, problems)
    return sorted(files), problems


def shown(path: Path) -> str:
    """Return a path as one line that any terminal and file can hold."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in str(path))


def has_sayable_name(path: Path) -> bool:
    """Return whether a path can be written down, in a manifest or a report, as UTF-8."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def _walk(
    folder: Path, above: frozenset[Path], suffixes: frozenset[str], files: list[Path], problems: list[str]
) -> None:
    """Collect the files of a folder. above: the real places of all folders that it lies in, itself too."""
    try:
        children = sorted(folder.iterdir())
        found = [(child, _problem(child, above, suffixes), child.is_dir()) for child in children]
    except OSError as error:
        problems.append(f"{shown(folder)} cannot be read ({error.strerror})")
        return
    for child, problem, is_folder in found:
        if problem:
            problems.append(f"{shown(child)} {problem}")
        elif is_folder:
            _walk(child, above | {child.resolve()}, suffixes, files, problems)
        else:
            files.append(child)


def _problem(path: Path, above: frozenset[Path], suffixes: frozenset[str]) -> str | None:
    """Say why something in a folder is neither a file nor a folder to look into; None if it is one."""
    if not has_sayable_name(path):
        return "has a name that is not UTF-8, rename it"
    if path.is_dir():
        if path.suffix.lower() in suffixes:
            return "is a folder, though its name is a file's"
        return "leads back to a folder that it lies in" if path.resolve() in above else None
    if path.is_file():
        return None
    return "is a link to nothing" if path.is_symlink() and not path.exists() else "is no file"
