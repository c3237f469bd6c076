"""The label table of stage 2: as ours, and as published."""

import pytest

from cnn.labels import Origin, read_labels
from pipeline.artefacts import stamp_path, write_json
from pipeline.errors import PipelineError

HEAD = "gender,quality,age,glass"


def test_the_published_table_calls_the_number_idx(tmp_path):
    path = tmp_path / "scores_labeled_first_2k.csv"
    path.write_text(f"idx,{HEAD}\n1,0,1,0,1\n0,1,1,0,0\n")
    labels = read_labels(path)
    assert labels.columns.tolist() == ["img_no", *HEAD.split(",")]
    assert labels.iloc[0].tolist() == [0, 1, 1, 0, 0]
    path.write_text(f"idx,img_no,{HEAD}\n7,3,1,1,0,0\n")
    assert read_labels(path)["img_no"].tolist() == [3]
    path.write_text(f"idx,{HEAD}\n0,1,1,0,0\n0,1,1,0,0\n")
    with pytest.raises(PipelineError, match=r"row 2, column idx.*mend this label table: columns img_no"):
        read_labels(path)


@pytest.mark.parametrize("record", [[1], "text", {"origin": [1]}])
def test_what_is_no_record_beside_a_file_is_named(tmp_path, record):
    path = tmp_path / "labels.csv"
    write_json(stamp_path(path), record)
    with pytest.raises(PipelineError, match=r"labels\.csv\.json is no record of labels\.csv: .* restore it, or move"):
        Origin.of_stamp(path)
