"""What tests/test-server.py stands on: a server process, requests over sockets, and TAP."""
import atexit, base64, hashlib, http.client, json, os, re, shutil, signal, socket, struct, subprocess, sys, tempfile, threading, time
import traceback, zlib
from pathlib import Path

SOURCE, BUILD = Path(os.environ['FK_SOURCE']), Path(os.environ['FK_BUILD'])
MODEL = SOURCE / 'examples/demo-model/checkpoint'
TOOL = BUILD / 'examples/fluxkontext-server'
SCRATCH = Path(tempfile.mkdtemp())
servers = []
count = failed = 0


@atexit.register
def leave():
    """A server that a failed case left would hold the output open, and whoever reads it."""
    for server in servers:
        server.process.kill()
        server.process.wait()
    shutil.rmtree(SCRATCH, ignore_errors=True)


def check(name, test):
    """Runs test(); a case of TAP."""
    global count, failed
    count += 1
    try:
        test()
        print(f'ok {count} /server/{name}', flush=True)
    except Exception:
        failed += 1
        print(f'not ok {count} /server/{name}', flush=True)
        print('# ' + traceback.format_exc().replace('\n', '\n# '), flush=True)


def skip(name, reason):
    global count
    count += 1
    print(f'ok {count} /server/{name} # SKIP {reason}', flush=True)


def done():
    print(f'1..{count}')
    sys.exit(1 if failed else 0)


def wait_for(what, test, seconds=60):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = test()
        if value: return value
        time.sleep(0.02)
    raise AssertionError(f'{what}: not within {seconds} s')


def png(width=32, height=32, alpha=None):
    extra = () if alpha is None else (alpha,)
    return png_of(width, height, lambda x, y: ((200 + x * 3 + y) % 256, (120 + y * 5) % 256, (40 + x + y) % 256,
                                               *extra))


def png_of(width, height, pixel):
    rows = b''.join(b'\0' + b''.join(bytes(pixel(x, y)) for x in range(width)) for y in range(height))
    def chunk(kind, data): return struct.pack('>I', len(data)) + kind + data + struct.pack('>I',
                                                                                           zlib.crc32(kind + data))
    return (b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', struct.pack('>IIBBBBB', width, height, 8,
                                                              6 if len(pixel(0, 0)) == 4 else 2, 0, 0, 0)) +
            chunk(b'IDAT', zlib.compress(rows)) + chunk(b'IEND', b''))


def b64(data): return base64.b64encode(data).decode()


def multipart(fields):
    """Fields: (name, text) or (name, (file name, bytes))."""
    parts = []
    for name, value in fields:
        head = f'Content-Disposition: form-data; name="{name}"'
        if isinstance(value, tuple): head, value = f'{head}; filename="{value[0]}"', value[1]
        else: value = value.encode() if isinstance(value, str) else value
        parts.append(b'--frontier\r\n' + head.encode() + b'\r\n\r\n' + value + b'\r\n')
    return 'multipart/form-data; boundary=frontier', b''.join(parts) + b'--frontier--\r\n'


class Answer:
    def __init__(self, response):
        self.status, self.headers, self.body = response.status, response.headers, response.read()
    @property
    def json(self): return json.loads(self.body)
    @property
    def code(self): return self.json['error']['code']
    def __repr__(self): return f'{self.status} {self.body[:300]!r}'


class Server:
    def __init__(self, *arguments, model=MODEL, backend='cpu', ready=True, environment=None, port=0):
        model = ['-m', str(model)] if model else []
        self.errors = open(SCRATCH / f'server-{time.monotonic_ns()}.log', 'w+')
        # run from the scratch folder, so that core dumps and files stay there
        self.process = subprocess.Popen([TOOL, *model, '-l', f'127.0.0.1:{port}', *arguments, f'backend={backend}'],
                                        cwd=SCRATCH, stdout=subprocess.DEVNULL, stderr=self.errors,
                                        env={**os.environ, **(environment or {})})
        servers.append(self)
        self.port = int(wait_for('listening', self.find_port))
        if ready: wait_for('ready', lambda: self.get('/readyz').status == 200)

    def log(self): return Path(self.errors.name).read_text()

    def find_port(self):
        if self.process.poll() is not None: raise AssertionError(f'the server ended: {self.log()}')
        found = re.search(r'http://127\.0\.0\.1:(\d+)/', self.log())
        return found and found[1]

    def request(self, method, path, body=None, type='application/json', timeout=120, **headers):
        connection = http.client.HTTPConnection('127.0.0.1', self.port, timeout=timeout)
        if isinstance(body, (dict, list)): body = json.dumps(body)
        fields = {'Content-Type': type} if body is not None and type else {}
        fields.update({name.replace('_', '-'): value for name, value in headers.items()})
        connection.request(method, path, body, fields)
        answer = Answer(connection.getresponse())
        connection.close()
        return answer

    def get(self, path, **headers): return self.request('GET', path, **headers)
    def post(self, path, body, type='application/json', **headers): return self.request('POST', path, body, type,
                                                                                        **headers)

    def form(self, path, fields, **headers):
        type, body = multipart(fields)
        return self.post(path, body, type, **headers)

    def connect(self, text=b''):
        plug = socket.create_connection(('127.0.0.1', self.port), timeout=60)
        if text: plug.sendall(text if isinstance(text, bytes) else text.encode())
        return plug

    def raw(self, text):
        """What comes back until the server closes."""
        with self.connect(text) as plug:
            answer = b''
            try:
                while True:
                    data = plug.recv(65536)
                    if not data: break
                    answer += data
            except (ConnectionResetError, BrokenPipeError): pass
            return answer

    def start(self, **fields):
        """A job in the background; its id."""
        body = {'prompt': 'make it night', 'image': b64(png()), 'async': True, 'max_area': 4096, **fields}
        answer = self.post('/v1/edits', body)
        assert answer.status == 202, answer
        return answer.json['id']

    def job(self, id): return self.get(f'/v1/jobs/{id}').json

    def wait(self, id, *states):
        return wait_for(f'job {states}', lambda: (lambda j: j if j['status'] in states else None)(self.job(id)))

    def health(self): return self.get('/health').json

    def metric(self, line):
        for row in self.get('/metrics').body.decode().splitlines():
            if row.startswith(line + ' '): return float(row.rsplit(' ', 1)[1])
        raise AssertionError(f'no metric {line}')

    def end(self, status=0, number=signal.SIGTERM, seconds=60):
        self.process.send_signal(number)
        got = self.process.wait(seconds)
        assert got == status, f'exit status {got}: {self.log()}'
        # libsoup warns of clients that are gone before it looks at them
        for word in ('CRITICAL', 'Sanitizer', 'GLib-'): assert word not in self.log(), self.log()


def events(data):
    """(name, data) of each event of a stream."""
    found = []
    for block in data.decode().split('\n\n'):
        lines = dict(line.split(': ', 1) for line in block.splitlines() if ': ' in line and not line.startswith(':'))
        if 'event' in lines: found.append((lines['event'], json.loads(lines['data'])))
    return found
