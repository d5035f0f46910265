"""A hub on 127.0.0.1 that speaks enough of the Hugging Face and ModelScope protocols for their real clients."""

from __future__ import annotations

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

SHA = 'a' * 40


class FakeHub:
    """`repositories`: ('datasets'|'models', 'owner/name') → {path: bytes}. `log` holds the requests."""

    def __init__(self, repositories):
        self.repositories, self.log = repositories, []
        self.server = ThreadingHTTPServer(('127.0.0.1', 0), self._handler())
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def downloads(self):
        """Paths of the files that were fetched."""
        return sorted({path for kind, path in self.log if kind == 'file'})

    def find(self, path):
        """(kind, id, rest) of a path such as datasets/owner/name/…; None for an unknown repository."""
        for kind, name in self.repositories:
            for prefix in ([f'{kind}/{name}'] if kind == 'datasets' else [f'{kind}/{name}', name]):
                if path == prefix or path.startswith(prefix + '/'):
                    return kind, name, path[len(prefix) + 1 :]
        return None

    def _handler(hub):
        class Handler(BaseHTTPRequestHandler):
            protocol_version = 'HTTP/1.1'

            def log_message(self, *args):
                pass

            def do_HEAD(self):
                self.answer(body=False)

            def do_GET(self):
                self.answer(body=True)

            def do_POST(self):
                length = int(self.headers.get('Content-Length') or 0)
                self.rfile.read(length)
                self.answer(body=True)

            def answer(self, body):
                parts = urlsplit(self.path)
                path, query = unquote(parts.path), parse_qs(parts.query)
                hub.log.append((self.command, self.path))
                if path.startswith('/api/v1/'):
                    status, data, headers = modelscope(hub, path[len('/api/v1/') :], query)
                elif path.startswith('/api/'):
                    status, data, headers = hugging_face(hub, path[len('/api/') :])
                else:
                    status, data, headers = resolve(hub, path[1:])
                wanted = self.headers.get('Range')
                if status == 200 and wanted and body:
                    first = int(wanted.split('=')[1].split('-')[0])
                    status, headers = 206, {**headers, 'Content-Range': f'bytes {first}-{len(data) - 1}/{len(data)}'}
                    data = data[first:]
                self.send_response(status)
                self.send_header('Content-Length', str(len(data)))
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                if body:
                    self.wfile.write(data)

        return Handler


def as_json(value, status=200):
    return status, json.dumps(value).encode(), {'Content-Type': 'application/json'}


def hugging_face(hub, path):
    found = hub.find(path)
    if found is None:
        return 404, b'{"error": "Repository not found"}', {'X-Error-Code': 'RepoNotFound'}
    kind, name, rest = found
    files = hub.repositories[kind, name]
    if rest.startswith('tree/'):
        return as_json([{'type': 'file', 'oid': blob(data), 'size': len(data), 'path': path} for path, data in files.items()])
    return as_json({'_id': '1', 'id': name, 'sha': SHA, 'private': False, 'gated': False, 'disabled': False, 'downloads': 0,
                    'likes': 0, 'tags': [], 'siblings': [{'rfilename': path} for path in files]})  # fmt: skip


def resolve(hub, path):
    found = hub.find(path)
    if found is None:
        return 404, b'', {'X-Error-Code': 'RepoNotFound'}
    kind, name, rest = found
    rest = rest.removeprefix('resolve/').split('/', 1)[1]
    data = hub.repositories[kind, name].get(rest)
    if data is None:
        return 404, b'', {'X-Error-Code': 'EntryNotFound', 'X-Repo-Commit': SHA}
    hub.log.append(('file', rest))
    return 200, data, {'ETag': f'"{blob(data)}"', 'X-Repo-Commit': SHA, 'Content-Type': 'application/octet-stream', 'Accept-Ranges': 'bytes'}


def modelscope(hub, path, query):
    for number, (kind, name) in enumerate(hub.repositories):  # a repository also answers to its number
        path = path.replace(f'{kind}/{number}/', f'{kind}/{name}/', 1)
    found = hub.find(path)
    if found is None:
        return as_json({'Code': 404, 'Message': 'not found', 'Success': False}, 404)
    kind, name, rest = found
    files = hub.repositories[kind, name]
    if rest in ('repo/tree', 'repo/files'):
        entries = [
            {'Path': path, 'Name': path.split('/')[-1], 'Type': 'blob', 'Size': len(data), 'Sha256': hashlib.sha256(data).hexdigest(),
             'Revision': SHA, 'CommittedDate': 1, 'Mode': '33188', 'InCheck': False, 'IsLFS': False}
            for path, data in files.items()
        ]  # fmt: skip
        page, size = int(query.get('PageNumber', ['1'])[0]), int(query.get('PageSize', ['100'])[0])
        entries = entries[(page - 1) * size : page * size]
        return as_json({'Code': 200, 'Success': True, 'Message': 'success', 'Data': {'Files': entries, 'TotalCount': len(files)}})
    if rest == 'repo':
        wanted = query['FilePath'][0]
        if wanted not in files:
            return as_json({'Code': 404, 'Message': 'not found', 'Success': False}, 404)
        hub.log.append(('file', wanted))
        return 200, files[wanted], {'Content-Type': 'application/octet-stream', 'ETag': blob(files[wanted])}
    if rest.startswith('revisions'):
        branch = {'Revision': 'master', 'CreatedAt': 1}
        return as_json({'Code': 200, 'Success': True, 'Data': {'RevisionMap': {'Branches': [branch], 'Tags': []}}})
    return as_json({'Code': 200, 'Success': True, 'Data': {'Id': list(hub.repositories).index((kind, name)), 'Name': name, 'Type': 0, 'Namespace': name.split('/')[0]}})


def blob(data):
    return hashlib.sha1(b'blob %d\0' % len(data) + data).hexdigest()
