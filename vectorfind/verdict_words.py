"""The words of a verdict: what a newcomer needs to read its tables, and only that."""

from __future__ import annotations

from vectorfind.closed_loop import OUT_OF_STEPS, STUCK, TOO_FAR
from vectorfind.effects import FEWEST_EDITS
from vectorfind.evaluate import ENOUGH
from vectorfind.graders import SPREAD_FACES
from vectorfind.model_loop import ENDED
from vectorfind.setting import Setting

# What a newcomer needs to read the tables.
WORDS = """- *Deviation*: the standard deviation of a score among the faces of the pool. *Edit*: in the
  test a wish for eyes, mouth and pose at once, 50 for each face (on the usual grid eyes by -1.2 or 1.2, mouth by five
  steps from -1.8 to 1.8, pose by five from -1.2 to 1.2 deviations, each with each); for side effects one property
  alone, by one deviation. *Correlation*: of what was asked with what was measured, over the 50. It is blind to the size
  of a change, which `slope` and `range` tell.
- *Passes*: eyes / mouth / pose of a face correlate by .92 / .88 / .88 (v8) or .92 / .88 / .92 (v7), over nine tenths
  of its edits at least. *Reversed*: a correlation below 0.
- *Leak*: mean change of something else per achieved deviation of what is meant."""
WORDS_OF_GRADERS = {
    "finder": "the scorer that the directions were found by",
    "second": "a CNN trained on other faces",
    "geometric": "face parser and geometry",
}
ONE_DEFINITION = (
    ". All measure by one definition of open and tilted: CNNs learn what parser and geometry say, each on its own faces"
)
ORACLE = (
    "- *Oracle*: a network that reads head and person of a picture; it trained no direction and no scorer, though the "
    "filter CNNs, whose features `closed_loop` keeps as they are, learnt from its labels."
)
# What only some settings need.
WORDS_OF_METHODS = {
    "model_loop": "- `model_loop` plans by a network that learnt the scores from the codes. What an edit has changed "
    "is taken to be the mean of what that network and the finder say. Where a parser was at hand it also keeps colours "
    "and places of the face's parts as they are, which it learnt from that parser, by which `geometric` grades; how "
    "far eyes and mouth are open, and the roll, are not among them.",
    "closed_loop": "- `closed_loop` follows gradients through generator and finder, in the mean over the pool, and "
    "where that walk gets stuck over the surroundings of the face; each step corrects those of eyes, mouth and pose. "
    "Where the profile has filter CNNs it keeps features of theirs as they are.",
}
WORDS_OF_NAMES = {
    "_mended": "the published settings mended (ridge: on ranks); edits go where codes vary (the codes' covariance "
    "times the normal that was fitted)",
    "_conditional": "each direction is projected off those of all other scores",
    "_looks": "and off what changes colours and places of the face's parts, as the parser sees them by which "
    "`geometric` grades; how far eyes and mouth are open, and the roll, are not among these",
    "_8": "8 groups of faces by hair and background instead of 16",
    "_ungrouped": "one group of all faces instead of 16",
    "_cuts": "groups divided at published cuts instead of medians",
}
GRIDS_MEAN = {
    "deviations": "Every face is asked for the same changes, in deviations of the score, whether it can follow or not. "
    "A closed mouth cannot close further: `best possible` is the mean correlation, about, of an editor that obeys to "
    "the letter until the score ends (first and last percentile of that grader's scores: the finder's in the whole "
    f"pool, the others' in {SPREAD_FACES} of its faces).",
    "reachable": "The changes that a face is asked for are slid, and where need be narrowed, into what its scores can "
    "reach (first to last percentile over the pool): the five weights of a closed mouth are five ways to open it. "
    "Correlations are of these weights with the measured score.",
    "published": "The changes are the published ones, in units of the latent space; `slope` is per such unit.",
}
ONE_WAY = (
    "Leaks are means over edits up and down: what moves the same way in both cancels. `one way`: of the edits up "
    f"alone, or of those down, whichever drags more along; of {FEWEST_EDITS} edits at least."
)
ALIKE = (
    " Each method's leaks are of the edits that it could bring to one deviation; a row tells those of the edits that "
    "both could."
)
GRIDS_IN_TITLE = {
    "deviations": "",
    "reachable": ", each face asked for what it can do",
    "published": ", asked for the published weights",
}
OTHERWISE = (
    "The leak to head or person above is told in deviations among this generator's faces, which are so alike that "
    "what the oracle reads of them varies little, and partly by its own noise. Among people of every kind: the same "
    "readings, in deviations of the faces that the base generator draws. Less its own error: without what the oracle "
    "reads into renders of which nothing but the meant property was moved (see The judge judged). The codes "
    "themselves: no network is asked, as a code of this world tells what it stands for."
)
METHODS = (
    "In brackets: 95 % intervals over faces. `|corr|` and `monotone` (share of rising steps between the levels of the "
    "grid): means of the three properties. `slope`: deviations per deviation asked for; `range`: deviations from the "
    "lowest to the highest level; eyes / mouth / pose. `reversed`: of the worst property. `measured`: share of edits "
    f"that the grader could read; a face of which it read less than {ENOUGH:.0%} does not pass. An unmoved score has "
    "correlation 0."
)
COSTS = (
    "`drift`: distance of the oracle's features, less what it reads as eyes, mouth and attitude of the head; 1 is the "
    "distance between two people. The oracle's features helped to train the generator. `pixel`: mean change of 255 "
    "outside the property's region. `matched`: share of edits that could be brought to one deviation; `more than`: "
    "mean difference from the reference, over faces, by the edits that both could. These are means of the three "
    "properties. `leak to a score`: mean signed deviations of the score that is dragged along most, by the least "
    "favourable grader; `change of a face`: mean size, whatever the sign, of the score where it is largest. `leak to "
    "a person`: as `leak to a score`, of what the oracle reads (yaw, pitch, roll, gender, age, quality, glasses), in "
    "deviations among the generator's faces: where hardly a face wears glasses, their deviation is little."
)
ENDS = (
    f"`{ENDED}`: `model_loop` takes the first and last percentile of a score in the pool for its ends (of a closed "
    f"mouth: the middle of all closed ones), `closed_loop` knows none; `{TOO_FAR}`: the longest edit that is allowed; "
    f"`{OUT_OF_STEPS}`: all steps or plans used before the wish was met; `{STUCK}`: no step helped."
)
SELECTED = (
    "Chosen by the finder at .92 / .88 / .88, confirmed by each grader at the same bars on other noise: of the "
    "generator, and of a camera that takes every picture anew. `noise`: what these alone change, in deviations of the "
    "edited scores. Of the published hand-kept cases 9 of 22 passed again."
)


def words_for(settings: list[Setting], graders: set[str], has_oracle: bool) -> str:
    """What a newcomer needs to read the tables of some settings, by some graders, in a world with an oracle or not."""
    listed = [f"`{name}`, {words}" for name, words in WORDS_OF_GRADERS.items() if name in graders]
    told = ["- *Graders*: " + "; ".join(listed) + ONE_DEFINITION * (len(listed) > 1) + "."]
    told += [ORACLE] if has_oracle else []
    told += [words for method, words in WORDS_OF_METHODS.items() if method in {one.method for one in settings}]
    there = [(ending, words) for ending, words in WORDS_OF_NAMES.items() if any(ending in one.name for one in settings)]
    endings = [f"`{ending}`, {words}" for ending, words in there]
    names = "; ".join(["- Names: the method, and the position in the generator that it edits", *endings]) + "."
    return "\n".join([WORDS, *told, names])
