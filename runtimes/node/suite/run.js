'use strict';

// Node's own test files in children of one seed: whether each ends as in a node of its own.
//
//     node suite/run.js [--all] [--lenient] [--each SECONDS] [--known FILE] PATH/TO/node/test [family...]
//
// Files are those of the families timers, fs, crypto, worker, stream, http, zlib unless others are named. known.json
// tells those that are to differ, those that fail on both sides, and those that are left out but for `--all`. Ends with 1
// where others differ. `--lenient` is for files of another version than known.json's: a few may.
// Node's files are not kept here: files.sh gets those that `make test-node` runs.

const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const v8 = require('node:v8');
const vm = require('node:vm');
const { parseArgs } = require('node:util');

const mitosis = require('..');
const { compareAll, filesOf, load } = require('./compare.js');

const FAMILIES = ['timers', 'fs', 'crypto', 'worker', 'stream', 'http', 'zlib'];
// What fails on both sides tells nothing; where much does, the files are not for this node, or not all there.
const FAILS_AT_MOST = 0.05;
// What fails in a child and then does not is the machine's haste, or a race that only children lose: of these are few.
const UNSTEADY_AT_MOST = 0.01;
// Of files that known.json does not tell of.
const LENIENT_AT_MOST = 0.01;
// Of few files, too, so many may be unsteady, or unknown.
const ALWAYS_ALLOWED = 3;

function asked() {
  const options = {
    all: { type: 'boolean', default: false },
    lenient: { type: 'boolean', default: false },
    each: { type: 'string', default: '60' },
    known: { type: 'string', default: path.join(__dirname, 'known.json') },
  };
  const { values, positionals } = parseArgs({ options, allowPositionals: true });
  const [folder, ...families] = positionals;
  if (!folder || !fs.existsSync(path.join(folder, 'parallel'))) {
    throw new Error('name the folder test of a source tree of Node');
  }
  return {
    folder: path.resolve(folder),
    families: families.length ? families : FAMILIES,
    all: values.all,
    lenient: values.lenient,
    seconds: Number(values.each),
    known: JSON.parse(fs.readFileSync(values.known, 'utf8')),
  };
}

/** V8 sets timers of its own when it has collected, which the children then have: the same in each run. */
function collect() {
  v8.setFlagsFromString('--expose-gc');
  vm.runInNewContext('gc')();
}

function firstError(log) {
  const line = fs.readFileSync(log, 'utf8').split('\n').find((text) => /Error|assert/.test(text)) ?? '';
  return line.trim().slice(0, 120);
}

/** Not as known.json has it. What fails on both sides, or does so no more, is this node's and this machine's. */
function isWrong({ end, expected }) {
  return (end === 'differs') !== (expected === 'differs');
}

/** What is to be said of one: null where there is nothing. */
function remark({ name, log, inside, outside, tries, end, expected, isUnsteady }) {
  const ends = `${inside} in a child, ${outside ?? 'not run'} outside`;
  if (isWrong({ end, expected })) {
    return end === 'differs'
      ? `DIFFERS  ${name}: ${ends}; ${firstError(log)}`
      : `NO MORE  ${name} differs: known.json has it`;
  }
  if (end !== expected) {
    return end === 'fails' ? `fails    ${name} on both sides: ${ends}` : `passes   ${name}: known.json has it as one that fails`;
  }
  return isUnsteady ? `unsteady ${name}: as expected at try ${tries}` : null;
}

async function main() {
  collect();
  // Before anything else: the children are to be as a node that has done nothing.
  const me = await mitosis.prepare();
  if (me.role === 'child') {
    load(String(me.payload));
    return;
  }
  const madeMs = performance.now();
  const { folder, families, all, lenient, seconds, known } = asked();
  const every = filesOf(folder, families);
  const isLeftOut = (file) => !all && Object.hasOwn(known.left_out, path.basename(file));
  const files = every.filter((file) => !isLeftOut(file));
  const logs = fs.mkdtempSync(path.join(os.tmpdir(), 'mitosis-node-suite-'));
  const found = await compareAll(await me.seed.handle(), madeMs, files, known, seconds, logs);
  await me.seed.drop();
  for (const line of found.map(remark).filter((text) => text !== null)) {
    console.log(line);
  }
  const count = (is) => found.filter(is).length;
  const fails = count(({ end }) => end === 'fails');
  const wrong = count(isWrong);
  const passes = count(({ end }) => end === 'passes');
  const differ = count(({ end }) => end === 'differs');
  const unsteady = count(({ isUnsteady }) => isUnsteady);
  console.log(
    `${files.length} files of ${families.join(', ')}, ${every.length - files.length} left out: ` +
      `${passes} pass in a child, ${fails} fail on both sides, ${differ} in a child alone; ` +
      `${wrong} not as expected, ${unsteady} unsteady`,
  );
  const most = (share) => Math.max(ALWAYS_ALLOWED, files.length * share);
  if (fails > Math.max(1, files.length * FAILS_AT_MOST) || files.length === 0) {
    console.log('TOO MANY fail on both sides, or there is none: this says nothing');
    process.exitCode = 1;
  }
  if (unsteady > most(UNSTEADY_AT_MOST)) {
    console.log('TOO MANY fail in a child and pass when they are tried again');
    process.exitCode = 1;
  }
  if (wrong > 0) {
    console.log(`what children said: ${logs}`);
    process.exitCode = lenient && wrong <= most(LENIENT_AT_MOST) ? process.exitCode : 1;
  } else {
    fs.rmSync(logs, { recursive: true });
  }
}

main();
