"""Samples of several files: units and their golden images from a CSV table, pictures before and after from a list."""

from __future__ import annotations

import os
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nvidia_tao_deploy.data.image import list_images
from nvidia_tao_deploy.data.sample import Dataset, Listed, Sample
from nvidia_tao_deploy.data.table import TableRows, read_csv
from nvidia_tao_deploy.data.text import counted, read_lines, some
from nvidia_tao_deploy.errors import DataError

PASS = "PASS"  # noqa: S105 - the label of a good unit
GOLDEN_SEED = 0


@dataclass(frozen=True)
class PairFiles:
    """How the files of a row are named: ``<folder>/<object_name>[_<light>]<image_ext>``.

    Attributes:
        images_dir: what the table's folders are relative to.
        image_ext: suffix with its dot.
        lights: names of the lightings, in the network's order; none: one image without such a name.
        golden_count: golden images per unit; more than 1 are drawn from the row's golden folder.
    """

    images_dir: Path
    image_ext: str
    lights: Sequence[str] = ()
    golden_count: int = 1
    _seen: dict[str, Sequence[str]] = field(default_factory=dict, repr=False, compare=False)

    def of(self, row: Mapping[str, str]) -> tuple[Path, ...] | None:
        """Files of the unit in every light, then those of each golden image; None where there is no golden image."""
        unit = os.path.join(self.images_dir, row["input_path"], row["object_name"])
        folder = os.path.join(self.images_dir, row["golden_path"])
        stems = [os.path.join(folder, row["object_name"])] if self.golden_count == 1 else self._drawn(folder)
        return tuple(path for stem in (unit, *stems) for path in self._in_every_light(stem)) if stems else None

    def _in_every_light(self, stem: str) -> list[Path]:
        endings = [f"_{light}{self.image_ext}" for light in self.lights] or [self.image_ext]
        return [Path(f"{stem}{ending}") for ending in endings]

    def _drawn(self, folder: str) -> list[str]:
        """``golden_count`` objects of a folder, the same ones in every run; repeated only where there are too few."""
        if folder not in self._seen:
            self._seen[folder] = _objects(folder, self.image_ext, self.lights)
        objects = self._seen[folder]
        if not objects:
            return []
        draw = random.Random(f"{GOLDEN_SEED} {os.path.basename(folder)}")  # noqa: S311 - reproducible, not secret
        enough = len(objects) >= self.golden_count
        names = draw.sample(objects, self.golden_count) if enough else draw.choices(objects, k=self.golden_count)
        return [os.path.join(folder, name) for name in names]


def _objects(folder: str, image_ext: str, lights: Sequence[str]) -> tuple[str, ...]:
    """Sorted names of the objects in a folder, without suffix and without the light's name at their end."""
    if not os.path.isdir(folder):
        return ()
    stems = (name[: -len(image_ext)] for name in os.listdir(folder) if name.endswith(image_ext))
    if not lights:
        return tuple(sorted(stems))
    endings = tuple(f"_{light}" for light in lights)
    found = {next(stem[: -len(e)] for e in endings if stem.endswith(e)) for stem in stems if stem.endswith(endings)}
    return tuple(sorted(found))


class PairTable(TableRows):
    """Rows of a CSV table of units; ``meta["row"]`` is the row as text, the target is True for a defective unit.

    Columns: ``input_path``, ``golden_path``, ``object_name``, and ``label`` where targets are needed: exactly PASS is
    good, any other text is a defect. Further columns are kept for reports. Rows that name no object or have no label
    are left out, counted and named in ``issues``.

    Args:
        csv_path: the table, with a header.
        files: how files are named.
        labelled: whether targets are needed.
        require_files: leave out rows whose files are not all there, too.
        strict: raise for what would otherwise go into ``issues``.

    Raises:
        DataError: the table or the folder of images is missing, a column is missing or stands twice, a row has more
            cells than the header, or no row is left.
    """

    def __init__(
        self,
        csv_path: Path | str,
        files: PairFiles,
        *,
        labelled: bool,
        require_files: bool = False,
        strict: bool = False,
    ) -> None:
        if not files.images_dir.is_dir():
            raise DataError("no such folder of images", where=str(files.images_dir), remedy="Check images_dir.")
        needed = ("input_path", "golden_path", "object_name", *(("label",) if labelled else ()))

        def check(columns: Sequence[str], place: str) -> None:
            missing = [name for name in needed if name not in columns]
            if missing or len(set(columns)) < len(columns):
                lacking = f"the column{'s' * (len(missing) > 1)} {', '.join(missing)} missing"
                raise DataError(
                    f"the header has {lacking if missing else 'a column twice'}: it names {some(columns, 10)}",
                    where=place,
                    remedy=f"Needed are {', '.join(needed)}, each once.",
                )

        self.columns, rows = read_csv(Path(csv_path), check)
        super().__init__(files.images_dir)
        for line, cells in rows:
            row = dict(zip(self.columns, cells, strict=True))
            empty = [name for name in ("object_name", *needed[3:]) if not row[name]]
            paths = None if empty else files.of(row)
            problem = f"no {' and no '.join(empty)}" if empty else None
            if not empty and paths is None:
                problem = f"no golden image *{files.image_ext} in {files.images_dir / row['golden_path']}"
            elif paths and require_files:
                missing = next((path for path in paths if not path.is_file()), None)
                problem = f"no such file: {missing}" if missing else None
            if problem or not paths:
                self.issues.append(f"{csv_path}:{line} skipped: {problem}")
                continue
            name = f"{row['input_path'].strip('/')}/{row['object_name']}"
            target = row["label"] != PASS if labelled else None
            self.take(line, name, paths, target, row=row)
        self.finish(csv_path, strict=strict)


@dataclass(frozen=True)
class ChangeFolders:
    """Folders of pictures before and after, and of label files, all below ``root``."""

    root: Path
    before: str = "A"
    after: str = "B"
    labels: str = "label"
    label_suffix: str = ".png"

    def sample(self, name: str, *, labelled: bool) -> Sample:
        """The sample of a file name; its target is the label file."""
        label = self.root / self.labels / f"{os.path.splitext(name)[0]}{self.label_suffix}" if labelled else None
        return Sample(name, (self.root / self.before / name, self.root / self.after / name), label)


class ChangeList(Listed):
    """The pairs of pictures that a list file names: first word of every line, in file order.

    Names whose label file is missing are left out where labels are needed, counted and named in ``issues``.

    Args:
        list_file: one name per line.
        folders: where the files are.
        labelled: whether label files are needed.
        strict: raise for what would otherwise go into ``issues``.

    Raises:
        DataError: list or folder is missing, or no pair is left.
    """

    def __init__(self, list_file: Path, folders: ChangeFolders, *, labelled: bool, strict: bool = False) -> None:
        names = [line.split()[0] for line in read_lines(list_file) if line.strip()]
        if not names:
            raise DataError("the list names no picture", where=str(list_file))
        for folder in (folders.before, folders.after, *([folders.labels] if labelled else [])):
            if not (folders.root / folder).is_dir():
                raise DataError(
                    "no such folder of pictures", where=str(folders.root / folder), remedy="Check root_dir."
                )
        super().__init__((), folders.root / folders.before)
        samples = [folders.sample(name, labelled=labelled) for name in names]
        bare = dict.fromkeys(str(sample.target) for sample in samples if labelled and not sample.target.is_file())
        self.issues = [f"{counted(len(bare), 'pairs skipped, they have no label file')}: {some(bare)}"] if bare else []
        self._samples = [sample for sample in samples if str(sample.target) not in bare]
        if not self._samples or (strict and bare):
            raise DataError(self.issues[0], where=str(list_file), remedy="Check the label folder and label_suffix.")


def together(datasets: Sequence[Dataset]) -> Listed:
    """All samples of several datasets."""
    return Listed((data[i] for data in datasets for i in range(len(data))), datasets[0].root if datasets else None)


def change_pairs_below(folder: Path | str, before: str, after: str) -> Listed:
    """Every picture before that has one after, below ``folder`` or beside it where it is itself one of the two folders.

    Raises:
        DataError: the folders are not there, or hold no pair.
    """
    given = Path(os.path.abspath(folder))
    root = given.parent if given.name in (before, after) and not (given / before).is_dir() else given
    if not ((root / before).is_dir() and (root / after).is_dir()):
        raise DataError(
            f"no folders {before} and {after} here",
            where=str(folder),
            remedy="Pairs of pictures are needed: name the folder that holds both.",
        )
    names = [path.relative_to(root / before).as_posix() for path in list_images(root / before)]
    folders = ChangeFolders(root, before, after)
    pairs = [folders.sample(name, labelled=False) for name in names if (root / after / name).is_file()]
    if not pairs:
        raise DataError(f"no picture stands in both {before} and {after}", where=str(root))
    return Listed(pairs, root)
