"""A Hugging Face Hub in memory: as much of its HTTP API as pushing and pulling a model takes, and its failures.

Written after what huggingface_hub sends and takes, so that the unmodified client runs against it over a socket.
"""
import base64
import hashlib
import json
import socket
import threading
from typing import Callable, Dict, List, Optional, Tuple, Union

import pathspec
import yaml
from flask import Flask, Response, abort, jsonify, make_response, redirect, request
from werkzeug.exceptions import HTTPException
from werkzeug.serving import WSGIRequestHandler, make_server


class QuietHandler(WSGIRequestHandler):
    def log(self, *args, **kwargs):
        pass


def sha1(*parts: object) -> str:
    return hashlib.sha1(repr(parts).encode()).hexdigest()


class Repo:
    """A repository: commits are whole trees, and refs point to them.

    A tree is `{path: content}`, where the content of an LFS object is the `str` of its sha256.
    """

    def __init__(self, private: bool):
        self.private = private
        self.commits: Dict[str, Dict[str, Union[bytes, str]]] = {}
        self.parents: Dict[str, Optional[str]] = {}
        self.refs: Dict[str, str] = {}
        self.titles: Dict[int, str] = {}  # of pull requests
        self.tags: List[str] = []
        self.commit('main', {'.gitattributes': b'*.safetensors filter=lfs\n'})

    def commit(self, ref: str, files: Dict[str, Union[bytes, str]], parent: Optional[str] = None) -> str:
        parent = parent or self.refs.get(ref)
        tree = {**self.commits.get(parent, {}), **files}
        tree = {path: content for path, content in tree.items() if content is not None}
        oid = sha1(len(self.commits), sorted(tree.items()))
        self.commits[oid], self.parents[oid] = tree, parent
        self.refs[ref] = oid
        return oid


class HubServer:
    """The server. `repos` and `objects` are its state, `requests` what it got, the rest makes it fail.

    Args:
        listener: Socket that it listens on.
    """

    def __init__(self, listener: socket.socket):
        self.url = 'http://127.0.0.1:{}'.format(listener.getsockname()[1])
        self.storage = self.url.replace('127.0.0.1', 'localhost')  # another host, as the Hub's storage
        self.reset()
        self._server = make_server(
            '127.0.0.1', 0, self._app(), threaded=True, request_handler=QuietHandler, fd=listener.fileno())
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()

    def reset(self) -> None:
        self.repos: Dict[str, Repo] = {}
        self.objects: Dict[str, bytes] = {}  # by sha256
        self.files: Dict[str, bytes] = {}  # what other servers have
        self.requests: List[str] = []
        self.accounts = {'hf_write': 'write', 'hf_read': 'read', 'hf_stranger': 'stranger'}
        self.failures: Dict[str, Tuple[int, str]] = {}  # by endpoint, the status of each answer and its reason
        self.pages: Dict[str, int] = {}  # by endpoint, the status of an HTML page in place of each answer
        self.upload_limit: Optional[int] = None  # the byte of an upload after which the connection is cut
        self.before_commit = lambda: None
        self.after_commit: Callable[[Response], Response] = lambda response: response  # what becomes of the answer
        self.store = lambda content: content  # what the storage makes of an upload
        self.lock = threading.Lock()

    @staticmethod
    def hang_up(response: Optional[Response] = None) -> Response:
        """Close the connection without an answer."""
        request.environ['werkzeug.socket'].shutdown(socket.SHUT_RDWR)
        return Response(status=500)

    def _app(self) -> Flask:
        app = Flask(__name__)

        @app.before_request
        def record_and_fail():
            self.requests.append(f'{request.method} {request.path}')
            if request.endpoint in self.failures:
                fail(*self.failures[request.endpoint])
            if request.endpoint in self.pages:
                abort(Response('<html><body>Log in to this network</body></html>', self.pages[request.endpoint]))

        @app.errorhandler(HTTPException)
        def error(e: HTTPException):
            return e.response or (jsonify(error=e.name), e.code)

        def fail(status: int, message: str, code: Optional[str] = None) -> None:
            headers = {'X-Error-Message': message, **({'X-Error-Code': code} if code else {})}
            abort(make_response({'error': message}, status, headers))

        def account() -> Optional[str]:
            header = request.headers.get('Authorization')
            if header is None:
                return None
            name = self.accounts.get(header.removeprefix('Bearer '))
            return name or fail(401, 'Invalid credentials in Authorization header')

        def readable(repo_id: str) -> Repo:
            who, repo = account(), self.repos.get(repo_id)
            if repo is None or (repo.private and who not in ('write', 'read')):
                # as the Hub: it does not tell whether there is one
                fail(404 if who else 401, 'Repository not found', 'RepoNotFound')
            return repo

        def writable(repo_id: str) -> Repo:
            repo = readable(repo_id)
            if account() is None:
                fail(401, 'Invalid username or password.')
            if account() != 'write':
                fail(403, 'Forbidden: pass a token with write access')
            return repo

        def oid_of(repo: Repo, revision: str) -> str:
            oid = repo.refs.get(revision, revision)
            return oid if oid in repo.commits else fail(404, f'Invalid rev id: {revision}', 'RevisionNotFound')

        @app.get('/files/<name>')
        def file(name):
            return Response(self.files[name], mimetype='application/octet-stream')

        @app.post('/api/repos/create')
        def create():
            if account() is None:
                fail(401, 'Invalid username or password.')
            if account() != 'write':
                fail(403, 'You do not have the rights to create a model under this namespace')
            repo_id = f"{request.json.get('organization') or account()}/{request.json['name']}"
            url = f'{self.url}/{repo_id}'
            with self.lock:
                if repo_id in self.repos:
                    return jsonify(error='You already created this model repo', url=url), 409
                private = request.json.get('private') or request.json.get('visibility') == 'private'
                self.repos[repo_id] = Repo(bool(private))
            return jsonify(url=url, name=repo_id)

        @app.post('/api/validate-yaml')
        def validate_yaml():
            try:
                metadata = yaml.safe_load(request.json['content'].split('---')[1])
                if not isinstance(metadata.get('tags', []), list):
                    raise ValueError('"tags" must be an array')
            except (IndexError, ValueError, yaml.YAMLError) as e:
                return jsonify(errors=[{'message': str(e)}], warnings=[]), 400
            return jsonify(errors=[], warnings=[])

        def entry(path: str, content: Union[bytes, str]) -> dict:
            """Of a tree: a file of git by its blob's hash, an LFS object by the sha256 of what was sent."""
            if isinstance(content, bytes):
                return {'type': 'file', 'path': path, 'size': len(content), 'oid': content_id(content)}
            size = len(self.objects[content])
            lfs = {'oid': content, 'size': size, 'pointerSize': 134}
            return {'type': 'file', 'path': path, 'size': size, 'oid': sha1(content), 'lfs': lfs}

        def content_id(content: Union[bytes, str]) -> str:
            """What the client compares its file with: the hash of a blob of git, or the sha256 of an LFS object."""
            if isinstance(content, str):
                return content
            return hashlib.sha1(b'blob %d\0' % len(content) + content).hexdigest()

        @app.get('/api/models/<owner>/<name>')
        @app.get('/api/models/<owner>/<name>/revision/<path:revision>')
        def model_info(owner, name, revision='main'):
            repo = readable(f'{owner}/{name}')
            oid = oid_of(repo, revision)
            return jsonify(
                _id='0', id=f'{owner}/{name}', modelId=f'{owner}/{name}', sha=oid, private=repo.private, tags=repo.tags,
                downloads=0, likes=0, siblings=[{'rfilename': path} for path in repo.commits[oid]])

        @app.get('/api/models/<owner>/<name>/tree/<path:revision>')
        def tree(owner, name, revision):
            repo = readable(f'{owner}/{name}')
            return jsonify([entry(*file) for file in repo.commits[oid_of(repo, revision)].items()])

        @app.get('/api/models/<owner>/<name>/commits/<path:revision>')
        def history(owner, name, revision):
            repo = readable(f'{owner}/{name}')
            oid, oids = oid_of(repo, revision), []
            while oid:
                oids.append(oid)
                oid = repo.parents[oid]
            return jsonify([
                {'id': oid, 'authors': [], 'date': '2026-01-01T00:00:00.000Z', 'title': '', 'message': ''}
                for oid in oids])

        @app.post('/api/models/<owner>/<name>/branch/<path:branch>')
        def branch(owner, name, branch):
            repo = writable(f'{owner}/{name}')
            if branch in repo.refs:
                fail(409, 'Reference already exists')
            repo.refs[branch] = repo.refs['main']
            return jsonify()

        @app.post('/api/models/<owner>/<name>/preupload/<path:revision>')
        def preupload(owner, name, revision):
            repo = writable(f'{owner}/{name}')
            tree = repo.commits[oid_of(repo, revision)]
            gitignore = pathspec.GitIgnoreSpec.from_lines(tree.get('.gitignore', b'').decode().splitlines())
            return jsonify(files=[
                {
                    'path': file['path'],
                    'uploadMode': 'lfs' if file['path'].endswith('.safetensors') else 'regular',
                    'shouldIgnore': gitignore.match_file(file['path']),
                    'oid': content_id(tree[file['path']]) if file['path'] in tree else None,
                }
                for file in request.json['files']])

        @app.post('/<owner>/<name>.git/info/lfs/objects/batch')
        def lfs_batch(owner, name):
            writable(f'{owner}/{name}')
            objects = [
                dict(o) if o['oid'] in self.objects else
                {**o, 'actions': {
                    'upload': {'href': f"{self.storage}/lfs/{o['oid']}"},
                    'verify': {'href': f'{self.url}/{owner}/{name}.git/info/lfs/objects/verify'}}}
                for o in request.json['objects']]
            return jsonify(transfer='basic', objects=objects)

        @app.post('/<owner>/<name>.git/info/lfs/objects/verify')
        def lfs_verify(owner, name):
            writable(f'{owner}/{name}')
            return jsonify() if request.json['oid'] in self.objects else fail(404, 'There is no such object')

        @app.put('/lfs/<oid>')
        def lfs_upload(oid):
            if self.upload_limit:
                request.stream.read(self.upload_limit)
                return self.hang_up()
            content = request.get_data()
            if hashlib.sha256(content).hexdigest() != oid:
                fail(400, 'The content does not have the sha256 that was announced')
            self.objects[oid] = self.store(content)
            return ''

        @app.get('/lfs/<oid>')
        def lfs_download(oid):
            response = Response(self.objects[oid], mimetype='application/octet-stream')
            response.set_etag(oid)
            return response.make_conditional(request, accept_ranges=True, complete_length=len(self.objects[oid]))

        @app.post('/api/models/<owner>/<name>/commit/<path:revision>')
        def commit(owner, name, revision):
            repo_id = f'{owner}/{name}'
            repo = writable(repo_id)
            self.before_commit()
            header, files = None, {}
            for line in request.get_data().splitlines():
                item = json.loads(line)
                value = item['value']
                if item['key'] == 'header':
                    header = value
                elif item['key'] == 'file':
                    files[value['path']] = base64.b64decode(value['content'])
                elif item['key'] == 'deletedFile':
                    files[value['path']] = None
                elif value['oid'] in self.objects:
                    files[value['path']] = value['oid']
                else:
                    fail(400, f"LFS object {value['oid']} is not there")
            with self.lock:
                head = oid_of(repo, revision)
                parent = header.get('parentCommit')
                if request.args.get('create_pr') == '1':
                    number = 1 + sum(ref.startswith('refs/pr/') for ref in repo.refs)
                    oid = repo.commit(f'refs/pr/{number}', files, parent=parent or head)
                    repo.titles[number] = header['summary']
                    pull_request = f'{self.url}/{repo_id}/discussions/{number}'
                elif parent and parent != head:
                    fail(412, 'A commit has happened since. Please refresh and try again.')
                else:
                    oid, pull_request = repo.commit(revision, files), None
            return self.after_commit(jsonify(
                success=True, commitOid=oid, commitUrl=f'{self.url}/{repo_id}/commit/{oid}',
                pullRequestUrl=pull_request))

        @app.get('/api/models/<owner>/<name>/discussions')
        def discussions(owner, name):
            titles = readable(f'{owner}/{name}').titles
            return jsonify(count=len(titles), start=0, discussions=[
                {
                    'num': number, 'title': title, 'status': 'open', 'isPullRequest': True,
                    'author': {'name': 'write'}, 'createdAt': '2026-01-01T00:00:00.000Z',
                    'repo': {'name': f'{owner}/{name}', 'type': 'model'},
                }
                for number, title in titles.items()])

        @app.get('/<owner>/<name>/resolve/<path:revision_and_path>')  # and HEAD
        def resolve(owner, name, revision_and_path):
            repo = readable(f'{owner}/{name}')
            revision = next(
                (ref for ref in repo.refs if revision_and_path.startswith(ref + '/')),
                revision_and_path.split('/')[0])
            oid = oid_of(repo, revision)
            path = revision_and_path[len(revision) + 1:]
            headers = {'X-Repo-Commit': oid}
            if path not in repo.commits[oid]:
                headers.update({'X-Error-Code': 'EntryNotFound', 'Content-Type': 'text/plain'})
                abort(make_response('Entry not found', 404, headers))
            content = repo.commits[oid][path]
            if isinstance(content, str):
                response = redirect(f'{self.storage}/lfs/{content}')
                size = len(self.objects[content])
                response.headers.update({**headers, 'X-Linked-Etag': f'"{content}"', 'X-Linked-Size': str(size)})
                return response
            response = Response(content, headers=headers, mimetype='text/plain')
            response.set_etag(sha1(content))
            return response.make_conditional(request, accept_ranges=True, complete_length=len(content))

        return app
