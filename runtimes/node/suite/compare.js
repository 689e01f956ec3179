'use strict';

// Test files of Node's, each in a child of one seed and, where it fails there, in a node of its own.

const fs = require('node:fs');
const path = require('node:path');
const { spawn } = require('node:child_process');

const mitosis = require('..');

// Most of them wait for something most of the time.
const SIDE_BY_SIDE = 6;
// What fails by its own timeouts on a busy machine does not fail each time.
const TRIES = 3;
const LOAD = '--load';

/** The files of these families, the beginnings of names behind "test-", less those that want flags of node. */
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

/** Runs one here, as its own program. */
function load(file) {
  process.argv = [process.execPath, file];
  require(file);
}

/** How a file is to end: it `passes` in a child, `differs` as it fails there alone, or `fails` on both sides. */
function expectedOf(known, name) {
  const [differ, fail] = [known.differ, known.fail].map((names) => Object.hasOwn(names ?? {}, name));
  return differ ? 'differs' : fail ? 'fails' : 'passes';
}

/** Of one file: how it ends, and whether that is `expected`; tried again where it is not. */
async function compare(handle, file, expected, seconds, room, log) {
  const found = { name: path.basename(file), expected, isUnsteady: false };
  for (found.tries = 1; ; found.tries += 1) {
    found.inside = await inside(handle, file, seconds, room, log);
    found.outside = found.inside === 0 ? null : await outside(file, seconds, room);
    found.end = found.inside === 0 ? 'passes' : found.outside === 0 ? 'differs' : 'fails';
    if (found.end === expected || found.tries === TRIES) {
      return found;
    }
    found.isUnsteady ||= found.end === 'differs';
  }
}

/**
 * Of all files, as they end; what they say in children goes to the folder `logs`. `known` names those that are to differ:
 * these come last, once `known.after_s` have passed since the seed was made.
 */
async function compareAll(handle, madeMs, files, known, seconds, logs) {
  const expected = (file) => expectedOf(known, path.basename(file));
  const isLast = (file) => expected(file) === 'differs';
  const found = [];
  const run = async (some) => {
    const queue = [...some];
    const worker = async (_, room) => {
      for (let file = queue.shift(); file; file = queue.shift()) {
        const log = path.join(logs, path.basename(file));
        found.push({ log, ...(await compare(handle, file, expected(file), seconds, room, log)) });
      }
    };
    await Promise.all(Array.from({ length: SIDE_BY_SIDE }, worker));
  };
  await run(files.filter((file) => !isLast(file)));
  const last = files.filter(isLast);
  if (last.length > 0) {
    const leftMs = madeMs + (known.after_s ?? 0) * 1000 - performance.now();
    await new Promise((resolve) => setTimeout(resolve, Math.max(leftMs, 0)));
    await run(last);
  }
  return found;
}

module.exports = { compareAll, filesOf, load };

if (require.main === module && process.argv[2] === LOAD) {
  fs.promises.access('/').then(() => load(process.argv[3]));
}
