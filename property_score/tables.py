"""The hand-off tables of stage 4: where they lie, and their schemas."""

from typing import TYPE_CHECKING

from property_score.head_pose import ANGLES
from property_score.measure import PROPERTIES

if TYPE_CHECKING:
    from pandera.pandas import DataFrameSchema

FOLDER = "segmentation/property_score_results"
SCORE_COLUMNS = tuple(f"{name}_score" for name in PROPERTIES)


def table_names(algorithm: str, published: bool = False) -> tuple[str, str, str]:
    """Return the paths inside a run of the z-scored table, the raw table and the normalisation.

    For algorithm v2 in its mended form they are all_scores_v2.csv, all_scores_v2_raw.csv and normalisation.json.
    """
    ending = ("" if algorithm == "v1" else f"_{algorithm}") + ("_published" if published else "")
    fitted = "" if (algorithm, published) == ("v2", False) else f"_{algorithm}" + ("_published" if published else "")
    scores = f"{FOLDER}/all_scores{ending}"
    return f"{scores}.csv", f"{scores}_raw.csv", f"{FOLDER}/normalisation{fitted}.json"


def score_schema() -> "DataFrameSchema":
    """Return the schema of a table of scores: img_no, img_path, eight scores (empty where missing), reason.

    yaw, pitch, roll: angles of the head in radians, where the profile names a network that tells them.
    """
    from pandera.pandas import Check, Column, DataFrameSchema

    scores = {name: Column("float64", nullable=True) for name in SCORE_COLUMNS}
    return DataFrameSchema(
        {
            "img_no": Column("int64", Check.ge(0), unique=True),
            "img_path": Column(str),
            **scores,
            **{name: Column("float64", required=False) for name in ANGLES},
            "reason": Column(str, nullable=True),
        },
        coerce=True,
    )
