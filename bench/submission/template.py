"""`bench submit new`: a small working project to start from; it passes its own check at once."""

from importlib.resources import files
from pathlib import Path
from string import Template

from bench.data.synthetic import EXAMPLE
from bench.files import UserError, atomic_folder
from bench.occupied import at_work
from bench.presets import smoke_preset
from bench.progress import Display
from bench.publish import Wish, open_bench, publish
from bench.registry import ATTACKERS
from bench.specs import parse_spec
from bench.submission.manifest import is_name, seal

KINDS = ("anonymizer", "attacker", "weights", "attacker-weights", "data")
_GROUPS = {"anonymizer": "anonymizers", "attacker": "attackers"}
_CODE_STEPS = (
    "pytest                          # its own test (pip install pytest)\n"
    "bench submit seal .             # after every change: lists the files with their sha256\n"
    "bench submit check .            # everything that an evaluator will ask for\n"
    "pip install . && bench list {group}   # as a plugin of this machine, for your own tables; uninstall it before another check"
)
_STEPS = "bench submit seal .\nbench submit check ."


def new_submission(folder: Path, kind: str, results: Path) -> Path:
    """Writes the project; the folder's name becomes that of the method.

    Args:
        folder: To write; must not exist.
        kind: One of `KINDS`.
        results: Folder for the synthetic people that the example data are made of.

    Raises:
        UserError: if something is there, or the name cannot be one.
    """
    if folder.exists():
        raise UserError(f"{folder} is there already; choose another place or delete it")
    name = folder.resolve().name
    if not is_name(name):
        raise UserError(f"the folder's name becomes that of the method: lower-case letters, digits and hyphens, got {name!r}")
    with atomic_folder(folder.resolve()) as temporary:
        write = _Writer(temporary, kind, name)
        write.all()
        if kind in ("weights", "data"):
            given = {"out": temporary / "clips", "kind": "store"}
            if kind == "weights":
                given |= {"out": temporary / ".released", "save_weights": temporary / "fitted"}
            publish(_wish(results, **given))
        if kind == "attacker-weights":
            _train_example(temporary / "trained", results)
        _remove(temporary / ".released")
        seal(temporary)
    return folder


def _wish(results: Path, *, out: Path, kind: str, save_weights: Path | None = None) -> Wish:
    return Wish(EXAMPLE, None, "quick", "cpu", "mean-skeleton", None, out, kind, save_weights, 0, results)


def _train_example(folder: Path, results: Path) -> None:
    """The networks of a small attacker, trained for seconds."""
    from bench.submission.networks import export

    with Display() as display, at_work(results):
        bench = open_bench(EXAMPLE, None, smoke_preset(), "cpu", results, display)
        export(bench, parse_spec("sgn-reid", ATTACKERS), 0, folder)


def _remove(folder: Path) -> None:
    import shutil

    shutil.rmtree(folder, ignore_errors=True)


class _Writer:
    """Fills the templates."""

    def __init__(self, folder: Path, kind: str, name: str):
        self._folder, self._kind = folder, kind
        module = name.replace("-", "_")
        group = _GROUPS.get(kind, "")
        self._values = {
            "kind": {"anonymizer": "code", "attacker-weights": "attacker"}.get(kind, kind),
            "name": name,
            "title": name.replace("-", " ").capitalize(),
            "module": module,
            "class_name": "".join(piece.capitalize() for piece in name.split("-")),
            "group": group,
            "dataset": "synthetic" if group else EXAMPLE,
            "steps": _CODE_STEPS.format(group=group) if group else _STEPS,
        }
        example = {"anonymizer": "std = 0.1", "attacker": "sharpness = 20.0"}.get(kind, "")
        code = f'[code]\nsource = "src"\ntarget = "{module}:{self._values["class_name"]}"\n# parameters = {{ {example} }}\n'
        folders = {"weights": ("weights", "fitted"), "attacker-weights": ("weights", "trained"), "data": ("data", "clips")}
        tables = {kind: f'[{table}]\nfolder = "{folder}"\n' for kind, (table, folder) in folders.items()}
        self._values["table"] = tables.get(kind, code)

    def all(self) -> None:
        self._write("submission.toml", "submission.toml")
        self._write("README.md.txt", "README.md")
        if self._kind in _GROUPS:
            module = self._values["module"]
            self._write("pyproject.toml.txt", "pyproject.toml")
            self._write(f"{self._kind}.py.txt", f"src/{module}.py")
            self._write(f"test_{self._kind}.py.txt", f"tests/test_{module}.py")

    def _write(self, template: str, name: str) -> None:
        text = files("bench.submission").joinpath("templates", template).read_text(encoding="utf-8")
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(Template(text).substitute(self._values), encoding="utf-8")
