'use strict';

// What cannot cross: refused by name, or closed and told of.

const assert = require('node:assert');
const test = require('node:test');

const { run, startAgent } = require('./stage.js');

const DONE = { code: 0, signal: null };

test('what is refused is named', async (t) => {
  const agent = await startAgent(t);
  const said = await run(agent, async (mitosis, say) => {
    const net = require('node:net');
    const server = net.createServer().listen(0, '127.0.0.1');
    await new Promise((resolve) => server.once('listening', resolve));
    const { port } = server.address();
    const client = net.connect(port, '127.0.0.1');
    await new Promise((resolve) => server.once('connection', resolve));
    for (const losses of ['refuse', { connections: 'refuse', pipes: 'close' }]) {
      const { seed } = await mitosis.prepare({ losses });
      const { code, message } = await seed.handle().catch((error) => error);
      say({ code, isNamed: message.includes(`:${port} (connections)`) || message });
    }
    const refused = await mitosis.fork(null, { losses: { connections: 'refuse' } }).catch((error) => error.code);
    const fine = await mitosis.prepare({ losses: { terminals: 'refuse' } });
    if (fine.role === 'child') {
      process.exit(0);
    }
    const child = await mitosis.resume(await fine.seed.handle());
    say({ refused, end: await child.wait() });
    client.destroy();
    process.exit(0);
  });
  const named = { code: 'ERR_MITOSIS_NOT_FORKABLE', isNamed: true };
  assert.deepStrictEqual(said, [named, named, { refused: named.code, end: DONE }]);
});

test('a hook is told what could not cross', async (t) => {
  const agent = await startAgent(t);
  const said = await run(agent, async (mitosis, say) => {
    const net = require('node:net');
    const server = net.createServer().listen(0, '127.0.0.1');
    await new Promise((resolve) => server.once('listening', resolve));
    const { port } = server.address();
    const client = net.connect(port, '127.0.0.1');
    const peer = await new Promise((resolve) => server.once('connection', resolve));
    const numbers = [client, peer].map((socket) => socket._handle.fd).sort((a, b) => a - b);
    let told = null;
    mitosis.on('after_resume', ({ lost }) => (told = lost));
    const me = await mitosis.prepare();
    if (me.role === 'child') {
      const lost = me.lost.filter(({ kind }) => kind === 'connections');
      const fds = lost.flatMap(({ fds }) => fds).sort((a, b) => a - b);
      const ports = lost.filter(({ was }) => was.includes(`:${port}`)).length;
      say({ same: told === me.lost, fds, ports });
      process.exit(0);
    }
    const child = await mitosis.resume(await me.seed.handle());
    say({ numbers, end: await child.wait() });
    process.exit(0);
  });
  const [child, parent] = said;
  assert.deepStrictEqual(parent.end, DONE);
  assert.strictEqual(parent.numbers.length, 2);
  assert.deepStrictEqual(child, { same: true, fds: parent.numbers, ports: 2 });
});
