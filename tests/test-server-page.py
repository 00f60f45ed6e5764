#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The page of fluxkontext-server in headless Chromium, over its debugging protocol: an edit from the form to the
result, the keyboard, a phone's width. With an argument, screenshots go to that folder. Skipped where there is no
Chromium."""
import shutil, sys, os

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from server_util import *

CHROMIUM = shutil.which('chromium') or shutil.which('chromium-browser')
PHOTO = SOURCE / 'examples/demo-model/photos/coffee_256.png'


class Browser:
    """One page; WebSocket (RFC 6455) with text frames only."""
    def __init__(self):
        self.folder = SCRATCH / 'chromium'
        self.process = subprocess.Popen([CHROMIUM, '--headless', '--no-sandbox', '--disable-gpu',
                                         '--disable-dev-shm-usage',
                                         '--remote-debugging-port=0', '--remote-allow-origins=*',
                                         f'--user-data-dir={self.folder}',
                                         '--no-first-run', '--disable-background-networking', 'about:blank'],
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        port = self.folder / 'DevToolsActivePort'
        wait_for('Chromium', lambda: port.exists() and len(port.read_text().split()) == 2)
        port = int(port.read_text().split()[0])
        def page():
            connection = http.client.HTTPConnection('127.0.0.1', port, timeout=60)
            connection.request('GET', '/json/list')
            return next((p for p in json.loads(connection.getresponse().read()) if p['type'] == 'page'), None)
        path = wait_for('a page', page)['webSocketDebuggerUrl'].split(str(port), 1)[1]
        self.plug = socket.create_connection(('127.0.0.1', port), timeout=120)
        self.plug.sendall(f'GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\n'
                          f'Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n'
                          f'Sec-WebSocket-Key: {b64(os.urandom(16))}\r\n\r\n'.encode())
        self.reader = self.plug.makefile('rb')
        while self.reader.readline().strip(): pass
        self.count, self.problems = 0, []
        for domain in ('Page', 'Runtime', 'Log'): self.call(domain + '.enable')

    def receive(self):
        data = b''
        while True:
            first, second = self.reader.read(2)
            size = second & 127
            if size == 126: size = struct.unpack('>H', self.reader.read(2))[0]
            elif size == 127: size = struct.unpack('>Q', self.reader.read(8))[0]
            data += self.reader.read(size)
            if first & 128: return json.loads(data)

    def call(self, method, **parameters):
        self.count += 1
        text = json.dumps({'id': self.count, 'method': method, 'params': parameters}).encode()
        mask = os.urandom(4)
        head = bytes([0x81]) + (bytes([0x80 | len(text)]) if len(text) < 126 else struct.pack('>BH', 0x80 | 126,
                                                                                              len(text))
                                if len(text) < 65536 else struct.pack('>BQ', 0x80 | 127, len(text)))
        self.plug.sendall(head + mask + bytes(b ^ mask[i % 4] for i, b in enumerate(text)))
        while True:
            message = self.receive()
            if message.get('id') == self.count:
                assert 'error' not in message, message
                return message['result']
            if message.get('method') == 'Runtime.exceptionThrown': self.problems.append(message['params'])
            if message.get('method') == 'Log.entryAdded' and message['params']['entry']['level'] == 'error':
                self.problems.append(message['params']['entry'])

    def run(self, script):
        result = self.call('Runtime.evaluate', expression=script, awaitPromise=True, returnByValue=True)
        assert 'exceptionDetails' not in result, result
        return result['result'].get('value')

    def wait(self, script, seconds=120): return wait_for(script, lambda: self.run(script), seconds)

    def key(self, key, code=0, text=''):
        for kind in ('keyDown', 'keyUp'):
            self.call('Input.dispatchKeyEvent', type=kind, key=key, windowsVirtualKeyCode=code,
                      **({'text': text} if text and kind == 'keyDown' else {}))

    def size(self, width, height):
        self.call('Emulation.setDeviceMetricsOverride', width=width, height=height, deviceScaleFactor=1,
                  mobile=width < 600)

    def shot(self, name, folder):
        data = base64.b64decode(self.call('Page.captureScreenshot', format='png')['data'])
        if folder: (Path(folder) / f'{name}.png').write_bytes(data)

    def close(self):
        self.process.terminate()
        self.process.wait(60)


def page(folder):
    server = Server('steps=6')
    browser = Browser()
    browser.size(1280, 860)
    browser.call('Page.navigate', url=f'http://127.0.0.1:{server.port}/')

    def loads():
        browser.wait("document.readyState === 'complete' && $('preset').options.length === 7 && "
                     "$('steps').value === '6'")
        assert 'ready' in browser.run("$('state').textContent")
        assert browser.run("document.querySelectorAll('#more [data-setting]').length") >= 6
    check('page/loads', loads)

    def without():
        browser.run("$('prompt').value = 'x'; $('form').requestSubmit()")
        assert browser.run("$('message').textContent") == 'Choose a picture first.'
    check('page/asks-for-a-picture', without)

    def edit():
        browser.run(f"take(new File([Uint8Array.from(atob('{b64(PHOTO.read_bytes())}'), c => c.charCodeAt(0))], "
                    "'coffee 1.png', {type: 'image/png'}))")
        browser.run("$('prompt').value = \"it's night\"; $('seed').value = '7'; $('prompt').focus()")
        browser.call('Input.dispatchKeyEvent', type='keyDown', key='Enter', windowsVirtualKeyCode=13, modifiers=2)
        browser.wait("!$('progress').hidden")
        browser.wait("$('message').textContent.startsWith('Done')")
        browser.wait("edits.length === 1 && !$('view').hidden && $('after').naturalWidth === 256")
        assert browser.run("document.querySelectorAll('#history button').length") == 1
        browser.shot('desktop', folder)
    check('page/edit', edit)

    def commands():
        # What the page says does what the page did.
        (SCRATCH / 'coffee 1.png').write_bytes(PHOTO.read_bytes())
        want = browser.run("edits[0].fk.sha256")
        for name in ('gst', 'curl'):
            line = browser.run(f"$('{name}').textContent")
            if name == 'curl' and not shutil.which('curl'): continue
            run = subprocess.run(['sh', '-c', line], cwd=SCRATCH, capture_output=True, text=True)
            assert run.returncode == 0, (line, run)
            pixels = subprocess.run(['convert', 'edited.png', '-depth', '8', 'rgb:-'], cwd=SCRATCH, check=True,
                                    capture_output=True).stdout
            assert hashlib.sha256(pixels).hexdigest() == want, line
            (SCRATCH / 'edited.png').unlink()
    check('page/commands', commands)

    def slider():
        browser.run("$('slide').focus()")
        before = browser.run("$('slide').value")
        browser.key('ArrowRight', 39)
        assert browser.run("$('slide').value") != before
        at = browser.run("getComputedStyle($('compare')).getPropertyValue('--at').trim()")
        assert at == browser.run("$('slide').value + '%'")
    check('page/slider-by-keyboard', slider)

    def keyboard():
        # Everything can be reached with Tab, from the first field on.
        reached = set()
        browser.run("document.activeElement.blur()")
        for _ in range(40):
            browser.key('Tab', 9)
            reached.add(browser.run("(e => e.id || e.dataset.copy || e.tagName)(document.activeElement)"))
        assert {'file', 'prompt', 'seed', 'dice', 'preset', 'steps', 'go', 'slide', 'save', 'again', 'gst',
                'curl'} <= reached, reached
        unnamed = browser.run("[...document.querySelectorAll('input,select,textarea,button,a')]"
                              ".filter(e => !e.hidden && "
                              "!e.labels?.length && !e.getAttribute('aria-label') && !e.textContent.trim() && !e.title)"
                              ".map(e => e.outerHTML)")
        assert unnamed == [], unnamed
    check('page/keyboard', keyboard)

    def stop():
        browser.run("$('steps').value = 900; $('form').requestSubmit()")
        browser.wait("!$('stop').disabled && $('message').textContent.startsWith('step')")
        browser.run("$('stop').click()")
        browser.wait("$('progress').hidden")
        assert 'cancelled' in browser.run("$('message').textContent")
        wait_for('idle', lambda: server.health()['queue']['running'] == 0)
    check('page/stop', stop)

    def phone():
        browser.size(390, 844)
        assert browser.run("document.documentElement.scrollWidth - innerWidth") <= 0
        browser.run("scrollTo(0, 0)")
        browser.shot('phone', folder)
        browser.run("$('resultbox').scrollIntoView()")
        browser.shot('phone-result', folder)
    check('page/phone', phone)

    def errors(): assert not browser.problems, browser.problems
    check('page/no-errors', errors)
    browser.close()
    server.end()


if CHROMIUM: page(sys.argv[1] if sys.argv[1:] else None)
else: print('ok 1 /server/page # SKIP there is no chromium\n1..1') or sys.exit(0)
done()
