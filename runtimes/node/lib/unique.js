'use strict';

// What a child has to renew that JavaScript keeps. The native half has given OpenSSL and V8 new state before.

const crypto = require('node:crypto');
const { syncBuiltinESMExports } = require('node:module');

const native = require('./native.js');

// What node:crypto draws ahead: 128 UUIDs, and 6 KiB for randomInt by 6 bytes a number. Whoever draws as
// many has used up all that was drawn before.
const UUIDS_AHEAD = 128;
const UUID_BYTES = 16;
const INTEGERS_AHEAD = 1024;
const RANDOM_VALUES = 2 ** 47;

// Where V8's own state cannot be reset, from the start: who takes Math.random into a variable has this one.
if (!native.resetsMathRandom) {
  Math.random = function random() {
    return crypto.randomInt(RANDOM_VALUES) / RANDOM_VALUES;
  };
}

/** The bytes that randomUUID has drawn ahead: what it has filled anew when they are used up, and asks for its length
 * then. */
function drawnForUUIDs() {
  const views = Object.getPrototypeOf(Uint8Array.prototype);
  const own = Object.getOwnPropertyDescriptor(views, 'byteLength');
  let bytes = null;
  Object.defineProperty(views, 'byteLength', {
    ...own,
    get() {
      bytes = this;
      return own.get.call(this);
    },
  });
  try {
    for (let i = 0; i < UUIDS_AHEAD && bytes === null; i++) {
      crypto.randomUUID();
    }
  } finally {
    Object.defineProperty(views, 'byteLength', own);
  }
  return bytes instanceof Uint8Array && bytes.length === UUIDS_AHEAD * UUID_BYTES ? bytes : null;
}

/** The bytes that randomInt has drawn ahead: what it reads its next number from. */
function drawnForIntegers() {
  const read = Buffer.prototype.readUIntBE;
  let bytes = null;
  Buffer.prototype.readUIntBE = function readUIntBE(...args) {
    bytes = this;
    return read.apply(this, args);
  };
  try {
    crypto.randomInt(1);
  } finally {
    Buffer.prototype.readUIntBE = read;
  }
  return bytes;
}

/** The generation of this process that drew what is ahead. It is asked for before anything is drawn, here and below:
 * a worker may be forked anywhere in between, and then finds that its draws are an ancestor's. */
let drawnIn = native.generation();

const ahead = { uuids: drawnForUUIDs(), integers: drawnForIntegers() };

/** Has `object[name]` look whether its generators are an ancestor's: a worker runs before the main thread has given
 * OpenSSL new state, and hears of a fork only when its loop comes to it. What it drew at once while it was forked is
 * drawn once more; what calls back, or is a promise, is not. Gives the one that does not look. */
function guard(object, name) {
  const draw = object[name];
  if (typeof draw !== 'function') {
    return draw; // this node has it no more
  }
  const guarded = {
    [name](...args) {
      if (native.generation() !== drawnIn) {
        drawAnew();
      }
      const drawn = draw.apply(this, args);
      if (native.generation() === drawnIn || isLater(drawn, args)) {
        return drawn;
      }
      drawAnew();
      return draw.apply(this, args);
    },
  }[name];
  // Its length, and how util.promisify takes it.
  Object.defineProperties(guarded, Object.getOwnPropertyDescriptors(draw));
  Object.defineProperty(object, name, { ...Object.getOwnPropertyDescriptor(object, name), value: guarded });
  return draw;
}

/** Whether what was called goes on behind its call. */
function isLater(drawn, args) {
  return typeof args.at(-1) === 'function' || typeof drawn?.then === 'function';
}

const randomUUID = guard(crypto, 'randomUUID');
const randomInt = guard(crypto, 'randomInt');
for (const what of ['randomFillSync', 'randomBytes', 'pseudoRandomBytes', 'prng', 'rng', 'randomFill']) {
  guard(crypto, what);
}
for (const what of ['generateKey', 'generateKeyPair', 'generatePrime']) {
  guard(crypto, what);
  guard(crypto, `${what}Sync`);
}
const { webcrypto } = crypto;
guard(webcrypto.constructor.prototype, 'randomUUID');
guard(webcrypto.constructor.prototype, 'getRandomValues');
guard(webcrypto.subtle.constructor.prototype, 'generateKey');
syncBuiltinESMExports();

/** Uses up, or draws anew, what node:crypto has drawn ahead. */
function drawOut(generation = native.generation()) {
  drawnAhead(ahead.uuids, UUIDS_AHEAD, randomUUID);
  drawnAhead(ahead.integers, INTEGERS_AHEAD, () => randomInt(1));
  drawnIn = generation;
}

/** `bytes` are drawn anew; where this node keeps them in another way, all of them are used up. */
function drawnAhead(bytes, count, draw) {
  if (bytes !== null) {
    native.fill(bytes);
    return;
  }
  for (let i = 0; i < count; i++) {
    draw();
  }
}

/** New state for this thread's generators, and nothing left of what they gave before. */
function drawAnew() {
  const generation = native.generation();
  native.reseed();
  drawOut(generation);
}

/** In a child: numbers drawn ahead, the process id and the working directory's name that node keeps, and the time zone:
 * the environment is changed already, and of all variables node looks at TZ alone when it is set. */
function renew(woken) {
  drawOut();
  if (process.pid !== woken.pid) {
    Object.defineProperty(process, 'pid', { value: woken.pid, enumerable: true, configurable: true });
  }
  if (woken.cwd !== null && process.cwd() !== woken.cwd) {
    try {
      // Where it is already: node forgets the name, on all of its threads.
      process.chdir(woken.cwd);
    } catch {
      // One that may not be entered again keeps the name that it had.
    }
  }
  if (woken.timeZone === null) {
    delete process.env.TZ;
  } else if (woken.timeZone !== undefined) {
    process.env.TZ = woken.timeZone;
  }
}

module.exports = { drawAnew, drawOut, renew };
