'use strict';

// Where children are, and what their clocks tell. Needs root, as agents do that may give it.

const assert = require('node:assert');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const test = require('node:test');
const { execFileSync } = require('node:child_process');

const { run, startAgent } = require('./stage.js');

test('a child is in the directory, and under the name, that its resumer says', async (t) => {
  const agent = await startAgent(t);
  const said = await run(agent, async (mitosis, say, folder) => {
    const os = require('node:os');
    const { Worker } = require('node:worker_threads');
    // Whose loop hears of no fork, and which has asked before.
    const worker = new Worker(
      `const { parentPort } = require('node:worker_threads');
       process.cwd();
       parentPort.on('message', () => parentPort.postMessage(process.cwd()));`,
      { eval: true },
    );
    const ofWorker = () => {
      worker.postMessage('where');
      return new Promise((resolve) => worker.once('message', resolve));
    };
    process.chdir(folder);
    await ofWorker();
    const where = async () => [process.cwd(), await ofWorker(), os.hostname()];
    const cmdline = () => require('node:fs').readFileSync('/proc/self/cmdline', 'latin1');
    const me = await mitosis.prepare();
    if (me.role === 'child') {
      if (me.payload.length > 0) {
        say({ cmdline: cmdline() });
        process.exit(0);
      }
      say({ child: await where() });
      process.exit(0);
    }
    const started = async (options) => (await mitosis.resume(await me.seed.handle(), null, options)).wait();
    await started({});
    await started({ cwd: '/usr', hostname: 'elsewhere' });
    await started({ cwd: '/usr', namespaces: { net: '/proc/self/ns/net' } });
    await started({ payload: 'argv', argv: ['worker', '--blue'] });
    say({ parent: await where() });
    for (const wrong of [
      { cwd: 'usr' },
      { cwd: '/not/there' },
      { hostname: '' },
      { argv: 'worker' },
      { argv: ['a\0b'] },
      { cgroup: '/proc/self' },
      { namespaces: { net: '/proc/self/ns/ipc' } },
    ]) {
      await started(wrong).then(
        () => say({ wrong }),
        (error) => say({ refused: error.code }),
      );
    }
    await me.seed.drop();
    process.exit(0);
  });
  const own = said.find((line) => line.parent).parent;
  assert.strictEqual(own[0], agent.folder);
  const children = said.filter((line) => line.child).map((line) => line.child);
  assert.deepStrictEqual(children, [own, ['/usr', '/usr', 'elsewhere'], ['/usr', '/usr', own[2]]]);
  const parent = said.findIndex((line) => line.parent);
  assert.deepStrictEqual(said[parent - 1], { cmdline: 'worker\0--blue\0' });
  assert.deepStrictEqual(said.slice(parent + 1), Array(7).fill({ refused: 'ERR_MITOSIS_ARGUMENT' }));
});

test('a child joins the control group and the namespaces that its resumer says', async (t) => {
  const groups = fs.mkdtempSync(path.join(os.tmpdir(), 'mitosis-groups-'));
  execFileSync('mount', ['-t', 'cgroup2', 'none', groups]);
  const group = path.join(groups, path.basename(groups));
  fs.mkdirSync(group);
  t.after(() => {
    fs.rmdirSync(group);
    execFileSync('umount', [groups]);
    fs.rmdirSync(groups);
  });
  const agent = await startAgent(t);
  const said = await run(
    agent,
    async (mitosis, say) => {
      const fs = require('node:fs');
      const os = require('node:os');
      const { spawn } = require('node:child_process');
      const me = await mitosis.prepare();
      if (me.role === 'child') {
        const [line] = fs.readFileSync('/proc/self/cgroup', 'utf8').match(/^0::.*/m);
        say({ hostname: os.hostname(), group: line, payload: String(me.payload) });
        process.exit(0);
      }
      const script = 'hostname joined; echo; exec sleep 100000';
      const other = spawn('unshare', ['--uts', 'sh', '-c', script], { stdio: ['ignore', 'pipe', 'inherit'] });
      await new Promise((resolve) => other.stdout.once('data', resolve));
      const namespaces = { uts: `/proc/${other.pid}/ns/uts` };
      const handle = await me.seed.handle();
      for (const options of [{}, { cgroup: process.env.GROUP }, { namespaces }]) {
        const payload = Object.keys(options).join();
        await (await mitosis.resume(handle, null, { payload, ...options })).wait();
      }
      other.kill('SIGKILL');
      await me.seed.drop();
      process.exit(0);
    },
    { env: { GROUP: group } },
  );
  assert.deepStrictEqual(said.map(({ payload }) => payload), ['', 'cgroup', 'namespaces']);
  const [plain, grouped, joined] = said;
  assert.ok(!plain.group.endsWith(path.basename(group)), plain.group);
  assert.ok(grouped.group.endsWith(path.basename(group)), grouped.group);
  assert.deepStrictEqual([grouped.hostname, joined.hostname], [plain.hostname, 'joined']);
});

test('the clock of a child goes on live, or from where it stood', async (t) => {
  const agent = await startAgent(t);
  const SLEPT_MS = 500;
  const said = await run(agent, async (mitosis, say) => {
    // Of the same moment: what passes between the two is little and the same for all.
    const [clock, real] = [performance.now(), Date.now()];
    const me = await mitosis.prepare();
    if (me.role === 'child') {
      const behind = Date.now() - real - (performance.now() - clock);
      say({ clock: String(me.payload), behind, delta: String(me.clockDeltaNs) });
      process.exit(0);
    }
    const handle = await me.seed.handle();
    await new Promise((resolve) => setTimeout(resolve, 500));
    for (const clock of [undefined, 'live', 'frozen']) {
      const children = await mitosis.resume(handle, null, { n: 2, payload: clock ?? 'live', clock });
      await Promise.all(children.map((child) => child.wait()));
    }
    await me.seed.drop();
    const forked = await mitosis.fork(null, { payload: 'live', clock: 'live', cwd: '/usr' });
    if (forked.role === 'child') {
      say({ clock: process.cwd(), behind: 0, delta: String(forked.clockDeltaNs) });
      process.exit(0);
    }
    await forked.child.wait();
    process.exit(0);
  });
  assert.deepStrictEqual(said.map(({ clock }) => clock), [...Array(4).fill('live'), 'frozen', 'frozen', '/usr']);
  for (const { clock, behind, delta } of said) {
    assert.strictEqual(delta, '0');
    assert.ok(clock === 'frozen' ? behind > 0.9 * SLEPT_MS : behind < 0.5 * SLEPT_MS, `${clock} ${behind}`);
  }
});
