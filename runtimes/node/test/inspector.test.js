'use strict';

// An open inspector: where nobody closes it, children do without it, until they open it again.

const assert = require('node:assert');
const test = require('node:test');

const { run, startAgent } = require('./stage.js');

const DONE = { code: 0, signal: null };

test('an inspector that is open, with a debugger at it, is not there in children, who may open it again', async (t) => {
  const agent = await startAgent(t);
  const program = async (mitosis, say) => {
    const http = require('node:http');
    const inspector = require('node:inspector');
    const { promisify } = require('node:util');
    const isAnswered = (url) =>
      new Promise((resolve) => {
        const list = new URL('/json/list', url.replace('ws:', 'http:'));
        const asked = http.get(list, async (answer) => {
          let text = '';
          for await (const part of answer) text += part;
          resolve(text.includes(new URL(url).pathname.slice(1)));
        });
        asked.on('error', () => resolve(false));
      });
    /** As a debugger begins: RFC 6455, section 1.3. */
    const attached = (url) =>
      new Promise((resolve, reject) => {
        const key = Buffer.alloc(16, 7).toString('base64');
        const headers = { Connection: 'Upgrade', Upgrade: 'websocket', 'Sec-WebSocket-Version': '13', 'Sec-WebSocket-Key': key };
        const asked = http.get(url.replace('ws:', 'http:'), { headers });
        asked.on('upgrade', (_, socket) => resolve(socket)).on('error', reject);
      });
    const url = inspector.url();
    const debuggers = await attached(url);
    say({ isOpen: await isAnswered(url) });
    const me = await mitosis.prepare();
    if (me.role === 'child') {
      const evaluate = async (expression) => {
        const session = new inspector.Session();
        session.connect();
        const { result } = await promisify(session.post).call(session, 'Runtime.evaluate', { expression });
        session.disconnect();
        return result.value;
      };
      // Both ends of the debugger's: it is this process itself.
      const lost = me.lost.filter(({ kind }) => kind === 'connections').length >= 2;
      const seen = { lost, old: await isAnswered(url), inside: await evaluate('6 * 7') };
      inspector.close();
      inspector.open(0, '127.0.0.1');
      say({ ...seen, again: await isAnswered(inspector.url()), differs: inspector.url() !== url });
      process.exit(0);
    }
    const handle = await me.seed.handle();
    debuggers.destroy();
    inspector.close();
    const child = await mitosis.resume(handle);
    say(await child.wait());
    process.exit(0);
  };
  const said = await run(agent, program, { args: ['--inspect=127.0.0.1:0'] });
  const child = { lost: true, old: false, inside: 42, again: true, differs: true };
  assert.deepStrictEqual(said, [{ isOpen: true }, child, DONE]);
});
