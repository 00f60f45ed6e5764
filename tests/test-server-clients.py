#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Rounds of 50 clients at once, of which some send slowly, some leave amid the request, while their job waits or
amid the answer. Nothing of them stays. An argument is the number of rounds, 6 without; memory after each is a comment."""
import os, random, sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from server_util import *

ROUNDS = int(sys.argv[1]) if sys.argv[1:] else 6
CLIENTS = 50
# What a few allocations in threads make of a heap that is reused; a round that kept its jobs would add 1 MiB, all behind
# the second 4.
SLACK = 2 << 20


def client(server, request, chance):
    kind = chance.choice(['whole', 'whole', 'slow', 'cut', 'waits', 'answer'])
    with server.connect() as plug:
        try:
            if kind == 'cut': return plug.sendall(request[:chance.randrange(len(request))])
            if kind == 'slow':
                for i in range(0, len(request), 400):
                    plug.sendall(request[i:i + 400])
                    time.sleep(0.02)
            else: plug.sendall(request)
            if kind == 'waits': return time.sleep(chance.random())
            if kind == 'answer': return plug.recv(100)
            answer = b''.join(iter(lambda: plug.recv(65536), b''))
            return answer.startswith(b'HTTP/1.1 200 ')
        except OSError: pass


def clients():
    server = Server('--queue', str(CLIENTS), '--connections', str(4 * CLIENTS), '--keep-results', '0')
    body = json.dumps({'prompt': 'x', 'image': b64(png(64, 48)), 'steps': 2, 'max_area': 4096, 'seed': 1}).encode()
    request = (f'POST /v1/images/edits HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n'
               f'Content-Length: {len(body)}\r\n\r\n').encode() + body

    def smallest():
        """Results are forgotten by a timer."""
        def later():
            time.sleep(0.2)
            return server.metric('process_resident_memory_bytes')
        return min(later() for _ in range(10))

    def flat():
        memory, answered = [], []
        files = server.metric('process_open_fds')
        for n in range(ROUNDS):
            threads = [threading.Thread(target=lambda i=i: answered.append(
                client(server, request, random.Random(CLIENTS * n + i)))) for i in range(CLIENTS)]
            for thread in threads: thread.start()
            for thread in threads: thread.join()
            wait_for('idle', lambda: (lambda q: q['running'] == q['depth'] == 0)(server.health()['queue']))
            wait_for('closed', lambda: server.metric('process_open_fds') <= files)
            memory.append(smallest())
        print('# MiB: ' + ' '.join(f'{m / 2**20:.1f}' for m in memory), flush=True)
        assert False not in answered and answered.count(True) > ROUNDS, answered
        assert memory[-1] < max(memory[:2]) + SLACK, memory
    check('clients/flat', flat)
    check('clients/ends', server.end)


clients()
done()
