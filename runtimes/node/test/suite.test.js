'use strict';

// Node's own test files in children (suite/run.js), and that the comparison finds what it is for.

const assert = require('node:assert');
const fs = require('node:fs');
const path = require('node:path');
const test = require('node:test');
const { execFile } = require('node:child_process');

const known = require('../suite/known.json');
const { PACKAGE, TARGET, environment, startAgent } = require('./stage.js');

const OWN = path.join(__dirname, 'suite');
const FILES = path.join(TARGET, 'node-suite');
const RUN_LIMIT_MS = 600_000;

/** What suite/run.js says, and how it ends. */
function compared(agent, args, changes = {}) {
  const argv = [path.join(PACKAGE, 'suite', 'run.js'), ...args];
  const env = environment({ MITOSIS_AGENT: agent.socket, ...changes });
  const options = { env, timeout: RUN_LIMIT_MS };
  return new Promise((resolve) => {
    execFile(process.execPath, argv, options, (error, said, stderr) => {
      resolve({ status: error ? error.code ?? error.signal : 0, said: said + stderr });
    });
  });
}

/** Of files that are to fail: what they said in children goes with the agent's folder. */
function comparedOwn(agent, known, folder, family, ...options) {
  return compared(agent, [...options, '--known', known, folder, family], { TMPDIR: agent.folder });
}

function knownOf(agent, name, differ, left_out = {}) {
  const file = path.join(agent.folder, name);
  fs.writeFileSync(file, JSON.stringify({ differ, left_out }));
  return file;
}

test('a file that fails in a child alone is found, and so is one that does so no more', async (t) => {
  const agent = await startAgent(t);
  const differs = { 'test-own-differs.js': 'by purpose' };
  const wrong = { ...differs, 'test-own-passes.js': 'by mistake' };
  const asKnown = await comparedOwn(agent, knownOf(agent, 'right', differs), OWN, 'own');
  assert.match(asKnown.said, /1 pass in a child, 1 fail on both sides, 1 in a child alone; 0 not as expected, 0 unsteady/);
  assert.match(asKnown.said, /fails {4}test-own-fails\.js on both sides: 3 in a child, 3 outside/);
  assert.strictEqual(asKnown.status, 0, asKnown.said);
  const unknown = await comparedOwn(agent, knownOf(agent, 'none', {}), OWN, 'own');
  assert.match(unknown.said, /DIFFERS {2}test-own-differs\.js: 1 in a child, 0 outside; .*this is a child/);
  assert.strictEqual(unknown.status, 1, unknown.said);
  const lenient = await comparedOwn(agent, knownOf(agent, 'none', {}), OWN, 'own', '--lenient');
  assert.match(lenient.said, /DIFFERS {2}test-own-differs\.js[^]* 1 not as expected/);
  assert.strictEqual(lenient.status, 0, lenient.said);
  const noMore = await comparedOwn(agent, knownOf(agent, 'wrong', wrong), OWN, 'own');
  assert.match(noMore.said, /NO MORE {2}test-own-passes\.js differs[^]* 1 not as expected/);
  assert.strictEqual(noMore.status, 1, noMore.said);
});

test('files that pass at the second try are told, and many of them are wrong', async (t) => {
  const agent = await startAgent(t);
  const [parallel, none] = [path.join(agent.folder, 'parallel'), knownOf(agent, 'none', {})];
  fs.mkdirSync(parallel);
  const unsteady = `
    const [fs, runs] = [require('node:fs'), __filename + '.runs'];
    if (require(${JSON.stringify(PACKAGE)}).generation > 0) {
      fs.appendFileSync(runs, 'x');
      process.exitCode = fs.statSync(runs).size > 1 ? 0 : 1;
    }`;
  for (const [count, expected] of [[3, 0], [4, 1]]) {
    for (let i = 0; i < count; i++) {
      fs.writeFileSync(path.join(parallel, `test-own${count}-${i}.js`), unsteady);
    }
    const { status, said } = await comparedOwn(agent, none, agent.folder, `own${count}`);
    assert.match(said, /unsteady test-own\d-0\.js: as expected at try 2/);
    assert.match(said, new RegExp(`0 not as expected, ${count} unsteady`));
    assert.strictEqual(status, expected, said);
  }
});

test('files that fail everywhere, or that are not there, prove nothing', async (t) => {
  const agent = await startAgent(t);
  const [parallel, known] = [path.join(agent.folder, 'parallel'), knownOf(agent, 'none', {})];
  fs.mkdirSync(parallel);
  for (const name of ['test-own-a.js', 'test-own-b.js']) {
    fs.writeFileSync(path.join(parallel, name), 'process.exitCode = 1;');
  }
  for (const family of ['own', 'other']) {
    const { status, said } = await comparedOwn(agent, known, agent.folder, family);
    assert.match(said, /this says nothing/);
    assert.strictEqual(status, 1, said);
  }
});

test("Node's own test files end in children as outside", async (t) => {
  if (!fs.existsSync(path.join(FILES, 'made-from'))) {
    const why = path.join(FILES, 'missing');
    t.skip(fs.existsSync(why) ? fs.readFileSync(why, 'utf8').trim() : "'make test-node' gets them");
    return;
  }
  const [version] = fs.readFileSync(path.join(FILES, 'made-from'), 'utf8').split('\n');
  const lenient = version === known.version ? [] : ['--lenient'];
  if (lenient.length > 0) {
    console.log(`these files are of Node ${version}, and known.json tells of ${known.version}: a few may differ`);
  }
  const agent = await startAgent(t);
  const { status, said } = await compared(agent, [...lenient, path.join(FILES, 'test')]);
  console.log(said);
  assert.strictEqual(status, 0, said);
});
