'use strict';

// fork, prepare, resume: a process on both sides of a fork.

const { isMainThread } = require('node:worker_threads');

const agent = require('./agent.js');
const hooks = require('./hooks.js');
const native = require('./native.js');
const unique = require('./unique.js');
const { Child } = require('./child.js');
const { Handle, handleOf } = require('./handle.js');
const { argument, ask, call, notForkable } = require('./errors.js');

const STOP_THREADS_MS = 1000;
const MAX_CHILDREN = 2 ** 32 - 1;
// EX_SOFTWARE of sysexits.h.
const STATUS_HALF_CHILD = 70;
const STDIO = ['stdin', 'stdout', 'stderr'];

let preparing = false;
let latest = null;
/** Ends a seed of which nobody has the handle, even if its agent is gone. Never rejects. */
let discard;
const listeners = [];

/** A frozen copy of this process. */
class Seed {
  #native;
  #handle = null;

  constructor(prepared) {
    this.#native = prepared.seed;
    this.pid = prepared.pid;
    this.pauseMs = prepared.pauseMs;
  }

  /** The handle to resume it with, once the agent has published the seed. */
  handle() {
    this.#handle ??= ask(native.seedHandle, this.#native).then(
      (text) => new Handle(text),
      (error) => {
        this.#handle = null;
        throw error;
      },
    );
    return this.#handle;
  }

  /** Ends the seed: no new children; its memory goes with the last one. Twice is once. If it rejects, try again. */
  async drop({ revoke = false } = {}) {
    await ask(native.seedDrop, this.#native, Boolean(revoke));
  }

  static {
    // Its own failure (node is ending) would hide the cause.
    discard = (seed) => ask(native.seedDiscard, seed.#native).catch(() => {});
  }
}

/** Freezes a copy of this process. Resolves here, once, and in each child. */
async function prepare(options = {}) {
  const limit = options.sharedCopyLimit ?? native.SHARED_COPY_LIMIT_BYTES;
  const stop = options.stopThreadsMs ?? STOP_THREADS_MS;
  if (!Number.isSafeInteger(limit) || limit < 0) {
    throw argument(`sharedCopyLimit is ${limit}: give bytes, 0 or more`);
  }
  if (!Number.isSafeInteger(stop) || stop < 1) {
    throw argument(`stopThreadsMs is ${stop}: give whole milliseconds, 1 or more`);
  }
  const refused = refusedOf(options.losses);
  if (!isMainThread) {
    throw notForkable('a worker thread cannot prepare: call prepare() on the main thread');
  }
  if (preparing) {
    throw notForkable('this process is preparing already: wait for the promise that prepare() gave');
  }
  preparing = true;
  try {
    return await prepared(await agent.address(), limit, stop, refused);
  } finally {
    preparing = false;
  }
}

/** The kinds of what cannot cross with which there is to be no seed. */
function refusedOf(losses) {
  if (losses === undefined) {
    return native.lossesRefusedUnlessTold;
  }
  if (typeof losses !== 'string' && (typeof losses !== 'object' || losses === null)) {
    throw argument(`losses is ${String(losses)}: give 'close', 'refuse', or an object of kinds with these`);
  }
  const kinds = native.lossKinds;
  const wanted = typeof losses === 'string' ? kinds.map((kind) => [kind, losses]) : Object.entries(losses);
  for (const [kind, how] of wanted) {
    if (!kinds.includes(kind)) {
      throw argument(`losses names '${kind}': the kinds are ${kinds.join(', ')}`);
    }
    if (how !== 'close' && how !== 'refuse') {
      throw argument(`losses has '${String(how)}': give 'close' or 'refuse'`);
    }
  }
  const refused = wanted.filter(([, how]) => how === 'refuse').map(([kind]) => kind);
  const told = wanted.map(([kind]) => kind);
  return refused.concat(native.lossesRefusedUnlessTold.filter((kind) => !told.includes(kind)));
}

async function prepared(...asked) {
  let made;
  let ahead = null;
  try {
    // What a child will run first V8 compiles here, in place of in each child.
    await wake(native.likeAChild(), true);
    // Before the hooks, as nothing else runs when the last one is done. What they map is seen; where other code than
    // node's own could mark or lock what is mapped already, nothing is looked at ahead of them. What hinders it prepare says.
    ahead = await native.lookAhead(...asked, hooks.anyBeforePrepare()).catch(() => null);
    await hooks.runBeforePrepare();
    const begun = performance.now();
    made = call(native.prepare, ...asked, ahead);
    if (made.child !== undefined) {
      return wake(made);
    }
    made.pauseMs = performance.now() - begun;
  } catch (error) {
    if (ahead !== null) {
      native.forgetAhead(ahead);
    }
    await hooks.runAfterPrepare();
    throw error;
  }
  const seed = new Seed(made);
  try {
    await hooks.runAfterPrepare();
  } catch (error) {
    await discard(seed);
    throw error;
  }
  return { role: 'parent', seed };
}

/** In a child: what is left to do before the caller of prepare() may see it. A trial runs in its parent, where
 * nobody is told of anything. */
async function wake(woken, isTrial = false) {
  let resumed;
  try {
    resumed = seen(woken);
    if (!isTrial) {
      latest = resumed;
    }
    if (woken.rehearsal) {
      await hooks.runRehearse();
      native.endRehearsal();
    }
    if (!isTrial) {
      native.wakeWorkers();
      for (const listener of listeners) {
        listener();
      }
    }
    await hooks.runAfterResume(resumed, isTrial);
  } catch (error) {
    if (isTrial) {
      throw error;
    }
    endHalfChild(error);
  }
  return resumed;
}

/** What the caller of prepare() sees of it, everything renewed. */
function seen(woken) {
  unique.renew(woken);
  return Object.freeze({
    role: 'child',
    seed: woken.seed ?? null,
    child: woken.child ?? null,
    index: woken.index,
    generation: woken.generation,
    payload: woken.payload,
    lost: Object.freeze(woken.lost ?? []),
    clockDeltaNs: woken.clockDeltaNs ?? 0n,
  });
}

/** No error of a fork is raised twice, and a child that is half set up is worse than none. */
function endHalfChild(error) {
  process.stderr.write(`mitosis: this child ends, for it could not be set up: ${error?.stack ?? error}\n`);
  process.exit(STATUS_HALF_CHILD);
}

/** Forks this process onto `host`. Resolves here, with the child, and in the child. */
async function fork(host = null, options = {}) {
  checkHost(host);
  const settings = settingsOf(options);
  const forked = await prepare(options);
  if (forked.role === 'child') {
    return forked;
  }
  try {
    const handle = await forked.seed.handle();
    const [child] = await started(handle, host, { ...settings, count: 1 }, true);
    return { role: 'parent', child };
  } catch (error) {
    await discard(forked.seed);
    throw error;
  }
}

/** Starts `options.n` children of a seed on `host`: one Child, or an array if `n` is given. */
async function resume(handle, host = null, options = {}) {
  checkHost(host);
  const n = options.n ?? 1;
  if (!Number.isInteger(n) || n < 1 || n > MAX_CHILDREN) {
    throw argument(`${String(n)} children cannot be started: ask for 1 to 10,000`);
  }
  const settings = { ...settingsOf(options), count: n };
  const children = await started(handleOf(handle), host, settings, false);
  return options.n === undefined ? children[0] : children;
}

async function started(handle, host, settings, endsWithChildren) {
  const children = await ask(
    native.resume,
    await agent.address(),
    handle.reveal(),
    host,
    settings.count,
    settings.payload,
    settings.environment,
    settings.stdio,
    endsWithChildren,
    settings.listen,
    settings.newIds,
    settings.clock,
    settings.cwd,
    settings.hostname,
    settings.cgroup,
    settings.namespaces,
    settings.argv,
    settings.idMap,
  );
  return children.map((told) => new Child(told));
}

function checkHost(host) {
  if (host !== null && typeof host !== 'string') {
    throw argument(`host is of type ${typeof host}: give "name", "name:port", or null for this host`);
  }
  if (host !== null) {
    call(native.checkHost, host);
  }
}

function settingsOf(options) {
  const { payload, env, stdio, listen, newIds, clock = 'live', cwd, hostname, cgroup, namespaces } = options;
  return {
    payload: payloadOf(payload),
    environment: environmentOf(env),
    stdio: stdioOf(stdio),
    listen: listenOf(listen),
    newIds: Boolean(newIds),
    clock: textOf('clock', clock),
    cwd: textOf('cwd', cwd),
    hostname: textOf('hostname', hostname),
    cgroup: textOf('cgroup', cgroup),
    namespaces: namespacesOf(namespaces),
    argv: textsOf('argv', options.argv, "the program's name first"),
    idMap: textsOf('idMap', options.idMap, "'0:100000:65536'"),
  };
}

/** Null if it is not given. */
function textOf(name, text) {
  if (text === undefined || text === null) {
    return null;
  }
  if (typeof text !== 'string') {
    throw argument(`${name} is of type ${typeof text}: give a string`);
  }
  return text;
}

function textsOf(name, texts = [], example) {
  if (!Array.isArray(texts) || texts.some((text) => typeof text !== 'string')) {
    throw argument(`${name} is no array of strings: give one, ${example}`);
  }
  return texts;
}

/** Texts as `mitosis resume --ns` takes them; the native half parses them. */
function namespacesOf(namespaces) {
  return Object.entries(namespaces ?? {}).map(([kind, path]) => {
    if (typeof path !== 'string') {
      throw argument(`namespaces.${kind} is of type ${typeof path}: give the path of one, '/run/netns/NAME'`);
    }
    return `${kind}=${path}`;
  });
}

/** Texts as `mitosis resume --listen` takes them; the native half parses them. */
function listenOf(listen) {
  const places = listen === undefined ? [] : Array.isArray(listen) ? listen : [listen];
  for (const place of places) {
    if (typeof place !== 'string' && !Number.isInteger(place)) {
      throw argument(`listen holds a ${typeof place}: give 'all', a port, 'PORT=PORT' or 'unix:/PATH=/PATH'`);
    }
  }
  return places.map(String);
}

function payloadOf(payload) {
  if (payload === undefined) {
    return Buffer.alloc(0);
  }
  if (typeof payload === 'string') {
    return Buffer.from(payload);
  }
  if (ArrayBuffer.isView(payload)) {
    return Buffer.from(payload.buffer, payload.byteOffset, payload.byteLength);
  }
  throw argument(`payload is of type ${typeof payload}: give a Buffer, a typed array or a string`);
}

function environmentOf(env) {
  const changes = Object.entries(env ?? {});
  for (const [name, value] of changes) {
    if (typeof value !== 'string' && value !== null) {
      throw argument(`env.${name} is of type ${typeof value}: give a string, or null to unset`);
    }
  }
  return changes;
}

/** Three descriptors, -1 for /dev/null, or null for this process's own. */
function stdioOf(stdio) {
  if (stdio === undefined || stdio === 'inherit') {
    return null;
  }
  const three = stdio === 'ignore' ? ['ignore', 'ignore', 'ignore'] : stdio;
  if (!Array.isArray(three) || three.length !== STDIO.length) {
    throw argument("stdio is 'inherit', 'ignore', or an array of three of them, descriptors or streams");
  }
  return three.map((one, i) => {
    const number = one === 'inherit' ? i : one === 'ignore' ? -1 : (one?.fd ?? one);
    if (!Number.isInteger(number) || (number < 0 && one !== 'ignore')) {
      throw argument(`stdio names no open ${STDIO[i]}: give 'inherit', 'ignore', a descriptor or a stream with one`);
    }
    return number;
  });
}

if (!isMainThread) {
  native.onWake(unique.drawAnew);
  // A worker that a fork has met on its way here was told nothing.
  if (native.generation() > 0) {
    unique.drawAnew();
  }
}

/** Where a library is preloaded: tells the hooks when it has prepared this process from outside. */
function listenToOutside() {
  return native.onOutside(() => {
    native.reseed();
    void wake(native.outside());
  });
}

/** Calls `listener` in each child, before any hook. */
function onWake(listener) {
  listeners.push(listener);
}

/** What this process was given as a child; null if it is none. */
function current() {
  return latest;
}

module.exports = { Seed, current, fork, listenToOutside, onWake, prepare, resume };
