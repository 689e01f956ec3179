'use strict';

// Every text of an error stands in docs/troubleshooting.md, where it is found by the parts that do not vary. Taken for one
// is each literal of three words and more (core/tests/error_texts.rs does so for Rust).

const assert = require('node:assert');
const fs = require('node:fs');
const path = require('node:path');
const test = require('node:test');

const ROOT = path.resolve(__dirname, '../../..');
const LIB = path.join(ROOT, 'runtimes/node/lib');
// Shorter parts are anywhere.
const SHORTEST = 12;
const COMMENT_OR_LITERAL = /\/\/.*|\/\*[^]*?\*\/|`(?:[^`\\]|\\.)*`|'(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*"/g;

test('every text is documented', () => {
  const page = oneLine(fs.readFileSync(path.join(ROOT, 'docs/troubleshooting.md'), 'utf8'));
  const sources = fs.readdirSync(LIB).filter((name) => name.endsWith('.js'));
  const all = sources.flatMap((name) => texts(fs.readFileSync(path.join(LIB, name), 'utf8')));
  assert.ok(all.length > 25, `${all.length}: the sources are read wrongly`);
  assert.deepStrictEqual(all.flatMap(parts).filter((part) => !page.includes(part)), []);
});

test('texts are told from other literals', () => {
  const source = "// it's a comment\nfail(`the limit is ${n}: ` + 'give a \"whole\" number', 'utf8'); /* \"not these words\" */";
  assert.deepStrictEqual(texts(source), ['the limit is ${n}: ', 'give a "whole" number']);
  assert.deepStrictEqual(parts('the limit is ${n}: and what to do'), ['the limit is', 'and what to do']);
});

function texts(source) {
  const literals = (source.match(COMMENT_OR_LITERAL) ?? []).filter((found) => !found.startsWith('/'));
  return literals.map((literal) => literal.slice(1, -1)).filter((text) => text.trim().split(/\s+/).length > 2);
}

function parts(text) {
  const constant = text.split(/\$\{[^}]*\}/).map((part) => oneLine(part).replace(/^: /, '').replaceAll('`', "'"));
  return constant.filter((part) => part.length >= SHORTEST);
}

function oneLine(text) {
  return text.split(/\s+/).join(' ').trim();
}
