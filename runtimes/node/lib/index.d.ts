/**
 * Remote fork: this warmed-up Node goes on elsewhere, in milliseconds.
 *
 *     const mitosis = require('mitosis-fork');
 *
 *     const model = await loadModel();                 // seconds, gigabytes
 *     const me = await mitosis.fork('host-b');         // settles twice: here, and in the child
 *     if (me.role === 'child') {
 *       await serve(model);                            // here: on host-b, model is simply there
 *     } else {
 *       await me.child.wait();
 *     }
 *
 * `fork` makes one child. `prepare` freezes a copy of this process, the seed, with all of its threads;
 * `resume` makes any number of children of it, on any host. In a child, `node:crypto` and `Math.random` have
 * new state before any of its JavaScript runs.
 *
 * @packageDocumentation
 */

/// <reference types="node" />

import { Buffer } from 'node:buffer';

/** What went wrong, by which programs decide; the message is for people. */
export type ErrorCode =
  /** No such seed: it was dropped, it has ended, or it was never there. */
  | 'ERR_MITOSIS_SEED_GONE'
  /** The handle's key is not that of the seed. */
  | 'ERR_MITOSIS_KEY_REFUSED'
  /** This process cannot be a seed as it stands; the message names what is in the way. */
  | 'ERR_MITOSIS_NOT_FORKABLE'
  /** The other host cannot run the seed: another processor, page size, kernel or file. */
  | 'ERR_MITOSIS_HOST_UNFIT'
  /** The other host, or the agent of this one, does not answer. */
  | 'ERR_MITOSIS_UNREACHABLE'
  /** The cluster secret is missing on one host, or differs. */
  | 'ERR_MITOSIS_SECRET'
  /** Two sides do not understand each other: they are of different versions. */
  | 'ERR_MITOSIS_PROTOCOL'
  /** An argument cannot be right. */
  | 'ERR_MITOSIS_ARGUMENT'
  /** A limit is reached: of the agent, of this library or of the operating system. */
  | 'ERR_MITOSIS_LIMIT'
  /** No agent runs here, or the host lacks FUSE, a capability or a kernel feature. */
  | 'ERR_MITOSIS_MISSING'
  /** There is no such child any more. */
  | 'ERR_MITOSIS_CHILD_GONE'
  /** A hook did not settle in its time. */
  | 'ERR_MITOSIS_HOOK_TIMEOUT'
  /** A child died of SIGBUS: a page could not be had. The message names seed, host and address. */
  | 'ERR_MITOSIS_PAGE_LOST'
  /** The agent that watched over a child is gone; nothing is known of the child. */
  | 'ERR_MITOSIS_HOST_LOST'
  /** Any other. */
  | 'ERR_MITOSIS';

/** Something that Mitosis was asked for has failed. */
export class MitosisError extends Error {
  private constructor();
  /** The kind. */
  readonly code: ErrorCode;
}

/** The token with which a seed is resumed. Printed, it does not show its key. */
export class Handle {
  /**
   * @param text as {@link Handle.reveal} gives it
   * @throws {MitosisError} `ERR_MITOSIS_ARGUMENT`: it is no handle.
   */
  constructor(text: string);
  /** "HOST:PORT" of the agent that holds the seed; null: the agent of this host. */
  readonly agent: string | null;
  /** The seed's id. */
  readonly seed: string;
  /** The whole text, key included: for the program that asked for it, never for a log. */
  reveal(): string;
  toString(): string;
  toJSON(): string;
}

/** A frozen copy of this process. It lives until {@link Seed.drop}, or until its agent is shut down. */
export class Seed {
  private constructor();
  /** The process id of the frozen copy. */
  readonly pid: number;
  /** For how long this process stood still, in ms. */
  readonly pauseMs: number;
  /**
   * The handle to resume it with, once the agent has published the seed.
   *
   * Rejects with `ERR_MITOSIS_NOT_FORKABLE` if the process cannot be a seed; the message names what is in the way. With
   * `ERR_MITOSIS_MISSING` or `ERR_MITOSIS_UNREACHABLE` the agent is gone; the next one may have the seed: ask again.
   */
  handle(): Promise<Handle>;
  /**
   * Ends the seed: no new children; its memory goes with the last one. Twice is once.
   *
   * With `revoke` its pages can be read no more from now on: a child that touches one that it has not got
   * dies, and its `wait` rejects with `ERR_MITOSIS_PAGE_LOST`.
   *
   * Rejects with `ERR_MITOSIS_MISSING` or `ERR_MITOSIS_UNREACHABLE`: the agent is gone; the next one may have the seed:
   * drop it again.
   */
  drop(options?: { revoke?: boolean }): Promise<void>;
}

/** How a resume went. Times are CLOCK_REALTIME of the child's host, in ns. */
export interface StartReport {
  /** The host that runs the children. */
  readonly host: string;
  /** When the request reached that host's agent. */
  readonly requestedAtNs: bigint;
  /** When the last child was cloned. */
  readonly startedAtNs: bigint;
  /** Bytes of the descriptor that was fetched; 0 if it was there already. */
  readonly descriptorBytes: number;
  /** Pages of the seed in all. */
  readonly pagesTotal: number;
  /** Whether this resume made the host's template. */
  readonly newTemplate: boolean;
}

/** How a child has ended: one of the two is null. */
export interface ChildEnd {
  /** Its exit status. */
  readonly code: number | null;
  /** The signal that ended it, by name. */
  readonly signal: string | null;
}

/**
 * A process resumed from a seed, on whatever host.
 *
 * It has this process's standard output and error (relayed from a far host), and /dev/null or what this process
 * had as its standard input, unless `stdio` says otherwise. It goes on when this process ends.
 */
export class Child {
  private constructor();
  /** Its name on its host, as `mitosis ls` prints it. */
  readonly id: string;
  /** The host that runs it. */
  readonly host: string;
  /** Its process id there. */
  readonly pid: number;
  /** How the resume that started it went. */
  readonly report: StartReport;
  /** Its exit status; null while {@link Child.wait} has not told it, or if a signal ended it. */
  readonly exitCode: number | null;
  /** The signal that ended it; null while that is not known. */
  readonly signalCode: string | null;
  /**
   * Waits for its end. While somebody waits, this process does not end by itself.
   *
   * Rejects with `ERR_MITOSIS_PAGE_LOST` if it died since a page could not be had, and with
   * `ERR_MITOSIS_HOST_LOST` if the agent that watched over it is gone.
   */
  wait(): Promise<ChildEnd>;
  /**
   * Sends it a signal, by name or number; SIGTERM if none is named. False if it is known to have ended.
   *
   * Rejects with `ERR_MITOSIS_CHILD_GONE` if it has ended, which was not known here.
   */
  kill(signal?: NodeJS.Signals | number): Promise<boolean>;
}

/** What `prepare` gives in the process that called it. */
export interface Parent {
  readonly role: 'parent';
  /** The frozen copy. */
  readonly seed: Seed;
}

/** What `fork` gives in the process that called it. */
export interface Forker {
  readonly role: 'parent';
  /** The started child. */
  readonly child: Child;
}

/** What `prepare` and `fork` give in each child. */
export interface Resumed {
  readonly role: 'child';
  /** The id of the seed that it was resumed from; null where a preloaded library has made the seed. */
  readonly seed: string | null;
  /** Its own id, as {@link Child.id} in the process that started it; null likewise. */
  readonly child: string | null;
  /** Which of the children of one `resume` it is, from 0. */
  readonly index: number;
  /** Forks between it and the first process. */
  readonly generation: number;
  /** What `resume` was given. */
  readonly payload: Buffer;
  /** What could not cross: for a hook that makes it again. Empty where a preloaded library has made the seed. */
  readonly lost: readonly Lost[];
  /**
   * What the clock of `performance.now()` and `process.hrtime()` has jumped by, ns: 0n in a child that has its parent's clock, as
   * ever where its host has time namespaces for it. Otherwise moments of that clock that were noted before are to be moved by it.
   * 0n where a preloaded library has made the seed.
   */
  readonly clockDeltaNs: bigint;
}

/** A kind of what cannot cross; docs/files.md says what each is. */
export type LossKind =
  | 'connections'
  | 'pipes'
  | 'processes'
  | 'devices'
  | 'unnamed'
  | 'locks'
  | 'watches'
  | 'terminals'
  | 'shared_memory'
  | 'shared_files'
  | 'io_uring'
  | 'scheduling';

/** What the process had open and a child has not. */
export interface Lost {
  readonly kind: LossKind;
  /** The numbers that led to it: closed or hung up now, or a file without its lock. None of memory. */
  readonly fds: readonly number[];
  /** What it was: the address of a peer, a path. */
  readonly was: string;
}

/** What to do with what cannot cross. */
export type LossPolicy = 'close' | 'refuse';

/** How to prepare. */
export interface PrepareOptions {
  /** Bytes of shared memory that are copied while this process stands still; more is refused. 64 MiB. */
  sharedCopyLimit?: number;
  /** How long this process's threads may take to stop, at most. 1000 ms. */
  stopThreadsMs?: number;
  /**
   * What to do where open files hold something that cannot cross, by kind or for all. 'close', which holds unless told
   * otherwise for all kinds but 'io_uring': children find it closed or hung up, and listed in {@link Resumed.lost}.
   * 'refuse': there is no seed, and {@link Seed.handle} rejects with `ERR_MITOSIS_NOT_FORKABLE` and names each.
   */
  losses?: LossPolicy | Partial<Record<LossKind, LossPolicy>>;
}

/** One of a child's standard descriptors: this process's, none (/dev/null), or another one. */
export type Stdio = 'inherit' | 'ignore' | number | { fd: number };

/** What a child is given. */
export interface StartOptions {
  /** For {@link Resumed.payload}; with `env` at most 1 MiB. */
  payload?: string | NodeJS.ArrayBufferView;
  /** Environment variables to set; null unsets. */
  env?: Record<string, string | null>;
  /** Its stdin, stdout and stderr; this process's own if it is not given. */
  stdio?: 'inherit' | 'ignore' | [Stdio, Stdio, Stdio];
  /** Which of the seed's listening sockets take connections in the child; none if it is not given. */
  listen?: Listen | Listen[];
  /** The child gets new process and thread ids, in its host's own pid namespace. */
  newIds?: boolean;
  /**
   * What `performance.now()`, `process.hrtime()` and timers go by in the child. 'live', which holds unless told otherwise: as in
   * the seed's process now; what was to happen since `prepare` happens at once. 'frozen': as at `prepare`, from where timers
   * go on with what they had left.
   */
  clock?: 'live' | 'frozen';
  /** Its working directory, an absolute path that is there on its host; if it is not given, the seed's where that is there. */
  cwd?: string;
  /** What it finds as its host's name. */
  hostname?: string;
  /** The control group that it enters, a directory of its host ('/sys/fs/cgroup/...'); the agent's if it is not given. */
  cgroup?: string;
  /** Namespaces of its host that it joins, by kind: `{ net: '/run/netns/blue' }`. Of other kinds it is in the agent's. */
  namespaces?: Partial<Record<NamespaceKind, string>>;
  /**
   * What `/proc/self/cmdline` and ps(1) tell of it, the program's name first; the seed's if it is not given.
   * `process.argv` stays what it is.
   */
  argv?: string[];
  /**
   * It is in a user namespace of these ids, users and groups alike, with the rights there that the seed's process had:
   * 'INSIDE:OUTSIDE:COUNT', as ['0:100000:65536']. Of a seed of one thread, which a Node is not.
   */
  idMap?: string[];
}

/** A kind of namespace that a child can join. */
export type NamespaceKind = 'cgroup' | 'ipc' | 'net' | 'uts' | 'mnt';

/**
 * Where a listening socket of the seed's listens in a child: 'all' is each where it was; 8080 the one on that port,
 * there; '8080=9090' on another; 'unix:/a' and 'unix:/a=/b' likewise.
 */
export type Listen = 'all' | number | string;

/** How to resume. */
export interface ResumeOptions extends StartOptions {
  /** How many children, from 1 to 10,000; if it is given, the answer is an array. */
  n?: number;
}

/** How to fork. */
export interface ForkOptions extends PrepareOptions, StartOptions {}

/** A seed of this host. */
export interface SeedLine {
  readonly seed: string;
  readonly pid: number;
  readonly parentPid: number;
  readonly exe: string;
  readonly generation: number;
  readonly pages: number;
  readonly state: string;
  readonly holders: number;
  readonly ageSeconds: number;
}

/** A child on this host. */
export interface ChildLine {
  readonly child: string;
  readonly pid: number;
  readonly seed: string;
  readonly ageSeconds: number;
}

/**
 * Freezes a copy of this process, from which children can be resumed on any host.
 *
 * Settles here, once, with a {@link Seed}, and in each child with what it was given. All threads stand still for
 * some milliseconds. Timers and promises go on in the children as here; open files and listening sockets as
 * docs/files.md says. Where no agent runs, one is started for this process, and ends with it.
 *
 * Rejects in this process alone: `ERR_MITOSIS_NOT_FORKABLE` where the message names what is in the way.
 */
export function prepare(options?: PrepareOptions): Promise<Parent | Resumed>;

/**
 * Forks this process onto `host` ("name" or "name:port"; null is this one): `prepare` and `resume` in one. The seed
 * ends with the child.
 *
 * Rejects in this process alone; there is no child then.
 */
export function fork(host?: string | null, options?: ForkOptions): Promise<Forker | Resumed>;

/**
 * Starts children of a seed on `host` ("name" or "name:port"; null is this one): all of them, or none.
 *
 * @param handle of {@link Seed.handle}, or its text as {@link Handle.reveal} gives it
 */
export function resume(
  handle: Handle | string,
  host: string | null | undefined,
  options: ResumeOptions & { n: number },
): Promise<Child[]>;
export function resume(
  handle: Handle | string,
  host?: string | null,
  options?: StartOptions & { n?: undefined },
): Promise<Child>;

/** How a hook is run. */
export interface HookOptions {
  /**
   * A promise of its must have settled after so many ms; null: after any time. 60,000. It has failed then, with
   * `ERR_MITOSIS_HOOK_TIMEOUT`. One that does not return at all nothing ends.
   */
  timeoutMs?: number | null;
}

/**
 * Registers a function to run before each `prepare` and `fork`: the place to close what must not be copied. It is
 * awaited. The one that was registered last runs first. If it fails, nothing is prepared and the caller is told.
 */
export function on(event: 'before_prepare', hook: () => unknown, options?: HookOptions): void;
/**
 * Registers a function to run here after each `prepare` and `fork`, even a failed one. It is awaited. If it fails,
 * the seed is dropped.
 */
export function on(event: 'after_prepare', hook: () => unknown, options?: HookOptions): void;
/**
 * Registers a function to run in the *rehearsal*: a child on this host that is thrown away before any other one is started.
 * The memory that it touches and writes is what real children are given ahead: a request served here makes their
 * first one faster. It is awaited, for some two seconds at most. It must have no effect outside of its process; there
 * is no standard output, and other threads than this one (the thread pool, workers) stand still. What it throws is ignored.
 */
export function on(event: 'rehearse', hook: () => unknown, options?: HookOptions): void;
/**
 * Registers a function to run in each child, before `prepare` settles there: the place to open again what was
 * closed. It is awaited. If it fails, the child ends with status 70.
 */
export function on(event: 'after_resume', hook: (resumed: Resumed) => unknown, options?: HookOptions): void;

/** Takes a function away that `on` has registered. */
export function off(event: 'before_prepare' | 'after_prepare' | 'rehearse', hook: () => unknown): void;
export function off(event: 'after_resume', hook: (resumed: Resumed) => unknown): void;

/** All seeds and children of this host, as its agent knows them. Rejects where no agent runs. */
export function list(): Promise<{ seeds: SeedLine[]; children: ChildLine[] }>;

/** The counters of this host's agent, by name (`mitosis stats` explains them). Rejects where no agent runs. */
export function stats(): Promise<Record<string, number>>;

/** Forks between this process and the first one: 0 in a process that no resume has made. */
export const generation: number;

/** What `resume` gave this process; null if it is no child. */
export const payload: Buffer | null;

/** Shared memory that `prepare` copies unless told otherwise. */
export const SHARED_COPY_LIMIT_BYTES: number;

/** Of this package. */
export const version: string;
