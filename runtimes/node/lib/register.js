'use strict';

// node --require mitosis-fork/register app.js (or --import): before any other module, on each thread. An app that
// knows nothing of Mitosis has fresh random numbers in children then, also where a preloaded library has
// prepared it from outside ('mitosis prepare PID', 'mitosis run'); one that knows has its hooks run.

const { isMainThread } = require('node:worker_threads');

const { listenToOutside } = require('./fork.js');

if (isMainThread) {
  listenToOutside();
}
