'use strict'
// Runs a function of the Fn project that can be forked: `node launch.js func.js`.
//
// In the place of `node func.js`, the entry point of a function's image. The function calls fdk.handle() as
// ever; it gets what stands here instead: calls of the handler through the FDK's own server, then prepare(), and
// only then the FDK's handle(). So its seed holds no socket that it listens on, and a child of it is a new
// container of the same function, which listens where *its* FN_LISTENER says. A call in the rehearsal has each
// child given ahead what one touches.
//
//   MITOSIS_FN_HANDLE     the file that the seed's handle is written to (mode 600); not set: nothing is prepared
//   MITOSIS_FN_WARM_BODY  the body of the warming calls; empty if not set

const fs = require('node:fs')
const http = require('node:http')
const os = require('node:os')
const path = require('node:path')
const fdk = require('@fnproject/fdk')

// The first call compiles and loads what is used late; a hundred leave optimised code behind.
const WARM_CALLS = 100
const listen = fdk.handle

/** What the function calls in the place of fdk.handle(). */
fdk.handle = function (handler, options) {
  const handleFile = take('MITOSIS_FN_HANDLE')
  if (handleFile === undefined) return listen(handler, options)
  prepared(handler, options, handleFile).then(
    () => listen(handler, options),
    (error) => {
      console.error(error)
      process.exit(1)
    }
  )
}

async function prepared (handler, options, handleFile) {
  const body = take('MITOSIS_FN_WARM_BODY') || ''
  // What a rehearsal makes in it is removed here: it may be cut short, and is over when the handle is there.
  const scratch = fs.mkdtempSync(path.join(os.tmpdir(), 'fn-warm-'))
  let me
  try {
    await warm(handler, options, body, WARM_CALLS, scratch)
    const mitosis = require('mitosis-fork')
    mitosis.on('rehearse', () => warm(handler, options, body, 1, scratch))
    me = await mitosis.prepare()
    if (me.role === 'parent') publish(await me.seed.handle(), handleFile)
  } finally {
    if (me?.role !== 'child') fs.rmSync(scratch, { recursive: true })
  }
}

/** Some calls over a socket of the function's own, below `scratch`. */
async function warm (handler, options, body, count, scratch) {
  const directory = fs.mkdtempSync(path.join(scratch, 'calls-'))
  const socketPath = path.join(directory, 'lsnr.sock')
  const listener = process.env.FN_LISTENER
  process.env.FN_LISTENER = `unix:${socketPath}`
  const close = listen(handler, options)
  try {
    await exists(socketPath)
    for (let i = 0; i < count; i++) await call(socketPath, body)
  } finally {
    close()
    fs.rmSync(directory, { recursive: true })
    process.env.FN_LISTENER = listener
  }
}

/** The FDK says that it listens by the file that it makes, and in no other way. */
async function exists (file) {
  while (!fs.existsSync(file)) await new Promise((resolve) => setTimeout(resolve, 1))
}

function call (socketPath, body) {
  return new Promise((resolve, reject) => {
    const headers = { 'Fn-Call-Id': 'warm', 'Fn-Deadline': '2100-01-01T00:00:00Z' }
    // No agent of http's: a connection that is kept would be in the seed.
    const options = { socketPath, path: '/call', method: 'POST', headers, agent: false }
    const request = http.request(options, (response) => {
      const parts = []
      response.on('data', (part) => parts.push(part))
      response.on('end', () => {
        if (response.statusCode === 200) return resolve()
        reject(new Error(`the function fails a warming call: ${Buffer.concat(parts)}`))
      })
    })
    request.on('error', reject)
    request.end(body)
  })
}

/** Writes the handle, whole or not at all: whoever reads it can make containers. */
function publish (handle, file) {
  const unfinished = `${file}.new`
  fs.writeFileSync(unfinished, handle.reveal(), { mode: 0o600 })
  fs.renameSync(unfinished, file)
}

function take (name) {
  const value = process.env[name]
  delete process.env[name]
  return value
}

require(path.resolve(process.argv[2]))
