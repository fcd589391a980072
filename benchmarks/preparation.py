"""Work of `runners/data.py`: list data sets, prepare them, and check them to the last byte."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import cache, catalogue, data, door, files, image_tree, plugins
from benchmarks.files import DataError, Location, locate
from benchmarks.pictures import shown
from benchmarks.types import Scenario, UserError

if TYPE_CHECKING:
    from benchmarks.definition import Benchmark
    from benchmarks.plugins import DataSource

__all__ = ["Action", "DataError", "Row", "check", "chosen", "cut", "prepare", "survey", "used_by"]

ALL = "all"
Action = Callable[["DataSource", "Path | None", cache.Progress], list[str]]
"""(data set, folder, progress) -> what to say of it. Raises DataError."""


@dataclass(frozen=True)
class Row:
    """Row of the list."""

    name: str
    state: str
    size: str
    decoded: str
    """State of its decoded images in the cache."""
    advice: str = ""
    """Files to put in place, or the fault found."""


def known() -> list[str]:
    """All data sets that the catalogue uses, in its order."""
    return list(dict.fromkeys(plugins.named(benchmark.dataset) for benchmark in catalogue.BENCHMARKS.values()))


def chosen(names: Iterable[str], folder: Path | None) -> list[DataSource]:
    """Data sets from their own names, those of benchmarks, or `all`: all existing ones. Raises UserError."""
    found: list[DataSource] = []
    for name in names:
        if name == ALL:
            found += [each for each in known() if not _missing(each, folder)]
        elif _is_data_set(name):
            found.append(name)
        else:
            try:
                found.append(catalogue.find(name).dataset)
            except UserError as error:
                raise UserError(
                    f"{name!r} is neither a data set ({', '.join(known())}) nor a benchmark: {error}"
                ) from error
    return list(dict.fromkeys(found))


def used_by(names: Iterable[str], dataset: DataSource) -> list[Benchmark]:
    """Benchmarks among these names whose data set this is."""
    found = [catalogue.find(name) for name in dict.fromkeys(names) if name != ALL and not _is_data_set(name)]
    return [benchmark for benchmark in found if benchmark.dataset == dataset]


def _is_data_set(name: str) -> bool:
    return name in known() or name.startswith(data.FOLDER_PREFIX)


def survey(folder: Path | None) -> list[Row]:
    """One row for each data set and each folder of images; reads only names and sizes."""
    place = locate(folder)
    return [*(_row(name, place) for name in known()), *_image_folders(place)]


def prepare(name: DataSource, folder: Path | None, progress: cache.Progress) -> list[str]:
    """Fetch the data set where that may be done, check its files and decode its images. Raises DataError."""
    loaded = data.load(name, folder, download=True, progress=progress)
    return [_counted(name, loaded), *_notes(name, folder, loaded)]


def check(name: DataSource, folder: Path | None, progress: cache.Progress) -> list[str]:
    """Read every file of the data set and what is decoded of it; compare checksums, count classes. Raises DataError."""
    place = locate(folder)
    source = data.source_of(name, place)
    if source is None or not isinstance(name, str):
        loaded = data.load(name, folder)
        return [_counted(name, loaded), *_notes(name, folder, loaded)]
    source.require()
    listed = files.present(name, place) if name in files.FILES else []
    for number, file in enumerate(listed, 1):
        files.verify_file(name, place, file)
        progress(number, len(listed))
    lines = [f"{place.folder / file.path}: {' '.join(file.checksum)} as published" for file in listed]
    if isinstance(source, data.Decodable):
        entry = cache.find(name, source.key())
        if entry is None:
            lines.append("not decoded yet; this is done now")
        elif damage := entry.damage():
            cache.remove(name, source.key())
            lines.append(f"{damage}; it was removed and is made again")
    loaded = data.load(name, folder, progress=progress)
    return [*lines, _counted(name, loaded), *_notes(name, folder, loaded)]


def cut(benchmark: Benchmark, folder: Path | None) -> list[str]:
    """Cut the benchmark's tasks from its data, with seed 0, and set validation samples aside. Raises UserError."""
    from benchmarks.stream import Stream

    loaded = data.load(benchmark.dataset, folder)
    scenario = next(iter(benchmark.scenarios), None)
    if scenario is None:
        raise UserError(
            f"{benchmark.name}: no scenario is defined; leave one of {', '.join(Scenario)} out of undefined"
        )
    Stream(benchmark, benchmark.spec(scenario), 0, loaded)
    of_data = {f"{loaded.name}: {note}" for note in loaded.known}
    notes = [note for note in door.notes(benchmark, loaded) if note not in of_data]
    each = f"{benchmark.validation} training {door.word_for(loaded.train_images)} of each are set aside for validation"
    return [f"{benchmark.name}: {benchmark.n_tasks} tasks can be cut; {each}", *(f"note: {note}" for note in notes)]


def _row(name: str, place: Location) -> Row:
    source = data.source_of(name, place)
    if source is None:
        return Row(name, "there", "", "")
    try:
        source.require()
    except (DataError, FileNotFoundError) as error:
        if _missing(name, place.folder if place.named else None):
            return Row(name, "missing", _size(name), "", _expected(name, place))
        return Row(name, "damaged", _size(name), "", str(error))
    if not isinstance(source, data.Decodable):
        return Row(name, "there", _size(name), "")
    return Row(name, "there", _size(name), "no" if cache.find(name, source.key()) is None else "yes")


def _image_folders(place: Location) -> Iterator[Row]:
    """Rows of the folders DIR/NAME/train/CLASS of images; looks at the names of classes only."""
    for entry in image_tree.entries(place.folder) if place.folder.is_dir() else ():
        root = Path(entry.path)
        if image_tree.is_hidden(entry.name) or entry.name == data.TinyImageNet.root or not (root / "train").is_dir():
            continue
        classes = len(image_tree.classes(root / "train", "train", image_tree.LeftOut()))
        tested = (root / "val").is_dir() or (root / "test").is_dir()
        advice = "" if tested else f"{root} has no folder val or test with images to test on"
        name = f"images-{shown(entry.name)}-TASKSxCLASSES"
        yield Row(name, "there" if tested else "damaged", f"{classes} class{'es' * (classes != 1)}", "", advice)


def _size(name: str) -> str:
    """Size of the unpacked files where it is published, else of the archive."""
    sizes = [file.size for file in files.FILES.get(name, ())]
    known_sizes = [size for size in sizes if size is not None]
    archive = files.ARCHIVES.get(name)
    if sizes and len(known_sizes) == len(sizes):
        return f"{sum(known_sizes) / 1e6:.0f} MB"
    return f"{(archive.size or 0) / 1e6:.0f} MB packed" if archive else ""


def _missing(name: str, folder: Path | None) -> bool:
    place = locate(folder)
    if data.source_of(name, place) is None:
        return False
    archive = files.ARCHIVES.get(name)
    if archive is not None and (place.folder / archive.path).is_file():
        return False
    if name in files.FILES:
        return bool(files.missing(name, place.folder))
    return not (place.folder / data.TinyImageNet.root).is_dir()


def _expected(name: str, place: Location) -> str:
    listed = [file.path for file in files.FILES.get(name, ())]
    archive = files.ARCHIVES.get(name)
    also = [] if archive is None else [archive.path]
    parts = [", ".join(listed)] if listed else [f"{data.TinyImageNet.root}/"]
    return f"{place.folder} ({' or '.join([*parts, *also])}); {place.advice}"


def _counted(source: DataSource, loaded: data.DataSet) -> str:
    """Numbers of images and classes, after a look through the data, each class in both parts. Raises DataError."""
    name, _ = plugins.named(source), loaded.known
    train, test = loaded.train_labels.bincount(), loaded.test_labels.bincount()
    if len(train) != len(test) or not (train.min() > 0 and test.min() > 0):
        raise DataError(f"{name}: a class has no images in one of the parts: training {len(train)}, test {len(test)}")
    what = door.word_for(loaded.train_images)
    shape = " x ".join(map(str, loaded.train_images.shape[1:]))

    def each(counts: object) -> str:
        low, high = int(counts.min()), int(counts.max())  # type: ignore[attr-defined]
        return f"{low} each" if low == high else f"{low} to {high} each"

    return (
        f"{name}: {len(loaded.train_labels)} training {what} ({each(train)}) and {len(loaded.test_labels)} test {what} "
        f"({each(test)}) of {len(train)} classes, {shape}"
    )


def _notes(name: DataSource, folder: Path | None, loaded: data.DataSet) -> list[str]:
    notes = [f"note: {note}" for note in loaded.known]
    source = data.source_of(name, locate(folder))
    entry = None
    if isinstance(source, data.Decodable) and isinstance(name, str):
        entry = cache.find(name, source.key())
    if entry is None:
        return notes
    size = sum(entry.manifest["sizes"].values())
    return [f"decoded, {size / 1e6:.0f} MB: {entry.folder}", *notes]
