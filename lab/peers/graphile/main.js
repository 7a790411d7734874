#!/usr/bin/env node
// Graphile Worker works on the jobs that a trigger adds: one for a row, which POSTs it.
import {readFileSync} from 'node:fs';
import http from 'node:http';
import {runMigrations, run} from 'graphile-worker';
import pg from 'pg';

const {DATABASE_URL: connectionString, TABLE: table, WEBHOOK_URL: url, CONCURRENCY: concurrency = '10'} = process.env;

const capture = `
create schema capture;
create function capture.capture() returns trigger language plpgsql as $$
begin
  perform graphile_worker.add_job('deliver', row_to_json(new));
  return null;
end $$;
create trigger capture after insert on ${table} for each row execute function capture.capture();`;

async function setup() {
  await runMigrations({connectionString});
  const client = new pg.Client({connectionString});
  await client.connect();
  await client.query(capture);
  await client.end();
}

function post(agent, body) {
  return new Promise((resolve, reject) => {
    const request = http.request(url, {
      agent, method: 'POST', headers: {'Content-Type': 'application/json', 'Content-Length': Buffer.byteLength(body)},
    }, (response) => {
      response.resume();
      response.on('end', () => {
        if (response.statusCode >= 200 && response.statusCode < 300) resolve();
        else reject(new Error(`answered ${response.statusCode}`));
      });
      response.on('error', reject);
    });
    request.on('error', reject);
    request.end(body);
  });
}

async function work() {
  const slots = Number(concurrency);
  const agent = new http.Agent({keepAlive: true, maxSockets: slots});
  const runner = await run({
    connectionString, concurrency: slots, noHandleSignals: true, maxPoolSize: 20,
    taskList: {deliver: (payload) => post(agent, JSON.stringify(payload))},
    logger: undefined,
  });
  process.stderr.write('{"msg":"ready"}\n');
  process.on('SIGTERM', () => runner.stop().then(() => process.exit(0)));
  await runner.promise;
}

const commands = {
  setup,
  run: work,
  version: () => {
    const {version} = JSON.parse(readFileSync(new URL('node_modules/graphile-worker/package.json', import.meta.url)));
    process.stdout.write(`Graphile Worker ${version}, a job for each row\n`);
  },
};
const command = commands[process.argv[2]];
if (!command) {
  process.stderr.write('usage: main.js setup|run|version\n');
  process.exit(2);
}
await command();
