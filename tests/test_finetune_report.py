"""The report of stage 5: its verdict is as bold as the intervals allow."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest

from stylegan_modified.monitor import Measured
from stylegan_modified.report import Side, write_report

COUNT = 1000
WORDS = {
    "is reached, its whole interval lies above": 980,
    "is reached, but its interval reaches below": 955,
    "clear rise, but the target of 95% is NOT reached": 600,
    "There is NO clear rise": 440,
}


def side(hits: int, diversity: float = 8.0) -> Side:
    """A generator of which so many of the faces meet the concept; the others are men."""
    met = np.arange(COUNT) < hits
    frame = pd.DataFrame({"concept": met, "gender": met * 1.0, "quality": 1.0, "age": 0.0, "glasses": 0.0})
    return Side(Measured(frame, diversity, diversity), 0.7, 0.1, 0.5)


@pytest.mark.parametrize(("words", "hits"), WORDS.items())
def test_the_verdict_tells_a_target_reached_from_one_grazed_and_a_rise_from_chance(tmp_path, words, hits):
    log = pd.DataFrame({"step": [0], "concept_share": [0.4], "branch_share": [0.5]})
    write_report(tmp_path / "finetune_v9.md", side(400), side(hits, 6.0), log, {}, {})
    text = (tmp_path / "finetune_v9.md").read_text(encoding="utf-8")
    assert [known for known in WORDS if known in text] == [words]
    assert f"**40.0%** [37.0%, 43.1%] before, **{hits / COUNT:.1%}**" in text
    for part, share in {"concept": hits / COUNT, "woman": hits / COUNT, "young": 1.0}.items():
        assert re.search(rf"\| {part} \| \S+ \[.*\] \| {share:.3f} \[", text), part
    assert "Diversity of the faces: 75% of what it was" in text
