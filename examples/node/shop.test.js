import { test, after } from 'node:test'
import assert from 'node:assert/strict'
import pg from 'pg'
import { place, pay } from './shop.js'

// The plumbing: ask the receiver. What did not come as wanted is an error that says what came instead.
const ask = async (path, body, method = body ? 'POST' : 'GET') => {
  const answer = await fetch(process.env.ROWHOOK_SINK_URL + path, { method, body: body && JSON.stringify(body) })
  const json = await answer.json()
  return answer.ok ? json : assert.fail(json.explanation)
}

const db = new pg.Pool({ connectionString: process.env.DATABASE_URL })
after(() => db.end())
const newOrder = () => Math.floor(Math.random() * 2 ** 47) // each test has its own, so all may run at once

test('an order is told to the other systems', async () => {
  const order = newOrder()
  await place(db, order, 'Ada')
  const { deliveries: [told] } = await ask(`/deliveries?trigger=order_placed&path=new.id&value=${order}&wait=5s`)
  assert.equal(told.body.event.data.new.customer, 'Ada')
})

test('a payment is told, signed, and told again until it is heard', async () => {
  const order = newOrder()
  await ask('/behaviour', { trigger: 'order_paid', where: { 'new.id': order }, statuses: [503, 200] }, 'PUT')
  await place(db, order, 'Ada')
  await pay(db, order)
  const { deliveries: tries } = await ask(`/deliveries?trigger=order_paid&path=new.id&value=${order}&attempts=all&count=2&wait=10s`)
  assert.deepEqual(tries.map((t) => t.status), [503, 200])
  assert.equal(tries[1].signature, 'valid')
})

test('an order that is rolled back is told to nobody', async () => {
  const [taken, dropped] = [newOrder(), newOrder()]
  const client = await db.connect()
  await client.query('begin')
  await place(client, dropped, 'Ada')
  await client.query('rollback')
  client.release()
  await place(db, taken, 'Ada')
  await ask('/verify', { match: { trigger: 'order_placed', where: { 'new.id': taken } }, within: '5s' })
  await ask('/verify', { match: { where: { 'new.id': dropped } }, never: true })
})
