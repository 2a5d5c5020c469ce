"""The SIIM-ACR adapter: run-lengths in, one honest table and masks out."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ark_plugin_siim as plugin
import numpy as np
import pandas as pd
import pytest
from ark_plugin_siim import SPECS, STAGE_1, STAGE_2, SiimOptions, decode, read_mask
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ark_framework import DataError
from ark_framework.annotations import AnnotationTable, validate
from ark_framework.images import read_image
from ark_framework.testing import conformance

test_conformance = conformance("ark-siim")
REAL = os.environ.get("ARK_REAL_DATA")
real = pytest.mark.skipif(REAL is None, reason="ARK_REAL_DATA is not set")
LABELS, MASKS = SPECS
Change = Callable[[bytes], bytes]


def table(options: SiimOptions, spec: Any = LABELS) -> AnnotationTable:
    return validate(spec.read(options), dataset=spec.name, schema=spec.schema)


def rows(options: SiimOptions) -> Iterator[Any]:
    return table(options, MASKS).frame.itertuples()


@pytest.fixture
def miniature(tmp_path: Path) -> SiimOptions:
    return LABELS.fixture(tmp_path / "siim")


def changed(options: SiimOptions, **values: Any) -> SiimOptions:
    return SiimOptions.model_validate({**options.model_dump(), **values})


def films(options: SiimOptions) -> list[str]:
    return [Path(image).stem for image in table(options).frame["image"]]


def refused(options: SiimOptions, path: Path, said: str) -> None:
    with pytest.raises(DataError) as error:
        table(options)
    message = str(error.value)
    assert said in message
    assert str(path) in message
    assert message.startswith("siim: ")
    assert "\n" not in message
    assert len(message) < 500


def test_miniature(miniature: SiimOptions) -> None:
    """Labels, masks and films agree, in both splits, and the split is the published one."""
    mini = table(miniature).frame
    assert mini["split"].value_counts().to_dict() == {"train": 45, "test": 15}
    assert mini.groupby("split")["Pneumothorax"].value_counts().gt(4).sum() == 4
    for row in mini.itertuples():
        film, mask = read_image(miniature.root / row.image), read_mask(row, miniature)
        assert mask.shape == (1, *film.shape)
        assert mask.any() == (row.Pneumothorax == 1)
        np.testing.assert_array_equal(mask[0], film > 125)


def test_columns(miniature: SiimOptions) -> None:
    """Paths, identity and label are those of the film; nothing else is known."""
    frame = table(miniature).frame
    film = "1.2.276.0.7230010.1517875003.3"
    row = frame.iloc[3]
    assert row["image"] == f"dicom-images-test/study3/series/{film}.dcm"
    assert (row["split"], row["source_id"], row["Pneumothorax"]) == ("test", f"siim:{film}", 1)
    assert frame["Pneumothorax"].tolist() == [1, 0, 0] * 20
    unknown = ["patient", "sex", "age", "view", "source_patient"]
    assert frame[unknown].isna().all(axis=None)


def test_both_datasets_have_the_same_rows(miniature: SiimOptions) -> None:
    """The mask dataset has the rows of the other; each film is drawn, if only as having none."""
    labels = table(miniature).frame.assign(Pneumothorax=1.0)
    pd.testing.assert_frame_equal(labels, table(miniature, MASKS).frame)


def test_hand_made_runs() -> None:
    """Gaps count from the end of the run before, and pixels go down the columns."""
    mask = decode("1 2 2 1", 4)
    assert np.argwhere(mask).tolist() == [[1, 0], [1, 1], [2, 0]]
    assert decode("0 16", 4).all()


def encode(mask: np.ndarray) -> str:
    """Encode as the challenge does, one pixel after the other."""
    runs, end, start = [], 0, None
    for place, drawn in enumerate([*mask.T.ravel().tolist(), False]):
        if drawn and start is None:
            start = place
        elif not drawn and start is not None:
            runs += [start - end, place - start]
            end, start = place, None
    return " ".join(map(str, runs))


SQUARES = st.lists(st.booleans(), min_size=36, max_size=36).map(
    lambda cells: np.array(cells, dtype=bool).reshape(6, 6)
)


@given(SQUARES.filter(np.any))
def test_decode_undoes_encode(mask: np.ndarray) -> None:
    """Any mask comes back as it was, and the miniature's encoder writes the same."""
    text = encode(mask)
    assert plugin._runs(text, 6, "here") == text == plugin._encode(mask)
    np.testing.assert_array_equal(decode(text, 6), mask)


@settings(max_examples=30)
@given(drawn=st.lists(SQUARES.filter(np.any), min_size=1, max_size=4))
def test_drawings_are_united(
    tmp_path_factory: pytest.TempPathFactory, drawn: list[np.ndarray]
) -> None:
    """All drawings of a film, overlapping or twice, are one mask."""
    root = tmp_path_factory.mktemp("siim")
    lines = ["ImageId, EncodedPixels", *[f"1.2,{encode(mask)}" for mask in [*drawn, drawn[0]]]]
    (root / STAGE_2).write_text("\n".join(lines))
    options = SiimOptions(root=root, side=6)
    (row,) = rows(options)
    np.testing.assert_array_equal(read_mask(row, options)[0], np.logical_or.reduce(drawn))


@given(st.text(max_size=30) | st.text("0123456789 -.e", max_size=12))
def test_any_text_is_runs_or_refused(text: str) -> None:
    """No text breaks the parser: it can be decoded, or is refused on one line."""
    try:
        runs = plugin._runs(text, 5, "siim: here")
    except DataError as error:
        runs, said = "0 1", str(error)
    else:
        said = ""
    assert "\n" not in said
    assert decode(runs, 5).any()


def test_masks_read_the_file_once(miniature: SiimOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    """The label file is read once for all masks, and again when it has changed."""
    first, *_ = rows(miniature)
    before = read_mask(first, miniature)
    assert before.any()
    path, reads = miniature.root / STAGE_2, []
    monkeypatch.setattr(
        plugin, "_lines", lambda path, old=plugin._lines: reads.append(1) or old(path)
    )
    for row in [first] * 5:
        read_mask(row, miniature)
    assert not reads
    lines = path.read_text().splitlines()
    film = lines[1].split(",")[0]
    path.write_text("\n".join([lines[0], f"{film},-1"]))
    assert not read_mask(first, miniature).any()
    assert reads == [1]


def test_mask_of_another_film(miniature: SiimOptions) -> None:
    """A film that the label file does not name is refused by name, not given as empty."""
    row, *_ = rows(miniature)
    with pytest.raises(DataError, match=r"does not name the film '1\.9'"):
        read_mask(row._replace(image="images/1.9.dcm"), miniature)


def test_where_films_are_found(miniature: SiimOptions) -> None:
    """A DICOM comes before a PNG, any folder will do, and a film that is nowhere is kept."""
    root, names = miniature.root, films(miniature)
    places = table(miniature).frame["image"].tolist()
    for folder in ("stage_2_images", "images/deep"):
        (root / folder).mkdir(parents=True)
    (root / places[0]).rename(root / "stage_2_images" / f"{names[0]}.dcm")
    (root / places[1]).unlink()
    (root / places[2]).unlink()
    for name in (names[1], names[3], "1.2.3"):
        Image.new("L", (64, 64)).save(root / "images" / "deep" / f"{name}.png")
    places[0] = f"stage_2_images/{names[0]}.dcm"
    places[1] = f"images/deep/{names[1]}.png"
    places[2] = f"stage_2_images/{names[2]}.dcm"
    assert table(miniature).frame["image"].tolist() == places


def test_one_label_file(miniature: SiimOptions) -> None:
    """With one label file the split is drawn, and it has that file's films."""
    published = table(miniature).frame
    (miniature.root / STAGE_1).rename(miniature.root / "kept")
    drawn = table(miniature).frame
    assert drawn["image"].tolist() == published["image"].tolist()
    assert drawn["split"].tolist() != published["split"].tolist()
    (miniature.root / STAGE_2).unlink()
    (miniature.root / "kept").rename(miniature.root / STAGE_1)
    stage_1 = table(miniature).frame
    assert stage_1["image"].tolist() == published["image"][published["split"] == "train"].tolist()
    part = drawn.set_index("image")["split"].loc[stage_1["image"]]
    assert stage_1["split"].tolist() == part.tolist()
    (miniature.root / stage_1["image"][0]).unlink()
    lost = f"dicom-images-train/{Path(stage_1['image'][0]).name}"
    assert table(miniature).frame["image"][0] == lost


def test_drawn_split(miniature: SiimOptions) -> None:
    """Another seed splits otherwise, and 0 gives no test."""
    (miniature.root / STAGE_1).unlink()
    split = table(miniature).frame["split"].tolist()
    assert 0 < split.count("test") < 25
    assert table(changed(miniature, split_seed=1)).frame["split"].tolist() != split
    assert not len(table(changed(miniature, test_fraction=0)).rows("test"))


def with_texts(options: SiimOptions) -> SiimOptions:
    """Write a mapping of two films to each NIH patient but for the last, and headers."""
    nih, headers = ["siim_ImageId,nih_image"], ["ImageId,PatientAge,PatientSex,ViewPosition"]
    ages = ("044", "044Y", "18M", "148", "", "old")
    for number, film in enumerate(films(options)):
        image = f"{number // 2 + 1:08d}_{number % 2:03d}.png" if number < 59 else ""
        nih.append(f"{film},{image}")
        sex, view = ("F", "M", "", "O")[number % 4], ("PA", "AP", "")[number % 3]
        headers.append(f"{film},{ages[number % 6]},{sex},{view}")
    (options.root / "nih.csv").write_text("\n".join([*nih, "1.2.3,00000001_000.png"]))
    (options.root / "headers.csv").write_text("\n".join([*headers, "1.2.3,1,M,PA"]))
    return changed(options, nih_mapping="nih.csv", headers="headers.csv")


def test_mapping_and_headers(miniature: SiimOptions) -> None:
    """Identity, patient, sex, age and view are those of the film; the drawn split is by patient."""
    (miniature.root / STAGE_1).unlink()
    options = changed(with_texts(miniature), test_fraction=0.4)
    frame = table(options).frame
    row = frame.iloc[3]
    assert (row["source_id"], row["source_patient"]) == ("nih:00000002_001.png", "nih:2")
    assert row["patient"] == "2"
    assert frame.iloc[59][["patient", "source_patient"]].isna().all()
    assert frame["source_id"].iloc[59].startswith("siim:")
    assert frame.groupby("patient")["split"].nunique().eq(1).all()
    assert set(frame["split"]) == {"train", "test"}
    np.testing.assert_allclose(frame["age"][:6], [44, 44, 1.5, np.nan, np.nan, np.nan])
    assert frame["sex"].iloc[:4].tolist() == ["F", "M", None, None]
    assert frame["view"].iloc[:3].tolist() == ["PA", "AP", None]


def test_packed_texts(miniature: SiimOptions) -> None:
    """Gzipped texts say the same."""
    options = with_texts(miniature)
    for name in ("nih.csv", "headers.csv"):
        (miniature.root / f"{name}.gz").write_bytes(
            gzip.compress((miniature.root / name).read_bytes())
        )
    packed = changed(miniature, nih_mapping="nih.csv.gz", headers="headers.csv.gz")
    pd.testing.assert_frame_equal(table(packed).frame, table(options).frame)


FIRST = b"1.2.276.0.7230010.1517875000.0,"
SECOND = b"1.2.276.0.7230010.1517875001.1,"


def second(field: bytes) -> Change:
    """Give the second film, which has -1 on line 4, another field."""
    return lambda content: content.replace(SECOND + b"-1", SECOND + field, 1)


@pytest.mark.parametrize("name", [STAGE_1, STAGE_2])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda _: b"", "no column 'ImageId'"),
        (lambda _: b"ImageId, EncodedPixels\n", "names no film"),
        (lambda content: content.replace(b"ImageId", b"Image", 1), "no column 'ImageId'"),
        (lambda content: content.replace(b" Enc", b" enc", 1), "no column 'EncodedPixels'"),
        (lambda content: content.replace(b"ImageId", b"EncodedPixels", 1), "no column 'ImageId'"),
        (lambda content: content.replace(b"\n", b",ImageId\n", 1), "two columns 'ImageId'"),
        (lambda content: b"ImageId, EncodedPixels\n" + content, "line 2: 'ImageId' is no film"),
        (lambda content: content.replace(FIRST, FIRST[:-1], 1), "line 2: has 1 fields, the h"),
        (lambda content: content.replace(FIRST, FIRST + b",", 1), "line 2: has 3 fields"),
        (lambda content: content.replace(FIRST, b'"' + FIRST, 1), "line 2: unexpected end"),
        (lambda content: content.replace(FIRST, b"../" + FIRST, 1), "line 2: '../1.2.276"),
        (lambda content: content.replace(FIRST, b"/" + FIRST, 1), "line 2: '/1.2.276"),
        (lambda content: content.replace(FIRST, b"a\\" + FIRST, 1), "line 2: 'a\\\\1.2.276"),
        (lambda content: content.replace(FIRST, b"1.2\0," + b"", 1), "line 2: '1.2\\x00' is no"),
        (lambda content: content.replace(FIRST, b"," + b"", 1), "line 2: '' is no film"),
        (lambda content: content.replace(FIRST, b"1" * 99 + b",", 1), "1' is no film"),
        (lambda content: content + FIRST + b"-1", "1517875000.0 has a mask and also -1"),
        (lambda content: content + SECOND + b"4 5", "1517875001.1 has a mask and also -1"),
        (second(b""), "line 4, film 1.2.276.0.7230010.1517875001.1: run-lengths must"),
        (second(b"5"), "line 4, film 1.2.276.0.7230010.1517875001.1: 1 run-lengths"),
        (second(b"1 2 3"), "3 run-lengths; they come in pairs"),
        (second(b"4000 97"), "end at 4097, past 64 x 64"),
        (second(b"999999999 9 " * 99), "past 64 x 64"),
        (second(b"9 0 9 0"), "run-lengths without a pixel"),
        *[
            (second(value.encode()), "line 4, film 1.2.276.0.7230010.1517875001.1: run-lengths m")
            for value in (
                "1 -2", "-1 2", "-2", "+1 2", "yes", "nan", "inf inf", "1e400 1", "1.0 2",
                "\uff0d1", "\uff11 2", "1_0 2", "1\0 2", "9" * 30 + " 1", "0x1 2", "1;2",
            )
        ],
        (second(b"1 " * 500_000), "line 4: field larger"),
        (lambda content: content + b"\xe9", "cannot read"),
        (lambda content: content.decode().encode("utf-16"), "cannot read"),
    ],
)  # fmt: skip
def test_wrong_labels(miniature: SiimOptions, name: str, change: Change, said: str) -> None:
    """Whatever is wrong in a label file is one line that names it and the place."""
    path = miniature.root / name
    content = path.read_bytes()
    assert change(content) != content
    path.write_bytes(change(content))
    refused(miniature, path, said)


def test_film_of_stage_1_alone(miniature: SiimOptions) -> None:
    """A film of stage 1 that stage 2 has lost is refused, not left out."""
    path = miniature.root / STAGE_1
    path.write_text(path.read_text() + "1.2.3,-1")
    refused(miniature, path, "names the film 1.2.3, stage_2_train.csv does not")


@pytest.mark.parametrize("name", [STAGE_1, STAGE_2, "nih.csv", "headers.csv"])
@pytest.mark.parametrize(
    "change",
    [
        lambda content: b"\xef\xbb\xbf" + content,
        lambda content: content.replace(b"\n", b"\r\n"),
        lambda content: content.replace(b"\n", b"\r"),
        lambda content: content + b"\n \n",
        lambda content: content.replace(b",", b", "),
        lambda content: content.replace(b"\n", b",\n") + b",",
    ],
)
def test_harmless_forms(miniature: SiimOptions, name: str, change: Change) -> None:
    """A byte order mark, any line end, blank lines, blanks or one column more change nothing."""
    options = with_texts(miniature)
    before = table(options).frame
    path = miniature.root / name
    path.write_bytes(change(path.read_bytes().rstrip(b"\n")))
    pd.testing.assert_frame_equal(table(options).frame, before)


@pytest.mark.parametrize("name", ["nih.csv", "headers.csv"])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda _: b"", "no column"),
        (lambda content: content.replace(b"ImageId", b"id", 1), "no column"),
        (lambda content: content.replace(b"\n", b",\n", 1), "line 2: has "),
        (lambda content: content + b"\n" + content.split(b"\n")[1], "stands above already"),
        (lambda content: content.replace(FIRST, b"../" + FIRST), "line 2: '../1.2.276"),
        (lambda content: content.replace(FIRST, b'"' + FIRST), "line 2: unexpected end"),
        (lambda content: content.replace(FIRST, b"\xe9" + FIRST), "cannot read"),
    ],
)
def test_wrong_texts(miniature: SiimOptions, name: str, change: Change, said: str) -> None:
    """Whatever is wrong in a mapping or in headers is one line that names it and the place."""
    options = with_texts(miniature)
    path = miniature.root / name
    path.write_bytes(change(path.read_bytes()))
    refused(options, path, said)


@pytest.mark.parametrize("image", ["61_012.png", "../00000061_012.png", "00000061_012", "\uff10"])
def test_wrong_nih_film(miniature: SiimOptions, image: str) -> None:
    """An NIH film of another form would match nothing: it is refused."""
    options = with_texts(miniature)
    path = miniature.root / "nih.csv"
    path.write_text(path.read_text().replace("00000001_000.png", image, 1))
    refused(options, path, "line 2: ")


@pytest.mark.parametrize("kind", ["missing", "folder", "no gzip", "cut gzip"])
@pytest.mark.parametrize("key", ["nih_mapping", "headers"])
def test_unreadable_text(miniature: SiimOptions, key: str, kind: str) -> None:
    """A text that is missing, a folder or a broken archive is one line that names it."""
    path = miniature.root / "text.csv.gz"
    if kind == "folder":
        path.mkdir()
    elif kind != "missing":
        packed = gzip.compress(b"siim_ImageId,nih_image\n" * 99)
        path.write_bytes(packed[:30] if kind == "cut gzip" else b"plain")
    refused(changed(miniature, **{key: path.name}), path, "cannot read")


def test_unreadable_labels(tmp_path: Path) -> None:
    """A root without a label file, or with a folder of its name, is one line that names it."""
    refused(SiimOptions(root=tmp_path), tmp_path / STAGE_1, "cannot read")
    (tmp_path / STAGE_2).mkdir()
    refused(SiimOptions(root=tmp_path), tmp_path / STAGE_2, "cannot read")


@real
@pytest.mark.slow
def test_real_full_size(tmp_path: Path) -> None:
    """All 12,047 films: official counts, and every one of the 3,576 drawings decodes."""
    source = Path(str(REAL)) / "annotations" / "siim-pneumothorax-train-rle.csv.gz"
    (tmp_path / STAGE_2).write_bytes(gzip.decompress(source.read_bytes()))
    options = SiimOptions(root=tmp_path)
    full = table(options)
    assert len(full) == LABELS.card.rows["all"] == 12047
    assert full.targets().sum() == LABELS.card.positives["all"]["Pneumothorax"] == 2669
    np.testing.assert_allclose(len(full.rows("test")) / 12047, 0.15, atol=0.01)
    masks = plugin._masks(options)
    drawn = [text for runs in masks.values() for text in runs]
    assert len(drawn) == 12954 - 9378 == 3576
    # A share of the film; the middle as a share of its height and width.
    shares, centres = [], []
    for row in table(options, MASKS).frame[full.targets()[:, 0] == 1].itertuples():
        mask = read_mask(row, options)[0]
        lengths = [sum(map(int, text.split()[1::2])) for text in masks[Path(row.image).stem]]
        assert max(lengths) <= mask.sum() <= sum(lengths)
        shares.append(mask.mean())
        centres.append(np.argwhere(mask).mean(axis=0) / 1024)
    assert 0.00005 < min(shares) < max(shares) < 0.16
    assert 0.005 < np.median(shares) < 0.012
    down, right = np.array(centres).T
    # Air rises, left or right: were rows and columns changed, the middle would be beside.
    assert np.median(down) < 0.3
    assert np.std(right) > np.std(down)


@real
def test_real_stages(tmp_path: Path) -> None:
    """With 10,675 films in the file of stage 1, the other 1,372 are test."""
    source = Path(str(REAL)) / "annotations" / "siim-pneumothorax-train-rle.csv.gz"
    text = gzip.decompress(source.read_bytes()).decode()
    (tmp_path / STAGE_2).write_text(text)
    header, *lines = text.splitlines()
    chosen = set(list(dict.fromkeys(line.split(",")[0] for line in lines))[:10675])
    kept = [line for line in lines if line.split(",")[0] in chosen]
    (tmp_path / STAGE_1).write_text("\n".join([header, *kept]))
    split = table(SiimOptions(root=tmp_path)).frame["split"]
    assert split.value_counts().to_dict() == {"train": 10675, "test": 1372}
