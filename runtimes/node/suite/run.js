'use strict';

// Node's own test files, each in a child of one seed and in a node of its own, and where the two differ.
//
//     node suite/run.js PATH/TO/node/test [--each SECONDS] [family...]
//
// The files are Node's and are not kept here: take those of the version that runs. A family is the beginning of
// names behind "test-": timers, fs, crypto, worker, stream, http, zlib unless others are named. Files that want
// flags of node are left out, as a child has those that the seed has.

const fs = require('node:fs');
const path = require('node:path');
const { spawn } = require('node:child_process');

const mitosis = require('..');

const FAMILIES = ['timers', 'fs', 'crypto', 'worker', 'stream', 'http', 'zlib'];
const SIDE_BY_SIDE = 2;
const LOAD = '--load';

function asked(argv) {
  const at = argv.indexOf('--each');
  const seconds = at < 0 ? 20 : Number(argv.splice(at, 2)[1]);
  const [folder, ...families] = argv;
  if (!folder || !fs.existsSync(path.join(folder, 'parallel'))) {
    throw new Error('name the folder test of a source tree of Node');
  }
  return { folder: path.resolve(folder), seconds, families: families.length ? families : FAMILIES };
}

function filesOf(folder, families) {
  const parallel = path.join(folder, 'parallel');
  const wanted = (name) => families.some((family) => new RegExp(`^test-${family}\\b.*\\.js$`).test(name));
  return fs
    .readdirSync(parallel)
    .filter(wanted)
    .map((name) => path.join(parallel, name))
    .filter((file) => !/^\/\/ Flags:/m.test(fs.readFileSync(file, 'utf8')));
}

/** The end of one in a node of its own, in which it is loaded out of the loop as in a child. */
function outside(file, seconds, room) {
  return new Promise((resolve) => {
    const env = { ...process.env, TEST_THREAD_ID: `${room}-outside` };
    const node = spawn(process.execPath, [__filename, LOAD, file], { stdio: 'ignore', env });
    const late = setTimeout(() => node.kill('SIGKILL'), seconds * 1000);
    node.on('close', (code, signal) => {
      clearTimeout(late);
      resolve(signal ?? code);
    });
  });
}

/** The end of one in a child of the seed; what it said goes to `log`. */
async function inside(handle, file, seconds, room, log) {
  const out = fs.openSync(log, 'w');
  const env = { TEST_THREAD_ID: `${room}-inside` };
  const child = await mitosis.resume(handle, null, { payload: file, env, stdio: ['ignore', out, out] });
  fs.closeSync(out);
  const late = setTimeout(() => child.kill('SIGKILL').catch(() => {}), seconds * 1000);
  const end = await child.wait().catch((error) => ({ code: error.code, signal: null }));
  clearTimeout(late);
  return end.signal ?? end.code;
}

function load(file) {
  process.argv = [process.execPath, file];
  require(file);
}

async function main() {
  if (process.argv[2] === LOAD) {
    await fs.promises.access('/');
    load(process.argv[3]);
    return;
  }
  const { folder, seconds, families } = asked(process.argv.slice(2));
  const logs = fs.mkdtempSync(path.join(require('node:os').tmpdir(), 'mitosis-node-suite-'));
  const files = filesOf(folder, families);
  const me = await mitosis.prepare();
  if (me.role === 'child') {
    load(String(me.payload));
    return;
  }
  const handle = await me.seed.handle();
  const [queue, counts, differ] = [[...files], { both: 0, neither: 0, differ: 0 }, []];
  const worker = async (_, room) => {
    for (let file = queue.shift(); file; file = queue.shift()) {
      const log = path.join(logs, path.basename(file));
      const there = await inside(handle, file, seconds, room, log);
      const here = await outside(file, seconds, room);
      const kind = (there === 0) !== (here === 0) ? 'differ' : here === 0 ? 'both' : 'neither';
      counts[kind] += 1;
      if (kind === 'differ') {
        const last = fs.readFileSync(log, 'utf8').split('\n').filter((line) => /Error|assert/.test(line))[0] ?? '';
        differ.push(`${path.basename(file)}: ${there} in a child, ${here} outside; ${last.trim().slice(0, 120)}`);
        console.log(differ.at(-1));
      }
    }
  };
  await Promise.all(Array.from({ length: SIDE_BY_SIDE }, worker));
  await me.seed.drop();
  console.log(`${files.length} files of ${families.join(', ')}: ${JSON.stringify(counts)}; logs in ${logs}`);
}

main();
