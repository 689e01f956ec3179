'use strict';

// Functions that run around a prepare and in each child.

const { isMainThread } = require('node:worker_threads');

const { setTimeout, clearTimeout } = require('node:timers');

const { MitosisError, argument, notForkable } = require('./errors.js');

// As in the other languages: connecting to what is slow takes seconds, and who waits for a child gives it up after
// a minute or so.
const HOOK_LIMIT_MS = 60_000;
// What setTimeout takes.
const LONGEST_LIMIT_MS = 2 ** 31 - 1;

/** Each `{ hook, limitMs }`. */
const hooks = { before_prepare: [], after_prepare: [], rehearse: [], after_resume: [] };

/** What a trial runs in place of hooks. */
const TRIED = [{ async hook() {}, limitMs: HOOK_LIMIT_MS }];

function listOf(event) {
  if (!Object.hasOwn(hooks, event)) {
    throw argument(`there is no event '${String(event)}': it is one of ${Object.keys(hooks).join(', ')}`);
  }
  return hooks[event];
}

/** Registers `hook` for `event`; it may take `timeoutMs`, or any time if that is null. */
function on(event, hook, { timeoutMs: limitMs = HOOK_LIMIT_MS } = {}) {
  const list = listOf(event);
  if (typeof hook !== 'function') {
    throw argument(`a hook of '${event}' is a function, not of type ${typeof hook}`);
  }
  if (limitMs !== null && !(Number.isInteger(limitMs) && limitMs >= 1 && limitMs <= LONGEST_LIMIT_MS)) {
    throw argument(`timeoutMs is ${String(limitMs)}: give whole milliseconds, 1 to ${LONGEST_LIMIT_MS}, or null`);
  }
  if (!isMainThread) {
    throw notForkable('hooks run on the main thread, which prepares: register this one there');
  }
  list.push({ hook, limitMs });
}

/** Takes a hook away that `on` has registered; the one that was registered last, if it was several times. */
function off(event, hook) {
  const list = listOf(event);
  const at = list.findLastIndex((registered) => registered.hook === hook);
  if (at >= 0) {
    list.splice(at, 1);
  }
}

/** Runs one, for as long as it may take. */
async function run(event, { hook, limitMs }, ...args) {
  const outcome = hook(...args);
  if (typeof outcome?.then !== 'function') {
    return;
  }
  if (limitMs === null) {
    await outcome;
    return;
  }
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(timeout(event, hook, limitMs)), limitMs);
  });
  try {
    await Promise.race([outcome, late]);
  } finally {
    clearTimeout(timer);
  }
}

function timeout(event, hook, limitMs) {
  const name = hook.name === '' ? 'without a name' : `'${hook.name}'`;
  return new MitosisError(
    `the ${event} hook ${name} has not settled after ${limitMs} ms: give it longer by on(event, hook, { timeoutMs }), ` +
      'or null for any time',
    'ERR_MITOSIS_HOOK_TIMEOUT',
  );
}

/** Whether there is one that runs before a prepare. */
function anyBeforePrepare() {
  return hooks.before_prepare.length > 0;
}

/** The one that was registered last runs first; one that fails ends the prepare. */
async function runBeforePrepare() {
  for (const registered of [...hooks.before_prepare].reverse()) {
    await run('before_prepare', registered);
  }
}

/** All of them run, also when one fails; the first failure is thrown then. */
async function runAfterPrepare() {
  const failures = [];
  for (const registered of [...hooks.after_prepare]) {
    try {
      await run('after_prepare', registered);
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
    for (const registered of [...hooks.rehearse]) {
      await run('rehearse', registered);
    }
  } catch {
    // Nobody is there to be told: standard error is /dev/null.
  }
}

/** A trial runs all but the hooks. */
async function runAfterResume(resumed, isTrial) {
  for (const registered of isTrial ? TRIED : [...hooks.after_resume]) {
    await run('after_resume', registered, resumed);
  }
}

module.exports = { anyBeforePrepare, off, on, runAfterPrepare, runAfterResume, runBeforePrepare, runRehearse };
