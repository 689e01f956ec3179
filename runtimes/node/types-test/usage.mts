// Compiled, never run: that the types say what the package does.

import mitosis, { Handle, MitosisError, fork, generation, off, on, payload, prepare, resume } from 'mitosis-fork';

on('before_prepare', async () => {});
on('after_resume', (resumed) => {
  const index: number = resumed.index;
  return index;
});
on('before_prepare', () => {}, { timeoutMs: 100 });
on('after_resume', () => {}, { timeoutMs: null });
// @ts-expect-error a time is a number
on('after_prepare', () => {}, { timeoutMs: '1 s' });
const rehearsal = async (): Promise<void> => {};
on('rehearse', rehearsal);
off('rehearse', rehearsal);
// @ts-expect-error a rehearsal is given nothing
on('rehearse', (resumed: { index: number }) => resumed.index);
// @ts-expect-error there is no such event
on('before_resume', () => {});
// @ts-expect-error there is no such event
off('before_resume', () => {});

export async function both(): Promise<number | null> {
  // @ts-expect-error there is no such kind
  await prepare({ losses: { sockets: 'refuse' } });
  await prepare({ losses: 'refuse' });
  await prepare({ losses: { io_uring: 'close' } });
  const me = await prepare({ stopThreadsMs: 100, losses: { connections: 'refuse', pipes: 'close' } });
  if (me.role === 'child') {
    const numbers: readonly number[] = me.lost.filter((lost) => lost.kind === 'pipes').flatMap((lost) => lost.fds);
    numbers.includes(3);
    // @ts-expect-error a child has no seed to resume
    me.seed.handle();
    const jumped: bigint = me.clockDeltaNs;
    return me.payload.length + Number(jumped);
  }
  const handle: Handle = await me.seed.handle();
  const one = await resume(handle, 'host-b', { payload: 'text', env: { A: '1', B: null } });
  const many = await resume(handle.reveal(), null, { n: 3, stdio: ['ignore', process.stdout, 2] });
  const server = await resume(handle, null, { listen: ['8080=9090', 'unix:/run/a'], newIds: true });
  await resume(handle, null, { n: 2, listen: 8080 });
  // @ts-expect-error a port is named by a number or a text
  await resume(handle, null, { listen: { port: 8080 } });
  await resume(handle, null, { clock: 'frozen', cwd: '/srv', hostname: 'b', cgroup: '/sys/fs/cgroup/b', namespaces: { net: '/run/netns/b' }, argv: ['b'], idMap: ['0:7:1'] });
  // @ts-expect-error there is no such clock
  await resume(handle, null, { clock: 'broken' });
  // @ts-expect-error a process cannot join one of that kind
  await resume(handle, null, { namespaces: { pid: '/proc/1/ns/pid' } });
  await server.kill();
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
