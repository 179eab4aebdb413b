"""List what is below a folder: a folder in; its files, and a line for each entry that is neither file nor folder, out.

Links are followed, but never in a circle. Each entry that is left out gets a line: a broken link, a pipe, a folder with
a file's suffix, a folder that cannot be read, a name that is not UTF-8. What tools and systems leave behind in folders
is only counted.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

PICTURE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp"})
CLIP_SUFFIXES = frozenset({".mkv", ".mp4", ".mov", ".avi", ".webm"})
KNOWN_SUFFIXES = PICTURE_SUFFIXES | CLIP_SUFFIXES
# What macOS, Windows and network drives leave behind. Their other leftovers, as Jupyter's, have names that begin with a
# dot: .DS_Store, ._picture.jpg, .ipynb_checkpoints.
LEFTOVERS = frozenset(
    {"__macosx", "desktop.ini", "thumbs.db", "ehthumbs.db", "icon\r", "@eadir", "$recycle.bin", "__pycache__"}
)
ZONE_SUFFIX = ":zone.identifier"  # of the file that WSL writes beside a download


@dataclass(slots=True, kw_only=True)
class Listing:
    """What is below a folder.

    files, folders: sorted. problems: a line for each entry that is left out. leftovers: files and folders that tools
    left behind; what is in such a folder is not listed.
    """

    folder: Path
    files: list[Path] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    leftovers: list[Path] = field(default_factory=list)

    def with_suffix(self, suffixes: frozenset[str]) -> list[Path]:
        """Return the files with one of these suffixes, in lower case with a dot, whatever their own case."""
        return [file for file in self.files if file.suffix.lower() in suffixes]


def list_folder(folder: Path, suffixes: frozenset[str]) -> Listing:
    """List all files and folders below a folder.

    A folder with a suffix of the wanted files (".jpg") is left out with its content.
    """
    listing = Listing(folder=folder)
    real = folder.resolve()
    _walk(folder, frozenset({real, *real.parents}), suffixes, listing)
    listing.files.sort()
    listing.folders.sort()
    return listing


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


def _walk(folder: Path, above: frozenset[Path], suffixes: frozenset[str], listing: Listing) -> None:
    """Collect what is in a folder. above: the resolved paths of the folder and its parents."""
    try:
        children = sorted(folder.iterdir())
        listing.leftovers += [child for child in children if _is_leftover(child)]
        wanted = [child for child in children if not _is_leftover(child)]
        found = [(child, _problem(child, above, suffixes), child.is_dir()) for child in wanted]
    except OSError as error:
        listing.problems.append(f"{printable(folder)} cannot be read ({error.strerror})")
        return
    for child, problem, is_folder in found:
        if problem:
            listing.problems.append(f"{printable(child)} {problem}")
        elif is_folder:
            listing.folders.append(child)
            _walk(child, above | {child.resolve()}, suffixes, listing)
        else:
            listing.files.append(child)


def _is_leftover(path: Path) -> bool:
    name = path.name.lower()
    return name.startswith(".") or name in LEFTOVERS or name.endswith(ZONE_SUFFIX)


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
