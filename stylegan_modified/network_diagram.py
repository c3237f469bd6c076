"""A diagram of the networks of a rung, drawn from the modules themselves: names, sizes, what trains."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from torch import nn

from stylegan_modified.figures import write_figure

TRAINS, PARTLY, FROZEN = "#ffd7a8", "#ffeeda", "#dfe6ee"
WIDTH, HEIGHT, GAP = 4.6, 0.62, 0.22


def boxes_of(net: nn.Module) -> list[tuple[str, str, float]]:
    """Name, sizes and share of trained parameters of each layer that owns weights, in order of registration.

    `synthesis.layer3` with its style and noise is one layer, `mapping.dense0` another.
    """
    groups: dict[str, list[tuple[str, nn.Parameter]]] = {}
    for name, parameter in net.named_parameters():
        groups.setdefault(_unit(name), []).append((name, parameter))
    boxes = []
    for unit, members in groups.items():
        total = sum(parameter.numel() for _, parameter in members)
        trained = sum(parameter.numel() for _, parameter in members if parameter.requires_grad)
        own = [parameter for name, parameter in members if name in (unit, f"{unit}.weight", f"{unit}.const")]
        main = own[0] if own else max((parameter for _, parameter in members), key=lambda p: (p.dim() > 1, p.numel()))
        boxes.append((unit, _sizes(main, unit), trained / total))
    return boxes


def draw(nets: dict[str, nn.Module], path: Path, title: str) -> None:
    """One column per network; orange trains, pale orange partly, blue-grey is frozen."""
    columns = {name: boxes_of(net) for name, net in nets.items()}
    tallest = max(len(boxes) for boxes in columns.values())
    step = HEIGHT + GAP
    figure = Figure(figsize=(max(7.0, 3.6 * len(columns)), 0.36 * tallest + 1.2))
    axes = figure.subplots()
    for column, (name, boxes) in enumerate(columns.items()):
        left = column * (WIDTH + 0.8)
        count = sum(parameter.numel() for parameter in nets[name].parameters())
        axes.text(left + WIDTH / 2, 1.3, f"{name}: {count:,} parameters", ha="center", fontsize=9, weight="bold")
        for k, (unit, sizes, trained) in enumerate(boxes):
            top = -k * step
            colour = TRAINS if trained > 0.999 else FROZEN if trained == 0 else PARTLY
            box = FancyBboxPatch(
                (left, top), WIDTH, HEIGHT, boxstyle="round,pad=0.02,rounding_size=0.1", fc=colour, ec="#555555", lw=0.6
            )
            axes.add_patch(box)
            axes.text(left + 0.12, top + HEIGHT / 2, unit, va="center", fontsize=7)
            axes.text(left + WIDTH - 0.12, top + HEIGHT / 2, sizes, va="center", ha="right", fontsize=7)
    axes.set_xlim(-0.3, len(columns) * (WIDTH + 0.8))
    axes.set_ylim(-tallest * step - 0.2, 2.3)
    axes.set_axis_off()
    axes.set_title(f"{title}: orange trains, blue-grey is frozen", fontsize=10)
    write_figure(figure, path)


def _unit(name: str) -> str:
    parts = name.split(".")[:-1]
    if not parts:
        return name
    if parts[0] == "mapping":
        return ".".join(parts) if len(parts) > 1 else name
    if parts[0] == "synthesis":
        return ".".join(parts[:2])
    return parts[0]


def _sizes(parameter: nn.Parameter, unit: str) -> str:
    shape = list(parameter.shape)
    if unit == "mapping.label_weight":
        shape = shape[::-1]  # label @ matrix: the only weight that is stored inputs first
    if len(shape) == 4 and shape[0] != 1:
        return f"{shape[1]} to {shape[0]}, {shape[2]}x{shape[3]}"
    if len(shape) == 2:
        return f"{shape[1]} to {shape[0]}"
    return "x".join(map(str, shape))
