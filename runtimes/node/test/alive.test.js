'use strict';

// What was under way when the seed was made goes on in the children.

const assert = require('node:assert');
const test = require('node:test');

const { run, startAgent } = require('./stage.js');

const DONE = { code: 0, signal: null };

test('an idle loop and its timers go on', async (t) => {
  const agent = await startAgent(t);
  const said = await run(agent, async (mitosis, say) => {
    let ticks = 0;
    const interval = setInterval(() => ticks++, 20);
    const fired = [];
    setTimeout(() => fired.push('timeout'), 300);
    const aborted = setTimeout(() => fired.push('cleared'), 300);
    setImmediate(() => fired.push('immediate'));
    const before = process.hrtime.bigint();
    const me = await mitosis.prepare();
    if (me.role === 'child') {
      const woke = performance.now();
      const [ticked, at] = [ticks, Date.now()];
      clearTimeout(aborted);
      await new Promise((resolve) => setTimeout(resolve, 400));
      clearInterval(interval);
      say({
        fired,
        ticked: ticks - ticked,
        slept: performance.now() - woke,
        wall: Date.now() - at,
        monotonic: process.hrtime.bigint() > before,
        clock: Math.abs(performance.timeOrigin + performance.now() - Date.now()),
      });
      return;
    }
    clearInterval(interval);
    clearTimeout(aborted);
    const child = await mitosis.resume(await me.seed.handle());
    say(await child.wait());
    await me.seed.drop();
  });
  const [child, end] = said;
  assert.deepStrictEqual(end, DONE);
  assert.deepStrictEqual(child.fired, ['immediate', 'timeout']);
  assert.ok(child.ticked >= 5 && child.ticked <= 22, `${child.ticked} ticks of 20 ms in 400 ms`);
  for (const slept of [child.slept, child.wall]) {
    assert.ok(slept >= 395 && slept < 2000, `${slept} ms`);
  }
  assert.ok(child.monotonic);
  assert.ok(child.clock < 1000, `performance's clock is off by ${child.clock} ms`);
});

test("the thread pool's work goes on, and takes more", async (t) => {
  const agent = await startAgent(t);
  const said = await run(agent, async (mitosis, say, folder) => {
    const { promises: fs } = require('node:fs');
    const { promisify } = require('node:util');
    const crypto = require('node:crypto');
    const zlib = require('node:zlib');
    const dns = require('node:dns').promises;
    const pbkdf2 = promisify(crypto.pbkdf2);
    const file = `${folder}/data`;
    await fs.writeFile(file, 'x'.repeat(100_000));
    // Runs for longer than prepare takes: it is under way in the pool when the threads stop.
    const underWay = Promise.all([1, 2, 3, 4].map((i) => pbkdf2('secret', `salt${i}`, 1_000_000, 16, 'sha256')));
    // Behind these, in the pool's queue: it has four threads.
    const reads = Promise.all(Array.from({ length: 20 }, () => fs.readFile(file, 'utf8')));
    let areRead = false;
    reads.then(() => (areRead = true));
    const me = await mitosis.prepare();
    if (me.role === 'child') {
      const wereRead = areRead;
      const keys = (await underWay).map((key) => key.toString('hex'));
      const read = (await reads).map((text) => text.length);
      const texts = await Promise.all(Array.from({ length: 20 }, () => fs.readFile(file, 'utf8')));
      await fs.appendFile(file, 'y');
      const packed = await promisify(zlib.gzip)(texts[0]);
      say({
        keys,
        wereRead,
        read,
        lengths: [...new Set(texts.map((text) => text.length))],
        packed: (await promisify(zlib.gunzip)(packed)).toString() === texts[0],
        address: (await dns.lookup('127.0.0.1')).address,
      });
      process.exit(0);
    }
    const handle = await me.seed.handle();
    const child = await mitosis.resume(handle);
    const end = await child.wait();
    say({ keys: (await underWay).map((key) => key.toString('hex')), end, size: (await fs.stat(file)).size });
    say((await reads).map((text) => text.length));
    await me.seed.drop();
  });
  const [child, parent, parentRead] = said;
  const read = Array(20).fill(100_000);
  assert.deepStrictEqual(parent.end, DONE);
  assert.strictEqual(parent.size, 100_001);
  assert.deepStrictEqual(parentRead, read);
  const { keys } = parent;
  const rest = { lengths: [100_000], packed: true, address: '127.0.0.1' };
  assert.deepStrictEqual(child, { keys, wereRead: false, read, ...rest });
});

test('worker threads live on, and new ones can be made', async (t) => {
  const agent = await startAgent(t);
  const said = await run(agent, async (mitosis, say) => {
    const { Worker } = require('node:worker_threads');
    const counting = `
      const { parentPort, workerData } = require('node:worker_threads');
      let count = workerData.from;
      setInterval(() => Atomics.add(workerData.ticks, 0, 1), 10).unref();
      parentPort.on('message', (n) => parentPort.postMessage(count += n));`;
    const ticks = new Int32Array(new SharedArrayBuffer(4));
    const make = (from) => new Worker(counting, { eval: true, workerData: { from, ticks } });
    const ask = (worker, n) =>
      new Promise((resolve) => {
        worker.once('message', resolve);
        worker.postMessage(n);
      });
    const workers = [make(10), make(20)];
    await Promise.all(workers.map((worker) => ask(worker, 1)));
    const me = await mitosis.prepare();
    if (me.role === 'child') {
      const at = Atomics.load(ticks, 0);
      const old = await Promise.all(workers.map((worker) => ask(worker, 100)));
      const made = await ask(make(30), 1);
      await new Promise((resolve) => setTimeout(resolve, 100));
      const ticked = Atomics.load(ticks, 0) > at;
      const codes = await Promise.all(workers.map((worker) => worker.terminate()));
      say({ old, made, ticked, codes });
      process.exit(0);
    }
    const child = await mitosis.resume(await me.seed.handle());
    say(await child.wait());
    say(await Promise.all(workers.map((worker) => ask(worker, 1000))));
    await me.seed.drop();
    process.exit(0);
  });
  assert.deepStrictEqual(said, [{ old: [111, 121], made: 31, ticked: true, codes: [1, 1] }, DONE, [1011, 1021]]);
});

test('streams, WASM, Intl and optimised code are what they were', async (t) => {
  const agent = await startAgent(t);
  const said = await run(agent, async (mitosis, say) => {
    const { PassThrough } = require('node:stream');
    const { pipeline } = require('node:stream/promises');
    const zlib = require('node:zlib');
    // (func (export "add") (param i32 i32) (result i32) local.get 0 local.get 1 i32.add), and a memory
    const code = Uint8Array.from([
      0, 97, 115, 109, 1, 0, 0, 0, 1, 7, 1, 96, 2, 127, 127, 1, 127, 3, 2, 1, 0, 5, 3, 1, 0, 1, 7, 13, 2, 3, 97, 100,
      100, 0, 0, 3, 109, 101, 109, 2, 0, 10, 9, 1, 7, 0, 32, 0, 32, 1, 106, 11,
    ]);
    const { exports: wasm } = (await WebAssembly.instantiate(code)).instance;
    const memory = new Uint8Array(wasm.mem.buffer);
    memory[7] = 42;
    for (let i = 0; i < 1e5; i++) wasm.add(i, 1);
    const money = new Intl.NumberFormat('de-DE', { style: 'currency', currency: 'EUR' });
    const hot = (n) => {
      let sum = 0;
      for (let i = 0; i < n; i++) sum = (sum * 31 + i) | 0;
      return sum;
    };
    // The bit kOptimized of V8's OptimizationStatus.
    const OPTIMISED = 1 << 4;
    const isOptimised = new Function('code', `return (%GetOptimizationStatus(code) & ${OPTIMISED}) !== 0`);
    // Asked for, as it would be by itself at a time that V8 chooses: a loop that calls it often enough is
    // compiled with it inside, and the function itself may never be.
    new Function('code', '%PrepareFunctionForOptimization(code); code(1000); %OptimizeFunctionOnNextCall(code)')(hot);
    hot(1000);
    if (!isOptimised(hot)) {
      throw new Error('V8 does not optimise it');
    }
    const gzip = zlib.createGzip();
    gzip.write('first half, ');
    const [source, through, lines] = [new PassThrough(), new PassThrough(), []];
    through.on('data', (data) => lines.push(String(data)));
    const piped = pipeline(source, through);
    source.write('a');
    while (lines.length === 0) {
      await new Promise((resolve) => setImmediate(resolve));
    }
    const linesBefore = [...lines];
    const me = await mitosis.prepare();
    if (me.role === 'child') {
      source.write('b');
      source.end('c');
      await piped;
      gzip.end('second half');
      const packed = [];
      for await (const piece of gzip) packed.push(piece);
      wasm.mem.grow(1);
      say({
        wasm: [wasm.add(40, 2), memory.length, new Uint8Array(wasm.mem.buffer)[7]],
        again: (await WebAssembly.instantiate(code)).instance.exports.add(1, 2),
        money: [money.format(1234.5), new Intl.NumberFormat('en-IN').format(1e7), 'ä'.localeCompare('z', 'de')],
        date: new Intl.DateTimeFormat('fr', { dateStyle: 'full', timeZone: 'UTC' }).format(0),
        packed: zlib.gunzipSync(Buffer.concat(packed)).toString(),
        linesBefore,
        lines,
        // Asked before it runs here.
        isOptimised: isOptimised(hot),
        hot: hot(1000),
      });
      process.exit(0);
    }
    const child = await mitosis.resume(await me.seed.handle());
    say(await child.wait());
    say(hot(1000));
    await me.seed.drop();
    process.exit(0);
  }, { args: ['--allow-natives-syntax'] });
  const [child, end, hot] = said;
  assert.deepStrictEqual(end, DONE);
  assert.deepStrictEqual(child, {
    wasm: [42, 0, 42],
    again: 3,
    money: ['1.234,50\u00a0€', '1,00,00,000', -1],
    date: 'jeudi 1 janvier 1970',
    packed: 'first half, second half',
    linesBefore: ['a'],
    lines: ['a', 'b', 'c'],
    isOptimised: true,
    hot,
  });
});

test('a child can start programs', async (t) => {
  const agent = await startAgent(t);
  const said = await run(agent, async (mitosis, say) => {
    const { execFileSync, spawn } = require('node:child_process');
    execFileSync('true');
    const me = await mitosis.prepare();
    if (me.role === 'child') {
      const cat = spawn('cat', { stdio: ['pipe', 'pipe', 'inherit'] });
      cat.stdin.end('through a pipe');
      let text = '';
      for await (const data of cat.stdout) text += data;
      say({ text, sync: execFileSync('echo', ['sync'], { encoding: 'utf8' }) });
      process.exit(0);
    }
    const child = await mitosis.resume(await me.seed.handle());
    say(await child.wait());
    await me.seed.drop();
  });
  assert.deepStrictEqual(said, [{ text: 'through a pipe', sync: 'sync\n' }, DONE]);
});

test('signals reach the handlers of a child', async (t) => {
  const agent = await startAgent(t);
  const said = await run(agent, async (mitosis, say, folder) => {
    const { existsSync, writeFileSync } = require('node:fs');
    const { setTimeout: pause } = require('node:timers/promises');
    const sign = `${folder}/child-is-ready`;
    process.on('SIGUSR2', () => {
      say('told');
      process.exit(5);
    });
    const me = await mitosis.prepare();
    if (me.role === 'child') {
      say('ready');
      setInterval(() => {}, 1000);
      writeFileSync(sign, '');
      return;
    }
    const child = await mitosis.resume(await me.seed.handle());
    while (!existsSync(sign)) {
      await pause(10);
    }
    await child.kill('SIGUSR2');
    say(await child.wait());
    await me.seed.drop();
    process.exit(0);
  });
  assert.deepStrictEqual(said, ['ready', 'told', { code: 5, signal: null }]);
});
