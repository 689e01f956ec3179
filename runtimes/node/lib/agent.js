'use strict';

// The agent of this host: where it is, and what it tells.

const fs = require('node:fs');
const path = require('node:path');

const native = require('./native.js');
const { ask } = require('./errors.js');

// Part of the package, so that `fork` works where nobody runs an agent.
const CARRIED = path.join(__dirname, '..', 'bin', 'mitosis');

/** The unix socket of a running agent: the host's, or one that this process starts and ends. */
function address() {
  return ask(native.ensureAgent, fs.existsSync(CARRIED) ? CARRIED : null);
}

/** All seeds and children of this host, as its agent knows them. */
function list() {
  return ask(native.list, native.findAgent());
}

/** The counters of this host's agent, by name. */
function stats() {
  return ask(native.stats, native.findAgent());
}

module.exports = { address, list, stats };
