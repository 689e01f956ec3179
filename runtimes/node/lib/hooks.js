'use strict';

// Functions that run around a prepare and in each child.

const { isMainThread } = require('node:worker_threads');

const { argument, notForkable } = require('./errors.js');

const hooks = { before_prepare: [], after_prepare: [], rehearse: [], after_resume: [] };

function listOf(event) {
  if (!Object.hasOwn(hooks, event)) {
    throw argument(`there is no event '${String(event)}': it is one of ${Object.keys(hooks).join(', ')}`);
  }
  return hooks[event];
}

/** Registers `hook` for `event`. */
function on(event, hook) {
  const list = listOf(event);
  if (typeof hook !== 'function') {
    throw argument(`a hook of '${event}' is a function, not of type ${typeof hook}`);
  }
  if (!isMainThread) {
    throw notForkable('hooks run on the main thread, which prepares: register this one there');
  }
  list.push(hook);
}

/** Takes a hook away that `on` has registered; the one that was registered last, if it was several times. */
function off(event, hook) {
  const list = listOf(event);
  const at = list.lastIndexOf(hook);
  if (at >= 0) {
    list.splice(at, 1);
  }
}

/** The one that was registered last runs first; one that fails ends the prepare. */
async function runBeforePrepare() {
  for (const hook of [...hooks.before_prepare].reverse()) {
    await hook();
  }
}

/** All of them run, also when one fails; the first failure is thrown then. */
async function runAfterPrepare() {
  const failures = [];
  for (const hook of [...hooks.after_prepare]) {
    try {
      await hook();
    } catch (error) {
      failures.push(error);
    }
  }
  if (failures.length > 0) {
    throw failures[0];
  }
}

/** In a rehearsal, which is thrown away: what fails was rehearsed so far. */
async function runRehearse() {
  try {
    for (const hook of [...hooks.rehearse]) {
      await hook();
    }
  } catch {
    // Nobody is there to be told: standard error is /dev/null.
  }
}

/** A trial runs all but the hooks. */
async function runAfterResume(resumed, isTrial) {
  for (const hook of isTrial ? [] : [...hooks.after_resume]) {
    await hook(resumed);
  }
}

module.exports = { off, on, runAfterPrepare, runAfterResume, runBeforePrepare, runRehearse };
