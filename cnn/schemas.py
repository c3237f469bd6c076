"""The tables that stage 2 writes, one schema each."""

from __future__ import annotations

from pandera.pandas import Check, Column, DataFrameSchema

from cnn.settings import FILTER_NAMES, FOLDS

_SHARE = Check.in_range(0, 1)
_NUMBER = Column(int, Check.ge(0), unique=True)

INFERENCE = {
    name: DataFrameSchema(
        {
            "img_no": _NUMBER,
            "img_path": Column(str),
            f"property_{name}_final_score": Column(float, _SHARE),
            **{f"score_model_{fold}": Column(float, _SHARE) for fold in range(FOLDS)},
        },
        strict=True,
    )
    for name in FILTER_NAMES
}

ALL_SCORES = DataFrameSchema(
    {
        "img_no": _NUMBER,
        "img_path": Column(str),
        **{f"{name}_score": Column(float, _SHARE) for name in FILTER_NAMES},
        "source": Column(str, Check.isin(["label", "cnn"])),
        "passed": Column(bool),
    },
    strict=True,
)

HELD_OUT = DataFrameSchema(
    {
        "property": Column(str, Check.isin(FILTER_NAMES)),
        "fold": Column(str),  # 0..4, "mean" of them, or "all": out-of-fold scores of every labelled face together
        "faces": Column(int),
        "positives": Column(int),
        "auroc": Column(float, _SHARE, nullable=True),
        "auprc": Column(float, _SHARE, nullable=True),
    },
    strict=True,
)

CUTOFFS = DataFrameSchema(
    {
        "property": Column(str),
        "wanted": Column(str),
        "cutoff": Column(float, nullable=True),
        "labelled_faces": Column(int),
        "precision": Column(float, _SHARE, nullable=True),
        "recall": Column(float, _SHARE, nullable=True),
        "pass_share_all_faces": Column(float, _SHARE),
    },
    strict=True,
)

TRAIN_LOG = DataFrameSchema(
    {
        "fold_no": Column(int),
        "success": Column(bool),
        "min_val_loss": Column(float),
        "total_epochs": Column(int),
        "best_epoch": Column(int),
        "attempts": Column(int),
        "chosen_attempt": Column(int),
        "train_faces": Column(int),
        "val_faces": Column(int),
        "heldout_faces": Column(int),
        "heldout_auroc": Column(float, _SHARE, nullable=True),
        "heldout_auprc": Column(float, _SHARE, nullable=True),
        "val_loss_list": Column(str),
    },
    strict=True,
    coerce=True,
)

EPOCH_DETAIL = DataFrameSchema(
    {
        "epoch": Column(int),
        "val_loss": Column(float),
        "val_accuracy": Column(float, _SHARE),
        **{name: Column(int) for name in ("tp", "tn", "fp", "fn")},
        **{f"val_{name}": Column(float, _SHARE) for name in ("recall", "precision", "f1_score")},
        **{f"val_{name}": Column(float, _SHARE, nullable=True) for name in ("auroc", "auprc")},
        "val_bce": Column(float),
        "train_loss": Column(float),
        "learning_rate": Column(float),
    },
    strict=True,
    coerce=True,
)
