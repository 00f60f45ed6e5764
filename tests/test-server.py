#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""fluxkontext-server from outside, with Python's standard library alone. tests/golden/server has requests as the openai
package 3.57.0 sent them. One group of cases for each argument, all without."""
import hashlib, os, random, signal, socket, subprocess, sys, threading, time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from server_util import *
import server_util

RECORDED = SOURCE / 'tests/golden/server'
EDIT = BUILD / 'examples/fluxkontext-edit-image'
FEW = {'steps': 2, 'max_area': 4096}


def recorded(server, name):
    data = (RECORDED / f'{name}.http').read_bytes().replace(b'Connection: keep-alive', b'Connection: close')
    answer = server.raw(data)
    head, body = answer.split(b'\r\n\r\n', 1)
    return int(head.split()[1]), head.decode(), body


def unchunk(body):
    data = b''
    while body:
        size, body = body.split(b'\r\n', 1)
        data += body[:int(size, 16)]
        body = body[int(size, 16) + 2:]
    return data


def picture_of_recorded(name):
    data = (RECORDED / f'{name}.http').read_bytes()
    start = data.index(b'\x89PNG')
    return data[start:data.index(b'IEND', start) + 8]


# ---- The same bytes by every way ----

def same_bytes():
    server = Server('--name', 'kontext')
    (SCRATCH / 'in.png').write_bytes(picture_of_recorded('single'))
    few = ['steps=2', 'max-area=4096', 'seed=1', 'backend=cpu']
    subprocess.run([EDIT, '-m', MODEL, '-p', 'make it night', 'in.png', 'want.png', *few], cwd=SCRATCH, check=True,
                   capture_output=True)
    want = (SCRATCH / 'want.png').read_bytes()
    answers = {}

    def single():
        status, head, body = recorded(server, 'single')
        answer = json.loads(body)
        assert status == 200 and answer['output_format'] == 'png' and answer['size'] == '64x48', head
        fk = answer['data'][0]['fk']
        assert fk['seed'] == 1 and fk['evaluations'] == 2 and fk['ms']['edit'] > 0, fk
        assert fk['manifest']['settings']['seed'] == '1' and fk['sha256'] in json.dumps(fk['manifest']), fk
        answers['single'] = base64.b64decode(answer['data'][0]['b64_json'])
        assert answers['single'] == want
    check('recorded/single', single)

    def stream():
        status, head, body = recorded(server, 'stream')
        assert status == 200 and 'text/event-stream' in head, head
        found = events(unchunk(body))
        assert [name for name, _ in found] == ['image_edit.completed'], found
        data = found[0][1]
        assert data['type'] == 'image_edit.completed' and data['usage']['input_tokens_details']['text_tokens'] == 0
        assert base64.b64decode(data['b64_json']) == want
    check('recorded/stream', stream)

    def multi():
        # Two pictures, of which the second is a reference, a mask, two results.
        status, head, body = recorded(server, 'multi')
        assert status == 200, body
        assert [d['fk']['seed'] for d in json.loads(body)['data']] == [7, 8]
        (SCRATCH / 'multi.png').write_bytes(base64.b64decode(json.loads(body)['data'][0]['b64_json']))
        recording = (RECORDED / 'multi.http').read_bytes()
        for i, name in enumerate(('first', 'second', 'mask')):
            start = recording.index(b'\x89PNG')
            end = recording.index(b'IEND', start) + 8
            (SCRATCH / f'{name}.png').write_bytes(recording[start:end])
            recording = recording[end:]
        # The tool's mask is white where the picture is edited.
        subprocess.run(['convert', 'mask.png', '-alpha', 'extract', '-negate', 'white.png'], cwd=SCRATCH, check=True)
        run = subprocess.run([EDIT, '-m', MODEL, '-p', 'mach es größer – 夜', '--mask', 'white.png', '--reference',
                              'second.png', 'first.png',
                              'tool.png', 'seed=7', 'steps=2', 'max-area=4096', 'negative-prompt=blur', 'backend=cpu'],
                             cwd=SCRATCH,
                             capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
        assert pixels('multi.png') == pixels('tool.png')
        assert 'X-Fk-Ignored: quality, background, user' in head, head
    check('recorded/multi', multi)

    def as_json():
        url = 'data:image/png;base64,' + b64(picture_of_recorded('single'))
        body = {'prompt': 'make it night', 'images': [{'image_url': url}], 'seed': 1, **FEW}
        for images in ({'images': [{'image_url': url}]}, {'image': url}, {'input_reference': url.split(',')[1]}):
            answer = server.post('/v1/images/edits', {'prompt': 'make it night', 'seed': 1, **FEW, **images})
            assert answer.status == 200 and base64.b64decode(answer.json['data'][0]['b64_json']) == want, answer
    check('same-bytes/json', as_json)

    def job():
        id = server.start(image=b64(picture_of_recorded('single')), seed='1', **FEW)
        done = server.wait(id, 'done', 'failed')
        assert server.get(f'/v1/jobs/{id}/result').body == want
        url = done['results'][0]['url']
        answer = server.get(url[url.index('/v1/files/'):])
        assert answer.body == want and answer.headers['Content-Type'] == 'image/png'
        assert done['results'][0]['fk']['sha256'] == hashlib.sha256(pixels('want.png')).hexdigest()
    check('same-bytes/job', job)

    def several():
        answer = server.post('/v1/images/edits',
                             {'prompt': 'make it night', 'image': b64(picture_of_recorded('single')),
                                                  'seed': 0, 'n': 2, **FEW})
        data = answer.json['data']
        assert [d['fk']['seed'] for d in data] == [0, 1] and base64.b64decode(data[1]['b64_json']) == want
    check('same-bytes/second-of-two', several)

    def element():
        run = subprocess.run(['gst-launch-1.0', '-q', 'filesrc', 'location=in.png', '!', 'pngdec', '!', 'videoconvert',
                              '!',
                              'fluxkontextedit', f'model-path={MODEL}', 'prompt=make it night', *few, '!',
                              'videoconvert', '!',
                              'pngenc', '!', 'filesink', 'location=element.png'], cwd=SCRATCH, capture_output=True,
                             text=True)
        assert run.returncode == 0, run.stderr
        assert pixels('element.png') == pixels('want.png')
    check('same-bytes/element', element)

    def batch():
        # Equal settings share an edit; each result is the one that it has alone.
        slow = server.start(steps=300)
        server.wait(slow, 'running')
        ids = [server.start(image=b64(picture_of_recorded('single')), seed=seed, **FEW) for seed in (1, 2, 3)]
        other = server.start(image=b64(picture_of_recorded('single')), seed=1, steps=1)
        server.request('DELETE', f'/v1/jobs/{slow}')
        for id in ids + [other]: server.wait(id, 'done')
        files = [server.get(f'/v1/jobs/{id}/result').body for id in ids]
        assert files[0] == want and len(set(files)) == 3
    check('same-bytes/batch', batch)

    def sizes():
        answer = server.post('/v1/images/edits', {'prompt': 'x', 'image': b64(png(40, 24)), 'size': '64x32', **FEW})
        assert answer.json['size'] == '64x32'
        for format, magic in (('jpeg', b'\xff\xd8\xff'), ('png', b'\x89PNG')):
            answer = server.post('/v1/images/edits', {'prompt': 'x', 'image': b64(png()), 'output_format': format,
                                                      'output_compression': 80, **FEW})
            assert base64.b64decode(answer.json['data'][0]['b64_json']).startswith(magic), answer
        answer = server.post('/v1/images/edits', {'prompt': 'x', 'image': b64(png(alpha=9)), 'output_format': 'jpeg',
                                                  **FEW})
        assert answer.status == 400 and answer.code == 'invalid_value', answer
        answer = server.post('/v1/images/edits', {'prompt': 'x', 'image': b64(png(alpha=9)), **FEW})
        assert answer.status == 200, answer
    check('sizes-and-formats', sizes)

    def masks():
        # Kept where the mask is opaque, whatever the edit makes of the rest.
        alpha = lambda inside: png_of(64, 48, lambda x, y: (0, 0, 0, 0 if inside(x, y) else 255))
        fields = {'prompt': 'make it night', 'image': b64(picture_of_recorded('single')), **FEW}
        left = server.post('/v1/images/edits', {**fields, 'mask': b64(alpha(lambda x, y: x < 32))})
        assert left.status == 200, left
        (SCRATCH / 'left.png').write_bytes(base64.b64decode(left.json['data'][0]['b64_json']))
        before, after = rows('in.png', 64), rows('left.png', 64)
        assert all(a[96:] == b[96:] for a, b in zip(before, after)) and any(
            a[:96] != b[:96] for a, b in zip(before, after))
        # The same as A1111 has it: white is edited.
        white = png_of(64, 48, lambda x, y: (255,) * 3 if x < 32 else (0,) * 3)
        answer = server.post('/sdapi/v1/img2img', {'prompt': 'make it night', 'init_images': [fields['image']],
                                                   'mask': b64(white),
                                                   'steps': 2, 'seed': 0})
        (SCRATCH / 'white.png').write_bytes(base64.b64decode(answer.json['images'][0]))
        assert all(a[96:] == b[96:] for a, b in zip(before, rows('white.png', 64)))
        for mask in (png(32, 32, alpha=0), png(64, 48)):  # another size, no transparency
            answer = server.post('/v1/images/edits', {**fields, 'mask': b64(mask)})
            assert answer.status == 400 and answer.code == 'invalid_image', answer
            assert answer.json['error']['param'] == 'mask', answer
    check('masks', masks)

    def previews():
        fields = {'prompt': 'make it night', 'image': b64(picture_of_recorded('single')), 'seed': 1, 'max_area': 4096,
                  'steps': 8}
        plain = server.post('/v1/images/edits', fields).json['data'][0]['b64_json']
        answer = server.post('/v1/images/edits', {**fields, 'stream': True, 'partial_images': 2})
        found = events(answer.body)
        assert [name for name, _ in found] == ['image_edit.partial_image'] * 2 + ['image_edit.completed'], found
        assert [data['partial_image_index'] for _, data in found[:2]] == [0, 1] and found[2][1]['b64_json'] == plain
        assert server.post('/v1/images/edits', {**fields, 'partial_images': 2}).code == 'invalid_value'
        id = server.start(steps=8, partial_images=7)
        names = [name for name, _ in events(server.get(f'/v1/jobs/{id}/events').body)]
        assert names.count('preview') == 7, names
    check('previews', previews)

    def picture():
        body = {'prompt': 'make it night', 'image': b64(picture_of_recorded('single')), 'seed': 1, **FEW}
        answer = server.post('/v1/edits', body, Accept='image/png')
        assert answer.headers['Content-Type'] == 'image/png' and answer.body == want
    check('same-bytes/picture', picture)

    def generate():
        answer = server.post('/v1/images/generations', {'prompt': 'a cup', 'size': '64x64', **FEW})
        assert answer.status == 200 and answer.json['size'] == '64x64', answer
        answer = server.post('/v1/images/generations', {'prompt': 'a cup', 'size': '64x64', 'image': b64(png()), **FEW})
        assert answer.status == 400, answer
    check('generations', generate)
    check('same-bytes/ends', server.end)


def rows(name, width):
    data = pixels(name)
    return [data[i:i + 3 * width] for i in range(0, len(data), 3 * width)]


def pixels(name):
    return subprocess.run(['convert', name, '-depth', '8', 'rgb:-'], cwd=SCRATCH, check=True,
                          capture_output=True).stdout


# ---- Jobs ----

def jobs():
    server = Server('--queue', '3', '--batch', '1')

    def progress():
        id = server.start(steps=40)
        answer = server.get(f'/v1/jobs/{id}/events')
        found = events(answer.body)
        names = [name for name, _ in found]
        assert names[0] == 'queued' and names[-1] == 'done' and 'progress' in names, names
        steps = [data['current'] for name, data in found if name == 'progress' and data['stage'] == 'step']
        assert steps == sorted(steps) and steps[-1] == 40, steps
        ids = [int(line[4:]) for line in answer.body.decode().splitlines() if line.startswith('id: ')]
        assert ids == list(range(len(ids)))
        again = server.get(f'/v1/jobs/{id}/events', Last_Event_ID=str(ids[-3]))
        assert events(again.body) == found[-2:]
    check('jobs/events', progress)

    def cancel():
        id = server.start(steps=1000)
        server.wait(id, 'running')
        assert server.request('DELETE', f'/v1/jobs/{id}').json['status'] == 'cancelled'
        assert server.get(f'/v1/jobs/{id}/result').status == 409
        wait_for('idle', lambda: server.health()['queue']['running'] == 0)
        assert events(server.get(f'/v1/jobs/{id}/events').body)[-1][0] == 'error'
        assert server.metric('fluxkontext_jobs_total{api="native",result="cancelled"}') >= 1
        # The next one runs.
        server.wait(server.start(steps=1), 'done')
    check('jobs/cancel', cancel)

    def full():
        slow = server.start(steps=1000)
        server.wait(slow, 'running')
        waiting = [server.start(steps=1, seed=i) for i in range(3)]
        assert server.job(waiting[2])['status'] == 'queued'
        for path in ('/v1/images/edits', '/v1/edits'):
            answer = server.post(path, {'prompt': 'x', 'image': b64(png())})
            assert answer.status == 429 and answer.code == 'queue_full', answer
            assert answer.json['error']['type'] == 'rate_limit_error', answer
            assert int(answer.headers['Retry-After']) >= 1
        # Told before the body: with Expect nothing of it is sent.
        with server.connect('POST /v1/images/edits HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n'
                            'Content-Type: application/json\r\nExpect: 100-continue\r\n\r\n') as plug:
            assert plug.recv(4096).startswith(b'HTTP/1.1 429 ')
        server.request('DELETE', f'/v1/jobs/{waiting[1]}')
        server.request('DELETE', f'/v1/jobs/{slow}')
        assert [server.wait(id, 'done', 'cancelled')['status'] for id in waiting] == ['done', 'cancelled', 'done']
        assert server.metric('fluxkontext_rejected_total{reason="queue_full"}') == 3
    check('jobs/queue-full', full)

    def vanish():
        body = json.dumps({'prompt': 'x', 'image': b64(png()), 'steps': 1000, 'max_area': 4096})
        open_before = server.metric('process_open_fds')
        for api, path in (('openai', '/v1/images/edits'), ('native', '/v1/edits')):
            head = (f'POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n'
                    f'Content-Length: {len(body)}\r\n\r\n')
            plug = server.connect(head + body)
            wait_for('running', lambda: server.health()['queue']['running'] == 1)
            before = server.metric('fluxkontext_jobs_total{api="%s",result="cancelled"}' % api)
            plug.close()
            wait_for('idle', lambda: server.health()['queue']['running'] == 0)
            assert server.metric('fluxkontext_jobs_total{api="%s",result="cancelled"}' % api) == before + 1
        # Nor does anything stay of those who leave amid a request, or of those who leave while their job waits.
        wait_for('closed', lambda: server.metric('process_open_fds') <= open_before)
        for end in (0, 30, 300):
            for _ in range(5): server.connect((head + body)[:end]).close()
        wait_for('closed', lambda: server.metric('process_open_fds') <= open_before)
        # A detached job goes on, also when who listened to it leaves.
        id = server.start(steps=60)
        with server.connect(f'GET /v1/jobs/{id}/events HTTP/1.1\r\nHost: localhost\r\n\r\n') as plug: plug.recv(100)
        server.wait(id, 'done')
    check('jobs/client-vanishes', vanish)

    def idempotency():
        body = {'prompt': 'x', 'image': b64(png()), 'seed': 5, **FEW}
        first = server.post('/v1/edits', {**body, 'async': True}, Idempotency_Key='k1')
        again = server.post('/v1/edits', {**body, 'async': True}, Idempotency_Key='k1')
        assert first.status == again.status == 202 and first.json['id'] == again.json['id'], again
        other = server.post('/v1/edits', {**body, 'seed': 6, 'async': True}, Idempotency_Key='k1')
        assert other.status == 422 and other.code == 'idempotency_mismatch', other
        fields = [('prompt', 'x'), ('image', ('a.png', png())), ('seed', '5'), ('steps', '2'), ('max_area', '4096')]
        a, b = (server.form('/v1/images/edits', fields, Idempotency_Key='k2') for _ in range(2))
        assert a.status == b.status == 200 and a.headers['X-Fk-Job'] == b.headers['X-Fk-Job'] and a.json == b.json
        assert server.post('/v1/edits', body, Idempotency_Key='x' * 256).status == 400
    check('jobs/idempotency', idempotency)

    def missing():
        for path in ('/v1/jobs/' + '0' * 32, '/v1/jobs/x/result', '/v1/jobs/x/events', '/v1/files/x',
                     '/v1/files/' + '0' * 32 + '-0.png'):
            assert server.get(path).status == 404, path
        for path in ('/v1/files/..%2f..%2fetc%2fpasswd', '/v1/files/../../etc/passwd', '/v1/files/%2e%2e'):
            assert server.get(path).status in (400, 404), path
        assert server.request('DELETE', '/v1/jobs/x').status == 404
    check('jobs/missing', missing)
    check('jobs/ends', server.end)

    server = Server('--keep-results', '4', '--timeout', '2')
    def expiry():
        id = server.start(steps=1)
        server.wait(id, 'done')
        wait_for('forgotten', lambda: server.get(f'/v1/jobs/{id}').status == 404)
    check('jobs/results-expire', expiry)

    def timeout():
        answer = server.post('/v1/images/edits', {'prompt': 'x', 'image': b64(png()), 'steps': 1000,
                                                  'true_cfg_scale': 2,
                                                  'negative_prompt': 'y', 'max_area': 65536})
        assert answer.status == 504 and answer.code == 'timeout' and answer.headers['x-should-retry'] == 'false', answer
    check('jobs/timeout', timeout)
    check('jobs/ends', server.end)


# ---- What is kept ----

def kept():
    server = Server('--instance', 'gpu0', '--keep-memory', '1', '--output-dir', str(SCRATCH), model=None,
                    backend='null')

    def instance():
        id = server.start()
        url = server.wait(id, 'done')['results'][0]['url']
        path = url[url.index('/v1/files/'):]
        assert id.startswith('gpu0-') and path.startswith('/v1/files/gpu0-') and server.get(path).status == 200, (id,
                                                                                                                  url)
        name = path.rsplit('/', 1)[1]
        (SCRATCH / name.replace('gpu0', 'gpu1')).write_bytes(b'x')  # another server's, in the same folder
        assert server.get(path.replace('gpu0', 'gpu1')).body == b'x'
        for wrong in ('gpu0', name[5:], name.replace('-', '--'), 'a' * 33 + name[4:], name.replace('gpu0', 'gpu.')):
            assert server.get(f'/v1/files/{wrong}').status == 404, wrong
    check('kept/instance', instance)

    def memory():
        # Of what a job keeps, its texts count too, not only the result.
        ids = []
        for _ in range(50):  # one after the other: the queue is shorter
            ids.append(server.start(prompt='x' * 32000))
            server.wait(ids[-1], 'done')
        wait_for('forgotten', lambda: server.get(f'/v1/jobs/{ids[0]}').status == 404)
        assert server.job(ids[-1])['status'] == 'done'
    check('kept/memory', memory)
    check('kept/ends', server.end)


# ---- Life ----

def life():
    def drain():
        server = Server('--drain', '600')
        plug = []
        # The job must still run when the request after the signal is answered.
        def ask(): plug.append(server.post('/v1/images/edits', {'prompt': 'x', 'image': b64(png()), 'steps': 300,
                                                                'max_area': 4096}))
        thread = threading.Thread(target=ask)
        thread.start()
        wait_for('running', lambda: server.health()['queue']['running'] == 1)
        server.process.send_signal(signal.SIGTERM)
        # A request that comes before the signal has been heard is a job like any other: ask for the state first.
        wait_for('ending', lambda: server.get('/readyz').status == 503)
        answer = server.post('/v1/images/edits', {'prompt': 'x', 'image': b64(png())})
        assert answer.status == 503 and answer.code == 'shutting_down' and answer.headers['Retry-After'], answer
        thread.join()
        assert plug[0].status == 200, plug[0]
        assert server.process.wait(60) == 0, server.log()
    check('life/drain', drain)

    def few_step():
        server = Server('preset=few-step')
        assert 'loras changes nothing' in server.log() and 'prompt' not in server.log(), server.log()
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(60) == 0, server.log()
    check('life/few-step-wants-an-adapter', few_step)

    def term_amid():
        server = Server('--drain', '0')
        plug = []
        def ask(): plug.append(server.post('/v1/images/edits', {'prompt': 'x', 'image': b64(png()), 'steps': 1000,
                                                                'max_area': 4096}))
        thread = threading.Thread(target=ask)
        thread.start()
        wait_for('running', lambda: server.health()['queue']['running'] == 1)
        server.end()
        thread.join()
        assert plug[0].status == 503 and plug[0].code == 'shutting_down', plug[0]
    check('life/term-amid-an-edit', term_amid)

    def idle():
        server = Server('--exit-idle', '4', backend='null')
        assert server.process.wait(60) == 0
    check('life/exit-idle', idle)

    def mxfp4():
        server = Server('quantization=mxfp4', backend='null')
        body = {'prompt': 'make it night', 'image': b64(png()), 'steps': 1, 'max_area': 4096}
        for wish in ({}, {'use_mxfp4': True}):
            answer = server.post('/inference', {**body, **wish})
            assert answer.status == 200 and answer.json['optimizations']['mxfp4'] == 'active', answer
        answer = server.post('/inference', {**body, 'use_mxfp4': False})
        assert answer.status == 400 and b'opened with quantization=mxfp4' in answer.body, answer
        server.end()
    check('life/mxfp4', mxfp4)

    def refuses():
        (SCRATCH / 'token').write_text('0123456789abcdef\n')
        (SCRATCH / 'short').write_text('x\n')
        os.chmod(SCRATCH / 'token', 0o644)
        os.chmod(SCRATCH / 'short', 0o600)
        for words, reason in ((['-m', '/nowhere'], '/nowhere'), (['nothing=1'], 'nothing'),
                              (['--queue', '0'], '--queue=0'),
                              (['--listen', '0.0.0.0:0', 'backend=null'], '--token-file'),
                              (['--instance', 'a-b', 'backend=null'], '--instance a-b'),
                              (['--listen', 'example.com:0', 'backend=null'], 'IP address'),
                              (['--token-file', 'token', 'backend=null'], 'mode 644'),
                              (['--token-file', 'short', 'backend=null'], 'at least 16'),
                              (['--output-dir', '/nowhere', 'backend=null'], '/nowhere'),
                              (['again', 'backend=null'], 'again')):
            run = subprocess.run([TOOL, '-l', '127.0.0.1:0', *words], cwd=SCRATCH, capture_output=True, text=True,
                                 timeout=60)
            assert run.returncode == 1 and reason in run.stderr and run.stderr.count('\n') == 1, (words, run)
    check('life/refuses', refuses)

    def unix():
        path = SCRATCH / 'socket'
        for _ in range(2):  # the second finds what the first, killed, left
            process = subprocess.Popen([TOOL, '-l', f'unix:{path}', 'backend=null'], cwd=SCRATCH,
                                       stderr=subprocess.DEVNULL)
            def ask():
                with socket.socket(socket.AF_UNIX) as plug:
                    try: plug.connect(str(path))
                    except OSError: return None
                    plug.sendall(b'GET /livez HTTP/1.1\r\nHost: anything\r\nConnection: close\r\n\r\n')
                    return plug.recv(1000)
            assert wait_for('an answer', ask).startswith(b'HTTP/1.1 200 ')
            process.kill()
            process.wait()
    check('life/unix-socket', unix)

    def activation():
        listener = socket.create_server(('127.0.0.1', 0))
        port = listener.getsockname()[1]
        script = f'exec 3<&{listener.fileno()}; LISTEN_FDS=1 LISTEN_PID=$$ exec {TOOL} -l unix:/nowhere/x backend=null'
        process = subprocess.Popen(['bash', '-c', script], pass_fds=[listener.fileno()], cwd=SCRATCH,
                                   stderr=subprocess.DEVNULL)
        with socket.create_connection(('127.0.0.1', port), timeout=60) as plug:
            plug.sendall(b'GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n')
            assert plug.recv(1000).startswith(b'HTTP/1.1 200 ')
        process.terminate()
        assert process.wait(60) == 0
    check('life/socket-activation', activation)


# ---- Who may ask, and how much ----

def guard():
    (SCRATCH / 'key').write_text('secret-0123456789\n')
    os.chmod(SCRATCH / 'key', 0o600)
    server = Server('--token-file', str(SCRATCH / 'key'), '--host', 'edit.example', '--max-body', '1', '--allow-origin',
                    'https://page.example', backend='null')

    def token():
        for headers in ({}, {'Authorization': 'Bearer wrong'}, {'Authorization': 'Bearer secret-012345678'},
                        {'Authorization': 'Bearer secret-01234567890'}, {'x_key': 'wrong'},
                        {'Authorization': 'Basic !!!'}):
            answer = server.get('/v1/models', **headers)
            assert answer.status == 401 and answer.json['error']['type'] == 'authentication_error', (headers, answer)
        for headers in ({'Authorization': 'Bearer secret-0123456789'}, {'x_key': 'secret-0123456789'},
                        {'Authorization': 'Basic ' + b64(b'user:secret-0123456789')}):
            assert server.get('/v1/models', **headers).status == 200, headers
        for path in ('/health', '/livez', '/readyz'): assert server.get(path).status == 200
        assert server.get('/metrics').status == 401
    check('guard/token', token)

    def machine():
        # Where others may come, who has no token reads nothing of the machine, and nobody its folders.
        mine = {'Authorization': 'Bearer secret-0123456789'}
        assert 'active' not in server.get('/health').json and server.get('/health', **mine).json['active']
        known = Server('--token-file', str(SCRATCH / 'key'), backend='cpu')
        assert known.get('/v1/settings', **mine).json['options']['model-path'] == MODEL.name
        known.end()
        local = Server(backend='cpu')
        assert local.get('/v1/settings').json['options']['model-path'] == str(MODEL)
        local.end()
    check('guard/machine', machine)

    def host():
        for name, status in (('localhost', 200), ('127.0.0.1:1', 200), ('[::1]:8000', 200), ('EDIT.example', 200),
                             ('evil.example', 403), ('localhost.evil', 403), ('', 403)):
            head = server.raw(f'GET /livez HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n')
            assert head.startswith(f'HTTP/1.1 {status} '.encode()), (name, head)
        assert server.raw('GET /livez HTTP/1.0\r\n\r\n').split(b' ')[1] == b'403'
    check('guard/host', host)

    def origin():
        assert server.get('/livez', Origin='https://evil.example').status == 403
        assert server.get('/livez', Origin=f'http://127.0.0.1:{server.port}').status == 200
        answer = server.get('/livez', Origin='https://page.example')
        assert answer.headers['Access-Control-Allow-Origin'] == 'https://page.example'
        answer = server.request('OPTIONS', '/v1/images/edits', Origin='https://page.example')
        assert answer.status == 204 and 'Authorization' in answer.headers['Access-Control-Allow-Headers'], answer
    check('guard/origin', origin)

    def sizes():
        key = 'x-key: secret-0123456789\r\nHost: localhost\r\nContent-Type: application/json\r\n'
        head = f'POST /v1/edits HTTP/1.1\r\n{key}Content-Length: 3000000\r\n'
        with server.connect(head + 'Expect: 100-continue\r\n\r\n') as plug:
            assert plug.recv(4096).startswith(b'HTTP/1.1 413 ')
        with server.connect(head + '\r\n') as plug:
            try: plug.sendall(b'x' * 3000000)
            except OSError: pass
            assert plug.recv(4096).startswith(b'HTTP/1.1 413 ')
        # Chunks: cut off where the limit is passed.
        with server.connect(f'POST /v1/edits HTTP/1.1\r\n{key}Transfer-Encoding: chunked\r\n\r\n') as plug:
            sent = 0
            try:
                while sent < 64 << 20:
                    plug.sendall(b'10000\r\n' + b'x' * 65536 + b'\r\n')
                    sent += 65536
            except OSError: pass
            assert sent < 32 << 20, sent
        assert server.get('/livez').status == 200
        assert server.metric_with_key('fluxkontext_rejected_total{reason="too_large"}') >= 2
    server.metric_with_key = lambda line: next(float(row.rsplit(' ', 1)[1]) for row in server.get(
        '/metrics', x_key='secret-0123456789').body.decode().splitlines() if row.startswith(line))
    check('guard/body-sizes', sizes)

    def log():
        assert 'secret' not in server.log()
    check('guard/token-is-not-logged', log)
    check('guard/ends', server.end)

    server = Server('--connections', '8', backend='null')
    def connections():
        plugs = [server.connect() for _ in range(30)]
        def closed():
            n = 0
            for plug in plugs:
                plug.setblocking(False)
                try: n += plug.recv(1) == b''
                except BlockingIOError: pass
            return n >= 20
        wait_for('closed', closed)
        for plug in plugs: plug.close()
        wait_for('an answer', lambda: server.raw('GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n'))
    check('guard/connections', connections)

    def slow():
        # A head that does not come to its end is not waited for.
        with server.connect('GET /livez HT') as plug:
            plug.settimeout(60)
            assert plug.recv(100) == b''
    check('guard/slow-head', slow)
    check('guard/ends', server.end)


# ---- Requests that are wrong ----

def bad():
    server = Server(backend='null', model=None)
    good = {'prompt': 'x', 'image': b64(png())}

    def refused(path, expected, **fields):
        body = {**good, **fields}
        answer = server.post(path, {name: value for name, value in body.items() if value is not None})
        assert answer.status == 400, (fields, answer)
        error = answer.json['error']
        assert error['code'] in expected and error['message'] and error['type'] == 'invalid_request_error', error
        return error

    def fields():
        wrong = [('prompt', None), ('prompt', ''), ('prompt', 'x' * 32001), ('prompt', ['x']), ('image', None),
                 ('image', ''),
                 ('image', '!'), ('image', b64(b'')), ('image', b64(b'GIF89a' + bytes(100))),
                 ('image', b64(png()[:40])),
                 ('image', b64(b'\xff\xd8\xff\xe0' + bytes(50))), ('image', b64(b'RIFF\0\0\0\0WEBPVP8 ' + bytes(50))),
                 ('image', 'data:image/png,abc'), ('image', 'https://example.com/a.png'), ('image', [1]),
                 ('image', {'a': 1}),
                 ('image', [{'image_url': 5}]), ('images', [good['image']] * 11), ('mask', good['image']),
                 ('mask', '!'), ('n', 0),
                 ('n', 11), ('n', 'two'), ('n', 1.5), ('n', 10**30), ('size', '10x10'), ('size', '64'),
                 ('size', '64x64x64'),
                 ('size', '16400x16'), ('size', '-16x16'), ('response_format', 'url'), ('response_format', 'xml'),
                 ('output_format', 'gif'), ('output_compression', 101), ('output_compression', -1), ('stream', 'maybe'),
                 ('partial_images', 51), ('partial_images', -1), ('partial_images', 'x'), ('seed', -1), ('seed', 'x'),
                 ('steps', -1), ('steps', 1001),
                 ('steps', 'many'), ('steps', []), ('guidance', -1), ('guidance', 1e300), ('true_cfg_scale', 0.5),
                 ('scheduler', 'ddim'), ('preset', 'best'), ('max_area', -1), ('trace_file', '/tmp/x'),
                 ('trace-file', 'x'),
                 ('model_path', '/etc'), ('backend', 'cpu'), ('threads', 3), ('max_vram', 1), ('token_merge', 2),
                 ('step_cache_mask', '111'), ('nothing', 1), ('__proto__', {}), ('x' * 65, 1), ('', 1)]
        codes = ('invalid_value', 'missing_parameter', 'invalid_image', 'unsupported', 'unsupported_url',
                 'unknown_parameter',
                 'invalid_body')
        for path in ('/v1/images/edits', '/v1/edits'):
            for name, value in wrong: refused(path, codes, **{name: value})
        assert refused('/v1/images/edits', ['unknown_parameter'], nothing=1)['param'] == 'nothing'
        assert 'steps' in refused('/v1/images/edits', ['invalid_value'], steps=-1)['message']
        refused('/v1/images/edits', ['unsupported_url'], image='http://127.0.0.1/x.png')
        refused('/v1/images/edits', ['unknown_parameter'], trace_file='/tmp/x')
        answer = server.post('/v1/images/edits', {**good, 'model': 'other'})
        assert answer.status == 404 and answer.code == 'model_not_found', answer
    check('bad/fields', fields)

    def declared():
        # Declared sizes cost nothing.
        before = server.metric('process_resident_memory_bytes')
        for width, height in ((65535, 65535), (16385, 1), (0, 5), (16384, 16384), (2**31, 2**31)):
            head = struct.pack('>IIBBBBB', width, height, 8, 6, 0, 0, 0)
            check_sum = struct.pack('>I', zlib.crc32(b'IHDR' + head))
            data = b'\x89PNG\r\n\x1a\n' + struct.pack('>I', 13) + b'IHDR' + head + check_sum + bytes(99)
            answer = server.post('/v1/images/edits', {'prompt': 'x', 'image': b64(data)})
            assert answer.status == 400 and answer.code == 'invalid_image', answer
        answer = server.post('/v1/images/edits', {**good, 'n': 10, 'size': '8000x8000'})
        assert answer.status == 413, answer
        assert server.metric('process_resident_memory_bytes') < before + (64 << 20)
    check('bad/declared-sizes', declared)

    def documents():
        for body in ('', '[]', '5', '"x"', '{', '{"prompt"', '{"prompt": }', '[' * 100000, '{"a":' * 100000, '\0',
                     '{"a": "\\u0000"}',
                     b'{"prompt": "\xff"}', '{"prompt": "x",}{'):
            answer = server.post('/v1/images/edits', body)
            assert answer.status == 400 and answer.code in ('invalid_json', 'missing_parameter'), (body[:20], answer)
        for type in (None, 'text/plain', 'application/x-www-form-urlencoded', 'multipart/form-data',
                     'multipart/form-data; boundary=',
                     'multipart/form-data; boundary=' + 'x' * 71, 'a', ';;;', 'multipart/form-data; boundary=other'):
            answer = server.post('/v1/images/edits', 'x' * 50, type)
            assert answer.status in (400, 415), (type, answer)
        assert server.post('/v1/images/edits', b'x', Content_Encoding='gzip').status == 415
    check('bad/documents', documents)

    def multiparts():
        type, body = multipart([('prompt', 'x'), ('image', ('a.png', png()))])
        assert server.post('/v1/images/edits', body, type).status == 200
        assert server.post('/v1/images/edits', b'preamble\r\n' + body, type).status == 200
        for cut in range(0, len(body) - 4, 7):
            assert server.post('/v1/images/edits', body[:cut], type).status == 400, cut
        for old, new in ((b'form-data; name="prompt"', b'form-data'), (b'form-data', b'attachment'),
                         (b'Content-Disposition', b'X'),
                         (b'name="prompt"', b'name=""'), (b'\r\n\r\n', b'\r\n'), (b'x\r\n', b'\xff\r\n'),
                         (b'x\r\n', b'a\0b\r\n'),
                         (b'"prompt"', b'"' + b'y' * 5000 + b'"')):
            assert server.post('/v1/images/edits', body.replace(old, new), type).status == 400, (old, new)
        many = multipart([(f'f{i}', 'x') for i in range(5000)])
        assert server.post('/v1/images/edits', many[1], many[0]).code == 'invalid_body'
        empty = multipart([])
        assert server.post('/v1/images/edits', empty[1], empty[0]).status == 400
    check('bad/multipart', multiparts)

    def protocols():
        for method, path, status in (('GET', '/nothing', 404), ('GET', '/v1/images/edits', 405),
                                     ('PUT', '/v1/edits', 405),
                                     ('DELETE', '/health', 405), ('POST', '/v1/models', 405), ('BREW', '/health', 405),
                                     ('GET', '/v1/jobs/', 404), ('GET', '/' + 'x' * 3000, 404),
                                     ('GET', '/v1/models/other', 404)):
            answer = server.request(method, path)
            assert answer.status == status and answer.json['error']['message'], (method, path, answer)
            if status == 405: assert answer.headers['Allow']
        assert server.request('HEAD', '/health').status == 200
        assert server.request('OPTIONS', '/v1/edits').status == 204
        for text in ('\r\n\r\n', 'x\r\n\r\n', 'GET\r\n\r\n', 'GET / HTTP/9.9\r\n\r\n',
                     'POST /v1/edits HTTP/1.1\r\nHost: localhost\r\n'
                     'Content-Length: -1\r\n\r\n',
                     'POST /v1/edits HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n', '\0' * 100,
                     'POST /v1/edits HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n\r\n'):
            with server.connect(text) as plug:
                plug.shutdown(socket.SHUT_WR)
                while plug.recv(65536): pass
        assert server.get('/livez').status == 200
    check('bad/protocol', protocols)

    def noise():
        # What a broken client or a scanner sends: never more than an answer or a closed connection.
        chance = random.Random(7)
        type, body = multipart([('prompt', 'x'), ('image', ('a.png', png())), ('steps', '2')])
        head = f'POST /v1/images/edits HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: {type}\r\n'
        head += f'Content-Length: {len(body)}\r\n\r\n'
        whole = head.encode() + body
        answers = {}
        for _ in range(300):
            data = bytearray(whole)
            for _ in range(chance.randint(1, 8)): data[chance.randrange(len(data))] = chance.randrange(256)
            with server.connect() as plug:
                try:
                    plug.sendall(data)
                    plug.shutdown(socket.SHUT_WR)
                    answer = b''.join(iter(lambda: plug.recv(65536), b''))
                except OSError: answer = b''
            kind = answer.split(b' ')[1].decode() if answer.startswith(b'HTTP') else 'closed'
            answers[kind] = answers.get(kind, 0) + 1
        print(f'# {answers}')
        assert not [kind for kind in answers if kind.startswith('5') and kind != '505'], answers
        assert server.get('/readyz').status == 200
    check('bad/noise', noise)

    def models():
        answer = server.get('/v1/models').json
        assert answer['object'] == 'list' and answer['data'][0]['object'] == 'model', answer
        assert server.get('/v1/models/' + answer['data'][0]['id']).json['id'] == answer['data'][0]['id']
    check('models', models)

    def metrics():
        text = server.get('/metrics').body.decode()
        for name in ('fluxkontext_build_info', 'fluxkontext_up 1', 'fluxkontext_ready 1', 'fluxkontext_queue_limit 16',
                     'fluxkontext_job_duration_seconds_bucket{api="openai",le="+Inf"}', 'process_start_time_seconds'):
            assert '\n' + name in text, name
        for line in text.splitlines():
            assert line.startswith('#') or re.fullmatch(r'[a-z_]+(\{[^}]*\})? [-+.e0-9]+', line), line
        results = ('ok', 'client_error', 'server_error', 'cancelled', 'timeout')
        ended = sum(server.metric(f'fluxkontext_jobs_total{{api="openai",result="{result}"}}') for result in results)
        assert ended == server.metric('fluxkontext_job_duration_seconds_count{api="openai"}') > 2
    check('metrics', metrics)
    check('bad/ends', server.end)


# ---- The other APIs ----

def apis():
    server = Server('--name', 'kontext', '--output-dir', str(SCRATCH))
    picture = b64(picture_of_recorded('single'))
    few = {'steps': 2, 'max_area': 4096}

    def detail(answer, status):
        assert answer.status == status and isinstance(answer.json['detail'], str), answer

    def bfl():
        for name in ('pro', 'max', 'dev'):
            first = server.post(f'/v1/flux-kontext-{name}', {'prompt': 'make it night', 'input_image': picture,
                                                             'seed': 1, **few},
                                x_key='k')
            assert first.status == 200, first
            url = first.json['polling_url']
            poll = lambda: (lambda a: a if a['status'] != 'Pending' else None)(server.get(url[url.index('/v1/'):]).json)
            done = wait_for('a result', poll)
            assert done['status'] == 'Ready' and done['progress'] == 1 and done['result']['seed'] == 1, done
            sample = done['result']['sample']
            assert server.get(sample[sample.index('/v1/'):]).body.startswith(b'\x89PNG')
        assert server.get('/v1/get_result?id=x').json['status'] == 'Task not found'
        detail(server.get('/v1/get_result'), 400)
        for wrong in ({'prompt': ''}, {'aspect_ratio': '30:1'}, {'aspect_ratio': 'x'}, {'webhook_url': 'http://x'},
                      {'prompt_upsampling': True}, {'output_format': 'gif'}, {'input_image': '!'}, {'seed': 'x'},
                      {'nothing': 1}):
            detail(server.post('/v1/flux-kontext-pro', {'prompt': 'x', 'input_image': picture, **wrong}), 400)
        ignored = server.post('/v1/flux-kontext-pro', {'prompt': 'x', 'input_image': picture, 'safety_tolerance': 2,
                                                       'prompt_upsampling': False, 'webhook_url': None, **few})
        assert ignored.status == 200, ignored
    check('apis/bfl', bfl)

    def fire():
        body = {'prompt': 'make it night', 'image': picture, 'seed': 1, 'num_images': 2, 'guidance_scale': 2.5, **few}
        answer = server.post('/inference', body)
        assert answer.status == 200 and len(answer.json['images']) == 2 and answer.json['seed'] == 1, answer
        assert answer.json['timings']['total_ms'] > 0
        assert set(answer.json['optimizations']) == {'flash_attention', 'cuda_graphs', 'dpm_solver',
                                                     'mxfp4'}, answer.json
        plain = server.post('/v1/images/edits', {'prompt': 'make it night', 'image': picture, 'seed': 1, **few})
        assert plain.json['data'][0]['b64_json'] == answer.json['images'][0]
        dpm = server.post('/inference', {**body, 'use_dpm_solver': True, 'width': 32, 'height': 32})
        assert dpm.json['optimizations']['dpm_solver'] == 'active', dpm
        for wrong in ({'use_flash_attention': True}, {'use_cuda_graphs': True}, {'use_mxfp4': True}, {'steps': 51},
                      {'steps': 0},
                      {'guidance_scale': 21}, {'true_cfg_scale': -1}, {'num_images': 11}, {'width': 32},
                      {'width': 33, 'height': 32},
                      {'prompt': None}, {'image': None}, {'nothing': 1}):
            fields = {name: value for name, value in {**body, **wrong}.items() if value is not None}
            detail(server.post('/inference', fields), 400)
    check('apis/flux-fire', fire)

    def benchmark():
        answer = server.get('/benchmark?n=2&size=64x64&steps=1')
        assert answer.status == 200 and len(answer.json['ms']) == 2 and answer.json['mean_ms'] > 0, answer
        for query in ('n=0', 'n=21', 'n=x', 'size=x', 'size=5000x5000', 'steps=-1', 'size=auto'):
            detail(server.get('/benchmark?' + query), 400)
    check('apis/benchmark', benchmark)

    def a1111():
        body = {'prompt': 'make it night', 'init_images': [picture], 'steps': 2, 'seed': 3, 'width': 48, 'height': 32,
                'batch_size': 2,
                'denoising_strength': 0.5, 'sampler_name': 'DPM++ 2M'}
        answer = server.post('/sdapi/v1/img2img', body)
        assert answer.status == 200 and len(answer.json['images']) == 2, answer
        info = json.loads(answer.json['info'])
        assert info['all_seeds'] == [3, 4] and info['ignored'] == ['denoising_strength'] and info['width'] == 48, info
        assert server.post('/sdapi/v1/img2img', {**body, 'seed': -1}).status == 200
        for status, wrong in ((404, {'sampler_name': 'none'}), (400, {'init_images': []}),
                              (400, {'init_images': ['!']}),
                              (400, {'prompt': ''}), (400, {'steps': -1}), (400, {'batch_size': 11}),
                              (400, {'batch_size': 5, 'n_iter': 5}),
                              (400, {'resize_mode': 2}), (400, {'width': 5}), (400, {'mask': 5}), (400, {'seed': 'x'})):
            detail(server.post('/sdapi/v1/img2img', {**body, **wrong}), status)
        assert server.get('/sdapi/v1/options').json['sd_model_checkpoint'] == 'kontext'
        assert server.post('/sdapi/v1/options', {'sd_model_checkpoint': 'kontext'}).status == 200
        detail(server.post('/sdapi/v1/options', {'sd_model_checkpoint': 'other'}), 400)
        assert server.get('/sdapi/v1/sd-models').json[0]['title'] == 'kontext'
        assert 'Euler' in [s['name'] for s in server.get('/sdapi/v1/samplers').json]
        assert server.get('/sdapi/v1/progress').json['progress'] == 0
    check('apis/a1111', a1111)

    def files():
        # No API sets what names a file of the server's machine.
        table = (SOURCE / 'core/settings/properties.c').read_text()
        rows = re.split(r'\n    (?=\{"[a-z0-9-]+", ")', table)
        names = {re.match(r'\{"([^"]*)', row)[1] for row in rows if row.startswith('{"') and 'A_FILE' in row}
        assert 'trace-file' in names, names
        names |= {'model-path', 'loras', 'mask-path', 'tokenizer-path', 'model_path', 'trace_file'}
        secret = SCRATCH / 'set-by-a-client'
        edit = {'prompt': 'x', 'image': picture}
        requests = [('/v1/images/edits', edit), ('/v1/edits', edit), ('/v1/images/generations',
                                                                      {'prompt': 'x', 'size': '64x64'}),
                    ('/inference', edit), ('/v1/flux-kontext-pro', {'prompt': 'x', 'input_image': picture}),
                    ('/sdapi/v1/img2img', {'prompt': 'x', 'init_images': [b64(png())], 'steps': 1})]
        for name in sorted(names | {name.replace('-', '_') for name in names}):
            for path, body in requests:
                answer = server.post(path, {**body, name: str(secret)})
                if path.startswith('/sdapi/'):  # that API takes everything and says what it passed over
                    assert answer.status == 200 and name in json.loads(answer.json['info'])['ignored'], (name, answer)
                else: assert answer.status == 400 and name in answer.body.decode(), (path, name, answer)
            for path in ('/v1/images/edits', '/v1/edits'):
                fields = [('prompt', 'x'), ('image', ('a.png', png())), (name, str(secret))]
                assert server.form(path, fields).status == 400, (path, name)
        assert not secret.exists()
        offered = {p['name'] for p in server.get('/v1/settings').json['properties']}
        assert not offered & names, offered & names
    check('apis/files-of-the-server', files)

    def interrupt():
        answers = []
        thread = threading.Thread(target=lambda: answers.append(server.post('/sdapi/v1/img2img', {
            'prompt': 'x', 'init_images': [picture], 'steps': 1000})))
        thread.start()
        wait_for('steps', lambda: server.get('/sdapi/v1/progress').json['state']['sampling_step'] > 1)
        other = server.start(steps=1)
        server.post('/sdapi/v1/interrupt', {})
        thread.join()
        detail(answers[0], 409)
        server.wait(other, 'done')
    check('apis/interrupt', interrupt)

    def urls():
        answer = server.post('/v1/images/edits', {'prompt': 'x', 'image': picture, 'response_format': 'url', **few})
        url = answer.json['data'][0]['url']
        assert server.get(url[url.index('/v1/files'):]).body == (SCRATCH / url.rsplit('/', 1)[1]).read_bytes()
    check('apis/url-and-output-dir', urls)

    def documents():
        answer = server.get('/openapi.json').json
        assert answer['info']['version'] == os.environ.get('FK_TOOL_VERSION', answer['info']['version'])
        schema = answer['components']['schemas']['Settings']['properties']
        assert schema['steps']['maximum'] == 1000 and 'model_path' not in schema and 'trace_file' not in schema
        page = server.get('/')
        assert page.headers['Content-Type'].startswith('text/html') and b'<h1>fluxkontext</h1>' in page.body
        assert "default-src 'none'" in page.headers['Content-Security-Policy']
        assert b'http://' not in page.body and b'https://' not in page.body
        names = [p['name'] for p in server.get('/v1/settings').json['properties']]
        assert 'steps' in names and 'trace-file' not in names
        # Every path of the document exists.
        for path in answer['paths']:
            if '{' not in path: assert server.request('OPTIONS', path).status == 204, path
    check('apis/documents', documents)
    check('apis/ends', server.end)


GROUPS = {'same-bytes': same_bytes, 'jobs': jobs, 'kept': kept, 'life': life, 'guard': guard, 'bad': bad, 'apis': apis}
for group in sys.argv[1:] or GROUPS: GROUPS[group]()
done()
