"""Damage bytes and texts as a broken or hostile sender would. Pure: the random generator is an argument."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

MAX_STEPS = 6
MAX_PIECE = 64  # bytes or characters that one step inserts, repeats or removes
ODD_BYTES = bytes((0x00, 0x01, 0x7F, 0x80, 0xC1, 0xC7, 0xD9, 0xDA, 0xDF, 0xFE, 0xFF))
ODD_TEXTS = (
    *(
        "",
        " ",
        "\0",
        "\n",
        "\r\n",
        "\t",
        "%00",
        "%0a",
        "%ff",
        "%",
        "%25",
        "..",
        "/",
        "//",
        "\\",
        ":",
        "@",
        "#",
        "?",
        "=",
    ),
    *("&", ";", ",", "[", "]", "{", "}", '"', "'", "-", "-1", "0", "9" * 40, "1e999", "nan", "inf", "null", "true"),
    *("\x7f", "\x80", "\xff", "ß", "İ", "١", "²", "\u2028", "\ufeff", "\ud800", "😀", "://", "a" * 5000),
)


def arbitrary_bytes(random: Random, most: int = 300) -> bytes:
    """Return random bytes."""
    return random.randbytes(random.randrange(most + 1))


def mutated_bytes(random: Random, valid: bytes, others: Sequence[bytes] = ()) -> bytes:
    """Return valid bytes after some steps of damage. others: valid ones, of which pieces are inserted."""
    damaged = bytearray(valid)
    for _ in range(random.randint(1, MAX_STEPS)):
        at = random.randrange(len(damaged) + 1)
        end = min(len(damaged), at + random.randint(1, MAX_PIECE))
        match random.randrange(8):
            case 0 if at < len(damaged):
                damaged[at] ^= 1 << random.randrange(8)
            case 1 if at < len(damaged):
                damaged[at] = random.choice(ODD_BYTES)
            case 2:
                del damaged[at:end]
            case 3:
                damaged[at:at] = damaged[at:end]
            case 4:
                damaged[at:at] = random.randbytes(random.randint(1, 8))
            case 5:
                size = random.choice((1, 2, 4, 8))
                damaged[at : at + size] = random.choice((0, 1, 255, 2 ** (8 * size) - 1)).to_bytes(8, "big")[-size:]
            case 6 if others:
                other = random.choice(others)
                start = random.randrange(len(other) + 1)
                damaged[at:end] = other[start : start + random.randint(1, MAX_PIECE)]
            case 7 if random.random() < 0.2:
                del damaged[at:]
    return bytes(damaged)


def mutated_text(random: Random, valid: str, others: Sequence[str] = ()) -> str:
    """Return a valid text after some steps of damage. others: valid ones, of which pieces are inserted."""
    damaged = valid
    for _ in range(random.randint(1, MAX_STEPS)):
        at = random.randrange(len(damaged) + 1)
        end = min(len(damaged), at + random.randint(1, MAX_PIECE))
        match random.randrange(6):
            case 0:
                piece = random.choice(ODD_TEXTS)
            case 1:
                piece = chr(random.randrange(1, 0xD800))
            case 2:
                piece = 2 * damaged[at:end]
            case 3 if others:
                other = random.choice(others)
                piece = other[random.randrange(len(other) + 1) :]
            case 4:
                piece = chr(random.randrange(0x100))
            case _:
                piece = ""
        damaged = damaged[:at] + piece + damaged[random.choice((at, end)) :]
    return damaged
