'use strict';

// A web server as people write them: it builds an index when it starts, and answers searches out of it.
//
//     node node_app.js PORT               serves, and that is all
//     node node_app.js PORT --forkable    does what lines of JSON on its standard input say, [verb, argument...]
//
// It tells by lines of JSON on standard output; so do its children, which write to the same pipe.

const { createHash } = require('node:crypto');
const fs = require('node:fs');
const http = require('node:http');
const net = require('node:net');
const path = require('node:path');

const DOCUMENTS = 40_000;
const WORDS_EACH = 12;
const VOCABULARY = 3_000;
const SHOWN = 20;
const REHEARSED_REQUESTS = 10;

const say = (what) => fs.writeSync(1, JSON.stringify(what) + '\n');

/** Documents of made-up words, and which of them hold a word. What a cold start pays for. */
function build() {
  const words = Array.from({ length: VOCABULARY }, (_, i) => `word${i.toString(36)}`);
  const [documents, holders] = [[], new Map(words.map((word) => [word, []]))];
  let state = 12345;
  for (let id = 0; id < DOCUMENTS; id++) {
    const text = [];
    for (let i = 0; i < WORDS_EACH; i++) {
      state = (Math.imul(state, 1103515245) + 12345) >>> 0;
      text.push(words[(state >>> 8) % VOCABULARY]);
    }
    documents.push({ id, title: text.slice(0, 3).join(' '), text: text.join(' ') });
    for (const word of new Set(text)) holders.get(word).push(id);
  }
  return { documents, holders, words };
}

const { documents, holders, words } = build();
let served = 0;

/** The page that answers one search. */
function page(query) {
  const found = holders.get(query) ?? [];
  const best = found
    .map((id) => ({ ...documents[id], score: documents[id].text.split(query).length / (1 + (id % 7)) }))
    .sort((a, b) => b.score - a.score || a.id - b.id)
    .slice(0, SHOWN);
  const rows = best.map(({ title, text, score }) => `<li><b>${title}</b> ${text} <i>${score.toFixed(3)}</i></li>`);
  return `<!doctype html><title>${query}</title><p>${found.length} found<ol>${rows.join('\n')}</ol>`;
}

const server = http.createServer((request, response) => {
  served += 1;
  const { searchParams } = new URL(request.url, 'http://localhost');
  const body = page(searchParams.get('q') ?? words[0]);
  response.setHeader('content-type', 'text/html; charset=utf-8');
  response.setHeader('etag', `"${createHash('sha1').update(body).digest('hex')}"`);
  response.setHeader('x-served', String(served));
  response.setHeader('x-pid', String(process.pid));
  response.end(body);
});

/** One answer of this server to itself. */
function ask(port, query) {
  return new Promise((resolve, reject) => {
    const socket = net.connect(port, '127.0.0.1', () => socket.end(`GET /?q=${query} HTTP/1.0\r\n\r\n`));
    socket.on('error', reject).on('close', resolve).resume();
  });
}

const listen = (port) => new Promise((resolve) => server.listen(port, '0.0.0.0', resolve));

/** Does what it is told, one line after the other. */
function obey(port) {
  const mitosis = require('../../runtimes/node');
  const native = require('../../runtimes/node/lib/native.js');
  const closed = () => {
    const done = new Promise((resolve) => server.close(resolve));
    server.closeAllConnections();
    return done;
  };
  mitosis.on('before_prepare', () => process.stdin.pause());
  mitosis.on('before_prepare', closed);
  mitosis.on('after_prepare', () => listen(port));
  mitosis.on('after_prepare', () => process.stdin.resume());

  // Children are given ahead what one request touches.
  mitosis.on('rehearse', async () => {
    await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
    for (const word of words.slice(0, REHEARSED_REQUESTS)) await ask(server.address().port, word);
  });

  let seed = null;
  let children = [];
  const verbs = {
    async prepare() {
      const begun = process.hrtime.bigint();
      const me = await mitosis.prepare();
      if (me.role === 'child') {
        const runs = native.realtimeNs();
        const { port: childs, stand } = JSON.parse(me.payload);
        if (stand) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, stand);
        if (childs) await listen(childs);
        const listens = native.realtimeNs();
        say({ child: me.index, runs_ns: Number(runs), listens_ns: Number(listens), pid: process.pid });
        if (!childs) process.exit(0);
        return new Promise(() => {});
      }
      seed = me.seed;
      const handle = (await seed.handle()).reveal();
      const published_ms = Number(process.hrtime.bigint() - begun) / 1e6;
      return { handle, published_ms, pause_ms: seed.pauseMs, pid: process.pid };
    },
    async resume(host, n, payload) {
      children = await mitosis.resume(await seed.handle(), host, { n, payload: JSON.stringify(payload) });
      const { requestedAtNs, descriptorBytes, pagesTotal, newTemplate } = children[0].report;
      return {
        requested_ns: Number(requestedAtNs),
        descriptor_bytes: descriptorBytes,
        pages_total: pagesTotal,
        new_template: newTemplate,
      };
    },
    async kill() {
      await Promise.all(children.map((child) => child.kill('SIGKILL').catch(() => {})));
      return verbs.wait();
    },
    async wait() {
      return Promise.all(children.map(async (child) => (await child.wait()).code));
    },
    async drop() {
      await seed.drop();
      return null;
    },
  };

  let unread = '';
  let before = Promise.resolve();
  process.stdin.setEncoding('utf8').on('data', (text) => {
    const lines = (unread + text).split('\n');
    unread = lines.pop();
    for (const line of lines) {
      const [verb, ...args] = JSON.parse(line);
      before = before.then(async () => say({ reply: await verbs[verb](...args) }));
    }
  });
  process.stdin.on('end', () => process.exit(0));
}

async function main() {
  const [port, forkable] = process.argv.slice(2);
  await listen(Number(port));
  if (forkable === '--forkable') obey(Number(port));
  say({ reply: { listening: Number(port), words: words.slice(0, 50), version: process.version, pid: process.pid } });
}

main();
