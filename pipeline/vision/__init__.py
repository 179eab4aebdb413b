"""jpeg (encode and decode), boxes, faces (types), tracks and drawing. Pure: no I/O and no clock."""
