"""The model of the scores: what it tells, its slopes, and where a score ends."""

import numpy as np
import torch

from vectorfind.names import PROPERTIES
from vectorfind.score_model import EditModel, ScoreModel


def slopes_of(model: ScoreModel, codes: np.ndarray) -> np.ndarray:
    """Slopes [N, R, D] at codes [N, D], put together from what the loop asks of them."""
    edits = EditModel(model, np.eye(codes.shape[1]))
    with torch.no_grad():
        told, through = edits.read(edits.start(codes), torch.zeros(codes.shape))
        readings = told.shape[1]
        rows = torch.eye(readings).repeat(len(codes), 1)
        slopes = edits.along(through.repeat_interleave(readings, 0), rows)
    return slopes.reshape(len(codes), readings, -1).numpy()


def test_an_edit_is_read_where_it_leads_and_slopes_multiply_without_being_formed():
    rng = np.random.default_rng(0)
    codes = rng.standard_normal((900, 6)).astype(np.float32)
    scores = np.tanh(codes @ rng.standard_normal((6, len(PROPERTIES)))).astype(np.float32)
    model = ScoreModel.fit(codes, scores, np.full(len(PROPERTIES), 0.5, np.float32))
    factor = np.tril(rng.standard_normal((6, 6))).astype(np.float32)
    edits, moved = EditModel(model, factor), rng.standard_normal((4, 6)).astype(np.float32)
    there = codes[:4] + moved @ factor.T
    with torch.no_grad():
        told, through = edits.read(edits.start(codes[:4]), torch.from_numpy(moved))
        gram = edits.gram(through).numpy()
    np.testing.assert_allclose(told.numpy(), model.tell(there), atol=1e-4)
    slopes = slopes_of(model, there) @ factor
    np.testing.assert_allclose(gram, slopes @ slopes.transpose(0, 2, 1), rtol=1e-3, atol=1e-3)


def test_the_mean_slopes_are_those_over_codes_spread_as_the_pools_are():
    rng = np.random.default_rng(0)
    factor = np.tril(rng.standard_normal((6, 6))).astype(np.float32)
    codes = rng.standard_normal((4000, 6)).astype(np.float32) @ factor.T + np.arange(6, dtype=np.float32)
    scores = np.tanh((codes - codes.mean(0)) @ rng.standard_normal((6, len(PROPERTIES)))).astype(np.float32)
    model = ScoreModel.fit(codes, scores, np.full(len(PROPERTIES), 0.5, np.float32))
    edits = EditModel(model, factor)
    with torch.no_grad():
        through = edits.mean_through().expand(len(PROPERTIES), -1, -1)
        mean = edits.along(through, torch.eye(len(PROPERTIES))).numpy()
    np.testing.assert_allclose(mean, slopes_of(model, codes).mean(0) @ factor, atol=0.1 * np.abs(mean).max())


def test_the_slopes_of_the_model_are_its_own_and_none_along_dead_dimensions():
    rng = np.random.default_rng(0)
    codes = np.concatenate([rng.standard_normal((900, 5)), np.zeros((900, 2))], 1).astype(np.float32)
    scores = np.tanh(codes[:, :5] @ rng.standard_normal((5, len(PROPERTIES)))).astype(np.float32)
    scores[3, 2] = np.nan
    model = ScoreModel.fit(codes, scores, np.full(len(PROPERTIES), 0.5, np.float32))
    slopes = slopes_of(model, codes[:4])

    def told(x):
        with torch.no_grad():
            return model.network(
                torch.from_numpy((x - model.mean) / np.where(model.spread > 0, model.spread, 1))
            ).numpy()

    for k in range(5):
        step = np.zeros(7, np.float32)
        step[k] = 1e-2
        np.testing.assert_allclose((told(codes[:4] + step) - told(codes[:4] - step)) / 2e-2, slopes[:, :, k], atol=2e-3)
    assert (slopes[:, :, 5:] == 0).all() and model.held_r.min() > 0.9


def test_where_a_score_ends_the_model_keeps_the_slope_that_leads_out():
    rng = np.random.default_rng(0)
    codes = rng.standard_normal((4000, 6)).astype(np.float32)
    hidden = codes @ rng.standard_normal((6, len(PROPERTIES))).astype(np.float32)
    scores = hidden.copy()
    mouth = PROPERTIES.index("mouth")
    scores[:, mouth] = np.maximum(hidden[:, mouth], 0) + 0.02 * rng.standard_normal(4000)
    model = ScoreModel.fit(codes, scores, scores.std(0))
    assert (model.floors[np.arange(len(PROPERTIES)) != mouth] < -1e8).all() and 0 < model.floors[mouth] < 0.3
    closed = codes[hidden[:, mouth] < -0.5]
    way = np.linalg.lstsq(codes, hidden[:, mouth], rcond=None)[0]
    slopes = slopes_of(model, closed)[:, mouth]
    cosines = slopes @ way / np.linalg.norm(slopes, axis=1) / np.linalg.norm(way)
    assert cosines.min() > 0.5 and (model.tell(closed)[:, mouth] < model.floors[mouth] + 0.1).mean() > 0.95


def test_the_model_learns_readings_as_well_wherever_their_zero_lies():
    rng = np.random.default_rng(0)
    codes = rng.standard_normal((1500, 8)).astype(np.float32)
    readings = np.tanh(codes @ rng.standard_normal((8, 12)).astype(np.float32))
    far = readings + np.where(np.arange(12) < len(PROPERTIES), 0, 16).astype(np.float32)
    sds = readings.std(0)
    near_model, far_model = ScoreModel.fit(codes, readings, sds), ScoreModel.fit(codes, far, sds)
    np.testing.assert_allclose(far_model.held_r, near_model.held_r, atol=0.01)
    shift = far_model.tell(codes) - near_model.tell(codes)
    np.testing.assert_allclose(shift[:, len(PROPERTIES) :] * sds[len(PROPERTIES) :], 16, atol=0.3)
