'use strict'
// An http server on a unix socket, with a worker, a timer and the thread pool of files at work; it knows
// nothing of being forked.
const crypto = require('node:crypto')
const fs = require('node:fs')
const http = require('node:http')
const { Worker } = require('node:worker_threads')

const worker = new Worker(
  `const { parentPort } = require('node:worker_threads')
   let count = 0
   parentPort.on('message', (text) => parentPort.postMessage([text, ++count]))`,
  { eval: true }
)
let ticks = 0
let asked = 0
setInterval(() => ticks++, 20)

const server = http.createServer(async (request, response) => {
  asked++
  const text = await fs.promises.readFile('/proc/self/status', 'utf8')
  worker.once('message', ([said, count]) => {
    const drawn = crypto.randomBytes(16).toString('hex')
    const answer = { asked, ticks, count, said, drawn, pid: process.pid, read: text.startsWith('Name:') }
    response.end(JSON.stringify(answer))
  })
  worker.postMessage(request.url)
})
server.keepAliveTimeout = 1
server.listen(process.argv[2], () => console.log('ready'))
