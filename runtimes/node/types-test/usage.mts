// Compiled, never run: that the types say what the package does.

import mitosis, { Handle, MitosisError, fork, generation, on, payload, prepare, resume } from 'mitosis-fork';

on('before_prepare', async () => {});
on('after_resume', (resumed) => {
  const index: number = resumed.index;
  return index;
});
// @ts-expect-error there is no such event
on('before_resume', () => {});

export async function both(): Promise<number | null> {
  const me = await prepare({ stopThreadsMs: 100 });
  if (me.role === 'child') {
    // @ts-expect-error a child has no seed to resume
    me.seed.handle();
    return me.payload.length;
  }
  const handle: Handle = await me.seed.handle();
  const one = await resume(handle, 'host-b', { payload: 'text', env: { A: '1', B: null } });
  const many = await resume(handle.reveal(), null, { n: 3, stdio: ['ignore', process.stdout, 2] });
  await one.kill('SIGTERM');
  const { code } = await many[0]!.wait();
  await me.seed.drop({ revoke: true });
  return code;
}

export async function forked(): Promise<void> {
  const me = await fork('host-b', { payload: new Uint8Array(3) });
  if (me.role === 'parent') {
    await me.child.wait();
  }
}

export function told(error: unknown): string {
  if (error instanceof MitosisError && error.code === 'ERR_MITOSIS_HOST_UNFIT') {
    return error.message;
  }
  // @ts-expect-error there is no such code
  return error instanceof MitosisError && error.code === 'ERR_OTHER' ? '' : `${generation} ${payload?.length}`;
}

export const version: string = mitosis.version;
