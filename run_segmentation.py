"""Stage 3: find, crop and parse the face of each filtered picture, or of each photograph in a folder."""

from dataclasses import dataclass

from pipeline.command import StageOptions, main
from pipeline.profile import Profile
from pipeline.run import Run
from segmentation.stage import Plan, parse_pictures, plan_filtered, plan_photographs

EXAMPLES = """
python run_segmentation.py
python run_segmentation.py --run runs/small --device cpu
python run_segmentation.py --images path/to/photographs --run runs/photos
"""


@dataclass
class Options(StageOptions):
    """Stage 3: find, crop and parse the face of each filtered picture.

    Writes segmentation/segmentation.csv and, per face, parsing_*.png (class ids 0..10), parsing_visualization_*.png
    and face_*.png in segmentation/segmentation_results/: the largest face with a quarter of its size on each side,
    224x224 pixels. A picture without a face is reported and skipped. With --images it takes photographs instead, any
    JPEG, PNG or WebP of a folder; img_path in the table is then the file's name. Nothing here is random: --seed changes
    nothing.
    """

    run: str = ""
    """Folder that the run reads and writes; runs/demo unless given, runs/photos with --images."""
    images: str = ""
    """Folder of photographs to parse instead of generated faces; needs a run folder of its own."""


def plan(options: Options) -> Plan:
    """Check what can be checked without the networks: profile, weight file and pictures."""
    profile = Profile.load(options.profile)
    if options.images:
        return plan_photographs(profile, Run(options.run or "runs/photos"), options.images)
    return plan_filtered(profile, Run(options.run or StageOptions.run))


def run(options: Options) -> None:
    """Parse what is missing or stale."""
    parse_pictures(plan(options), options.device, options.force)


if __name__ == "__main__":
    main(Options, run, EXAMPLES)
