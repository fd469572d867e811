"""The gallery's classes, gallery and queries as one dataset, and the table of neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from nvidia_tao_deploy.arrays import Array
from nvidia_tao_deploy.data.folder import ClassFolder, index_classes, read_classes
from nvidia_tao_deploy.data.sample import Dataset, Listed, Sample
from nvidia_tao_deploy.data.text import read_text, some
from nvidia_tao_deploy.errors import DataError
from nvidia_tao_deploy.families.classification import folder_classes
from nvidia_tao_deploy.metrics.retrieval import Neighbourhood
from nvidia_tao_deploy.predictions.table import write_table


@dataclass(frozen=True)
class GalleryClasses:
    """Folder names in index order, and the names shown for them."""

    folders: Sequence[str]
    shown: Sequence[str]


def gallery_classes(reference: Path | str, class_map: Path | str | None) -> GalleryClasses:
    """The classes of a gallery: its sorted sub-folders, or what the class map says.

    A YAML mapping gives shown names and leaves the order to the sorted sub-folders, as in training; a text file lists
    folder names in index order.

    Raises:
        DataError: the class map is missing, names a class twice, or names none of the folders.
    """
    folders = folder_classes(reference, "").names
    if not class_map:
        return GalleryClasses(folders, folders)
    mapping = _yaml_mapping(Path(class_map))
    if mapping is None:
        listed = read_classes(class_map)
        index_classes(listed, str(class_map))
        return GalleryClasses(listed, listed)
    if folders and not set(folders) & set(mapping):
        raise DataError(
            f"it names none of the gallery's folders: it names {some(mapping)}; the folders are {some(folders)}",
            where=str(class_map),
            remedy="Write 'folder name: shown name', one per line.",
        )
    return GalleryClasses(folders, [mapping.get(folder, folder) for folder in folders])


def _yaml_mapping(path: Path) -> dict[str, str] | None:
    import yaml

    try:
        content = yaml.safe_load(read_text(path))
    except yaml.YAMLError:
        return None  # a list of names need not be YAML
    return {str(key): str(value) for key, value in content.items()} if isinstance(content, dict) else None


class GalleryAndQueries(Listed):
    """The gallery's samples, then the queries'; ``meta["gallery"]`` tells them apart.

    Args:
        gallery: samples with class indices as targets.
        queries: what is looked up in it.
    """

    def __init__(self, gallery: ClassFolder, queries: Dataset) -> None:
        super().__init__((), queries.root)
        for side, data in (("gallery", gallery), ("query", queries)):
            samples, meta = (data[i] for i in range(len(data))), {"gallery": data is gallery}
            self._samples += (replace(sample, id=f"{side}/{sample.id}", meta=meta) for sample in samples)
        self.issues += [f"gallery: {issue}" for issue in gallery.issues]
        self.issues += [f"queries: {issue}" for issue in getattr(queries, "issues", ())]


class NeighbourWriter:
    """Writes ``trt_result.csv`` on close: path, list of class names, list of squared distances; no header.

    Args:
        out_dir: the results folder.
        names: shown names in index order.
        k: neighbours per image.
    """

    def __init__(self, out_dir: Path, names: Sequence[str], k: int) -> None:
        self.path = out_dir / "trt_result.csv"
        self._names, self._k = names, k
        self._neighbourhood = Neighbourhood()

    def write(self, sample: Sample, prediction: Array) -> None:
        """Take one embedding, of the gallery or of an image."""
        self._neighbourhood.add(sample, prediction, gallery=bool(sample.meta["gallery"]))

    def close(self) -> list[Path]:
        """Look every image up and write the table as a whole; distances have 4 decimals.

        Raises:
            DataError: no gallery or no image could be read.
            SpecError: the gallery has fewer than k images.
        """
        labels, squared = self._neighbourhood.find(self._k)
        rows = zip(self._neighbourhood.samples, labels, squared, strict=True)
        return write_table(
            self.path,
            (
                [sample.path, [self._names[label] for label in found], [round(float(value), 4) for value in distances]]
                for sample, found, distances in rows
            ),
        )
