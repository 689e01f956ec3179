'use strict';

// Remote fork: this warmed-up process goes on elsewhere, in milliseconds. See index.d.ts.

const agent = require('./agent.js');
const forking = require('./fork.js');
const hooks = require('./hooks.js');
const native = require('./native.js');
const { Child } = require('./child.js');
const { Handle } = require('./handle.js');
const { MitosisError } = require('./errors.js');

module.exports = {
  Child,
  Handle,
  MitosisError,
  SHARED_COPY_LIMIT_BYTES: native.SHARED_COPY_LIMIT_BYTES,
  Seed: forking.Seed,
  fork: forking.fork,
  /** Forks between this process and the first one. */
  get generation() {
    return native.generation();
  },
  list: agent.list,
  off: hooks.off,
  on: hooks.on,
  /** What `resume` gave this process; null if it is no child. */
  get payload() {
    return forking.current()?.payload ?? null;
  },
  prepare: forking.prepare,
  resume: forking.resume,
  stats: agent.stats,
  version: native.version,
};
