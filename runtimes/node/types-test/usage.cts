// The same by require().

import mitosis = require('mitosis-fork');

export async function counted(): Promise<number | undefined> {
  const { children } = await mitosis.list();
  const counters = await mitosis.stats();
  return counters['misses'] ?? children[0]?.pid;
}
