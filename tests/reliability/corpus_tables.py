"""Tables of labels as people save them: what is read of them, or why nothing is."""

from __future__ import annotations

import gzip
import io
import os
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HEADER = "image,person,part,sex,years,left,right"
ROWS = (
    "a.png,p1,train,M,40,1,0",
    "b.png,p1,train,M,41,0,",
    "c.png,p2,val,F,,,1",
    "d.png,p3,test,,77.5,-1,0",
)
# What is read of them.
RIGHT = {
    "image": ["a.png", "b.png", "c.png", "d.png"],
    "split": ["train", "train", "val", "test"],
    "patient": ["p1", "p1", "p2", "p3"],
    "sex": ["M", "M", "F", None],
    "age": [40, 41, None, 77.5],
    "left": [1, 0, None, -1],
    "right": [0, None, 1, 0],
}
NAMED = {"patient": "person", "split": "part", "sex": "sex", "age": "years"}
OPTIONS = {"labels": ["left", "right"], **NAMED}
TEXT = "\n".join([HEADER, *ROWS]) + "\n"
CLASSES = {"kind": "multiclass", "labels": ["flu", "none"]}


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table.

    Attributes:
        name: What is special about it.
        make: Writes it.
        read: What is read of it, by column, where it is fine; ``None`` where it is not.
        said: Parts of the refusal beside the table's name.
        code: The exit code of the refusal.
        options: What its columns mean.
    """

    name: str
    make: Callable[[Path], object]
    read: dict[str, list[Any]] | None = None
    said: tuple[str, ...] = ()
    code: int = 3
    options: dict[str, Any] = field(default_factory=lambda: dict(OPTIONS))

    def __str__(self) -> str:
        return self.name


def put(data: str | bytes) -> Callable[[Path], object]:
    """Write this."""
    raw = data.encode() if isinstance(data, str) else data
    return lambda path: path.write_bytes(raw)


def row(text: str, at: int = 0) -> str:
    """Return the table with another row."""
    return "\n".join([HEADER, *ROWS[:at], text, *ROWS[at + 1 :]]) + "\n"


def right() -> Iterator[Table]:
    """Yield tables that are read as they are."""

    def fine(name: str, data: str | bytes, **changes: Any) -> Table:
        return Table(name=name, make=put(data), read=RIGHT | changes)

    yield fine("plain", TEXT)
    yield fine("BOM", "\ufeff" + TEXT)
    yield fine("CRLF", TEXT.replace("\n", "\r\n"))
    yield fine("CR", TEXT.replace("\n", "\r"))
    yield fine("no last newline", TEXT[:-1])
    yield fine("blank lines", TEXT.replace("\n", "\n\n"))
    yield fine("gzipped, named csv", gzip.compress(TEXT.encode()))
    yield fine("quoted", "\n".join(",".join(f'"{c}"' for c in r.split(",")) for r in TEXT.split()))
    yield fine("columns turned", "\n".join(",".join(r.split(",")[::-1]) for r in TEXT.split()))
    yield fine("columns more", "\n".join(f'note,{r},"x, ""y""\nz"' for r in TEXT.split()))
    yield fine("commas at the end", TEXT.replace("\n", ",,,\n"))
    yield fine("NaN", TEXT.replace(",,", ",nan,").replace("0,\n", "0,NaN\n"))
    yield fine("floats", TEXT.replace(",1", ",1.0").replace(",0", ",0.00"))
    yield fine("spaces around numbers", TEXT.replace(",1", ", 1").replace(",0", ",0 "))
    sexes = {"male": "M", "FEMALE": "F", "unknown": None}
    words = (
        row("a.png,p1,train,male,40,1,0").replace(",F,", ",FEMALE ,").replace("test,,", "test,u,")
    )
    yield fine("sexes in words", words, sex=["M", "M", *[sexes["FEMALE"], sexes["unknown"]]])
    splits = (
        TEXT.replace("train", "training").replace("val", "validation").replace("test", "testing")
    )
    yield fine("splits in words", splits)
    yield fine("no split", row("a.png,p1,,M,40,1,0"), split=[None, *RIGHT["split"][1:]])
    yield fine("split Train", row("a.png,p1,train,M,40,1,0"))
    yield fine(
        "patients as floats",
        row("a.png,1.0,train,M,40,1,0"),
        patient=["1.0", *RIGHT["patient"][1:]],
    )
    yield fine(
        "images as numbers", row("00017,p1,train,M,40,1,0"), image=["00017", *RIGHT["image"][1:]]
    )
    yield fine(
        "images with spaces",
        row("a b.png,p1,train,M,40,1,0"),
        image=["a b.png", *RIGHT["image"][1:]],
    )
    formula = {"image": ["=1+1.png", *RIGHT["image"][1:]]}
    formula |= {"patient": ["=cmd()", *RIGHT["patient"][1:]]}
    yield fine("a formula", row("=1+1.png,=cmd(),train,M,40,1,0"), **formula)
    yield fine("patients in any language", row("a.png,患者 é,train,M,40,1,0"),
               patient=["患者 é", *RIGHT["patient"][1:]])  # fmt: skip
    # What nobody can be stays in sight: ark data stats counts it.
    yield fine("an age of -3", row("a.png,p1,train,M,-3,1,0"), age=[-3, *RIGHT["age"][1:]])
    yield fine("an age of 1000", row("a.png,p1,train,M,1e3,1,0"), age=[1000, *RIGHT["age"][1:]])
    overlap = row("d.png,p1,test,,77.5,-1,0", 3)
    yield fine("a patient in two splits", overlap, patient=["p1", "p1", "p2", "p1"])
    address = "http://example.org/a.png"
    yield fine(
        "an address", row(f"{address},p1,train,M,40,1,0"), image=[address, *RIGHT["image"][1:]]
    )
    yield fine(
        "a path with dots",
        row("x..y/a.png,p1,train,M,40,1,0"),
        image=["x..y/a.png", *RIGHT["image"][1:]],
    )
    classes = "image,class\na.png,flu\nb.png,\nc.png,none\n"
    shown = {"image": ["a.png", "b.png", "c.png"], "flu": [1, None, 0], "none": [0, None, 1]}
    yield Table(
        name="classes", make=put(classes), read=shown, options={**CLASSES, "label_column": "class"}
    )
    columns = "image,flu,none\na.png,1,0\nb.png,,\nc.png,0,1\n"
    yield Table(name="classes by column", make=put(columns), read=shown, options=CLASSES)
    twice = {"labels": ["left"], "groups": ["left"]}
    yield Table(name="a column in two roles", make=put(TEXT), options=twice,
                read={"left": RIGHT["left"], "group:left": ["1", "0", None, "-1"]})  # fmt: skip


def wrong() -> Iterator[Table]:
    """Yield tables that are refused, with what the line must say."""

    def bad(name: str, data: str | bytes, *said: str, **more: Any) -> Table:
        return Table(name=name, make=put(data), said=said, **more)

    yield bad("empty", "", "no column 'image'")
    yield bad("blank", "\n\n\n", "no column 'image'")
    yield bad("header only", HEADER + "\n", "no rows")
    yield bad("no header", "\n".join(ROWS), "no column 'image'")
    yield bad(
        "a column missing",
        TEXT.replace("left", "lift", 1),
        "no column 'left'",
        "did you mean 'lift'",
    )
    yield bad("a column in capitals", TEXT.replace("image", "Image"), "no column 'image'")
    yield bad("a column twice", TEXT.replace("right", "left", 1), "2 columns 'left'")
    yield bad("an image twice", row("a.png,p9,test,M,40,1,0", 3), "line 5", "'a.png'", "twice")
    yield bad("a row twice", TEXT + ROWS[0], "line 6", "'a.png'", "twice")
    yield bad(
        "an image in two ways", row("./a.png,p9,test,M,4,1,0", 3), "line 5", "'./a.png'", "twice"
    )
    yield bad(
        "an image in three ways",
        row("x//a.png,p,test,,,,", 3).replace("b.png", "x/a.png"),
        "line 5",
        "twice",
    )
    yield bad("UTF-16", TEXT.encode("utf-16"), "line 1", "not UTF-8")
    yield bad("UTF-16 without a mark", TEXT.encode("utf-16-le"), "no column 'image'")
    yield bad("Latin-1", TEXT.replace("p3", "Zoë").encode("latin-1"), "line 5", "not UTF-8")
    for name, mark in (("semicolons", ";"), ("tabs", "\t"), ("bars", "|")):
        yield bad(name, TEXT.replace(",", mark), "no column 'image'", "separated by commas")
    yield bad("a quote in front", row('"a.png,p1,train,M,40,1,0'), "line 5")
    yield bad("a quote left open", TEXT + '"e.png', "line 6", "unexpected end")
    yield bad("text behind a quote", row('"a".png,p1,train,M,40,1,0'), "line 2")
    yield bad("a field fewer", row("a.png,p1,train,M,40,1"), "line 2", "6 fields", "7")
    yield bad("a field more", row("a.png,p1,train,M,40,1,0,1"), "line 2", "8 fields")
    yield bad("one field", TEXT + "e.png", "line 6", "1 fields")
    yield bad("many fields", row("a.png," + "1," * 10_000 + "1"), "line 2", "fields")
    yield bad("cut off", TEXT[:-5], "line 5", "fields")
    yield bad("NUL bytes", bytes(400), "no column 'image'")
    yield bad("NUL bytes at the end", TEXT + "\0" * 99, "line 6", "fields")
    yield bad(
        "a NUL in a name", row("a\0.png,p1,train,M,40,1,0"), "line 2", "below the dataset's root"
    )
    yield bad(
        "a cell of a million", row("x" * 10**6 + ",p1,train,M,40,1,0"), "line 2", "field larger"
    )
    yield bad(
        "a label of 100,000",
        row("a.png,p1,train,M,40," + "x" * 10**5 + ",0"),
        "line 2",
        "characters",
    )
    yield bad("a header of a million", "x" * 10**6 + TEXT, "line 1", "field larger")
    yield bad(
        "10,000 columns", ",".join(f"c{n}" for n in range(10_000)) + "\n", "no column 'image'"
    )
    for value in ("2", "0.5", "inf", "-inf", "1e400", "-2"):
        yield bad(
            f"a label of {value}",
            row(f"a.png,p1,train,M,40,{value},0"),
            "line 2",
            "'left'",
            "'a.png'",
            "1, 0, -1",
        )
    for value in ("yes", "True", "1,5", "NA", "null", "1;0", "=1", "\uff11x", "1 1"):
        cell = f'"{value}"' if "," in value else value
        yield bad(
            f"a label of {value}",
            row(f"a.png,p1,train,M,40,{cell},0"),
            "line 2",
            "'left'",
            repr(value),
        )
    for value in ("Train", "dev", "0", "train test", "trainn"):
        yield bad(
            f"a split {value}", row(f"a.png,p1,{value},M,40,1,0"), "line 2", "split", repr(value)
        )
    for value in ("x", "1", "MF", "weiblich"):
        yield bad(
            f"a sex {value}", row(f"a.png,p1,train,{value},40,1,0"), "line 2", "sex", repr(value)
        )
    for value in ("old", "045Y", "40 years", "4O"):
        yield bad(
            f"an age {value}", row(f"a.png,p1,train,M,{value},1,0"), "line 2", "age", repr(value)
        )
    paths = (
        "/etc/passwd",
        "../a.png",
        "x/../../a.png",
        "..",
        "x\\a.png",
        "C:/a.png",
        "\\\\h\\a.png",
    )
    for value in (*paths, "a\tb.png", "\x1b[31m.png"):
        yield bad(
            f"a path {value!r}",
            row(f"{value},p1,train,M,40,1,0"),
            "line 2",
            "below the dataset's root",
        )
    yield bad(
        "a name on two lines",
        row('"a\nb.png",p1,train,M,40,1,0'),
        "line 3",
        "below the dataset's root",
    )
    yield bad("an empty name", row(",p1,train,M,40,1,0"), "line 2", "image", "must not be empty")
    yield bad("a page of errors", "<html>\n<body>404, not found</body></html>", "no column 'image'")
    yield bad("gzip, half", gzip.compress(TEXT.encode())[:60], "cannot read")
    yield bad("gzip, spoilt", gzip.compress(TEXT.encode())[:30] + bytes(60), "cannot read")
    yield bad("gzip in gzip", gzip.compress(gzip.compress(TEXT.encode())), "line 1", "not UTF-8")
    with io.BytesIO() as file:
        with zipfile.ZipFile(file, "w") as book:
            book.writestr("xl/workbook.xml", "<workbook/>" * 99 + "é")
            book.writestr("[Content_Types].xml", bytes(range(256)))
        yield bad("a workbook", file.getvalue(), "not UTF-8")
    yield from _classes()
    odd: dict[str, tuple[Callable[[Path], object], str]] = {
        "missing": (lambda _: None, "No such file"),
        "a folder": (Path.mkdir, "is no file"),
        "a pipe": (os.mkfifo, "is no file"),
        "a link to nothing": (lambda path: path.symlink_to("nowhere"), "No such file"),
        "a link to itself": (lambda path: path.symlink_to(path.name), "symbolic links"),
        "a device": (lambda path: path.symlink_to("/dev/zero"), "is no file"),
    }
    for name, (make, said) in odd.items():
        yield Table(name=name, make=make, said=(said,))


def _classes() -> Iterator[Table]:
    """Yield wrong tables of exclusive classes."""

    def bad(name: str, text: str, *said: str, **options: Any) -> Table:
        return Table(name=name, make=put(text), said=said, options={**CLASSES, **options})

    named = {"label_column": "class"}
    yield bad(
        "an unknown class",
        "image,class\na.png,flue\n",
        "line 2",
        "'flue'",
        "did you mean 'flu'",
        **named,
    )
    long = "image,class\na.png," + "x" * 10**5
    yield bad("a class of 100,000", long, "line 2", "is not one of the labels", **named)
    yield bad(
        "two classes", "image,flu,none\na.png,1,0\nb.png,1,1\n", "line 3", "'b.png'", "exactly one"
    )
    yield bad("no class", "image,flu,none\na.png,0,0\n", "line 2", "exactly one")
    yield bad("half a class", "image,flu,none\na.png,1,\n", "line 2", "exactly one")
    yield bad("an uncertain class", "image,flu,none\na.png,-1,1\n", "line 2", "1, 0 or missing")


def tables() -> list[Table]:
    """Return them all."""
    return [*right(), *wrong()]
