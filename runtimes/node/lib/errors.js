'use strict';

/**
 * Something that Mitosis was asked for has failed. `code` says the kind, the message names the cause and
 * what to do.
 */
class MitosisError extends Error {
  /**
   * @param {string} message
   * @param {string} code
   */
  constructor(message, code) {
    super(message);
    this.name = 'MitosisError';
    this.code = code;
  }
}

/** An argument cannot be right. */
function argument(message) {
  return new MitosisError(message, 'ERR_MITOSIS_ARGUMENT');
}

/** This process cannot be a seed as it stands. */
function notForkable(message) {
  return new MitosisError(message, 'ERR_MITOSIS_NOT_FORKABLE');
}

/** An error of the native half as one of the package's. */
function translated(error) {
  if (error instanceof Error && typeof error.code === 'string' && error.code.startsWith('ERR_MITOSIS')) {
    return error instanceof MitosisError ? error : new MitosisError(error.message, error.code);
  }
  return error;
}

/** The result of a native call, with the package's own errors. */
function call(native, ...args) {
  try {
    return native(...args);
  } catch (error) {
    throw translated(error);
  }
}

/** As `call`, of a native function that answers by a promise. */
async function ask(native, ...args) {
  try {
    return await native(...args);
  } catch (error) {
    throw translated(error);
  }
}

module.exports = { MitosisError, argument, ask, call, notForkable, translated };
