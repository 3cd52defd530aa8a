"""Write a source in the other layouts that ImageNet comes in: extracted, from Kaggle, as class tars."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from alexnet.tools.samples.official import Files, tar_of

ValImages = Sequence[tuple[str, bytes]]
"""WNID and bytes of each validation image, in order."""


def write_tree(root: Path, train: Mapping[str, Files], val: ValImages = (), *, flat: bool = False) -> None:
    """Write `train/WNID/` and `val/`, the latter in class folders, or `flat`: in need of a devkit."""
    for wnid, files in train.items():
        write_files(root / "train" / wnid, files)
    for number, (wnid, data) in enumerate(val, start=1):
        folder = root / "val" if flat else root / "val" / wnid
        write_files(folder, {f"ILSVRC2012_val_{number:08d}.JPEG": data})


def write_kaggle(root: Path, words: Mapping[str, str], train: Mapping[str, Files], val: ValImages) -> None:
    """Write Kaggle's layout: a tree with flat `val` in a deeper folder, and its two tables."""
    write_tree(root / "ILSVRC" / "Data" / "CLS-LOC", train, val, flat=True)
    answers = [f"ILSVRC2012_val_{i:08d},{wnid} 85 1 499 272 {wnid} 2 2 9 9 \n" for i, (wnid, _) in enumerate(val, 1)]
    table = "ImageId,PredictionString\n" + "".join(reversed(answers))  # Kaggle's has no order, either
    (root / "LOC_val_solution.csv").write_text(table)
    (root / "LOC_synset_mapping.txt").write_text("".join(f"{wnid} {words[wnid]}\n" for wnid in sorted(words)))


def write_class_tars(root: Path, train: Mapping[str, Files]) -> None:
    """Write one tar a class."""
    write_files(root, {f"{wnid}.tar": tar_of(files) for wnid, files in train.items()})


def write_files(folder: Path, files: Files) -> None:
    """Write files into a folder, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
