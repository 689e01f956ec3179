'use strict';

// What a child has to renew that JavaScript keeps. The native half has given OpenSSL and V8 new state before.

const crypto = require('node:crypto');
const { syncBuiltinESMExports } = require('node:module');

const native = require('./native.js');

// What node:crypto draws ahead: 128 UUIDs, and 6 KiB for randomInt by 6 bytes a number. Whoever draws as
// many has used up all that was drawn before.
const UUIDS_AHEAD = 128;
const INTEGERS_AHEAD = 1024;
const RANDOM_VALUES = 2 ** 47;

// Where V8's own state cannot be reset, from the start: who takes Math.random into a variable has this one.
if (!native.resetsMathRandom) {
  Math.random = function random() {
    return crypto.randomInt(RANDOM_VALUES) / RANDOM_VALUES;
  };
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

const integersAhead = drawnForIntegers();

/** The generation of this process that drew them. */
let drawnIn = native.generation();

/** Has `object[name]` look first whether what lies ahead is an ancestor's: a worker hears of a fork only when its
 * loop comes to it. Gives the one that does not look. */
function guard(object, name) {
  const draw = object[name];
  const guarded = {
    [name](...args) {
      if (native.generation() !== drawnIn) {
        drawAnew();
      }
      return draw.apply(this, args);
    },
  }[name];
  Object.defineProperty(object, name, { ...Object.getOwnPropertyDescriptor(object, name), value: guarded });
  return draw;
}

const randomUUID = guard(crypto, 'randomUUID');
const randomInt = guard(crypto, 'randomInt');
guard(crypto.webcrypto.constructor.prototype, 'randomUUID');
syncBuiltinESMExports();

/** Uses up, or draws anew, what node:crypto has drawn ahead. */
function drawOut() {
  drawnIn = native.generation();
  for (let i = 0; i < UUIDS_AHEAD; i++) {
    randomUUID();
  }
  if (integersAhead !== null) {
    crypto.randomFillSync(integersAhead);
    return;
  }
  // A node that reads them in another way.
  for (let i = 0; i < INTEGERS_AHEAD; i++) {
    randomInt(1);
  }
}

/** New state for this thread's generators, and nothing left of what they gave before. */
function drawAnew() {
  native.reseed();
  drawOut();
}

/** In a child: numbers drawn ahead, the process id that node keeps, and what follows the environment. */
function renew(woken) {
  drawOut();
  if (process.pid !== woken.pid) {
    Object.defineProperty(process, 'pid', { value: woken.pid, enumerable: true, configurable: true });
  }
  for (const [name, value] of woken.environment ?? []) {
    // The environment is changed already; node does more than that where TZ is set.
    if (value === null) {
      delete process.env[name];
    } else {
      process.env[name] = value;
    }
  }
}

module.exports = { drawAnew, drawOut, renew };
