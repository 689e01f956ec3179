'use strict';

// What is refused before anything is asked of an agent.

const assert = require('node:assert');
const test = require('node:test');

const mitosis = require('..');

const refused = { name: 'MitosisError', code: 'ERR_MITOSIS_ARGUMENT' };
const KEY = '0123456789abcdef'.repeat(4);
const TEXT = `mitosis://host-a:7370/00112233aabbccdd#${KEY}`;

test('a handle is parsed, and shows its key to nobody by accident', () => {
  const handle = new mitosis.Handle(TEXT);
  assert.strictEqual(handle.agent, 'host-a:7370');
  assert.strictEqual(handle.seed, '00112233aabbccdd');
  assert.strictEqual(handle.reveal(), TEXT);
  for (const shown of [`${handle}`, JSON.stringify({ handle }), require('node:util').inspect({ handle })]) {
    assert.ok(shown.includes('00112233aabbccdd'), shown);
    assert.ok(!shown.includes(KEY), shown);
  }
  assert.strictEqual(new mitosis.Handle(`mitosis://local/00112233aabbccdd#${KEY}`).agent, null);
});

test('what is no handle is refused, without its key in the message', () => {
  for (const bad of ['', 'mitosis://host-a/1', `http://host-a:1/00112233aabbccdd#${KEY}`, 7, undefined]) {
    assert.throws(() => new mitosis.Handle(bad), refused);
  }
  assert.throws(() => new mitosis.Handle(`mitosis://a:b:c/0011#${KEY}`), (error) => !error.message.includes(KEY));
});

test('a resume with arguments that cannot be right is refused', async () => {
  const cases = [
    ['nonsense', null, {}],
    [TEXT, 'host b', {}],
    [TEXT, 7, {}],
    [TEXT, null, { n: 0 }],
    [TEXT, null, { n: 1.5 }],
    [TEXT, null, { payload: 7 }],
    [TEXT, null, { env: { A: 1 } }],
    [TEXT, null, { stdio: ['inherit'] }],
    [TEXT, null, { listen: {} }],
    [TEXT, null, { listen: 'everywhere' }],
    [TEXT, null, { listen: [8080, 'unix:relative'] }],
    [TEXT, null, { stdio: ['inherit', 'inherit', -1] }],
    [TEXT, null, { clock: 'broken' }],
    [TEXT, null, { clock: 7 }],
    [TEXT, null, { cwd: 7 }],
    [TEXT, null, { cwd: '/a\0b' }],
    [TEXT, null, { hostname: true }],
    [TEXT, null, { cgroup: {} }],
    [TEXT, null, { namespaces: { net: 7 } }],
    [TEXT, null, { namespaces: { pid: '/proc/1/ns/pid' } }],
    [TEXT, null, { namespaces: { net: 'relative' } }],
  ];
  for (const args of cases) {
    await assert.rejects(mitosis.resume(...args), refused, JSON.stringify(args));
  }
});

test('a fork and a prepare likewise', async () => {
  await assert.rejects(mitosis.fork('no host'), refused);
  await assert.rejects(mitosis.fork(null, { payload: 7 }), refused);
  await assert.rejects(mitosis.prepare({ sharedCopyLimit: -1 }), refused);
  await assert.rejects(mitosis.prepare({ stopThreadsMs: 0 }), refused);
  for (const losses of ['keep', null, 7, { sockets: 'refuse' }, { pipes: 'keep' }, { pipes: true }]) {
    await assert.rejects(mitosis.prepare({ losses }), refused, JSON.stringify(losses));
  }
});

const EVENTS = ['before_prepare', 'after_prepare', 'rehearse', 'after_resume'];

test('hooks are functions of four events', () => {
  for (const event of EVENTS) {
    const hook = () => {};
    mitosis.on(event, hook);
    mitosis.off(event, hook);
    // There is none any more: no harm.
    mitosis.off(event, hook);
    assert.throws(() => mitosis.on(event, 7), refused, event);
    for (const timeoutMs of [0, 1.5, -1, 2 ** 31, '9', Infinity]) {
      assert.throws(() => mitosis.on(event, hook, { timeoutMs }), refused, `${event} ${timeoutMs}`);
    }
  }
  for (const event of ['before_resume', 'toString']) {
    for (const call of [mitosis.on, mitosis.off]) {
      assert.throws(() => call(event, () => {}), (error) => {
        assert.strictEqual(error.code, refused.code);
        return EVENTS.every((known) => error.message.includes(known));
      });
    }
  }
});

test('a process that no resume has made is of generation 0 and has no payload', async () => {
  assert.strictEqual(mitosis.generation, 0);
  assert.strictEqual(mitosis.payload, null);
  const imported = await import('mitosis-fork');
  assert.strictEqual(imported.generation, 0);
  assert.strictEqual(imported.payload, null);
  assert.strictEqual(imported.prepare, mitosis.prepare);
  assert.strictEqual(imported.default, mitosis);
});

test('a question to an agent that is not there says what to do', async () => {
  const { execFileSync } = require('node:child_process');
  const script = `require(${JSON.stringify(require.resolve('..'))}).list().catch((e) => console.log(e.code, e.message))`;
  const env = { ...process.env, MITOSIS_AGENT: '/nonexistent/agent.sock' };
  const said = execFileSync(process.execPath, ['-e', script], { env, encoding: 'utf8' });
  assert.match(said, /^ERR_MITOSIS_MISSING .*start one with 'mitosis agent'/);
});

test('a worker cannot prepare', async () => {
  const { Worker } = require('node:worker_threads');
  const script = `require(${JSON.stringify(require.resolve('..'))}).prepare()
    .catch((e) => require('node:worker_threads').parentPort.postMessage(e.code))`;
  const worker = new Worker(script, { eval: true });
  const code = await new Promise((resolve) => worker.once('message', resolve));
  assert.strictEqual(code, 'ERR_MITOSIS_NOT_FORKABLE');
  await worker.terminate();
});
