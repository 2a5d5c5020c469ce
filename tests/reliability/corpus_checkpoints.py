"""Broken checkpoints, exports, files of weights and records, each made from a sound one in place.

Planted code would make the file :data:`MARK` in the folder of this process, if it ever ran.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch

MARK = "planted-code-has-run"
Break = Callable[[Path], object]


class Planted:
    """What runs a command where it is unpickled."""

    def __init__(self, call: str = "system") -> None:
        self.call = call

    def __reduce__(self) -> tuple[Any, ...]:
        if self.call == "system":
            return os.system, (f"touch {MARK}",)
        return eval, (f"open({MARK!r}, 'w')",)


# Bytes -----------------------------------------------------------------------------------------


def cut(share: float) -> Break:
    """Leave the first ``share`` of the bytes."""

    def edit(path: Path) -> None:
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * share)])

    return edit


def filled(content: bytes) -> Break:
    """Put other bytes in its place."""
    return lambda path: path.write_bytes(content)


def flipped(path: Path) -> None:
    """Turn a bit of the middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 16
    path.write_bytes(content)


def gone(path: Path) -> None:
    """Delete it."""
    path.unlink()


def folder(path: Path) -> None:
    """Put a folder in its place."""
    path.unlink()
    path.mkdir()


def pipe(path: Path) -> None:
    """Put a pipe in its place that nobody ever writes to."""
    path.unlink()
    os.mkfifo(path)


def link_to_nothing(path: Path) -> None:
    """Put a link in its place whose end is missing."""
    path.unlink()
    path.symlink_to("nowhere/at.all")


def link_to_itself(path: Path) -> None:
    """Put a link in its place that never ends."""
    path.unlink()
    path.symlink_to(path.name)


def link_out(path: Path) -> None:
    """Put a link to a file of the system in its place."""
    path.unlink()
    path.symlink_to("/etc/hostname")


def other_zip(path: Path) -> None:
    """Put a zip archive with other things in its place."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("letter.txt", "dear reader")


def repacked(change: Callable[[str, bytes], bytes | None], *, compress: bool = False) -> Break:
    """Write a zip archive's entries again: ``None`` leaves one out."""

    def edit(path: Path) -> None:
        with zipfile.ZipFile(path) as archive:
            entries = [(name, archive.read(name)) for name in archive.namelist()]
        kind = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
        with zipfile.ZipFile(path, "w", kind) as archive:
            for name, content in entries:
                made = change(name, content)
                if made is not None:
                    archive.writestr(name, made)

    return edit


def _pickle_of(content: Any) -> Callable[[str, bytes], bytes]:
    return lambda name, old: pickle.dumps(content, 2) if name.endswith("data.pkl") else old


def deep_pickle(levels: int = 100_000) -> bytes:
    """Return a pickle of lists in lists, as no program writes it."""
    return b"\x80\x02" + b"]" * levels + b"a" * (levels - 1) + b"."


# Checkpoints -----------------------------------------------------------------------------------


def content(change: Callable[[dict[str, Any]], object]) -> Break:
    """Load a checkpoint, change its content, save it again."""

    def edit(path: Path) -> None:
        held = torch.load(path, weights_only=True)
        change(held)
        torch.save(held, path)

    return edit


def instead(make: Callable[[dict[str, Any]], Any]) -> Break:
    """Save something else, made of a checkpoint's content."""
    return lambda path: torch.save(make(torch.load(path, weights_only=True)), path)


def without(prefix: str) -> Break:
    """Take out all whose names begin so."""
    return content(lambda held: [held.pop(name) for name in list(held) if name.startswith(prefix)])


def put(value: Any, *keys: Any) -> Break:
    """Put a value at nested keys of a checkpoint."""

    def change(held: dict[str, Any]) -> None:
        for key in keys[:-1]:
            held = held[key]
        held[keys[-1]] = value

    return content(change)


def dropped(*keys: Any) -> Break:
    """Take nested keys out of a checkpoint."""

    def change(held: dict[str, Any]) -> None:
        for key in keys[:-1]:
            held = held[key]
        del held[keys[-1]]

    return content(change)


def _weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Break:
    """Change the tensors of both models."""

    def both(held: dict[str, Any]) -> None:
        for model in ("student", "teacher"):
            held[model] = OrderedDict(held[model])
            change(held[model])

    return content(both)


def _first(name: str = "backbone.norm.weight") -> str:
    return name


def renamed_head(held: dict[str, torch.Tensor]) -> None:
    """Give heads' tensors another task's name."""
    for name in [name for name in held if name.startswith("heads.")]:
        held[name.replace("phantom-north", "other")] = held.pop(name)


def renamed_body(held: dict[str, torch.Tensor]) -> None:
    """Give the backbone another name."""
    for name in [name for name in held if name.startswith("backbone.")]:
        held[f"encoder.{name}"] = held.pop(name)


def _changed(make: Callable[[torch.Tensor], Any]) -> Break:
    def change(held: dict[str, torch.Tensor]) -> None:
        held[_first()] = make(held[_first()])

    return _weights(change)


def _endless(tensor: torch.Tensor) -> torch.Tensor:
    """Return as many numbers as no memory holds, out of one."""
    return torch.as_strided(tensor, (10**12,), (0,))


def _momenta(make: Callable[[Any], Any]) -> Break:
    def change(held: dict[str, Any]) -> None:
        state = held["optimizer"]["state"]
        state[0] = {name: make(value) for name, value in state[0].items()}

    return content(change)


def _itself(held: dict[str, Any]) -> None:
    held["meta"]["again"] = held


BYTES: dict[str, Break] = {
    "empty": filled(b""),
    "one byte": cut(1e-9),
    "a tenth": cut(0.1),
    "half": cut(0.5),
    "all but its end": cut(0.99),
    "text": filled(b"years of work\n" * 40),
    "NULs": filled(bytes(4096)),
    "another zip": other_zip,
    "a folder": folder,
    "a pipe": pipe,
    "a link to nothing": link_to_nothing,
    "a link to itself": link_to_itself,
    "a link to another file": link_out,
}
CODE: dict[str, Break] = {
    "a pickle of a command": filled(pickle.dumps(Planted())),
    "a pickle of an expression": filled(pickle.dumps(Planted("eval"), 2)),
    "a command in the archive's pickle": repacked(_pickle_of({"format": 1, "x": Planted()})),
    "a pickle of lists in lists": filled(deep_pickle()),
}
CHECKPOINTS: dict[str, Break] = {
    **BYTES,
    **CODE,
    "a command among the tensors": put(Planted(), "student", "x"),
    "a command in the optimizer": put(Planted(), "optimizer", "state", 0),
    "an expression in the notes": put(Planted("eval"), "meta", "best"),
    "a command in place of it": instead(lambda _: Planted()),
    "compressed": repacked(lambda _, old: old, compress=True),
    "without one tensor": repacked(lambda name, old: None if name.endswith("/data/3") else old),
    "a tensor cut": repacked(lambda name, old: old[:-4] if name.endswith("/data/3") else old),
    "a list": instead(lambda _: [1, 2]),
    "a tensor": instead(lambda _: torch.zeros(3)),
    "a state dict alone": instead(lambda held: dict(held["student"])),
    "an older format": put(0, "format"),
    "a later format": put(2, "format"),
    "a format of text": put("1" * 10_000, "format"),
    "without format": dropped("format"),
    "without student": content(lambda held: (held.pop("student"), held.pop("teacher"))),
    "models of text": content(lambda held: held.update(student="a", teacher="b")),
    "models of numbers": _weights(lambda held: held.update(dict.fromkeys(held, 1.0))),
    "a tensor missing": _weights(lambda held: held.pop(_first()) is None),
    "another backbone": _weights(renamed_body),
    "another width": _changed(lambda old: old.repeat(2)),
    "another rank": _changed(lambda old: old[None]),
    "a tensor of nothing": _changed(lambda old: old[:0]),
    "NaN weights": _changed(lambda old: old * torch.nan),
    "infinite weights": _changed(lambda old: old / 0.0),
    "whole numbers": _changed(lambda old: old.long()),
    "complex numbers": _changed(lambda old: old.to(torch.complex64)),
    "an endless tensor": _changed(_endless),
    "a sparse tensor": _changed(lambda old: old.to_sparse()),
    "a tensor without numbers": _changed(lambda old: old.to("meta")),
    "without notes": dropped("meta"),
    "notes of text": put("none", "meta"),
    "without tasks": dropped("meta", "tasks"),
    "tasks of text": put("abc", "meta", "tasks"),
    "tasks without labels": put([{"name": "phantom-north"}], "meta", "tasks"),
    "holding itself, without notes": content(
        lambda held: (_itself(held), held["meta"].pop("tasks"))
    ),
}
# What only a run that goes on reads.
RESUMED: dict[str, Break] = {
    "renamed heads": _weights(renamed_head),
    "an extra head": _weights(lambda held: held.update({"heads.x.weight": torch.zeros(2, 8)})),
    "without position": dropped("position"),
    "a position of text": put("start", "position"),
    "a position without step": dropped("position", "step"),
    "a step of text": put("7", "position", "step"),
    "a step below zero": put(-1, "position", "step"),
    "a step that is no whole number": put(1.5, "position", "step"),
    "a visit beyond the last": put(10**9, "position", "visit"),
    "a step of another visit": put(1, "position", "step"),
    "without optimizer": dropped("optimizer"),
    "an optimizer of text": put("sgd", "optimizer"),
    "momenta of text": put("fast", "optimizer", "state"),
    "momenta of no parameter": put({999: {}}, "optimizer", "state"),
    "another optimizer's": _momenta(lambda _: {"exp_avg": 1}),
    "momenta of another width": _momenta(lambda old: torch.zeros(3)),
    "NaN momenta": _momenta(lambda old: old * torch.nan),
    "whole momenta": _momenta(lambda old: old.long()),
    "another optimizer's names": put({"step": torch.ones(())}, "optimizer", "state", 0),
    "an offset below zero": put(-5, "meta", "metrics_offset"),
    "scores of text": put({"teacher": "good"}, "meta", "best"),
    "without scores": dropped("meta", "best_mean"),
}
# What only a model that is built again reads.
BUILT: dict[str, Break] = {
    "renamed heads": _weights(renamed_head),
    "settings of text": put("default", "meta", "config"),
    "unknown settings": put({"optim": {"speed": 1}}, "meta", "config"),
    "another backbone's settings": put(
        {"model": {"backbone": "tiny", "options": {"width": 8}}}, "meta", "config"
    ),
    "a width beyond memory": put(
        {"model": {"backbone": "tiny", "options": {"width": 10**7}, "features": 8}},
        "meta",
        "config",
    ),
    "an unknown backbone option": put(
        {"model": {"backbone": "tiny", "options": {"wide": 8}}}, "meta", "config"
    ),
}
PLANS: dict[str, Break] = {
    **{name: BYTES[name] for name in ("empty", "half", "NULs", "a folder", "a link to nothing")},
    "gone": gone,
    "a list": filled(b"[]"),
    "deep": filled(b"[" * 100_000),
    "no tasks": filled(b"{}"),
    "tasks of text": filled(b'{"tasks": "abc"}'),
    "a path as a task's name": filled(
        b'{"tasks": [{"name": "../x", "kind": "multilabel", "labels": ["a"], "head": "linear"}]}'
    ),
}


# Exports ---------------------------------------------------------------------------------------


def safe(header: bytes, data: bytes = b"", *, length: int | None = None) -> bytes:
    """Return a file of the safetensors format with any header."""
    return struct.pack("<Q", len(header) if length is None else length) + header + data


def entry(shape: Any, offsets: Any, dtype: str = "F32", name: str = "norm.weight") -> bytes:
    """Return a safetensors header of one tensor."""
    return json.dumps({name: {"dtype": dtype, "shape": shape, "data_offsets": offsets}}).encode()


def told(change: Callable[[dict[str, Any]], object]) -> Break:
    """Change the values of a JSON file."""

    def edit(path: Path) -> None:
        values = json.loads(path.read_text())
        changed = change(values)
        path.write_text(json.dumps(values if changed is None else changed))

    return edit


def at(value: Any, *keys: Any) -> Break:
    """Put a value at nested keys of a JSON file."""

    def change(values: Any) -> None:
        for key in keys[:-1]:
            values = values[key]
        values[keys[-1]] = value

    return told(change)


def less(*keys: Any) -> Break:
    """Take nested keys out of a JSON file."""

    def change(values: Any) -> None:
        for key in keys[:-1]:
            values = values[key]
        del values[keys[-1]]

    return told(change)


def tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Break:
    """Change a file of safetensors."""

    def edit(path: Path) -> None:
        held = safetensors.torch.load_file(path)
        change(held)
        safetensors.torch.save_file(held, path)

    return edit


def _each(make: Callable[[torch.Tensor], torch.Tensor]) -> Break:
    return tensors(lambda held: held.update({n: make(t).contiguous() for n, t in held.items()}))


def _one(make: Callable[[torch.Tensor], torch.Tensor]) -> Break:
    def change(held: dict[str, torch.Tensor]) -> None:
        name = min(held)
        held[name] = make(held[name]).contiguous()

    return tensors(change)


_JSON: dict[str, Break] = {
    "empty": filled(b""),
    "half": cut(0.5),
    "binary": filled(bytes(range(256))),
    "UTF-16": filled('{"format": 1}'.encode("utf-16")),
    "a list": filled(b"[1]"),
    "NaN alone": filled(b"NaN"),
    "deep": filled(b'{"a":' * 100_000),
    "a folder": folder,
    "a pipe": pipe,
    "gone": gone,
}
_SAFE: dict[str, Break] = {
    **{name: BYTES[name] for name in ("empty", "a tenth", "half", "text", "a folder", "a pipe")},
    "gone": gone,
    "all but its end": cut(0.99),
    "a pickle of a command": CODE["a pickle of a command"],
    "a checkpoint of torch": lambda path: torch.save({"norm.weight": torch.zeros(3)}, path),
    "a header beyond the file": filled(safe(b"{}", length=2**40)),
    "the longest header": filled(safe(b"{}", length=2**64 - 1)),
    "a header of nothing": filled(safe(b"", length=0)),
    "a header of text": filled(safe(b"norm")),
    "a deep header": filled(safe(b'{"a":' * 50_000)),
    "offsets that overlap": filled(
        safe(
            b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},'
            b'"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}',
            bytes(12),
        )
    ),
    "offsets beyond the end": filled(safe(entry([2], [0, 8]), bytes(4))),
    "offsets backwards": filled(safe(entry([2], [8, 0]), bytes(8))),
    "offsets below zero": filled(safe(entry([2], [-8, 0]), bytes(8))),
    "a shape that overflows": filled(safe(entry([2**32, 2**32, 4], [0, 8]), bytes(8))),
    "a shape beyond the bytes": filled(safe(entry([10**12], [0, 8]), bytes(8))),
    "an unknown dtype": filled(safe(entry([2], [0, 8], "F99"), bytes(8))),
    "no tensors": filled(safe(b"{}")),
    "a name twice": filled(
        safe(
            b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},'
            b'"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}',
            bytes(8),
        )
    ),
    "a tensor missing": tensors(lambda held: held.pop(min(held))),
    "a tensor more": tensors(lambda held: held.update(extra=torch.zeros(2))),
    "NaN": _one(lambda old: old * torch.nan),
    "transposed": _one(lambda old: old[None]),
    "whole numbers": _each(lambda old: old.long()),
}
EXPORTS: dict[str, tuple[str, Break]] = {
    **{f"config.json: {name}": ("config.json", edit) for name, edit in _JSON.items()},
    **{f"preprocess.json: {n}": ("preprocess.json", _JSON[n]) for n in ("half", "deep", "gone")},
    **{f"heads.json: {n}": ("heads.json", _JSON[n]) for n in ("empty", "half", "deep", "a list")},
    **{f"model.safetensors: {n}": ("model.safetensors", edit) for n, edit in _SAFE.items()},
    **{
        f"heads.safetensors: {n}": ("heads.safetensors", _SAFE[n])
        for n in ("half", "a tensor missing", "a tensor more", "NaN", "whole numbers", "gone")
    },
    "an older format": ("heads.json", at(0, "format")),
    "a later format": ("heads.json", at(99, "format")),
    "a format of text": ("heads.json", at("x" * 9999, "format")),
    "without format": ("heads.json", less("format")),
    "without backbone": ("config.json", less("ark", "backbone")),
    "a backbone that is a list": ("config.json", at(["tiny"], "ark", "backbone")),
    "options that are a list": ("config.json", at([1], "ark", "options")),
    "an unknown option": ("config.json", at(1, "ark", "options", "speed")),
    "a width of 10^9": ("config.json", at(10**9, "ark", "options", "width")),
    "a width below zero": ("config.json", at(-4, "ark", "options", "width")),
    "a width that is NaN": ("config.json", at(float("nan"), "ark", "options", "width")),
    "plugins of text": ("config.json", at("ark-phantom", "ark", "plugins")),
    "timm in its place": ("config.json", at("timm", "ark", "backbone")),
    "features of 10^12": ("heads.json", at(10**12, "features")),
    "features of 10^9": ("heads.json", at(10**9, "features")),
    "features of text": ("heads.json", at("8", "features")),
    "features of nothing": ("heads.json", at(0, "features")),
    "features infinite": ("heads.json", at(float("inf"), "features")),
    "an unknown projector": ("heads.json", at("cubic", "projector")),
    "another projector": ("heads.json", at("none", "projector")),
    "a head renamed": ("heads.json", at("other", "tasks", 0, "name")),
    "a path as a head's name": ("heads.json", at("../../x", "tasks", 0, "name")),
    "a head missing": ("heads.json", at([], "tasks")),
    "a head twice": ("heads.json", told(lambda held: held.update(tasks=held["tasks"] * 2))),
    "an unknown kind": ("heads.json", at("ordinal", "tasks", 0, "kind")),
    "a label more": ("heads.json", told(lambda held: held["tasks"][0]["labels"].append("more"))),
    "a label twice": (
        "heads.json",
        told(lambda held: held["tasks"][0].update(labels=["a"] * len(held["tasks"][0]["labels"]))),
    ),
    "a label that is a number": ("heads.json", at(7, "tasks", 0, "labels", 0)),
    "labels of text": ("heads.json", at("abcd", "tasks", 0, "labels")),
    "an unknown head": ("heads.json", at("spiral", "tasks", 0, "head")),
    "a side of 10^9": ("preprocess.json", at(10**9, "size")),
    "a side of nothing": ("preprocess.json", at(0, "resize")),
    "a side of text": ("preprocess.json", at("24", "size")),
    "an unknown fit": ("preprocess.json", at("stretch", "fit")),
    "unknown normalization": ("preprocess.json", at("median", "normalize")),
    "without side": ("preprocess.json", less("size")),
}


# Published weights -----------------------------------------------------------------------------


def weights(change: Callable[[dict[str, Any]], object]) -> Break:
    """Change a state dict."""
    return content(change)


def _shaped(name: str, *shape: int) -> Break:
    return put(torch.zeros(shape), name)


TABLE = "layers.0.blocks.0.attn.relative_position_bias_table"
PUBLISHED: dict[str, Break] = {
    **{name: edit for name, edit in BYTES.items() if name != "a link to another file"},
    **CODE,
    "an endless tensor": put(_endless(torch.zeros(1)), "omni_heads.0.bias"),
    "endless outputs": put(
        torch.as_strided(torch.zeros(1), (10**9, 8), (0, 0)), "omni_heads.0.weight"
    ),
    "no tensors": instead(lambda _: {"epoch": 3}),
    "numbers": instead(lambda _: [1, 2, 3]),
    "another architecture": instead(lambda _: {"conv1.weight": torch.zeros(8, 3, 7, 7)}),
    "a patch without sides": _shaped("patch_embed.proj.weight"),
    "a patch of nothing": _shaped("patch_embed.proj.weight", 0, 3, 4, 4),
    "a table without windows": _shaped(TABLE, 0, 1),
    "a table without heads": _shaped(TABLE, 49, 0),
    "heads that do not divide": _shaped(TABLE, 49, 7),
    "a table of one number": _shaped(TABLE),
    "a mask for a film of 10^6 pixels": put(torch.zeros(10**6, 1), "layers.3.blocks.1.attn_mask"),
    "a stage missing": content(
        lambda held: (
            [held.pop(name) for name in list(held) if name.startswith("layers.2.")] and None
        )
    ),
    "a block missing": content(
        lambda held: (
            [held.pop(n) for n in list(held) if n.startswith("layers.2.blocks.0.")] and None
        )
    ),
    "a head missing": dropped("omni_heads.0.weight"),
    "a head of one number": _shaped("omni_heads.0.weight"),
    "heads with a gap": content(
        lambda held: held.update({"omni_heads.7.weight": torch.zeros(2, 8)})
    ),
    "a projector of one number": _shaped("projector.weight"),
    "another projector": _shaped("projector.weight", 8, 9),
    "NaN": put(torch.full((24,), torch.nan), "patch_embed.proj.bias"),
    "whole numbers": put(torch.zeros(24, dtype=torch.long), "patch_embed.proj.bias"),
    "a tensor more": _shaped("layers.0.blocks.0.extra", 3),
}


# Records and pieces ----------------------------------------------------------------------------


def arrays(change: Callable[[dict[str, Any]], object]) -> Break:
    """Change the arrays of an ``.npz``."""

    def edit(path: Path) -> None:
        with np.load(path) as held:
            values = dict(held)
        change(values)
        np.savez(path, **values)

    return edit


def _about(change: Callable[[dict[str, Any]], object]) -> Break:
    def edit(values: dict[str, Any]) -> None:
        held = json.loads(values["about"].tobytes())
        change(held)
        values["about"] = np.frombuffer(json.dumps(held).encode(), np.uint8)

    return arrays(edit)


def objects(path: Path) -> None:
    """Put an array of objects in its place, one of which is a command."""
    np.savez(path, about=np.array([Planted()], dtype=object))


def bomb(path: Path) -> None:
    """Put an archive in its place that grows a thousandfold."""
    np.savez_compressed(path, about=np.zeros(2**26, np.uint8))


def header(text: str) -> bytes:
    """Return an ``.npy`` of any header, and no data."""
    padded = text.encode().ljust(118) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(padded)) + padded


def absurd(path: Path) -> None:
    """Put an archive in its place whose array says that it has 10^15 numbers."""
    with zipfile.ZipFile(path, "w") as archive:
        text = "{'descr': '|u1', 'fortran_order': False, 'shape': (1000000000000000,), }"
        archive.writestr("about.npy", header(text))


RECORDS: dict[str, Break] = {
    **{
        name: BYTES[name]
        for name in ("empty", "a tenth", "half", "all but its end", "text", "another zip")
    },
    "objects": objects,
    "a bomb": bomb,
    "10^15 numbers": absurd,
    "without its notes": arrays(lambda held: held.pop("about")),
    "notes of text": arrays(lambda held: held.update(about=np.frombuffer(b"hello", np.uint8))),
    "deep notes": arrays(lambda held: held.update(about=np.full(100_000, ord("["), np.uint8))),
    "a later version": _about(lambda held: held.update(version=99)),
    "without a version": _about(lambda held: held.pop("version")),
    "without parts": _about(lambda held: held.pop("parts")),
    "parts of text": _about(lambda held: held.update(parts="abc")),
    "an unknown access": _about(lambda held: held["parts"][0].update(access="anybody")),
    "a key of text": _about(lambda held: held["parts"][0].update(key="secret")),
    "without films": arrays(lambda held: held.pop("0/films")),
    "films of floats": arrays(lambda held: held.update({"0/films": np.zeros(3)})),
    "prints cut": arrays(lambda held: held.update({"0/prints": held["0/prints"][:, :7]})),
}


def _npy(make: Callable[[], np.ndarray]) -> Break:
    def edit(path: Path) -> None:
        held = io.BytesIO()
        np.save(held, make(), allow_pickle=True)
        path.write_bytes(held.getvalue())

    return edit


# A training's folder: the file, and what becomes of it.
PIECES: dict[str, tuple[str, Break]] = {
    **{f"last.pt: {name}": ("last.pt", edit) for name, edit in {**BYTES, **CODE}.items()
       if name not in ("a folder", "a pipe", "a link to nothing", "a link to itself")},
    "last.pt: a list": ("last.pt", instead(lambda _: [1])),
    "last.pt: without state": ("last.pt", dropped("state")),
    "last.pt: a state of text": ("last.pt", put("abc", "state")),
    "last.pt: a command in the state": ("last.pt", put(Planted(), "state", "best")),
    "last.pt: an endless tensor": ("last.pt", put(_endless(torch.zeros(1)), "state", "model")),
    "result.json: empty": ("result.json", filled(b"")),
    "result.json: half": ("result.json", cut(0.5)),
    "result.json: deep": ("result.json", filled(b"[" * 100_000)),
    "result.json: a list": ("result.json", filled(b"[]")),
    "result.json: without values": ("result.json", less("values")),
    "result.json: values of text": ("result.json", at("abc", "values")),
    "probabilities.npy: gone": ("probabilities.npy", gone),
    "probabilities.npy: half": ("probabilities.npy", cut(0.5)),
    "probabilities.npy: objects": (
        "probabilities.npy",
        _npy(lambda: np.array([Planted()], dtype=object)),
    ),
    "probabilities.npy: an archive": (
        "probabilities.npy",
        lambda path: path.write_bytes(_archive()),
    ),
}  # fmt: skip


def _archive() -> bytes:
    held = io.BytesIO()
    np.savez(held, a=np.zeros(3))
    return held.getvalue()


# Tables of embeddings, as others make them.
VECTORS: dict[str, tuple[str, Break]] = {
    "npz: empty": ("v.npz", filled(b"")),
    "npz: text": ("v.npz", filled(b"hello")),
    "npz: another zip": ("v.npz", other_zip),
    "npz: objects": ("v.npz", lambda path: np.savez(path, ids=np.array([Planted()], object))),
    "npz: 10^15 numbers": ("v.npz", absurd),
    "npz: NaN": ("v.npz", lambda path: np.savez(path, ids=["a"], features=[[np.nan]])),
    "npz: fewer names": ("v.npz", lambda path: np.savez(path, ids=["a"], features=np.eye(2))),
    "npz: a name twice": (
        "v.npz",
        lambda path: np.savez(path, ids=["a", "a"], features=np.eye(2)),
    ),
    "npz: complex": ("v.npz", lambda path: np.savez(path, ids=["a"], features=[[1j]])),
    "npz: one number": ("v.npz", lambda path: np.savez(path, ids="a", features=1.0)),
    "csv: empty": ("v.csv", filled(b"")),
    "csv: binary": ("v.csv", filled(bytes(range(256)))),
    "csv: words": ("v.csv", filled(b"id,x\na,b\n")),
    "csv: ragged": ("v.csv", filled(b"id,x\na,1\nb,1,2,3\n")),
    "csv: a name alone": ("v.csv", filled(b"id\na\n")),
    "csv: an open quote": ("v.csv", filled(b'id,x\n"a,1\n')),
}


# Networks for masks ----------------------------------------------------------------------------
SEGMENTERS: dict[str, tuple[str, Break]] = {
    **{f"segmenter.json: {n}": ("segmenter.json", _JSON[n]) for n in ("half", "deep", "a list")},
    **{
        f"model.safetensors: {n}": ("model.safetensors", _SAFE[n])
        for n in ("half", "gone", "a pickle of a command", "a tensor missing", "NaN", "transposed")
    },
    "a later format": ("segmenter.json", at(99, "format")),
    "a width of 10^9": ("segmenter.json", at(10**9, "width")),
    "a width of text": ("segmenter.json", at("wide", "width")),
    "structures of nothing": ("segmenter.json", at(None, "structures")),
    "a side below zero": ("segmenter.json", at(-32, "size")),
    "without blueprint": ("segmenter.json", less("blueprint")),
    "a blueprint of text": ("segmenter.json", at("swin", "blueprint")),
    "an unknown option": ("segmenter.json", at(1, "blueprint", "options", "speed")),
}
