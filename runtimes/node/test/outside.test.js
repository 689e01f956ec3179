'use strict';

// An app that is prepared from outside, by the library that is preloaded: `mitosis prepare PID`.

const assert = require('node:assert');
const fs = require('node:fs');
const path = require('node:path');
const test = require('node:test');
const { execFile, spawn } = require('node:child_process');
const { promisify } = require('node:util');

const { PACKAGE, built, environment, run: runHere, startAgent } = require('./stage.js');

const REGISTER = path.join(PACKAGE, 'lib', 'register.js');
const APP_LIMIT_MS = 60_000;
const run = promisify(execFile);

function library() {
  return built('libmitosis_preload.so', 'MITOSIS_PRELOAD');
}

/** Starts `app` with the library preloaded, until it has said that it is ready. */
async function start(t, agent, app) {
  const node = spawn(process.execPath, ['--require', REGISTER, '-e', `(${app})()`], {
    cwd: PACKAGE,
    env: environment({ LD_PRELOAD: library(), MITOSIS_AGENT: agent.socket }),
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const late = setTimeout(() => node.kill('SIGKILL'), APP_LIMIT_MS);
  t.after(() => {
    clearTimeout(late);
    node.kill('SIGKILL');
  });
  await new Promise((resolve, reject) => {
    node.stdout.once('data', resolve);
    node.once('exit', (...end) => reject(new Error(`the app ended with ${end}`)));
  });
  return node;
}

/** What children say, one line each, in the order of their indexes. */
async function children(agent, pid, count) {
  const env = environment({ MITOSIS_AGENT: agent.socket });
  const prepared = await run(agent.binary, ['prepare', String(pid)], { env });
  const file = path.join(agent.folder, 'handle');
  fs.writeFileSync(file, prepared.stdout, { mode: 0o600 });
  const resumed = await run(agent.binary, ['resume', `@${file}`, '-n', String(count), '--payload', 'letter'], { env });
  const said = resumed.stdout.split('\n').filter((line) => line.startsWith('{')).map((line) => JSON.parse(line));
  return said.sort((a, b) => a.index - b.index);
}

test('hooks run in the children, and no two draw the same', async (t) => {
  const agent = await startAgent(t);
  const app = await start(t, agent, () => {
    const crypto = require('node:crypto');
    const mitosis = require('mitosis-fork');
    Math.random();
    crypto.randomUUID();
    crypto.randomInt(9);
    const draw = () => [
      Math.random(),
      crypto.randomUUID(),
      crypto.randomInt(2 ** 47),
      crypto.randomBytes(8).toString('hex'),
    ];
    mitosis.on('after_resume', ({ index, generation, payload }) => {
      const line = JSON.stringify({ index, generation, payload: payload.toString(), drawn: draw() });
      require('node:fs').writeSync(1, line + '\n');
      process.exit(0);
    });
    setInterval(() => {}, 1000);
    // What it draws itself afterwards, it tells when it is asked.
    process.once('SIGUSR2', () => console.log(JSON.stringify(draw())));
    console.log('ready');
  });
  const said = await children(agent, app.pid, 2);
  assert.deepStrictEqual(
    said.map(({ index, generation, payload }) => [index, generation, payload]),
    [
      [0, 1, 'letter'],
      [1, 1, 'letter'],
    ],
  );
  const own = new Promise((resolve) => app.stdout.once('data', (text) => resolve(JSON.parse(text))));
  app.kill('SIGUSR2');
  const all = [...said.map(({ drawn }) => drawn), await own];
  all[0].forEach((_, i) => {
    const values = all.map((drawn) => drawn[i]);
    assert.strictEqual(new Set(values).size, 3, values.join(' '));
  });
});

test('an app with the library prepares by the package, too', async (t) => {
  const agent = await startAgent(t);
  const program = async (mitosis, say) => {
    const { randomBytes, randomUUID } = require('node:crypto');
    const draw = () => [Math.random(), randomUUID(), randomBytes(8).toString('hex')];
    draw();
    let hooks = 0;
    mitosis.on('after_resume', () => hooks++);
    const isThere = require('node:fs').readFileSync('/proc/self/maps', 'utf8').includes('libmitosis_preload.so');
    const me = await mitosis.prepare();
    if (me.role === 'child') {
      say({ index: me.index, payload: String(me.payload), hooks, drawn: draw() });
      process.exit(0);
    }
    const children = await mitosis.resume(await me.seed.handle(), null, { n: 2, payload: 'letter' });
    const ends = await Promise.all(children.map((child) => child.wait()));
    say({ isThere, ends, hooks, drawn: draw() });
    await me.seed.drop();
    process.exit(0);
  };
  const said = await runHere(agent, program, { env: { LD_PRELOAD: library() } });
  const parent = said.pop();
  const done = { code: 0, signal: null };
  assert.deepStrictEqual([parent.isThere, parent.ends, parent.hooks], [true, [done, done], 0]);
  const children = said.sort((a, b) => a.index - b.index);
  assert.deepStrictEqual(
    children.map(({ index, payload, hooks }) => [index, payload, hooks]),
    [
      [0, 'letter', 1],
      [1, 'letter', 1],
    ],
  );
  const drawn = [parent, ...children].flatMap((one) => one.drawn);
  assert.strictEqual(new Set(drawn).size, 9, drawn.join(' '));
});
