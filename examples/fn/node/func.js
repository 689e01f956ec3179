'use strict'
// A function as the FDK wants it: a model that takes long to load, and a handler that uses it.

const os = require('node:os')
const fdk = require('@fnproject/fdk')

const SIDE = 512
const LOADED_AT_NS = process.hrtime.bigint().toString()
const MODEL = load()
let calls = 0

/** The same numbers in each process: what cold containers make anew, and children of a warm one share. */
function load () {
  const model = new Float64Array(SIDE * SIDE)
  let state = 7
  for (let i = 0; i < model.length; i++) {
    state = (state * 48271) % 0x7fffffff
    model[i] = state / 0x7fffffff
  }
  return model
}

/** Says what it was asked, what its model says of it, and who it is. */
async function handler (asked, context) {
  calls++
  const row = asked.row || 0
  if (asked.fail) throw new Error('asked to fail')
  if (asked.sleep_s) await new Promise((resolve) => setTimeout(resolve, asked.sleep_s * 1000))
  const answer = {
    row,
    sum: MODEL.subarray(row * SIDE, (row + 1) * SIDE).reduce((sum, value) => sum + value, 0),
    pid: process.pid,
    host: os.hostname(),
    calls,
    loaded_at_ns: LOADED_AT_NS,
    random: Math.random(),
    call_id: context.callID,
    deadline: context.deadline,
    app: context.appID,
    function: context.fnID,
    method: context.httpGateway.method,
    url: context.httpGateway.requestURL,
    config: context.config.GREETING
  }
  return answer
}

fdk.handle(handler)
