"""Broken plugins: their code, how they are used, and what must be said."""

from __future__ import annotations

from dataclasses import dataclass

MARK = "plugin-code-has-run"
HEAD = """
from pathlib import Path
import numpy as np
import pandas as pd
from pydantic import BaseModel
from ark_framework import (
    BackboneSpec, DatasetCard, DatasetSpec, HeadSpec, LabelSchema, LossSpec, hookimpl
)

class Options(BaseModel):
    films: int = 24

CARD = DatasetCard(title="t", home="h", licence="CC0", access="open", citation="c")
SCHEMA = LabelSchema(name="{name}-schema", kind="multilabel", labels=("a", "b"))

def read(options):
    rows = range(options.films)
    return pd.DataFrame({
        "image": [f"film-{row}" for row in rows], "patient": [f"p{row}" for row in rows],
        "split": ["test" if row % 6 == 0 else "val" if row % 6 == 1 else "train" for row in rows],
        "a": [float(row % 2) for row in rows], "b": [float(row % 3 == 0) for row in rows],
    })

def read_image(row, options):
    shade = int(row.image.rpartition("-")[2]) if "-" in row.image else 0
    return np.random.default_rng(shade).integers(0, 255, (32, 32)).astype(np.uint8)

def spec(**changes):
    told = dict(name="{name}", schema=SCHEMA, options=Options, read=read,
                fixture=lambda folder: Options(), card=CARD, read_image=read_image)
    return DatasetSpec(**{**told, **changes})
"""
DATASET = "\n@hookimpl\ndef ark_datasets():\n    return [spec({})]\n"
SOUND = HEAD + DATASET.format("")


@dataclass(frozen=True, kw_only=True)
class Plugin:
    """A broken plugin: its code, the exit code, what is said, and settings that use it."""

    code: str
    said: str
    exits: int = 4
    settings: tuple[str, ...] = ()


def dataset(changes: str, said: str, *, before: str = "", exits: int = 4) -> Plugin:
    """Return a dataset with some other fields."""
    return Plugin(code=HEAD + before + DATASET.format(changes), said=said, exits=exits)


def reading(body: str, said: str, *, exits: int = 4) -> Plugin:
    """Return a dataset whose ``read`` does something else."""
    body = "".join(f"    {line}\n" for line in body.splitlines())
    return dataset("read=mine", said, before=f"\ndef mine(options):\n{body}", exits=exits)


def table(change: str, said: str, *, exits: int = 3) -> Plugin:
    """Return a dataset whose table is changed before it is given."""
    return reading(f"frame = read(options)\n{change}\nreturn frame", said, exits=exits)


def film(body: str, said: str) -> Plugin:
    """Return a dataset whose ``read_image`` does something else: its films are unreadable."""
    before = f"\ndef mine(row, options):\n    {body}\n"
    return dataset("read_image=mine", said, before=before, exits=3)


def head(build: str, said: str) -> Plugin:
    """Return a dataset with a head of its own."""
    code = f"""
import torch
@hookimpl
def ark_heads():
    return [HeadSpec(name="mine", kinds=("multilabel",), build={build})]
"""
    return Plugin(code=HEAD + code + DATASET.format("head='mine'"), said=said)


def loss(build: str, said: str) -> Plugin:
    """Return a dataset with a loss of its own."""
    code = f"""
import torch
@hookimpl
def ark_losses():
    return [LossSpec(name="mine", kinds=("multilabel",), build={build})]
"""
    return Plugin(code=HEAD + code + DATASET.format("loss='mine'"), said=said)


def backbone(body: str, said: str, *, exits: int = 4) -> Plugin:
    """Return a dataset and an encoder."""
    code = f"""
import torch
class None_(BaseModel):
    pass
class Encoder(torch.nn.Module):
    in_chans = 1
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Conv2d(1, 4, 8, 8)
    def forward_maps(self, x):
        return [self.layer(x)]
    def pool(self, last):
        return last.mean((2, 3))
{body}
@hookimpl
def ark_backbones():
    return [BackboneSpec(name="mine", options=None_, build=lambda options: Encoder())]
"""
    used = ("model.backbone=mine",)
    return Plugin(code=HEAD + code + DATASET.format(""), said=said, settings=used, exits=exits)


def _hook(name: str, body: str) -> str:
    return f"{HEAD}\n@hookimpl\ndef {name}({'event' if 'ark_run' in name else ''}):\n    {body}\n"


PLUGINS: dict[str, Plugin] = {
    # The module
    "a module that is not there": Plugin(code="import nowhere_at_all", said="ModuleNotFoundError"),
    "wrong syntax": Plugin(code="def x(:", said="SyntaxError"),
    "NULs": Plugin(code="x = 1\0", said="cannot be imported"),
    "an exit at import": Plugin(code="import sys; sys.exit(0)", said="SystemExit: 0"),
    "an exception of its own": Plugin(
        code="class Mine(BaseException): pass\nraise Mine('so')", said="Mine: so"
    ),
    "a generator's end": Plugin(code="raise GeneratorExit", said="GeneratorExit"),
    "an endless recursion": Plugin(code="def f(): f()\nf()", said="RecursionError"),
    "an error of many lines": Plugin(code="raise ValueError('a\\nb\\x1b[2J\\nc')", said="a b"),
    "no memory": Plugin(code="raise MemoryError", said="MemoryError"),
    # Hooks
    "a hook that raises": Plugin(code=_hook("ark_datasets", "1 / 0"), said="ZeroDivisionError"),
    "a hook that exits": Plugin(
        code=_hook("ark_datasets", "raise SystemExit(0)"), said="SystemExit"
    ),
    "a hook that gives nothing": Plugin(
        code=_hook("ark_datasets", "return None"), said="returned NoneType from ark_datasets()"
    ),
    "a hook that gives a spec": Plugin(
        code=_hook("ark_datasets", "return spec()"), said="returned DatasetSpec"
    ),
    "a hook that yields": Plugin(
        code=_hook("ark_datasets", "yield spec()"), said="returned generator"
    ),
    "a hook that gives a dict": Plugin(
        code=_hook("ark_datasets", "return dict(a=spec())"), said="returned dict"
    ),
    "a hook that gives text": Plugin(
        code=_hook("ark_datasets", "return ['rsna']"), said="a list with str"
    ),
    "a hook that gives a type": Plugin(
        code=_hook("ark_datasets", "return [DatasetSpec]"), said="a list with type"
    ),
    "a hook that wants more": Plugin(
        code=HEAD + "\n@hookimpl\ndef ark_datasets(event):\n    return []\n", said="does not fit"
    ),
    "a hook that there is not": Plugin(code=_hook("ark_dataset", "return []"), said="no hook"),
    "a hook without its mark": Plugin(
        code=HEAD + "\ndef ark_datasets():\n    return []\n", said="without @hookimpl"
    ),
    # Fields of specs
    "a name that is a number": dataset("name=7", "dataset name 7"),
    "a name with a slash": dataset("name='../x'", "'../x'"),
    "options of text": dataset("options='films'", "options must be a pydantic type"),
    "options of another type": dataset("options=dict", "options must be a pydantic type"),
    "options made already": dataset("options=Options()", "options must be a pydantic type"),
    "read of text": dataset("read='table.csv'", "read must be a function"),
    "read_image of text": dataset("read_image='x'", "read_image must be a function"),
    "a card of text": dataset("card='CC0'", "card must be a DatasetCard"),
    "a schema of a number": dataset("schema=3", "schema must be a LabelSchema"),
    "a schema nobody has": dataset("schema='nobody'", "no label schema 'nobody'", exits=2),
    "two channels": dataset("channels=2", "channels must be 1 or 3"),
    "a field that there is not": dataset("speed=2", "unexpected keyword argument"),
    "a head nobody has": dataset("head='nobody'", "no head 'nobody'", exits=2),
    "a schema function that raises": dataset("schema=lambda o: 1 / 0", "ZeroDivisionError"),
    "a schema function that gives text": dataset("schema=lambda o: ['a']", "returned list"),
    "the same dataset twice": Plugin(
        code=HEAD + "\n@hookimpl\ndef ark_datasets():\n    return [spec(), spec()]\n",
        said="this plugin already",
    ),
    "kinds of text": Plugin(
        code=HEAD + "\n@hookimpl\ndef ark_heads():\n"
        "    return [HeadSpec(name='x', kinds='multilabel', build=print)]\n",
        said="kinds must be a tuple",
    ),
    "a build that is no function": Plugin(
        code=HEAD + "\n@hookimpl\ndef ark_losses():\n"
        "    return [LossSpec(name='x', kinds=('multilabel',), build=None)]\n",
        said="build must be a function",
    ),
    # read
    "read raises": reading("raise KeyError('x')", "failed in read(): KeyError"),
    "read exits": reading("raise SystemExit(0)", "failed in read(): SystemExit"),
    "read gives nothing": reading("return None", "{name}", exits=3),
    "read gives a list": reading("return [1, 2]", "{name}", exits=3),
    "read gives no rows": table("frame = frame.iloc[:0]", "{name}"),
    "no column of images": table("del frame['image']", "image"),
    "no column of a label": table("del frame['b']", "'b'"),
    "columns of numbers": table("frame.columns = range(5)", "image"),
    "a column twice": table("frame.columns = ['image', 'image', 'split', 'a', 'b']", "image"),
    "an absolute path": table("frame.loc[3, 'image'] = '/etc/passwd'", "/etc/passwd"),
    "a path that leads out": table("frame.loc[3, 'image'] = '../../x.png'", "../../x.png"),
    "a path with a NUL": table("frame.loc[3, 'image'] = 'a\\0b'", "image"),
    "an image that is nothing": table("frame.loc[3, 'image'] = None", "image"),
    "an image twice": table("frame.loc[3, 'image'] = 'film-0'", "film-0"),
    "an unknown split": table("frame.loc[3, 'split'] = 'dev'", "dev"),
    "a label of text": table("frame['a'] = ['yes'] * len(frame)", "'a'"),
    "a label of two": table("frame.loc[3, 'a'] = 2.0", "'a'"),
    "an infinite label": table("frame.loc[3, 'a'] = float('inf')", "'a'"),
    "labels that are lists": table("frame['a'] = [[1]] * len(frame)", "'a'"),
    "no training films": table("frame['split'] = 'test'", "no training films"),
    # read_image
    "a film that raises": film("raise ValueError('broken')", "broken"),
    "a film that exits": film("raise SystemExit(0)", "SystemExit"),
    "a film of nothing": film("return None", "film-"),
    "a film of text": film("return 'film'", "film-"),
    "a film of one line": film("return np.zeros(32, np.uint8)", "film-"),
    "a film of two channels": film("return np.zeros((32, 32, 2), np.uint8)", "film-"),
    "a film of no pixels": film("return np.zeros((0, 32), np.uint8)", "film-"),
    "a film of floats": film("return np.zeros((32, 32))", "film-"),
    "a film of NaN": film("return np.full((32, 32), np.nan)", "film-"),
    "a film of objects": film("return np.full((32, 32), None)", "film-"),
    # Heads, losses, encoders
    "a head that raises": head("lambda width, schema: 1 / 0", "failed in build(): Zero"),
    "a head that exits": head("lambda width, schema: exit()", "failed in build(): SystemExit"),
    "a head that is none": head("lambda width, schema: None", "gives NoneType, not a torch module"),
    "a head that is a function": head("lambda width, schema: print", "not a torch module"),
    "a head of another width": head(
        "lambda width, schema: torch.nn.Linear(width, 7)", "(2, 7) for two films, not (2, 2)"
    ),
    "a head of another input": head(
        "lambda width, schema: torch.nn.Linear(width + 1, 2)", "failed in forward()"
    ),
    "a head of NaN": head(
        "lambda width, schema: torch.nn.Sequential(torch.nn.Linear(width, 2), "
        "torch.nn.Threshold(1e9, float('nan')))",
        "not finite",
    ),
    "a loss that raises": loss("lambda schema: 1 / 0", "failed in build(): Zero"),
    "a loss that is none": loss("lambda schema: None", "failed in its loss"),
    "a loss of one number": loss("lambda schema: lambda o, t: (o - t).mean()", "()"),
    "a loss of too many": loss("lambda schema: lambda o, t: torch.zeros(5)", "(5,)"),
    "a loss of NaN": loss("lambda schema: lambda o, t: o * float('nan')", "not finite"),
    "a loss of text": loss("lambda schema: lambda o, t: 'large'", "gives str"),
    "a loss that raises later": loss(
        "lambda schema: lambda o, t: 1 / 0 if len(o) > 2 else (o - t) ** 2",
        "failed in its loss: Zero",
    ),
    "an encoder that raises": backbone("    def pool(self, last): 1 / 0", "ZeroDivisionError"),
    "an encoder without maps": backbone("    def forward_maps(self, x): return []", "IndexError"),
    "an encoder of nothing": backbone("    def forward_maps(self, x): return None", "TypeError"),
    "an encoder that pools to a map": backbone(
        "    def pool(self, last): return last", "(B, C, H, W) and (B, D)"
    ),
    "an encoder for other films": backbone(
        "    def forward_maps(self, x): return [self.layer(x[:, :, :4])]", "does not take", exits=2
    ),
}  # fmt: skip
