"""YuNet as published: `make setup`'s file in; its bytes, or a detector that looks once or twice, out.

Training starts from its weights (trainer/networks/yunet.py), and it finds the faces of pictures that have no boxes. It
does not serve. A file that is missing or damaged raises ModelUnusable.
"""

from __future__ import annotations

from pathlib import Path

from models.detector.card import OutlineGeometry
from models.detector.face_detector import FaceDetector, yunet_candidates
from models.files import read_checked

YUNET_FILE = Path(__file__).parent.parent / "assets" / "face_detector.onnx"
# Of the file that scripts/yunet_onnx.py converts the published one to; scripts/fetch_assets.py checks it too.
YUNET_SHA256 = "bf45cf3917455c903409b0e621a3bf6c3b379a6427672482f7a3eed437dde185"
# In a large image it sees only parts of near faces and takes hands for faces, in a small one it misses distant faces.
# So an image is searched with a long side of FIRST_PX for all faces, and with a larger one for the distant ones.
FIRST_PX = 640
SECOND_PX = 960
# OpenCV's demos use 0.6 to 0.9, for bare faces at arm's length. Masked and distant faces score 0.3 to 0.6.
SCORE_THRESHOLD = 0.5
# Its boxes reach from the forehead to the chin, as in WIDER FACE; face-mask-detection's are an eighth lower.
OUTLINES = OutlineGeometry(down=0.125)


def read_published() -> bytes:
    """Return the published ONNX file that set-up installs."""
    return read_checked(YUNET_FILE, YUNET_SHA256, remedy="run `make setup` to fetch it")


def published_detector(input_px: int = SECOND_PX, *, score_threshold: float = SCORE_THRESHOLD) -> FaceDetector:
    """Return the published detector, which looks twice if input_px, the long side, is larger than FIRST_PX."""
    passes_px = (FIRST_PX, input_px) if input_px > FIRST_PX else (input_px,)
    return FaceDetector(yunet_candidates(read_published(), score_threshold), passes_px, geometry=OUTLINES)
