// The same for `import`; `generation` and `payload` are live bindings.

import mitosis from './index.js';
import forking from './fork.js';

export const {
  Child,
  Handle,
  MitosisError,
  SHARED_COPY_LIMIT_BYTES,
  Seed,
  fork,
  list,
  off,
  on,
  prepare,
  resume,
  stats,
  version,
} = mitosis;

export let generation = mitosis.generation;
export let payload = mitosis.payload;

forking.onWake(() => {
  generation = mitosis.generation;
  payload = mitosis.payload;
});

export default mitosis;
