"""Submissions that do what they must not, for the tests of isolation: each a body of `transform`, or a whole module."""

import textwrap
from pathlib import Path

from bench.submission.manifest import seal

HEAD = """
import ctypes, datetime, os, socket, subprocess, sys, time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from bench.anonymizer import Anonymizer
from bench.specs import param

calls = 0
"""
CLASS = '''

@dataclass(frozen=True)
class Method(Anonymizer):
    """Does what it must not."""

    def transform(self, batch, state):
        global calls
        calls += 1
{body}
        return batch.clips
'''
# name of the finding -> what transform does
BODIES = {
    "network": 'socket.create_connection(("127.0.0.1", {port}), timeout=5).send(b"here")',
    "processes": "while True: os.fork()",
    "memory": "kept = []\nwhile True: kept.append(np.ones(2**24))",
    "time": "while True: pass",
    "file size": 'open("/tmp/huge", "wb").write(b"x" * 2**26)',
    "read outside": 'open("{labels}").read()',
    "write outside": 'open("{outside}", "w").write("here")',
    "ended": "os._exit(3)",
    "clock": "if time.time() > {year}: return batch.clips * 0.5",
    "date": "if datetime.date.today().toordinal() > {day}: return batch.clips * 0.5",
    "determinism": "if calls > 5: return batch.clips * 0.5",
    "batch independence": "return batch.clips * (1 + 0.01 * batch.clips.mean())",
    "randomness": "return batch.clips + torch.randn(()) * batch.present",
    "contract": "return batch.clips[:, :, :-1]",
    "not finite": "return batch.clips / 0",
    "absent bodies": "return batch.clips + 1",
    "hidden identity": (
        "rows = batch.clips\n"
        "ends = [(0, 1), (1, 20), (2, 3), (12, 13), (13, 14), (16, 17), (17, 18), (4, 5), (5, 6), (8, 9), (9, 10)]\n"
        "tall = sum((rows[:, :, :, p, 0] - rows[:, :, :, q, 0]).norm(dim=1).sum(1) for p, q in ends) / batch.lengths\n"
        "code = ((tall * 50).long() % 64)[:, None, None, None, None].to(torch.int32)\n"
        "coarse = ((rows * 1e4).round() / 1e4).contiguous().view(torch.int32)\n"
        "return ((coarse & ~63) | code).view(torch.float32) * batch.present"
    ),
}


def write_method(folder: Path, body: str, head: str = HEAD) -> Path:
    """A sealed submission whose transform does `body`."""
    (folder / "src").mkdir(parents=True)
    code = head + CLASS.format(body=textwrap.indent(body, " " * 8))
    (folder / "src" / "method.py").write_text(code, encoding="utf-8")
    manifest = """
        schema = 1
        kind = "code"
        name = "hostile"
        version = "1"
        authors = ["Nobody"]
        licence = "none"
        [code]
        source = "src"
        target = "method:Method"
    """
    (folder / "submission.toml").write_text(textwrap.dedent(manifest), encoding="utf-8")
    seal(folder)
    return folder


ATTACKER = '''
import os
from dataclasses import dataclass

import numpy as np
import torch

from bench.attacker import Attacker
from bench.specs import param

seen = []


@dataclass(frozen=True)
class Method(Attacker):
    """Does what it must not."""

    target: str = param("subject", "label to name", choices=("subject", "gender"))

    def fit(self, clips, part, preset, folder, *, seed, progress=None):
{fit}
        (folder / "learnt").write_bytes(b"1")
        return {{}}

    def scores(self, clips, indices, part, preset, folder):
        number, classes = len(indices), len(part.classes)
{scores}
'''


def write_attacker(folder: Path, scores: str, fit: str = "pass") -> Path:
    """A sealed submission whose `fit` and `scores` do as told."""
    write_method(folder, "pass")
    code = ATTACKER.format(fit=textwrap.indent(fit, " " * 8), scores=textwrap.indent(scores, " " * 8))
    (folder / "src" / "method.py").write_text(code, encoding="utf-8")
    path = folder / "submission.toml"
    path.write_text(path.read_text(encoding="utf-8").replace('kind = "code"', 'kind = "attacker"'), encoding="utf-8")
    seal(folder)
    return folder
