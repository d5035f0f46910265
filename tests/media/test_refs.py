"""References: where a relative path leads, what is put into the cache, and what the network may do wrong."""

import base64
import http.server
import json
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from swift.core.errors import RowError
from swift.media import Budget, load, located, refs, size_of, storable


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv('SWIFT_CACHE', str(tmp_path / 'cache'))
    return tmp_path / 'cache' / 'media'


@pytest.fixture
def server(tmp_path):
    """A web server over tmp_path/www; `.asked` lists the paths."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(tmp_path / 'www'))

        def do_GET(self):
            server.asked.append(self.path)
            if self.path == '/broken.png':
                self.send_response(200)
                self.send_header('Content-Length', '500')
                self.end_headers()
                self.wfile.write(b'half')
            else:
                super().do_GET()

        def log_message(self, *args):
            pass

    (tmp_path / 'www').mkdir()
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    server.asked, server.url = [], f'http://127.0.0.1:{server.server_port}'
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def png(color=(1, 2, 3)) -> Image.Image:
    return Image.new('RGB', (12, 8), color)


def test_relative_paths_are_looked_for_in_the_root_else_beside_the_data_else_here(tmp_path, monkeypatch):
    for name in ('root', 'data', 'here'):
        (tmp_path / name).mkdir()
        png().save(tmp_path / name / f'{name}.png')
    monkeypatch.chdir(tmp_path / 'here')
    folder, root = str(tmp_path / 'data'), str(tmp_path / 'root')
    assert located('data.png', folder, None) == f'{folder}/data.png'
    assert located('here.png', folder, None) == str(tmp_path / 'here' / 'here.png')
    assert located('absent.png', folder, None) == f'{folder}/absent.png'
    assert located('data.png', folder, root) == f'{root}/data.png'
    assert located('../root/./root.png', folder, None) == f'{root}/root.png'
    assert located(['data.png', 'here.png'], folder, None) == [f'{folder}/data.png', str(tmp_path / 'here' / 'here.png')]
    assert located({'path': 'data.png', 'bytes': None}, folder, None)['path'] == f'{folder}/data.png'
    assert located(Path('data.png'), folder, None) == f'{folder}/data.png'


@pytest.mark.parametrize('ref', ['/a/b.png', 'https://host/a.png', 'file:///a/b.png', 'data:image/png;base64,AAAA', b'bytes', {'bytes': b'x', 'path': 'a'}])
def test_what_is_no_relative_path_stays(ref):
    assert located(ref, '/data', '/root') == ref


def test_base64_is_told_from_a_path(tmp_path):
    png().save(tmp_path / 'a.png')
    text = base64.b64encode((tmp_path / 'a.png').read_bytes()).decode()
    assert located(text, '/data', None) == text
    name = 'folder/with/a/long/name/that/has/only/letters/of/base64/in/it/and/no/dot/at/all/so/that/it/could/be/one/of/them'
    assert located(name, '/data', None) == f'/data/{name}'
    with pytest.raises(RowError, match='does not exist'):
        size_of('image', f'/data/{name}', Budget())


def test_what_has_no_file_gets_one_named_by_its_content(cache, tmp_path):
    png().save(tmp_path / 'a.png')
    data = (tmp_path / 'a.png').read_bytes()
    kept = {storable(ref) for ref in (data, {'bytes': data}, 'data:image/png;base64,' + base64.b64encode(data).decode(), base64.b64encode(data).decode())}
    assert len(kept) == 1
    path = Path(kept.pop())
    assert path.read_bytes() == data and path.suffix == '.png' and cache in path.parents
    assert [file.suffix for file in cache.rglob('*') if file.is_file()] == ['.png']


@pytest.mark.parametrize('mode', ['RGB', 'RGBA', 'L', 'P', 'CMYK', 'YCbCr', 'F', 'I'])
def test_pictures_in_memory_look_the_same_when_stored(mode):
    image = png((200, 40, 90)).convert('L' if mode in ('F', 'I') else 'RGB').convert(mode)
    path = storable(image)
    assert isinstance(path, str) and path == storable(image)
    assert (np.asarray(load('image', path, Budget())) == np.asarray(load('image', image, Budget()))).all()


def test_a_turned_picture_in_memory_stays_turned(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    png().save(tmp_path / 'a.jpg', exif=exif)
    assert size_of('image', storable(Image.open(tmp_path / 'a.jpg')), Budget()) == (12, 8)


def test_arrays_sounds_and_frames_become_json(tmp_path):
    tone = np.linspace(-0.5, 0.5, 8000, dtype=np.float32)
    sound = storable({'array': tone, 'sampling_rate': 8000})
    assert size_of('audio', sound, Budget()) == (16_000,)
    assert np.abs(load('audio', sound, Budget(), rate=8000) - tone).max() < 1e-6
    assert (load('audio', storable(tone), Budget()) == tone).all()
    values = np.arange(2 * 4 * 5 * 3, dtype=np.uint8).reshape(2, 4, 5, 3)
    video = storable(values)
    assert (load('video', video, Budget()).frames == values).all()
    frames = storable([png(), png((9, 9, 9)), values[0]])
    assert json.loads(json.dumps([sound, video, frames])) == [sound, video, frames]
    assert load('video', frames[:2], Budget()).frames[:, 0, 0, 0].tolist() == [1, 9]


def test_paths_and_addresses_are_stored_as_they_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert storable('https://host/a.png') == 'https://host/a.png'
    assert storable('absent.png') == storable({'path': 'absent.png', 'bytes': None}) == str(tmp_path / 'absent.png')
    with pytest.raises(RowError, match='is a object'):
        storable(object())


def test_dicom_bytes_are_still_dicom_in_the_cache():
    assert storable(b'\0' * 128 + b'DICM' + b'\0' * 9).endswith('.dcm')


def test_a_url_is_fetched_once(server, tmp_path, cache):
    png().save(tmp_path / 'www' / 'a b.png')
    url = f'{server.url}/a%20b.png?x=1'
    assert size_of('image', url, Budget()) == (8, 12)
    assert np.asarray(load('image', url, Budget()))[0, 0].tolist() == [1, 2, 3]
    assert server.asked == ['/a%20b.png?x=1']
    assert [path.suffix for path in cache.rglob('*') if path.is_file()] == ['.png']


def test_what_the_network_does_wrong_is_said_and_nothing_is_kept(server, cache, monkeypatch, tmp_path):
    (tmp_path / 'www' / 'large.png').write_bytes(b'0' * 3000)
    monkeypatch.setattr(refs, 'LIMIT', 2000)
    for name, words in {'absent.png': 'can not be fetched: .*(Not Found|not found)', 'broken.png': 'broke off after 4', 'large.png': 'is larger than'}.items():
        with pytest.raises(RowError, match=words) as caught:
            size_of('image', f'{server.url}/{name}', Budget())
        assert name in str(caught.value)
    assert [path for path in cache.rglob('*') if path.is_file()] == []


def test_a_server_that_does_not_answer_is_named(server):
    server.shutdown()
    server.server_close()
    with pytest.raises(RowError, match='can not be fetched'):
        size_of('image', f'{server.url}/a.png', Budget())


def test_a_cache_that_can_not_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / 'file').touch()
    monkeypatch.setenv('SWIFT_CACHE', str(tmp_path / 'file'))
    with pytest.raises(RowError, match='set SWIFT_CACHE'):
        storable(b'something')
