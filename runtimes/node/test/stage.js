'use strict';

// Agents, and programs in processes of their own. What CI has promised (root, FUSE) fails where it is not.

const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { spawn } = require('node:child_process');

const PACKAGE = path.join(__dirname, '..');
const ROOT = path.join(PACKAGE, '..', '..');
const TARGET = path.resolve(ROOT, process.env.CARGO_TARGET_DIR || 'target');
const PROGRAM_LIMIT_MS = 90_000;
const AGENT_LIMIT_MS = 15_000;

/** A program of this workspace: what the variable names, or the newest that cargo has built. */
function built(name, variable) {
  if (process.env[variable]) {
    return process.env[variable];
  }
  const found = ['release', 'debug']
    .map((profile) => path.join(TARGET, profile, name))
    .filter((file) => fs.existsSync(file))
    .sort((a, b) => fs.statSync(b).mtimeMs - fs.statSync(a).mtimeMs);
  if (found.length === 0) {
    throw new Error(`no ${name} in ${TARGET}: run 'cargo build --release', or set ${variable}`);
  }
  return found[0];
}

/** This process's environment without what would lead to another agent or disturb a program. */
function environment(changes) {
  const kept = Object.entries(process.env).filter(([name]) => !/^(MITOSIS_|NODE_)/.test(name));
  return { ...Object.fromEntries(kept), ...changes };
}

/** Starts an agent on a socket of its own; ends it, and takes its folder away, when `t` is over. */
async function startAgent(t) {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'mitosis-node-'));
  const socket = path.join(folder, 'agent.sock');
  const log = path.join(folder, 'agent.log');
  const binary = built('mitosis', 'MITOSIS_AGENT_BIN');
  const stderr = fs.openSync(log, 'w');
  const agent = spawn(binary, ['agent', '--socket', socket], {
    env: environment({}),
    stdio: ['ignore', 'pipe', stderr],
  });
  fs.closeSync(stderr);
  const ended = new Promise((resolve) => agent.once('exit', resolve));
  t.after(async () => {
    agent.kill('SIGTERM');
    const late = setTimeout(() => agent.kill('SIGKILL'), AGENT_LIMIT_MS);
    await ended;
    clearTimeout(late);
    fs.rmSync(folder, { recursive: true, force: true });
  });
  await new Promise((resolve, reject) => {
    agent.stdout.on('data', (said) => String(said).includes('ready') && resolve());
    ended.then(() => reject(new Error(`the agent did not start: ${fs.readFileSync(log, 'utf8')}`)));
  });
  return { socket, binary, folder, log: () => fs.readFileSync(log, 'utf8') };
}

/**
 * Runs `program(mitosis, say, folder)` in a node of its own and returns what it and its children have said, in order
 * of arrival. It is handed over as text: it sees nothing of what stands around it here.
 */
async function run(agent, program, { status = 0, args = [], env = {} } = {}) {
  const script = `
    'use strict';
    const say = (what) => require('node:fs').writeSync(1, JSON.stringify(what) + '\\n');
    (${program})(require(${JSON.stringify(PACKAGE)}), say, ${JSON.stringify(agent.folder)});
  `;
  const node = spawn(process.execPath, [...args, '-e', script], {
    cwd: PACKAGE,
    env: environment({ MITOSIS_AGENT: agent.socket, ...env }),
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let [out, err] = ['', ''];
  node.stdout.setEncoding('utf8').on('data', (text) => (out += text));
  node.stderr.setEncoding('utf8').on('data', (text) => (err += text));
  const late = setTimeout(() => node.kill('SIGKILL'), PROGRAM_LIMIT_MS);
  const [code, signal] = await new Promise((resolve) => node.on('close', (...end) => resolve(end)));
  clearTimeout(late);
  if (code !== status) {
    const end = signal ? `signal ${signal}` : `status ${code}`;
    throw new Error(`${end}, not status ${status}\n--- stdout\n${out}\n--- stderr\n${err}\n--- agent\n${agent.log()}`);
  }
  const said = out.split('\n').filter((line) => line !== '').map((line) => JSON.parse(line));
  return Object.defineProperty(said, 'stderr', { value: err });
}

module.exports = { PACKAGE, TARGET, built, environment, run, startAgent };
