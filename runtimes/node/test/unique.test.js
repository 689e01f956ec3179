'use strict';

// Two children never agree on what is drawn by chance, nor does the parent with them.

const assert = require('node:assert');
const test = require('node:test');
const { execFileSync } = require('node:child_process');

const { run, startAgent } = require('./stage.js');

test("a reseed takes Math.random back to the isolate's generator", () => {
  // With a seed named, V8 begins each context's sequence anew: that it begins shows the reset.
  const script = `
    const native = require(${JSON.stringify(require.resolve('../lib/native.js'))});
    const first = [Math.random(), Math.random()];
    for (let i = 0; i < 100; i++) Math.random();
    const reset = native.reseed();
    console.log(JSON.stringify([reset, first, [Math.random(), Math.random()]]));`;
  const said = execFileSync(process.execPath, ['--random-seed=7', '-e', script], { encoding: 'utf8' });
  const [reset, before, after] = JSON.parse(said);
  assert.strictEqual(reset, true);
  assert.deepStrictEqual(after, before);
});

test('what randomInt has drawn ahead is drawn anew', () => {
  const script = `
    const crypto = require('node:crypto');
    const unique = require(${JSON.stringify(require.resolve('../lib/unique.js'))});
    const read = Buffer.prototype.readUIntBE;
    let bytes;
    Buffer.prototype.readUIntBE = function (...args) { bytes = this; return read.apply(this, args); };
    crypto.randomInt(1);
    const before = Buffer.from(bytes);
    unique.drawOut();
    console.log(bytes.length, bytes.subarray(-64).equals(before.subarray(-64)));`;
  assert.strictEqual(execFileSync(process.execPath, ['-e', script], { encoding: 'utf8' }), '6144 false\n');
});

test('what randomUUID has drawn ahead is drawn anew, also for whoever took it before', () => {
  const script = `
    const { randomUUID } = require('node:crypto');
    randomUUID();
    const unique = require(${JSON.stringify(require.resolve('../lib/unique.js'))});
    const views = Object.getPrototypeOf(Uint8Array.prototype);
    const own = Object.getOwnPropertyDescriptor(views, 'byteLength');
    let bytes;
    Object.defineProperty(views, 'byteLength', { ...own, get() { bytes = this; return own.get.call(this); } });
    for (let i = 0; i < 128 && !bytes; i++) randomUUID();
    Object.defineProperty(views, 'byteLength', own);
    const before = Buffer.from(bytes);
    unique.drawOut();
    const same = bytes.filter((byte, i) => byte === before[i]).length;
    const hex = randomUUID().replaceAll('-', '');
    const at = [...Array(128).keys()].find((i) => Buffer.from(bytes).toString('hex', 16 * i, 16 * i + 6) === hex.slice(0, 12));
    console.log(bytes.length, same < 100, at >= 0);`;
  assert.strictEqual(execFileSync(process.execPath, ['-e', script], { encoding: 'utf8' }), '2048 true true\n');
});

test('whoever draws before a worker is told draws anew', () => {
  const script = `
    const crypto = require('node:crypto');
    const native = require(${JSON.stringify(require.resolve('../lib/native.js'))});
    require(${JSON.stringify(require.resolve('../lib/unique.js'))});
    const read = Buffer.prototype.readUIntBE;
    let bytes;
    Buffer.prototype.readUIntBE = function (...args) { bytes = this; return read.apply(this, args); };
    crypto.randomInt(9);
    let generation = 0;
    native.generation = () => generation;
    let before = Buffer.alloc(0);
    const isNew = () => {
      const differs = !bytes.subarray(-64).equals(before);
      before = Buffer.from(bytes.subarray(-64));
      return differs;
    };
    isNew();
    const said = [];
    for (const draw of [crypto.randomUUID, crypto.randomInt.bind(null, 9), () => globalThis.crypto.randomUUID()]) {
      draw();
      said.push(isNew());
      generation++;
      draw();
      said.push(isNew());
    }
    console.log(said.join());`;
  const said = execFileSync(process.execPath, ['-e', script], { encoding: 'utf8' });
  assert.strictEqual(said, 'false,true,false,true,false,true\n');
});

test('whatever draws before a worker is told seeds anew', () => {
  const script = `
    const crypto = require('node:crypto');
    const { promisify } = require('node:util');
    const native = require(${JSON.stringify(require.resolve('../lib/native.js'))});
    require(${JSON.stringify(require.resolve('../lib/unique.js'))});
    let [generation, reseeds] = [0, 0];
    native.generation = () => generation;
    native.reseed = () => reseeds++;
    const { webcrypto } = crypto;
    const draws = [
      () => crypto.randomBytes(8),
      () => crypto.randomBytes(8, () => {}),
      () => crypto.pseudoRandomBytes(8),
      () => crypto.rng(8),
      () => crypto.prng(8),
      () => crypto.randomFillSync(Buffer.alloc(8)),
      () => crypto.randomFill(Buffer.alloc(8), () => {}),
      () => crypto.getRandomValues(new Uint8Array(8)),
      () => webcrypto.getRandomValues(new Uint8Array(8)),
      () => globalThis.crypto.getRandomValues(new Uint8Array(8)),
      () => crypto.generateKeySync('hmac', { length: 64 }),
      () => crypto.generateKey('hmac', { length: 64 }, () => {}),
      () => crypto.generateKeyPairSync('ed25519'),
      () => crypto.generateKeyPair('ed25519', () => {}),
      () => crypto.generatePrimeSync(32),
      () => crypto.generatePrime(32, () => {}),
      () => webcrypto.subtle.generateKey({ name: 'AES-CBC', length: 128 }, true, ['encrypt']),
    ];
    const wrong = draws.filter((draw) => {
      reseeds = 0;
      draw();
      const before = reseeds;
      generation++;
      draw();
      draw();
      return before !== 0 || reseeds !== 1;
    });
    promisify(crypto.generateKeyPair)('ed25519').then((pair) => console.log(wrong.map(String), Object.keys(pair).join()));`;
  const said = execFileSync(process.execPath, ['-e', script], { encoding: 'utf8' });
  assert.strictEqual(said, '[] publicKey,privateKey\n');
});

test('what is being drawn while a worker is forked is drawn once more, unless it comes later', () => {
  const script = `
    const crypto = require('node:crypto');
    const native = require(${JSON.stringify(require.resolve('../lib/native.js'))});
    let generation = 0;
    native.generation = () => generation;
    let draws = 0;
    const forking = (name) => {
      const real = crypto[name];
      crypto[name] = (...args) => {
        generation += 1 - (draws++ % 2);
        return real(...args);
      };
    };
    ['randomBytes', 'generateKeySync', 'generateKey'].forEach(forking);
    require(${JSON.stringify(require.resolve('../lib/unique.js'))});
    const drawn = (draw) => {
      draws = 0;
      draw();
      return draws;
    };
    const said = [
      drawn(() => crypto.randomBytes(8)),
      drawn(() => crypto.generateKeySync('hmac', { length: 64 })),
      drawn(() => crypto.randomBytes(8, () => {})),
      drawn(() => crypto.generateKey('hmac', { length: 64 }, () => {})),
    ];
    console.log(said.join());`;
  const said = execFileSync(process.execPath, ['-e', script], { encoding: 'utf8' });
  assert.strictEqual(said, '2,2,1,1\n');
});

test('what is drawn ahead by a worker that is forked meanwhile is not its child\'s', () => {
  const script = `
    const crypto = require('node:crypto');
    const native = require(${JSON.stringify(require.resolve('../lib/native.js'))});
    let generation = 0;
    let fills = 0;
    native.generation = () => generation;
    native.fill = () => void fills++;
    const { randomUUID } = crypto;
    crypto.randomUUID = () => {
      generation = 1;
      return randomUUID();
    };
    const { drawAnew } = require(${JSON.stringify(require.resolve('../lib/unique.js'))});
    const filled = () => {
      fills = 0;
      crypto.randomInt(9);
      return fills;
    };
    const whileLoading = [filled(), filled()];
    native.reseed = () => void generation++;
    drawAnew();
    native.reseed = () => {};
    console.log(whileLoading, [filled(), filled()]);`;
  const said = execFileSync(process.execPath, ['-e', script], { encoding: 'utf8' });
  assert.strictEqual(said, '[ 2, 0 ] [ 2, 0 ]\n');
});

test('a worker that starts in a child seeds Math.random anew, though nobody tells it of the fork', () => {
  const script = `
    const { Worker } = require('node:worker_threads');
    const code = \`
      const first = Math.random();
      for (let i = 0; i < 100; i++) Math.random();
      const native = require(${JSON.stringify(require.resolve('../lib/native.js'))});
      native.generation = () => 1;
      require(${JSON.stringify(require.resolve('..'))});
      require('node:worker_threads').parentPort.postMessage(Math.random() === first);\`;
    new Worker(code, { eval: true }).once('message', (is) => console.log(is));`;
  const said = execFileSync(process.execPath, ['--random-seed=7', '-e', script], { encoding: 'utf8' });
  assert.strictEqual(said, 'true\n');
});

test('a worker may be the only one to load the package, and end before the main thread loads it', () => {
  const script = `
    const { Worker } = require('node:worker_threads');
    const load = 'require(' + JSON.stringify(${JSON.stringify(require.resolve('..'))}) + ').generation';
    const start = () => new Promise((resolve) => new Worker(load, { eval: true }).once('exit', resolve));
    (async () => {
      const codes = [await start(), await start()];
      console.log(codes, eval(load), await start());
    })();`;
  const said = execFileSync(process.execPath, ['-e', script], { encoding: 'utf8' });
  assert.strictEqual(said, '[ 0, 0 ] 0 0\n');
});

test('workers are told to reseed, and may end before', () => {
  const script = `
    const { Worker } = require('node:worker_threads');
    const native = require(${JSON.stringify(require.resolve('../lib/native.js'))});
    const code = \`
      const { parentPort } = require('node:worker_threads');
      require(${JSON.stringify(require.resolve('..'))});
      const first = Math.random();
      for (let i = 0; i < 100; i++) Math.random();
      parentPort.once('message', () => setTimeout(() => parentPort.postMessage(Math.random() === first), 50));
      parentPort.postMessage('ready');\`;
    const start = () => new Worker(code, { eval: true });
    const said = (worker) => new Promise((resolve) => worker.once('message', resolve));
    (async () => {
      const [stays, ends] = [start(), start()];
      await Promise.all([said(stays), said(ends)]);
      await ends.terminate();
      native.wakeWorkers();
      stays.postMessage('look');
      console.log(await said(stays));
    })();`;
  const said = execFileSync(process.execPath, ['--random-seed=7', '-e', script], { encoding: 'utf8' });
  assert.strictEqual(said, 'true\n');
});

test('two children and their parent draw different numbers everywhere', async (t) => {
  const agent = await startAgent(t);
  const said = await run(agent, async (mitosis, say) => {
    const crypto = require('node:crypto');
    const vm = require('node:vm');
    const { Worker } = require('node:worker_threads');
    const drawing = `const crypto = require('node:crypto');
      const { parentPort } = require('node:worker_threads');
      require(${JSON.stringify(require.resolve('mitosis-fork'))});
      Math.random(); crypto.randomUUID(); crypto.randomInt(9); crypto.randomBytes(8);
      parentPort.on('message', () => parentPort.postMessage({
        workerBytes: crypto.randomBytes(8).toString('hex'),
        workerUuid: crypto.randomUUID(),
        workerInt: crypto.randomInt(2 ** 47),
        workerMath: Math.random(),
      }));`;
    const worker = new Worker(drawing, { eval: true });
    await new Promise((resolve) => worker.once('online', resolve));
    const draw = async () => {
      const fromWorker = new Promise((resolve) => worker.once('message', resolve));
      worker.postMessage('draw');
      return {
        bytes: crypto.randomBytes(8).toString('hex'),
        later: await new Promise((resolve) => crypto.randomBytes(8, (_, bytes) => resolve(bytes.toString('hex')))),
        fill: crypto.getRandomValues(new Uint32Array(2)).join(),
        uuid: crypto.randomUUID(),
        int: crypto.randomInt(2 ** 47),
        math: Math.random(),
        key: crypto.generateKeySync('hmac', { length: 64 }).export().toString('hex'),
        prime: crypto.generatePrimeSync(64, { bigint: true }).toString(),
        ...(await fromWorker),
      };
    };
    // All that is drawn ahead is there before the seed is made.
    await draw();
    const me = await mitosis.prepare();
    if (me.role === 'child') {
      say(await draw());
      process.exit(0);
    }
    const children = await mitosis.resume(await me.seed.handle(), null, { n: 2 });
    await Promise.all(children.map((child) => child.wait()));
    say(await draw());
    await me.seed.drop();
    process.exit(0);
  });
  assert.strictEqual(said.length, 3);
  for (const name of Object.keys(said[0])) {
    const drawn = said.map((one) => one[name]);
    assert.strictEqual(new Set(drawn).size, 3, `${name}: ${drawn}`);
  }
});

test('a worker that draws all the time draws nothing twice', async (t) => {
  const agent = await startAgent(t);
  const said = await run(agent, async (mitosis, say) => {
    const { Worker } = require('node:worker_threads');
    const drawing = `const { parentPort } = require('node:worker_threads');
      const mitosis = require(${JSON.stringify(require.resolve('mitosis-fork'))});
      const crypto = require('node:crypto');
      const drawn = [];
      // What came out before the fork all of them have; what was being drawn is their own.
      const take = (one) => {
        if (mitosis.generation === 1 && drawn.length < 300) drawn.push(one());
      };
      const draw = () => {
        take(() => crypto.randomUUID());
        take(() => crypto.randomBytes(8).toString('hex'));
        crypto.randomUUID();
        setImmediate(draw);
      };
      parentPort.on('message', () => parentPort.postMessage(drawn));
      draw();`;
    const worker = new Worker(drawing, { eval: true });
    await new Promise((resolve) => worker.once('online', resolve));
    const me = await mitosis.prepare();
    if (me.role === 'child') {
      let drawn = [];
      while (drawn.length < 300) {
        worker.postMessage('drawn');
        drawn = await new Promise((resolve) => worker.once('message', resolve));
      }
      say(drawn);
      process.exit(0);
    }
    const children = await mitosis.resume(await me.seed.handle(), null, { n: 3 });
    await Promise.all(children.map((child) => child.wait()));
    await me.seed.drop();
    process.exit(0);
  });
  assert.strictEqual(said.length, 3);
  assert.strictEqual(new Set(said.flat()).size, 900);
});
