"""One door to everything that reads and writes artefacts: whole files, images, weights and their stamps."""

from pipeline.images import read_arrays, read_image, read_mask, save_arrays, save_image
from pipeline.stamps import (
    check_whole,
    code_version,
    digest,
    is_fresh,
    provenance_of,
    record_beside,
    refuse_stranger,
    stamp_path,
    write_stamp,
)
from pipeline.weights import load_into, read_weights, save_weights
from pipeline.whole import atomic, read_json, remove_leftovers, write_json

__all__ = [
    "atomic",
    "check_whole",
    "code_version",
    "digest",
    "is_fresh",
    "load_into",
    "provenance_of",
    "read_arrays",
    "read_image",
    "read_json",
    "read_mask",
    "read_weights",
    "record_beside",
    "refuse_stranger",
    "remove_leftovers",
    "save_arrays",
    "save_image",
    "save_weights",
    "stamp_path",
    "write_json",
    "write_stamp",
]
