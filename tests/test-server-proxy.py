#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Two servers behind the proxies of examples/deploy: one is killed while it works and started again, then the other one
is told to end. A client that repeats what was refused has every result, with its bytes. An argument is the number of
edits, 120 without. Skipped for each proxy that is not there."""
import os, queue, shutil, sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from server_util import *

EDITS = int(sys.argv[1]) if sys.argv[1:] else 120
CLIENTS, SEEDS = 12, 4
PATH = os.environ['PATH'] + ':/usr/sbin'
# meson's filling of memory is not for programs that are not ours: HAProxy's large buffers would be all it does
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != 'MALLOC_PERTURB_'}


held = []


def free_port():
    """Held, so that nobody who wants any port gets it: those who name it may listen beside one who does not."""
    plug = socket.socket()
    plug.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    plug.bind(('127.0.0.1', 0))
    held.append(plug)
    return plug.getsockname()[1]


def replaced(name, words):
    text = (SOURCE / 'examples/deploy' / name).read_text()
    for old, new in words.items():
        assert old in text, (name, old)
        text = text.replace(old, str(new))
    return text


class Haproxy:
    name = 'haproxy'

    def __init__(self, program, port, servers):
        path = SCRATCH / 'haproxy.cfg'
        path.write_text(replaced('haproxy.cfg', {'127.0.0.1:8080': f'127.0.0.1:{port}',
                                                 '127.0.0.1:8000': f'127.0.0.1:{servers[0]}',
                                                 '127.0.0.1:8001': f'127.0.0.1:{servers[1]}'}))
        subprocess.run([program, '-c', '-f', path], check=True, capture_output=True)
        self.process = subprocess.Popen([program, '-db', '-f', path], env=ENVIRONMENT, stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL)


class Nginx:
    name = 'nginx'

    def __init__(self, program, port, servers):
        # without TLS, which needs a certificate
        text = replaced('nginx.conf', {'listen 443 ssl': f'listen 127.0.0.1:{port}', 'ssl_certificate /': '#',
                                       'ssl_certificate_key /': '#',
                                       '127.0.0.1:8000': f'127.0.0.1:{servers[0]}',
                                       '127.0.0.1:8001': f'127.0.0.1:{servers[1]}'})
        temporary = ''.join(f'{name}_temp_path {SCRATCH}/nginx-{name};\n' for name in
                            ('client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'))
        path = SCRATCH / 'nginx.conf'
        path.write_text(f'daemon off; master_process off; pid {SCRATCH}/nginx.pid; error_log {SCRATCH}/nginx.log;\n'
                        f'events {{}}\nhttp {{\naccess_log off;\n{temporary}{text}}}\n')
        command = [program, '-e', SCRATCH / 'nginx.log', '-c', path]
        subprocess.run([*command, '-t'], check=True, capture_output=True)
        self.process = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


class Client:
    """Repeats what is refused or breaks; counts why."""
    def __init__(self, port):
        self.port, self.told, self.lock = port, {}, threading.Lock()

    def tell(self, word):
        with self.lock: self.told[word] = self.told.get(word, 0) + 1

    def ask(self, method, path, body=None, **headers):
        connection = http.client.HTTPConnection('127.0.0.1', self.port, timeout=120)
        try:
            connection.request(method, path, body, {'Content-Type': 'application/json', **headers})
            return Answer(connection.getresponse())
        except (OSError, http.client.HTTPException): return None
        finally: connection.close()

    def once(self, seed, detached):
        """The picture, or None: ask again."""
        body = {'prompt': 'make it night', 'image': b64(png()), 'steps': 2, 'max_area': 4096, 'seed': seed,
                'async': detached}
        first = self.ask('POST', '/v1/edits', json.dumps(body), Accept='image/png')
        if first is None or first.status not in (200, 202): return self.again('edit', first)
        if not detached: return first.body
        self.tell('accepted')
        id = first.json['id']
        while True:
            job = self.ask('GET', f'/v1/jobs/{id}')
            if job is None or job.status != 200: return self.again('job', job)
            if job.json['status'] == 'done': break
            if job.json['status'] in ('failed', 'cancelled'): return self.again('state', job)
            time.sleep(0.02)
        result = self.ask('GET', f'/v1/jobs/{id}/result')
        return result.body if result and result.status == 200 else self.again('result', result)

    def again(self, what, answer):
        self.tell(f'{what} {answer.status if answer else "broken"}')
        assert answer is None or answer.status in (404, 409, 429, 500, 502, 503, 504), answer
        time.sleep(0.1)

    def edit(self, seed, detached):
        for _ in range(300):
            picture = self.once(seed, detached)
            if picture: return picture
        raise AssertionError(f'no result after 300 tries: {self.told}')


def run_all(client, done, over):
    """done(n): called as results come. The last of the edits wait until it is over()."""
    work, results, problems = queue.Queue(), {}, []
    for i in range(EDITS): work.put(i)
    def loop():
        while True:
            try: i = work.get_nowait()
            except queue.Empty: return
            while i >= EDITS * 7 // 8 and not over(): time.sleep(0.02)
            try: results[i] = client.edit(i % SEEDS, i % 2 == 1)
            except Exception as e: problems.append(repr(e))
    threads = [threading.Thread(target=loop, daemon=True) for _ in range(CLIENTS)]
    for thread in threads: thread.start()
    while any(thread.is_alive() for thread in threads):
        done(len(results))
        time.sleep(0.02)
    assert not problems, problems
    return results


def behind(kind, program):
    ports = [free_port(), free_port()]
    def start(i): return Server('--instance', f'gpu{i}', '--queue', '8', '--drain', '60', port=ports[i])
    servers = [start(0), start(1)]
    want = [servers[0].post('/v1/edits', {'prompt': 'make it night', 'image': b64(png()), 'steps': 2, 'max_area': 4096,
                                          'seed': seed}, Accept='image/png').body for seed in range(SEEDS)]
    port = free_port()
    proxy = kind(program, port, ports)
    client = Client(port)
    wait_for(kind.name, lambda: (lambda a: a and a.status == 200)(client.ask('GET', '/livez')))
    steps = []

    def trouble(n):
        if not steps and n >= EDITS // 4:
            wait_for('work', lambda: servers[0].health()['queue']['running'])
            servers[0].process.kill()
            servers[0].process.wait()
            steps.append('killed')
        elif steps == ['killed'] and n >= EDITS // 2:
            servers[0] = start(0)
            steps.append('started')
        elif steps == ['killed', 'started'] and n >= EDITS * 3 // 4:
            servers[1].process.send_signal(signal.SIGTERM)
            steps.append('drained')

    def all_arrive():
        results = run_all(client, trouble, lambda: len(steps) == 3)
        print(f'# {kind.name}: {len(results)} edits, {client.told}', flush=True)
        assert steps == ['killed', 'started', 'drained'], steps
        assert servers[1].process.wait(60) == 0, servers[1].log()
        assert len(results) == EDITS and all(results[i] == want[i % SEEDS] for i in results)
    try: check(f'proxy/{kind.name}', all_arrive)
    finally:
        proxy.process.terminate()
        proxy.process.wait(60)
        for server in servers: server.process.kill()


for kind in (Haproxy, Nginx):
    program = shutil.which(kind.name, path=PATH)
    if program: behind(kind, program)
    else: skip(f'proxy/{kind.name}', f'there is no {kind.name}')
done()
