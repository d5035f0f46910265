"""Pictures: sizes from headers, upright, RGB, within the budget; what a reference may be; what is said about broken ones."""

import base64
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from swift.core.errors import RowError
from swift.media import Budget, blank, load, size_of
from swift.media.budget import scaled


def same_size(ref, budget=Budget()):
    size, image = size_of('image', ref, budget), load('image', ref, budget)
    empty = blank('image', size)
    assert size == (image.height, image.width) == (empty.height, empty.width)
    assert isinstance(image, Image.Image) and image.mode == empty.mode == 'RGB'
    return image


def picture(width=40, height=30) -> Image.Image:
    """Red at the top left, blue elsewhere."""
    image = Image.new('RGB', (width, height), (0, 0, 255))
    image.paste((255, 0, 0), (0, 0, width // 2, height // 2))
    return image


@pytest.mark.parametrize('suffix', ['jpg', 'png', 'webp', 'bmp', 'gif', 'tif'])
def test_formats(tmp_path, suffix):
    picture().save(tmp_path / f'a.{suffix}')
    image = same_size(str(tmp_path / f'a.{suffix}'))
    assert image.size == (40, 30)
    assert np.abs(np.asarray(image)[5, 5].astype(int) - (255, 0, 0)).max() < 12


@pytest.mark.parametrize('value', range(1, 9))
@pytest.mark.parametrize('suffix', ['jpg', 'png', 'webp', 'tif'])
def test_a_picture_is_turned_as_its_camera_was(tmp_path, value, suffix):
    exif = Image.Exif()
    exif[0x0112] = value
    path = tmp_path / f'a.{suffix}'
    picture(48, 32).save(path, exif=exif)
    image = same_size(str(path))
    with Image.open(path) as opened:
        expected = __import__('PIL.ImageOps').ImageOps.exif_transpose(opened).convert('RGB')
    assert image.size == expected.size == ((48, 32) if value < 5 else (32, 48))
    assert (np.asarray(image) == np.asarray(expected)).all()
    same_size(Image.open(path))


def test_the_size_of_a_png_is_read_without_its_pixels(tmp_path):
    """A PNG of a billion pixels with no data: a header is enough, and the pixels are refused by name."""

    def chunk(kind, data):
        return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))

    head = chunk(b'IHDR', struct.pack('>IIBBBBB', 8000, 6000, 8, 2, 0, 0, 0))
    (tmp_path / 'a.png').write_bytes(b'\x89PNG\r\n\x1a\n' + head + chunk(b'IDAT', zlib.compress(b'')))
    assert size_of('image', str(tmp_path / 'a.png'), Budget()) == (6000, 8000)
    assert size_of('image', str(tmp_path / 'a.png'), Budget(max_pixels=1_000_000)) == (866, 1154)
    with pytest.raises(RowError, match='a.png can not be decoded'):
        load('image', str(tmp_path / 'a.png'), Budget())


def test_transparent_parts_are_white(tmp_path):
    image = picture().convert('RGBA')
    image.putpixel((0, 0), (9, 9, 9, 0))
    image.putpixel((1, 0), (0, 0, 0, 51))
    for mode in ('RGBA', 'LA', 'PA', 'La'):
        kept = image.convert('LA') if mode == 'La' else image
        assert np.asarray(same_size(kept.convert(mode)))[0, 0].tolist() == [255, 255, 255], mode
    assert np.asarray(same_size(image))[0, 1].tolist() == [204, 204, 204]
    clear = Image.new('P', (4, 4), 3)
    clear.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 7, 8, 9])
    clear.save(tmp_path / 'a.png', transparency=3)
    assert np.asarray(same_size(str(tmp_path / 'a.png'))).min() == 255
    Image.new('RGB', (4, 4), (1, 2, 3)).save(tmp_path / 'b.png', transparency=(1, 2, 3))
    assert np.asarray(same_size(str(tmp_path / 'b.png'))).min() == 255


def test_more_than_eight_bits(tmp_path):
    values = (np.arange(256 * 4, dtype=np.uint16).reshape(32, 32) * 64).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / 'a.png')
    image = same_size(str(tmp_path / 'a.png'))
    assert np.abs(np.asarray(image)[..., 0].astype(float) - values / 257).max() <= 0.5
    assert np.asarray(same_size(Image.fromarray(np.full((3, 3), 0.5, np.float32)))).tolist() == [[[128] * 3] * 3] * 3
    assert np.asarray(same_size(Image.new('1', (3, 3), 1))).min() == 255


def test_print_colours_and_moving_pictures(tmp_path):
    picture().convert('CMYK').save(tmp_path / 'a.jpg')
    assert np.abs(np.asarray(same_size(str(tmp_path / 'a.jpg')))[5, 5].astype(int) - (255, 0, 0)).max() < 12
    frames = [Image.new('RGB', (9, 9), color) for color in ((255, 0, 0), (0, 255, 0))]
    frames[0].save(tmp_path / 'a.gif', save_all=True, append_images=frames[1:])
    assert np.asarray(same_size(str(tmp_path / 'a.gif')))[4, 4].tolist() == [255, 0, 0]


def test_arrays():
    values = np.arange(30 * 40 * 3, dtype=np.uint8).reshape(30, 40, 3)
    assert (np.asarray(same_size(values)) == values).all()
    assert (np.asarray(same_size(values.transpose(2, 0, 1))) == values).all()
    assert (np.asarray(same_size(values / np.float32(255))) == values).all()
    assert same_size(values[..., 0]).size == same_size(values[..., :1]).size == (40, 30)
    with pytest.raises(RowError, match='is no picture'):
        load('image', np.zeros(5), Budget())


@pytest.mark.parametrize(
    ('size', 'low', 'high', 'expected'),
    [
        ((600, 800), None, 120_000, (300, 400)),
        ((600, 800), None, 119_999, (299, 399)),
        ((30, 40), 4800, None, (60, 80)),
        ((30, 40), 100, 5000, (30, 40)),
        ((1, 10_000), None, 100, (1, 100)),
        ((31, 47), 10_000, 10_000, (81, 122)),
        ((3, 3), 10, None, (4, 4)),
    ],
)
def test_budgets_keep_proportions_and_bounds(size, low, high, expected):
    assert scaled(*size, low, high) == expected
    image = same_size(np.zeros((*size, 3), np.uint8), Budget(max_pixels=high, min_pixels=low))
    assert (image.height, image.width) == expected
    assert not high or image.height * image.width <= high


def test_every_kind_of_reference(tmp_path):
    path = tmp_path / 'a picture.png'
    picture().save(path)
    data = path.read_bytes()
    text = base64.b64encode(data).decode()
    expected = np.asarray(picture())
    for ref in (str(path), path, path.as_uri(), data, bytearray(data), f'data:image/png;base64,{text}', text, {'path': str(path)}, {'bytes': data},
                {'bytes': data, 'path': 'elsewhere.png'}, {'url': path.as_uri()}, {'bytes': None, 'path': str(path)}, picture(),
                base64.urlsafe_b64encode(data).decode().rstrip('='), base64.encodebytes(data).decode()):  # fmt: skip
        assert (np.asarray(same_size(ref)) == expected).all(), str(ref)[:60]


def test_what_is_wrong_with_a_file_is_said(tmp_path):
    buffer = io.BytesIO()
    Image.effect_noise((200, 200), 90).save(buffer, 'JPEG')
    (tmp_path / 'short.jpg').write_bytes(buffer.getvalue()[:3000])
    (tmp_path / 'words.jpg').write_text('words')
    (tmp_path / 'none.jpg').touch()
    for name, words in {
        'absent.jpg': 'absent.jpg does not exist',
        'words.jpg': 'words.jpg is not a readable image',
        'none.jpg': 'none.jpg is not a readable image',
        'short.jpg': 'short.jpg can not be decoded .cut short',
        '': 'is a folder',
    }.items():
        with pytest.raises(RowError, match=words):
            load('image', str(tmp_path / name), Budget())
    for ref, words in {b'words': '5 bytes in the row is not', 'data:image/png;base64,AAAA': 'data:image', 7: 'is a int'}.items():
        with pytest.raises(RowError, match=words):
            size_of('image', ref, Budget())
    with pytest.raises(RowError, match='no path, url or bytes'):
        size_of('image', {'name': 'a'}, Budget())


# ---- DICOM


def dicom(path, values, **fields):
    pydicom = pytest.importorskip('pydicom')
    meta = pydicom.dataset.FileMetaDataset()
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = '1.2.840.10008.5.1.4.1.1.2', '1.2.3'
    dataset = pydicom.dataset.FileDataset(str(path), {}, file_meta=meta, preamble=b'\0' * 128)
    bits = values.dtype.itemsize * 8
    facts = {
        'Rows': values.shape[-2], 'Columns': values.shape[-1], 'BitsAllocated': bits, 'BitsStored': bits, 'HighBit': bits - 1,
        'PixelRepresentation': int(values.dtype.kind == 'i'), 'SamplesPerPixel': 1, 'PhotometricInterpretation': 'MONOCHROME2',
        'SOPClassUID': meta.MediaStorageSOPClassUID, 'SOPInstanceUID': '1.2.3', 'PixelData': values.tobytes(),
    }  # fmt: skip
    for name, value in {**facts, **fields}.items():
        setattr(dataset, name, value)
    dataset.save_as(str(path), enforce_file_format=True)
    return str(path)


def test_dicom_goes_through_slope_and_window(tmp_path):
    values = np.arange(12, dtype=np.int16).reshape(3, 4) * 100
    path = dicom(tmp_path / 'a.dcm', values, RescaleSlope=2, RescaleIntercept=-1000, WindowCenter=[0.5, 40], WindowWidth=[1001, 400])
    image = same_size(path)
    # units -1000 … 1200 by steps of 200; the window shows -500 … 500
    shares = ((values.astype(float) * 2 - 1000) / 1000 + 0.5).clip(0, 1)
    assert np.abs(np.asarray(image)[..., 0] - shares * 255).max() <= 0.5
    assert (np.asarray(same_size(open(path, 'rb').read())) == np.asarray(image)).all()


def test_dicom_without_a_window_and_inverted_and_of_several_frames(tmp_path):
    values = np.stack([np.arange(12, dtype=np.uint16).reshape(3, 4) + 7] * 2)
    path = dicom(tmp_path / 'a.dcm', values, PhotometricInterpretation='MONOCHROME1', NumberOfFrames=2)
    grey = np.asarray(same_size(path))[..., 0].ravel()
    assert grey.tolist() == [round(255 * (1 - i / 11)) for i in range(12)]


def test_dicom_that_is_broken_is_named(tmp_path):
    pytest.importorskip('pydicom')
    (tmp_path / 'words.dcm').write_text('words')
    with pytest.raises(RowError, match='words.dcm is not a readable DICOM'):
        size_of('image', str(tmp_path / 'words.dcm'), Budget())
    path = dicom(tmp_path / 'a.dcm', np.zeros((40, 40), np.uint16))
    data = open(path, 'rb').read()
    (tmp_path / 'b.dcm').write_bytes(data[:-1000])
    assert size_of('image', str(tmp_path / 'b.dcm'), Budget()) == (40, 40)
    with pytest.raises(RowError, match='b.dcm'):
        load('image', str(tmp_path / 'b.dcm'), Budget())
