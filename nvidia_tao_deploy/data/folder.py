"""Folders of images: without labels, or with the parent folder as the class."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from nvidia_tao_deploy.data.image import SUFFIXES, list_images
from nvidia_tao_deploy.data.sample import Listed, Sample
from nvidia_tao_deploy.data.text import counted, read_text, some
from nvidia_tao_deploy.errors import DataError


class ImageFolder:
    """The images of one or more folders, without targets, in sorted order within each folder.

    Args:
        dirs: folders (or image files); one path alone is taken as it is, never split into characters.
        recursive: whether to descend into sub-folders.
        suffixes: of image files, in lower case.

    Raises:
        DataError: no folder is given, one does not exist, or one holds no image.
    """

    def __init__(
        self,
        dirs: Sequence[Path | str] | Path | str,
        *,
        recursive: bool = True,
        suffixes: Collection[str] = SUFFIXES,
    ) -> None:
        folders = [dirs] if isinstance(dirs, (str, Path)) else list(dirs)
        if not folders:
            raise DataError("no image folder is given", remedy="Name at least one folder of images.")
        # dict: an image that two overlapping folders both hold counts once
        paths = list(dict.fromkeys(path for folder in folders for path in list_images(folder, recursive, suffixes)))
        self.paths: list[Path] = paths
        self.root: Path | None = common_root(folders)
        self.issues: list[str] = []

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int, /) -> Sample:
        path = self.paths[index]
        return Sample(relative_id(path, self.root), (path,))


class ClassFolder(Listed):
    """Images whose immediate parent folder names their class; targets are class indices (int).

    The label comes from the path as listed: a linked image belongs to the folder that holds the link. Images in
    folders that no class names are left out, counted and named in ``issues``, and so are classes without images.

    Args:
        images_dir: the root folder, searched recursively.
        class_names: names in index order, or name -> index; None: the sorted sub-folders of ``images_dir``.
        strict: raise for what would otherwise go into ``issues``.

    Raises:
        DataError: no image, no image in any class folder, two classes of one name, indices other than 0, 1, 2, ...,
            or an issue with ``strict``.
    """

    def __init__(
        self,
        images_dir: Path | str,
        class_names: Sequence[str] | Mapping[str, int] | None = None,
        *,
        strict: bool = False,
    ) -> None:
        root, where = Path(os.path.abspath(images_dir)), str(images_dir)
        files = list_images(images_dir)
        if class_names is None:
            class_names = sorted(entry.name for entry in os.scandir(root) if entry.is_dir())
        index = dict(class_names) if isinstance(class_names, Mapping) else index_classes(class_names, where)
        self.class_names: list[str] = sorted(index, key=index.__getitem__)
        if sorted(index.values()) != list(range(len(index))):
            raise DataError(
                f"class indices must be 0 to {len(index) - 1}, each once: {some(sorted(index.values()))}", where=where
            )
        labelled = [(path, index[path.parent.name]) for path in files if path.parent.name in index]
        if not labelled:
            raise DataError(
                f"no image lies in a folder named after a class: folders here are "
                f"{some(sorted({path.parent.name for path in files}))}; classes are {some(self.class_names)}",
                where=where,
                remedy="The parent folder of an image is its class; check the folder and the class list.",
            )
        issues = _class_issues(files, index, Counter(class_id for _, class_id in labelled))
        if strict and issues:
            raise DataError("; ".join(issues), where=where, remedy="Mend the folders, or leave `strict` off.")
        super().__init__((Sample(relative_id(path, root), (path,), target) for path, target in labelled), root, issues)


def read_classes(file: Path | str) -> list[str]:
    """Class names, one per line, in file order; white space at the ends and blank lines are dropped.

    Raises:
        DataError: the file is missing, not UTF-8 text, or names no class, or one twice.
    """
    return class_lines(read_text(Path(file)), str(file))


def class_lines(text: str, where: str) -> list[str]:
    """The class names of such a file's text; DataError where it names none, or one twice."""
    names = [line.strip() for line in text.splitlines() if line.strip()]
    if not names:
        raise DataError("the class list is empty", where=where, remedy="Write one class name per line.")
    return list(index_classes(names, where))


def index_classes(names: Sequence[str], where: str | None = None) -> dict[str, int]:
    """Name -> position; DataError where a name stands twice, which would make its index ambiguous."""
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        raise DataError(f"class names that stand more than once: {some(twice)}", where=where)
    return {name: i for i, name in enumerate(names)}


def common_root(folders: Sequence[Path | str]) -> Path:
    """The folder all of ``folders`` lie in (a folder alone is its own root; a file's is its parent); not resolved."""
    absolute = [os.path.abspath(folder) for folder in folders]
    try:
        root = Path(os.path.commonpath(absolute))
    except ValueError:  # different drives
        return Path(absolute[0])
    return root.parent if root.is_file() else root


def relative_id(path: Path, root: Path | None) -> str:
    """The path below ``root`` with forward slashes; the whole path where it does not lie there."""
    whole = path.as_posix()
    if root is None:
        return whole
    above = root.as_posix().rstrip("/") + "/"  # text: Path.relative_to takes 10 us, and this runs for every image
    return whole[len(above) :] if whole.startswith(above) else whole


def _class_issues(files: Sequence[Path], index: Mapping[str, int], counts: Mapping[int, int]) -> list[str]:
    issues = []
    strangers = Counter(path.parent.name for path in files if path.parent.name not in index)
    if strangers:
        folders = some([f"{name} ({count})" for name, count in sorted(strangers.items())])
        issues.append(f"{counted(sum(strangers.values()), 'images skipped, their folders are no classes')}: {folders}")
    empty = [name for name, class_id in index.items() if not counts.get(class_id)]
    if empty:
        issues.append(f"{counted(len(empty), 'classes have no image')}: {some(empty)}")
    return issues
