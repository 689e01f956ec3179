'use strict';

// A handle, whose key no log shows by accident.

const { inspect } = require('node:util');

const native = require('./native.js');
const { argument, call } = require('./errors.js');

/** The token with which a seed is resumed. */
class Handle {
  #text;
  #redacted;

  /** @param {string} text as `reveal` gives it */
  constructor(text) {
    if (typeof text !== 'string') {
      throw argument(`a handle is a text that reads mitosis://HOST:PORT/SEED#KEY, not of type ${typeof text}`);
    }
    const [agent, seed, redacted] = call(native.parseHandle, text);
    this.agent = agent;
    this.seed = seed;
    this.#text = text.trim();
    this.#redacted = redacted;
    Object.freeze(this);
  }

  /** The whole text, key included: for the program that asked for it, never for a log. */
  reveal() {
    return this.#text;
  }

  toString() {
    return this.#redacted;
  }

  toJSON() {
    return this.#redacted;
  }

  [inspect.custom]() {
    return `Handle('${this.#redacted}')`;
  }
}

/** A handle out of what a caller gives. */
function handleOf(given) {
  return given instanceof Handle ? given : new Handle(given);
}

module.exports = { Handle, handleOf };
