'use strict';

// What cannot cross: refused by name, or closed and told of.

const assert = require('node:assert');
const test = require('node:test');

const { run, startAgent } = require('./stage.js');

const DONE = { code: 0, signal: null };

test('what is refused is named, and children are told what else could not cross', async (t) => {
  const agent = await startAgent(t);
  const said = await run(agent, async (mitosis, say) => {
    const net = require('node:net');
    const server = net.createServer().listen(0, '127.0.0.1');
    await new Promise((resolve) => server.once('listening', resolve));
    const { port } = server.address();
    const client = net.connect(port, '127.0.0.1');
    const peer = await new Promise((resolve) => server.once('connection', resolve));
    const numbers = [client, peer].map((socket) => socket._handle.fd).sort((a, b) => a - b);
    for (const losses of ['refuse', { connections: 'refuse', pipes: 'close' }]) {
      const { seed } = await mitosis.prepare({ losses });
      const { code, message } = await seed.handle().catch((error) => error);
      say({ code, isNamed: message.includes(`:${port} (connections)`) || message });
    }
    const refused = await mitosis.fork(null, { losses: { connections: 'refuse' } }).catch((error) => error.code);
    let told = null;
    mitosis.on('after_resume', ({ lost }) => (told = lost));
    const me = await mitosis.prepare({ losses: { terminals: 'refuse' } });
    if (me.role === 'child') {
      const lost = me.lost.filter(({ kind }) => kind === 'connections');
      const fds = lost.flatMap(({ fds }) => fds).sort((a, b) => a - b);
      const ports = lost.filter(({ was }) => was.includes(`:${port}`)).length;
      say({ same: told === me.lost, fds, ports });
      process.exit(0);
    }
    const child = await mitosis.resume(await me.seed.handle());
    say({ refused, numbers, end: await child.wait() });
    process.exit(0);
  });
  const named = { code: 'ERR_MITOSIS_NOT_FORKABLE', isNamed: true };
  const { numbers } = said.at(-1);
  assert.strictEqual(numbers.length, 2);
  const [child, parent] = [{ same: true, fds: numbers, ports: 2 }, { refused: named.code, numbers, end: DONE }];
  assert.deepStrictEqual(said, [named, named, child, parent]);
});
