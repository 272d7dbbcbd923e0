"""From a data set's files to its clip store below the results folder."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from bench.data.dataset import DataError, Dataset
from bench.data.store import ClipStore, ClipWriter, StoreError
from bench.files import digest
from bench.skeleton import get_layout
from bench.specs import Spec


def store_path(results: Path, spec: Spec) -> Path:
    """Where the clip store of a data set lies: one folder a data set, or one a set of parameters where nothing is read."""
    name = spec.plugin.name
    return results / "data" / (name if spec.value.needs_source else f"{name}-{spec.digest}")


def prepare(
    spec: Spec,
    source: Path | None,
    results: Path,
    progress: Callable[[int, int], None] = lambda done, total: None,
    say: Callable[[str], None] = lambda text: None,
) -> ClipStore:
    """Reads a data set into its clip store, replacing an earlier one; if that held something else, it is told.

    An attempt on the same files that was interrupted (not: that failed) goes on where it ended.

    Raises:
        DataError: if the source is missing or cannot be read; nothing is left behind.
    """
    dataset: Dataset = spec.value
    if dataset.needs_source and source is None:
        raise DataError(f"{spec.plugin.name} needs the files that its owners distribute; name their folder with --source PATH")
    if source is not None and not dataset.needs_source:
        raise DataError(f"{spec.plugin.name} is generated and reads no files; leave --source out")
    if source is not None and not source.exists():
        raise DataError(f"{source} does not exist; --source takes the folder or archive of {spec.plugin.name}")
    meta = {
        "dataset": str(spec) if not dataset.needs_source else spec.plugin.name,
        "provider": spec.plugin.provider,
        "frame_rate": dataset.frame_rate,
        "licence": dataset.licence,
        "citation": dataset.citation,
        "reader_version": dataset.reader_version,
        "actions": {str(number): name for number, name in dataset.actions().items()},
    }
    if dataset.needs_source:
        meta["prepared_as"] = str(spec)
    path = store_path(results, spec)
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.parent / f".{path.name}.lock"):
        for left_over in path.parent.glob(f".{path.name}.*.tmp"):  # of a process that was killed; we hold its lock
            shutil.rmtree(left_over, ignore_errors=True)
        for replaced in path.parent.glob(f".{path.name}.*.old"):  # killed while one store took the place of another
            if not path.exists() and (replaced / path.name).exists():
                (replaced / path.name).rename(path)
            shutil.rmtree(replaced, ignore_errors=True)
        earlier = _earlier(path) if source else None
        resume = digest([str(spec), meta, _listing(spec, source)]) if source else None
        with ClipWriter(path, get_layout(dataset.layout), meta, resume) as writer:
            if writer.resumed:
                say(f"{path.name}: goes on after the {writer.resumed} clips of an interrupted attempt")
            dataset.read(source, writer, progress)
    store = ClipStore.open(path)
    if earlier and any(earlier.meta.get(name) != store.meta[name] for name in ("prepared_as", "fingerprint")):
        say(
            f"{path.name}: replaced the {len(earlier)} clips that were prepared before as "
            f"{earlier.meta.get('prepared_as', path.name)}; were both to be kept, prepare each with a --results folder of its own"
        )
    return store


def _earlier(path: Path) -> ClipStore | None:
    """The store that is to be replaced; None if there is none that could be read."""
    try:
        return ClipStore.open(path)
    except StoreError:
        return None


def _listing(spec: Spec, source: Path) -> list[tuple[str, int, int]]:
    """What tells a changed source from an unchanged one: name, size and time of each file that may decide on a clip.

    These are the files of the source, those beside it (tables and lists that readers look for there), and those that parameters
    name.
    """
    source = source.resolve()
    inside = source.rglob("*") if source.is_dir() else ()
    named = [Path(value) for value in vars(spec.value).values() if isinstance(value, str) and value]
    files = sorted(
        {path for path in (*inside, *source.parent.iterdir(), *source.parent.glob("statistics/*"), *named) if path.is_file()}
    )
    return [(str(path), stat.st_size, stat.st_mtime_ns) for path in files for stat in (path.stat(),)]


def open_or_prepare(spec: Spec, results: Path, progress: Callable[[int, int], None] = lambda done, total: None) -> ClipStore:
    """The clip store of a data set, prepared first if that needs nothing from the user.

    A data set with files is looked up where collections usually keep it, below the folder named by `BENCH_DATA`.

    Raises:
        DataError: if the data set was not prepared and its files are not known.
    """
    path = store_path(results, spec)
    dataset: Dataset = spec.value
    if dataset.needs_source and str(spec) != spec.plugin.name:
        raise DataError(f"{spec}: parameters belong to `bench data prepare`; name {spec.plugin.name} alone here")
    if path.exists():
        store = ClipStore.open(path)
        if store.meta["reader_version"] == dataset.reader_version:
            return store
        if dataset.needs_source:
            raise DataError(f"{path} was written by an older reader; run: bench data prepare {spec.plugin.name} --source PATH")
    if not dataset.needs_source:
        return prepare(spec, None, results, progress)
    collection = os.environ.get("BENCH_DATA", "")
    usual = Path(collection) / dataset.usual_source
    if collection and dataset.usual_source and usual.exists():
        return prepare(spec, usual, results, progress)
    raise DataError(f"{spec.plugin.name} is not prepared in {results}; run: bench data prepare {spec.plugin.name} --source PATH")
