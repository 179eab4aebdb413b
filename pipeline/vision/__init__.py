"""Images, boxes, tracks and drawing. Pure: no I/O and no clock."""
