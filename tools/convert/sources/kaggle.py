"""Kaggle's download: an extracted tree in `ILSVRC/Data/CLS-LOC`, and tables beside `ILSVRC` that label and name it."""

from pathlib import Path

from alexnet.tools.convert.sources.layout import Layout
from alexnet.tools.convert.sources.tree import tree_at

BASE = Path("ILSVRC/Data/CLS-LOC")


def find(root: Path) -> Layout | None:
    """Recognise the tree by its folders, whether `root` is what holds `ILSVRC` or `ILSVRC` itself."""
    for base, tables in ((root / BASE, root), (root / BASE.relative_to("ILSVRC"), root.parent)):
        tree = tree_at(root, base, tables, "ilsvrc2012-kaggle", "Kaggle's ILSVRC")
        if tree:
            return tree.layout()
    return None
