'use strict';

// A child, as the process that started it sees it.

const os = require('node:os');

const native = require('./native.js');
const { MitosisError, argument, ask, call } = require('./errors.js');

/** A process resumed from a seed, on whatever host. */
class Child {
  #native;
  #end = null;

  constructor(told) {
    this.#native = told.native;
    this.id = told.id;
    this.host = told.host;
    this.pid = told.pid;
    this.report = Object.freeze({ host: told.host, ...told.report });
    this.exitCode = null;
    this.signalCode = null;
  }

  /** Sends it a signal, SIGTERM unless another is named. Resolves to false if it is known to have ended. */
  async kill(signal = 'SIGTERM') {
    const number = numberOf(signal);
    if (this.exitCode !== null || this.signalCode !== null) {
      return false;
    }
    await ask(native.childKill, this.#native, number);
    return true;
  }

  /** Waits for its end. */
  wait() {
    this.#end ??= this.#watched();
    return this.#end;
  }

  #watched() {
    return new Promise((resolve, reject) => {
      const look = () => {
        try {
          const end = call(native.childEnd, this.#native);
          if (end === null) {
            return false;
          }
          resolve(this.#ended(...end));
        } catch (error) {
          reject(error);
        }
        return true;
      };
      if (!look()) {
        call(native.childWatch, this.#native, look);
      }
    });
  }

  #ended(how, number, why) {
    switch (how) {
      case 'exited':
        this.exitCode = number;
        break;
      case 'signalled':
        this.signalCode = nameOf(number);
        break;
      case 'page_lost':
        this.signalCode = 'SIGBUS';
        throw new MitosisError(why, 'ERR_MITOSIS_PAGE_LOST');
      default:
        throw new MitosisError(why, 'ERR_MITOSIS_HOST_LOST');
    }
    return { code: this.exitCode, signal: this.signalCode };
  }
}

function numberOf(signal) {
  const number = typeof signal === 'string' ? os.constants.signals[signal] : signal;
  if (!Number.isInteger(number) || number < 1 || number > 64) {
    throw argument(`'${String(signal)}' is no signal: give a name such as 'SIGTERM', or a number from 1 to 64`);
  }
  return number;
}

/** Signals without a name, which are the real-time ones, are told by number. */
function nameOf(number) {
  const found = Object.entries(os.constants.signals).find(([, value]) => value === number);
  return found ? found[0] : `SIG${number}`;
}

module.exports = { Child };
