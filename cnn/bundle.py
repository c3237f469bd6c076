"""Turn the trained models of a run into bundled weights, in half precision.

python -m cnn.bundle --run runs/demo --to weights/demo/cnn
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cnn.models import bundled_path, check_one_training, is_trained_here, model_paths
from pipeline.artefacts import provenance_of, read_weights, save_weights
from pipeline.command import Summary, main
from pipeline.errors import PipelineError
from pipeline.run import Run


@dataclass
class Options:
    """Write the twenty trained filter models of a run as bundled weights (float16) with their training records."""

    run: str = "runs/demo"
    """Run whose models were trained with run_cnn.py --train."""
    to: str = "weights/demo/cnn"
    """Folder for {property}_model_{fold}.pth."""


def bundle(options: Options) -> None:
    """Write them; PipelineError if a model is missing or was not trained in the run."""
    run, folder, summary = Run(options.run), Path(options.to), Summary("bundle filter CNNs")
    size = 0
    check_one_training(run)
    for name, paths in model_paths(run).items():
        for fold, path in enumerate(paths):
            record = provenance_of(path)
            if not is_trained_here(path) or "log" not in record:
                raise PipelineError(f"{path} was not trained in this run; run_cnn.py --run {run} --train does that")
            target = bundled_path(folder, name, fold)
            save_weights(target, read_weights(path), half=True, **record)
            size += target.stat().st_size
    summary.wrote(folder, f"20 models, {size / 2**20:.2f} MiB")
    summary.print()


if __name__ == "__main__":
    main(Options, bundle, "python -m cnn.bundle --run runs/demo --to weights/demo/cnn")
