"""The persona, a young woman of good quality without glasses, is the same one wherever it is told."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from stylegan_modified.report import PARTS
from virtual_face import label
from virtual_face.oracle import Oracle

NAMES = ["gender", "quality", "age", "glasses"]
BELOW = np.nextafter(0.5, 0)
# Faces in the order of NAMES: one that meets the persona, then one with each trait turned round.
FACES = {
    "at the ends": [(1, 1, 0, 0), (0, 1, 0, 0), (1, 0, 0, 0), (1, 1, 1, 0), (1, 1, 0, 1)],
    "at the cutoffs": [(0.5, 0.5, BELOW, BELOW), (BELOW, 0.5, BELOW, BELOW), (0.5, BELOW, BELOW, BELOW),
                       (0.5, 0.5, 0.5, BELOW), (0.5, 0.5, BELOW, 0.5)],
}  # fmt: skip


@pytest.fixture(params=list(FACES))
def table(request) -> pd.DataFrame:
    return pd.DataFrame(FACES[request.param], columns=NAMES)


def test_only_a_young_woman_of_good_quality_without_glasses_is_the_persona(table):
    assert Oracle.concept(table).tolist() == [True, False, False, False, False]


def test_each_part_of_the_persona_fails_the_one_face_that_lacks_it(table):
    met = {part: meets(table[column]).tolist() for part, (column, meets) in PARTS.items()}
    expected = {part: [True] * 5 for part in ("woman", "good quality", "young", "no glasses")}
    for face, part in enumerate(expected, start=1):
        expected[part][face] = False
    assert met == expected


def test_labels_and_share_told_of_labelled_faces_follow_the_cutoffs(table, tmp_path, monkeypatch, capsys):
    oracle = SimpleNamespace(attributes=lambda images: table, concept=Oracle.concept)
    monkeypatch.setattr(label, "load_generator", lambda *_: None)
    monkeypatch.setattr(label, "load_oracle", lambda *_: oracle)
    monkeypatch.setattr(label, "sample", lambda *_, **__: [(None, None, torch.zeros(len(table), 3, 8, 8))])
    label.label(label.LabelOptions(count=len(table), out=str(tmp_path / "labels.csv"), device="cpu"))
    written = pd.read_csv(tmp_path / "labels.csv")
    assert written.columns.tolist() == ["img_no", "gender", "quality", "age", "glass"]
    assert written.iloc[:, 1:].to_numpy().tolist() == [list(face) for face in FACES["at the ends"]]
    assert "gender 0.800, quality 0.800, age 0.200, glass 0.200; concept 0.200" in capsys.readouterr().out
