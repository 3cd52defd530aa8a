"""The converter beside one core's decode, resize and encode; its memory; what it could write instead."""
