'use strict';

// The interface itself: who gets what on which side of a fork.

const assert = require('node:assert');
const test = require('node:test');

const { run, startAgent } = require('./stage.js');

test('prepare settles here and in each child', async (t) => {
  const agent = await startAgent(t);
  const said = await run(agent, async (mitosis, say) => {
    process.env.GONE = 'x';
    const { readFileSync } = require('node:fs');
    const commandLine = () => readFileSync('/proc/self/cmdline', 'utf8');
    // As text: what is compared with it later is not itself.
    const before = { ppid: process.ppid, argv: JSON.stringify(process.argv), commandLine: commandLine() };
    const me = await mitosis.prepare();
    if (me.role === 'child') {
      const { role, index, generation, payload, seed, child } = me;
      say({
        role, index, generation, seed, child,
        payload: payload.toString(),
        live: [mitosis.generation, mitosis.payload.toString()],
        pid: process.pid,
        // Of all pid namespaces that it is in, the innermost comes last.
        kernelPid: Number(/^NSpid:.*\s(\d+)$/m.exec(readFileSync('/proc/self/status', 'utf8'))[1]),
        ppids: [before.ppid, process.ppid],
        // Its own pid, and its parent's, as the /proc that it has counts them.
        kernelPids: /^(\d+) .*\) . (\d+) /.exec(readFileSync('/proc/self/stat', 'utf8')).slice(1).map(Number),
        env: [process.env.GIVEN, process.env.GONE, new Date(0).getHours()],
        argv: [before.argv, JSON.stringify(process.argv)],
        commandLine: [before.commandLine, commandLine()],
      });
      process.exit(index + 3);
    }
    say({ role: me.role, generation: mitosis.generation });
    const handle = await me.seed.handle();
    const env = { GIVEN: '1', GONE: null, TZ: 'Asia/Tokyo' };
    const children = await mitosis.resume(handle, null, { n: 2, payload: 'letter', env });
    const ends = await Promise.all(children.map((child) => child.wait()));
    await me.seed.drop();
    await me.seed.drop();
    const late = await mitosis.resume(handle).catch((error) => error.code);
    say({ ends, ids: children.map((child) => child.id), host: children[0].host, late });
  });
  const [parent, after] = [said[0], said.at(-1)];
  const children = said.slice(1, 3).sort((a, b) => a.index - b.index);
  assert.deepStrictEqual(parent, { role: 'parent', generation: 0 });
  children.forEach((child, i) => {
    assert.strictEqual(child.role, 'child');
    assert.strictEqual(child.index, i);
    assert.strictEqual(child.generation, 1);
    assert.deepStrictEqual([child.payload, ...child.live], ['letter', 1, 'letter']);
    assert.deepStrictEqual(child.env, ['1', null, 9]);
    assert.strictEqual(child.pid, child.kernelPid);
    assert.notStrictEqual(child.ppids[0], child.ppids[1]);
    // Where /proc is not of the child's own namespace, its numbers are others.
    if (child.kernelPids[0] === child.pid) {
      assert.strictEqual(child.ppids[1], child.kernelPids[1]);
    }
    assert.strictEqual(child.argv[0], child.argv[1]);
    assert.strictEqual(child.commandLine[0], child.commandLine[1]);
    assert.strictEqual(child.child, after.ids[i]);
  });
  assert.deepStrictEqual(after.ends, [3, 4].map((code) => ({ code, signal: null })));
  assert.strictEqual(after.late, 'ERR_MITOSIS_SEED_GONE');
});

test('a seed whose agent is away is asked and dropped later', async (t) => {
  const agent = await startAgent(t);
  const said = await run(agent, async (mitosis, say) => {
    const { renameSync } = require('node:fs');
    const socket = process.env.MITOSIS_AGENT;
    const { seed } = await mitosis.prepare();
    const code = (promise) => promise.then(() => 'done', (error) => error.code);
    renameSync(socket, `${socket}.away`);
    say([await code(seed.handle()), await code(seed.drop()), await code(seed.drop())]);
    renameSync(`${socket}.away`, socket);
    const handle = await seed.handle();
    say([await code(seed.drop()), await code(mitosis.resume(handle))]);
  });
  const away = 'ERR_MITOSIS_MISSING';
  assert.deepStrictEqual(said, [[away, away, away], ['done', 'ERR_MITOSIS_SEED_GONE']]);
});

test('hooks run in order, are awaited, and stop what they must', async (t) => {
  const agent = await startAgent(t);
  const said = await run(agent, async (mitosis, say) => {
    const { setTimeout: pause } = require('node:timers/promises');
    const ran = [];
    for (const event of ['before_prepare', 'after_prepare', 'after_resume']) {
      for (const i of [1, 2]) {
        mitosis.on(event, async (resumed) => {
          await pause(5);
          ran.push(`${event} ${i} ${resumed?.index ?? ''}`.trim());
        });
      }
    }
    const me = await mitosis.fork();
    if (me.role === 'child') {
      say({ child: ran });
      process.exit(0);
    }
    await me.child.wait();
    say({ parent: ran });
    const fails = () => {
      throw new Error('no');
    };
    mitosis.on('before_prepare', fails);
    ran.length = 0;
    const refused = await mitosis.prepare().catch((error) => error.message);
    mitosis.off('before_prepare', fails);
    say({ refused, ran });
    mitosis.on('after_resume', fails);
    const half = await mitosis.fork();
    say({ half: await half.child.wait() });
  });
  assert.deepStrictEqual(said, [
    { child: ['before_prepare 2', 'before_prepare 1', 'after_resume 1 0', 'after_resume 2 0'] },
    { parent: ['before_prepare 2', 'before_prepare 1', 'after_prepare 1', 'after_prepare 2'] },
    { refused: 'no', ran: ['after_prepare 1', 'after_prepare 2'] },
    { half: { code: 70, signal: null } },
  ]);
  assert.match(said.stderr, /could not be set up: Error: no/);
});

test('a hook that never settles is named, and stops what a failed one does', async (t) => {
  const agent = await startAgent(t);
  const said = await run(agent, async (mitosis, say) => {
    const never = () => new Promise(() => {});
    const ran = [];
    const tried = async (event) => {
      mitosis.on(event, never, { timeoutMs: 50 });
      const { code, message } = await mitosis.prepare().catch((error) => error);
      mitosis.off(event, never);
      say({ code, message, ran: ran.splice(0) });
    };
    mitosis.on('after_prepare', () => ran.push('after_prepare'));
    // What prepare has mapped ahead of its hooks shares a page with the seed that comes.
    const shared = () => require('node:fs').readFileSync('/proc/self/maps', 'utf8').match(/ rw-s .*zero/g)?.length ?? 0;
    const before = shared();
    await tried('before_prepare');
    say({ seeds: (await mitosis.list()).seeds.length, left: shared() - before });
    await tried('after_prepare');
    // In time, late but with none to be late for, and what is no promise.
    let settled = false;
    const slow = () =>
      new Promise((resolve) => {
        setTimeout(() => resolve((settled = true)), 60);
      });
    mitosis.on('before_prepare', slow, { timeoutMs: null });
    mitosis.on('before_prepare', async () => {}, { timeoutMs: 60_000 });
    mitosis.on('before_prepare', () => 7, { timeoutMs: 1 });
    mitosis.on('after_resume', never, { timeoutMs: 50 });
    const half = await mitosis.fork();
    say({ half: await half.child.wait(), settled });
  });
  assert.strictEqual(said.length, 4);
  assert.deepStrictEqual(said.splice(1, 1), [{ seeds: 0, left: 0 }]);
  for (const [i, event] of ['before_prepare', 'after_prepare'].entries()) {
    const { message, ...rest } = said[i];
    assert.deepStrictEqual(rest, { code: 'ERR_MITOSIS_HOOK_TIMEOUT', ran: ['after_prepare'] });
    assert.match(message, new RegExp(`the ${event} hook 'never' has not settled after 50 ms: `));
  }
  assert.deepStrictEqual(said[2], { half: { code: 70, signal: null }, settled: true });
  assert.match(said.stderr, /could not be set up: .*the after_resume hook 'never' has not settled/);
});

test('a rehearsal runs apart from everything', async (t) => {
  const agent = await startAgent(t);
  const said = await run(agent, async (mitosis, say, folder) => {
    const fs = require('node:fs');
    let rehearsed = 0;
    mitosis.on('rehearse', async () => {
      await new Promise((resolve) => setImmediate(resolve));
      rehearsed += 1;
      fs.appendFileSync(`${folder}/rehearsals`, `${mitosis.generation}`);
      fs.writeSync(1, 'nobody reads this');
      throw new Error('ignored');
    });
    mitosis.on('rehearse', () => fs.appendFileSync(`${folder}/rehearsals`, 'not after a failure'));
    const me = await mitosis.fork();
    if (me.role === 'child') {
      say({ rehearsed });
      process.exit(0);
    }
    say([await me.child.wait(), rehearsed, fs.readFileSync(`${folder}/rehearsals`, 'utf8')]);
  });
  assert.deepStrictEqual(said, [{ rehearsed: 0 }, [{ code: 0, signal: null }, 0, '1']]);
});

test('a child is waited for, killed, and given its stdio', async (t) => {
  const agent = await startAgent(t);
  const said = await run(agent, async (mitosis, say, folder) => {
    const fs = require('node:fs');
    const me = await mitosis.prepare();
    if (me.role === 'child') {
      if (String(me.payload) === 'write') {
        fs.writeSync(1, 'to a file\n');
        process.exit(0);
      }
      setInterval(() => {}, 1000);
      return;
    }
    const handle = await me.seed.handle();
    const stays = await mitosis.resume(handle);
    const running = await Promise.race([stays.wait(), new Promise((r) => setTimeout(r, 200, 'running'))]);
    const sent = await stays.kill('SIGKILL');
    const end = await stays.wait();
    say({ running, sent, end, after: [stays.signalCode, await stays.kill()] });
    const file = `${folder}/written`;
    const out = fs.openSync(file, 'w');
    const writes = await mitosis.resume(handle, null, { payload: 'write', stdio: ['ignore', out, 'inherit'] });
    await writes.wait();
    say(fs.readFileSync(file, 'utf8'));
    await me.seed.drop();
  });
  assert.deepStrictEqual(said, [
    { running: 'running', sent: true, end: { code: null, signal: 'SIGKILL' }, after: ['SIGKILL', false] },
    'to a file\n',
  ]);
});

test('a child can fork again', async (t) => {
  const agent = await startAgent(t);
  const said = await run(agent, async (mitosis, say) => {
    let depth = 0;
    for (;;) {
      const me = await mitosis.fork();
      if (me.role === 'parent') {
        const end = await me.child.wait();
        say({ depth, generation: mitosis.generation, end });
        process.exit(0);
      }
      depth += 1;
      if (depth === 3) {
        say({ depth, generation: mitosis.generation });
        process.exit(7);
      }
    }
  });
  const end = (code) => ({ code, signal: null });
  assert.deepStrictEqual(said, [
    { depth: 3, generation: 3 },
    { depth: 2, generation: 2, end: end(7) },
    { depth: 1, generation: 1, end: end(0) },
    { depth: 0, generation: 0, end: end(0) },
  ]);
});
