"""One process of a training by several: `torchrun --nproc-per-node 2 tests/finetune_process.py OUT VERSION STEPS`."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parent)]


def curve(version: str, steps: int, processes, batch: int = 8) -> list[list[float]]:
    """Losses and penalty of each step, the AUROC of D, and at the end two figures of the weights."""
    import finetune_world as world

    trainer = world.trainer(version, batch=batch, processes=processes)
    names = ("d_loss", "g_loss", "r1_penalty", "real_fake_auroc", "term_loss")
    rows = []
    for _ in range(steps):
        trainer.step()
        row = trainer.row()
        rows.append([float(row[name]) for name in names])
    rows.append([float(trainer.average.mapping.dense7.weight.mean()), float(trainer.generator.truncation.w_avg.sum())])
    return rows


def main() -> None:
    import torch

    from pipeline.artefacts import write_json
    from stylegan_modified.processes import Processes

    torch.set_num_threads(1)
    group = Processes.start("cpu")
    result = curve(sys.argv[2], int(sys.argv[3]), group)
    if group.first:
        write_json(sys.argv[1], result)
    group.leave()


if __name__ == "__main__":
    main()
