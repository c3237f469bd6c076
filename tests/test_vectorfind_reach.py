"""How far a loop takes each face, and whether it keeps its promise inside that range."""

from dataclasses import replace

import pandas as pd
from test_vectorfind_closed_loop import ErringScorer, loop_in, model_loop_in
from vectorfind_world import CurvedScorer, make_bench

from vectorfind.closed_loop import LoopOptions
from vectorfind.names import EDITED
from vectorfind.reach import JUDGED, LETTER, MET_WITHIN, intended_table, met_shares, reach_table, to_the_letter


def test_where_a_reading_is_promised_the_scorer_is_followed():
    bench = make_bench(batch=50)
    bench.scorer = CurvedScorer()
    spread = bench.measure(bench.encode(bench.latents(range(1500)), "w"), "w").std(0)
    bench.scorer = ErringScorer(spread)
    halfway, literal = (model_loop_in(bench, trust=trust) for trust in (0.5, 1.0))
    tables = [reach_table(loop, range(2000, 2004)) for loop in (halfway, literal)]
    pd.testing.assert_frame_equal(*tables)
    found = [intended_table(loop, tables[0]) for loop in (halfway, literal)]
    pd.testing.assert_frame_equal(*(table[table["walk"] == LETTER] for table in found))
    wishes, faces = met_shares(found[0][found[0]["walk"] == LETTER])
    as_judged, _ = met_shares(found[0][found[0]["walk"] == JUDGED])
    assert faces <= wishes and as_judged < wishes
    assert found[0]["intended"].abs().min() > MET_WITHIN
    assert to_the_letter(loop_in(bench)).options == LoopOptions()


def test_faces_that_are_walked_together_reach_what_they_would_alone():
    bench, small = make_bench(batch=50), make_bench(batch=6)
    bench.scorer = small.scorer = CurvedScorer()
    loop = model_loop_in(bench)
    together, alone = (reach_table(one, range(2000, 2010)) for one in (loop, replace(loop, bench=small)))
    pd.testing.assert_frame_equal(together, alone, atol=2e-3)
    keys = ["seed", "walk", "property", "intended"]
    found, apart = (intended_table(one, together).set_index(keys) for one in (loop, replace(loop, bench=small)))
    assert len(found) > 60 and found.index.is_unique
    assert (found["achieved"] - apart["achieved"].reindex(found.index)).abs().max() < 2e-3


def test_a_walker_that_never_moves_meets_no_wish():
    bench = make_bench(batch=50)
    ends = [{"seed": 2000, "property": name, "low": -1.0, "high": 1.0} for name in EDITED]
    found = [intended_table(loop_in(bench, most_steps=steps), pd.DataFrame(ends)) for steps in (0, 20)]
    assert [len(table) for table in found] == [12, 12] and [met_shares(table) for table in found] == [(0, 0), (1, 1)]
