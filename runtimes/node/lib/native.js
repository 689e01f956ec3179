'use strict';

// The native half: part of the package, or where MITOSIS_NODE_ADDON says.

const path = require('node:path');

const CARRIED = path.join(__dirname, '..', 'bin', 'mitosis_node.node');
const ADDON_VARIABLE = 'MITOSIS_NODE_ADDON';

function load() {
  const file = process.env[ADDON_VARIABLE] || CARRIED;
  try {
    return require(path.resolve(file));
  } catch (cause) {
    throw new Error(
      `mitosis-fork cannot load its native half, ${file} (${cause.message}): it is there for Linux on x86-64; ` +
        'in a checkout, make it by `make install-node`',
      { cause },
    );
  }
}

module.exports = load();
