"""The hand-off table of stage 3, and where the pictures of an image lie."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pandera.pandas import DataFrameSchema

TABLE = "segmentation/segmentation.csv"
RESULTS = "segmentation/segmentation_results"
KINDS = ("parsing", "parsing_visualization", "face")

RESULT_NAME = re.compile(rf"({'|'.join(KINDS)})_\d{{6,}}\.png")


def result_name(kind: str, img_no: int) -> str:
    """Return the file name of one of the KINDS of picture of an image."""
    return f"{kind}_{img_no:06d}.png"


def segmentation_schema() -> "DataFrameSchema":
    """Return the schema of segmentation.csv: one row per filtered image.

    x0, y0, x1, y1: the detector's box in pixels of the image (empty without a face); the crop is that box grown by a
    quarter per side, see `segmentation.face_crop.crop_corners`. faces: how many faces were found.
    """
    from pandera.pandas import Check, Column, DataFrameSchema

    return DataFrameSchema(
        {
            "img_no": Column("int64", Check.ge(0), unique=True),
            "img_path": Column(str),
            "found": Column("bool"),
            "reason": Column(str, nullable=True),
            **{name: Column("float64", nullable=True) for name in ("x0", "y0", "x1", "y1")},
            "faces": Column("int64", Check.ge(0)),
        },
        coerce=True,
    )


def photograph_schema() -> "DataFrameSchema":
    """Return the schema of segmentation.csv of photographs: one row per file, readable or not.

    As `segmentation_schema`, but img_path is the file's name in the folder of photographs. note: what was done with it,
    such as "the largest of 3 faces".
    """
    from pandera.pandas import Column

    return segmentation_schema().add_columns({"note": Column(str, nullable=True)})


def is_of_photographs(table: Path) -> bool:
    """Tell from its first row whether a segmentation.csv is of photographs."""
    with table.open(encoding="utf-8-sig", errors="replace") as rows:
        return "note" in rows.readline().rstrip().split(",")
