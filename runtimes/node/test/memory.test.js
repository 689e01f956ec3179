'use strict';

// The collector in a child: right after resume, under load, and over a large heap.

const assert = require('node:assert');
const test = require('node:test');

const { run, startAgent } = require('./stage.js');

const DONE = { code: 0, signal: null };

test('the collector runs right after resume, under load', async (t) => {
  const agent = await startAgent(t);
  const program = async (mitosis, say) => {
    const { createHash } = require('node:crypto');
    const kept = new Map();
    for (let i = 0; i < 200_000; i++) kept.set(`key ${i}`, { i, text: `value ${i}`, buffer: i % 1000 ? null : Buffer.alloc(2000, i) });
    let finalised = 0;
    const registry = new FinalizationRegistry(() => finalised++);
    const weak = new WeakRef({});
    const sum = () => {
      const hash = createHash('sha256');
      for (const [key, { i, text, buffer }] of kept) hash.update(`${key}${i}${text}`).update(buffer ?? '');
      return hash.digest('hex');
    };
    const me = await mitosis.prepare();
    if (me.role === 'child') {
      global.gc();
      const before = sum();
      for (let round = 0; round < 20; round++) {
        const garbage = [];
        for (let i = 0; i < 20_000; i++) garbage.push({ round, i, text: `garbage ${i}`, more: new Array(8).fill(i) });
        registry.register(garbage[0], 'round');
        for (let i = 0; i < 50; i++) Buffer.alloc(100_000, round);
        if (round % 5 === 0) global.gc();
        global.gc({ type: 'minor' });
      }
      await new Promise((resolve) => setTimeout(resolve, 50));
      global.gc();
      await new Promise((resolve) => setTimeout(resolve, 50));
      say({ before, after: sum(), finalised: finalised > 0, weak: weak.deref() === undefined });
      process.exit(0);
    }
    const children = await mitosis.resume(await me.seed.handle(), null, { n: 3 });
    say(await Promise.all(children.map((child) => child.wait())));
    say(sum());
    await me.seed.drop();
    process.exit(0);
  };
  const said = await run(agent, program, { args: ['--expose-gc'] });
  const [ends, sum] = said.slice(-2);
  assert.deepStrictEqual(ends, [DONE, DONE, DONE]);
  const child = { before: sum, after: sum, finalised: true, weak: true };
  assert.deepStrictEqual(said.slice(0, 3), [child, child, child]);
});

test('a heap that hooks make larger, at once and in time', async (t) => {
  const agent = await startAgent(t);
  const program = async (mitosis, say) => {
    const kept = [];
    let waits = 0;
    // After the look at what is mapped that prepare takes ahead of its hooks.
    mitosis.on('before_prepare', async () => {
      for (let i = 0; i < 300; i++) kept.push(new Array(16_384).fill(i + 0.5), Buffer.alloc(200_000, i));
      for (let i = 0; i < 100_000; i++) kept.push({ i, text: String(i) });
      await new Promise((resolve) => setTimeout(resolve, waits));
    });
    const look = () => kept.reduce((sum, one) => sum + (one.i ?? one.at(-1)), 0);
    for (waits of [0, 150]) {
      const me = await mitosis.prepare();
      if (me.role === 'child') {
        say({ look: look() });
        process.exit(0);
      }
      const child = await mitosis.resume(await me.seed.handle());
      say({ look: look(), end: await child.wait() });
      await me.seed.drop();
    }
    process.exit(0);
  };
  const said = await run(agent, program);
  const looks = said.map(({ look }) => look);
  assert.deepStrictEqual(looks, [looks[0], looks[0], looks[2], looks[2]]);
  assert.ok(looks[0] > 0 && looks[2] > looks[0]);
  assert.deepStrictEqual([said[1].end, said[3].end], [DONE, DONE]);
});

test('mappings are looked at ahead of hooks, unless code that is not node\'s own could change them unseen', async (t) => {
  const agent = await startAgent(t);
  const program = async (mitosis, say) => {
    const native = require('./lib/native.js');
    for (const hooksFollow of [false, true]) {
      const ahead = await native.lookAhead(process.env.MITOSIS_AGENT, 1 << 20, 1000, [], hooksFollow);
      say(ahead !== null);
      if (ahead !== null) native.forgetAhead(ahead);
    }
    process.exit(0);
  };
  assert.deepStrictEqual(await run(agent, program), [true, true]);
  // Any library that node is not linked to.
  const env = { LD_PRELOAD: 'libutil.so.1' };
  assert.deepStrictEqual(await run(agent, program, { env }), [true, false]);
});

test('a heap of a gigabyte', async (t) => {
  const agent = await startAgent(t);
  const program = async (mitosis, say) => {
    const kept = [];
    // 128 KiB of numbers each, which are large objects, and small ones that fill pages.
    for (let i = 0; i < 7500; i++) {
      kept.push(new Array(16_384).fill(i + 0.5), { i, text: String(i).padStart(16) });
      if (i % 10 === 0) kept.push(Array.from({ length: 2000 }, (_, j) => ({ j })));
    }
    const heap = process.memoryUsage().heapUsed;
    const look = () => {
      let sum = 0;
      for (let at = 0; at < kept.length; at += 7) sum += Array.isArray(kept[at]) ? kept[at].length : kept[at].i;
      return sum;
    };
    const start = performance.now();
    const me = await mitosis.prepare();
    if (me.role === 'child') {
      const sum = look();
      kept.length = 100;
      global.gc();
      say({ sum, heap: process.memoryUsage().heapUsed / heap });
      process.exit(0);
    }
    const pause = performance.now() - start;
    const child = await mitosis.resume(await me.seed.handle());
    say({ sum: look(), heap, pause, end: await child.wait() });
    await me.seed.drop();
    process.exit(0);
  };
  const said = await run(agent, program, { args: ['--expose-gc', '--max-old-space-size=4096'] });
  const [child, parent] = said;
  assert.deepStrictEqual(parent.end, DONE);
  assert.ok(parent.heap > 1e9, `the heap has ${parent.heap} bytes`);
  assert.strictEqual(child.sum, parent.sum);
  assert.ok(child.heap < 0.5, `of the heap ${child.heap} are left`);
});
