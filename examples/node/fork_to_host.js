'use strict';

// Forks onto a host and works there with what is loaded here: node fork_to_host.js [HOST]
//
// In a program of your own: require('mitosis-fork').

const os = require('node:os');

const mitosis = require('../../runtimes/node');

const squares = Float64Array.from({ length: 1_000_000 }, (_, i) => i * i);

async function main() {
  const host = process.argv[2] ?? null;
  const me = await mitosis.fork(host, { env: { ROLE: 'worker' } });
  if (me.role === 'child') {
    const right = squares.every((square, i) => square === i * i);
    console.log(`child ${process.pid} on host ${os.hostname()}, a ${process.env.ROLE}: ${right ? 'squares right' : 'WRONG'}`);
    process.exit(right ? 3 : 1);
  }
  const { code } = await me.child.wait();
  console.log(`the child on ${me.child.host} ended with ${code}`);
  process.exitCode = code === 3 ? 0 : 1;
}

main();
