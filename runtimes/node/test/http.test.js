'use strict';

// An http server that was warmed in the parent and listens again in the children.

const assert = require('node:assert');
const test = require('node:test');

const { run, startAgent } = require('./stage.js');

const DONE = { code: 0, signal: null };
const CHILDREN = 100;

test('a server that is closed before and opened after a fork serves', async (t) => {
  const agent = await startAgent(t);
  const said = await run(agent, async (mitosis, say) => {
    const http = require('node:http');
    let served = 0;
    const server = http.createServer((request, response) => {
      served += 1;
      response.end(JSON.stringify({ served, url: request.url }));
    });
    const listening = () => new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
    const get = async (path) => {
      const { port } = server.address();
      const response = await new Promise((resolve, reject) =>
        http.get({ port, path, agent: false }, resolve).on('error', reject),
      );
      let text = '';
      for await (const data of response) text += data;
      return JSON.parse(text);
    };
    await listening();
    for (let i = 0; i < 300; i++) await get('/warm');
    mitosis.on('before_prepare', () => new Promise((resolve) => server.close(resolve)));
    mitosis.on('after_prepare', listening);
    mitosis.on('after_resume', listening);
    const me = await mitosis.fork();
    say([me.role, await get('/after')]);
    if (me.role === 'parent') say(await me.child.wait());
    process.exit(0);
  });
  const sides = said.filter(Array.isArray).sort();
  assert.deepStrictEqual(sides, [
    ['child', { served: 301, url: '/after' }],
    ['parent', { served: 301, url: '/after' }],
  ]);
  assert.deepStrictEqual(said.find((line) => !Array.isArray(line)), DONE);
});

test('a server that listens is carried, and listens where it is told to', async (t) => {
  const agent = await startAgent(t);
  const said = await run(agent, async (mitosis, say, folder) => {
    const http = require('node:http');
    const { setTimeout: pause } = require('node:timers/promises');
    let served = 0;
    const server = http.createServer((request, response) => {
      response.end(`${++served} ${mitosis.generation}`);
      if (request.url === '/last') response.on('close', () => process.exit(0));
    });
    const get = (socketPath, path) =>
      new Promise((resolve, reject) => {
        const request = http.get({ socketPath, path, agent: false }, async (response) => {
          let text = '';
          for await (const data of response) text += data;
          resolve(text);
        });
        request.on('error', reject);
      });
    await new Promise((resolve) => server.listen(`${folder}/a`, resolve));
    for (let i = 0; i < 10; i++) await get(`${folder}/a`, '/');
    const me = await mitosis.prepare();
    if (me.role === 'child') return;
    const child = await mitosis.resume(await me.seed.handle(), null, { listen: `unix:${folder}/a=${folder}/b` });
    const asked = async (path) => {
      for (;;) {
        try {
          return await get(`${folder}/b`, path);
        } catch (error) {
          if (!['ENOENT', 'ECONNREFUSED'].includes(error.code)) throw error;
          await pause(5);
        }
      }
    };
    say([await asked('/'), await asked('/last'), await get(`${folder}/a`, '/')]);
    say(await child.wait());
    await me.seed.drop();
    process.exit(0);
  });
  assert.deepStrictEqual(said, [['11 1', '12 1', '11 0'], DONE]);
});

test(`${CHILDREN} children of one seed serve at once`, async (t) => {
  const agent = await startAgent(t);
  const program = async (mitosis, say, folder) => {
    const http = require('node:http');
    let me = null;
    const server = http.createServer((request, response) => {
      response.end(`${mitosis.payload} ${me?.index} ${request.url}`);
      if (request.url === '/last') response.on('close', () => process.exit(0));
    });
    const get = (socketPath, path) =>
      new Promise((resolve, reject) => {
        const request = http.get({ socketPath, path, agent: false }, async (response) => {
          let text = '';
          for await (const data of response) text += data;
          resolve(text);
        });
        request.on('error', reject);
      });
    await new Promise((resolve) => server.listen(`${folder}/warm`, resolve));
    for (let i = 0; i < 100; i++) await get(`${folder}/warm`, '/warm');
    await new Promise((resolve) => server.close(resolve));
    me = await mitosis.prepare();
    if (me.role === 'child') {
      server.listen(`${folder}/listens-${me.index}`, () => say(me.index));
      return;
    }
    const n = Number(process.env.CHILDREN);
    const children = await mitosis.resume(await me.seed.handle(), null, { n, payload: 'of one seed' });
    const fs = require('node:fs');
    const there = (i) => fs.existsSync(`${folder}/listens-${i}`);
    const all = children.map((_, i) => i);
    while (!all.every(there)) await new Promise((resolve) => setTimeout(resolve, 10));
    const asked = (path) => Promise.all(all.map((i) => get(`${folder}/listens-${i}`, path)));
    const answers = [...(await asked('/first')), ...(await asked('/last'))];
    const ends = await Promise.all(children.map((child) => child.wait()));
    say({ answers, ends });
    await me.seed.drop();
    process.exit(0);
  };
  const said = await run(agent, program, { env: { CHILDREN: String(CHILDREN) } });
  const all = Array.from({ length: CHILDREN }, (_, i) => i);
  assert.deepStrictEqual(said.slice(0, -1).sort((a, b) => a - b), all);
  const { answers, ends } = said.at(-1);
  const expected = ['/first', '/last'].flatMap((url) => all.map((i) => `of one seed ${i} ${url}`));
  assert.deepStrictEqual(answers, expected);
  assert.deepStrictEqual(ends, all.map(() => DONE));
});
