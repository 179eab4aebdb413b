"""Get the crops of faces: a record of the stage faces in; uint8 n x S x S x 3, RGB, out.

They are in Redis, or are cut here, from the pixels of the frame in the memory of this machine. A process that cannot
map them asks detectors for crops, and the frames that have none yet are gone.
"""

from __future__ import annotations

import numpy as np

from models.classifier.card import Card
from models.classifier.mask_classifier import crop_faces
from pipeline.bus.frame_ring import RingReader
from pipeline.bus.messages import FaceCrops
from pipeline.bus.pixel_reader import PixelsGone
from pipeline.bus.reader import Entry, Reader
from pipeline.vision.arrays import Image
from pipeline.vision.jpeg import unpack_crops
from workers.frame_pixels import RemoteRequests


class CropSource:
    """Get the crops of faces, in one thread."""

    def __init__(self) -> None:
        self._rings = RingReader()
        self._requests = RemoteRequests("remote:faces")

    def crops(self, reader: Reader[FaceCrops], entry: Entry[FaceCrops], card: Card) -> Image:
        """Return the crops of the faces that are to be classified.

        Raises:
            PixelsGone: they have expired, were overwritten, or are in the memory of another machine.
        """
        record = entry.record
        mapped = None
        if record.shared is not None:
            mapped = self._rings.open(record.shared, record.height, record.width)
            if mapped is None:  # also if this frame has crops: the next ones must have them, too
                self._requests.ask(entry.at.shard)
        if not record.crop_boxes:
            return unpack_crops(reader.fetch(entry, record.crops_key), len(record.to_classify), record.crop_px)
        if mapped is None:
            raise PixelsGone("its pixels are in the memory of another machine")
        boxes = np.array([record.crop_boxes[number] for number in record.to_classify], np.float32)
        crops = crop_faces(mapped.image, boxes.reshape(-1, 4), card.size_px, card.margin)
        if not mapped.is_intact():
            raise PixelsGone("overwritten by a newer frame")
        return crops

    def let_go(self) -> None:
        """Let go of the memory of producers that send nothing any more. Call it in every iteration of the loop."""
        self._rings.let_go()
