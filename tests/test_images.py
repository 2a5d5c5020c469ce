"""Reading one film, whatever its file."""

from __future__ import annotations

import csv
import gzip
import os
import sys
from io import BytesIO
from pathlib import Path
from zlib import crc32

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels import get_decoder
from pydicom.uid import (
    ExplicitVRLittleEndian,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    SecondaryCaptureImageStorage,
    generate_uid,
)

from ark_framework import pixels as limits
from ark_framework.errors import DataError, MachineError
from ark_framework.images import fit_square, read_color, read_image, resolve_below, to_uint8

RAMP = np.arange(256, dtype=np.uint8).reshape(16, 16)
RAMP12 = (np.arange(4096, dtype=np.uint16)).reshape(64, 64)


def save(path: Path, pixels: np.ndarray, **keys: object) -> Path:
    Image.fromarray(pixels).save(path, **keys)  # type: ignore[arg-type]
    return path


def save_dicom(path: Path, pixels: np.ndarray, *, bits: int, syntax=None, **tags: object) -> Path:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = syntax or ExplicitVRLittleEndian
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID = meta.MediaStorageSOPClassUID
    dataset.Rows, dataset.Columns = pixels.shape[-2:]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = pixels.itemsize * 8, bits, bits - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    if syntax == JPEGBaseline8Bit:
        buffer = BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG")
        dataset.PixelData = encapsulate([buffer.getvalue()])
    elif syntax is not None:
        dataset.PixelData = encapsulate([b"\xff\xd8\xff\xd9"])
    else:
        dataset.PixelData = pixels.tobytes()
    for name, value in tags.items():
        setattr(dataset, name, value)
    dataset.save_as(path)
    return path


def lut(entries: np.ndarray, *, first: int, bits: int) -> Dataset:
    item = Dataset()
    item.LUTDescriptor = [len(entries), first, bits]
    item.LUTData = entries.astype(np.uint16).tobytes()
    item["LUTData"].VR = "OW"
    return item


def refused(path: Path, reason: str) -> None:
    with pytest.raises(DataError, match=reason) as caught:
        read_image(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message


def test_grey_png_is_read_bit_for_bit(tmp_path: Path) -> None:
    """An 8-bit film comes back as it was stored."""
    assert np.array_equal(read_image(save(tmp_path / "a.png", RAMP)), RAMP)


@pytest.mark.parametrize("mode", ["1", "P", "LA", "PA", "RGB", "RGBA", "CMYK", "YCbCr"])
def test_every_kind_of_eight_bit_image_becomes_grey(tmp_path: Path, mode: str) -> None:
    """Palettes, transparency, print colors and bits all end as the same grey picture."""
    step = np.zeros((20, 30), dtype=np.uint8)
    step[:, 15:] = 255
    grey = Image.fromarray(step)
    image = (grey.convert("RGB") if mode in ("CMYK", "YCbCr") else grey).convert(mode)
    path = tmp_path / ("a.tif" if mode in ("CMYK", "YCbCr", "PA") else "a.png")
    image.save(path)
    pixels = read_image(path)
    assert pixels.dtype == np.uint8
    assert np.abs(pixels.astype(int) - step).max() <= 1


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_sixteen_bits_are_kept(tmp_path: Path, name: str) -> None:
    """A 16-bit film is not cut to eight bits on the way in."""
    pixels = read_image(save(tmp_path / name, RAMP12))
    assert pixels.dtype == np.uint16
    assert np.array_equal(pixels, RAMP12)


def test_sixteen_bit_tiff_with_white_zero_is_inverted(tmp_path: Path) -> None:
    """A TIFF that says zero is white is turned to black zero, at 16 bits as at 8."""
    deep = save(tmp_path / "deep.tif", RAMP12, tiffinfo={262: 0})
    assert np.array_equal(read_image(deep), 65535 - RAMP12)


def test_sixteen_bits_spread_over_their_own_range() -> None:
    """Deep pixels become 8-bit linearly from their own minimum and maximum."""
    pixels = np.array([[1000, 1500, 2000]], dtype=np.uint16)
    assert to_uint8(pixels).tolist() == [[0, 128, 255]]
    assert to_uint8(np.full((2, 2), 7, dtype=np.uint16)).tolist() == [[0, 0], [0, 0]]


def test_color_is_read_in_order(tmp_path: Path) -> None:
    """A color image gives (H, W, 3) in the order red, green, blue; grey is repeated."""
    red = np.zeros((4, 6, 3), dtype=np.uint8)
    red[..., 0] = 200
    assert np.array_equal(read_color(save(tmp_path / "a.png", red)), red)
    grey = read_color(save(tmp_path / "b.png", RAMP))
    assert np.array_equal(grey, np.repeat(RAMP[..., None], 3, axis=2))


def test_a_plain_eight_bit_dicom_is_bit_exact(tmp_path: Path) -> None:
    """Without tables an 8-bit DICOM gives its stored pixels, however narrow their range."""
    narrow = (RAMP // 4 + 60).astype(np.uint8)
    assert np.array_equal(read_image(save_dicom(tmp_path / "a.dcm", narrow, bits=8)), narrow)


def test_dicom_is_known_by_content(tmp_path: Path) -> None:
    """A DICOM without the suffix is read; a picture that only has the suffix is refused."""
    bare = save_dicom(tmp_path / "film", RAMP, bits=8)
    assert np.array_equal(read_image(bare), RAMP)
    (tmp_path / "film.dcm").write_bytes(save(tmp_path / "a.png", RAMP).read_bytes())
    refused(tmp_path / "film.dcm", "not a DICOM")


def test_monochrome1_is_inverted_last(tmp_path: Path) -> None:
    """Stored white-is-zero pixels are inverted, after the window and not before."""
    plain = save_dicom(tmp_path / "a.dcm", RAMP, bits=8, PhotometricInterpretation="MONOCHROME1")
    assert np.array_equal(read_image(plain), 255 - RAMP)
    keys = {"WindowCenter": 1000.5, "WindowWidth": 1001}
    upright = read_image(save_dicom(tmp_path / "b.dcm", RAMP12, bits=12, **keys))
    keys["PhotometricInterpretation"] = "MONOCHROME1"
    inverted = read_image(save_dicom(tmp_path / "c.dcm", RAMP12, bits=12, **keys))
    assert np.array_equal(inverted, 255 - upright)


def test_a_window_maps_to_the_whole_range(tmp_path: Path) -> None:
    """The window's ends are 0 and 255 even where no pixel of the film reaches them."""
    film = np.full((8, 8), 1500, dtype=np.uint16)
    film[0, 0], film[7, 7] = 1250, 1750
    path = save_dicom(tmp_path / "a.dcm", film, bits=12, WindowCenter=1500.5, WindowWidth=1001)
    pixels = read_image(path)
    assert pixels.dtype == np.uint8
    assert [pixels[0, 0], pixels[4, 4], pixels[7, 7]] == [64, 128, 191]


def test_the_whole_window_leaves_eight_bits_alone(tmp_path: Path) -> None:
    """A window that covers 0..255 exactly changes no pixel."""
    path = save_dicom(tmp_path / "a.dcm", RAMP, bits=8, WindowCenter=128, WindowWidth=256)
    assert np.array_equal(read_image(path), RAMP)


def test_rescale_comes_before_the_window(tmp_path: Path) -> None:
    """The window is in rescaled values: slope and intercept move what it shows."""
    keys = {"RescaleSlope": 2, "RescaleIntercept": -1000, "WindowCenter": 0.5, "WindowWidth": 1001}
    pixels = read_image(save_dicom(tmp_path / "a.dcm", RAMP12, bits=12, **keys)).ravel()
    # Stored 250, 500, 750 are -500, 0, 500 after the rescale: the window's ends and middle.
    assert pixels[250] == 0
    assert pixels[500] in (127, 128)
    assert pixels[750] == 255
    assert pixels[0] == 0
    assert pixels[4095] == 255


def test_a_falling_rescale_turns_the_film(tmp_path: Path) -> None:
    """A slope of -1 makes high stored values dark, with a window as without."""
    keys = {"RescaleSlope": -1, "RescaleIntercept": 4095}
    bare = read_image(save_dicom(tmp_path / "a.dcm", RAMP12, bits=12, **keys))
    shown = read_image(
        save_dicom(tmp_path / "b.dcm", RAMP12, bits=12, WindowCenter=2048, WindowWidth=4096, **keys)
    )
    for film in (to_uint8(bare), shown):
        assert film[0, 0] == 255
        assert film[-1, -1] == 0
        assert (np.diff(film.ravel().astype(int)) <= 0).all()


def test_a_voi_table_is_followed(tmp_path: Path) -> None:
    """A VOI LUT decides each grey value; what lies outside takes the table's ends."""
    table = (np.arange(100) ** 2).astype(np.uint16)
    path = save_dicom(
        tmp_path / "a.dcm", RAMP12, bits=12, VOILUTSequence=[lut(table, first=1000, bits=16)]
    )
    expected = table[np.clip(RAMP12.astype(int) - 1000, 0, 99)] * (255 / 99**2)
    assert np.array_equal(read_image(path), np.rint(expected).astype(np.uint8))


def test_deep_dicom_without_window_keeps_its_order(tmp_path: Path) -> None:
    """Signed 16-bit values are spread over 0..65535, lowest black."""
    signed = (RAMP12.astype(np.int32) - 2048).astype(np.int16)
    pixels = read_image(save_dicom(tmp_path / "a.dcm", signed, bits=16))
    assert pixels.dtype == np.uint16
    assert (pixels.min(), pixels.max()) == (0, 65535)
    assert (np.diff(pixels.ravel().astype(int)) > 0).all()


def test_an_empty_window_is_no_window(tmp_path: Path) -> None:
    """Window tags that are present and empty leave an 8-bit film as it is."""
    path = save_dicom(tmp_path / "a.dcm", RAMP // 2, bits=8, WindowCenter=None, WindowWidth=None)
    assert np.array_equal(read_image(path), RAMP // 2)


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        ({"NumberOfFrames": 2}, "2 frames"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "in color"),
        ({"Rows": 60000, "Columns": 60000}, "too large"),
        ({"Rows": 17}, "cannot be decoded as DICOM"),
        ({"PixelData": None}, "cannot be decoded as DICOM"),
        ({"WindowCenter": 1, "WindowWidth": 0}, "Window Width"),
    ],
)
def test_wrong_dicoms_are_refused_by_name(
    tmp_path: Path, tags: dict[str, object], reason: str
) -> None:
    """Several frames, color, too many pixels, too few bytes: one line that names the file."""
    refused(save_dicom(tmp_path / "a.dcm", RAMP, bits=8, **tags), reason)


def test_a_dicom_without_pixels_is_refused(tmp_path: Path) -> None:
    """A report or a presentation state is no film."""
    path = save_dicom(tmp_path / "a.dcm", RAMP, bits=8)
    dataset = pydicom.dcmread(path)
    del dataset.PixelData
    dataset.save_as(path)
    refused(path, "no pixel data")


@pytest.mark.parametrize("syntax", [None, JPEGBaseline8Bit])
@pytest.mark.parametrize("share", [0.2, 0.6, 0.95])
def test_a_truncated_dicom_is_refused(tmp_path: Path, syntax: str | None, share: float) -> None:
    """A download that broke off anywhere never gives a half-grey film."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    path = save_dicom(tmp_path / "a.dcm", noise, bits=8, syntax=syntax)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    refused(path, "DICOM")


def test_a_missing_codec_is_the_machine(tmp_path: Path) -> None:
    """A compression without a decoder names it and the pip line, and is no broken film."""
    if get_decoder(JPEGLosslessSV1).is_available:
        pytest.skip("a lossless JPEG codec is installed")
    path = save_dicom(tmp_path / "a.dcm", RAMP, bits=8, syntax=JPEGLosslessSV1)
    with pytest.raises(MachineError, match=r"JPEG Lossless.*pip install"):
        read_image(path)


def test_without_pydicom_the_pip_line_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DICOM support is an extra: its absence is one line with the command that mends it."""
    path = save_dicom(tmp_path / "a.dcm", RAMP, bits=8)
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(MachineError, match=r'pip install "ark-framework\[dicom\]"'):
        read_image(path)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif", "a.bmp"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_truncated_picture_is_refused(tmp_path: Path, name: str, share: float) -> None:
    """A picture that breaks off is an error, never half a film."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    path = save(tmp_path / name, noise)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    refused(path, "cannot be decoded|no image of a kind")


def test_what_is_no_film_is_refused_by_name(tmp_path: Path) -> None:
    """Absent, empty, a folder, text, floats, several frames: a line with the file and reason."""
    refused(tmp_path / "gone.png", "no such file")
    (tmp_path / "empty.png").write_bytes(b"")
    refused(tmp_path / "empty.png", "the file is empty")
    (tmp_path / "folder.png").mkdir()
    refused(tmp_path / "folder.png", "directory")
    (tmp_path / "text.png").write_text("not found")
    refused(tmp_path / "text.png", "no image")
    refused(save(tmp_path / "float.tif", RAMP.astype(np.float32)), "floats")
    refused(save(tmp_path / "wide.tif", RAMP12.astype(np.int32) * 70000), "16 bits")
    frames = [Image.fromarray(RAMP), Image.fromarray(255 - RAMP)]
    frames[0].save(tmp_path / "many.tif", save_all=True, append_images=frames[1:])
    refused(tmp_path / "many.tif", "more than one frame")


def test_size_is_refused_before_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few bytes that claim a giant picture cost no memory."""
    path = save(tmp_path / "a.png", RAMP)
    data = bytearray(path.read_bytes())
    data[16:24] = (60000).to_bytes(4, "big") * 2
    data[29:33] = crc32(bytes(data[12:29])).to_bytes(4, "big")
    path.write_bytes(bytes(data))
    refused(path, "too many pixels")
    monkeypatch.setattr(limits, "MAX_PIXELS", 100)
    refused(save(tmp_path / "b.png", RAMP), "16 x 16 pixels is too large")


def test_no_format_that_runs_programs_is_opened(tmp_path: Path) -> None:
    """PostScript, which Pillow would hand to another program, is not an image here."""
    save(tmp_path / "a.eps", RAMP)
    refused(tmp_path / "a.eps", "no image")


def test_paths_stay_below_the_root(tmp_path: Path) -> None:
    """Neither dots, nor an absolute path, nor a link leads out; links within the root do."""
    root, outside = tmp_path / "root", tmp_path / "secret.png"
    (root / "in").mkdir(parents=True)
    save(outside, RAMP)
    save(root / "in" / "a.png", RAMP)
    (root / "out.png").symlink_to(outside)
    (root / "ok.png").symlink_to(root / "in" / "a.png")
    for image in ("../secret.png", "in/../../secret.png", str(outside), "out.png"):
        with pytest.raises(DataError, match="out of the root"):
            resolve_below(root, image)
    assert np.array_equal(read_image(resolve_below(root, "ok.png")), RAMP)


def test_squash_keeps_everything_and_loses_the_aspect() -> None:
    """A wide film's left and right halves stay halves of the square."""
    film = np.zeros((20, 60), dtype=np.uint8)
    film[:, 30:] = 200
    square = fit_square(film, 10, "squash")
    assert square.shape == (1, 10, 10)
    assert (square[0, :, :4] == 0).all()
    assert (square[0, :, 6:] == 200).all()


@pytest.mark.parametrize("turned", [False, True])
def test_pad_keeps_the_aspect_with_black_bars(turned: bool) -> None:
    """The long side fills the square; the film lies in the middle between black bars."""
    film = np.full((20, 60), 100, dtype=np.uint8)
    square = fit_square(film.T if turned else film, 60, "pad")[0]
    square = square.T if turned else square
    assert (square[20:40] == 100).all()
    assert (square[:20] == 0).all()
    assert (square[40:] == 0).all()


@pytest.mark.parametrize("turned", [False, True])
def test_crop_takes_the_middle(turned: bool) -> None:
    """The short side fills the square; what lies outside the middle is gone."""
    film = np.zeros((20, 60), dtype=np.uint8)
    film[:, 20:40] = 150
    square = fit_square(film.T if turned else film, 20, "crop")
    assert (square == 150).all()


def test_shrinking_averages() -> None:
    """A one-pixel checkerboard becomes even grey: no source pixel is skipped."""
    film = (np.indices((256, 256)).sum(0) % 2 * 255).astype(np.uint8)
    square = fit_square(film, 32, "squash")
    assert np.abs(square.astype(int) - 127).max() <= 8


def test_a_film_of_the_right_size_is_not_touched() -> None:
    """No resampling happens where none is needed; color comes out channels first."""
    assert np.array_equal(fit_square(RAMP, 16, "pad")[0], RAMP)
    color = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    assert np.array_equal(fit_square(color, 8, "crop"), color.transpose(2, 0, 1))


def test_real_dicoms_are_their_png_twins() -> None:
    """RSNA's JPEG-DICOM films equal the NIH films they were made from, but for compression."""
    data = Path(os.environ.get("ARK_REAL_DATA", ""))
    if "ARK_REAL_DATA" not in os.environ:
        pytest.skip("ARK_REAL_DATA is not set")
    with gzip.open(data / "annotations/rsna_nih_matches.csv.gz", "rt") as file:
        twins = {row["rsna_patientId"]: row["nih_image"] for row in csv.DictReader(file)}
    films = sorted((data / "rsna_pneumonia/stage_2_train_images").glob("*.dcm"))[:8]
    assert films
    for film in films:
        twin = data / "nih_chestxray14/images" / twins[film.stem]
        difference = np.abs(read_image(film).astype(int) - read_image(twin))
        assert difference.mean() < 1.5
